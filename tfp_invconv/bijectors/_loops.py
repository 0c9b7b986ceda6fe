"""Equal steps over stacked tensors: one by one, or in a loop."""

import tensorflow as tf

from tfp_invconv._utils import xla


def run_unrolled(evaluate, stacks, order, value, log_det, state, kwargs):
    """Evaluates the steps one by one.

    Args:
      evaluate: function of a value, the slices of a step and `kwargs` that returns a new value, its
        log-determinant and what the step makes of its slices of `state`. Value and log-determinant
        may be structures of tensors.
      stacks: tensors with a slice for each step along their first axis.
      order: range of the steps' indices.
      value: the first step's input.
      log_det: zeros, to which the steps' log-determinants are added.
      state: variables with a slice for each step.
      kwargs: the same for all steps.

    Returns:
      The last value, the log-determinant, and the new values of the variables `state`.
    """
    rows = [tf.unstack(stack) for stack in stacks]
    new_state = [None] * len(order)
    for i in order:
        value, step_log_det, new_state[i] = evaluate(value, [r[i] for r in rows], kwargs)
        log_det = tf.nest.map_structure(tf.add, log_det, step_log_det)
    return value, log_det, [tf.stack(rows) for rows in zip(*new_state, strict=True)]


def run_looped(evaluate, stacks, order, value, log_det, state, kwargs):
    """As `run_unrolled`, but evaluates them in a `tf.while_loop`."""
    length = len(order)

    def arrays(tensors):
        return [
            tf.TensorArray(tensor.dtype, length, element_shape=tensor.shape[1:])
            for tensor in tensors
        ]

    # A gather in the loop would add up gradients of the whole stack in each step.
    slices = [a.unstack(stack) for a, stack in zip(arrays(stacks), stacks, strict=True)]

    def step(k, value, log_det, new_state):
        i = order.start + order.step * k
        new, step_log_det, states = evaluate(value, [a.read(i) for a in slices], kwargs)
        tf.nest.map_structure(lambda n, old: n.set_shape(old.shape), new, value)
        log_det = tf.nest.map_structure(tf.add, log_det, step_log_det)
        new_state = [a.write(i, s) for a, s in zip(new_state, states, strict=True)]
        return k + 1, new, log_det, new_state

    _, value, log_det, new_state = tf.while_loop(
        lambda k, *_: k < length,
        step,
        (0, value, log_det, arrays(state)),
        # Without it, XLA has no gradient.
        maximum_iterations=length,
    )
    return value, log_det, [a.stack() for a in new_state]


def with_recomputation(evaluate):
    """`evaluate` that keeps its arguments for the gradient and nothing that it made of them."""

    def run(*args):
        states = []

        def differentiable(*floats):
            value, log_det, state = evaluate(*with_floats(args, floats))
            states.append(state)
            return value, log_det

        value, log_det = tf.recompute_grad(differentiable)(*floats_of(args))
        # Those of the first call, not of the one for the gradient.
        return value, log_det, states[0]

    return run


def floats_of(structure):
    """Its tensors that may have gradients: labels and the states of dropouts have none."""
    return [tensor for tensor in tf.nest.flatten(structure) if tensor.dtype.is_floating]


def with_floats(structure, floats):
    """The structure with these tensors for those of `floats_of`."""
    floats = iter(floats)
    flat = [next(floats) if t.dtype.is_floating else t for t in tf.nest.flatten(structure)]
    return tf.nest.pack_sequence_as(structure, flat)


def should_unroll(unroll, length):
    """Whether steps run one by one: as asked for, or else if few, in eager mode or XLA on a CPU."""
    if unroll is not None:
        return unroll
    # The Hessian of a loop takes ten times as long to trace as that of two steps.
    if length <= 2 or tf.executing_eagerly():
        return True
    return xla.compiles_graph() and not tf.config.list_logical_devices("GPU")
