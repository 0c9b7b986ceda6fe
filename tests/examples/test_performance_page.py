"""docs/performance.md has the figures that the benchmarks have measured."""

import json
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def test_the_page_has_the_figures_of_the_results(example):
    page = example("page")
    results = json.loads(page.RESULTS.read_text())
    assert page.replaced(PAGE.read_text(), results) == PAGE.read_text()
    results["growth"][-1]["value"] += 1.0
    assert page.replaced(PAGE.read_text(), results) != PAGE.read_text()


def test_a_ratio_stands_beside_its_target(example):
    ratio = example("page").ratio
    assert ratio({"value": 1.234, "target": None}) == "1.23"
    assert ratio({"value": 1.25, "target": 1.5}) == "1.25 (1.5)"
    assert ratio({"value": 1.75, "target": 1.5}) == "1.75 (1.5, missed)"


def test_layers_are_in_units_of_the_convolution(example):
    row = {"target": None, "ms": 6.0}
    rows = [
        {"shape": shape, "name": name, "value": value, **row}
        for shape in ("1x4x4x3", "1x8x8x3")
        for name, value in [("conv2d 3x3", None), ("A, to data", 2.0), ("    with gradients", 3.0)]
    ]
    assert example("page").layers(rows).splitlines() == [
        "| layer and direction | 1x4x4x3 | 1x8x8x3 |",
        "| --- | --- | --- |",
        "| A, to data | 2.00 | 2.00 |",
    ]
