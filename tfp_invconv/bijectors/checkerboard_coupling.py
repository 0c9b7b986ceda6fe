"""Coupling of fields: every other site, given its neighbours."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfp_invconv._utils import checks
from tfp_invconv._utils.types import DType, Shape
from tfp_invconv.bijectors import _conditions
from tfp_invconv.bijectors._base import value_and_log_det
from tfp_invconv.bijectors._network_layer import NetworkLayer
from tfp_invconv.bijectors.act_norm import ActNorm
from tfp_invconv.bijectors.affine_coupling import check_log_scale_bound, shift_and_scale
from tfp_invconv.networks import _making, conv_net


class CheckerboardCoupling(NetworkLayer):
    """Shifts and scales every other site of a lattice given the sites between them.

    A site's parity is that of the sum of its indices, so that all neighbours of a site have the
    other parity. With m = 1 at the sites that change, 0 at the others,
    (t, h) = network((1 - m) x), log s = b tanh(h / b) and b = `log_scale_bound`,

    ```none
    inverse (data to latent):  z = m (x + t) s + (1 - m) x
    forward (latent to data):  x = m (z / s - t) + (1 - m) z
    inverse_log_det_jacobian:  sum m log s
    ```

    With the network of `trainable`, which wraps around at the edges, rolling the input by an even
    number of sites rolls the output; by an odd number, if `parity` is the other one. `Squeeze` and
    a coupling of channels would be equivariant under steps of two along every axis alone.

    With `odd=True` it commutes with a change of sign, forward(-z) = -forward(z): t is the odd part
    of the network's, (t(x) - t(-x)) / 2, and h the even part.

    *Shapes*: events `[H, W, C]`, or those of another `event_ndims`, of even sizes but for the
    channels; any batch dimensions. All channels of a site change together.

    *Cost*: one evaluation of the network, in either direction; with `odd=True` of twice the batch.

    *Invertible* for all values of the parameters: s is positive. A new layer is the identity.

    #### Examples

    >>> import tensorflow as tf
    >>> import tfp_invconv as tic
    >>> coupling = tic.CheckerboardCoupling.trainable([8, 8, 1], parity=0, width=16, seed=0)
    >>> coupling.inverse(tf.ones([10, 8, 8, 1])).shape
    TensorShape([10, 8, 8, 1])

    #### References

    Dinh, Sohl-Dickstein, Bengio: Density Estimation Using Real NVP. ICLR 2017. Albergo, Kanwar,
    Shanahan: Flow-based generative models for Markov chain Monte Carlo in lattice field theory.
    Physical Review D 100, 2019.
    """

    def __init__(
        self,
        network: Callable[..., Any],
        parity: int = 0,
        log_scale_bound: float | str = 1.0,
        odd: bool = False,
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "checkerboard_coupling",
    ) -> None:
        """Makes the layer from its arguments, which become attributes; see also `trainable`.

        Args:
          network: callable, such as a built Keras model, from an event to twice as many channels:
            t, then h. A second input receives the condition (see `ConditionalChain`).
          parity: 0 to change the sites whose indices have an even sum, 1 for the others.
          log_scale_bound: b, a positive float; or "sigmoid" for Glow's s = sigmoid(h + 2).
          odd: bool, see above.
          event_ndims: 3 for events `[H, W, C]`, 2 for `[T, C]`, 4 for `[D, H, W, C]`.
          validate_args: not used: shapes are always checked.
          name: name of the layer.

        Raises:
          ValueError: if a Keras network is not built, or another argument is none of the above.
        """
        parameters = dict(locals())
        check_log_scale_bound(log_scale_bound, name)
        checks.check_event_ndims(event_ndims, name)
        if not checks.is_integer(parity) or parity not in (0, 1):
            raise ValueError(f"{name}: `parity` must be 0 or 1; got {parity!r}.")
        checks.check_bool(odd, "odd", name)
        self.network, self.log_scale_bound = self._no_dependency(network), log_scale_bound
        self.parity, self.odd = parity, odd
        super().__init__(
            [network],
            forward_min_event_ndims=event_ndims,
            validate_args=validate_args,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def trainable(
        cls,
        event_shape: Shape,
        *,
        seed: int | None = None,
        dtype: DType | None = None,
        padding: str = "circular",
        condition_shape: Shape | None = None,
        network: Callable[..., Any] | None = None,
        width: int | None = None,
        dropout: float | None = None,
        **options: Any,
    ) -> "CheckerboardCoupling":
        """Makes a layer with its own network, by default with a last layer of zeros.

        Args:
          event_shape: `[H, W, C]`, `[T, C]` or `[D, H, W, C]` of the data side.
          seed: int, for the network, or None.
          dtype: of the network, or a Keras policy; None for the global policy.
          padding: "circular" for fields on a torus, or "same"; passed on to the network.
          condition_shape: `[n]` for a condition of n numbers, or one of n classes; or, for one that
            is an image beside the event, `[H, W, k]`. None for a layer without a condition.
          network: function `network(input_shape, output_channels, *, condition_shape, padding,
            seed, dtype)` that returns a built Keras model, such as `networks.residual_net`; None
            for `networks.conv_net`.
          width: of the network's hidden layers, 64 by default; passed on to a `network` if given.
          dropout: rate of dropout after each of them while a Keras model trains; likewise.
          **options: further arguments of the constructor, such as `parity` and `log_scale_bound`.
        """
        name = options.get("name", "checkerboard_coupling")
        channels = checks.event_channels(event_shape, name)
        _check_sizes(event_shape, name)
        made = _making.make(
            network or conv_net,
            event_shape,
            2 * channels,
            condition_shape=condition_shape,
            seed=seed,
            dtype=dtype,
            width=width,
            dropout=dropout,
            layer=name,
            padding=padding,
        )
        return cls(made, event_ndims=len(event_shape), **options)

    def _run(self, direction, x, condition):
        ndims = self.forward_min_event_ndims
        checks.check_event(x, self.name, checks.EVENTS[ndims])
        _check_sizes(x.shape[-ndims:], self.name)
        x, condition = _conditions.broadcast(x, condition, ndims, self.condition_shape, self.name)
        changes = tf.cast(self._changes(tf.shape(x)[-ndims:-1]), x.dtype)
        seen = (1.0 - changes) * x
        if self.odd:
            seen = tf.stack([seen, -seen])
        outputs = self._call(self.network, seen, ndims, condition)
        if outputs.shape[-1] != 2 * x.shape[-1]:
            raise ValueError(
                f"{self.name}: the network must return 2 C = {2 * x.shape[-1]} numbers for each "
                f"site of an event of shape {x.shape[-ndims:]}; got an output of shape "
                f"{outputs.shape}."
            )
        if self.odd:
            shift, h = tf.split(outputs / 2.0, 2, -1)
            outputs = tf.concat([shift[0] - shift[1], h[0] + h[1]], -1)
        everywhere = shift_and_scale(outputs, self.log_scale_bound)
        bijector = ActNorm(changes * everywhere.shift, changes * everywhere.log_scale)
        return value_and_log_det(bijector, direction, x, ndims)

    def _changes(self, sizes):
        """Whether each site changes, `[H, W, 1]`."""
        indices = tf.meshgrid(*map(tf.range, tf.unstack(sizes)), indexing="ij")
        return (tf.add_n(indices) % 2 == self.parity)[..., tf.newaxis]


def _check_sizes(event_shape, layer):
    if any(size is not None and size % 2 for size in event_shape[:-1]):
        raise ValueError(
            f"{layer}: all sizes but the channels must be even, so that neighbours across the "
            f"edges of a torus have unequal parities, too; got an event of shape "
            f"{tuple(event_shape)}."
        )
