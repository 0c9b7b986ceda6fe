"""What the peers' flows are reported to reach, recomputed from their weights."""

import json

import numpy as np
import pytest
import tensorflow as tf

import tfp_invconv as tic

SMALL = dict(levels=1, depth=1, width=4)
OPTIONS = [f"--{name}={value}" for name, value in {**SMALL, "epochs": 2, "seeds": 3}.items()]


@pytest.fixture(name="trained")
def fixture_trained(run_example, tmp_path):
    """Trains a flow on the digits; returns its results and the folder of its run."""

    def trained(flow):
        run_example("train_peers", "--flows", flow, *OPTIONS, "--out", tmp_path / "runs")
        return json.loads((tmp_path / "runs.json").read_text())[f"{flow}/3"], tmp_path / "runs"

    return trained


def digits():
    return np.concatenate(list(tic.data.load_images("digits", "test", 500, seed=3)))


def check(results, log_prob, samples):
    """The figures are those of `log_prob`, and of samples from the same weights."""
    bits = -np.mean(log_prob) / (64 * np.log(2))
    np.testing.assert_allclose(results["test_bits_per_dim"], bits, rtol=1e-4)
    assert bits < 4.6  # untrained it has 4.63
    assert (results["samples"], results["epochs_done"]) == (2000, 2)
    for key, count in tic.count_outliers(samples, max_value=16).items():
        assert results[key] == count


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*samples are not finite", "ignore:.*hold numbers that")
def test_tfb_glow(trained, example):
    results, folder = trained("tfb.Glow")
    x = digits()
    flow = example("peers").tfb_glow([8, 8, 1], num_values=17, **SMALL)
    flow.log_prob(x[:100])
    model = tic.FlowModel(flow)
    model.load_weights(folder / "tfb.Glow" / "3" / "model.weights.h5")
    samples = [model.sample(100, seed=3000 + i).numpy() for i in range(20)]
    check(results, flow.log_prob(x), np.concatenate(samples))
    picture = tf.io.decode_png((folder / "tfb.Glow" / "3" / "samples.png").read_bytes())
    assert len(np.unique(picture)) > 16


def test_a_backup_of_tfb_glow_knows_what_decides_it(example, run_example, monkeypatch, tmp_path):
    def fit(name, model, optimizer, callbacks, folder, **arguments):
        raise ValueError(f"{callbacks[-1]._config}")

    monkeypatch.setattr(example("training"), "fit", fit)
    with pytest.raises(SystemExit, match="'learning_rate': 0.25"):
        run_example(
            "train_peers",
            "--flows",
            "tfb.Glow",
            *OPTIONS,
            "--learning-rate=0.25",
            "--out",
            tmp_path,
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # normflows' own
def test_normflows(trained, example):
    reason = "normflows is a peer to compare with, and is not installed"
    pytest.importorskip("normflows", reason=reason)
    torch = pytest.importorskip("torch", reason=reason)
    results, folder = trained("normflows")
    flow = example("peers").normflows_glow([8, 8, 1], **SMALL)
    flow.load_state_dict(torch.load(folder / "normflows" / "3" / "model.pt", weights_only=True))
    samples = []
    with torch.no_grad():
        pixels = torch.from_numpy(np.moveaxis(digits(), -1, 1) / 17 - 0.5)
        log_prob = flow.log_prob(pixels, None).numpy() - 64 * np.log(17)
        for i in range(20):
            torch.manual_seed(3000 + i)
            samples.append(np.moveaxis(17 * (flow.sample(100)[0].numpy() + 0.5), 1, -1))
    check(results, log_prob, np.concatenate(samples))
