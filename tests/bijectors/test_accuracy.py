"""Kernels whose inverse float32 can't compute: what is refused, and what is not."""

import re

import numpy as np
import pytest
import tensorflow as tf
from helpers import away_from_initial, causal_kernel, noise

import tfp_invconv as tic
from tfp_invconv.ops import causal_solve as solver
from tfp_invconv.ops.causal_conv import CORNERS

SHAPE = (12, 9, 3)


@pytest.mark.parametrize("layer", [tic.EmergingConv, tic.CInC3x3])
def test_trained_kernels_reconstruct_to_a_hundred_thousandth(layer):
    """Taps as large as those of the main job's flow after training: at most 0.1 off the centre."""
    conv = away_from_initial(layer.trainable([16, 16, 12], seed=0), 0.05)
    x = noise(20, 16, 16, 12, seed=1, dtype=tf.float32)
    back = conv.forward(tf.identity(conv.inverse(x)))
    assert np.max(np.abs(back - x)) < 1e-5 * np.max(np.abs(x))


# By the name in the message: layers with the given kernel, of which EmergingConv has two.
CAUSAL = {
    "autoregressive_conv": tic.AutoregressiveConv,
    "cinc_3x3": tic.CInC3x3,
    "emerging_conv_1": lambda k, **options: tic.EmergingConv(k, tf.zeros_like(k), **options),
    "emerging_conv_2": lambda k, **options: tic.EmergingConv(tf.zeros_like(k), k, **options),
}
all_layers = pytest.mark.parametrize("name", CAUSAL)
both_dtypes = pytest.mark.parametrize("dtype", [tf.float32, tf.float64])


def steep_kernel(dtype, downwards=False):
    """Its inverse grows 13 times a column, or a row."""
    kernel = np.zeros([3, 3, 2, 2])
    kernel[(1, 0) if downwards else (0, 1)] = -13.0 * np.eye(2)
    return tf.constant(kernel, dtype)


def is_refused(layer, name, x):
    """Whether either direction refuses x; both do the same."""
    refused = []
    for function in (layer.inverse, layer.forward):
        try:
            function(tf.identity(x))
            refused.append(False)
        except tf.errors.InvalidArgumentError as error:
            words = f"\\b{name}: `forward` makes rounding errors grow x times.*{x.dtype.name}"
            assert re.search(words, str(error))
            refused.append(True)
    assert refused[0] == refused[1]
    return refused[0]


def round_trip_error(layer, x):
    """Relative to the largest number."""
    back = layer.forward(tf.identity(layer.inverse(x)))
    return np.max(np.abs(back - x)) / np.max(np.abs(x))


@pytest.mark.slow
@both_dtypes
@all_layers
@pytest.mark.parametrize("downwards", [False, True])
def test_validate_args_refuses_growth_beyond_the_dtype_on_large_images(name, dtype, downwards):
    kernel = steep_kernel(dtype, downwards)
    layer = CAUSAL[name](kernel, validate_args=True)
    long, short = noise(1, 3, 32, 2, dtype=dtype), noise(1, 32, 2, 2, dtype=dtype)
    if downwards:
        long, short = (tf.transpose(x, [0, 2, 1, 3]) for x in (long, short))
    assert is_refused(layer, name, long)
    assert not is_refused(layer, name, short)
    unchecked = CAUSAL[name](kernel)
    assert not is_refused(unchecked, name, long)
    assert round_trip_error(unchecked, long) > 1.0
    assert round_trip_error(unchecked, short) < 1e-5


@all_layers
def test_float64_carries_growth_that_float32_does_not(name):
    for dtype in (tf.float32, tf.float64):
        layer = CAUSAL[name](steep_kernel(dtype), validate_args=True)
        refused = is_refused(layer, name, noise(1, 3, 8, 2, dtype=dtype))
        assert refused == (dtype == tf.float32)


