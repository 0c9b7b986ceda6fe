"""The Caltech 101 silhouettes and binarised MNIST."""

import hashlib

import numpy as np
import pytest
from helpers import put

tfds = pytest.importorskip("tensorflow_datasets")
scipy_io = pytest.importorskip("scipy.io")

from tfp_invconv.data import caltech101_silhouettes, load_images  # noqa: E402


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

    scipy_io.savemat(source, {"train_data": arrays["train_data"]})
    put(tmp_path / "downloads" / "manual", {"silhouettes.mat": source.read_bytes()})
    checksum = hashlib.md5(source.read_bytes()).hexdigest()
    monkeypatch.setattr(caltech101_silhouettes, "_MD5", checksum)
    builder = tfds.builder("caltech101_silhouettes", data_dir=tmp_path / "other")
    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "downloads" / "manual")
    with pytest.raises(ValueError, match="is not the file of the silhouettes: it needs train_data"):
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
