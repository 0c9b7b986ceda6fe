"""Signals, volumes, fields and blurred images from distributions whose density is known."""

import numpy as np
from lattice import eigenvalues


class Oscillations:
    """Two channels of one damped oscillation, `[T, 2]`, in noise.

    It sets in at a random time in the first half and decays exponentially. Each channel has a
    random amplitude and phase of its own, and both have one frequency. So a signal is a sine whose
    coefficients are normal if time and frequency are given, and the density is a mean over both.
    """

    DECAY = 16.0
    NOISE = 0.2
    LOWEST, HIGHEST = 0.2, 1.2  # angular frequencies

    def __init__(self, size):
        self.size = size

    def sample(self, count, seed):
        """Returns float32 `[count, T, 2]`."""
        rng = np.random.default_rng(seed)
        waves = self._waves(
            rng.integers(self.size // 2, size=[count, 1]),
            rng.uniform(self.LOWEST, self.HIGHEST, [count, 1]),
        )
        signals = waves @ rng.normal(size=[count, 2, 2])
        return (signals + self.NOISE * rng.normal(size=signals.shape)).astype(np.float32)

    def log_prob(self, events, frequencies=1000):
        """The exact log-densities `[n]`; the mean over frequencies is by the midpoint rule."""
        x = np.asarray(events, np.float64).swapaxes(1, 2).reshape(-1, self.size)
        grid = (np.arange(frequencies) + 0.5) / frequencies
        grid = self.LOWEST + (self.HIGHEST - self.LOWEST) * grid[:, np.newaxis]
        total = -np.inf
        for start in range(self.size // 2):
            # The covariance is NOISE^2 (I + A A^T); both its inverse and its determinant follow
            # from the 2 x 2 matrix I + A^T A.
            a = self._waves(start, grid) / self.NOISE
            inner = np.eye(2) + a.swapaxes(1, 2) @ a
            whitened = a @ np.linalg.inv(np.linalg.cholesky(inner)).swapaxes(1, 2)
            seen = x @ whitened.swapaxes(0, 1).reshape(self.size, -1) / self.NOISE
            seen = np.sum(seen.reshape(-1, 2, frequencies, 2) ** 2, (1, 3))
            given = seen / 2 - np.linalg.slogdet(inner)[1]
            total = np.logaddexp(total, np.logaddexp.reduce(given, -1))
        noise = np.sum(x.reshape(len(events), -1) ** 2, -1) / (2 * self.NOISE**2)
        noise += self.size * np.log(2 * np.pi * self.NOISE**2)
        return total - np.log(frequencies * (self.size // 2)) - noise

    def _waves(self, start, frequency):
        """A decaying cosine and sine: `[..., T, 2]`."""
        time = np.arange(self.size) - start
        decay = np.where(time >= 0, np.exp(-np.maximum(time, 0) / self.DECAY), 0.0)
        angle = frequency * time
        return decay[..., np.newaxis] * np.stack([np.cos(angle), np.sin(angle)], -1)


class GaussianFields:
    """Gaussian fields on a torus with waves of a given power, `[N..., 1]`, and variance one.

    Attributes:
      power: float64 `[N..., 1]`, of the waves as `numpy.fft.fftn` lists them.
    """

    def __init__(self, power):
        self.power = (power / power.mean())[..., np.newaxis]

    def sample(self, count, seed):
        """Returns float32 `[count, N..., 1]`."""
        noise = np.random.default_rng(seed).normal(size=[count, *self.power.shape])
        return filtered(noise, np.sqrt(self.power)).astype(np.float32)

    def log_prob(self, events):
        """The exact log-densities `[n]`."""
        return log_prob_of_fields(events, self.power)


class TorusFields(GaussianFields):
    """Fields with power (1 + |k|^2 / 4)^-2: `[N, N, N, 1]` or, with `ndims=2`, `[N, N, 1]`."""

    def __init__(self, size, ndims=3):
        self.squares = sum(np.meshgrid(*ndims * [np.fft.fftfreq(size, 1 / size) ** 2]))
        super().__init__((1 + self.squares / 4) ** -2)


class LatticeFields(GaussianFields):
    """Fields with power (|k|^2 + mass^2)^-exponent, |k|^2 being minus the lattice's Laplacian.

    With the exponent 1 these are free fields.
    """

    def __init__(self, sizes, mass, exponent=1.0):
        super().__init__((eigenvalues(sizes) + mass**2) ** -exponent)


class LogNormalMaps:
    """Maps of how much a positive field exceeds its mean, relative to it: `[N, N, 1]`.

    The logarithm of the field is Gaussian, as often assumed of the density of matter.
    """

    SPREAD = 0.5  # standard deviation of the logarithm

    def __init__(self, size):
        self.logarithms = LatticeFields([size, size], mass=0.3, exponent=1.5)

    def sample(self, count, seed):
        """Returns float32 `[count, N, N, 1]`, above -1 and of mean zero."""
        logarithms = self.logarithms.sample(count, seed).astype(np.float64)
        return np.expm1(self.SPREAD * logarithms - self.SPREAD**2 / 2).astype(np.float32)

    def log_prob(self, events):
        """The exact log-densities `[n]`."""
        logs = np.log1p(np.asarray(events, np.float64))
        log_prob = self.logarithms.log_prob((logs + self.SPREAD**2 / 2) / self.SPREAD)
        return log_prob - np.sum(logs + np.log(self.SPREAD), (1, 2, 3))


class BlurredFields:
    """Gaussian fields x on a torus, `[N, N, 1]`, and what is measured of them: y = A x + noise.

    The blur A multiplies each wave of x by a number, so the waves of x given y are independent:
    normal, with a variance that does not depend on y and a mean that is linear in y.
    """

    BLUR = 1.0  # standard deviation in pixels
    NOISE = 0.2

    def __init__(self, size):
        self.fields = TorusFields(size, ndims=2)
        angles = (2 * np.pi * self.BLUR / size) ** 2 * self.fields.squares
        self.blur = np.exp(-angles / 2)[..., np.newaxis]
        # Of the waves of x given y.
        self.power = 1 / (1 / self.fields.power + (self.blur / self.NOISE) ** 2)

    @property
    def variance(self):
        """Of a pixel of x given y: the same for all pixels and all y."""
        return np.mean(self.power)

    def sample(self, count, seed):
        """Returns x and y, both float32 `[count, N, N, 1]`."""
        x = self.fields.sample(count, seed)
        noise = np.random.default_rng([seed, 1]).normal(scale=self.NOISE, size=x.shape)
        return x, (filtered(x, self.blur) + noise).astype(np.float32)

    def mean(self, y):
        """The means of x given y, float64 `[n, N, N, 1]`."""
        return filtered(y, self.power * self.blur / self.NOISE**2)

    def log_prob(self, x, y):
        """The exact log-densities `[n]` of x given y."""
        return log_prob_of_fields(x - self.mean(y), self.power)


def filtered(fields, factors):
    """Fields `[n, N..., C]` with their waves multiplied by real factors `[N..., C]`."""
    axes = tuple(range(1, factors.ndim))
    waves = np.fft.fftn(np.asarray(fields, np.float64), axes=axes)
    return np.fft.ifftn(waves * factors, axes=axes).real


def log_prob_of_fields(fields, power):
    """The log-densities of Gaussian fields of mean zero, given the power of their waves."""
    axes = tuple(range(1, power.ndim))
    waves = np.fft.fftn(np.asarray(fields, np.float64), axes=axes, norm="ortho")
    terms = np.abs(waves) ** 2 / power + np.log(2 * np.pi * power)
    return -np.sum(terms.reshape(len(terms), -1), -1) / 2
