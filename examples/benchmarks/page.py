"""Writes the tables of docs/performance.md from the figures that the benchmarks have measured.

python examples/benchmarks --json examples/benchmarks/results.json
python examples/benchmarks/page.py docs/performance.md
"""

import json
import re
import sys
from pathlib import Path

RESULTS = Path(__file__).with_name("results.json")


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ratio(row):
    """A ratio beside its target, which is in brackets, with a word if it is missed."""
    text = f"{row['value']:.2f}"
    if row["target"] is None:
        return text
    missed = ", missed" if row["value"] > row["target"] else ""
    return f"{text} ({row['target']:g}{missed})"


def layers(rows):
    """Each layer's time in units of the plain convolution's, for every shape."""
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    # A row of gradients follows that of its layer, and is in units of it.
    names = [row["name"] for row in rows if row["value"] and not row["name"].startswith(" ")]
    cells = {(row["name"], row["shape"]): ratio(row) for row in rows if row["value"]}
    table = [[name, *(cells[name, s] for s in shapes)] for name in dict.fromkeys(names)]
    return markdown(["layer and direction", *shapes], table)


def flows(rows):
    """Milliseconds of each job of each flow, and ratios between flows."""
    timed = [row for row in rows if "ms" in row]
    times = [
        [row["name"], f"{row['ms']:.0f}", "{:.0f} to {:.0f}".format(*row["quartiles"])]
        for row in timed
    ]
    ratios = [[row["name"], ratio(row)] for row in rows if "ms" not in row]
    return "\n\n".join(
        [
            markdown(["flow and job", "median, ms", "quartiles"], times),
            markdown(["ratio", "(target)"], ratios),
        ]
    )


def growth(rows):
    """Sampling times for each side of an image, and the exponent."""
    *timed, exponent = rows
    cells = [[row["name"], f"{row['ms']:.1f}"] for row in timed]
    return markdown(["image side n", "ms"], [*cells, [exponent["name"], ratio(exponent)]])


def start(rows):
    """First calls of flows of several depths; then the loop beside unrolled steps."""
    figures = [row for row in rows if "depth" in row]
    depths = list(dict.fromkeys(row["depth"] for row in figures))
    cells = {(row["name"], row["depth"]): f"{ratio(row)} {row['unit']}".strip() for row in figures}
    names = dict.fromkeys(row["name"] for row in figures)
    others = [
        [row["name"], f"{row['ms']:.0f} ms" if "ms" in row else "", ratio(row)]
        for row in rows
        if "depth" not in row
    ]
    return "\n\n".join(
        [
            markdown(
                ["", *(f"{depth} steps" for depth in depths)],
                [[name, *(cells[name, depth] for depth in depths)] for name in names],
            ),
            markdown(["", "time", "ratio (target)"], others),
        ]
    )


TABLES = {"layers": layers, "flows": flows, "growth": growth, "start": start}


def replaced(page, results):
    """The text of a page, with each table between its two markers replaced."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: written by page.py -->", f"<!-- end of {name} -->"
        text = f"{begin}\n\n{table(results[name])}\n\n{end}"
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        page, count = re.subn(pattern, lambda _, text=text: text, page, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page has {count} times {begin} ... {end}, and needs it once")
    return page


def main():
    page = Path(sys.argv[1])
    page.write_text(replaced(page.read_text(), json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
