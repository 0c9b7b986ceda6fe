"""The spectral scaling against NumPy's Fourier transforms, and Gaussian fields' exact densities."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers import away_from_initial, noise

import tfp_invconv as tic
from tfp_invconv.ops import spectral

tfd = tfp.distributions

# One to three axes, even and odd, and one longer than what is transformed by a matrix.
EVENTS = [(7, 1), (8, 8, 1), (9, 7, 2), (1, 6, 1), (3, 4, 5, 1), (6, 6, 6, 1), (66, 3, 1)]
of_events = pytest.mark.parametrize("event_shape", EVENTS, ids=str)


def wave_numbers(event):
    """|k_i| of each mode of numpy.fft.fftn, for each axis, and |k|."""
    axes = [2 * np.abs(np.sin(np.pi * np.fft.fftfreq(size))) for size in event]
    grids = np.meshgrid(*axes, indexing="ij")
    return grids, np.sqrt(sum(grid**2 for grid in grids))


def knots(k, count):
    """Where the values of a function of these wave numbers stand."""
    positive = k[k > 0]
    return np.append(0.0, np.geomspace(positive.min(), positive.max(), count - 1))


def log_response(function, event_shape, count=12):
    """The parameter for S(k) = function(k), the same of each channel."""
    _, k = wave_numbers(event_shape[:-1])
    return np.repeat(function(knots(k, count))[:, np.newaxis], event_shape[-1], 1)


def in_numpy(x, response):
    """Multiplies the modes of `[batch, ..., C]` by a real response for each channel."""
    axes = tuple(range(1, x.ndim - 1))
    return np.fft.ifftn(np.fft.fftn(x, axes=axes) * response[..., np.newaxis], axes=axes)


@of_events
def test_a_power_of_k_is_exact(event_shape):
    """log |k| is a straight line through the knots."""
    exponent, mean = 0.7, -1.3
    values = log_response(
        lambda k: np.where(k > 0, exponent * np.log(np.maximum(k, 1e-9)), mean), event_shape, 6
    )
    layer = tic.SpectralScaling(values, event_ndims=len(event_shape))
    _, k = wave_numbers(event_shape[:-1])
    logs = np.where(k > 0, exponent * np.log(np.maximum(k, 1e-9)), mean)
    x = noise(3, *event_shape)
    expected = in_numpy(x.numpy(), np.exp(logs))
    assert np.max(abs(expected.imag)) < 1e-12
    np.testing.assert_allclose(layer.inverse(x), expected.real, atol=1e-11)
    back = in_numpy(x.numpy(), np.exp(-logs)).real
    np.testing.assert_allclose(layer.forward(tf.identity(x)), back, atol=1e-11)
    ildj = layer.inverse_log_det_jacobian(tf.identity(x))
    np.testing.assert_allclose(ildj, event_shape[-1] * np.sum(logs), rtol=1e-10)


@pytest.mark.parametrize("mass", [0.1, 1.0])
@pytest.mark.parametrize("event_shape", [(16, 1), (8, 8, 1), (9, 7, 1), (3, 4, 5, 1)], ids=str)
def test_the_density_of_a_free_field(event_shape, mass):
    """Against the multivariate normal whose covariance is the inverse of -laplacian + mass^2."""
    event = event_shape[:-1]
    size = np.prod(event)
    sites = np.eye(size).reshape([size, *event])
    precision = (2 * len(event) + mass**2) * sites
    for axis in range(1, len(event) + 1):
        precision -= np.roll(sites, 1, axis) + np.roll(sites, -1, axis)
    covariance = np.linalg.inv(precision.reshape([size, size]))
    exact = tfd.MultivariateNormalTriL(tf.zeros([size], tf.float64), np.linalg.cholesky(covariance))

    values = log_response(lambda k: np.log(k**2 + mass**2) / 2, event_shape, count=16)
    layer = tic.SpectralScaling(values, event_ndims=len(event_shape))
    base = tfd.Sample(tfd.Normal(tf.constant(0.0, tf.float64), 1.0), event_shape)
    flow = tfd.TransformedDistribution(base, layer)
    x = exact.sample(4, seed=[0, 1])
    log_prob = flow.log_prob(tf.reshape(x, [4, *event_shape]))
    np.testing.assert_allclose(log_prob, exact.log_prob(x), atol=2e-4)


@of_events
@pytest.mark.parametrize("options", [{}, {"mix_channels": True}, {"anisotropic": True}], ids=str)
def test_translations(event_shape, options):
    layer = tic.SpectralScaling.trainable(event_shape, dtype=tf.float64, **options)
    away_from_initial(layer, 0.3)
    x = noise(2, *event_shape)
    z = layer.inverse(x)
    assert np.max(abs(z - x)) > 0.1
    for axis in range(1, len(event_shape)):
        rolled = layer.inverse(tf.roll(x, 1, axis))
        np.testing.assert_allclose(rolled, tf.roll(z, 1, axis), atol=1e-12)
        # Only real responses that are even commute with reflections.
        reflected = layer.inverse(tf.reverse(x, [axis]))
        np.testing.assert_allclose(reflected, tf.reverse(z, [axis]), atol=1e-12)


def test_isotropic_unless_asked():
    options = dict(dtype=tf.float64, num_knots=5)
    x = noise(2, 6, 6, 1)
    for anisotropic in (False, True):
        layer = tic.SpectralScaling.trainable([6, 6, 1], anisotropic=anisotropic, **options)
        z = away_from_initial(layer, 0.3).inverse(tf.identity(x))
        turned = layer.inverse(tf.transpose(x, [0, 2, 1, 3]))
        difference = np.max(abs(tf.transpose(turned, [0, 2, 1, 3]) - z))
        assert difference > 1e-3 if anisotropic else difference < 1e-12


def test_functions_of_each_axis_are_added():
    """log |k_i| of one axis alone, by its own rows."""
    event, count = (5, 6), 4
    grids, _ = wave_numbers(event)
    for axis, k in enumerate(grids):
        values = np.zeros([3, count, 1])
        values[1 + axis] = np.log(np.maximum(knots(k, count), 0.5))[:, np.newaxis]
        layer = tic.SpectralScaling(values.reshape([-1, 1]), anisotropic=True)
        x = noise(1, *event, 1)
        expected = in_numpy(x.numpy(), np.maximum(k, 0.5)).real
        np.testing.assert_allclose(layer.inverse(x), expected, atol=1e-12)


def test_a_positive_matrix_at_each_mode():
    """A mixing that is the same at all knots: exp of the symmetric matrix at each site."""
    logs, mixing = noise(3), noise(3, 3, seed=1).numpy()
    layer = tic.SpectralScaling(np.tile(logs, [4, 1]), np.tile(mixing, [4, 1, 1]))
    lower = np.tril(mixing, -1)
    values, vectors = np.linalg.eigh(lower + lower.T + np.diag(logs))
    matrix = vectors @ np.diag(np.exp(values)) @ vectors.T
    x = noise(2, 4, 5, 3, seed=2)
    np.testing.assert_allclose(layer.inverse(x), x @ matrix, atol=1e-12)
    ildj = layer.inverse_log_det_jacobian(tf.identity(x))
    np.testing.assert_allclose(ildj, 20 * np.sum(logs), rtol=1e-12)


@pytest.mark.parametrize("num_knots", [2, 3, 4, 5, 8, 24])
def test_the_spline_passes_through_its_knots(num_knots):
    """Of an axis whose wave numbers are about the knots'."""
    weights = spectral.interpolation([4096], num_knots)
    k = 2 * np.sin(np.pi * np.arange(2049) / 4096)
    at_knots = [np.argmin(abs(k - knot)) for knot in knots(k, num_knots)[[0, 1, -1]]]
    expected = np.eye(num_knots)[[0, 1, -1]]
    np.testing.assert_allclose(weights[at_knots], expected, atol=1e-11)
    np.testing.assert_allclose(np.sum(weights, 1), 1.0, atol=1e-10)
    # A cubic polynomial in log k is its own interpolation.
    degree = min(num_knots - 2, 3)
    cubic = np.append(5.0, np.log(knots(k, num_knots)[1:] / 2) ** degree)
    np.testing.assert_allclose(
        weights[1:] @ cubic, np.log(k[1:] / 2) ** degree, rtol=1e-8, atol=1e-6
    )


