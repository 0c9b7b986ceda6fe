"""The experiments in examples/: killed and started again, given wrong folders, and their report."""

import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

pytest.importorskip("tensorflow_datasets")

from tfp_invconv.data import _builders  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples"

# Enough for a kill in the midst of an epoch after the first.
EPOCHS = 12
SMALL = {
    "train_image_flow": "--levels 1 --depth 1 --width 4 --dropout 0.1 --batch-size 500 "
    "--compare 1x1/affine",
    "train_density": "--dataset small_vectors --models realnvp --depth 1 --width 4 --dropout 0.1 "
    "--patience 30 --batch-size 100 --symmetric",
    "train_vae": "--dataset digits --posteriors planar --flows 1 --latents 4 --width 4 --samples 3 "
    "--batch-size 500",
}
FIGURES = {
    "train_image_flow": ("1x1-affine", "test_bits_per_dim"),
    "train_density": ("realnvp", "test_nats"),
    "train_vae": ("planar", "test_negative_elbo"),
}


class SmallVectors(_builders.VectorBuilder):
    NUM_FEATURES = 63

    def _split_generators(self, dl_manager):
        rng = np.random.default_rng(0)
        sizes = {"train": 500, "validation": 100, "test": 100}
        return {
            split: self._generate_examples(rng.normal(size=[size, 63]).astype(np.float32) ** 3)
            for split, size in sizes.items()
        }


@pytest.fixture(scope="module", name="data_dir")
def fixture_data_dir(tmp_path_factory):
    """With the data sets that the experiments above read."""
    folder = tmp_path_factory.mktemp("data")
    SmallVectors(data_dir=folder).download_and_prepare()
    return folder


def script(name):
    (path,) = (*EXAMPLES.glob(f"{name}.py"), *EXAMPLES.glob(f"papers/{name}.py"))
    return path


def small(name, out, data_dir):
    """The arguments of a small experiment."""
    return [*SMALL[name].split(), "--epochs", EPOCHS, "--data-dir", data_dir, "--out", out]


@pytest.fixture(name="main")
def fixture_main(run_example, data_dir):
    """Runs a small experiment in this process: main(name, out, more options)."""
    return lambda name, out, *more: run_example(name, *small(name, out, data_dir), *more)


def read(name, out, seed=0):
    return json.loads((out / FIGURES[name][0] / str(seed) / "results.json").read_text())


