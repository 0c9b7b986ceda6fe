"""Data sets whose iterators end at once."""

import tensorflow as tf


def without_tuner(dataset):
    """The same data set, without the thread in which tf.data tunes its buffers.

    The thread sleeps ever longer while nothing is asked for, as during the compilation of the first
    step, and the end of the epoch waits for it: measured for half as long as the compilation.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
