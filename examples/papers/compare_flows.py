"""Compares kinds of image flows: a convolution, a coupling and a noise each, over several seeds.

Trains each kind by examples/train_image_flow.py with the same data, seeds and number of epochs, and
writes one table and one picture of training bits/dim against time: the mean over the seeds and,
after ± and as a band, their standard deviation.

Killed at any moment, the same command goes on with the epoch that was not done.
"""

import argparse
from pathlib import Path

import image_flow
import numpy as np
from experiment import add_arguments, mean_and_spread, results_of, run_command, show

from tfp_invconv.flows import CONVOLUTIONS, COUPLINGS

# What decides the results, besides the kind of flow and the seed.
OPTIONS = ("dataset", "levels", "depth", "width", "dropout", "log_scale_bound")
OPTIONS += ("epochs", "minutes", "batch_size", "learning_rate")
NOISES = ("uniform", "variational")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("kinds", nargs="+", metavar="CONV/COUPLING[/NOISE]", help="such as emerging/quad")
    add("--dataset", default="digits", help="TFDS image data set, such as cifar10 (digits)")
    add(
        "--log-scale-bound",
        type=image_flow.log_scale_bound,
        default=1.0,
        help='bound in couplings, or "sigmoid" (1.0)',
    )
    add("--levels", type=int, default=2, help="levels of the multi-scale architecture (2)")
    add("--depth", type=int, default=4, help="steps in each level (4)")
    add("--width", type=int, default=64, help="channels in the couplings' networks (64)")
    add("--dropout", type=float, default=0.15, help="dropout rate in those networks (0.15)")
    add("--epochs", type=int, default=180, help="passes over the training images (180)")
    add("--batch-size", type=int, default=100, help="images in a batch (100)")
    add("--learning-rate", type=float, default=2e-3, help="highest learning rate (0.002)")
    add("--seeds", type=int, nargs="+", default=[0], help="of parameters, data order, samples (0)")
    add_arguments(parser, "runs/compare_flows/DATASET")
    args = parser.parse_args()
    args.out = args.out or Path("runs/compare_flows") / args.dataset
    for kind in args.kinds:
        names, choices = kind.split("/"), (CONVOLUTIONS, COUPLINGS, NOISES)
        known = all(name in choice for name, choice in zip(names, choices, strict=False))
        if not known or len(names) not in (2, 3):
            parser.error(
                f"a kind of flow is CONV/COUPLING or CONV/COUPLING/NOISE, of "
                f"{', '.join(CONVOLUTIONS)}, of {', '.join(COUPLINGS)} and of {', '.join(NOISES)}; "
                f"got {kind}"
            )
    return args


def name_of(kind, seed):
    return f"{kind.replace('/', '-')}/{seed}"


def run(args, kind, seed):
    """The results of one flow."""
    options = dict(zip(("conv", "coupling", "noise"), kind.split("/"), strict=False), seed=seed)
    options |= {name: getattr(args, name) for name in OPTIONS}
    print(f"{kind}, seed {seed}", flush=True)
    return results_of(
        lambda folder: image_flow.train(options, folder, args.data_dir),
        args.out,
        name_of(kind, seed),
        options,
    )


HEADER = (
    "| flow | parameters | training, s | test bits/dim | sampling 100, ms | not finite | far out |"
)


def figures(runs):
    """The columns of a kind of flow, over its seeds."""
    bits = mean_and_spread([run["test_bits_per_dim"] for run in runs])
    sampling = 1e3 * np.mean([run["sampling_seconds"] for run in runs])
    not_finite, far_out = (
        sum(run[f"samples_{fault}"] for run in runs) for fault in ("not_finite", "far_out")
    )
    return bits, f"{sampling:.0f}", not_finite, far_out


def main():
    args = parse_arguments()
    results = {
        kind: {name_of(kind, seed): run(args, kind, seed) for seed in args.seeds}
        for kind in args.kinds
    }
    show(results, HEADER, figures, args.out, "bits_per_dim", "training bits/dim")


if __name__ == "__main__":
    run_command(main)
