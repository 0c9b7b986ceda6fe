"""Image data sets as batches of dequantised pixels."""

import numpy as np
import tensorflow as tf

from tfp_invconv._utils import datasets
from tfp_invconv._utils.types import PathLike
from tfp_invconv.data import _tfds
from tfp_invconv.data.digits import Digits
from tfp_invconv.data.noise import dequantize

__all__ = ["load_images"]

# How much memory decoded images may take. A larger split is streamed through a shuffle buffer
# of this size.
_MEMORY_BYTES = 200 * 2**20


def load_images(
    name: str = "digits",
    split: str = "train",
    batch_size: int = 64,
    *,
    data_dir: PathLike | None = None,
    size_multiple: int = 1,
    fit: str = "pad",
    with_labels: bool = False,
    seed: int = 0,
) -> tf.data.Dataset:
    """Loads scikit-learn's digits, or a TFDS image data set, as batches of `pixel + U[0, 1)`.

    A flow is a density over real numbers, and pixels are whole numbers. The noise makes the
    flow's density a lower bound of the probability of the pixels (dequantisation). Pixels are
    not scaled: `tf.floor` restores them exactly.

    A split whose name starts with "train" is shuffled and gets new noise at every epoch. Any
    other split keeps its order and its noise (for one `batch_size` and `seed`), so that an
    evaluation repeats to the last digit. In training, order and noise repeat from run to run
    if `seed` and the seed given to `tf.random.set_seed` are the same.

    A split of up to 200 MB of pixels is decoded once, by this call, and kept in memory. A
    larger one is decoded at every epoch and shuffled through a buffer of that size.

    Args:
      name: "digits", the 8x8 digits of scikit-learn, with pixels from 0 to 16: 1,500 images in
        "train" and 297 in "test". They need neither a download nor TFDS. Or the name of a TFDS
        data set, as for `tfds.load` ("cifar10", "name/config:1.0.0"), which is downloaded at
        its first use. It needs a feature "image" of dtype uint8 and of one static shape
        `[H, W, C]`. This package adds "caltech101_silhouettes" to TFDS, whose pixels, like
        those of "binarized_mnist", are 0 or 1.
      split: TFDS split, such as "train", "test", "train[:1000]", "test[50%:]".
      batch_size: Number of images in a batch. The last batch of a split may be smaller.
      data_dir: Directory of the prepared TFDS data sets. None is TFDS's default,
        `~/tensorflow_datasets`.
      size_multiple: H and W become multiples of this number, so that a flow can squeeze the
        images.
      fit: "pad" to the next multiple with zeros, or "crop" to the previous one. Both centre the
        image.
      with_labels: Whether each image comes with its label, as `FlowModel.fit` takes it for a
        conditional flow.
      seed: Integer seed of the noise and of the order.

    Returns:
      A prefetched `tf.data.Dataset` of known cardinality. Its elements are float32
      `[B, H, W, C]` with static H, W and C; with labels, pairs of these and int32 `[B]`.

    Raises:
      ValueError: If the data set or the split does not exist, the split is empty, the feature
        "image" is missing or has no static shape, labels are wanted and missing, or an argument
        is out of range.
      TypeError: If the images are not uint8, the labels are not integers, or an argument has
        the wrong type.
      OSError: If the data set cannot be downloaded or written.
      ImportError: If scikit-learn, for "digits", or tensorflow_datasets, for any other name,
        cannot be imported.

    #### Examples

    >>> from tfp_invconv.data import load_images
    >>> images = load_images("digits", "test", batch_size=100)
    >>> images.element_spec.shape
    TensorShape([None, 8, 8, 1])
    >>> [batch.shape[0] for batch in images]
    [100, 100, 97]
    >>> load_images("digits", "test", batch_size=100, with_labels=True).element_spec[1].shape
    TensorShape([None])
    """
    _check_arguments(name, split, batch_size, size_multiple, fit, with_labels, seed)
    source = Digits() if name == "digits" else _TfdsImages(name, data_dir, with_labels)
    height, width, channels = source.shape
    target_height = _fitted_size(height, size_multiple, fit, "height", name)
    target_width = _fitted_size(width, size_multiple, fit, "width", name)
    source.prepare()
    try:
        images = source.read(split)
        num_images = int(images.cardinality())
        if num_images < 1:
            raise ValueError("it is empty")
    except ValueError as error:
        sizes = source.split_sizes
        raise _tfds.split_error(name, sizes, split, error, "load_images") from error
    num_in_memory = min(num_images, max(1, _MEMORY_BYTES // (height * width * channels)))
    if num_in_memory == num_images:
        # `cache()` would warn whenever a first pass stops early, as `take(1)` does.
        images = tf.data.Dataset.from_tensor_slices(images.batch(num_images).get_single_element())
    is_train = split.startswith("train")
    if is_train:
        images = images.shuffle(num_in_memory, seed=seed, reshuffle_each_iteration=True)

    def dequantise(pixels_and_labels, noise_seed):
        pixels, labels = pixels_and_labels
        pixels = tf.image.resize_with_crop_or_pad(pixels, target_height, target_width)
        pixels = dequantize(pixels, tf.stack([noise_seed, seed]))
        return (pixels, labels) if with_labels else pixels

    if is_train:
        noise_seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    else:
        # tf.random.set_seed, which a training script may call, does not change a counter.
        noise_seeds = tf.data.Dataset.counter()
    batches = tf.data.Dataset.zip(images.batch(batch_size), noise_seeds)
    batches = batches.map(dequantise, num_parallel_calls=tf.data.AUTOTUNE)
    return datasets.without_tuner(batches.prefetch(tf.data.AUTOTUNE))


def _check_arguments(name, split, batch_size, size_multiple, fit, with_labels, seed):
    """Checks the arguments before the data set is opened."""
    integers = {"batch_size": batch_size, "size_multiple": size_multiple, "seed": seed}
    _tfds.check_arguments("load_images", {"name": name, "split": split}, integers)
    if fit not in ("pad", "crop"):
        raise ValueError(f"load_images: fit must be 'pad' or 'crop', got {fit!r}.")
    if not isinstance(with_labels, bool):
        raise TypeError(f"load_images: with_labels must be True or False, got {with_labels!r}.")


def _fitted_size(size, multiple, fit, axis, name):
    """Rounds `size` to a multiple: up for padding, down for cropping."""
    fitted = size // multiple * multiple if fit == "crop" else -(-size // multiple) * multiple
    if fitted == 0:
        raise ValueError(
            f"load_images: fit='crop' to a multiple of {multiple} leaves nothing of the "
            f"{axis} {size} of data set {name!r}; it needs size_multiple <= {size} or fit='pad'."
        )
    return fitted


class _TfdsImages:
    """The images and labels of a TFDS data set."""

    def __init__(self, name, data_dir, with_labels):
        self._tfds = _tfds.import_tfds("load_images")
        self._name, self._data_dir, self._with_labels = name, data_dir, with_labels
        self._builder = _tfds.find_builder(self._tfds, name, data_dir, "load_images")
        self.shape = self._image_shape()
        if with_labels:
            self._check_labels()

    def prepare(self):
        """Downloads the data set if it is not there."""
        self._builder = _tfds.prepare(
            self._tfds, self._builder, self._name, self._data_dir, "load_images"
        )

    @property
    def split_sizes(self):
        return _tfds.split_sizes(self._builder)

    def read(self, split):
        """Returns pairs of a uint8 image and its int32 label, or 0 if labels are not wanted."""

        def image_and_label(example):
            return example["image"], (
                tf.cast(example["label"], tf.int32) if self._with_labels else 0
            )

        config = self._tfds.ReadConfig(try_autocache=False)
        examples = self._builder.as_dataset(split=split, read_config=config)
        return examples.map(image_and_label, num_parallel_calls=tf.data.AUTOTUNE)

    def _image_shape(self):
        """Returns the static `[H, W, C]` of the feature "image"."""
        feature = _tfds.find_feature(self._tfds, self._builder, "image", "load_images")
        shape, dtype = feature.shape, feature.np_dtype
        if dtype != np.uint8:
            raise TypeError(
                f"load_images: data set {self._name!r} has images of dtype {dtype}; load_images "
                "needs uint8."
            )
        if len(shape) != 3 or None in shape:
            raise ValueError(
                f"load_images: data set {self._name!r} has images of shape {shape}; load_images "
                "needs one static shape [H, W, C]."
            )
        return shape

    def _check_labels(self):
        """Raises an error unless labels are one integer for each image."""
        feature = _tfds.find_feature(self._tfds, self._builder, "label", "load_images")
        if not np.issubdtype(feature.np_dtype, np.integer):
            raise TypeError(
                f"load_images: data set {self._name!r} has labels of dtype {feature.np_dtype}; "
                "load_images needs integers."
            )
        if feature.shape != ():
            raise ValueError(
                f"load_images: data set {self._name!r} has labels of shape {feature.shape}; "
                "load_images needs one integer for each image."
            )
