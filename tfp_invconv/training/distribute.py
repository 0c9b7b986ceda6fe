"""Helpers for `tf.distribute`."""

import keras
import tensorflow as tf


def is_distributed():
    """Whether this is one of several replicas."""
    return tf.distribute.get_strategy().num_replicas_in_sync > 1


def as_rank_1(logs):
    """A step's logs with the axis along which Keras averages over several machines."""
    return {k: tf.reshape(v, [1]) for k, v in logs.items()} if is_distributed() else logs


def skip_gradient_sum(step, data, optimizer):
    """Runs a training step, without a sum of gradients where there is a single replica.

    Keras's optimizers sum in any replica context, and TensorFlow keeps the graph of the sum. A
    `LossScaleOptimizer` works in a replica context alone.
    """
    scales_loss = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if scales_loss or tf.distribute.has_strategy():
        return step(data)
    return tf.distribute.get_replica_context().merge_call(lambda _: step(data))


def from_chief(batch, strategy):
    """The first replica's batch, on all machines: each may have shuffled its data differently."""
    if strategy.num_replicas_in_sync == 1:
        return batch

    @tf.function
    def share(batch):
        replica = tf.distribute.get_replica_context()
        is_chief = tf.equal(replica.replica_id_in_sync_group, 0)
        return tf.nest.map_structure(
            lambda x: replica.all_reduce("SUM", tf.where(is_chief, x, tf.zeros_like(x))), batch
        )

    # Machines can't add up small integers.
    batch = tf.nest.map_structure(
        lambda x: x if x.dtype.is_floating else tf.cast(x, tf.int64), batch
    )
    shared = strategy.run(share, args=(batch,))
    return tf.nest.map_structure(lambda x: strategy.experimental_local_results(x)[0], shared)


def share_of_loss(loss, count):
    """This replica's share of the loss, of which it has the mean over `count` examples."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    everywhere = tf.distribute.get_replica_context().all_reduce("SUM", count)
    # Keras weighs the values by their counts; the gradients have to be weighed here.
    weighted = loss * (count * replicas / everywhere)
    return (tf.stop_gradient(loss - weighted) + weighted) / replicas


def next_seed(generator):
    """The seed of a step, another one in each replica."""
    seed = tf.cast(generator.next(), tf.int32)
    if is_distributed():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = tf.random.experimental.stateless_fold_in(seed, replica)
    return seed
