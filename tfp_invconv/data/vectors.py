"""TFDS data sets of vectors as batches."""

import numpy as np
import tensorflow as tf

from tfp_invconv._utils.types import PathLike
from tfp_invconv.data import _tfds

__all__ = ["load_vectors"]

# Records parsed at once: one by one, a million of them take a minute.
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

    A split whose name starts with "train" is shuffled anew at every epoch; any other keeps its
    order. The order repeats from run to run for one `seed` and one `tf.random.set_seed`, which
    TensorFlow mixes into it. A split is read once, at this call, and kept in memory: 250 MB for
    the largest of ours.

    Densities are in the units of the vectors. A flow that first divides them by a scale s must
    count it, -N log s, as a bijector in its chain does.

    Args:
      name: Name of a TFDS data set with a feature "vector" of dtype float32 and of one static
        shape `[N]`. Ours, made at their first use, are "bsds300_patches" (63 numbers), and
        "power" (6), "gas" (8), "hepmass" (21) and "miniboone" (43), with the splits "train",
        "validation" and "test"; `tfp_invconv.data.bsds300_patches` and `tfp_invconv.data.maf`
        say how they are made and of which files.
      split: TFDS split, such as "train", "validation", "train[:1000]".
      batch_size: Vectors in a batch. The last batch of a split may be smaller.
      data_dir: Directory of the prepared data sets; None is the default one of TFDS,
        `~/tensorflow_datasets`. Files put into `downloads/manual` in it are used instead of a
        download.
      seed: Integer seed of the order.

    Returns:
      A `tf.data.Dataset` of float32 `[B, N]` with static N, of known cardinality, prefetched.

    Raises:
      ValueError: If there is no such data set or split, the split is empty, there is no
        feature "vector" or its shape is not static, a file is damaged, or an argument is out of
        its range.
      TypeError: If the vectors are not float32, or an argument is of the wrong type.
      OSError: If a file cannot be downloaded (it says which file to put where) or written.
      ImportError: If tensorflow_datasets, or pandas for "gas", is not installed.

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
    return batches.prefetch(tf.data.AUTOTUNE)


def _check_vectors(tfds, name, builder):
    """Refuses what is not float32 of one static shape `[N]`, from the description of the data."""
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
