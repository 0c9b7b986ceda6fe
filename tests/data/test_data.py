"""What load_images promises for any TFDS data set."""

import numpy as np
import pytest
import tensorflow as tf

tfds = pytest.importorskip("tensorflow_datasets")
sklearn_datasets = pytest.importorskip("sklearn.datasets")

from tfp_invconv.data import images as images_module  # noqa: E402
from tfp_invconv.data import load_images  # noqa: E402


class SmallBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Random data of the features that a subclass names."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "For tests."}
    url_infos = None  # as in our own builders
    FEATURES = {"image": tfds.features.Image(shape=(5, 7, 3), dtype=np.uint8)}

    def _info(self):
        features = tfds.features.FeaturesDict(self.FEATURES)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(11), "test": self._generate_examples(9)}

    def _generate_examples(self, num_images):
        for index, image in enumerate(odd_pixels(num_images)):
            yield index, {"image": image}


class TicOddSizes(SmallBuilder):
    pass


class TicVaryingSizes(SmallBuilder):
    FEATURES = {"image": tfds.features.Image(shape=(None, None, 1), dtype=np.uint8)}


class TicFloats(SmallBuilder):
    FEATURES = {"image": tfds.features.Tensor(shape=(4, 4, 1), dtype=np.float32)}


class TicLabelPairs(SmallBuilder):
    FEATURES = {
        **SmallBuilder.FEATURES,
        "label": tfds.features.Tensor(shape=(2,), dtype=np.int64),
    }


class TicFloatLabels(SmallBuilder):
    FEATURES = {**SmallBuilder.FEATURES, "label": tfds.features.Scalar(dtype=np.float32)}


class TicNoImages(SmallBuilder):
    FEATURES = {"scan": tfds.features.Image(shape=(4, 4, 1), dtype=np.uint8)}


def odd_pixels(num_images):
    return np.random.default_rng(num_images).integers(0, 256, [num_images, 5, 7, 3], np.uint8)


def scans():
    return sklearn_datasets.load_digits().images[..., np.newaxis]


def values(dataset):
    return np.concatenate([batch.numpy() for batch in dataset])


def as_set(pixels):
    return sorted(image.tobytes() for image in pixels.astype(np.uint8))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="module")
def load(data_dir):
    return lambda *args, **kwargs: load_images(*args, data_dir=data_dir, **kwargs)


# Batches.


def test_batches_have_static_shapes_and_keep_the_last(load):
    dataset = load(batch_size=64)
    assert dataset.element_spec == tf.TensorSpec([None, 8, 8, 1], tf.float32)
    assert int(dataset.cardinality()) == 24
    assert [len(batch) for batch in dataset] == [64] * 23 + [28]
    assert int(load("digits", "test", 300).cardinality()) == 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_floor_gives_the_pixels_back(load, split):
    dequantised = values(load("tic_odd_sizes", split, 4))
    expected = odd_pixels(11 if split == "train" else 9)
    assert dequantised.dtype == np.float32
    noise = dequantised - np.floor(dequantised)
    assert noise.min() >= 0.0 and noise.max() < 1.0
    if split == "test":
        np.testing.assert_array_equal(np.floor(dequantised), expected)
    assert as_set(np.floor(dequantised)) == as_set(expected)


def test_noise_is_uniform(load):
    dequantised = values(load("digits", "train"))
    histogram, _ = np.histogram(dequantised - np.floor(dequantised), bins=10, range=(0, 1))
    # 96,000 numbers: five standard deviations of a bin's share are 0.0048.
    np.testing.assert_allclose(histogram / dequantised.size, 0.1, atol=0.0048)


def test_noise_never_rounds_up_to_the_next_pixel_value(load, monkeypatch):
    largest = np.nextafter(np.float32(1), np.float32(0))
    monkeypatch.setattr(
        tf.random, "stateless_uniform", lambda shape, seed: tf.fill(shape, tf.constant(largest))
    )
    dequantised = values(load("tic_odd_sizes", "test"))
    np.testing.assert_array_equal(np.floor(dequantised), odd_pixels(9))


