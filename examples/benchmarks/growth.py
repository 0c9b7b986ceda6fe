"""Sampling an EmergingConv as the side of the image grows, with the exponent fitted to it."""

import numpy as np
from layers import both_directions
from timing import claim, in_turn, show

SIDES = (16, 32, 64, 128, 256)


def run(args):
    import tfp_invconv as tic

    print("\nEmergingConv, latent to data, 4 images of n x n x 12")
    conv = tic.EmergingConv.trainable([16, 16, 12], seed=0)
    rows = []
    for side in SIDES:
        pair = both_directions(conv, [4, side, side, 12])["latent to data"]
        times = in_turn(dict(zip(("", ", with gradients"), pair, strict=True)), args.repeats)
        rows += [
            show(f"n = {side}{name}", figures) | {"side": side} for name, figures in times.items()
        ]
    large = [row for row in rows[::2] if row["side"] >= 32]
    sides, milliseconds = ([row[key] for row in large] for key in ("side", "ms"))
    exponent, _ = np.polyfit(np.log(sides), np.log(milliseconds), 1)
    return [*rows, claim("exponent of n, from 32 on", exponent, "", 2.2)]
