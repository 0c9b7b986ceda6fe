"""Any TFDS image data set as batches of dequantised pixels."""

import difflib
import numbers
import os

import numpy as np
import tensorflow as tf

from tfp_invconv.data.noise import dequantize

__all__ = ["load_images"]

# Decoded images kept in memory, at most: the whole split if it fits, else the part that
# is shuffled.
_MEMORY_BYTES = 200 * 2**20


def load_images(
    name="digits",
    split="train",
    batch_size=64,
    *,
    data_dir=None,
    size_multiple=1,
    fit="pad",
    seed=0,
):
    """Loads a TFDS image data set as batches of `pixel + U[0, 1)`.

    A flow is a density over real numbers; added to whole-numbered pixels, the noise makes
    its density over `[0, 256)` a lower bound of the probability of the pixels
    (dequantisation). There is no scaling here: `floor` gives the pixels back, exactly.

    A split whose name starts with "train" is shuffled and gets fresh noise, both anew at
    every epoch. Any other split keeps its order and has the same noise at every pass (for
    one `batch_size` and `seed`), so that an evaluation can be repeated to the last digit.
    Order and noise of training repeat from run to run for one `seed` and one
    `tf.random.set_seed`, which TensorFlow mixes into the former.

    A split of up to 200 MB of pixels is decoded once, at this call, and kept in memory; a
    larger one is decoded at every epoch and shuffled through a buffer of that size.

    Args:
      name: Name of a TFDS data set with a feature "image" of dtype uint8 and of one static
        shape `[H, W, C]`, as for `tfds.load` ("cifar10", "name/config:1.0.0"). It is
        downloaded at its first use, except "digits", which is made from scikit-learn.
      split: TFDS split, such as "train", "test", "train[:1000]", "test[50%:]".
      batch_size: Images in a batch. The last batch of a split may be smaller.
      data_dir: Directory of the prepared data sets; None is the default one of TFDS,
        `~/tensorflow_datasets`.
      size_multiple: H and W are made multiples of this number, so that a flow can squeeze
        the images.
      fit: "pad" to the next multiple with zeros, or "crop" to the one before, at the
        centre.
      seed: Integer seed of the noise and of the order.

    Returns:
      A `tf.data.Dataset` of float32 `[B, H, W, C]` with static H, W and C, of known
      cardinality, prefetched.

    Raises:
      ValueError: If there is no such data set or split, the split is empty, there is no
        feature "image" or its shape is not static, or an argument is out of its range.
      TypeError: If the images are not uint8, or an argument is of the wrong type.
      ImportError: If tensorflow_datasets, or scikit-learn for "digits", is not installed.

    #### Examples

    >>> from tfp_invconv.data import load_images
    >>> images = load_images("digits", "test", batch_size=100)
    >>> images.element_spec.shape
    TensorShape([None, 8, 8, 1])
    >>> [batch.shape[0] for batch in images]
    [100, 100, 97]
    """
    _check_arguments(name, split, batch_size, size_multiple, fit, seed)
    tfds = _import_tfds()
    builder = _find_builder(tfds, name, data_dir)
    height, width, channels = _image_shape(tfds, name, builder.info.features)
    target_height = _fitted_size(height, size_multiple, fit, "height", name)
    target_width = _fitted_size(width, size_multiple, fit, "width", name)
    builder.download_and_prepare()

    images = _decoded_images(tfds, builder, name, split)
    num_images = int(images.cardinality())
    num_in_memory = min(num_images, max(1, _MEMORY_BYTES // (height * width * channels)))
    if num_in_memory == num_images:
        # Not `cache()`, which warns whenever a first pass stops early, as `take(1)` does.
        images = tf.data.Dataset.from_tensor_slices(images.batch(num_images).get_single_element())
    is_train = split.startswith("train")
    if is_train:
        images = images.shuffle(num_in_memory, seed=seed, reshuffle_each_iteration=True)

    def dequantise(pixels, noise_seed):
        pixels = tf.image.resize_with_crop_or_pad(pixels, target_height, target_width)
        return dequantize(pixels, tf.stack([noise_seed, seed]))

    if is_train:
        noise_seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    else:
        # Not `random`: tf.random.set_seed, which a training script may call, would change it.
        noise_seeds = tf.data.Dataset.counter()
    batches = tf.data.Dataset.zip(images.batch(batch_size), noise_seeds)
    batches = batches.map(dequantise, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.prefetch(tf.data.AUTOTUNE)


def _check_arguments(name, split, batch_size, size_multiple, fit, seed):
    """Checks what can be checked without the data set."""
    for argument, value in (("name", name), ("split", split)):
        if not isinstance(value, str):
            raise TypeError(f"load_images: {argument} must be a string, got {value!r}.")
    integers = {"batch_size": batch_size, "size_multiple": size_multiple, "seed": seed}
    for argument, value in integers.items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise TypeError(f"load_images: {argument} must be an integer, got {value!r}.")
        if argument != "seed" and value < 1:
            raise ValueError(f"load_images: {argument} must be at least 1, got {value}.")
    if fit not in ("pad", "crop"):
        raise ValueError(f"load_images: fit must be 'pad' or 'crop', got {fit!r}.")


def _import_tfds():
    """Imports TFDS with our own data set registered in it."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "load_images needs tensorflow_datasets, which is not installed: "
            'pip install "tfp_invconv[datasets]".'
        ) from error
    from tfp_invconv.data import digits

    del digits  # registered by its import
    return tfds


def _find_builder(tfds, name, data_dir):
    """The TFDS builder of this name, or an error that lists similar names."""
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        if data_dir is not None and os.path.isdir(data_dir):
            known += os.listdir(data_dir)
        base = name.partition("/")[0].partition(":")[0]
        similar = difflib.get_close_matches(base, sorted(set(known)), n=5)
        # Not chained: the error of TFDS lists a thousand names.
        raise ValueError(
            f"load_images: unknown data set {name!r}; similar names: "
            f"{', '.join(similar) or 'none'}. A data set that TFDS does not define must be "
            f"prepared in the directory given as data_dir, which was {data_dir!r}."
        ) from None
    except ValueError as error:
        raise ValueError(f"load_images: cannot open data set {name!r}: {error}") from error


def _image_shape(tfds, name, features):
    """The static `[H, W, C]` of the feature "image", from the description of the data."""
    names = list(features) if isinstance(features, tfds.features.FeaturesDict) else []
    if "image" not in names:
        raise ValueError(
            f"load_images: data set {name!r} has no feature 'image', which load_images needs; "
            f"it has {', '.join(names) or 'no named features'}."
        )
    shape, dtype = features["image"].shape, features["image"].np_dtype
    if dtype != np.uint8:
        raise TypeError(
            f"load_images: data set {name!r} has images of dtype {dtype}; load_images needs uint8."
        )
    if len(shape) != 3 or None in shape:
        raise ValueError(
            f"load_images: data set {name!r} has images of shape {shape}; load_images needs "
            "one static shape [H, W, C]."
        )
    return shape


def _fitted_size(size, multiple, fit, axis, name):
    """`size` rounded to a multiple: up to pad, down to crop."""
    fitted = size // multiple * multiple if fit == "crop" else -(-size // multiple) * multiple
    if fitted == 0:
        raise ValueError(
            f"load_images: fit='crop' to a multiple of {multiple} leaves nothing of the "
            f"{axis} {size} of data set {name!r}; it needs size_multiple <= {size} or fit='pad'."
        )
    return fitted


def _decoded_images(tfds, builder, name, split):
    """A data set of the uint8 images alone."""
    try:
        examples = builder.as_dataset(split=split, read_config=tfds.ReadConfig(try_autocache=False))
    except ValueError as error:
        sizes = {key: info.num_examples for key, info in builder.info.splits.items()}
        raise ValueError(
            f"load_images: cannot read split {split!r} of data set {name!r} ({error}); "
            f"load_images needs at least one image, and the splits have {sizes}."
        ) from error
    return examples.map(lambda example: example["image"], num_parallel_calls=tf.data.AUTOTUNE)