@both_dtypes
def test_validate_args_wants_two_digits(dtype):
    x = noise(1, 3, 8, 2, dtype=dtype)
    errors = []
    for scale in np.geomspace(0.3, 40.0, 40):
        kernel = steep_kernel(dtype) * tf.constant(scale, dtype)
        layer = tic.AutoregressiveConv(kernel, validate_args=True)
        growth = solver.error_growth(layer.taps(), [3, 8], "top_left")
        errors.append(float(growth) * np.finfo(dtype.as_numpy_dtype).eps)
        if 0.001 < errors[-1] < 0.1:
            assert is_refused(layer, "autoregressive_conv", x) == (errors[-1] > 0.01)
    assert any(0.001 < e < 0.01 for e in errors) and any(0.01 < e < 0.1 for e in errors)


@both_dtypes
@all_layers
@pytest.mark.parametrize("bad", [0, 1])
def test_validate_args_refuses_one_bad_kernel_of_a_batch(name, dtype, bad):
    kernels = [0.01 * steep_kernel(dtype)] * 2
    x = noise(3, 2, 3, 32, 2, dtype=dtype)
    assert not is_refused(CAUSAL[name](tf.stack(kernels), validate_args=True), name, x)
    kernels[bad] = steep_kernel(dtype)
    assert is_refused(CAUSAL[name](tf.stack(kernels), validate_args=True), name, x)


@both_dtypes
@pytest.mark.parametrize("name", [name for name in CAUSAL if name != "cinc_3x3"])
def test_validate_args_checks_the_dilated_convolution(name, dtype):
    refused = {}
    for dilation in (2, 16):
        layer = CAUSAL[name](steep_kernel(dtype), dilation=dilation, validate_args=True)
        refused[dilation] = is_refused(layer, name, noise(1, 3, 32, 2, dtype=dtype))
    assert refused == {2: True, 16: False}


@pytest.mark.parametrize("downwards", [False, True])
def test_validate_args_checks_the_largest_of_the_dilated_images(downwards):
    """Of nine columns one has five, one four; float32 carries 13^3 but not 13^4."""
    layer = tic.AutoregressiveConv(
        steep_kernel(tf.float32, downwards), dilation=2, validate_args=True
    )
    for length, refused in ((8, False), (9, True)):
        x = noise(1, 2, length, 2, dtype=tf.float32)
        x = tf.transpose(x, [0, 2, 1, 3]) if downwards else x
        assert is_refused(layer, "autoregressive_conv", x) == refused


@pytest.mark.parametrize("corner", CORNERS[2])
def test_validate_args_checks_the_corner_tap(corner):
    """On one pixel the inverse grows from channel to channel."""
    beside = np.eye(32, k=-1 if corner.startswith("bottom") else 1)
    for slope, refused in ((13.0, True), (0.1, False)):
        kernel = tf.constant(-slope * beside[np.newaxis, np.newaxis], tf.float32)
        layer = tic.AutoregressiveConv(kernel, corner=corner, validate_args=True)
        x = noise(1, 1, 1, 32, dtype=tf.float32)
        assert is_refused(layer, "autoregressive_conv", x) == refused


@all_layers
@pytest.mark.parametrize("value", [np.nan, np.inf, -1e6, -1e30])
def test_validate_args_refuses_what_overflows(name, value):
    layer = CAUSAL[name](steep_kernel(tf.float32) / -13.0 * value, validate_args=True)
    assert is_refused(layer, name, noise(1, 3, 32, 2, dtype=tf.float32))


@pytest.mark.slow
@all_layers
@pytest.mark.parametrize("size", [pytest.param(32, marks=pytest.mark.slow), None])
def test_validate_args_refuses_in_a_graph(name, size):
    layer = CAUSAL[name](steep_kernel(tf.float32), validate_args=True)
    signature = [tf.TensorSpec([None, size, size, 2])]
    for function in (layer.inverse, layer.forward):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{name}: `forward` makes"):
            tf.function(function, input_signature=signature)(tf.ones([1, 32, 32, 2]))


