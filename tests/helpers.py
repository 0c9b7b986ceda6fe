"""What test modules share: random tensors, small flows and models, data sets."""

import hashlib
import io
import tarfile

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic

tfb, tfd = tfp.bijectors, tfp.distributions


def noise(*shape, seed=0, dtype=tf.float64):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def away_from_initial(module, scale=0.1, seed=0):
    """Moves the trainable variables: many layers start as the identity."""
    rng = np.random.default_rng(seed)
    for variable in module.trainable_variables:
        variable.assign_add(scale * rng.normal(size=variable.shape))
    return module


def as_chain(bijector):
    """The bijector with a chain of today's steps in place of each `Scan` in it."""
    if isinstance(bijector, tic.Scan):
        return tfb.Chain([as_chain(step) for step in bijector])
    if "bijectors" in bijector.parameters:
        return bijector.copy(bijectors=[as_chain(part) for part in bijector.bijectors])
    if hasattr(bijector, "bijector"):
        return bijector.copy(bijector=as_chain(bijector.bijector))
    return bijector


def causal_kernel(spread, size=2, channels=3, seed=0):
    """Random taps; the larger the spread, the worse is the inverse conditioned."""
    rng = np.random.default_rng(seed)
    kernel = spread * rng.normal(size=[size, size, channels, channels])
    kernel[0, 0] = np.triu(kernel[0, 0], 1) + np.diag(np.exp(0.3 * rng.normal(size=channels)))
    return kernel.astype(np.float32)


# Flows, models and their data.


def small_glow(seed=0, **options):
    options = {"conv": "1x1", **options}
    return tic.glow([8, 8, 1], levels=1, depth=2, width=8, seed=seed, **options)


def images(count=64, seed=0):
    """Images whose pixels are much alike: there is something to learn."""
    rng = np.random.default_rng(seed)
    brightness = rng.uniform(20, 200, [count, 1, 1, 1])
    return (brightness + rng.uniform(0, 20, [count, 8, 8, 1])).astype(np.float32)


def compiled(distribution, rate=1e-2):
    model = tic.FlowModel(distribution)
    model.compile(keras.optimizers.Adam(rate))
    return model


def normal(shape=(2,)):
    """A distribution that starts off from the data 3 + 2 N(0, 1)."""
    return tfd.Sample(tfd.Normal(tf.Variable(0.0), tf.Variable(1.0)), shape)


def conditional_flow():
    coupling = tic.AffineCoupling.trainable([2], condition_shape=[2], width=4, seed=0)
    chain = tic.ConditionalChain([tic.ActNorm.trainable([2]), coupling])
    return tfd.TransformedDistribution(tfd.MultivariateNormalDiag([0.0, 0.0]), chain)


def conditional(condition):
    return {"bijector_kwargs": {"condition": condition}}


class Batches(keras.utils.PyDataset):
    """Batches of four."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return -(-len(self.arrays[0]) // 4)

    def __getitem__(self, index):
        return tuple(array[4 * index : 4 * index + 4] for array in self.arrays)


def from_arrays(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(4)


# x, conditions c and weights w as the arguments of `fit`.
BATCHED = {
    "arrays": lambda x, c, w: ((x, c), {"sample_weight": w, "batch_size": 4, "shuffle": False}),
    "pair": lambda x, c, w: (((x, c),), {"sample_weight": w, "batch_size": 4, "shuffle": False}),
    "tf.data": lambda x, c, w: ((from_arrays(x, c, w),), {}),
    "PyDataset": lambda x, c, w: ((Batches(x, c, w),), {"shuffle": False}),
}


def vectors(count=64):
    rng = np.random.default_rng(0)
    return (rng.normal(size=[count, 3]) @ rng.normal(size=[3, 3]) + 4.0).astype(np.float32)


@keras.saving.register_keras_serializable("tests")
def small_flow(seed):
    layers = [
        tic.ActNorm.trainable([3]),
        tic.AffineCoupling.trainable([3], width=4, seed=seed),
    ]
    base = tfd.MultivariateNormalDiag([0.0, 0.0, 0.0])
    return tfd.TransformedDistribution(base, tfb.Chain(layers))


def small_model(optimizer=None, seed=0, **options):
    made = tic.FlowModel(small_flow, seed=seed)
    made.compile(optimizer or keras.optimizers.Adam(0.01), **options)
    return made


def losses(trained, epochs=3, **options):
    return trained.fit(
        vectors(), batch_size=16, epochs=epochs, shuffle=False, verbose=0, **options
    ).history["loss"]


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


def given_parameters(bijector):
    """The names of its parameters that are not None."""
    return [n for n in bijector.parameter_properties() if getattr(bijector, n) is not None]
