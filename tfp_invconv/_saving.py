"""What a whole model is saved as: the builder of its distribution, by name, and its arguments."""

import keras
import numpy as np
import tensorflow as tf


def config(builder, arguments, caller):
    """The builder's registered name and its arguments.

    Raises:
      ValueError: if there is no builder, or it is not registered.
    """
    registered = builder and keras.saving.get_registered_name(builder)
    if builder is None or keras.saving.get_registered_object(registered) is not builder:
        raise ValueError(
            f"{caller}: can't be saved whole, since a distribution does not say how it was "
            "made. Make the model from a builder, FlowModel(tic.glow, event_shape=...), your "
            "own decorated with keras.saving.register_keras_serializable(); or save its "
            "weights: save_weights, or tf.train.Checkpoint(distribution=...)."
        )
    plain = {key: _plain(value) for key, value in arguments.items()}
    return {"builder": registered, "arguments": keras.saving.serialize_keras_object(plain)}


def builder_and_arguments(config, custom_objects):
    """Those that `config` describes.

    Raises:
      ValueError: if there is no builder registered under that name.
    """
    builder = keras.saving.get_registered_object(config["builder"], custom_objects)
    if builder is None:
        raise ValueError(
            f"FlowModel: there is no registered builder {config['builder']!r}; import the "
            "module that decorates it with keras.saving.register_keras_serializable()."
        )
    return builder, keras.saving.deserialize_keras_object(config["arguments"])


def _plain(argument):
    """A dtype by its name: NumPy's classes are not read back by Keras."""
    is_class = isinstance(argument, type) and issubclass(argument, np.generic)
    is_dtype = is_class or isinstance(argument, (np.dtype, tf.DType))
    return tf.as_dtype(argument).name if is_dtype else argument
