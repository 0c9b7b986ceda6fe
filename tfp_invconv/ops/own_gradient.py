"""Functions with a custom gradient."""

import contextlib
import itertools
import weakref

import tensorflow as tf
from tensorflow.python.eager import forwardprop_util, record

_numbers = itertools.count()


def with_gradient(function, gradient, *inputs):
    """Returns `function(*inputs)` with a custom gradient.

    It differs from `tf.custom_gradient` in three ways: forward mode in a graph uses `gradient`,
    too; derivatives of higher order never differentiate `function`; and a graph that used it can
    be freed.

    `tf.vectorized_map` copies operations without `gradient`, and differentiates the copies. So the
    operations of `function` must have right gradients of their own: no `tf.stop_gradient`.

    Args:
      function: maps tensors to one tensor.
      gradient: maps the value, and a loss's gradient for it, to the list of the loss's gradients
        for the inputs.
      *inputs: tensors.
    """
    # Forward mode would differentiate the function's own operations: do not record them.
    tangents = forwardprop_util.pack_tangents(list(inputs)).tangents
    with record.stop_recording() if tangents else contextlib.nullcontext():
        value = function(*inputs)
        if tf.executing_eagerly():
            value = tf.identity(value)
        else:
            value = _overriding(value, gradient, inputs)
    record.record_operation(
        "with_gradient", [value], list(inputs), lambda upstream: gradient(value, upstream)
    )
    return value


def _overriding(value, gradient, inputs):
    """Overrides the gradient of the value in a graph, which looks up gradients by name."""
    name = f"with_gradient-{next(_numbers)}"
    graph = tf.compat.v1.get_default_graph()
    with graph.gradient_override_map({"IdentityN": name}):
        value, *_ = tf.identity_n([value, *inputs])

    def of_inputs(upstream):
        return gradient(value, upstream)

    # The registry keeps its entries for ever, so only the graph may hold a reference to itself.
    graph.own_gradients = [*getattr(graph, "own_gradients", []), of_inputs]
    reference = weakref.ref(of_inputs)
    tf.RegisterGradient(name)(lambda _, upstream, *unused: [None, *reference()(upstream)])
    return value
