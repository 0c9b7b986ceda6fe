"""Scalar fields on a periodic lattice: their action, and the spectrum of the lattice."""

import numpy as np
import tensorflow as tf


def action(phi, mass_squared, coupling=0.0):
    """The sum over sites of (gradient phi)^2 + m^2 phi^2 + lambda phi^4 of fields `[n, N..., 1]`.

    The gradient has the differences from the next site along each axis. On a torus the sum of its
    squares is that of -phi Laplacian phi.
    """
    axes = range(1, len(phi.shape) - 1)
    of_sites = mass_squared * phi**2 + coupling * phi**4
    of_sites += sum((tf.roll(phi, 1, axis) - phi) ** 2 for axis in axes)
    return tf.reduce_sum(of_sites, [*axes, -1])


def eigenvalues(sizes):
    """Those of minus the Laplacian, |k|^2 of each wave: `[N...]`, in the order of `np.fft.fftn`."""
    squares = [4 * np.sin(np.pi * np.arange(size) / size) ** 2 for size in sizes]
    return sum(np.meshgrid(*squares, indexing="ij"))
