"""Trainings of the papers' experiments: killed at any moment, they go on from their last epoch."""

import csv
import io
import math

import keras
import numpy as np
import tensorflow as tf
from experiment import write

import tfp_invconv as tic


def make_optimizer(learning_rate, steps):
    """Adam with warm-up, cosine decay, and weights averaged over the last tenth of the steps."""
    warmup = min(100, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay
    rate = schedule(1e-5, steps - warmup, warmup_target=learning_rate, warmup_steps=warmup)
    return keras.optimizers.Adam(rate, use_ema=True, ema_momentum=max(0.0, 1 - 10 / steps))


def train(name, model, data, args, options, folder, validation_data):
    """Trains a model; it ends up with the averaged weights of the epoch of lowest `val_loss`.

    Args:
      name: of the model, printed.
      model: a `keras.Model`, all of whose random numbers come from Keras's seeds.
      data: a `tf.data.Dataset`, shuffled anew at each epoch.
      args: arguments of the experiment: `epochs`, `patience`, `minutes`, `learning_rate`.
      options: a dict of whatever decides the training.
      folder: of the run: the backup, history.csv, and model.weights.h5 unless it diverged.
      validation_data: a `tf.data.Dataset`.

    Returns:
      A dict of results: whether the training is finished, and not interrupted by hand; whether it
      diverged; the number of whole epochs; the seconds it took; the number of parameters.
    """
    averages = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    stopping = keras.callbacks.EarlyStopping(patience=args.patience, restore_best_weights=True)
    backup = tic.callbacks.Backup(
        folder, data=data, callbacks=[averages, stopping], minutes=args.minutes, config=options
    )
    return fit(
        name,
        model,
        make_optimizer(args.learning_rate, args.epochs * len(data)),
        [averages, stopping, backup],
        folder,
        x=data,
        epochs=args.epochs,
        steps_per_epoch=len(data),  # so that Keras makes one iterator for each epoch
        shuffle=False,  # The data set does.
        validation_data=validation_data,
    )


def fit(name, model, optimizer, callbacks, folder, **arguments):
    """Fits a model, until the end, NaN or Ctrl-C.

    Args:
      name: of the model, printed.
      model: a `keras.Model`.
      optimizer: a Keras optimizer.
      callbacks: list of callbacks, the last one a `tic.callbacks.Backup`.
      folder: of the run.
      **arguments: of `model.fit`.

    Returns:
      The results of `train`.
    """
    # `count_params` would count the seeds of dropouts, too.
    parameters = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    print(f"{name}: {parameters:,} parameters; run folder: {folder}")
    model.compile(optimizer)
    model.optimizer.build(model.trainable_variables)
    interrupt, backup = tic.callbacks.StopOnInterrupt(), callbacks[-1]
    all_callbacks = [interrupt, keras.callbacks.TerminateOnNaN(), *callbacks]
    losses = []
    try:
        losses = model.fit(callbacks=all_callbacks, **arguments).history.get("loss", [])
    except tf.errors.InvalidArgumentError as error:
        # An energy of samples that is not finite. A wrong number in data is the user's to mend.
        if not isinstance(model, tic.EnergyModel):
            raise
        print(error.message)
        losses = [math.nan]
    if interrupt.interrupted:
        print("\nStopped; going on with the weights reached.")
    # The weights may be finite: early stopping has restored the best ones.
    diverged = not np.all(np.isfinite(losses))
    diverged |= not all(np.all(np.isfinite(variable)) for variable in model.trainable_variables)
    if not backup.history and not diverged:
        print("The training ended before its first epoch did.")
    if diverged:
        print(f"{name}: the training ended in NaN; try a lower --learning-rate")
    else:
        model.save_weights(folder / "model.weights.h5")
    write(folder / "history.csv", table(backup.history))
    return {
        "finished": not (interrupt.interrupted or diverged),
        "diverged": diverged,
        "epochs_done": len(backup.history),
        "training_seconds": backup.seconds,
        "parameters": parameters,
    }


def table(history):
    """The history as the text of a CSV file."""
    file = io.StringIO()
    # Iterating over a dict gives its keys.
    csv.writer(file).writerows([*history[:1], *(row.values() for row in history)])
    return file.getvalue()
