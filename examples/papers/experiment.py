"""What the experiments share: arguments, one file of results, a table and a picture.

An experiment makes many runs. Each keeps its state in a folder of its own below --out, RUNS, and
when it is done its results are added to the one file RUNS.json. So the same command, started again
after a kill at any moment, takes the results that are there, goes on with the run that was not
done, and ends with the figures of an undisturbed experiment. Files appear whole or not at all.
"""

import argparse
import csv
import functools
import importlib.metadata
import io
import json
import math
import os
import platform
import shlex
import sys
import threading
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

LOCK = threading.Lock()


def add_arguments(parser, out):
    """Adds the arguments that all trainings take; `out` names the default folder."""
    add = parser.add_argument
    add("--data-dir", help="folder of prepared TFDS data sets (TFDS's own)")
    add("--minutes", type=float, help="time limit of the training of each model (none)")
    add("--out", type=Path, help=f"folder of the runs; the same command goes on from it ({out})")


def options_parser(description, options, out):
    """The parser of an experiment that makes its own data.

    Args:
      description: of the script.
      options: {name: (default, description)} of numbers.
      out: names the default folder of the runs.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    for name, (default, text) in options.items():
        option = f"--{name.replace('_', '-')}"
        add(option, type=type(default), default=default, help=f"{text} ({default})")
    add("--minutes", type=float, help="time limit of the training of each model (none)")
    add("--seeds", type=int, nargs="+", default=[0], help="of parameters, data order, samples (0)")
    add("--out", type=Path, default=Path(out), help=f"folder of the runs, to go on from ({out})")
    return parser


def run_command(main):
    """Runs a script; a user's mistake ends in one line that begins with the script's name."""
    try:
        main()
    except (ImportError, OSError, ValueError) as error:
        stop(" ".join(str(error).split()))
    except KeyboardInterrupt:
        stop("interrupted; the same command goes on from here")


def stop(message):
    """Ends the program with an error."""
    sys.exit(f"{Path(sys.argv[0]).stem}: {message}")


def make_folder(path):
    """Makes a folder, or ends the program."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        stop(f"{path} cannot be made: {error.strerror}; choose another --out")


def write(path, content):
    """Writes bytes or text to a file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content if isinstance(content, bytes) else content.encode())
    part.replace(path)


def results_path(out):
    """The file of results beside the folder of runs."""
    return out.with_name(out.name + ".json")


def read_runs(path):
    """{name: results} from a file of results; empty if there is none."""
    if not path.exists():
        return {}
    try:
        return {name: dict(results) for name, results in json.loads(path.read_text()).items()}
    except (ValueError, TypeError, AttributeError):
        return stop(f"{path} is damaged; remove it to run all of this again")


def write_runs(path, runs):
    """Writes the file of results, one run a line."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(results, allow_nan=False)}"
        for name, results in runs.items()
    ]
    write(path, "{\n" + ",\n".join(lines) + "\n}\n")