def test_train_is_shuffled_and_has_fresh_noise_at_every_epoch(load):
    dataset = load("digits", "train[:300]", 50)
    first, second = values(dataset), values(dataset)
    expected = scans()[:300]
    assert as_set(np.floor(first)) == as_set(np.floor(second)) == as_set(expected)
    assert (np.floor(first) != expected).any()
    assert (np.floor(first) != np.floor(second)).any()
    # From anywhere to anywhere: 100 places on the mean, of 300.
    place = {scan.tobytes(): i for i, scan in enumerate(expected.astype(np.uint8))}
    came_from = [place[scan.tobytes()] for scan in np.floor(first).astype(np.uint8)]
    assert 80 < np.mean(abs(np.array(came_from) - np.arange(300))) < 120

    def sorted_noise(epoch):
        return np.sort((epoch - np.floor(epoch)).ravel())

    # In another order the same noise differs by rounding, 1e-6; fresh noise by about 0.005.
    assert abs(sorted_noise(first) - sorted_noise(second)).max() > 1e-4


def test_noise_differs_between_the_images_of_a_batch_and_between_batches(load):
    dequantised = values(load("digits", "test", 4))[:8]
    noise = dequantised - np.floor(dequantised)
    assert len({image.tobytes() for image in noise}) == 8


def test_test_keeps_its_order_and_its_noise(load):
    dataset = load("digits", "test", 50)
    first, second = values(dataset), values(dataset)
    np.testing.assert_array_equal(np.floor(first), scans()[1500:])
    np.testing.assert_array_equal(first, second)


def test_test_has_its_noise_whatever_the_global_seed(load):
    first = values(load("digits", "test", 50))
    tf.random.set_seed(1)
    np.testing.assert_array_equal(first, values(load("digits", "test", 50)))


@pytest.mark.parametrize("split", ["train[:200]", "test"])
def test_seed_decides(load, split):
    def two_epochs(seed):
        dataset = load("digits", split, 50, seed=seed)
        return np.stack([values(dataset), values(dataset)])

    np.testing.assert_array_equal(two_epochs(1), two_epochs(1))
    assert (two_epochs(1) != two_epochs(2)).any()
    orders_differ = (np.floor(two_epochs(1)) != np.floor(two_epochs(2))).any()
    assert orders_differ == split.startswith("train")


def test_a_split_too_large_for_memory_is_streamed(load, monkeypatch):
    kept = [values(load("tic_odd_sizes", split, 4)) for split in ("train", "test")]
    monkeypatch.setattr(images_module, "_MEMORY_BYTES", 3 * 5 * 7 * 3)
    dataset = load("tic_odd_sizes", "train", 4)
    assert int(dataset.cardinality()) == 3
    streamed = values(dataset)
    assert as_set(np.floor(streamed)) == as_set(np.floor(kept[0]))
    assert (np.floor(streamed) != odd_pixels(11)).any()
    # Through a buffer of three: none comes more than two places early.
    places = {image.tobytes(): i for i, image in enumerate(odd_pixels(11))}
    came_from = [places[image.tobytes()] for image in np.floor(streamed).astype(np.uint8)]
    assert max(np.array(came_from) - np.arange(11)) == 2
    np.testing.assert_array_equal(values(load("tic_odd_sizes", "test", 4)), kept[1])


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("memory", [images_module._MEMORY_BYTES, 100 * 64])
def test_each_image_has_its_label(load, split, memory, monkeypatch):
    monkeypatch.setattr(images_module, "_MEMORY_BYTES", memory)
    dataset = load("digits", split, 50, with_labels=True)
    assert dataset.element_spec == (
        tf.TensorSpec([None, 8, 8, 1], tf.float32),
        tf.TensorSpec([None], tf.int32),
    )
    digits = sklearn_datasets.load_digits()
    label_of = {
        scan.astype(np.uint8).tobytes(): label
        for scan, label in zip(digits.images, digits.target, strict=True)
    }
    images, labels = dataset.unbatch().batch(2000).get_single_element()
    assert len(labels) == (1500 if split == "train" else 297)
    pixels = np.floor(images).astype(np.uint8)
    assert [label_of[scan.tobytes()] for scan in pixels] == labels.numpy().tolist()
    # The images are those that come without labels.
    if split == "test":
        np.testing.assert_array_equal(images, values(load("digits", split, 50)))


# Sizes.


