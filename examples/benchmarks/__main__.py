"""Times layers and whole flows, beside what they stand for.

Four parts, all of them without arguments:

  layers   each layer in both directions, and with gradients, beside a plain convolution of the
           same shape (3x3; 1x1 for HouseholderQR1x1)
  flows    log_prob, training step and sample of a Glow with emerging and with 1x1 convolutions,
           beside those of tfb.Glow and of normflows, where the extra "benchmark" is installed
  growth   sampling an EmergingConv as the image grows, with the exponent fitted to it
  start    import and first calls of flows of several depths, each in a fresh process, with the
           memory it then holds; and steps in a loop beside the same steps unrolled

Times are medians over repeats, what is compared being run in turn, and in brackets the quartiles.
They are those of this machine at this moment; only ratios say something elsewhere. Each ratio that
has a target is printed with it. Memory is the most that the process took during a call beyond what
it had before.
"""

import argparse
import json
import sys
from pathlib import Path

# Where the flows of peers are, which the experiments train as well.
sys.path.append(str(Path(__file__).parents[1] / "papers"))

import flows
import growth
import layers
import start
from timing import set_threads

PARTS = {"layers": layers.run, "flows": flows.run, "growth": growth.run, "start": start.run}
SHAPES = (
    "100x32x32x3",
    "100x16x16x12",
    "100x8x8x24",
    "100x8x8x48",
    "100x4x4x96",
    "100x32x32x12",
    "16x64x64x12",
    "64x1024x8",
    "4x16384x8",
    "16x16x16x16x4",
)
LAYERS = (
    "CInC3x3",
    "AutoregressiveConv",
    "EmergingConv",
    "PeriodicConv",
    "DCTSymmetricConv",
    "HouseholderQR1x1",
)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (all)")
    add("--shapes", nargs="+", default=SHAPES, metavar="BxHxWxC", help="of the layers' input")
    add("--layers", nargs="+", default=LAYERS, choices=LAYERS, help="layers to time (all)")
    add("--event-shape", default="32x32x3", metavar="HxWxC", help="of the flows (32x32x3)")
    add("--levels", type=int, default=3, help="levels of the flows (3)")
    add("--depth", type=int, default=8, help="steps in each level (8)")
    add("--depths", type=int, nargs="+", default=[8, 32], help="of the flows in start (8 32)")
    add("--width", type=int, default=128, help="channels in the couplings' networks (128)")
    add("--batch-size", type=int, help="images in a batch of the flows (64; in start 16)")
    add("--threads", type=int, default=2, help="threads of each framework (2)")
    add("--repeats", type=int, default=15, help="calls that are timed (15)")
    add("--json", type=Path, help="file to write all the figures to")
    args = parser.parse_args()
    if not set(args.parts) <= set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}; got {' '.join(args.parts)}")
    args.parts = args.parts or PARTS
    return args


def main():
    args = parse_arguments()
    set_threads(args)
    results = {}
    for part in args.parts:
        results[part] = PARTS[part](args)
        if args.json:
            args.json.write_text(json.dumps(results, indent=2) + "\n")
    held = [
        row["value"] <= row["target"] for rows in results.values() for row in rows if row["target"]
    ]
    print(f"\n{sum(held)} of {len(held)} targets met")


if __name__ == "__main__":
    try:
        main()
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"benchmarks: {error}")
