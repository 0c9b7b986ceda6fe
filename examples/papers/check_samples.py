"""Can the samples be trusted? Every convolution with every coupling, on several data sets.

Trains each kind of flow by train_image_flow.py for a few minutes, with its default options (on the
digits at five times its learning rate), and prints one table: test bits/dim, how many samples
are not finite or far out, and the largest reconstruction error. A flow holds what it promises
with no sample that is not finite, at most one in 100 far out (beyond three times the range of the
data), and errors of at most 0.01 grey levels. The exit code is the number of those that do not.

Stopped at any moment, the same command goes on with the flows that are not done.
"""

import argparse
import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from experiment import make_folder, read_results, stop

from tfp_invconv.flows import CONVOLUTIONS, COUPLINGS

# Epochs and learning rate for each data set; for others those of "mnist".
SETTINGS = {
    "digits": (60, 1e-2),
    "mnist": (1, 2e-3),
    "mnist_t10k": (2, 2e-3),
    "cifar10_jpeg": (1, 2e-3),
}


def log_scale_bound(text):
    return text if text == "sigmoid" else float(text)


ALL_KINDS = ["/".join(kind) for kind in itertools.product(CONVOLUTIONS, COUPLINGS)]


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--datasets", nargs="+", default=["digits"], help="TFDS image data sets (digits)")
    add("--data-dir", help="folder of prepared TFDS data sets (TFDS's own)")
    add("--kinds", nargs="+", default=ALL_KINDS, choices=ALL_KINDS, metavar="CONV/COUPLING")
    add(
        "--log-scale-bounds",
        nargs="+",
        type=log_scale_bound,
        default=[1.0],
        metavar="B",
        help='bounds of the log-scale in affine and quad couplings, "sigmoid" among them (1.0)',
    )
    add("--epochs", type=int, help="passes over the training images (60 for digits, else 1 or 2)")
    add("--learning-rate", type=float, help="highest learning rate (0.01 for digits, else 0.002)")
    add("--jobs", type=int, default=1, help="flows trained at a time (1)")
    add("--out", type=Path, default=Path("runs/check_samples"), help="folder of the runs")
    return parser.parse_args()


def settings(args, dataset, kind, bound):
    conv, coupling = kind.split("/")
    epochs, rate = SETTINGS.get(dataset, SETTINGS["mnist"])
    return {
        "dataset": dataset,
        "conv": conv,
        "coupling": coupling,
        "log_scale_bound": bound,
        "epochs": args.epochs or epochs,
        "learning_rate": args.learning_rate or rate,
    }


def train(args, options, folder):
    make_folder(folder)
    script = Path(__file__).parents[1] / "train_image_flow.py"
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    if args.data_dir and options["dataset"] != "digits":
        arguments.append(f"--data-dir={args.data_dir}")
    with open(folder / "log.txt", "w") as log:
        subprocess.run(
            [sys.executable, script, *arguments, f"--out={folder}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "80"},
        )


def run(args, dataset, kind, bound):
    """The results of one flow: those in its folder, or of a new training."""
    folder = args.out / dataset / f"{kind.replace('/', '-')}-{bound}"
    path, options = folder / "results.json", settings(args, dataset, kind, bound)
    if not path.exists():
        train(args, options, folder)
    results = read_results(path, options)
    if results is None:
        stop(f"training {dataset} {kind} failed: see {folder / 'log.txt'}")
    print(row(results), flush=True)
    return results


def holds(results):
    if results["diverged"] or results["samples_not_finite"]:
        return False
    far_out = results["samples_far_out"] <= results["samples"] / 100
    return far_out and (results["reconstruction_error"] or float("inf")) <= 1e-2


def row(results):
    start = (
        f"| {results['dataset']} | {results['conv']}/{results['coupling']} "
        f"| {results['log_scale_bound']} |"
    )
    if results["diverged"]:
        return f"{start} NaN | | | | no |"
    error = results["reconstruction_error"]
    return (
        f"{start} {results['test_bits_per_dim']:.2f} | {results['samples_not_finite']} "
        f"| {results['samples_far_out']} | {'not finite' if error is None else f'{error:.0e}'} "
        f"| {'yes' if holds(results) else 'no'} |"
    )


def main():
    args = parse_arguments()
    jobs = list(itertools.product(args.datasets, args.kinds, args.log_scale_bounds))
    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda job: run(args, *job), jobs))
    lines = [
        "| data | flow | bound | test bits/dim | not finite | far out | reconstruction error "
        "| holds |",
        "|---|---|---|---|---|---|---|---|",
        *map(row, results),
    ]
    table = "\n".join(lines)
    (args.out / "table.md").write_text(table + "\n")
    failed = sum(not holds(r) for r in results)
    print(f"\n{table}\n\n{len(results) - failed} of {len(results)} flows hold; 2,000 samples each")
    sys.exit(failed)


if __name__ == "__main__":
    main()
