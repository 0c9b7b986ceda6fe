"""The Caltech 101 silhouettes and binarised MNIST."""

import contextlib
import hashlib
import http.client
import io
import types
import urllib.request
import urllib.response

import numpy as np
import pytest
from helpers import put

tfds = pytest.importorskip("tensorflow_datasets")
scipy_io = pytest.importorskip("scipy.io")

from tfp_invconv.data import _builders, caltech101_silhouettes, load_images  # noqa: E402


def test_silhouettes(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, size=[6, 28, 28], dtype=np.uint8)
    labels = np.array([[1], [101], [7], [8], [9], [10]], np.uint8)
    arrays = {}
    for key, part in (("train", np.s_[:3]), ("val", np.s_[3:4]), ("test", np.s_[4:])):
        # As MATLAB flattens images.
        arrays[f"{key}_data"] = images[part].transpose(0, 2, 1).reshape(-1, 784)
        arrays[f"{key}_labels"] = labels[part]
    source = tmp_path / "source" / "silhouettes.mat"
    source.parent.mkdir()
    scipy_io.savemat(source, arrays)
    monkeypatch.setattr(caltech101_silhouettes, "_URL", source.as_uri())
    checksum = hashlib.md5(source.read_bytes()).hexdigest()
    monkeypatch.setattr(caltech101_silhouettes, "_MD5", checksum)
    parts = {"train+test": [0, 1, 2, 4, 5], "validation": [3], "test": [4, 5]}
    for split, indices in parts.items():
        dataset = load_images(
            "caltech101_silhouettes", split, data_dir=tmp_path, with_labels=True, seed=1
        )
        pixels, classes = dataset.unbatch().batch(10).get_single_element()
        order = np.argsort(classes)
        np.testing.assert_array_equal(np.sort(labels[indices, 0]), classes.numpy()[order] + 1)
        expected = images[indices][np.argsort(labels[indices, 0])]
        np.testing.assert_array_equal(np.floor(pixels.numpy())[order, ..., 0], expected)

    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "downloads" / "manual")
    monkeypatch.setattr(caltech101_silhouettes, "_MD5", None)
    for few_labels in ({}, {"train_labels": labels[:1]}):
        scipy_io.savemat(source, {"train_data": arrays["train_data"], **few_labels})
        put(tmp_path / "downloads" / "manual", {"silhouettes.mat": source.read_bytes()})
        builder = tfds.builder("caltech101_silhouettes", data_dir=tmp_path / "other")
        words = "is not the file of the silhouettes: it needs train_data"
        with pytest.raises(ValueError, match=words):
            builder.download_and_prepare(download_config=config)


def test_wrong_file(tmp_path, monkeypatch):
    files = {"caltech101_silhouettes_28_split1.mat": b"?"}
    put(tmp_path / "downloads" / "manual", files)
    builder = tfds.builder("caltech101_silhouettes", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"split1.mat is not the published file: its MD5 is"):
        builder.download_and_prepare()
    monkeypatch.setattr(caltech101_silhouettes, "_MD5", None)
    with pytest.raises(ValueError, match="no MATLAB file"):
        builder.download_and_prepare()


def test_binarised_mnist_names_its_files_where_there_is_no_network(tmp_path, monkeypatch):
    def fail(self):
        raise OSError("no network")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(OSError, match="'binarized_mnist' cannot be .*: no network") as caught:
        load_images("binarized_mnist", data_dir=tmp_path)
    for part in ("train", "valid", "test"):
        name = f"binarized_mnist_{part}.amat"
        assert f"/{name} as {tmp_path / 'downloads' / 'manual' / name}" in str(caught.value)


def test_a_file_by_hand_goes_before_an_earlier_download(tmp_path):
    """Both of several blocks, whose checksum is that of the whole."""
    content = np.random.default_rng(0).bytes(3 * 2**20)
    put(tmp_path, {"manual/a.mat": content, "tfp_invconv/a.mat": content[::-1]})
    manager = types.SimpleNamespace(manual_dir=tmp_path / "manual", download_dir=tmp_path)
    checksum = hashlib.md5(content).hexdigest()
    found = _builders.fetch(manager, "file:///none/a.mat", checksum)
    assert found == tmp_path / "manual" / "a.mat"
    found.unlink()
    with pytest.raises(ValueError, match="tfp_invconv/a.mat is not the published file: its MD5"):
        _builders.fetch(manager, "file:///none/a.mat", checksum)


def test_a_download_that_ends_early_is_an_error(tmp_path, monkeypatch):
    def urlopen(url, timeout):
        response = urllib.response.addinfourl(io.BytesIO(b"half"), {"Content-Length": "8"}, url)
        return contextlib.closing(response)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    manager = types.SimpleNamespace(manual_dir=tmp_path / "manual", download_dir=tmp_path)
    with pytest.raises(OSError, match="the connection ended after 4 of 8 bytes"):
        _builders.fetch(manager, "https://none/a.mat")
    assert list((tmp_path / "tfp_invconv").iterdir()) == []


def test_a_download_that_breaks_off_says_which_file_to_put_where(tmp_path, monkeypatch):
    def breaks_off(url, path, md5):
        path.write_bytes(b"half")
        raise http.client.IncompleteRead(b"half")

    monkeypatch.setattr(_builders, "_download", breaks_off)
    with pytest.raises(OSError, match="IncompleteRead.*put it at "):
        load_images("caltech101_silhouettes", data_dir=tmp_path)
    assert list((tmp_path / "downloads" / "tfp_invconv").iterdir()) == []
