"""The papers' experiments: killed and started again, given wrong folders, and their report."""

import csv
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
    "train_image_flow": "--levels 1 --depth 1 --width 4 --dropout 0.1 --batch-size 500 --conv 1x1",
    "train_density": "--dataset small_vectors --models realnvp --depth 1 --width 4 --dropout 0.1 "
    "--patience 30 --batch-size 100 --symmetric",
    "train_vae": "--dataset digits --posteriors planar --flows 1 --latents 4 --width 4 --samples 3 "
    "--batch-size 500",
    "train_free_field": "--lattices 4x3 --batch-size 8 --samples 2000",
}
# Those that train as one of these does.
ALIKE = {
    "train_conditional": "inpainting --dataset digits --levels 1 --depth 1 --width 4",
    "train_generated": "volumes --size 4 --events 200 --depth 1 --width 4",
    "train_posterior": "--flows linear --size 4 --events 200",
    "train_phi4": "--flows spectral --size 2 --depth 1 --width 2",
}
FIGURES = {
    "train_image_flow": ("", "test_bits_per_dim", "bits_per_dim"),
    "train_density": ("realnvp/0", "test_nats", "val_loss"),
    "train_vae": ("planar/0", "test_negative_elbo", "val_loss"),
    "train_free_field": ("4x3/0", "ess", "loss"),
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
    data = [] if name == "train_free_field" else ["--data-dir", data_dir]
    return [*SMALL[name].split(), "--epochs", EPOCHS, *data, "--out", out]


@pytest.fixture(name="main")
def fixture_main(run_example, data_dir):
    """Runs a small experiment in this process: main(name, out, more options)."""
    return lambda name, out, *more: run_example(name, *small(name, out, data_dir), *more)


def read(name, out):
    """The results of the run, from the run's own file or from that of the experiment."""
    run = FIGURES[name][0]
    if not run:
        return json.loads((out / "results.json").read_text())
    return json.loads(out.with_name(f"{out.name}.json").read_text())[run]


def history(name, out):
    with open(out / FIGURES[name][0] / "history.csv") as file:
        return [float(row[FIGURES[name][2]]) for row in csv.DictReader(file)]


def start_and_kill(name, out, data_dir):
    """Kills the command, by kill -9, after an epoch that it has kept."""
    folder = out / FIGURES[name][0]
    process = subprocess.Popen(
        [sys.executable, script(name), *map(str, small(name, out, data_dir))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not list(folder.glob("epoch-*")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (backup,) = folder.glob("epoch-*")
    assert 1 <= int(backup.name[6:12]) < EPOCHS
    assert not (folder / "history.csv").exists() and not list(out.parent.rglob("*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SMALL))
def test_killed_and_started_again_it_ends_as_if_undisturbed(name, main, data_dir, tmp_path, capsys):
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    start_and_kill(name, killed, data_dir)
    main(name, killed)
    assert "Epoch 1/" not in capsys.readouterr().out
    main(name, undisturbed)
    first, second = (read(name, out) for out in (killed, undisturbed))
    assert first["epochs_done"] == second["epochs_done"] == EPOCHS
    key = FIGURES[name][1]
    np.testing.assert_allclose(first[key], second[key], rtol=1e-6)
    first_curve, second_curve = (history(name, out) for out in (killed, undisturbed))
    np.testing.assert_allclose(first_curve, second_curve, rtol=1e-6)
    # Training has not stood still, so that this says something.
    assert len(first_curve) == EPOCHS and abs(first_curve[0] - first_curve[-1]) > 1e-3
    # A finished run trains no more.
    capsys.readouterr()
    before = killed.with_name("killed.json")
    before = before.read_text() if before.exists() else ""
    main(name, killed)
    assert "Epoch" not in capsys.readouterr().out
    np.testing.assert_allclose(read(name, killed)[key], first[key], rtol=1e-6)
    if not before:
        return
    assert killed.with_name("killed.json").read_text() == before
    assert first["command"].startswith("python ") and first["machine"] and first["versions"]
    assert "--out killed" in first["command"] and str(tmp_path) not in first["command"]
    picture = tf.io.decode_png((killed / "comparison.png").read_bytes()).numpy()
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 10


@pytest.mark.parametrize("name", list(ALIKE))
def test_every_training_keeps_a_backup(example, run_example, name, tmp_path, monkeypatch):
    given = {}

    def fit(_, model, optimizer, callbacks, folder, **arguments):
        given.update(backup=callbacks[-1], folder=folder, **arguments)
        raise ValueError("trained enough")

    monkeypatch.setattr(example("training"), "fit", fit)
    with pytest.raises(SystemExit, match=f"^{name}: trained enough"):
        run_example(name, *ALIKE[name].split(), "--seeds", 3, "--minutes", 5, "--out", tmp_path)
    backup = given["backup"]
    assert backup._folder == given["folder"] and backup._folder.parent.parent == tmp_path
    assert backup._limit == 300 and backup._config["seed"] == 3
    # A data set that is shuffled anew needs to be told to it.
    assert backup._data is given.get("x")


def test_mean_and_spread_over_seeds(example):
    runs = [{"test_bits_per_dim": bits} for bits in (3.0, 3.1, 3.2)]
    for run in runs:
        run |= {"training_seconds": 1.0, "parameters": 7, "diverged": False, "sampling_seconds": 1}
        run |= {"samples_not_finite": 0, "samples_far_out": 1}
    figures = example("compare_flows").figures
    row = example("experiment").table_row("1x1/affine", runs, figures)
    assert row == "| 1x1/affine | 7 | 1 | 3.100 ± 0.100 | 1000 | 0 | 3 |"


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content, words",
    [
        (b'{"realnvp/0": {"epochs": 2}}', r"realnvp/0 in .* is of a run with \{'model': None"),
        (b"{", "runs.json is damaged; remove it"),
        (b"7", "runs.json is damaged; remove it"),
    ],
)
def test_results_of_another_run_stay_and_are_an_error(main, tmp_path, content, words):
    path = written(tmp_path / "runs.json", content)
    with pytest.raises(SystemExit, match=words) as end:
        main("train_density", tmp_path / "runs")
    assert str(end.value).startswith("train_density: ")
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_a_damaged_backup_stays_and_is_an_error(main, tmp_path):
    path = written(tmp_path / "runs/realnvp/0/epoch-000003.weights.h5", b"half of it")
    with pytest.raises(SystemExit, match="^train_density: .*epoch-000003.weights.h5 is damaged"):
        main("train_density", tmp_path / "runs")
    assert path.read_bytes() == b"half of it" and not (tmp_path / "runs.json").exists()


def test_an_unknown_data_set_is_named_in_one_line(main, tmp_path):
    words = "^train_density: .*unknown data set 'smal_vectors'; similar names: small_v.*$"
    with pytest.raises(SystemExit, match=words) as end:
        main("train_density", tmp_path / "runs", "--dataset", "smal_vectors")
    assert "\n" not in str(end.value)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.slow
def test_a_budget_too_short_for_an_epoch_says_so(main, tmp_path, capsys):
    main("train_density", tmp_path / "runs", "--minutes", "1e-6")
    assert "The training ended before its first epoch did." in capsys.readouterr().out
    results = read("train_density", tmp_path / "runs")
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


@pytest.mark.slow
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
    arguments = ["--shapes", "2x2x1", "4x4x1", "--convs", "1x1", "cinc"]
    arguments += ["--out", tmp_path / "runs"]
    with pytest.raises(SystemExit, match="^sampling_time: interrupted"):
        run_example("sampling_time", *arguments)
    measured.append("interrupted")
    run_example("sampling_time", *arguments)
    assert measured == [[2, 2, 1], "interrupted", [4, 4, 1]]
    assert "| 4x4x1 | cinc | 3 (1 - 4) | 1.50 |" in capsys.readouterr().out


# The report.


def save(folder, experiment, **runs):
    """Writes a file of results; a run's name has _ for /."""
    runs = {name.replace("_", "/"): results for name, results in runs.items()}
    written(folder / f"{experiment}.json", json.dumps(runs).encode())


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
    runs = {
        f"{name}_{seed}": {"bits": bits, "finished": True}
        for name, values in (("a", ours), ("b", theirs))
        for seed, bits in enumerate(values)
    }
    save(tmp_path, "data", **runs)
    here, spread, found = example("report").against("data", "a", "b", "bits", -1, results=tmp_path)
    assert found == verdict
    if verdict == "holds":
        assert (here, spread) == ("3.100 against 3.300", "-0.200 ± 0.000 (3 seeds)")


def test_a_claim_may_have_a_margin(example, tmp_path):
    save(tmp_path, "data", a_0={"b": 3.0}, a_1={"b": 3.1}, b_0={"b": 2.9}, b_1={"b": 3.02})
    for margin, found in ((0.11, "holds"), (0.1, "does not hold"), (0.0, "does not hold")):
        against = example("report").against
        assert against("data", "a", "b", "b", -1, margin, results=tmp_path)[2] == found
    # The other way round it is better by more than the spread without one.
    assert example("report").against("data", "b", "a", "b", -1, results=tmp_path)[2] == "holds"


def test_a_claim_of_one_seed_has_standard_errors(example, tmp_path):
    a, b = ({"nats": nats, "nats_standard_error": 0.3} for nats in (155.0, 154.5))
    save(tmp_path, "data", a_0=a, b_0=b)
    against = example("report").against
    assert against("data", "a", "b", "nats", 1, results=tmp_path) == (
        "155.000 against 154.500",
        "+0.500 ± 0.424 (one seed, standard error)",
        "holds",
    )


def test_claims_with_a_limit(example, tmp_path):
    report = example("report")
    save(tmp_path, "data", a_0={"nats": 155.0, "nats_standard_error": 0.3})
    for limit, verdict in ((154.6, "holds"), (154.8, "does not hold")):
        assert report.above("data", "a", "nats", limit, results=tmp_path)[2] == verdict
    save(tmp_path, "sampling_time", **{"4x4x1": {"ms": {"a": 3.0, "b": 2.0}}})
    for limit, verdict in ((1.6, "holds"), (1.4, "does not hold")):
        assert report.ratio("4x4x1", "a", "b", limit, results=tmp_path)[1:] == (
            "ratio 1.50",
            verdict,
        )


def test_interrupted_and_diverged_trainings_are_no_results(example, tmp_path):
    interrupted, diverged = {"finished": False}, {"finished": False, "diverged": True}
    save(tmp_path, "data", a_0=interrupted, a_1=diverged, a_2={"finished": True})
    assert list(example("report").read_seeds("data", "a", tmp_path)) == ["2"]


def test_unlike_sets_of_seeds_are_compared_where_they_meet(example, tmp_path):
    runs = {"a_0": 3.0, "a_1": 3.1, "a_3": 9.0, "b_1": 3.3, "b_0": 3.2, "b_2": -9.0}
    save(tmp_path, "data", **{name: {"bits": bits} for name, bits in runs.items()})
    found = example("report").against("data", "a", "b", "bits", -1, results=tmp_path)
    assert found == ("3.050 against 3.250", "-0.200 ± 0.000 (2 seeds)", "holds")


def test_a_damaged_result_is_named(example, monkeypatch, tmp_path):
    path = written(tmp_path / "check_samples.json", b"{")
    monkeypatch.setattr(sys, "argv", ["report.py"])
    with pytest.raises(SystemExit, match=f"report: {path} is damaged"):
        example("report").bounds(tmp_path)


def test_the_report_is_open_without_results(example, tmp_path):
    lines = example("report").claims(tmp_path).splitlines()
    claims = [line for line in lines if line.startswith("| ") and "verdict" not in line]
    assert len(claims) > 20
    assert all(line.count("|") == 6 and line.endswith("| open |") for line in claims)


RESULTS = sorted((EXAMPLES / "papers" / "results").glob("*.json"))


def test_committed_results_name_no_folder_of_a_machine():
    assert RESULTS and not [path for path in RESULTS if re.search(r"[ =\"]/", path.read_text())]


def page(name):
    return (EXAMPLES.parent / "docs" / name).read_text()


@pytest.mark.parametrize("name", ["results.md", "kinds_of_data.md"])
def test_a_page_has_the_committed_results(example, name):
    report = example("report")
    assert report.replaced(page(name), report.PAGES[name]) == page(name)


def test_each_committed_experiment_is_on_a_page(example):
    pages = "".join(map(page, example("report").PAGES))
    assert [p.stem for p in RESULTS if f"examples/papers/results/{p.stem}" not in pages] == []


def test_a_page_without_its_markers_is_refused(example):
    broken = page("results.md").replace("<!-- end of kinds -->", "")
    with pytest.raises(ValueError, match="has 0 times <!-- kinds: written by report.py -->"):
        example("report").replaced(broken)


def test_another_page_is_refused(run_example, capsys):
    with pytest.raises(SystemExit) as end:
        run_example("report", "--write", "docs/other.md")
    assert end.value.code == 2 and "takes results.md or kinds_of_data.md" in capsys.readouterr().err
