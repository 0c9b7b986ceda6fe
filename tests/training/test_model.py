"""FlowModel: training, evaluation and sampling of any distribution."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic
from tfp_invconv.bijectors.scan import unrolled
from tfp_invconv.training import batches

tfb = tfp.bijectors
tfd = tfp.distributions


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


def real_nvp():
    """TFP's own coupling with a Keras 3 network inside a function."""
    network = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(2)]
    )

    def shift_and_log_scale(x, output_units, **kwargs):
        return tf.split(network(x), 2, -1)

    coupling = tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=shift_and_log_scale)
    return tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), coupling)


def plain_chain():
    scale = tfp.util.TransformedVariable([1.0, 1.0], tfb.Exp())
    chain = tfb.Chain([tfb.Shift(tf.Variable([0.0, 0.0])), tfb.Scale(scale)])
    return tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), chain)


@pytest.mark.parametrize(
    "make, variables",
    [(normal, 2), (real_nvp, 4), (plain_chain, 2)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_distributions_of_tfp_train(make, variables):
    x = np.random.default_rng(0).normal(3.0, 2.0, [500, 2]).astype(np.float32)
    model = compiled(make(), rate=0.03)
    assert len(model.trainable_variables) == variables
    before = [v.numpy() for v in model.trainable_variables]
    losses = model.fit(x, batch_size=50, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.5
    for start, variable in zip(before, model.trainable_variables, strict=True):
        assert np.any(start != variable.numpy()), variable.name


@pytest.mark.parametrize("as_dataset", [False, True])
def test_fit_lowers_the_loss_of_a_glow(as_dataset):
    x = images()
    data = tf.data.Dataset.from_tensor_slices(x).batch(24) if as_dataset else x
    model = compiled(small_glow())
    history = model.fit(data, batch_size=None if as_dataset else 24, epochs=6, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 5.0
    np.testing.assert_allclose(
        history["bits_per_dim"], np.array(history["loss"]) / (64 * np.log(2)), rtol=1e-4
    )
    assert len(model.trainable_variables) == len(model.distribution.trainable_variables)


def test_evaluate_and_predict_are_the_density():
    model, x = compiled(small_glow()), images(10)
    expected = model.distribution.log_prob(tf.constant(x))
    np.testing.assert_allclose(model.predict(x, batch_size=4, verbose=0), expected, rtol=1e-5)
    results = model.evaluate(x, batch_size=4, verbose=0, return_dict=True)
    np.testing.assert_allclose(results["loss"], -np.mean(expected), rtol=1e-5)
    np.testing.assert_allclose(
        results["bits_per_dim"], -np.mean(expected) / (64 * np.log(2)), rtol=1e-5
    )


def test_temperature_scales_the_latents_about_the_mean_of_the_base():
    base = tfd.Sample(tfd.Normal(3.0, 2.0), [2])
    model = tic.FlowModel(tfd.TransformedDistribution(base, tfb.Scale(tf.Variable([10.0, -1.0]))))
    samples = {t: model.sample(1000, seed=0, temperature=t).numpy() for t in (0, 0.5, 1.0, 2)}
    np.testing.assert_array_equal(samples[1.0], model.sample(1000, seed=0))
    np.testing.assert_allclose(samples[0], np.tile([30.0, -3.0], [1000, 1]), rtol=1e-5)
    for temperature in (0.5, 2):
        np.testing.assert_allclose(
            samples[temperature] - samples[0], temperature * (samples[1.0] - samples[0]), atol=1e-4
        )


def test_temperature_of_a_glow_with_a_condition():
    model = tic.FlowModel(small_glow(conditional=3, dtype=tf.float64))
    for variable in model.trainable_variables:
        variable.assign_add(0.05 * np.random.default_rng(0).normal(size=variable.shape))
    z = 0.7 * model.distribution.bijector.inverse(model.sample(4, 2, seed=1), condition=2)
    expected = model.distribution.bijector.forward(z, condition=2)
    np.testing.assert_allclose(model.sample(4, 2, seed=1, temperature=0.7), expected, atol=1e-8)


@pytest.mark.parametrize("temperature", [-0.1, float("nan")])
def test_negative_temperature(temperature):
    model = tic.FlowModel(small_glow())
    with pytest.raises(ValueError, match="flow_model.*sample: the temperature must be at least 0"):
        model.sample(2, temperature=temperature)


def test_temperature_needs_latents():
    model = tic.FlowModel(normal())
    assert model.sample(2).shape == [2, 2]
    with pytest.raises(ValueError, match="temperature needs a distribution with a bijector"):
        model.sample(2, temperature=0.5)


def test_samples_that_are_not_finite_are_counted():
    scale = tf.Variable([[1.0, 1.0], [np.inf, 1.0]])
    flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), tfb.Scale(scale))
    model = tic.FlowModel(flow)
    with pytest.warns(RuntimeWarning, match="flow_model.*sample: 3 of 6 samples are not finite"):
        model.sample(3, seed=0)
    scale.assign(tf.ones_like(scale))
    model.sample(3, seed=0)  # a warning would be an error here


def test_sample_weights_weigh_the_loss():
    model, x = compiled(normal()), np.array([[1.0, 1.0], [4.0, 4.0]], np.float32)
    expected = -model.distribution.log_prob(x).numpy()
    weights = np.array([0.5, 2.0], np.float32)
    loss = model.evaluate(x, sample_weight=weights, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(loss, np.mean(weights * expected), rtol=1e-6)


def test_samples_have_the_shape_and_follow_the_seed():
    model = tic.FlowModel(small_glow())
    first = model.sample(3, seed=5)
    assert first.shape == (3, 8, 8, 1)
    np.testing.assert_array_equal(first, model.sample(3, seed=5))
    assert np.any(first != model.sample(3, seed=6))
    assert np.any(model.sample(3) != model.sample(3))


def test_reconstruction_is_exact_to_a_thousandth_of_a_grey_level():
    model, x = compiled(small_glow(conv="emerging"), rate=1e-3), tf.constant(images())
    model.fit(x, epochs=2, verbose=0)
    bijector = model.distribution.bijector
    back = bijector.forward(tf.identity(bijector.inverse(tf.identity(x))))
    assert np.max(np.abs(back - x)) < 1e-3


def test_saved_weights_give_equal_log_probabilities(tmp_path):
    x = images(16)
    model = compiled(small_glow())
    model.fit(x, verbose=0)
    model.save_weights(tmp_path / "model.weights.h5")
    other = compiled(small_glow(seed=1))
    assert np.any(other.predict(x, verbose=0) != model.predict(x, verbose=0))
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))
    # What was loaded is not initialised from data again.
    other.initialize(images(16, seed=3))
    np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))


