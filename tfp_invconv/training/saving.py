"""How models are saved: safely; and whole, as the builder of a distribution and its arguments."""

import os
import types
import warnings

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import files
from tfp_invconv.training import precision

_SUFFIXES = (".keras", ".weights.h5")


class AtomicSaving:
    """Mix-in for a Keras model whose files are written and loaded wholly or not at all."""

    _skips_mismatch = False

    def save(self, filepath, overwrite=True, **kwargs):
        """As `keras.Model.save`; a file that was there stays until the new one is whole."""
        if _is_replaced(filepath, overwrite):
            with files.atomic_write(filepath) as path:
                super().save(path, **kwargs)
        else:
            super().save(filepath, overwrite, **kwargs)

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """As `keras.Model.save_weights`; a file that was there stays until the new one is whole."""
        if max_shard_size is not None or not _is_replaced(filepath, overwrite):
            super().save_weights(filepath, overwrite, max_shard_size)
            return
        weights = files.WeightsInMemory()
        super().save_weights(weights)
        files.write_weights(weights, filepath)

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """As `keras.Model.load_weights`; after an error all variables are as they were.

        With `skip_mismatch`, each array of the shape of the variable in its place is loaded.

        Raises:
          OSError: if the file is damaged.
          ValueError: if its weights are those of another model.
        """
        if str(filepath).endswith(_SUFFIXES):
            files.verify_checksum(filepath)
        optimizer = getattr(self, "optimizer", None)
        variables = [*self.variables, *(optimizer.variables if optimizer else [])]
        before = [variable.numpy() for variable in variables]
        self._skips_mismatch = skip_mismatch
        try:
            super().load_weights(filepath, skip_mismatch, **kwargs)
        except BaseException:
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
            raise
        finally:
            self._skips_mismatch = False

    def load_own_variables(self, store):
        """As Keras's, array by array if `load_weights` skips those that do not match.

        Warns:
          UserWarning: with the names of the variables that stay as they are.
        """
        variables = self._trainable_variables + self._non_trainable_variables
        if not self._skips_mismatch or len(store.keys()) != len(variables):
            super().load_own_variables(store)
            return
        skipped = []
        for i, variable in enumerate(variables):
            if tuple(store[f"{i}"].shape) == tuple(variable.shape):
                variable.assign(store[f"{i}"])
            else:
                skipped.append(f"{variable.name} {tuple(variable.shape)}")
        if skipped:
            warnings.warn(
                f"{self.name}.load_weights: {len(skipped)} of {len(variables)} variables keep "
                "their values, since the file has arrays of other shapes for them: "
                f"{', '.join(skipped)}.",
                UserWarning,
                stacklevel=2,
            )


class SavedByBuilder:
    """Mix-in for a Keras model whose configuration is the builder of its distribution."""

    def get_config(self):
        """The builder's registered name and its arguments, and which variables are frozen.

        Raises:
          ValueError: if the model was made from a distribution, or the builder or a function that
            it was given is not registered.
        """
        return {
            "name": self.name,
            **_config(*self._made_by, self),
            "frozen": [i for i, v in enumerate(self.flow_variables) if not v.trainable],
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the model again, its parameters new.

        Raises:
          ValueError: if there is no builder registered under that name.
        """
        builder, arguments = _builder_and_arguments(config, custom_objects, cls.__name__)
        with precision.global_policy(config.get("global_policy", "float32")):
            model = cls(builder, name=config["name"], **arguments)
        # By their places: Keras numbers the names of its seeds anew in each process.
        for i, variable in enumerate(model.flow_variables if "frozen" in config else []):
            variable.trainable = i not in config["frozen"]
        return model

    def compile_from_config(self, config):
        """Compiles a loaded model as it was when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))


def _is_replaced(path, overwrite):
    """Whether it is one file, which Keras need not ask about before it overwrites it."""
    is_file = str(path).endswith(_SUFFIXES)
    return is_file and (overwrite or not os.path.exists(path))


def _config(builder, arguments, policy, model):
    """The builder's registered name, its arguments, and Keras's global policy when it was called.

    Raises:
      ValueError: if there is no builder, or it or a function it was given is not registered.
    """
    registered = builder and keras.saving.get_registered_name(builder)
    if builder is None or keras.saving.get_registered_object(registered) is not builder:
        raise ValueError(
            f"{model.name}: can't be saved whole, since a distribution does not say how it was "
            f"made. Make the model from a builder, as {type(model).__name__}(tic.glow, ..., "
            "event_shape=...), your own decorated with "
            "keras.saving.register_keras_serializable(); or save its weights: save_weights, or "
            "tf.train.Checkpoint(distribution=...)."
        )
    for key, value in arguments.items():
        _check_function(key, value, model.name)
    plain = {key: _plain(value) for key, value in arguments.items()}
    plain = keras.saving.serialize_keras_object(plain)
    return {"builder": registered, "arguments": plain, "global_policy": policy}


def _builder_and_arguments(config, custom_objects, caller):
    """Those that `config` describes.

    Raises:
      ValueError: if there is no builder registered under that name.
    """
    builder = keras.saving.get_registered_object(config["builder"], custom_objects)
    if builder is None:
        raise ValueError(
            f"{caller}: there is no registered builder {config['builder']!r}; import the "
            "module that decorates it with keras.saving.register_keras_serializable()."
        )
    return builder, keras.saving.deserialize_keras_object(config["arguments"])


def _check_function(key, value, caller):
    """Raises a ValueError for a function that Keras can't load by its name, or a distribution."""
    must_be_function = callable(value) or isinstance(value, tfp.distributions.Distribution)
    if not must_be_function or hasattr(value, "get_config") or _plain(value) is not value:
        return
    if isinstance(value, types.FunctionType):
        registered = keras.saving.get_registered_name(value)
        is_keras = value.__module__.startswith("keras.")
        if is_keras or keras.saving.get_registered_object(registered) is value:
            return
    raise ValueError(
        f"{caller}: can't be saved whole with {key}={value!r}. Make it a function decorated with "
        "keras.saving.register_keras_serializable(); or save the model's weights: save_weights."
    )


def _plain(argument):
    """A dtype by its name: NumPy's classes are not read back by Keras."""
    is_class = isinstance(argument, type) and issubclass(argument, np.generic)
    is_dtype = is_class or isinstance(argument, (np.dtype, tf.DType))
    return tf.as_dtype(argument).name if is_dtype else argument