def initial_and_trained(layer, dtype=tf.float32):
    rng = np.random.default_rng(0)
    initial = layer.trainable([8, 8, 3], seed=0, dtype=dtype)
    trained = {
        key: value + 0.2 * rng.normal(size=value.shape)
        for key, value in initial.parameters.items()
        if isinstance(value, tf.Variable)
    }
    return initial, initial.copy(**trained)


@both_dtypes
@pytest.mark.parametrize("layer", [tic.AutoregressiveConv, tic.EmergingConv, tic.CInC3x3])
def test_validate_args_changes_nothing_for_the_kernels_of_training(layer, dtype):
    x = noise(4, 8, 8, 3, dtype=dtype)
    for unchecked in initial_and_trained(layer, dtype):
        checked = unchecked.copy(validate_args=True)
        np.testing.assert_array_equal(checked.inverse(x), unchecked.inverse(x))
        np.testing.assert_array_equal(checked.forward(x), unchecked.forward(x))


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("layer", [tic.AutoregressiveConv, tic.EmergingConv, tic.CInC3x3])
def test_validate_args_in_a_graph_of_unknown_sizes(layer, jit_compile):
    _, unchecked = initial_and_trained(layer)
    checked = unchecked.copy(validate_args=True)

    def slope(x, conv):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(conv.forward(tf.identity(conv.inverse(x))) ** 3)
        return tape.gradient(loss, x)

    signature = [tf.TensorSpec([None, None, None, 3])]
    compiled = tf.function(lambda x: slope(x, checked), signature, jit_compile=jit_compile)
    x = noise(4, 8, 8, 3, dtype=tf.float32)
    np.testing.assert_allclose(compiled(x), slope(x, unchecked), rtol=1e-4, atol=1e-4)


@both_dtypes
def test_growth_is_that_of_rounding_errors(dtype):
    rng = np.random.default_rng(0)
    seen = []
    for spread in np.geomspace(0.1, 1.5, 12):
        kernel = tf.constant(causal_kernel(spread), dtype)
        growth = solver.error_growth(kernel, SHAPE[:2], "top_left")
        error = round_trip_error(
            tic.AutoregressiveConv(kernel, tf.math.log(tf.linalg.diag_part(kernel[0, 0]))),
            tf.constant(rng.normal(size=[4, *SHAPE]), dtype),
        )
        ratio = growth * np.finfo(dtype.as_numpy_dtype).eps / error
        assert 0.1 < ratio < 20.0
        seen.append(float(growth))
    assert min(seen) < 10.0 and max(seen) > 1e5


@pytest.mark.parametrize("log_scale", [[0.0, 20.0], [-30.0, 0.0], [-60.0, -60.0]])
def test_scales_of_channels_are_no_growth(log_scale):
    """Nor do they cost digits: each number is rounded by itself."""
    log_scale = tf.constant(log_scale)
    kernel = 0.01 * steep_kernel(tf.float32) * tf.exp(log_scale)
    layer = tic.AutoregressiveConv(kernel, log_scale, validate_args=True)
    x = noise(1, 8, 8, 2, dtype=tf.float32)
    assert not is_refused(layer, "autoregressive_conv", x)
    assert round_trip_error(layer, x) < 1e-5


def test_validate_args_looks_at_height_and_width_apart():
    """A sum of three rows has no third harmonic."""
    rows = np.zeros([3, 3, 1, 1])
    rows[:, 1] = 1.0
    conv = tic.PeriodicConv(rows, validate_args=True)
    assert np.all(np.isfinite(conv.inverse(noise(5, 6, 1, dtype=tf.float64))))
    with pytest.raises(tf.errors.InvalidArgumentError, match="periodic_conv: .* is singular"):
        conv.inverse(noise(6, 5, 1, dtype=tf.float64))
    # Healthy ones of many channels pass in float32.
    healthy = tic.PeriodicConv.trainable([4, 4, 12], seed=0, validate_args=True)
    assert np.all(np.isfinite(healthy.inverse(noise(4, 4, 12, dtype=tf.float32))))
