"""load_vectors: batches, order, splits, errors."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import values

tfds = pytest.importorskip("tensorflow_datasets")

from tfp_invconv.data import _builders, load_vectors  # noqa: E402


class TicVectors(_builders.VectorBuilder):
    NUM_FEATURES = 3

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(rows(50)),
            "test": self._generate_examples(rows(7)),
        }


class TicWide(TicVectors):
    """Its files have a number too many."""

    NUM_FEATURES = 2


class TicRace(TicVectors):
    """While it is made, another process makes it."""

    is_first = True

    def _split_generators(self, dl_manager):
        if TicRace.is_first:
            TicRace.is_first = False
            TicRace(data_dir=self.data_dir_root).download_and_prepare()
        return super()._split_generators(dl_manager)


class TicDoubles(_builders.Builder):
    FEATURES = {"vector": tfds.features.Tensor(shape=(4,), dtype=np.float64)}
    _split_generators = _generate_examples = None  # it is refused before

    def _info(self):
        features = tfds.features.FeaturesDict(self.FEATURES)
        return tfds.core.DatasetInfo(builder=self, features=features)


class TicMatrices(TicDoubles):
    FEATURES = {"vector": tfds.features.Tensor(shape=(4, 4), dtype=np.float32)}


class TicLengths(TicDoubles):
    FEATURES = {"vector": tfds.features.Tensor(shape=(None,), dtype=np.float32)}


def rows(count):
    return np.arange(3.0 * count).reshape(count, 3)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    # Several files for a split.
    config = tfds.download.DownloadConfig(num_shards=3)
    TicVectors(data_dir=folder).download_and_prepare(download_config=config)
    return folder


def test_batches_have_static_shapes_and_keep_the_last(data_dir):
    dataset = load_vectors("tic_vectors", "train", 20, data_dir=data_dir)
    assert dataset.element_spec == tf.TensorSpec([None, 3], tf.float32)
    assert int(dataset.cardinality()) == 3
    assert [len(batch) for batch in dataset] == [20, 20, 10]
    assert dataset.options().autotune.enabled is False  # as tests/training/test_tuner.py


def test_train_is_shuffled_anew_and_test_keeps_its_order(data_dir):
    dataset = load_vectors("tic_vectors", "train", 20, data_dir=data_dir)
    first, second = values(dataset), values(dataset)
    for epoch in (first, second):
        assert (epoch != rows(50)).any()
        np.testing.assert_array_equal(epoch[np.argsort(epoch[:, 0])], rows(50))
    assert (first != second).any()
    # From anywhere to anywhere: a third of 50 places on the mean.
    assert 11 < np.mean(abs(first[:, 0] / 3 - np.arange(50))) < 23
    test = load_vectors("tic_vectors", "test", 2, data_dir=data_dir)
    np.testing.assert_array_equal(values(test), rows(7))


def test_parts_of_a_split(data_dir):
    part = load_vectors("tic_vectors", "test[2:5]", data_dir=data_dir)
    np.testing.assert_array_equal(values(part), rows(7)[2:5])
    part = values(load_vectors("tic_vectors", "train[30%:]", data_dir=data_dir))
    np.testing.assert_array_equal(np.sort(part[:, 0]), rows(50)[15:, 0])
    assert (part[:, 0] != rows(50)[15:, 0]).any()


def test_seed_decides_the_order(data_dir):
    def epoch(seed):
        return values(load_vectors("tic_vectors", data_dir=data_dir, seed=seed))

    np.testing.assert_array_equal(epoch(1), epoch(1))
    assert (epoch(1) != epoch(2)).any()


@pytest.mark.parametrize(
    "error, words, arguments",
    [
        (ValueError, "unknown data set 'POWERS'; similar names: .*power", ["POWERS"]),
        (
            ValueError,
            "'caltech101_silhouettes' has no feature 'vector'.*it has image, label",
            ["caltech101_silhouettes"],
        ),
        (TypeError, "vectors of dtype .*float64.*needs float32", ["tic_doubles"]),
        (ValueError, r"vectors of shape \(4, 4\).*static shape \[N\]", ["tic_matrices"]),
        (ValueError, r"vectors of shape \(None,\).*static shape \[N\]", ["tic_lengths"]),
        (ValueError, "'valid' of data set 'tic_vectors' .*'test': 7", ["tic_vectors", "valid"]),
        (
            ValueError,
            r"'test\[:0\]' of data set .*empty.*at least one",
            ["tic_vectors", "test[:0]"],
        ),
        (
            ValueError,
            r"'test\[6:3\]' of data set .*empty.*at least one",
            ["tic_vectors", "test[6:3]"],
        ),
        (TypeError, "name must be a string, got None", [None]),
        (TypeError, "split must be a string, got 3", ["tic_vectors", 3]),
        (ValueError, "batch_size must be at least 1, got 0", ["tic_vectors", "train", 0]),
        (TypeError, "batch_size must be an integer, got 2.5", ["tic_vectors", "train", 2.5]),
        (TypeError, "batch_size must be an integer, got True", ["tic_vectors", "train", True]),
    ],
)
def test_errors(data_dir, error, words, arguments):
    with pytest.raises(error, match="load_vectors: .*" + words):
        load_vectors(*arguments, data_dir=data_dir)


def test_files_with_too_many_numbers_or_an_infinity_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="'tic_wide' give 3 numbers for each .* must be 2"):
        load_vectors("tic_wide", data_dir=tmp_path)
    monkeypatch.setitem(globals(), "rows", lambda count: np.diag([1.0, np.inf, 1.0]))
    with pytest.raises(ValueError, match="'tic_vectors' give numbers that are not finite"):
        load_vectors("tic_vectors", data_dir=tmp_path)


def test_seed_must_be_an_integer(data_dir):
    with pytest.raises(TypeError, match="load_vectors: seed must be an integer, got None"):
        load_vectors("tic_vectors", data_dir=data_dir, seed=None)


def test_two_processes_may_make_one_data_set(tmp_path):
    np.testing.assert_array_equal(
        values(load_vectors("tic_race", "test", data_dir=tmp_path)), rows(7)
    )
    assert [path.name for path in (tmp_path / "tic_race").iterdir()] == ["1.0.0"]