def start_and_kill(name, out, data_dir):
    """Kills the command, by kill -9, after an epoch that it has kept."""
    folder = out / FIGURES[name][0] / "0"
    process = subprocess.Popen(
        [sys.executable, script(name), *map(str, small(name, out, data_dir))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not (folder / "training.npz").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "results.json").exists()
    with np.load(folder / "training.npz") as state:
        assert 1 <= len(json.loads(str(state["record"]))["history"]) < EPOCHS


@pytest.mark.parametrize("name", list(SMALL))
def test_killed_and_started_again_it_ends_as_if_undisturbed(name, main, data_dir, tmp_path, capsys):
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    start_and_kill(name, killed, data_dir)
    main(name, killed)
    assert "Epoch 1/" not in capsys.readouterr().out
    main(name, undisturbed)
    key = FIGURES[name][1]
    first, second = (read(name, out) for out in (killed, undisturbed))
    assert first["epochs_done"] == second["epochs_done"] == EPOCHS
    np.testing.assert_allclose(first[key], second[key], rtol=1e-6)
    np.testing.assert_allclose(
        [value for _, value in first["curve"]], [value for _, value in second["curve"]], rtol=1e-6
    )
    # Training has not stood still, so that this says something.
    assert abs(first["curve"][0][1] - first["curve"][-1][1]) > 1e-3
    assert first["command"].startswith("python ") and first["machine"] and first["versions"]
    assert "--out killed" in first["command"] and str(tmp_path) not in first["command"]
    picture = tf.io.decode_png((killed / "comparison.png").read_bytes()).numpy()
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 10
    # Finished runs are read, not made again.
    before = (killed / "comparison.md").read_text()
    capsys.readouterr()
    main(name, killed)
    assert "Epoch" not in capsys.readouterr().out
    assert (killed / "comparison.md").read_text() == before


def test_mean_and_spread_over_seeds(example):
    runs = [{"test_bits_per_dim": bits} for bits in (3.0, 3.1, 3.2)]
    for run in runs:
        run |= {"training_seconds": 1.0, "parameters": 7, "diverged": False, "sampling_seconds": 1}
        run |= {"samples_not_finite": 0, "samples_far_out": 1}
    figures = example("train_image_flow").figures
    row = example("experiment").table_row("1x1/affine", runs, figures)
    assert row == "| 1x1/affine | 7 | 1 | 3.100 ± 0.100 | 1000 | 0 | 3 |"


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def state_of(options):
    file = io.BytesIO()
    np.savez(file, record=json.dumps({"options": options, "history": []}))
    return file.getvalue()


@pytest.mark.parametrize(
    "file, content, words",
    [
        (
            "results.json",
            b'{"model": "realnvp", "epochs": 2}',
            r"is of a run with \{'dataset': None",
        ),
        ("results.json", b"{", "results.json is damaged; remove it"),
        ("results.json", b"7", "results.json is damaged; remove it"),
        ("training.npz", b"PK\x03\x04 and half of it", "training.npz is damaged; remove it"),
        ("training.npz", state_of({"model": "realnvp"}), r"training.npz is of a run with \{"),
    ],
)
def test_what_is_not_its_own_stays_and_is_an_error(main, tmp_path, file, content, words):
    path = written(tmp_path / "realnvp" / "0" / file, content)
    with pytest.raises(SystemExit, match=words) as end:
        main("train_density", tmp_path)
    assert str(end.value).startswith("train_density: ")
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [file]


def test_an_unknown_data_set_is_named(main, tmp_path):
    with pytest.raises(ValueError, match="unknown data set 'smal_vectors'; similar names: small_v"):
        main("train_density", tmp_path, "--dataset", "smal_vectors")
    assert not list(tmp_path.rglob("*.json"))


def test_a_budget_too_short_for_an_epoch_says_so(main, tmp_path, capsys):
    main("train_density", tmp_path, "--minutes", "1e-6")
    assert "The training ended before its first epoch did." in capsys.readouterr().out
    results = read("train_density", tmp_path)
    assert results["epochs_done"] == 0 and results["minutes"] == 1e-6 and results["finished"]


@pytest.mark.parametrize("model", ["realnvp", "glow", "conf", "spline", "sinh"])
def test_a_flow_starts_as_the_gaussian_in_the_units_of_the_data(example, model):
    """So its density integrates to one, in whatever units."""
    args = example("argparse").Namespace(depth=2, width=8, dropout=0.0)
    rng = np.random.default_rng(0)
    data = rng.normal(size=[500, 4]) @ rng.normal(size=[4, 4]) / 256 + 3.0
    gaussian = data.mean(0), np.cov(data, rowvar=False)
    flow = example("train_density").make_flow(model, gaussian, args, seed=0)
    # Without the mixing's, the only ones that are not the identity: rotations.
    normal = tfp.distributions.MultivariateNormalTriL(gaussian[0], np.linalg.cholesky(gaussian[1]))
    np.testing.assert_allclose(
        flow.log_prob(data.astype(np.float32)), normal.log_prob(data), rtol=1e-3
    )


def vectors_of(patches):
    return (patches - patches.mean((1, 2), keepdims=True)).reshape(len(patches), 64)[:, :63]


def test_symmetries_are_the_reflections_and_rotations_of_patches(example):
    patches = np.random.default_rng(0).normal(size=[2, 8, 8])
    moved = np.einsum("sij,bj->sbi", example("train_density").symmetries(), vectors_of(patches))
    mirrored = patches[:, :, ::-1]
    expected = [np.rot90(p, turns, (1, 2)) for p in (patches, mirrored) for turns in range(4)]
    assert sorted(np.round(np.ravel(m), 5).tolist() for m in moved) == sorted(
        np.round(np.ravel(vectors_of(e)), 5).tolist() for e in expected
    )


def test_each_patch_is_moved_anew_by_any_of_its_symmetries(example):
    module = example("train_density")
    patch = vectors_of(np.random.default_rng(0).normal(size=[1, 8, 8])).astype(np.float32)
    vectors = tf.data.Dataset.from_tensors(patch).repeat(300).unbatch().batch(100)
    moved = module.moved_at_random(vectors, 100, seed=0)
    epochs = [np.concatenate(list(moved.as_numpy_iterator())) for _ in range(2)]
    all_moved = module.symmetries() @ patch[0]
    chosen = [np.abs(epoch[:, None] - all_moved).max(-1) for epoch in epochs]
    assert all(np.all(c.min(1) < 1e-5) for c in chosen)
    first, second = (c.argmin(1) for c in chosen)
    assert set(first) == set(range(8)) and np.any(first[:100] != first[100:200])
    assert np.any(first != second)


def test_the_averaged_density_is_that_of_each_symmetry(example):
    module = example("train_density")
    scale = np.linspace(1.0, 2.0, 63).astype(np.float32)
    flow = tfp.distributions.MultivariateNormalDiag(np.zeros(63, np.float32), scale)
    patches = vectors_of(np.random.default_rng(0).normal(size=[3, 8, 8])).astype(np.float32)
    found = module.averaged(flow).log_prob(patches)
    each = [flow.log_prob(patches @ matrix.T) for matrix in module.symmetries()]
    np.testing.assert_allclose(found, tf.reduce_logsumexp(each, 0) - np.log(8), rtol=1e-5)


def test_symmetric_needs_patches(example):
    vectors = tf.data.Dataset.from_tensors(tf.zeros([2, 6]))
    with pytest.raises(SystemExit, match="needs the 63 numbers of an 8x8 patch, and .* have 6"):
        example("train_density").moved_at_random(vectors, 2, seed=0)


def test_planar_flows_have_their_log_determinant(example):
    u, w, b = np.split(np.random.default_rng(0).normal(size=[5, 7]).astype(np.float32), [3, 6], -1)
    flow = example("train_vae").Planar(*map(tf.constant, (u, w, b)))
    z = tf.random.stateless_normal([5, 3], [0, 0])
    with tf.GradientTape() as tape:
        tape.watch(z)
        moved = flow.forward(z)
    jacobian = tape.batch_jacobian(moved, z)
    expected = np.linalg.slogdet(jacobian.numpy())[1]
    np.testing.assert_allclose(flow.forward_log_det_jacobian(z, 1), expected, atol=1e-5)


@pytest.mark.parametrize("posterior", ["gaussian", "planar", "conf"])
def test_importance_weights_average_to_the_likelihood(example, posterior):
    """Of a decoder that does not look at z, whatever the posterior is."""
    train_vae = example("train_vae")
    keras.utils.set_random_seed(0)
    args = example("argparse").Namespace(flows=2, latents=2, width=4)
    model = train_vae.VAE(6, train_vae.POSTERIORS[posterior], args, seed=0)
    images = np.random.default_rng(0).integers(0, 2, size=[10, 6]).astype(np.float32)
    model(images)
    for variable in model.posterior.trainable_variables:
        variable.assign_add(0.3 * tf.random.stateless_normal(variable.shape, [0, 1]))
    # A proposal near the prior, and a decoder that gives each pixel one half.
    for variable in (*model.gaussian.variables, *model.decoder.layers[-1].variables):
        variable.assign(tf.zeros_like(variable))
    figures = train_vae.evaluate(model, images, count=4000)
    np.testing.assert_allclose(figures["test_nll"], 6 * np.log(2), atol=0.03)
    assert figures["test_negative_elbo"] > figures["test_nll"]


def test_sampling_time_goes_on_with_what_is_not_done(
    example, run_example, monkeypatch, tmp_path, capsys
):
    module, measured = example("sampling_time"), []

    def measure(args, shape):
        if len(measured) == 1 and shape == [4, 4, 1]:
            raise KeyboardInterrupt
        measured.append(shape)
        ms = {"1x1": 2.0, "cinc": 3.0}
        return {"ms": ms, "quartiles": {conv: [1.0, 4.0] for conv in ms}}

    monkeypatch.setattr(module, "measure", measure)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(name, "1")
    arguments = ["--shapes", "2x2x1", "4x4x1", "--convs", "1x1", "cinc", "--out", tmp_path]
    with pytest.raises(KeyboardInterrupt):
        run_example("sampling_time", *arguments)
    measured.append("interrupted")
    run_example("sampling_time", *arguments)
    assert measured == [[2, 2, 1], "interrupted", [4, 4, 1]]
    assert "| 4x4x1 | cinc | 3 (1 - 4) | 1.50 |" in capsys.readouterr().out


def test_sampling_time_measures_each_convolution(example):
    options = dict(convs=["1x1", "cinc"], images=2, levels=1, depth=1, width=4, repeats=2)
    figures = example("sampling_time").measure(example("argparse").Namespace(**options), [4, 4, 1])
    assert figures["ms"].keys() == {"1x1", "cinc"} and min(figures["ms"].values()) > 0


# The report.


def save(folder, **results):
    written(folder / "results.json", json.dumps(results).encode())


@pytest.mark.parametrize(
    "ours, theirs, verdict",
    [
        ((3.0, 3.1, 3.2), (3.2, 3.3, 3.4), "holds"),
        ((3.2, 3.3, 3.4), (3.0, 3.1, 3.2), "does not hold"),
        ((3.0, 3.4, 3.2), (3.1, 3.3, 3.3), "does not hold"),  # within the spread
        ((3.0,), (3.2,), "open"),  # one seed, and no standard error
        ((), (3.2,), "open"),
    ],
)
def test_a_claim_about_two_models(example, tmp_path, ours, theirs, verdict):
    for name, values in (("a", ours), ("b", theirs)):
        for seed, bits in enumerate(values):
            save(tmp_path / "data" / name / str(seed), bits=bits, finished=True)
    here, spread, found = example("report").against("data", "a", "b", "bits", -1, results=tmp_path)
    assert found == verdict
    if verdict == "holds":
        assert (here, spread) == ("3.100 against 3.300", "-0.200 ± 0.000 (3 seeds)")


def test_a_claim_of_one_seed_has_standard_errors(example, tmp_path):
    for name, nats in (("a", 155.0), ("b", 154.5)):
        save(tmp_path / "data" / name / "0", nats=nats, nats_standard_error=0.3, finished=True)
    against = example("report").against
    assert against("data", "a", "b", "nats", 1, results=tmp_path) == (
        "155.000 against 154.500",
        "+0.500 ± 0.424 (one seed, standard error)",
        "holds",
    )


def test_claims_with_a_limit(example, tmp_path):
    report = example("report")
    save(tmp_path / "data" / "a" / "0", nats=155.0, nats_standard_error=0.3, finished=True)
    for limit, verdict in ((154.6, "holds"), (154.8, "does not hold")):
        assert report.above("data/a", "nats", limit, results=tmp_path)[2] == verdict
    save(tmp_path / "sampling_time" / "4x4x1", ms={"a": 3.0, "b": 2.0})
    for limit, verdict in ((1.6, "holds"), (1.4, "does not hold")):
        assert report.ratio("4x4x1", "a", "b", limit, results=tmp_path)[1:] == (
            "ratio 1.50",
            verdict,
        )


def test_interrupted_and_diverged_trainings_are_no_results(example, tmp_path):
    save(tmp_path / "0", finished=False)
    save(tmp_path / "1", finished=False, diverged=True)
    save(tmp_path / "2", finished=True)
    assert list(example("report").read_seeds(tmp_path)) == ["2"]


def test_a_damaged_result_is_named(example, tmp_path):
    path = written(tmp_path / "results.json", b"{")
    with pytest.raises(SystemExit, match=f"report: {path} is damaged"):
        example("report").read(path)


def test_the_report_is_open_without_results(example, tmp_path):
    lines = example("report").table(tmp_path).splitlines()
    assert len(lines) > 12
    assert all(line.count("|") == 8 for line in lines)
    assert all("| open |" in line for line in lines[2:])


def test_committed_results_name_no_folder_of_a_machine():
    paths = list((EXAMPLES / "papers" / "results").rglob("results.json"))
    assert paths and not [path for path in paths if re.search(r"[ =\"]/", path.read_text())]


def test_the_readme_has_the_report_of_the_committed_results(example):
    assert example("report").table() in (EXAMPLES.parent / "README.md").read_text()
