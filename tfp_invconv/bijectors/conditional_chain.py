"""A chain that passes one condition to all the layers that take one."""

from tensorflow_probability.python.bijectors import chain

from tfp_invconv.bijectors import _conditions


# `tfb.Chain` makes a plain chain where a layer is no CompositeTensor, so subclass `_Chain`.
class ConditionalChain(chain._Chain):
    """`tfb.Chain` with a condition: labels or a context that its couplings look at.

    ```none
    inverse (data to latent):  z = (b_n^-1 o ... o b_1^-1)(x; condition)
    forward (latent to data):  x = (b_1 o ... o b_n)(z; condition)
    inverse_log_det_jacobian:  the sum of the layers', each with the condition
    ```

    Called as `chain.inverse(x, condition=c)`, in a distribution as `flow.log_prob(x,
    bijector_kwargs={"condition": c})` and `flow.sample(n, bijector_kwargs={"condition": c})`. The
    condition is a float tensor `[B..., n]` or, for one of n classes, an integer tensor `[B...]`
    of 0 to n - 1. `B...` and the batch dimensions of the input broadcast against each other, so
    that `x[:, None]` with all n labels is evaluated for each. The condition reaches the couplings
    whose networks have two inputs (see `networks.conv_net`), also those in a nested chain, in
    `tfb.Invert` and in `PartialChannels`. Without a condition such a network is an error that
    names its layer.

    *Shapes*, *cost*: those of the layers.

    *Invertible* if the layers are, for each condition.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> coupling = tic.AffineCoupling.trainable([8, 8, 4], condition_shape=[10], width=16)
    >>> chain = tic.ConditionalChain([tic.ActNorm.trainable([8, 8, 4]), coupling])
    >>> x, labels = tf.ones([5, 8, 8, 4]), tf.constant([0, 1, 2, 3, 9])
    >>> chain.inverse(x, condition=labels).shape
    TensorShape([5, 8, 8, 4])

    #### References

    Ardizzone, Luth, Kruse, Rother, Kothe: Guided Image Generation with Conditional Invertible
    Neural Networks. arXiv 1907.02392, 2019.
    """

    @property
    def takes_condition(self) -> bool:
        """Whether a layer of it takes a condition."""
        return any(map(_conditions.is_conditional, self.bijectors))

    def _walk_forward(self, step_fn, x, **kwargs):
        for bijector in reversed(self.bijectors):
            x = step_fn(bijector, x, **_arguments(bijector, **kwargs))
        return x

    def _walk_inverse(self, step_fn, y, **kwargs):
        for bijector in self.bijectors:
            y = step_fn(bijector, y, **_arguments(bijector, **kwargs))
        return y


def _arguments(bijector, condition=None, **by_name):
    """The keyword arguments of one layer: those given for its name, and the condition."""
    given = {} if condition is None else _conditions.condition_kwargs(bijector, condition)
    return {**by_name.get(bijector.name, {}), **given}