@pytest.mark.parametrize("event", [[1], [7], [8, 8], [9, 7], [1, 5], [3, 4, 5]], ids=str)
def test_every_mode_is_counted(event):
    counts = spectral.mode_counts(event)
    assert len(counts) == np.prod([size // 2 + 1 for size in event])
    _, k = wave_numbers(event)
    weights = spectral.interpolation(event, 5)
    # By halves, the modes of the transform and those of the quadrant have the same sums.
    full = spectral.half_spectrum(tf.constant(weights[:, np.newaxis]), event).numpy()[:, 0]
    rows = np.minimum(np.arange(event[0]), event[0] - np.arange(event[0]))
    every = full.reshape([event[0] // 2 + 1, -1, 5])[rows].reshape([-1, 5])
    np.testing.assert_allclose(np.sum(every, 0), counts @ weights, atol=1e-9)
    assert np.sum(every[:, 0] == 1.0) == np.sum(k == 0) == 1


def test_it_starts_as_the_identity():
    x = noise(2, 5, 4, 3, dtype=tf.float32)
    for options in ({}, {"mix_channels": True, "anisotropic": True}):
        layer = tic.SpectralScaling.trainable([5, 4, 3], **options)
        np.testing.assert_allclose(layer.inverse(x), x, atol=1e-6)
        assert layer.inverse_log_det_jacobian(tf.identity(x)) == 0.0


WRONG = {
    "one knot": (lambda: tic.SpectralScaling.trainable([4, 4, 1], num_knots=1), "at least 2"),
    "half a knot": (lambda: tic.SpectralScaling.trainable([4, 4, 1], num_knots=2.5), "got 2.5"),
    "one row": (lambda: tic.SpectralScaling([[0.0]]), r"K rows for K >= 2 knots; got .*\(1, 1\)"),
    "rows of no axes": (
        lambda: tic.SpectralScaling(np.zeros([8, 1]), anisotropic=True),
        r"3 K rows, K for \|k\| and each axis, for K >= 2 knots; got shape \(8, 1\)",
    ),
    "rows of the mixing": (
        lambda: tic.SpectralScaling(np.zeros([8, 2]), np.zeros([7, 2, 2])),
        r"`mixing` must have shape \[..., 8, 2, 2\]; got \(7, 2, 2\)",
    ),
    "anisotropic": (lambda: tic.SpectralScaling(np.zeros([8, 2]), None, 1), "must be a bool"),
    "a vector": (lambda: tic.SpectralScaling.trainable([5]), r"must be \[T, C\] or \[H, W, C"),
    "channels": (
        lambda: tic.SpectralScaling.trainable([4, 4, 2]).inverse(tf.zeros([4, 4, 3])),
        "needs 2 channels",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    call, words = WRONG[name]
    with pytest.raises(ValueError, match=f"(spectral_scaling|SpectralScaling).*{words}"):
        call()
