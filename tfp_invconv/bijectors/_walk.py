"""One recursion over the bijectors that are made of others.

`Chain`, `ConditionalChain`, `ConditionEncoder`, `Invert`, `PartialChannels` and `Scan` are entered;
any other bijector is a layer. A layer's label is its place in each chain and scan around it, and
its name, such as "04.03.01.emerging_conv".
"""

from collections.abc import Callable

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability.python.bijectors import chain, invert

from tfp_invconv.bijectors import _conditions
from tfp_invconv.bijectors.condition_encoder import ConditionEncoder
from tfp_invconv.bijectors.partial_channels import PartialChannels
from tfp_invconv.bijectors.scan import Scan

_OTHER_DIRECTION = {"inverse": "forward", "forward": "inverse"}


def walk(
    bijector: tfp.bijectors.Bijector,
    x: tf.Tensor,
    visit: Callable,
    *,
    direction: str = "inverse",
    condition: tf.Tensor | None = None,
    update: bool = False,
    path: str = "",
) -> tf.Tensor:
    """Evaluates a bijector layer by layer.

    Args:
      bijector: any bijector.
      x: its input.
      visit: function of (label, layer, direction, input, keyword arguments) that returns the
        layer's output.
      direction: "inverse" (data to latent) or "forward".
      condition: of a conditional flow, or None.
      update: whether `visit` fits layers: a `Scan` then keeps what it assigns to the variables of
        its steps, and it meets the scaling of conditions as well.
      path: start of the labels.

    Returns:
      The output.
    """

    def enter(inner, x, direction, path, condition=condition):
        options = dict(condition=condition, update=update)
        return walk(inner, x, visit, direction=direction, path=path, **options)

    if isinstance(bijector, chain._Chain):
        numbered = list(enumerate(bijector.bijectors))
        for i, inner in numbered if direction == "inverse" else reversed(numbered):
            x = enter(inner, x, direction, f"{path}{i:02d}.")
        return x
    if isinstance(bijector, Scan):
        order = range(bijector.length)
        order = order if direction == "inverse" else order[::-1]
        steps = bijector.with_variables(order) if update else (bijector[i] for i in order)
        for i, inner in zip(order, steps, strict=True):
            x = enter(inner, x, direction, f"{path}{i:02d}.")
        return x
    if isinstance(bijector, invert._Invert):
        return enter(bijector.bijector, x, _OTHER_DIRECTION[direction], path)
    if isinstance(bijector, ConditionEncoder):
        if update and bijector.scaling is not None:
            visit(f"{path}{bijector.name}.scaling", bijector.scaling, "inverse", condition, {})
        x, features = bijector.encode(x, condition)
        return enter(bijector.bijector, x, direction, path, features)
    if isinstance(bijector, PartialChannels):
        first, rest = bijector.split(x)
        return bijector.join(enter(bijector.bijector, first, direction, path), rest)
    kwargs = {} if condition is None else _conditions.condition_kwargs(bijector, condition)
    return visit(f"{path}{bijector.name}", bijector, direction, x, kwargs)


def layers(bijector: tfp.bijectors.Bijector | None, path: str = ""):
    """Yields (label, layer) for each layer, in the order of the chains they are in.

    A `Scan` is a label such as "04.steps x 8" and None, before the layers of its one step.
    """
    if isinstance(bijector, chain._Chain):
        for i, inner in enumerate(bijector.bijectors):
            yield from layers(inner, f"{path}{i:02d}.")
    elif isinstance(bijector, Scan):
        label = f"{path}{bijector.name}"
        yield f"{label} x {bijector.length}", None
        yield from layers(bijector.bijector, f"{label}.")
    elif isinstance(bijector, (invert._Invert, PartialChannels)):
        yield from layers(bijector.bijector, path)
    elif isinstance(bijector, ConditionEncoder):
        yield from layers(bijector.bijector, path)
        yield f"{path}{bijector.name}", bijector
    elif bijector is not None:
        yield f"{path}{bijector.name}", bijector


def hides_layers(layer: tfp.bijectors.Bijector) -> bool:
    """Whether it is made of other bijectors, as TFP names them, which `walk` can't enter."""
    return hasattr(layer, "bijectors") or hasattr(layer, "bijector")
