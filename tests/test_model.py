"""FlowModel: training, evaluation and sampling of any distribution."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic
from tfp_invconv.bijectors.scan import unrolled

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
    with pytest.raises(ValueError, match="flow_model.sample: the temperature must be at least 0"):
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
    with pytest.warns(RuntimeWarning, match="flow_model.sample: 3 of 6 samples are not finite"):
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
    model.fit(x, batch_size=64, epochs=1, shuffle=False, verbose=0)
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
