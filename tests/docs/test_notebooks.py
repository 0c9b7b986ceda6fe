"""The notebooks run, in their small setting, and are committed with their outputs."""

import subprocess
from importlib import util
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
by_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def printed(notebook):
    return "".join(output.text for output in outputs(notebook) if output.output_type == "stream")


def pictures(notebook):
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def test_there_are_six():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


def first_cell(path):
    cells = nbformat.read(path, as_version=4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


def test_first_cells_are_the_same():
    assert len({first_cell(path) for path in NOTEBOOKS}) == 1


@pytest.fixture(name="first")
def fixture_first(monkeypatch):
    """The first cell where the package can't be imported."""
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    return first_cell(NOTEBOOKS[0])


def test_first_cell_without_a_checkout_says_what_to_set(first, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    with pytest.raises(
        ModuleNotFoundError, match=r"from '\.\.': set SOURCE, .* checkout or .*URL\.$"
    ):
        exec(first, {})


@pytest.mark.parametrize(
    "source, url",
    [
        ("..", NOTEBOOKS[0].parents[1].as_uri()),
        ("git+https://example.org/tfp_invconv", "git+https://example.org/tfp_invconv"),
    ],
)
def test_first_cell_installs_a_checkout_or_a_url(first, source, url, monkeypatch):
    commands = []
    monkeypatch.chdir(NOTEBOOKS[0].parent)
    monkeypatch.setattr(
        subprocess, "run", lambda command: commands.append(command) or SimpleNamespace(returncode=0)
    )
    assert 'SOURCE = ".."' in first
    exec(first.replace('".."', repr(source)), {})
    assert [command[-1] for command in commands] == [f"tfp_invconv[examples] @ {url}"]


@pytest.mark.slow
@by_notebook
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_runs_without_an_error_or_a_warning(path, monkeypatch):
    monkeypatch.setenv("TFP_INVCONV_SMALL", "1")
    notebook = nbformat.read(path, as_version=4)
    committed = pictures(notebook)
    # In the folder where Jupyter would open it; an error in a cell is one here.
    resources = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, timeout=600, resources=resources).execute()
    assert pictures(notebook) == committed
    assert "Warning" not in printed(notebook)


@by_notebook
def test_is_committed_with_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert pictures(notebook) >= 5
    assert not any(output.output_type == "error" for output in outputs(notebook))
    assert "Warning" not in printed(notebook)
