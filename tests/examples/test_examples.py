"""What all examples do with mistakes and folders, and the benchmark's verdicts."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_ratios_and_verdicts_of_the_benchmark(example, capsys):
    benchmark = example("timing")
    assert benchmark.verdict(2.0, 2.0).endswith("target 2: met")
    assert benchmark.verdict(2.1, 2.0).endswith("target 2: MISSED")
    peer = benchmark.summary([0.001, 0.002, 0.003, 0.004, 0.005], memory=7.0)
    assert peer == {"ms": 3.0, "quartiles": [2.0, 4.0], "mb": 7.0}
    row = benchmark.show("layer", {**peer, "ms": 6.0}, peer, target=2.5)
    assert row["value"] == 2.0 and row["target"] == 2.5
    assert "ratio  2.00   target 2.5: met" in capsys.readouterr().out


def test_results_are_written_whole_or_not_at_all(example, tmp_path, monkeypatch):
    path, write = tmp_path / "results.json", Path.write_bytes
    example("experiment").write_runs(path, {"a": {"bits": 1.0}})

    def half(path, content):
        write(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        example("experiment").write_runs(path, {"a": {"bits": 2.0}})
    assert json.loads(path.read_text()) == {"a": {"bits": 1.0}}


@pytest.mark.parametrize(
    "name, options",
    [
        ("check_samples", ["--kinds", "1x1/affine"]),
        ("sampling_time", []),
        ("train_density", []),
        ("train_image_flow", []),
    ],
)
def test_an_unusable_folder_is_an_error_at_once(end_of, tmp_path, name, options):
    (tmp_path / "file").write_text("kept")
    out = tmp_path / "file" / "runs"
    words = end_of(name, *options, "--out", out)
    if name == "train_image_flow":
        assert words == f"{name}: [Errno 20] Not a directory: '{out}'"
    else:
        assert re.search(rf"^{name}: {out}.* cannot be made: .*another --out", words)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.slow
def test_benchmark_prints_each_target_beside_its_figure(start, tmp_path):
    small = ["--event-shape", "4x4x1", "--levels", 1, "--depth", 1, "--width", 4, "--batch-size", 2]
    small += ["--depths", 1, 2]
    layers = ["--shapes", "2x4x4x4", "--layers", "EmergingConv", "HouseholderQR1x1"]
    options = [*layers, *small, "--repeats", 1, "--json", tmp_path / "times.json"]
    process = start("benchmarks", "layers", "flows", "start", *options)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    results = json.loads((tmp_path / "times.json").read_text())
    rows = [row for part in results.values() for row in part]
    targets = [row for row in rows if row["target"]]
    assert output.count("target ") == len(targets) >= 24
    held = sum(row["value"] <= row["target"] for row in targets)
    assert f"{held} of {len(targets)} targets met" in output


@pytest.mark.parametrize(
    "script, words",
    [
        ("train_distributed", "load_images: unknown"),
        ("train_vae", "load_images: unknown data"),
        ("train_density", ""),
    ],
)
def test_a_mistake_is_what_a_script_exits_with(run_example, script, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        run_example(script, "--dataset", "no_such")
    assert end.value.code.startswith(f"{script}: {words}") and "\n" not in end.value.code


@pytest.mark.slow
@pytest.mark.parametrize(
    "script, options, words",
    [
        ("train_image_flow.py", ["--dataset", "no_such"], "train_image_flow: load_images: unknown"),
        ("benchmarks", ["layers", "--shapes", "3xq"], "benchmarks: invalid literal for int()"),
    ],
)
def test_a_mistake_ends_in_one_line(script, options, words, tmp_path):
    run = subprocess.run(
        [sys.executable, EXAMPLES / script, *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].startswith(words)
