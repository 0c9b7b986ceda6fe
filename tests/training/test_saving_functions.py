"""Saving models whose builders were given functions, such as `network`."""

import functools
import json
import zipfile

import keras
import numpy as np
import pytest
from helpers import small_model, vectors

import tfp_invconv as tic


@keras.saving.register_keras_serializable("tests")
def deep_net(input_shape, output_channels, **options):
    return tic.networks.residual_net(input_shape, output_channels, depth=3, width=4, **options)


def unregistered_net(input_shape, output_channels, **options):
    return tic.networks.mlp(input_shape, output_channels, width=4, **options)


def vector_model(network, **options):
    return tic.FlowModel(tic.conf, event_shape=[4], depth=1, network=network, seed=0, **options)


@pytest.mark.parametrize("conditional", [None, 3])
@pytest.mark.parametrize("network", [deep_net, tic.networks.residual_net, tic.networks.mlp])
def test_a_registered_network_survives(network, conditional, tmp_path):
    model = vector_model(network, conditional=conditional)
    rng = np.random.default_rng(0)
    for variable in model.flow_variables:
        variable.assign(variable + 0.1 * rng.normal(size=variable.shape))
    model.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras", safe_mode=True)
    x = rng.normal(size=[5, 4]).astype(np.float32)
    data = x if conditional is None else (x, np.arange(5) % 3)
    np.testing.assert_array_equal(loaded(data), model(data))
    assert loaded.get_config() == model.get_config()


class CallableWithoutAConfig:
    def __call__(self, *args, **options):
        return unregistered_net(*args, **options)


@pytest.mark.parametrize(
    "network",
    [
        unregistered_net,
        lambda *args, **options: unregistered_net(*args, **options),
        functools.partial(tic.networks.residual_net, depth=1),
        CallableWithoutAConfig(),
        CallableWithoutAConfig().__call__,
    ],
    ids=["function", "lambda", "partial", "object", "method"],
)
def test_one_that_is_not_registered_is_refused_by_its_name(network, tmp_path):
    model = vector_model(network)
    words = "can't be saved whole with network=.* decorated with keras.saving.register_"
    with pytest.raises(ValueError, match=words):
        model.save(tmp_path / "flow.keras")
    assert not list(tmp_path.iterdir())
    model.save_weights(tmp_path / "flow.weights.h5")


@pytest.mark.parametrize(
    "network",
    [
        {"class_name": "__lambda__", "config": {"value": "4wAA"}},
        {
            "module": "os",
            "class_name": "function",
            "config": "mkdir",
            "registered_name": "mkdir",
        },
    ],
    ids=["lambda", "function"],
)
def test_a_network_in_a_file_runs_nothing_else(network, tmp_path):
    vector_model(tic.networks.mlp, width=4).save(tmp_path / "flow.keras")
    with zipfile.ZipFile(tmp_path / "flow.keras") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    config["config"]["arguments"]["network"] = network
    files["config.json"] = json.dumps(config)
    with zipfile.ZipFile(tmp_path / "changed.keras", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises((TypeError, ValueError), match="lambda|could not|deserializ"):
        keras.saving.load_model(tmp_path / "changed.keras")


def test_weights_in_a_remote_folder_are_read_back():
    model, x = small_model(), vectors()
    model.save_weights("ram://folder/x.weights.h5")
    other = small_model(seed=1)
    other.load_weights("ram://folder/x.weights.h5")
    np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))
