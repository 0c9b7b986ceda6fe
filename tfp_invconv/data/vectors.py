"""TFDS data sets of vectors as batches."""

import numpy as np
import tensorflow as tf

from tfp_invconv._utils import datasets
from tfp_invconv._utils.types import PathLike
from tfp_invconv.data import _tfds

__all__ = ["load_vectors"]

# Parsing a million records one by one would take a minute.
_PARSED_AT_ONCE = 1024


def load_vectors(
    name: str,
    split: str = "train",
    batch_size: int = 256,
    *,
    data_dir: PathLike | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """Loads a TFDS data set of vectors as batches.

    A split whose name starts with "train" is shuffled at every epoch; any other keeps its order.
    The order repeats from run to run if `seed` and the seed given to `tf.random.set_seed` are
    the same. This call reads the whole split into memory: up to 250 MB for this package's data
    sets.

    Densities are in the units of the vectors. If you divide the vectors by a scale s, subtract
    N log s from their log-density; a scaling bijector in the flow's chain does that.

    Args:
      name: Name of a TFDS data set with a feature "vector" of dtype float32 and of one static
        shape `[N]`. This package adds "bsds300_patches" (63 numbers), "power" (6), "gas" (8),
        "hepmass" (21) and "miniboone" (43) to TFDS, with the splits "train", "validation" and
        "test". They are prepared at their first use; `tfp_invconv.data.bsds300_patches` and
        `tfp_invconv.data.maf` document how, and from which files.
      split: TFDS split, such as "train", "validation", "train[:1000]".
      batch_size: Number of vectors in a batch. The last batch of a split may be smaller.
      data_dir: Directory of the prepared data sets. None is TFDS's default,
        `~/tensorflow_datasets`. Files in its folder `downloads/manual` replace a download.
      seed: Integer seed of the order.

    Returns:
      A prefetched `tf.data.Dataset` of known cardinality. Its elements are float32 `[B, N]` with
      static N.

    Raises:
      ValueError: If the data set or the split does not exist, the split is empty, the feature
        "vector" is missing or has no static shape, a file is damaged or not the published one,
        or an argument is out of range.
      TypeError: If the vectors are not float32, or an argument has the wrong type.
      OSError: If a file cannot be written, or cannot be downloaded. The message then says which
        file to put where.
      ImportError: If tensorflow_datasets, or pandas for "gas", cannot be imported.

    #### Examples

    ```python
    from tfp_invconv.data import load_vectors

    patches = load_vectors("bsds300_patches", "train", batch_size=512)
    ```
    """
    integers = {"batch_size": batch_size, "seed": seed}
    _tfds.check_arguments("load_vectors", {"name": name, "split": split}, integers)
    tfds = _tfds.import_tfds("load_vectors")
    builder = _tfds.find_builder(tfds, name, data_dir, "load_vectors")
    _check_vectors(tfds, name, builder)
    builder = _tfds.prepare(tfds, builder, name, data_dir, "load_vectors")

    vectors = _read_vectors(builder, split)
    order = tf.data.Dataset.range(len(vectors))
    if split.startswith("train"):
        order = order.shuffle(len(vectors), seed=seed, reshuffle_each_iteration=True)
    batches = order.batch(batch_size).map(
        lambda indices: tf.gather(vectors, indices), num_parallel_calls=tf.data.AUTOTUNE
    )
    return datasets.without_tuner(batches.prefetch(tf.data.AUTOTUNE))


def _check_vectors(tfds, name, builder):
    """Raises an error unless vectors are float32 of one static shape `[N]`."""
    feature = _tfds.find_feature(tfds, builder, "vector", "load_vectors")
    if feature.np_dtype != np.float32:
        raise TypeError(
            f"load_vectors: data set {name!r} has vectors of dtype {feature.np_dtype}; "
            "load_vectors needs float32."
        )
    if len(feature.shape) != 1 or None in feature.shape:
        raise ValueError(
            f"load_vectors: data set {name!r} has vectors of shape {feature.shape}; "
            "load_vectors needs one static shape [N]."
        )


def _read_vectors(builder, split):
    """All vectors of a split, `[num_examples, N]`."""
    sizes = _tfds.split_sizes(builder)
    try:
        files = builder.info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        raise _tfds.split_error(builder.name, sizes, split, error, "load_vectors") from error
    if not files:
        raise _tfds.split_error(builder.name, sizes, split, "it is empty", "load_vectors")
    spec = {"vector": builder.info.features.tf_example_spec["vector"]}
    parts = [
        tf.data.TFRecordDataset(file.filename).skip(file.skip).take(file.take) for file in files
    ]
    records = parts[0]
    for part in parts[1:]:
        records = records.concatenate(part)
    parsed = records.batch(_PARSED_AT_ONCE).map(
        lambda batch: tf.io.parse_example(batch, spec)["vector"],
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return tf.constant(np.concatenate(list(parsed.as_numpy_iterator())))
