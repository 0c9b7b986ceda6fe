"""Functions with a custom gradient, shown by one that is not the function's own."""

import pytest
import tensorflow as tf

from tfp_invconv.ops.own_gradient import with_gradient


def square(x):
    return with_gradient(tf.square, lambda value, upstream: [10.0 * upstream], x)


def tape_around(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)


def in_a_loop(x):
    return tf.while_loop(lambda i, _: i < 1, lambda i, x: (i + 1, square(x)), (0, x))[1]


@pytest.mark.parametrize(
    "gradient",
    [
        lambda x: tape_around(square, x),
        lambda x: tape_around(tf.function(square), x),
        lambda x: tf.function(lambda x: tape_around(square, x))(x),
        lambda x: tf.function(lambda x: tape_around(in_a_loop, x))(x),
        lambda x: tf.function(lambda x: tf.gradients(square(x), x)[0])(x),
    ],
    ids=["eager", "around a function", "in a function", "in a loop", "tf.gradients"],
)
def test_the_gradient_is_the_one_that_is_given(gradient):
    assert gradient(tf.constant(3.0)) == 10.0
