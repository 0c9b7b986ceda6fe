"""Signals and volumes from distributions whose density is known."""

import numpy as np


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


class TorusFields:
    """Gaussian fields on a torus, `[N, N, N, 1]`, with power (1 + |k|^2 / 4)^-2, variance one."""

    def __init__(self, size):
        k = np.fft.fftfreq(size, 1 / size)
        squares = np.add.outer(np.add.outer(k**2, k**2), k**2)
        power = (1 + squares / 4) ** -2
        self.power = (power / power.mean())[..., np.newaxis]

    def sample(self, count, seed):
        """Returns float32 `[count, N, N, N, 1]`."""
        noise = np.random.default_rng(seed).normal(size=[count, *self.power.shape])
        fields = np.fft.fftn(noise, axes=(1, 2, 3)) * np.sqrt(self.power)
        return np.fft.ifftn(fields, axes=(1, 2, 3)).real.astype(np.float32)

    def log_prob(self, events):
        """The exact log-densities `[n]`."""
        waves = np.fft.fftn(np.asarray(events, np.float64), axes=(1, 2, 3), norm="ortho")
        terms = np.abs(waves) ** 2 / self.power + np.log(2 * np.pi * self.power)
        return -np.sum(terms, (1, 2, 3, 4)) / 2
