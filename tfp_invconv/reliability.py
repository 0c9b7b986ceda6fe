"""Checks of a trained flow: are its inverses exact on data, and are its samples near the data?"""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils.types import TensorLike

# In multiples of the range of the data.
_FAR_OUT = 3.0


def reconstruction_error(
    distribution: tfp.distributions.Distribution,
    batches: Iterable[TensorLike],
    *,
    condition: TensorLike | None = None,
) -> float:
    """The largest error of a flow's round trip from data to latents and back.

    ```none
    max |x - forward(inverse(x))|
    ```

    over all numbers of all batches, in the units of the data: grey levels for images. In exact
    arithmetic it is zero; in float32 each layer adds rounding, and multiplies the errors of the
    layers before. `condition_report` says which layer does.

    Args:
      distribution: a `tfd.TransformedDistribution`.
      batches: of events, such as a `tf.data.Dataset`; or one batch in a list.
      condition: of a conditional flow, for every batch.

    Returns:
      The error; NaN or infinity if a round trip ends there.

    Raises:
      ValueError: if there are no batches.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> flow = tic.glow([8, 8, 1], levels=1, depth=2, width=8, seed=0)
    >>> images = tf.random.stateless_uniform([2, 10, 8, 8, 1], [0, 0], maxval=256.0)
    >>> tic.reconstruction_error(flow, images) < 1e-3
    True

    #### References

    Behrmann, Vicol, Wang, Grosse, Jacobsen, "Understanding and Mitigating Exploding Inverses in
    Invertible Neural Networks", AISTATS 2021.
    """
    bijector = distribution.bijector
    kwargs = {} if condition is None else {"condition": condition}

    @tf.function
    def error(x):
        # Without the identity, TFP would return x itself from its cache.
        latent = tf.identity(bijector.inverse(x, **kwargs))
        return tf.abs(bijector.forward(latent, **kwargs) - x)

    errors = [np.max(error(tf.cast(x, distribution.dtype))) for x in batches]
    if not errors:
        raise ValueError("reconstruction_error: needs batches of events; got none.")
    return float(np.max(errors))


def count_outliers(samples: TensorLike, max_value: float = 255.0) -> dict[str, int]:
    """Counts samples that are not finite, and samples far outside the range of the data.

    Data have values in [0, max_value + 1), as `tic.data.load_images` makes them. A sample is far
    out if the absolute value of one of its numbers is above three times max_value + 1. A flow
    whose density looks fine may still have many of either.

    Args:
      samples: `[n, ...]`, such as `model.sample(2000)`.
      max_value: the largest value of a pixel.

    Returns:
      A dict: the number of "samples", of "samples_not_finite", and of "samples_far_out" among the
      finite ones.

    #### Examples

    >>> import numpy as np
    >>> import tfp_invconv as tic
    >>> samples = np.array([[10.0, 250.0], [10.0, np.nan], [-1000.0, 250.0]])
    >>> tic.count_outliers(samples)
    {'samples': 3, 'samples_not_finite': 1, 'samples_far_out': 1}
    """
    samples = np.asarray(samples)
    largest = np.max(np.abs(samples), axis=tuple(range(1, samples.ndim)))
    is_finite = np.isfinite(largest)
    is_far_out = is_finite & (largest > _FAR_OUT * (max_value + 1))
    return {
        "samples": len(samples),
        "samples_not_finite": int(np.sum(~is_finite)),
        "samples_far_out": int(np.sum(is_far_out)),
    }
