"""Can the samples be trusted? Every convolution with every coupling, on several data sets.

Trains each kind of flow by examples/train_image_flow.py for a few minutes, with its default options
(on the digits at five times its learning rate), and prints one table: test bits/dim, how many
samples are not finite or far out, and the largest reconstruction error. A flow holds what it
promises if no sample is not finite, at most one in 100 is far out (beyond three times the range of
the data), and no error is above 0.01 grey levels. The exit code is the number of flows that do not,
255 at most.

Killed at any moment, the same command goes on with the epochs that were not done.
"""

import argparse
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import image_flow
from experiment import markdown, results_of, run_command, write

from tfp_invconv.flows import CONVOLUTIONS, COUPLINGS

# Epochs and learning rate for each data set; for others those of "mnist".
SETTINGS = {
    "digits": (60, 1e-2),
    "mnist": (1, 2e-3),
    "mnist_t10k": (2, 2e-3),
    "cifar10_jpeg": (1, 2e-3),
}
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
        type=image_flow.log_scale_bound,
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


def run(args, dataset, kind, bound):
    """The results of one flow."""
    options = settings(args, dataset, kind, bound)
    results = results_of(
        lambda folder: image_flow.train(options, folder, args.data_dir),
        args.out,
        f"{dataset}/{kind.replace('/', '-')}-{bound}",
        options,
    )
    print(row(results), flush=True)
    return results


def holds(results):
    """Whether the samples of a flow can be trusted."""
    if results["diverged"] or results["samples_not_finite"]:
        return False
    if results["samples_far_out"] > results["samples"] / 100:
        return False
    error = results["reconstruction_error"]
    return error is not None and error <= 1e-2


HEADER = (
    "| data | flow | bound | test bits/dim | not finite | far out | reconstruction error | holds |"
)


def row(results):
    """A row of the table."""
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
    table = markdown(HEADER, map(row, results))
    write(args.out / "table.md", table + "\n")
    failed = sum(not holds(r) for r in results)
    print(f"\n{table}\n\n{len(results) - failed} of {len(results)} flows hold; 2,000 samples each")
    # Of a larger code the shell sees the last eight bits.
    sys.exit(min(failed, 255))


if __name__ == "__main__":
    run_command(main)
