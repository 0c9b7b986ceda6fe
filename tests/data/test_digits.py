"""scikit-learn's digits."""

import sys
import types

import numpy as np
import pytest
import tensorflow as tf

tfds = pytest.importorskip("tensorflow_datasets")
sklearn_datasets = pytest.importorskip("sklearn.datasets")

from tfp_invconv.data import load_images  # noqa: E402
from tfp_invconv.data.digits import Digits  # noqa: E402


@pytest.mark.parametrize("split, part", [("train", np.s_[:1500]), ("test", np.s_[1500:])])
def test_digits_are_the_scans_in_order(split, part, capsys):
    digits = Digits()
    digits.prepare()
    pixels, labels = digits.read(split).batch(2000).get_single_element()
    assert capsys.readouterr().out == ""
    expected = sklearn_datasets.load_digits()
    assert pixels.dtype == tf.uint8 and labels.dtype == tf.int32
    assert pixels.shape[1:] == digits.shape == (8, 8, 1)
    np.testing.assert_array_equal(pixels[..., 0], expected.images[part])
    np.testing.assert_array_equal(labels, expected.target[part])
    assert len(labels) == digits.split_sizes[split] == (1500 if split == "train" else 297)


@pytest.mark.parametrize(
    "split",
    ["all", "train+test", "test[:10] + train[10:20]", "train[:50]+train[:50]"]
    + ["train[:100]", "train[100:250]", "train[-50:]", "test[-10:-5]", "train[:1_000]"]
    + ["test[50%:]", "test[:-1%]", "train[10:20%]", "train[10%:20]", "test[33.3%:66.6%]"],
)
def test_slices_of_the_digits_are_those_of_tfds(split):
    digits = Digits()
    digits.prepare()

    def arrays(part):
        return [x.numpy() for x in digits.read(part).batch(2000).get_single_element()]

    scans = {name: arrays(name) for name in ("train", "test")}
    sizes = {name: types.SimpleNamespace(num_examples=len(x)) for name, (x, _) in scans.items()}
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(sizes)
    expected = zip(*([x[i.from_ : i.to] for x in scans[i.splitname]] for i in parts), strict=True)
    for found, pieces in zip(arrays(split), expected, strict=True):
        assert len(found) > 0
        np.testing.assert_array_equal(found, np.concatenate(pieces))


def test_digits_need_no_tfds_and_no_folder(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert sum(map(len, load_images("digits", "test", data_dir=tmp_path / "none"))) == 297
    assert list(tmp_path.iterdir()) == []