def test_every_act_norm_is_initialised_from_the_first_batch():
    flow, x = small_glow(), images()
    model = compiled(flow, rate=0.0)
    more = np.concatenate([x, 40 + images(32, seed=1) / 10])
    model.fit(more, batch_size=64, epochs=1, shuffle=False, verbose=0)
    assert not any(getattr(layer, "awaits_data", False) for layer in flow.submodules)
    steps = unrolled(flow.bijector).submodules
    norms = [layer for layer in steps if isinstance(layer, tic.ActNorm)]
    assert len(norms) == 2
    assert all(np.all(norm.log_scale.numpy() != 0) for norm in norms)
    # The first one sees the squeezed, scaled pixels.
    pixels = tic.Squeeze().inverse(x / 256 - 0.5)
    z = next(n for n in norms if n.shift.shape == [4]).inverse(pixels).numpy()
    np.testing.assert_allclose(z.mean((0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(z.std((0, 1, 2)), 1.0, atol=1e-4)


def test_after_an_error_no_act_norm_awaits_data():
    norm = tic.ActNorm.trainable([2])
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
    model = tic.FlowModel(tfd.TransformedDistribution(base, tfb.Chain([norm])))
    with pytest.raises(ValueError, match="events"):
        model.initialize(np.ones([4, 3], np.float32))
    model(np.ones([4, 2], np.float32))
    assert norm.is_identity


def test_a_tensor_that_is_kept_is_evaluated_anew():
    """tensorflow/probability #1510 and #840: the cache of a bijector goes by the tensor."""
    model, x = tic.FlowModel(small_glow()), tf.constant(images(2))
    flow = model.distribution
    latent = flow.bijector.inverse(x)  # While it lives, the bijector has it at hand for this x.
    for variable in model.trainable_variables:
        variable.assign(variable + 0.1)
    assert flow.bijector.inverse(x) is latent
    np.testing.assert_allclose(model(x), flow.log_prob(tf.identity(x)), rtol=1e-5)


def test_float64_is_kept():
    model = compiled(small_glow(dtype=tf.float64))
    x = images(4).astype(np.float64)
    assert model(x).dtype == "float64"
    expected = model.distribution.log_prob(tf.constant(x))
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-12)


def test_no_trainable_variables_is_an_error():
    model = compiled(tfd.Sample(tfd.Normal(0.0, 1.0), [2]))
    with pytest.raises(ValueError, match="has no trainable variables"):
        model.fit(np.zeros([4, 2], np.float32), verbose=0)


def test_nan_in_an_array_says_where():
    x = images(10)
    x[3, 2, 1, 0] = np.nan
    with pytest.raises(ValueError, match=r"not finite at index \(3, 2, 1, 0\): nan"):
        compiled(small_glow()).fit(x, verbose=0)


def test_nan_in_a_data_set_says_where_and_keeps_what_was_learned():
    x = images(12)
    x[9, 2, 1, 0] = np.inf
    model = compiled(small_glow())
    data = tf.data.Dataset.from_tensor_slices(x).batch(4)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"batch\] \[2\] \[at index\] \[\[1 2 1 0\]\]"
    ):
        model.fit(data, verbose=0)
    assert np.all(np.isfinite(model.predict(images(4), verbose=0)))


def test_other_data_are_refused_by_their_type():
    with pytest.raises(TypeError, match="needs a tf.data.Dataset, an array or a keras"):
        compiled(small_glow()).fit((x for x in [images(4)]), verbose=0)


@pytest.mark.parametrize(
    "empty", [images(0), tf.data.Dataset.from_tensor_slices(images(0)).batch(4)]
)
def test_an_empty_data_set_is_an_error(empty):
    with pytest.raises(ValueError, match="there are no data"):
        compiled(small_glow()).fit(empty, verbose=0)


@pytest.mark.parametrize("arguments", [("adam", "mse"), ()])
def test_there_is_no_loss_to_choose(arguments):
    options = {} if arguments else {"loss": keras.losses.MeanSquaredError()}
    with pytest.raises(ValueError, match="compile: there is no loss to choose"):
        tic.FlowModel(normal()).compile(*arguments, **options)


def test_sample_weights_weigh_bits_per_dim_as_they_do_the_loss():
    model, x = compiled(normal()), np.array([[1.0, 1.5], [4.0, 4.5], [0.5, 0.5]], np.float32)
    options = dict(sample_weight=np.array([0.5, 2.0, 7.0], np.float32), batch_size=2, verbose=0)
    results = model.evaluate(x, return_dict=True, **options)
    np.testing.assert_allclose(
        results["bits_per_dim"], results["loss"] / (2 * np.log(2)), rtol=1e-6
    )


def act_norms(model):
    return [m for m in model.distribution.submodules if isinstance(m, tic.ActNorm)]


def gradients(model, x, **options):
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(model(x, **options))
    return tape.gradient(loss, model.trainable_variables)


def fitted_by_an_outer_model(model, x):
    inputs = keras.Input(x.shape[1:])
    outer = keras.Model(inputs, model(inputs))
    outer.compile("sgd", loss=lambda _, log_prob: -tf.reduce_mean(log_prob))
    outer.fit(x, x, verbose=0)


@pytest.mark.parametrize(
    "start",
    [
        lambda model, x: model.train_on_batch(x),
        lambda model, x: gradients(model, x, training=True),
    ],
    ids=["train_on_batch", "eager loop with training=True"],
)
def test_act_norms_are_fitted_where_training_starts(start):
    model, x = compiled(small_glow(), rate=0.0), images()
    start(model, tf.constant(x))
    expected = compiled(small_glow())
    expected.initialize(x)
    for norm, other in zip(act_norms(model), act_norms(expected), strict=True):
        assert not norm.is_identity
        np.testing.assert_allclose(norm.shift, other.shift, rtol=1e-5)
        np.testing.assert_allclose(norm.log_scale, other.log_scale, rtol=1e-5)


@pytest.mark.parametrize(
    "start",
    [gradients, tf.function(gradients), fitted_by_an_outer_model],
    ids=["eager loop", "loop in a function", "outer model"],
)
def test_act_norms_that_nobody_fitted_say_so(start):
    model, x = tic.FlowModel(small_glow()), images()
    with pytest.warns(RuntimeWarning, match="act_norm: training starts, and it is still the ide"):
        start(model, tf.constant(x))
    model.initialize(x)
    start(model, tf.constant(x))  # a warning would be an error here


def test_metrics_without_a_target_say_what_they_get():
    model, x = tic.FlowModel(normal()), np.random.default_rng(0).normal(size=[8, 2])
    model.compile("adam", metrics=["mae"])
    with pytest.raises(ValueError, match="a metric given to `compile` fails with no target"):
        model.evaluate(x, sample_weight=np.ones(8), verbose=0)

    def nats(y_true, y_pred):
        assert y_true is None
        return -tf.reduce_mean(y_pred)

    model.compile("adam", metrics=[nats])
    results = model.evaluate(x, verbose=0, return_dict=True)
    np.testing.assert_allclose(results["nats"], results["loss"], rtol=1e-6)


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return -(-len(self.arrays[0]) // 4)

    def __getitem__(self, index):
        return tuple(array[4 * index : 4 * index + 4] for array in self.arrays)


def from_arrays(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(4)


BATCHED = {
    "arrays": lambda x, c, w: ((x, c), {"sample_weight": w, "batch_size": 4, "shuffle": False}),
    "pair": lambda x, c, w: (((x, c),), {"sample_weight": w, "batch_size": 4, "shuffle": False}),
    "tf.data": lambda x, c, w: ((from_arrays(x, c, w),), {}),
    "PyDataset": lambda x, c, w: ((Batches(x, c, w),), {"shuffle": False}),
}


def conditional_flow():
    coupling = tic.AffineCoupling.trainable([2], condition_size=2, width=4, seed=0)
    chain = tic.ConditionalChain([tic.ActNorm.trainable([2]), coupling])
    return tfd.TransformedDistribution(tfd.MultivariateNormalDiag([0.0, 0.0]), chain)


@pytest.mark.parametrize("kind", BATCHED)
def test_every_kind_of_data_is_fitted_alike(kind):
    """With conditions and weights, whose gradients are those of the mean of w log_prob."""
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 2.0, [8, 2]).astype(np.float32)
    c, w = rng.normal(size=[8, 2]).astype(np.float32), np.float32([1, 0, 2, 5, 0.5, 3, 1, 9])
    model, expected = (tic.FlowModel(conditional_flow()) for _ in range(2))
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    arguments, options = BATCHED[kind](x, c, w)
    history = model.fit(*arguments, verbose=0, **options).history
    expected.initialize((x[:4], c[:4]))
    optimizer, losses = keras.optimizers.SGD(0.1), []
    for part in (slice(4), slice(4, 8)):
        with tf.GradientTape() as tape:
            log_prob = expected((tf.constant(x[part]), tf.constant(c[part])))
            losses.append(-tf.reduce_mean(w[part] * log_prob))
        variables = expected.trainable_variables
        optimizer.apply(tape.gradient(losses[-1], [v.value for v in variables]), variables)
    for variable, other in zip(model.variables, expected.variables, strict=False):
        np.testing.assert_allclose(variable, other, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(history["loss"], [np.mean(losses)], rtol=1e-5)
    np.testing.assert_allclose(
        history["bits_per_dim"], [np.mean(losses) / (2 * np.log(2))], rtol=1e-5
    )


def test_a_py_dataset_is_told_of_epochs_and_keeps_its_workers():
    told = []

    class Told(Batches):
        def on_epoch_begin(self):
            told.append("begin")

        def on_epoch_end(self):
            told.append("end")

    data = Told(np.random.default_rng(0).normal(size=[8, 2]).astype(np.float32))
    data.workers, data.max_queue_size = 2, 3
    model = tic.FlowModel(normal())
    model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    model.fit(data, epochs=2, verbose=0)
    assert told.count("begin") >= 2 and told.count("end") >= 2
    checked = batches.checked((data, None, None), None, "here")
    assert (checked.workers, checked.max_queue_size) == (2, 3)


GLOBAL_NETWORK = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


class Shifts:
    def __init__(self):
        self.network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])

    def bijector_fn(self, outputs):
        return tfb.Shift(self.network(outputs))

    __call__ = bijector_fn


def in_a_closure():
    network = Shifts().network
    return lambda outputs: tfb.Shift(network(outputs))


HIDDEN = {
    "closure": in_a_closure,
    "global": lambda: lambda outputs: tfb.Shift(GLOBAL_NETWORK(outputs)),
    "function in a partial": lambda: functools.partial(in_a_closure()),
    "keyword of a partial": lambda: functools.partial(
        lambda outputs, network: tfb.Shift(network(outputs)), network=Shifts().network
    ),
    "argument of a partial": lambda: functools.partial(
        lambda network, outputs: tfb.Shift(network(outputs)), Shifts().network
    ),
    "method": lambda: Shifts().bijector_fn,
    "object": Shifts,
    "list in a closure": lambda: (lambda networks: lambda outputs: tfb.Shift(networks[0](outputs)))(
        [Shifts().network]
    ),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_networks_in_functions_are_found_and_train(kind):
    coupling = tic.ChannelCoupling([tf.identity], HIDDEN[kind](), event_ndims=1)
    model = tic.FlowModel(
        tfd.TransformedDistribution(tfd.MultivariateNormalDiag([0.0, 0.0]), coupling)
    )
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    before = [v.numpy() for v in model.trainable_variables]
    assert len(before) == 2
    model.fit(images(4)[:, 0, :2, 0] / 100, verbose=0)
    for value, variable in zip(before, model.trainable_variables, strict=True):
        assert np.any(value != variable.numpy())


@pytest.mark.parametrize("kind", BATCHED)
def test_a_nan_anywhere_in_the_data_is_an_error_before_it_is_learned(kind):
    model = compiled(conditional_flow())
    place = "batch 1|batch.*1" if kind in ("tf.data", "PyDataset") else "index"
    for part in ("x", "condition", "sample_weight"):
        rng = np.random.default_rng(0)
        data = {"x": rng.normal(size=[8, 2]), "condition": rng.normal(size=[8, 2])}
        data = {k: v.astype(np.float32) for k, v in {**data, "sample_weight": np.ones(8)}.items()}
        data[part][6] = np.nan
        arguments, options = BATCHED[kind](*data.values())
        errors = (ValueError, tf.errors.InvalidArgumentError)
        with pytest.raises(errors, match=f"{part} is not finite.*({place})"):
            model.fit(*arguments, verbose=0, **options)
        assert all(np.all(np.isfinite(variable)) for variable in model.variables)


def test_initialize_refuses_a_nan():
    x = images(4)
    x[1, 2, 3, 0] = np.nan
    with pytest.raises(ValueError, match=r"initialize: x is not finite at index \(1, 2, 3, 0\)"):
        tic.FlowModel(small_glow()).initialize(x)
    with pytest.raises(ValueError, match="act_norm: the mean or the variance of the data is not"):
        tic.ActNorm.trainable([8, 8, 1]).initialize(x)


def test_an_act_norm_is_initialised_from_an_array():
    norm, x = tic.ActNorm.trainable([8, 8, 1], dtype=tf.float64), images(4)
    norm.initialize(x)
    np.testing.assert_allclose(norm.shift, [-x.mean(dtype=np.float64)], rtol=1e-6)


def test_early_stopping_knows_that_fewer_bits_are_better():
    model, x = compiled(normal(), rate=0.1), 3.0 + images(8)[:, 0, :2, 0] / 100
    for monitor in ("bits_per_dim", "val_bits_per_dim"):
        stop = keras.callbacks.EarlyStopping(monitor, patience=2)
        history = model.fit(
            x, validation_data=(x, None), epochs=6, callbacks=[stop], verbose=0
        ).history
        assert history[monitor][-1] < history[monitor][0]
        assert len(history[monitor]) == 6
    stop = keras.callbacks.EarlyStopping("bits_per_dim", mode="max")
    model.fit(x, epochs=0, callbacks=[stop], verbose=0)
    assert stop.mode == "max"


def test_an_unbatched_data_set_is_an_error():
    model = compiled(small_glow())
    data = tf.data.Dataset.from_tensor_slices(images(4))
    message = r"events of shape \(8, 8, 1\), and x is a single event. .*dataset.batch\(64\)"
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=message):
            call(data, verbose=0)
    model = compiled(normal([]))
    with pytest.raises(ValueError, match="x is a single event"):
        model.fit(tf.data.Dataset.from_tensor_slices(np.ones(4, np.float32)), verbose=0)


@pytest.mark.parametrize("size", [(4, 8, 1), (8, 8, 3)])
def test_events_of_another_shape_are_an_error(size):
    model, x = compiled(small_glow()), np.zeros([4, *size], np.float32)
    for call in (model.fit, model.evaluate, model.predict):
        with pytest.raises(ValueError, match=r"needs batches of events of shape \(8, 8, 1\); got"):
            call(x, verbose=0)


def test_whole_pixels_are_refused_with_what_to_do():
    model, x = compiled(small_glow()), images(4).astype(np.uint8)
    for call in (model.fit, model.evaluate, model.predict):
        with pytest.raises(TypeError, match=r"needs float32, and x is uint8.*dequantize\(x\)") as e:
            call(x, verbose=0)
        assert len(str(e.value)) < 500  # no page of pixels


VALUES = {
    "whole": (lambda x: np.round(x), "whole numbers.*Add noise to them: tic.data.dequantize"),
    "scaled to [0, 1]": (lambda x: x / 256, r"from 0\.\d+ to 0\.\d+, and this is a flow of pixel"),
    "scaled to [-1, 1]": (lambda x: x / 128 - 1, "flow of pixel values from 0 to 256"),
    "far above": (lambda x: 8 * x, "flow of pixel values from 0 to 256"),
    "far below": (lambda x: -8 * x, "flow of pixel values from 0 to 256"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_fit_warns_once_of_values_it_would_learn_an_absurd_density_of(kind):
    model, x = compiled(small_glow(), rate=1e-3), images(8)
    change, message = VALUES[kind]
    epochs = 2 if kind == "whole" else 0
    with pytest.warns(UserWarning, match=message) as warned:
        model.fit(change(x), epochs=epochs, batch_size=4, verbose=0)
    assert len(warned) == 1
    # Here a warning would be an error.
    model.fit(tic.data.dequantize(np.round(x)), epochs=0, verbose=0)


def test_flows_of_any_values_take_any_scale():
    x = np.random.default_rng(0).normal(size=[8, 2]).astype(np.float32)
    model = compiled(tic.conf([2], 1, width=4))
    model.fit(1e-3 * x, verbose=0)
    with pytest.warns(UserWarning, match="whole numbers"):
        model.fit(np.round(10 * x), verbose=0)
    # Whole numbers are what a discrete distribution is of.
    rate = tfp.util.TransformedVariable(1.0, tfb.Exp())
    compiled(tfd.Poisson(rate)).fit(np.array([1.0, 0.0, 3.0], np.float32), verbose=0)


def test_a_bijector_that_needs_to_know_the_number_of_samples():
    def forward(x):
        if x.shape[0] is None:
            raise TypeError("needs a known shape")
        return 2.0 * x

    scale = tfb.Inline(forward_fn=forward, forward_min_event_ndims=1)
    base = tfd.MultivariateNormalDiag(tf.Variable([0.0, 0.0]))
    model = tic.FlowModel(tfd.TransformedDistribution(base, scale))
    assert model.sample(3).shape == [3, 2] and model.sample([2, 2]).shape == [2, 2, 2]
