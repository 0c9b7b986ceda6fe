"""One trace for all the layers of a flow that do the same to tensors of the same shapes."""

import functools

import tensorflow as tf


def traced_once(function):
    """Decorates a function of tensors and of hashable constants that returns one tensor.

    While a graph is built, the function becomes a `tf.function` of its own for each combination of
    shapes, dtypes and constants, and its gradient another one. A flow of 24 steps on three
    levels so builds the graph of its layers three times, not 24 times. Eager calls run the
    function as it stands.

    A gradient inside such a function calls others by their `__wrapped__`: shared functions that
    call each other can't be saved as a SavedModel.
    """
    traces = {}

    @functools.wraps(function)
    def call(*args):
        if not tf.inside_function():
            return function(*args)
        signature = tuple(
            tf.TensorSpec(arg.shape, arg.dtype) if tf.is_tensor(arg) else arg for arg in args
        )
        if signature not in traces:
            traces[signature] = _trace(function, signature)
        return traces[signature](*(arg for arg in args if tf.is_tensor(arg)))

    return call


def _trace(function, signature):
    # Not inlined, one optimised graph serves all calls.
    shared = functools.partial(
        tf.function, autograph=False, experimental_attributes={"_noinline": True}
    )

    def of_tensors(*tensors):
        rest = iter(tensors)
        return function(*(next(rest) if isinstance(s, tf.TensorSpec) else s for s in signature))

    @shared
    def gradient_of(tensors, upstream):
        with tf.GradientTape() as tape:
            floats = [tensor for tensor in tensors if tensor.dtype.is_floating]
            tape.watch(floats)
            value = of_tensors(*tensors)
        gradients = iter(tape.gradient(value, floats, upstream, "zero"))
        return [next(gradients) if tensor.dtype.is_floating else None for tensor in tensors]

    value_of = shared(of_tensors)

    # Its gradient starts from the arguments. TensorFlow's own would take what the function
    # computed on the way, shapes too, and XLA would compile anew whenever an argument changes.
    @tf.custom_gradient
    def value_with_gradient(*tensors):
        return value_of(*tensors), lambda upstream: gradient_of(tensors, upstream)

    return value_with_gradient
