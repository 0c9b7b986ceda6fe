"""Experiments that compare image flows: tables, verdicts, and what they take over."""

import json
import re
import subprocess

import pytest
import tensorflow as tf
from matplotlib.figure import Figure


def test_a_flow_that_diverged_is_in_the_comparison(run_example, example, monkeypatch, tmp_path):
    diverged = {"diverged": True, "finished": False, "parameters": 7, "training_seconds": 1.0}
    monkeypatch.setattr(example("image_flow"), "train", lambda *args: diverged)
    kinds = ["1x1/affine", "1x1/additive"]
    with pytest.raises(SystemExit) as end:
        run_example("compare_flows", *kinds, "--out", tmp_path / "runs")
    assert end.value.code == 1
    assert (tmp_path / "runs" / "comparison.md").read_text().count("| NaN |") == 2


def test_a_comparison_has_all_kinds_in_one_table_and_one_picture(
    example, run_example, monkeypatch, tmp_path, capsys
):
    drawn, trained, savefig, out = [], [], Figure.savefig, tmp_path / "runs"

    def train(options, folder, data_dir):
        seed = options["seed"]
        trained.append((f"{options['conv']}/{options['coupling']}", seed))
        (folder / "history.csv").write_text(
            f"epoch,seconds,bits_per_dim,loss\n1,3.0,2.75,9\n2,6.0,{2.5 + 0.2 * seed},8\n"
        )
        return {
            **GOOD,
            **options,
            "finished": True,
            "parameters": 1234,
            "training_seconds": 98.4 + seed,
            "sampling_seconds": 0.0152,
            "samples_not_finite": 3,
            "test_bits_per_dim": 2.5 + 0.2 * seed,
        }

    def note_and_save(figure, path):
        lines = figure.axes[0].get_lines()
        drawn.extend((line.get_label(), line.get_xydata().tolist()) for line in lines)
        savefig(figure, path)

    monkeypatch.setattr(example("image_flow"), "train", train)
    monkeypatch.setattr(Figure, "savefig", note_and_save)
    kinds = ["1x1/affine", "emerging/quad"]
    for _ in range(2):
        run_example("compare_flows", *kinds, "--seeds", 0, 1, "--out", out)
    # The second time all results are there.
    assert trained == [(kind, seed) for kind in kinds for seed in (0, 1)]
    rows = [f"| {kind} | 1,234 | 99 | 2.600 ± 0.141 | 15 | 6 | 40 |" for kind in kinds]
    table = (out / "comparison.md").read_text()
    assert table.splitlines()[2:] == rows and table in capsys.readouterr().out
    assert drawn == 2 * [(kind, [[3.0, 2.75], [6.0, 2.6]]) for kind in kinds]
    assert tf.io.decode_png((out / "comparison.png").read_bytes()).shape[0] > 100
    results = json.loads((tmp_path / "runs.json").read_text())
    assert list(results) == [f"{k.replace('/', '-')}/{s}" for k in kinds for s in (0, 1)]


@pytest.mark.slow
def test_check_samples_goes_on_where_it_stopped(end_of, monkeypatch, tmp_path, capsys):
    train, small = subprocess.run, ["--levels=1", "--depth=1", "--width=4", "--dropout=0"]
    monkeypatch.setattr(subprocess, "run", lambda args, **kw: train([*args, *small], **kw))
    kinds, out = ["--kinds", "1x1/additive", "1x1/affine"], tmp_path / "runs"
    options = ["--datasets", "digits", *kinds, "--epochs", 1, "--out", out]
    done = {"digits/1x1-additive-1.0": {**GOOD, "coupling": "additive", "epochs": 1}}
    (tmp_path / "runs.json").write_text(json.dumps(done))
    outputs = []
    for _ in range(2):
        code = end_of("check_samples", *options)
        outputs.append(capsys.readouterr().out)
        table = (out / "table.md").read_text()
        # After fifteen steps a flow need not hold.
        failed = table.count("| no |")
        assert table in outputs[-1] and len(table.splitlines()) == 4
        assert code == failed == 2 - table.count("| yes |")
        assert f"{2 - failed} of 2 flows hold" in outputs[-1]
    assert outputs[0] == outputs[1]
    runs = json.loads((tmp_path / "runs.json").read_text())
    assert runs["digits/1x1-additive-1.0"] == done["digits/1x1-additive-1.0"]
    results = runs["digits/1x1-affine-1.0"]
    assert results["learning_rate"] == 1e-2 and results["epochs"] == 1
    assert results["command"].startswith("python ")
    counts = f"{results['samples_not_finite']} | {results['samples_far_out']} |"
    bits = f"{results['test_bits_per_dim']:.2f}"
    assert f"| digits | 1x1/affine | 1.0 | {bits} | {counts}" in outputs[0]


def test_a_bound_is_a_number_or_sigmoid(example):
    bounds = [example("image_flow").log_scale_bound(text) for text in ("0.5", "sigmoid")]
    assert bounds == [0.5, "sigmoid"]


def test_the_last_words_of_a_training_that_failed(end_of, monkeypatch, tmp_path):
    """Its own one line, in which a user reads what was wrong."""

    def fail(args, stdout, **kwargs):
        stdout.write("Traceback\ntrain_image_flow: unknown data set 'digit'\n")

    monkeypatch.setattr(subprocess, "run", fail)
    options = ["--datasets", "digit", "--kinds", "1x1/affine", "--out", tmp_path / "runs"]
    # What an interrupted run has left is no result of this one.
    stale = tmp_path / "runs" / "digit" / "1x1-affine-1.0" / "results.json"
    stale.parent.mkdir(parents=True)
    stale.write_text(json.dumps(GOOD))
    words = end_of("check_samples", *options)
    assert words.startswith("check_samples: train_image_flow: unknown data set 'digit' (")
    assert "log.txt" in words and not (tmp_path / "runs.json").exists()


GOOD = {
    "dataset": "digits",
    "conv": "1x1",
    "coupling": "affine",
    "log_scale_bound": 1.0,
    "epochs": 60,
    "learning_rate": 1e-2,
    "diverged": False,
    "samples": 2000,
    "samples_not_finite": 0,
    "samples_far_out": 20,
    "reconstruction_error": 0.01,
    "test_bits_per_dim": 2.5,
}


@pytest.mark.parametrize(
    "change, holds",
    [
        ({}, True),
        ({"samples_not_finite": 1}, False),
        ({"samples_far_out": 21}, False),
        ({"reconstruction_error": 0.011}, False),
        ({"reconstruction_error": None}, False),
        ({"diverged": True}, False),
    ],
)
def test_check_samples_counts_what_does_not_hold(end_of, capsys, tmp_path, change, holds):
    runs = {"digits/1x1-affine-1.0": {**GOOD, **change}}
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    options = ["--datasets", "digits", "--kinds", "1x1/affine", "--out", tmp_path / "runs"]
    assert end_of("check_samples", *options) == (0 if holds else 1)
    assert f"{int(holds)} of 1 flows hold" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["{", "7", "[1]", json.dumps({"digits/1x1-affine-1.0": {**GOOD, "epochs": 2}})]
)
def test_check_samples_writes_over_nothing(end_of, tmp_path, text):
    path = tmp_path / "runs.json"
    path.write_text(text)
    options = ["--datasets", "digits", "--kinds", "1x1/affine", "--out", tmp_path / "runs"]
    words = end_of("check_samples", *options)
    assert re.search(r"runs.json is (damaged|of a run with \{'epochs': 2\})", words)
    assert path.read_text() == text and list(tmp_path.iterdir()) == [path]
