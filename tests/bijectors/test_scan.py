"""Scan: a stack of steps is the chain of them."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, noise

import tfp_invconv as tic
from tfp_invconv.bijectors import _loops

tfb = tfp.bijectors
tfd = tfp.distributions
SHAPE = [3, 4, 4]


def image_step(seed, dtype=tf.float64, **options):
    layers = [
        tic.ActNorm.trainable(SHAPE, dtype=dtype),
        tic.HouseholderQR1x1.trainable(SHAPE, seed=seed, dtype=dtype),
        tic.EmergingConv.trainable(SHAPE, seed=seed, dtype=dtype),
        tic.AffineCoupling.trainable(SHAPE, width=4, seed=seed, dtype=dtype, **options),
    ]
    chain = tic.ConditionalChain if options.get("condition_shape") else tfb.Chain
    return away_from_initial(chain(layers), 0.2, seed)


def vector_step(seed):
    """Bijectors of TFP: constants that differ, deferred tensors, inverses and permutations."""
    rng = np.random.default_rng(seed)
    tril = tfp.util.TransformedVariable(
        np.eye(4) + 0.1 * np.tril(rng.normal(size=[4, 4])), tfb.FillScaleTriL(diag_shift=None)
    )
    layers = [
        tfb.Scale(tf.constant(rng.uniform(1.0, 2.0), tf.float64)),
        tfb.Shift(tf.Variable(rng.normal(size=4))),
        tfb.Invert(tfb.ScaleMatvecTriL(tril)),
        tfb.Permute([2, 0, 3, 1]),
        tfb.Reshape([4], [2, 2]),
        tfb.Scale(tf.Variable(rng.uniform(1.0, 2.0, [2, 2]))),
        tfb.Invert(tfb.Reshape([4], [2, 2])),
    ]
    return tfb.Chain(layers)


STEPS = {
    "image": (image_step, SHAPE),
    "vector": (vector_step, [4]),
    "conf": (lambda seed: away_from_initial(conf_step(seed), 0.2, seed), [5]),
}
MODES = {
    "eager": lambda f: f,
    "function": tf.function,
    "xla": lambda f: tf.function(f, jit_compile=True),
}


def conf_step(seed):
    coupling = tic.ConvolutionCoupling.trainable([5], width=4, seed=seed, dtype=tf.float64)
    return tfb.Chain([coupling, tfb.Permute([4, 3, 2, 1, 0])])


def value_and_gradients(bijector, direction, x):
    ndims = x.shape.rank - 1
    with tf.GradientTape() as tape:
        x = tf.identity(x)
        tape.watch(x)
        value = getattr(bijector, direction)(x)
        log_det = getattr(bijector, f"{direction}_log_det_jacobian")(x, ndims)
        loss = tf.reduce_sum(value**3) + tf.reduce_sum(log_det * tf.constant([1.0, 2.0], x.dtype))
    return value, log_det, tape.gradient(loss, [x, *bijector.trainable_variables])


@pytest.mark.parametrize("direction", ["inverse", "forward"])
@pytest.mark.parametrize(
    "kind, mode, options",
    [
        ("image", "eager", {}),
        pytest.param("image", "function", {}, marks=pytest.mark.slow),
        pytest.param("image", "function", {"remat": True}, marks=pytest.mark.slow),
        pytest.param("image", "function", {"unroll": True, "remat": True}, marks=pytest.mark.slow),
        pytest.param("image", "xla", {}, marks=pytest.mark.slow),
        # What a GPU compiles.
        ("vector", "xla", {"unroll": False}),
        pytest.param("image", "xla", {"unroll": False, "remat": True}, marks=pytest.mark.slow),
        ("vector", "function", {}),
        ("vector", "eager", {"unroll": False, "remat": True}),
        pytest.param("conf", "function", {}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_is_the_chain_of_its_steps(kind, mode, options, direction):
    make_step, shape = STEPS[kind]
    steps = [make_step(seed) for seed in range(3)]
    scan = tic.Scan.from_steps(steps, **options)
    x = noise(2, *shape)

    @MODES[mode]
    def run(x):
        return value_and_gradients(scan, direction, x)

    value, log_det, (gradient, *gradients) = run(x)
    expected = value_and_gradients(tfb.Chain(steps), direction, x)
    np.testing.assert_allclose(value, expected[0], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(np.broadcast_to(log_det, [2]), expected[1], rtol=1e-10)
    np.testing.assert_allclose(gradient, expected[2][0], rtol=1e-10, atol=1e-10)
    of_variable = {
        id(v): g
        for b, found in ((scan, gradients), (tfb.Chain(steps), expected[2][1:]))
        for v, g in zip(b.trainable_variables, found, strict=True)
    }
    # In the same order in a step and in the stack of them.
    rows = zip(*(step.trainable_variables for step in steps), strict=True)
    for variable, row in zip(scan.bijector.trainable_variables, rows, strict=True):
        np.testing.assert_allclose(
            of_variable[id(variable)],
            tf.stack([of_variable[id(v)] for v in row]),
            rtol=1e-10,
            atol=1e-10,
            err_msg=variable.name,
        )


def test_each_step_is_an_ordinary_bijector_with_todays_values():
    steps = [image_step(seed) for seed in range(3)]
    scan, x = tic.Scan.from_steps(steps), noise(2, *SHAPE)
    assert len(scan) == len(list(scan)) == 3
    for step, expected in zip(scan, steps, strict=True):
        np.testing.assert_array_equal(step.inverse(tf.identity(x)), expected.inverse(x))
    np.testing.assert_array_equal(
        scan[-1].forward(tf.identity(x)), steps[2].forward(tf.identity(x))
    )
    (shift,) = (v for v in scan.variables if v.name.startswith("shift"))
    shift.assign_add(tf.ones_like(shift))
    later = scan[0].inverse(tf.identity(x))
    assert np.all(later != steps[0].inverse(tf.identity(x)))
    with pytest.raises(IndexError, match="scan: has 3 steps; got the index 3"):
        scan[3]


def test_new_variables_leave_those_of_the_steps_alone():
    steps = [image_step(seed) for seed in range(2)]
    scan = tic.Scan.from_steps(steps)
    before = steps[0].variables[0].numpy()
    scan.variables[0].assign(7.0 * tf.ones_like(scan.variables[0]))
    np.testing.assert_array_equal(steps[0].variables[0], before)
    assert len(scan.variables) == len(steps[0].variables)


def test_a_flow_of_depth_16_traces_its_step_once_per_direction(monkeypatch):
    flow = tic.glow([4, 4, 1], 1, 16, width=4)
    calls = []
    original = tic.EmergingConv._inverse, tic.EmergingConv._forward
    for name, method in zip(("_inverse", "_forward"), original, strict=True):

        def counted(self, x, name=name, method=method):
            calls.append(name)
            return method(self, x)

        monkeypatch.setattr(tic.EmergingConv, name, counted)
    flow.distribution.sample(1)
    tf.function(flow.log_prob)(tf.ones([2, 4, 4, 1]))
    assert calls == ["_inverse"]
    tf.function(flow.sample)(2)
    assert calls == ["_inverse", "_forward"]


@pytest.mark.slow
def test_the_graph_does_not_grow_with_the_steps():
    def operations(depth, **options):
        flow = tic.glow([4, 4, 1], 1, depth, width=4, **options)
        graph = tf.function(flow.log_prob).get_concrete_function(tf.TensorSpec([2, 4, 4, 1])).graph
        functions = graph.as_graph_def().library.function
        return len(graph.get_operations()) + sum(len(f.node_def) for f in functions)

    assert operations(9) == operations(3)
    assert operations(9, unroll=True) > 2 * operations(3, unroll=True)


@pytest.mark.slow
def test_recomputed_steps_keep_little_for_the_gradient():
    def kept(remat):
        scan = tic.Scan.trainable(image_step, 3, remat=remat)

        @tf.function(input_signature=[tf.TensorSpec([2, *SHAPE], tf.float64)])
        def gradient(x):
            return value_and_gradients(scan, "inverse", x)[2]

        # What a loop keeps of each step is an output of it.
        operations = gradient.get_concrete_function().graph.get_operations()
        loops = [operation for operation in operations if operation.type.endswith("While")]
        return max(len(loop.outputs) for loop in loops)

    assert kept(remat=True) < kept(remat=False) - 20


@pytest.mark.parametrize(
    "compiled, gpus, unroll, length, unrolls",
    [
        (True, [], None, 3, True),
        (True, ["GPU:0"], None, 3, False),
        (False, [], None, 3, False),
        (False, [], None, 2, True),
        (True, [], False, 2, False),
        (False, [], True, 3, True),
    ],
)
def test_steps_are_unrolled_if_few_or_under_xla_on_a_cpu(
    monkeypatch, compiled, gpus, unroll, length, unrolls
):
    found = []

    def count(x):
        found.append(_loops.should_unroll(unroll, length))
        return x

    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus)
    tf.function(count, jit_compile=compiled)(tf.ones([1]))
    assert found == [unrolls]
    assert _loops.should_unroll(None, 3)  # eager


@pytest.mark.slow
@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_dropout_is_that_of_the_unrolled_steps(direction, eagerly):
    x, histories = noise(8, 4).numpy().astype(np.float32), []
    for stack in (tic.Scan.from_steps, tfb.Chain):
        steps = [
            away_from_initial(
                tic.AffineCoupling.trainable([4], width=8, dropout=0.5, seed=i), 0.2, i
            )
            for i in range(3)
        ]
        bijector = stack(steps)
        flow = tfd.TransformedDistribution(
            tfd.MultivariateNormalDiag(tf.zeros(4)),
            bijector if direction == "inverse" else tfb.Invert(bijector),
        )
        model = tic.FlowModel(flow)
        model.compile(keras.optimizers.SGD(0.01), run_eagerly=eagerly)
        # In each step the masks differ from call to call.
        fitted = model.fit(x, batch_size=4, epochs=3, shuffle=False, verbose=0)
        histories.append(fitted.history["loss"])
        np.testing.assert_array_equal(*(model.predict(x, verbose=0) for _ in range(2)))
    np.testing.assert_allclose(*histories, rtol=1e-5)


@pytest.mark.slow
def test_an_interrupted_and_resumed_training_equals_an_undisturbed_one(tmp_path):
    x = np.random.default_rng(0).uniform(0, 256, [32, 4, 4, 1]).astype(np.float32)

    def model():
        made = tic.FlowModel(
            tic.glow, event_shape=[4, 4, 1], levels=1, depth=3, width=8, dropout=0.3, seed=0
        )
        made.compile(keras.optimizers.Adam(0.01))
        return made

    def losses(made, epochs):
        return made.fit(x, batch_size=16, epochs=epochs, shuffle=False, verbose=0).history["loss"]

    undisturbed = losses(model(), 4)
    first = model()
    losses(first, 2)
    first.save(tmp_path / "flow.keras")
    resumed = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(losses(resumed, 2), undisturbed[2:])


def test_act_norms_are_fitted_one_after_the_other():
    x = 5.0 + 3.0 * noise(50, *SHAPE)
    initial = [
        tfb.Chain(
            [
                tic.HouseholderQR1x1.trainable(SHAPE, seed=seed, dtype=tf.float64),
                tic.ActNorm.trainable(SHAPE, dtype=tf.float64),
                away_from_initial(
                    tic.DCTSymmetricConv.trainable(SHAPE, dtype=tf.float64), 0.2, seed
                ),
            ]
        )
        for seed in range(3)
    ]
    scan = tic.Scan.from_steps(initial)
    base = tfd.Sample(tfd.Normal(tf.zeros([], tf.float64), 1.0), SHAPE)
    for bijector in (scan, tfb.Chain(initial)):
        tic.FlowModel(tfd.TransformedDistribution(base, bijector)).initialize(x)
    for step, expected in zip(scan, initial, strict=True):
        x = step.bijectors[0].inverse(tf.identity(x))
        normalised = step.bijectors[1].inverse(tf.identity(x))
        np.testing.assert_allclose(tf.reduce_mean(normalised, [0, 1, 2]), np.zeros(4), atol=1e-10)
        np.testing.assert_allclose(step.bijectors[1].shift, expected.bijectors[1].shift)
        x = step.bijectors[2].inverse(normalised)


def test_moving_averages_are_those_of_each_step():
    def step(seed):
        network = keras.Sequential(
            [
                keras.Input([2]),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(4, kernel_initializer=keras.initializers.HeNormal(seed)),
            ]
        )
        return tfb.Chain([tic.AffineCoupling(network, event_ndims=1), tfb.Permute([2, 3, 0, 1])])

    steps = [step(seed) for seed in range(2)]
    scan = tic.Scan.from_steps(steps)
    x = tf.cast(1.0 + noise(8, 4), tf.float32)
    for bijector in (scan, tfb.Chain(steps)):
        base = tfd.MultivariateNormalDiag(tf.zeros(4))
        tic.FlowModel(tfd.TransformedDistribution(base, bijector))(x, training=True)
    (means,) = (v for v in scan.variables if "moving_mean" in v.name)
    assert np.all(means != 0)
    for mean, one in zip(means, steps, strict=True):
        batch_norm = one.bijectors[0].network.layers[0]
        np.testing.assert_allclose(mean, batch_norm.moving_mean, rtol=1e-6)


@pytest.mark.slow
def test_conditions_reach_the_steps():
    steps = [image_step(seed, condition_shape=[3]) for seed in range(2)]
    scan = tic.Scan.from_steps(steps)
    assert scan.takes_condition
    outer = tic.ConditionalChain([tfb.Scale(tf.ones([], tf.float64)), scan])
    x, labels = noise(3, *SHAPE), tf.constant([0, 2, 1])
    expected = tic.ConditionalChain(steps).inverse(x, condition=labels)
    run = tf.function(lambda x, c: outer.inverse(x, condition=c))
    np.testing.assert_allclose(run(x, labels), expected, rtol=1e-10)
    # TFP's own chains as steps.
    plain = tic.Scan.from_steps([tfb.Invert(tfb.Chain([tfb.Invert(step)])) for step in steps])
    np.testing.assert_allclose(plain.inverse(tf.identity(x), condition=labels), expected)
    recomputed = tic.Scan(scan.bijector, 2, remat=True)

    @tf.function
    def of_condition(layer, vectors):
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            loss = tf.reduce_sum(layer.inverse(tf.identity(x), condition=vectors) ** 2)
        return tape.gradient(loss, vectors)

    vectors = noise(3, 3)
    gradient = of_condition(scan, vectors)
    assert np.all(gradient != 0)
    np.testing.assert_allclose(of_condition(recomputed, vectors), gradient, rtol=1e-10)
    with pytest.raises(ValueError, match="affine_coupling: needs a condition"):
        scan.inverse(x)


def test_batches_of_steps_and_unknown_sizes():
    rng = np.random.default_rng(0)
    shifts, kernels = rng.normal(size=[2, 5, 1, 1, 2]), 0.3 * rng.normal(size=[2, 5, 2, 2, 2, 2])
    steps = [
        tfb.Chain([tic.ActNorm(s, 0.0 * s), tic.AutoregressiveConv(k)])
        for s, k in zip(map(tf.Variable, shifts), map(tf.Variable, kernels), strict=True)
    ]
    scan, chain = tic.Scan.from_steps(steps), tfb.Chain(steps)
    assert scan.experimental_batch_shape(x_event_ndims=3) == [5]
    x = noise(3, 4, 2)
    unknown = tf.function(
        scan.inverse, input_signature=[tf.TensorSpec([None, None, 2], tf.float64)]
    )
    np.testing.assert_allclose(unknown(x), chain.inverse(x), rtol=1e-10)
    assert unknown(x).shape == [5, 3, 4, 2]
    ildj = scan.inverse_log_det_jacobian(tf.identity(x), 3)
    np.testing.assert_allclose(ildj, chain.inverse_log_det_jacobian(tf.identity(x), 3))
    base = tfd.Sample(tfd.Normal(tf.zeros([], tf.float64), 1.0), [3, 4, 2])
    assert tfd.TransformedDistribution(base, scan).batch_shape == [5]


def test_frozen_stays_frozen_and_a_stack_is_frozen_by_its_name():
    def step(seed):
        network = tic.networks.mlp([2], 4, width=4, seed=seed)
        network.trainable = False
        return tfb.Chain(
            [tfb.Shift(tf.Variable(tf.zeros(4))), tic.AffineCoupling(network, event_ndims=1)]
        )

    scan = tic.Scan.trainable(step, 2, seed=0)
    flow = tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.Variable(tf.ones(4))), scan)
    model = tic.FlowModel(flow)
    assert [v.name for v in model.trainable_variables][0] == "scan.00.shift.Variable"
    assert len(model.trainable_variables) == 2
    assert len(model.non_trainable_variables) == 6
    for variable in model.flow_variables:
        variable.trainable &= not variable.name.startswith("scan.")
    model.compile(keras.optimizers.SGD(0.1))
    before = [v.numpy() for v in scan.variables]
    model.fit(noise(8, 4).numpy().astype(np.float32), verbose=0)
    assert len(model.trainable_variables) == 1
    for variable, value in zip(scan.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_summary_has_one_row_for_the_steps(capsys):
    model = tic.FlowModel(tic.glow, event_shape=[4, 4, 1], levels=1, depth=5, width=4)
    model.summary()
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("02.steps x 5 ") for line in lines) == 1
    assert sum("act_norm" in line for line in lines) == 1
    assert any(line.split() == ["shift", "(5,", "4)"] for line in lines)


def test_a_copy_has_the_variables_and_a_deep_copy_its_own():
    scan, x = tic.Scan.from_steps([image_step(seed) for seed in range(2)]), noise(2, *SHAPE)
    same, own = scan.copy(remat=True), copy.deepcopy(scan)
    assert same.remat and [id(v) for v in same.variables] == [id(v) for v in scan.variables]
    expected = scan.inverse(tf.identity(x))
    np.testing.assert_array_equal(own.inverse(tf.identity(x)), expected)
    for variable in own.variables:
        variable.assign_add(tf.ones_like(variable))
    np.testing.assert_array_equal(scan.inverse(tf.identity(x)), expected)
    assert np.all(own.inverse(tf.identity(x)) != expected)


def test_what_steps_share_stays_shared():
    def step(seed):
        shift = tf.Variable([0.1 * (seed % 7), 1.0])
        return tfb.Chain([tfb.Shift(shift), tfb.Scale(2.0), tfb.Invert(tfb.Shift(shift))])

    scan = tic.Scan.trainable(step, 3, seed=0)
    assert [variable.shape for variable in scan.variables] == [[3, 2]]


def affine(**options):
    return tic.AffineCoupling.trainable([4], width=4, seed=0, **options)


def network(activation):
    layers = [keras.Input([2]), keras.layers.Dense(4, activation)]
    return tic.AffineCoupling(keras.Sequential(layers), event_ndims=1)


def with_a_variable():
    scale = tf.Variable(1.0)
    return tic.ChannelCoupling([lambda x: scale * x], tfb.Shift, event_ndims=1)


def deferred(transform_fn):
    return tfb.Shift(tfp.util.DeferredTensor(tf.Variable([1.0]), transform_fn))


def with_default(factor):
    def shift(h, *, factor=factor):
        return tfb.Shift(h * factor)

    return tic.ChannelCoupling([tic.networks.mlp([2], 2, width=4)], shift, event_ndims=1)


def shifted(factor, other=False):
    shift = (lambda h: tfb.Shift(h + factor)) if other else (lambda h: tfb.Shift(h * factor))
    return tic.ChannelCoupling([tic.networks.mlp([2], 2, width=4)], shift, event_ndims=1)


@pytest.mark.parametrize(
    "steps, words",
    [
        ([shifted(2.0), shifted(3.0)], "channel_coupling.bijector_fn: steps must be alike"),
        ([shifted(2.0), shifted(2.0, True)], "channel_coupling.bijector_fn: steps must be alike"),
        ([with_default(2.0), with_default(3.0)], "channel_coupling.bijector_fn: steps must be"),
        ([deferred(tf.exp), deferred(tf.square)], "shift.shift.transform_fn: steps must be alike"),
        ([], "scan: needs at least one step"),
        ([tfb.Scale(2.0), tfb.Shift(2.0)], "scan: steps must be alike .* Scale and Shift"),
        ([affine(), affine(log_scale_bound=2.0)], r"affine_coupling.log_scale_bound: .* got 1.0"),
        ([network("relu"), network("tanh")], "network's layers: steps must be alike"),
        (
            [tfb.Shift(tf.Variable([1.0])), tfb.Shift(tf.Variable([1.0, 2.0]))],
            r"scan.shift.shift: variables .* float32.* \(1,\) .* \(2,\)",
        ),
        (
            [tfb.Chain([tfb.Scale(2.0)]), tfb.Chain([tfb.Scale(2.0)] * 2)],
            "unequal lengths",
        ),
        ([with_a_variable()] * 2, r"networks\[0\]: variables in functions can't be stacked"),
    ],
)
def test_what_can_not_be_stacked_says_where(steps, words):
    with pytest.raises(ValueError, match=words):
        tic.Scan.from_steps(steps)


def test_a_stack_is_aggregated_as_its_variables():
    mean = tf.VariableAggregation.MEAN
    steps = [tfb.Shift(tf.Variable([i], aggregation=mean)) for i in (1.0, 2.0)]
    assert [v.aggregation for v in tic.Scan.from_steps(steps).variables] == [mean]


def test_functions_of_equal_code_and_values_are_alike():
    assert len(tic.Scan.from_steps([shifted(2.0), shifted(2.0)]).variables) == 6


def test_bad_arguments():
    with pytest.raises(ValueError, match="scan: `length` must be a positive integer; got 0"):
        tic.Scan.trainable(vector_step, 0)
    stack = tfb.Shift(tf.Variable([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"scan: a stack of 3 steps .* of shape \(2,\)"):
        tic.Scan(stack, 3)
    squeezes = tic.Scan.from_steps([tic.Squeeze()] * 2)
    with pytest.raises(ValueError, match=r"scan: steps must keep the shape .* \(2, 2, 4\) of"):
        squeezes.inverse(tf.ones([4, 4, 1]))
    with pytest.raises(ValueError, match=r"scan: needs an input of shape \[..., H, W, C\]"):
        tic.Scan.from_steps([tic.CInC3x3.trainable([2, 2, 1])]).inverse(tf.ones([2, 1]))


def test_a_state_that_changes_outside_of_training_is_refused():
    class Counts(keras.layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign_add(1.0)
            return tf.concat([x, x], -1)

    def step(seed):
        network = keras.Sequential([keras.Input([2]), Counts()])
        return tic.AffineCoupling(network, event_ndims=1)

    scan = tic.Scan.trainable(step, 2)
    with pytest.raises(ValueError, match="scan: network .* changes its variable .* outside"):
        scan.inverse(tf.ones([3, 4]))