def without_nan(results):
    """The results with None for what is not finite, as JSON has no NaN and no infinity."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in results.items()
    }


def is_final(results):
    """Whether a run got to its end; one that was interrupted by hand goes on."""
    return results.get("finished", True) or results["diverged"]


def results_of(run, out, name, options):
    """The results of a run: those in the file of results, or those of `run(folder)`, added to it.

    Args:
      run: makes a dict of results, given the folder of the run.
      out: folder of the runs.
      name: of the run, its folder below `out`.
      options: a dict of whatever decides the results; results of others are an error.
    """
    path, options = results_path(out), json.loads(json.dumps(options))
    found = read_runs(path).get(name)
    if found is not None:
        others = {key: found.get(key) for key in options if found.get(key) != options[key]}
        if others:
            stop(f"{name} in {path} is of a run with {others}; choose another --out")
        if is_final(found):
            return found
    make_folder(out / name)
    results = without_nan({**options, **run(out / name), **environment()})
    with LOCK:
        write_runs(path, {**read_runs(path), name: results})
    return results


def results_of_each(train, args, key, names, options):
    """{name: {"name/seed": results}} of `train(name, args, seed, options, folder)`.

    Args:
      train: trains one flow.
      args: the arguments of the command, with `out` and `seeds`.
      key: what the name is among the options.
      names: of the flows.
      options: further ones, which decide the results.
    """
    return {
        name: results_of_seeds(
            functools.partial(train, name, args), args.out, name, args.seeds, {**options, key: name}
        )
        for name in names
    }


def results_of_seeds(train, out, name, seeds, options):
    """The results of `train(seed, options, folder)` for each seed: {"name/seed": results}."""
    found = {}
    for seed in seeds:
        run, of_seed = f"{name}/{seed}", {**options, "seed": seed}
        found[run] = results_of(functools.partial(train, seed, of_seed), out, run, of_seed)
    return found


def environment():
    """The command, versions and machine, for the results."""
    packages = ("tensorflow", "keras", "tensorflow-probability", "numpy")
    versions = {package: importlib.metadata.version(package) for package in packages}
    processor, cpus = platform.machine(), Path("/proc/cpuinfo")
    if cpus.exists():
        names = [line for line in cpus.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(": ")[2] if names else processor
    script = "/".join(Path(sys.argv[0]).absolute().parts[-3:])
    return {
        "command": shlex.join(["python", script, *map(without_folder, sys.argv[1:])]),
        "versions": {"python": platform.python_version(), **versions},
        "machine": f"{os.cpu_count()} cores of {processor}",
    }


def without_folder(argument):
    """An argument; of an absolute path, which belongs to one machine, the name alone."""
    option, equals, value = argument.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if Path(value).is_absolute() else argument


def mean_and_spread(values, form=".3f"):
    """The mean and, of several values, their standard deviation."""
    text = format(np.mean(values), form)
    return f"{text} ± {np.std(values, ddof=1):{form}}" if len(values) > 1 else text


def markdown(header, rows):
    """A table of a header and rows, each a line of cells between |."""
    return "\n".join([header, "|" + "---|" * header.count(" | ") + "---|", *rows])


def show(results, header, figures, out, column, ylabel):
    """A table, printed and in comparison.md, and a picture, comparison.png, of all trainings.

    Ends the program with exit code 1 if one of them diverged.

    Args:
      results: {name: {run: results}}; the folder of a run is `out / run`.
      header: of the table.
      figures: returns the texts of the columns after the first three, given a list of results.
      out: folder of the runs and of the files.
      column: of history.csv in each run's folder, drawn against the time.
      ylabel: describes that column.
    """
    rows = [table_row(name, list(runs.values()), figures) for name, runs in results.items()]
    table = markdown(header, rows)
    write(out / "comparison.md", table + "\n")
    curves = {
        name: [curve(out / run, column) for run, found in runs.items() if not found["diverged"]]
        for name, runs in results.items()
    }
    write(out / "comparison.png", picture(curves, ylabel))
    print(f"\n{table}\n\nresults: {results_path(out)}\npicture: {out / 'comparison.png'}")
    if any(found["diverged"] for runs in results.values() for found in runs.values()):
        sys.exit(1)


def table_row(name, runs, figures):
    """A row of the table of `show`: a model, over its seeds."""
    seconds = np.mean([run["training_seconds"] for run in runs])
    start = f"| {name} | {runs[0]['parameters']:,} | {seconds:.0f} |"
    if any(run["diverged"] for run in runs):
        return f"{start} NaN | | | |"
    return f"{start} {' | '.join(map(str, figures(runs)))} |"


def curve(folder, column):
    """[[seconds, value], ...] from the history of a run, empty if the folder has none."""
    path = folder / "history.csv"
    if not path.exists():
        return []
    with open(path) as file:
        return [[float(row["seconds"]), float(row[column])] for row in csv.DictReader(file)]


def picture(curves, ylabel, xlabel="training time, s"):
    """A PNG of the mean of the curves of each name, and their spread as a band."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, of_seeds in curves.items():
        # One may have been stopped earlier.
        shortest = min(map(len, of_seeds), default=0)
        if not shortest:
            continue
        places, values = np.moveaxis([curve[:shortest] for curve in of_seeds], -1, 0)
        places, middle = places.mean(0), values.mean(0)
        (line,) = axes.plot(places, middle, label=name)
        if len(of_seeds) > 1:
            spread = values.std(0, ddof=1)
            edges = middle - spread, middle + spread
            axes.fill_between(places, *edges, color=line.get_color(), alpha=0.2, lw=0)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if axes.lines:
        axes.legend()
    file = io.BytesIO()
    figure.savefig(file)
    return file.getvalue()
