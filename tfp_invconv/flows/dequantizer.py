"""Noise that a flow learns to add to whole numbers."""

from typing import Any

import keras
import tensorflow_probability as tfp

from tfp_invconv._utils.types import Shape
from tfp_invconv.bijectors import ConditionalChain
from tfp_invconv.flows.glow import glow

tfb, tfd = tfp.bijectors, tfp.distributions


@keras.saving.register_keras_serializable("tfp_invconv")
def dequantizer(
    event_shape: Shape, depth: int = 2, *, conv: str = "1x1", width: int = 32, **options: Any
) -> tfp.distributions.TransformedDistribution:
    """The noise of variational dequantisation, a flow q(u | v) from 0 to 1 given whole numbers v.

    ```none
    u = sigmoid(g(z; v)),  z ~ N(0, 1),  g a `glow` of one level that is conditional on v
    ```

    A `FlowModel` with such a `dequantizer` trains it beside the flow of the data, on whole-numbered
    data. It fits q to uniform noise before the first step, and standardises v by the first batch.

    Args:
      event_shape: of the data, and of the condition: `[H, W, C]`, `[T, C]` or `[D, H, W, C]`, all
        sizes but the channels even.
      depth: number of steps.
      conv: convolution of each step, see `glow`. Only the direction from z to u is used.
      width: size of the hidden layers of the couplings' networks.
      **options: further ones of `glow`, such as `dropout`, `seed` and `dtype`.

    Returns:
      A conditional `tfd.TransformedDistribution` of noise of that shape.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> noise = tic.dequantizer([4, 4, 1], depth=1, width=4, seed=0)
    >>> pixels = tf.fill([10, 4, 4, 1], 255.0)
    >>> u = noise.sample(10, seed=0, bijector_kwargs={"condition": pixels})
    >>> u.shape, bool(tf.reduce_all((u >= 0) & (u <= 1)))
    (TensorShape([10, 4, 4, 1]), True)

    #### References

    Ho, Chen, Srinivas, Duan, Abbeel: Flow++: Improving Flow-Based Generative Models with
    Variational Dequantization and Architecture Design. ICML 2019, arXiv 1902.00275.
    """
    options = dict(depth=depth, conv=conv, width=width, data_range=None, **options)
    flow = glow(event_shape, levels=1, conditional=event_shape, **options)
    chain = ConditionalChain([tfb.Sigmoid(), flow.bijector], name="dequantizer")
    return tfd.TransformedDistribution(flow.distribution, chain)
