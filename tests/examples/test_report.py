"""The report: verdicts on claims, and pages with the committed results."""

import json
import re
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_mean_and_spread_over_seeds(example):
    runs = [{"test_bits_per_dim": bits} for bits in (3.0, 3.1, 3.2)]
    for run in runs:
        run |= {"training_seconds": 1.0, "parameters": 7, "diverged": False, "sampling_seconds": 1}
        run |= {"samples_not_finite": 0, "samples_far_out": 1}
    figures = example("compare_flows").figures
    row = example("experiment").table_row("1x1/affine", runs, figures)
    assert row == "| 1x1/affine | 7 | 1 | 3.100 ± 0.100 | 1000 | 0 | 3 |"


def save(folder, experiment, **runs):
    """Writes a file of results; a run's name has _ for /."""
    runs = {name.replace("_", "/"): results for name, results in runs.items()}
    (folder / f"{experiment}.json").write_text(json.dumps(runs))


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
    assert report.ratio("4x4x1", "a", "c", 1.0, results=tmp_path)[2] == "open"
    save(tmp_path, "data", a_0={"nats": 155.0})
    assert report.above("data", "a", "nats", 0.0, results=tmp_path)[1:] == ("of one seed", "open")


def test_interrupted_and_diverged_trainings_are_no_results(example, tmp_path):
    interrupted, diverged = {"finished": False}, {"finished": False, "diverged": True}
    save(tmp_path, "data", a_0=interrupted, a_1=diverged, a_2={"finished": True})
    assert list(example("report").read_seeds("data", "a", tmp_path)) == ["2"]


def test_tables_of_what_is_there(example, tmp_path):
    report = example("report")
    save(tmp_path, "data", a_0={"finished": False, "diverged": True})
    assert report.compared_rows("data", tmp_path) == []
    # Without Hamiltonian Monte Carlo there is nothing to compare with.
    save(tmp_path, "phi4", spectral_0={"finished": True})
    assert report.phi4(tmp_path).count("\n") == 1


def test_unlike_sets_of_seeds_are_compared_where_they_meet(example, tmp_path):
    runs = {"a_0": 3.0, "a_1": 3.1, "a_3": 9.0, "b_1": 3.3, "b_0": 3.2, "b_2": -9.0}
    save(tmp_path, "data", **{name: {"bits": bits} for name, bits in runs.items()})
    found = example("report").against("data", "a", "b", "bits", -1, results=tmp_path)
    assert found == ("3.050 against 3.250", "-0.200 ± 0.000 (2 seeds)", "holds")


def test_a_damaged_result_is_named(example, monkeypatch, tmp_path):
    path = tmp_path / "check_samples.json"
    path.write_text("{")
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
