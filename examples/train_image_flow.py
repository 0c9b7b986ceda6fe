"""Trains a flow on images and shows what it learned.

By default a Glow with emerging convolutions and spline couplings learns scikit-learn's digits.
Prints test bits/dim, the reconstruction error, how many of 2,000 samples are not finite or far out,
and the sampling time. Writes a picture, weights, history, figures and each layer's errors to a run
folder. Ctrl-C ends the training; the same --out goes on from the last epoch, after kills as well.
"""

import csv
import json
import sys
import timeit
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from datetime import datetime
from pathlib import Path

import keras
import numpy as np

import tfp_invconv as tic


def parse_arguments():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add, flows = parser.add_argument, tic.flows
    add("--dataset", default="digits", help="TFDS image data set, such as cifar10 (digits)")
    add("--data-dir", help="folder of prepared TFDS data sets (TFDS's own)")
    add("--conv", default="emerging", choices=flows.CONVOLUTIONS, help="convolution (emerging)")
    add("--coupling", default="spline", choices=flows.COUPLINGS, help="coupling (spline)")
    add("--log-scale-bound", default="1.0", help='in couplings, or "sigmoid" (1.0)')
    add("--noise", default="uniform", choices=["uniform", "variational"], help="noise (uniform)")
    add("--levels", type=int, default=2, help="levels of the multi-scale architecture (2)")
    add("--depth", type=int, default=4, help="steps in each level (4)")
    add("--width", type=int, default=64, help="channels in the couplings' networks (64)")
    add("--dropout", type=float, default=0.15, help="dropout rate in those networks (0.15)")
    add("--epochs", type=int, default=60, help="passes over the training images (60)")
    add("--minutes", type=float, help="time limit of the training (none)")
    add("--batch-size", type=int, default=100, help="images in a batch (100)")
    add("--learning-rate", type=float, default=2e-3, help="highest learning rate (0.002)")
    add("--seed", type=int, default=0, help="of parameters, data order and samples (0)")
    add("--out", type=Path, help="folder of the run (a new one in runs/)")
    return parser.parse_args()


def make_optimizer(learning_rate, steps):
    """Adam with warm-up, cosine decay, and weights averaged over the last tenth of the steps."""
    warmup, schedule = min(100, steps // 10), keras.optimizers.schedules.CosineDecay
    rate = schedule(1e-5, steps - warmup, warmup_target=learning_rate, warmup_steps=warmup)
    return keras.optimizers.Adam(rate, use_ema=True, ema_momentum=max(0.0, 1 - 10 / steps))


def train(model, images, args, config, out):
    """Trains the model, writes its history, and returns how the training went."""
    model.compile(make_optimizer(args.learning_rate, args.epochs * len(images)), jit_compile=True)
    interrupt = tic.callbacks.StopOnInterrupt()
    backup = tic.callbacks.Backup(out, data=images, minutes=args.minutes, config=config)
    callbacks = [interrupt, keras.callbacks.TerminateOnNaN(), backup]
    model.fit(images, epochs=args.epochs, steps_per_epoch=len(images), callbacks=callbacks)
    with open(out / "history.csv", "w", newline="") as file:
        csv.writer(file).writerows([*backup.history[:1], *(r.values() for r in backup.history)])
    diverged = not all(np.all(np.isfinite(variable)) for variable in model.trainable_variables)
    end = {"finished": not (diverged or interrupt.interrupted), "diverged": diverged}
    return {**end, "epochs_done": len(backup.history), "training_seconds": backup.seconds}


def evaluate(model, images, seed, out):
    """Prints and returns the figures of a trained model, and draws its samples."""
    real = next(iter(images)).numpy()[:100]
    # Binary images have two grey levels, scikit-learn's digits 17.
    white = next(white for white in (1, 16, 255) if real.max() <= white + 1)
    error = tic.reconstruction_error(model.distribution, images)
    samples = np.concatenate([model.sample(100, seed=1000 * seed + i) for i in range(20)])
    counts = tic.count_outliers(samples, max_value=white)
    seconds = float(np.median(timeit.repeat(lambda: model.sample(100, seed=0).numpy(), number=1)))
    bits = model.evaluate(images, verbose=0, return_dict=True)["bits_per_dim"]
    print(f"test bits/dim: {bits:.3f}\nreconstruction error: {error:.1e} grey levels")
    print("of {:,} samples {} are not finite and {} far out".format(*counts.values()))
    print(f"time to sample 100 images: {1e3 * seconds:.0f} ms\npictures: {out / 'samples.png'}")
    tic.plots.comparison(model.sample(100, seed=seed), real, out / "samples.png", max_value=white)
    with open(out / "conditions.txt", "w") as file:
        report = {"print_fn": lambda line: print(line, file=file), "seed": seed}
        tic.condition_report(model.distribution, real[:50], **report)
    figures = {"test_bits_per_dim": bits, "reconstruction_error": error}
    return {**figures, **counts, "sampling_seconds": seconds}


def main():
    args = parse_arguments()
    if args.log_scale_bound != "sigmoid":
        args.log_scale_bound = float(args.log_scale_bound)
    config = {key: value for key, value in vars(args).items() if key not in ("data_dir", "out")}
    out = args.out or Path("runs") / f"{args.dataset}-{datetime.now():%Y%m%d-%H%M%S}"
    out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(args.seed)
    options = {"data_dir": args.data_dir, "size_multiple": 2**args.levels, "seed": args.seed}
    images = tic.data.load_images(args.dataset, "train", args.batch_size, **options)
    test_images = tic.data.load_images(args.dataset, "test", 500, **options)
    names = ("levels", "depth", "conv", "coupling", "log_scale_bound", "width", "dropout", "seed")
    flow = tic.glow(images.element_spec.shape[1:], **{name: config[name] for name in names})
    learned = args.noise == "variational"
    if learned:  # The data are then the whole numbers.
        images, test_images = images.map(keras.ops.floor), test_images.map(keras.ops.floor)
    model = tic.FlowModel(flow, dequantizer=tic.dequantizer if learned else None)
    parameters = sum(variable.numpy().size for variable in model.trainable_variables)
    print(f"{args.conv}/{args.coupling}: {parameters:,} parameters; run folder: {out}")
    results = {**config, "parameters": parameters, **train(model, images, args, config, out)}
    if not results["diverged"]:
        model.save_weights(out / "model.weights.h5")
        results |= evaluate(model, test_images, args.seed, out)
    # A file that is renamed appears whole.
    (out / "results.part").write_text(json.dumps(results, indent=2) + "\n")
    (out / "results.part").replace(out / "results.json")
    if results["diverged"]:
        raise ValueError("the training ended in NaN; try a lower --learning-rate")


if __name__ == "__main__":
    try:
        main()
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"train_image_flow: {error}")
