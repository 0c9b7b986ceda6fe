"""How long do 100 images take? Whole flows that differ in their convolution alone, on one core.

Samples images from one Glow for each kind of convolution, and prints the times and their ratios to
that of 1x1 convolutions. A time is the median of calls, once compiled, the flows being called in
turn; in brackets are the quartiles. The times are those of this machine at this moment; the
ratios say something elsewhere.

Killed at any moment, the same command goes on with the image shape that was not done.
"""

import argparse
import functools
import math
import os
import time
from pathlib import Path

import keras
import numpy as np
from experiment import markdown, results_of, run_command, write

import tfp_invconv as tic
from tfp_invconv.flows import CONVOLUTIONS

# What decides the results.
OPTIONS = ("convs", "images", "levels", "depth", "width", "threads", "repeats")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    shapes = ["32x32x3", "64x64x3"]
    add("--shapes", nargs="+", default=shapes, metavar="HxWxC", help="(32x32x3 64x64x3)")
    add("--convs", nargs="+", default=list(CONVOLUTIONS), choices=CONVOLUTIONS, help="(all)")
    add("--images", type=int, default=100, help="samples in a call (100)")
    add("--levels", type=int, default=3, help="levels of the flows (3)")
    add("--depth", type=int, default=8, help="steps in each level (8)")
    add("--width", type=int, default=128, help="channels in the couplings' networks (128)")
    add("--threads", type=int, default=1, help="of TensorFlow (1)")
    add("--repeats", type=int, default=9, help="calls of each flow (9)")
    add("--out", type=Path, default=Path("runs/sampling_time"), help="(runs/sampling_time)")
    return parser.parse_args()


def measure(args, shape):
    """The times of each kind of flow, in ms."""
    calls = {}
    for conv in args.convs:
        keras.utils.set_random_seed(0)
        flow = tic.glow(shape, args.levels, args.depth, conv=conv, width=args.width, seed=0)
        model = tic.FlowModel(flow)
        calls[conv] = functools.partial(model.sample, args.images, seed=0)
    for call in calls.values():
        call()  # compiles it
    times = {conv: [] for conv in calls}
    for _ in range(args.repeats):
        for conv, call in calls.items():
            start = time.perf_counter()
            call()
            times[conv].append(1e3 * (time.perf_counter() - start))
    return {
        "ms": {conv: float(np.median(ms)) for conv, ms in times.items()},
        "quartiles": {conv: np.percentile(ms, [25, 75]).tolist() for conv, ms in times.items()},
    }


def run(args, text):
    """The results for one image shape."""
    options = {"event_shape": text, **{name: getattr(args, name) for name in OPTIONS}}
    shape = [int(size) for size in text.split("x")]
    return results_of(lambda _: measure(args, shape), args.out, text, options)


HEADER = "| image | convolution | time, ms | ratio to 1x1 |"


def table_rows(results):
    """The flows of one image shape."""
    plain = results["ms"].get("1x1", math.nan)
    rows = []
    for conv, ms in results["ms"].items():
        first, third = results["quartiles"][conv]
        rows.append(
            f"| {results['event_shape']} | {conv} | {ms:.0f} ({first:.0f} - {third:.0f}) "
            f"| {ms / plain:.2f} |"
        )
    return rows


def main():
    args = parse_arguments()
    # TensorFlow reads them at its first operation.
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = str(args.threads)
    table = markdown(HEADER, [row for text in args.shapes for row in table_rows(run(args, text))])
    write(args.out / "table.md", table + "\n")
    print(table)


if __name__ == "__main__":
    run_command(main)
