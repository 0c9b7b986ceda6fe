"""Trains what a user would take instead: the Glow of TFP, and that of normflows in PyTorch.

As compare_flows.py trains its flows: on the same data, with the same seeds, learning rates and
averages of weights; its table and picture are of the same kind. `tfb.Glow` is trained by
`FlowModel`. normflows needs `pip install '.[benchmark]'`.

Killed at any moment, the same command goes on with the flow that was not done.
"""

import math
import time
import timeit

import keras
import numpy as np
import peers
import tensorflow as tf
import training
from compare_flows import HEADER, figures
from experiment import options_parser, results_of_each, run_command, show, write

import tfp_invconv as tic

# What decides the results, besides the seed.
OPTIONS = {
    "dataset": ("digits", "TFDS image data set, such as cifar10"),
    "levels": (2, "levels of the multi-scale architecture"),
    "depth": (4, "steps in each level"),
    "width": (64, "channels in the couplings' networks"),
    "epochs": (180, "passes over the training images"),
    "batch_size": (100, "images in a batch"),
    "learning_rate": (2e-3, "highest learning rate"),
}


def train_tfb_glow(args, images, num_values, folder):
    """Trains it; returns functions for the mean of -log_prob and for samples, and the results."""
    flow = peers.tfb_glow(
        images.element_spec.shape[1:], args.levels, args.depth, args.width, num_values
    )
    flow.log_prob(next(iter(images)))
    model = tic.FlowModel(flow)
    # tfb.Glow fails for batches whose size a graph does not know.
    config = {name: getattr(args, name) for name in OPTIONS}
    images = images.map(lambda x: tf.ensure_shape(x, [args.batch_size, *x.shape[1:]]))
    results = training.fit(
        "tfb.Glow",
        model,
        training.make_optimizer(args.learning_rate, args.epochs * len(images)),
        [tic.callbacks.Backup(folder, data=images, minutes=args.minutes, config=config)],
        folder,
        x=images,
        epochs=args.epochs,
        steps_per_epoch=len(images),
    )

    def nats(x):
        return -np.mean(flow.log_prob(x))

    return nats, lambda count, seed: model.sample(count, seed=seed).numpy(), results


def train_normflows(args, images, num_values, folder):
    """As `train_tfb_glow`."""
    import torch

    shape = images.element_spec.shape[1:]
    steps, size = args.epochs * len(images), math.prod(shape)
    model = peers.normflows_glow(shape, args.levels, args.depth, args.width)

    def nats(flow, x):
        pixels = torch.from_numpy(np.moveaxis(np.asarray(x), -1, 1) / num_values - 0.5)
        return size * math.log(num_values) - flow.log_prob(pixels, None).mean()

    with torch.no_grad():
        nats(model, next(iter(images)))  # fits its ActNorms
    optimizer = torch.optim.Adam(model.parameters(), 1.0, eps=1e-7)
    # The learning rates and the averages of weights are those of the others.
    keras_optimizer = training.make_optimizer(args.learning_rate, steps)

    def rate(step):
        keras_optimizer.iterations.assign(step)
        return float(keras_optimizer.learning_rate)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    momentum = keras_optimizer.ema_momentum
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(momentum)
    )
    history, seconds = [], 0.0
    for epoch in range(args.epochs):
        start, losses = time.perf_counter(), []
        for x in images:
            optimizer.zero_grad()
            loss = nats(model, x)
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            losses.append(loss.item())
        seconds += time.perf_counter() - start
        bits = float(np.mean(losses)) / (size * math.log(2))
        history.append({"epoch": epoch + 1, "seconds": seconds, "bits_per_dim": bits})
        print(f"Epoch {epoch + 1}/{args.epochs}: {bits:.4f} bits/dim")
        if not math.isfinite(bits) or (args.minutes and seconds > 60 * args.minutes):
            break
    write(folder / "history.csv", training.table(history))
    trained = average.module
    torch.save(trained.state_dict(), folder / "model.pt")

    @torch.no_grad()
    def sample(count, seed):
        torch.manual_seed(seed)
        pixels = trained.sample(count)[0].numpy()
        return num_values * (np.moveaxis(pixels, 1, -1) + 0.5)

    diverged = not math.isfinite(history[-1]["bits_per_dim"])
    results = {
        "finished": not diverged,
        "diverged": diverged,
        "epochs_done": len(history),
        "training_seconds": seconds,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    return torch.no_grad()(lambda x: nats(trained, x).item()), sample, results


FLOWS = {"tfb.Glow": train_tfb_glow, "normflows": train_normflows}


def train(name, args, seed, _, folder):
    """Trains one flow and returns its results."""
    keras.utils.set_random_seed(seed)
    if name == "normflows":
        import torch

        torch.manual_seed(seed)
    options = {"data_dir": args.data_dir, "size_multiple": 2**args.levels, "seed": seed}
    images = tic.data.load_images(args.dataset, "train", args.batch_size, **options)
    test_images = tic.data.load_images(args.dataset, "test", 500, **options)
    # Scikit-learn's digits have 17 grey levels.
    num_values = 17 if next(iter(images)).numpy().max() <= 17 else 256
    nats, sample, results = FLOWS[name](args, images, num_values, folder)
    if results["diverged"]:
        return results
    samples = np.concatenate([sample(100, 1000 * seed + i) for i in range(20)])
    seconds = float(np.median(timeit.repeat(lambda: sample(100, 0), number=1)))
    tic.plots.image_grid(
        sample(100, seed), max_value=num_values - 1, scale=4, path=folder / "samples.png"
    )
    # Each batch by the number of its images.
    losses, counts = zip(*((nats(x), len(x)) for x in test_images), strict=True)
    size = math.prod(images.element_spec.shape[1:])
    return {
        **results,
        **tic.count_outliers(samples, max_value=num_values - 1),
        "sampling_seconds": seconds,
        "test_bits_per_dim": float(np.average(losses, weights=counts) / (size * math.log(2))),
    }


def main():
    parser = options_parser(__doc__, OPTIONS, "runs/peers")
    parser.add_argument("--data-dir", help="folder of prepared TFDS data sets (TFDS's own)")
    parser.add_argument(
        "--flows", nargs="+", choices=FLOWS, default=list(FLOWS), help="which (all)"
    )
    args = parser.parse_args()
    options = {name: getattr(args, name) for name in (*OPTIONS, "minutes")}
    results = results_of_each(train, args, "flow", args.flows, options)
    show(results, HEADER, figures, args.out, "bits_per_dim", "training bits/dim")


if __name__ == "__main__":
    run_command(main)
