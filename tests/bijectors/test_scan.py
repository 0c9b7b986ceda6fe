"""Scan: a stack of steps is the chain of them."""

import copy

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
