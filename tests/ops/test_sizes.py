"""Shapes that a graph does not know."""

import tensorflow as tf

from tfp_invconv.ops.sizes import broadcast_batch


def test_batches_of_unknown_sizes_broadcast_when_a_graph_runs():
    unknown = [tf.TensorSpec([None, 2]), tf.TensorSpec([None, 5])]
    both = tf.function(lambda x, y: broadcast_batch(x, 1, y, 1), input_signature=unknown)
    for first, second in ((1, 3), (3, 1), (3, 3)):
        assert both(tf.ones([first, 2]), tf.ones([second, 5])).shape == [3, 2]
