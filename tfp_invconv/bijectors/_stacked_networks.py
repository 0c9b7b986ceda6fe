"""Keras networks alike in structure as one, and slices of it that compute with given values."""

import keras


class StackedNetwork:
    """Networks alike in structure, as one whose variables have a new first axis.

    See `Scan`, which computes with its slices; it can't be called itself.
    """

    def __init__(self, network, variables):
        """Args: one of the networks, built, and a stacked `tf.Variable` for each of its own."""
        self.network = network
        self.variables = variables
        self.name, self.inputs, self.condition_shape = _attributes(network)


class NetworkSlice:
    """A network with other values for its variables.

    A call leaves in `values` what the variables would be after it, such as a dropout's seed.
    """

    def __init__(self, network, values, training=None):
        """Args: a built Keras layer, a tensor for each of its variables, and Keras's `training`."""
        self.network = network
        self.values = values
        self.name, self.inputs, self.condition_shape = _attributes(network)
        self._training = training

    def __call__(self, inputs):
        variables = self.network.variables
        with keras.StatelessScope(list(zip(variables, self.values, strict=True))) as scope:
            outputs = self.network(inputs, training=self._training)
        self.values = [scope.get_current_value(variable) for variable in variables]
        return outputs


def _attributes(network):
    """What layers read off a network: its name, inputs and the shape of its condition."""
    return [getattr(network, name, None) for name in ("name", "inputs", "condition_shape")]


def anonymous_config(network):
    """The configuration of a Keras layer without names, seeds and initializers."""
    layers = network._flatten_layers()
    # Functional models have operations that are not layers, such as a sum.
    operations = [part for layer in layers for part in (layer, *getattr(layer, "operations", []))]
    places = {operation.name: i for i, operation in enumerate(operations)}

    def anonymous(value):
        match value:
            case dict():
                skipped = ("seed", "initializer", "shared_object_id")
                kept = {k: anonymous(v) for k, v in value.items() if not k.endswith(skipped)}
                if kept.get("name") in places:
                    kept["name"] = places[kept["name"]]
                return kept
            case [str(name), int(), int()] if name in places:
                # How a functional model refers to the output of an operation.
                return [places[name], *value[1:]]
            case [*parts]:
                return [anonymous(part) for part in parts]
        return value

    return anonymous(_config(network))


def _config(network):
    """The configuration of a Keras layer; without one, its class, settings and layers."""
    try:
        return network.get_config()
    except NotImplementedError:
        # Keras makes none for a subclassed model whose constructor has arguments.
        plain = (str, int, float, list, tuple, type(None))
        settings = {k: v for k, v in vars(network).items() if isinstance(v, plain) and k[0] != "_"}
        layers = network._flatten_layers(include_self=False, recursive=False)
        parts = [(type(layer), _config(layer)) for layer in layers]
        return {**settings, "parts": parts}


class _TrainingFlag(keras.Layer):
    """Returns whether a Keras model trains, which Keras tells only to layers."""

    def call(self, training=None):
        return training


def is_training():
    """Whether a Keras model that is being called trains; None outside of one."""
    return _TrainingFlag(dtype="float32")()