def test_padding_is_symmetric_zeros(load):
    dataset = load("tic_odd_sizes", "test", size_multiple=4)
    assert dataset.element_spec.shape == [None, 8, 8, 3]
    expected = np.pad(odd_pixels(9), [(0, 0), (1, 2), (0, 1), (0, 0)])
    dequantised = values(dataset)
    np.testing.assert_array_equal(np.floor(dequantised), expected)
    # The padding is dequantised like any other pixel.
    assert dequantised[:, 0].min() > 0.0


def test_cropping_is_centred(load):
    dataset = load("tic_odd_sizes", "test", size_multiple=4, fit="crop")
    assert dataset.element_spec.shape == [None, 4, 4, 3]
    np.testing.assert_array_equal(np.floor(values(dataset)), odd_pixels(9)[:, 0:4, 1:5])


# Errors.


@pytest.mark.parametrize(
    "error, words, arguments",
    [
        (ValueError, "unknown data set 'cifar1'; similar names: .*cifar10.*data_dir", ["cifar1"]),
        (ValueError, "unknown data set 'qqq'; similar names: none", ["qqq"]),
        (ValueError, "cannot open data set 'cifar10/none'", ["cifar10/none"]),
        (ValueError, r"'train\[:0\]' of data set 'digits' .*at least one", ["digits", "train[:0]"]),
        (ValueError, r"'test\[7:3\]' of data set 'digits' .*empty", ["digits", "test[7:3]"]),
        (ValueError, "'valid' of data set 'digits' .*'test': 297", ["digits", "valid"]),
        (ValueError, r"'train\[:1501\]' .*'train' has only 1500", ["digits", "train[:1501]"]),
        (ValueError, r"\('train\[5\]' is neither a split nor a slice", ["digits", "train[5]"]),
        (ValueError, "unknown data set 'digit'; similar names: .*digits", ["digit"]),
        (
            ValueError,
            r"'test\[:0\]' of data set 'tic_odd_sizes' .*at",
            ["tic_odd_sizes", "test[:0]"],
        ),
        (ValueError, r"'test\[7:3\]' of .*'tic_odd.* .*empty", ["tic_odd_sizes", "test[7:3]"]),
        (ValueError, "'valid' of data set 'tic_odd.*'test': 9", ["tic_odd_sizes", "valid"]),
        (ValueError, "'tic_no_images' has no feature 'image'.*it has scan", ["tic_no_images"]),
        (ValueError, r"images of shape \(None, None, 1\).*one static shape", ["tic_varying_sizes"]),
        (TypeError, "images of dtype .*float32.*needs uint8", ["tic_floats"]),
        (TypeError, "name must be a string, got 3", [3]),
        (TypeError, "split must be a string, got None", ["digits", None]),
        (ValueError, "batch_size must be at least 1, got 0", ["digits", "train", 0]),
        (TypeError, "batch_size must be an integer, got 2.5", ["digits", "train", 2.5]),
    ],
)
def test_errors(load, error, words, arguments):
    with pytest.raises(error, match="load_images: .*" + words):
        load(*arguments)


@pytest.mark.parametrize(
    "error, words, options",
    [
        (ValueError, "fit must be 'pad' or 'crop', got 'stretch'", {"fit": "stretch"}),
        (ValueError, "size_multiple must be at least 1, got 0", {"size_multiple": 0}),
        (TypeError, "seed must be an integer, got None", {"seed": None}),
        (TypeError, "with_labels must be True or False, got 'yes'", {"with_labels": "yes"}),
        (ValueError, "leaves nothing of the height 8 of", {"size_multiple": 9, "fit": "crop"}),
    ],
)
def test_errors_of_options(load, error, words, options):
    with pytest.raises(error, match="load_images: .*" + words):
        load(**options)


@pytest.mark.parametrize(
    "error, words, name",
    [
        (ValueError, "'tic_odd_sizes' has no feature 'label'.*it has image", "tic_odd_sizes"),
        (ValueError, r"labels of shape \(2,\).*one integer for each image", "tic_label_pairs"),
        (TypeError, "labels of dtype .*float32.*needs integers", "tic_float_labels"),
    ],
)
def test_errors_of_labels(load, error, words, name):
    with pytest.raises(error, match="load_images: .*" + words):
        load(name, with_labels=True)


def test_unknown_name_lists_what_is_in_data_dir(tmp_path):
    (tmp_path / "my_galaxies").mkdir()
    with pytest.raises(ValueError, match="similar names: my_galaxies"):
        load_images("my_galaxy", data_dir=tmp_path)
