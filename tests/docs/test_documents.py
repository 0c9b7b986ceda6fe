"""The Python in the README and in the manual runs, and the reference lists every public name."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import tfp_invconv as tic

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
# Its code needs other libraries: test_migrating.py.
PAGES.remove("docs/migrating.md")


def python_blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)


def test_pages_have_python():
    with_python = [page for page in PAGES if python_blocks(page)]
    assert {"README.md", "docs/start.md", "docs/own_layer.md"} <= set(with_python)


@pytest.fixture(name="quick")
def fixture_quick(monkeypatch, tmp_path):
    """Five epochs of a batch for a `fit`, random vectors for BSDS300's, files in a new folder."""

    def make_short(fit):
        short = {"epochs": 5, "steps_per_epoch": 1, "verbose": 0}
        return lambda *args, **kwargs: fit(*args, **{**kwargs, **short})

    def some_vectors(name, split, batch_size):
        assert name in ("bsds300_patches",) and split in ("train", "validation")
        import tensorflow as tf

        vectors = np.random.default_rng(0).normal(size=[2 * batch_size, 63]).astype(np.float32)
        return tf.data.Dataset.from_tensor_slices(vectors).batch(batch_size)

    for model in (tic.FlowModel, tic.EnergyModel):
        monkeypatch.setattr(model, "fit", make_short(model.fit))
    monkeypatch.setattr(tic.data, "load_vectors", some_vectors)
    monkeypatch.chdir(tmp_path)


# The others train whole flows.
QUICK = ("docs/conventions.md", "docs/own_layer.md")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[] if page in QUICK else pytest.mark.slow)
        for page in PAGES
        if python_blocks(page)
    ],
)
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_python_of_a_page_runs(page, quick):
    names = {"__name__": "page"}
    for block in python_blocks(page):
        exec(compile(block, page, "exec"), names)
    if page == "docs/training.md":
        assert names["sevens"].shape == (100, 8, 8, 1)
        assert np.isfinite(names["log_prob"]).all() and len(names["log_prob"]) == 100
        assert Path("flow.keras").exists()
        assert [path.name for path in Path("pictures").iterdir()] == ["epoch-0005.png"]


def public_names():
    for name in tic.__all__:
        value = getattr(tic, name)
        if not inspect.ismodule(value):
            yield name
            continue
        for member, inner in vars(value).items():
            here = getattr(inner, "__module__", None) or ""
            is_object = inspect.isclass(inner) or inspect.isfunction(inner)
            if is_object and here.startswith("tfp_invconv") and not member.startswith("_"):
                yield f"{name}.{member}"


def test_reference_lists_each_public_name_once():
    blocks = re.findall(
        r"autosummary::(.*?)^```$", (ROOT / "docs/reference.md").read_text(), re.M | re.S
    )
    listed = [line.strip() for block in blocks for line in block.splitlines()]
    listed = [line for line in listed if line and not line.startswith(":")]
    for_own_layers = "bijectors.ParameterBijector"
    assert sorted(listed) == sorted([*public_names(), for_own_layers])


def section(page, heading):
    text = (ROOT / page).read_text()
    return re.search(rf"^## {re.escape(heading)}$(.*?)^## ", text, re.M | re.S)[1]


def test_readme_quotes_the_results():
    """Its rows and figures are those of the page that the results write."""
    results = (ROOT / "docs" / "results.md").read_text()
    rows = re.findall(r"^\| mnist.*$", section("README.md", "Samples you can trust"), re.M)
    assert len(rows) == 4 and [row for row in rows if row not in results] == []
    claims = section("README.md", "Do the papers' claims hold?")
    figures = re.findall(r"\d+\.\d+", claims)
    assert len(figures) == 9 and [n for n in figures if n not in results] == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", [*PAGES, "docs/migrating.md", "CONTRIBUTING.md"])
def test_relative_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(((?!https?:)[^)#]+)", text)
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []
