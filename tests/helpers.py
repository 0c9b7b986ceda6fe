"""What several test modules share: random tensors, parameters, small data sets."""

import hashlib
import io
import tarfile

import numpy as np
import tensorflow as tf


def noise(*shape, seed=0, dtype=tf.float64):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def away_from_initial(module, scale=0.1, seed=0):
    """Moves the trainable variables: many layers start as the identity."""
    rng = np.random.default_rng(seed)
    for variable in module.trainable_variables:
        variable.assign_add(scale * rng.normal(size=variable.shape))
    return module


# Data sets. TensorFlow Datasets is imported where it is needed, as in the package.


def values(dataset):
    """All batches of a dataset as one array."""
    return np.concatenate([batch.numpy() for batch in dataset])


def stored(name, data_dir, splits=("train", "validation", "test")):
    """The vectors of each split, in stored order."""
    import tensorflow_datasets as tfds

    from tfp_invconv.data import load_vectors

    load_vectors(name, splits[0], data_dir=data_dir)  # makes it
    loaded = tfds.load(name, split=list(splits), data_dir=data_dir, batch_size=-1)
    return [part["vector"].numpy() for part in loaded]


def put(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def put_archive(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return hashlib.md5(path.read_bytes()).hexdigest()
