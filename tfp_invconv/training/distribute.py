"""What several devices or machines need that train one flow by `tf.distribute`."""

import tensorflow as tf


def is_distributed():
    """Whether this is one of several replicas."""
    return tf.distribute.get_strategy().num_replicas_in_sync > 1


def not_empty(x):
    """Where there are replicas, one that got nothing of a last batch gets a zero."""
    if not is_distributed():
        return x
    missing = tf.maximum(0, 1 - tf.shape(x)[0])
    return tf.pad(x, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1))


def with_an_axis(logs):
    """A step's logs: over several machines Keras averages along an axis, which numbers lack."""
    return {k: tf.reshape(v, [1]) for k, v in logs.items()} if is_distributed() else logs


def without_sums(step, data):
    """A step of training, which sums no gradients over replicas where there are none.

    Keras's optimizers do so in any replica's context, and TensorFlow keeps the graph of a sum.
    """
    if tf.distribute.has_strategy():
        return step(data)
    return tf.distribute.get_replica_context().merge_call(lambda _: step(data))


def from_chief(batch, strategy):
    """The first replica's batch, on all machines: each may have shuffled in its own way."""
    if strategy.num_replicas_in_sync == 1:
        return batch

    @tf.function
    def share(batch):
        replica = tf.distribute.get_replica_context()
        is_chief = tf.equal(replica.replica_id_in_sync_group, 0)
        return tf.nest.map_structure(
            lambda x: replica.all_reduce("SUM", tf.where(is_chief, x, tf.zeros_like(x))), batch
        )

    batch = tf.nest.map_structure(tf.convert_to_tensor, batch)
    shared = strategy.run(share, args=(batch,))
    return tf.nest.map_structure(lambda x: strategy.experimental_local_results(x)[0], shared)
