"""What the experiments share: arguments, results that say how they came, a table and a picture.

An experiment trains its models one after the other, each in a folder of its own. After every epoch
`training.fit` writes there all that it needs to go on, and `results_of` writes what was found at
the end. So the same command, started again after a kill at any moment, reads the results that are
there, goes on with the training that is not done, and ends with the figures of an undisturbed run.
Files are replaced whole, so that none is ever half-written.
"""

import importlib.metadata
import io
import json
import math
import os
import platform
import shlex
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def add_arguments(parser, out):
    """The arguments that all experiments take; `out` says which run folder is the default."""
    add = parser.add_argument
    add("--data-dir", help="folder of prepared TFDS data sets (TFDS's own)")
    add("--minutes", type=float, help="most minutes of training for each model (no limit)")
    add("--out", type=Path, help=f"run folder; the same command goes on from it ({out})")


def stop(message):
    """Ends the program with an error that begins with its name."""
    sys.exit(f"{Path(sys.argv[0]).stem}: {message}")


def make_folder(path):
    """Makes a folder, or ends the program."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        stop(f"{path} cannot be made: {error.strerror}; choose another --out")


def write(path, content):
    """Replaces a file whole, by bytes or text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.replace(part, path)


def write_json(results, path):
    """Writes the results; what is not finite becomes null, as JSON has no NaN."""
    known = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in results.items()
    }
    write(path, json.dumps(known, indent=2, allow_nan=False) + "\n")


def check_options(found, options, path):
    """Ends the program if what was found in a file is of a run with other options."""
    others = {key: found.get(key) for key in options if found.get(key) != options[key]}
    if others:
        stop(f"{path} is of a run with {others}; choose another --out")


def read_results(path, options):
    """The results in a file; None if there are none."""
    if not path.exists():
        return None
    try:
        results = dict(json.loads(path.read_text()))
    except (ValueError, TypeError):
        stop(f"{path} is damaged; remove it to run this again")
    check_options(results, options, path)
    return results


def results_of(run, folder, options):
    """The results in a folder, or those of `run()`, which are written there.

    A training that was interrupted by hand has results, and goes on all the same.

    Args:
      run: makes a dict of results; those of a training with what `fit` says of it.
      folder: of the results; results of other options are an error.
      options: a dict of all that decides the results.
    """
    path, options = folder / "results.json", json.loads(json.dumps(options))
    results = read_results(path, options)
    if results is None or not (results.get("finished", True) or results["diverged"]):
        make_folder(folder)
        results = {**options, **run(), **environment()}
        write_json(results, path)
    return results


def environment():
    """The command, versions and machine, for the results."""
    packages = ("tensorflow", "keras", "tensorflow-probability", "numpy")
    versions = {package: importlib.metadata.version(package) for package in packages}
    processor, cpus = platform.machine(), Path("/proc/cpuinfo")
    if cpus.exists():
        names = [line for line in cpus.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(": ")[2] if names else processor
    return {
        "command": shlex.join(["python", *map(without_folder, sys.argv)]),
        "versions": {"python": platform.python_version(), **versions},
        "machine": f"{os.cpu_count()} cores of {processor}",
    }


def without_folder(argument):
    """An argument; of an absolute path, which is that of one machine, the name alone."""
    option, equals, value = argument.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if Path(value).is_absolute() else argument


def mean_and_spread(values, form=".3f"):
    """Their mean and, of several, their standard deviation."""
    text = format(np.mean(values), form)
    return f"{text} ± {np.std(values, ddof=1):{form}}" if len(values) > 1 else text


def show(results, header, figures, out, ylabel):
    """A table, printed and in comparison.md, and a picture, comparison.png, of all trainings.

    Ends the program with exit code 1 if one of them diverged.

    Args:
      results: {name: [results of a seed, ...]}, with a "curve" [[seconds, value], ...] each.
      header: of the table.
      figures: makes of a name's results the texts of the columns behind the first three.
      out: folder of the files.
      ylabel: what the values of the curves are.
    """
    dashes = "|" + "---|" * header.count(" | ") + "---|"
    table = "\n".join(
        [header, dashes, *(table_row(name, runs, figures) for name, runs in results.items())]
    )
    write(out / "comparison.md", table + "\n")
    curves = {
        name: [run["curve"] for run in runs if not run["diverged"]]
        for name, runs in results.items()
    }
    write(out / "comparison.png", picture(curves, ylabel))
    print(f"\n{table}\n\npicture: {out / 'comparison.png'}")
    if any(run["diverged"] for runs in results.values() for run in runs):
        sys.exit(1)


def table_row(name, runs, figures):
    """A row of the table of `show`: a model, over its seeds."""
    seconds = np.mean([run["training_seconds"] for run in runs])
    start = f"| {name} | {runs[0]['parameters']:,} | {seconds:.0f} |"
    if any(run["diverged"] for run in runs):
        return f"{start} NaN | | | |"
    return f"{start} {' | '.join(map(str, figures(runs)))} |"


def picture(curves, ylabel):
    """A PNG of the mean of the curves of each name, and their spread as a band."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, of_seeds in curves.items():
        # One may have been stopped earlier.
        shortest = min(map(len, of_seeds), default=0)
        if not shortest:
            continue
        seconds, values = np.moveaxis([curve[:shortest] for curve in of_seeds], -1, 0)
        times, middle = seconds.mean(0), values.mean(0)
        (line,) = axes.plot(times, middle, label=name)
        if len(of_seeds) > 1:
            spread = values.std(0, ddof=1)
            edges = middle - spread, middle + spread
            axes.fill_between(times, *edges, color=line.get_color(), alpha=0.2, lw=0)
    axes.set(xlabel="training time, s", ylabel=ylabel)
    if axes.lines:
        axes.legend()
    file = io.BytesIO()
    figure.savefig(file)
    return file.getvalue()
