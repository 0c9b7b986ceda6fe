"""Gradients of equal steps that keep nothing: a step's input is made again from its output."""

import tensorflow as tf
from tensorflow.python.eager import record

from tfp_invconv.bijectors._loops import floats_of, with_floats

# The error of the first step's input, relative to the largest number of the batch.
_TOLERANCE = 1e-4


def check_remat(remat, bijector, name):
    """Raises a ValueError unless Scan's `remat` is a known choice that the step allows."""
    if not (isinstance(remat, bool) or remat == "reconstruct"):
        raise ValueError(f'{name}: `remat` must be True, False or "reconstruct"; got {remat!r}.')
    if remat == "reconstruct":
        for layer in [bijector, *bijector.submodules]:
            if getattr(layer, "has_iterative_direction", False):
                raise ValueError(
                    f'{name}: remat="reconstruct" inverts each step for its gradient, which is '
                    f"expensive for {layer.name}: it inverts by iteration. Use remat=True."
                )


def with_reconstruction(run, reconstruct, name):
    """`run_unrolled` or `run_looped` whose gradient keeps only the first and the last value.

    Args:
      run: one of the two.
      reconstruct: the `evaluate` of the other direction.
      name: name of the layer, for errors.
    """

    def run_reconstructed(evaluate, stacks, order, x, log_det, state, kwargs):
        given, new_state = [stacks, kwargs], []

        @tf.custom_gradient
        def value_and_log_det(x, *floats):
            stacks, kwargs = with_floats(given, floats)
            with record.stop_recording():
                value, total, rows = run(evaluate, stacks, order, x, log_det, state, kwargs)
            new_state.extend(rows)
            return (value, total), lambda *upstream: gradient(*upstream, value, x, *floats)

        @tf.custom_gradient
        def gradient(of_value, of_log_det, value, x, *floats):
            stacks, kwargs = with_floats(given, floats)

            def step_back(carried, slices, kwargs):
                """From a step's output and its gradient to those of its input."""
                output, of_output = carried
                # A new tensor: for the old one TFP's cache has the output.
                start = tf.stop_gradient(reconstruct(output, slices, kwargs)[0])
                sources = [start, floats_of(slices), floats_of(kwargs)]
                with tf.GradientTape() as tape:
                    tape.watch(sources)
                    results = evaluate(start, slices, kwargs)[:2]
                of_start, of_slices, of_kwargs = tape.gradient(
                    results, sources, [of_output, of_log_det], unconnected_gradients="zero"
                )
                # Values don't need gradients: all of them would be made, and kept, at once.
                with tf.control_dependencies([of_start, *of_slices]):
                    return (tf.identity(start), of_start), of_kwargs, of_slices

            last, zeros = (value, of_value), [tf.zeros_like(t) for t in floats_of(kwargs)]
            (first, of_x), of_kwargs, of_stacks = run(
                step_back, stacks, order[::-1], last, zeros, floats_of(stacks), kwargs
            )
            valid = _one_if_close(first, x, name)
            gradients = [valid * g for g in (of_x, *of_stacks, *of_kwargs)]

            def refuse(*_):
                raise NotImplementedError(
                    f'{name}: remat="reconstruct" has first derivatives in reverse mode alone. '
                    "Use remat=False for higher ones and for forward mode."
                )

            return gradients, refuse

        return *value_and_log_det(x, *floats_of(given)), new_state

    return run_reconstructed


def _one_if_close(found, x, name):
    """One if the steps' input came back; else an error, and NaN where XLA drops errors."""
    error, limit = tf.abs(found - x), _TOLERANCE * tf.reduce_max(tf.abs(x))
    message = (
        f'{name}: remat="reconstruct" needs steps that can be inverted, but their input came back '
        f"with an error of more than {_TOLERANCE} times the batch's largest number. Use "
        "remat=True or float64; condition_report says which layers lose digits. Error and limit:"
    )
    # NaN compares as false: values that are not finite make NaN gradients and no error.
    lost = tf.reduce_any(error > limit)
    check = tf.debugging.Assert(~lost, [message, tf.reduce_max(error), limit])
    with tf.control_dependencies([check] if check is not None else []):
        is_close = tf.reduce_all(error <= limit)
        return tf.where(is_close, tf.ones([], x.dtype), tf.constant(float("nan"), x.dtype))
