"""Trainings that can be killed at any moment, and go on from their last epoch."""

import csv
import io
import json
import math
import signal
import time
import zipfile

import keras
import numpy as np
from experiment import check_options, stop, write

# The state of a training after its last epoch, and after its best one.
STATE, BEST = "training.npz", "best.npz"


def make_optimizer(learning_rate, steps):
    """Adam with a warm-up, a cosine decay and an average over the last tenth of the steps."""
    warmup = min(100, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-5, steps - warmup, warmup_target=learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.Adam(rate, use_ema=True, ema_momentum=max(0.0, 1 - 10 / steps))


def train(name, model, data, args, options, folder, *, jit_compile="auto", **kwargs):
    """Compiles and fits the model of an experiment, and saves its weights unless it diverged.

    Args:
      name: of the model, for what is printed.
      model: a `keras.Model`; see `fit`.
      data: a `tf.data.Dataset`; see `fit`.
      args: arguments of the experiment: `epochs`, `minutes`, `learning_rate`.
      options: a dict of all that decides the training.
      folder: of the run.
      jit_compile: of `keras.Model.compile`.
      **kwargs: of `fit`.

    Returns:
      The results and the history of `fit`, the results with the number of parameters.
    """
    # Not `count_params`, which counts the seeds of dropouts too.
    parameters = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    print(f"{name}: {parameters:,} parameters; run folder: {folder}")
    steps = args.epochs * int(data.cardinality())
    model.compile(make_optimizer(args.learning_rate, steps), jit_compile=jit_compile)
    limits = dict(epochs=args.epochs, minutes=args.minutes)
    results, history = fit(model, data, folder, options, **limits, **kwargs)
    if results["diverged"]:
        print(f"{name}: the training ended in NaN; try a lower --learning-rate")
    else:
        model.save_weights(folder / "model.weights.h5")
    return {**results, "parameters": parameters}, history


def fit(model, data, folder, options, *, epochs, minutes=None, patience=None, **kwargs):
    """As `keras.Model.fit`, and it goes on from the last epoch that is kept in the folder.

    The model ends up with the averages of its parameters, if its optimizer takes them; with
    `patience`, with those of the epoch whose `val_loss` is the lowest. Without a `val_loss` that
    is lower than all before for so many epochs the training ends.

    Args:
      model: a compiled `keras.Model`, all of whose random numbers come from Keras's seeds.
      data: a `tf.data.Dataset`, shuffled anew at every epoch.
      folder: of `training.npz`, the state after the last epoch, `best.npz`, that of the best one,
        and `history.csv`.
      options: a dict of all that decides the training; a state of others is an error.
      epochs: how many there are in all.
      minutes: the most that the training may take; what is then left of the epoch is left out.
      patience: see above.
      **kwargs: of `keras.Model.fit`.

    Returns:
      A dict of results: whether the training is finished, and was not interrupted by hand; whether
      it diverged; the number of whole epochs; the seconds it took. And the history, a dict for
      each epoch.
    """
    model.optimizer.build(model.trainable_variables)
    progress = Progress(model, folder, options, epochs, minutes, patience)
    interrupt = StopOnInterrupt()
    for _ in range(len(progress.history)):
        iter(data)  # Each iterator takes the next seeds: the order of the next epoch.
    if not progress.is_over():
        averages = [keras.callbacks.SwapEMAWeights()] if patience else []
        ends = [interrupt, keras.callbacks.TerminateOnNaN()]
        model.fit(
            data,
            steps_per_epoch=int(data.cardinality()),  # without it an epoch takes two iterators
            epochs=epochs,
            initial_epoch=len(progress.history),
            shuffle=False,  # The data set does.
            callbacks=[*averages, *ends, progress],
            **kwargs,
        )
    if patience:
        progress.restore_best()
    model.optimizer.finalize_variable_values(model.trainable_variables)
    if interrupt.interrupted:
        print("\nStopped; going on with the weights reached.")
    diverged = not all(np.all(np.isfinite(variable)) for variable in model.trainable_variables)
    if not progress.history and not diverged:
        print("The training ended before its first epoch did.")
    return {
        "finished": not (interrupt.interrupted or diverged),
        "diverged": diverged,
        "epochs_done": len(progress.history),
        "training_seconds": progress.seconds(),
    }, progress.history


class StopOnInterrupt(keras.callbacks.Callback):
    """Ctrl-C ends the training after the batch; a second one ends the program.

    Python's own KeyboardInterrupt, raised in the midst of a batch, can abort TensorFlow.
    """

    interrupted = False

    def on_train_begin(self, logs=None):
        self.previous = signal.signal(signal.SIGINT, self.interrupt)

    def interrupt(self, *_):
        self.interrupted = True
        signal.signal(signal.SIGINT, self.previous)

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training |= self.interrupted

    def on_train_end(self, logs=None):
        signal.signal(signal.SIGINT, self.previous)


class Progress(keras.callbacks.Callback):
    """Keeps the state of a training after every epoch, and ends the training when it is time."""

    def __init__(self, model, folder, options, epochs, minutes, patience):
        super().__init__()
        self.options = json.loads(json.dumps(options))
        self.epochs, self.patience = epochs, patience
        self.limit = math.inf if minutes is None else 60 * minutes
        self.folder, self.history = folder, []
        self.all_variables = [*model.variables, *model.optimizer.variables]
        if (folder / STATE).exists():
            self.history = self.restore(STATE)
        self.spent = self.history[-1]["seconds"] if self.history else 0.0
        self.start = None

    def seconds(self):
        """Of training, those before a kill included."""
        return self.spent + (time.perf_counter() - self.start if self.start else 0.0)

    def best_epoch(self):
        return int(np.argmin([row["val_loss"] for row in self.history]))

    def is_over(self):
        """Whether nothing is left to train."""
        done = len(self.history)
        if self.patience and done and done - 1 - self.best_epoch() >= self.patience:
            return True
        return done >= self.epochs or self.seconds() >= self.limit

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training |= self.seconds() >= self.limit
        self.broken_off = self.model.stop_training

    def on_epoch_end(self, epoch, logs=None):
        if self.broken_off:
            return
        logs = {key: float(value) for key, value in logs.items()}
        self.history.append({"epoch": epoch + 1, "seconds": self.seconds(), **logs})
        state = self.packed()
        if self.patience and self.best_epoch() == epoch:
            write(self.folder / BEST, state)
        write(self.folder / STATE, state)
        write(self.folder / "history.csv", self.table())
        self.model.stop_training |= self.is_over()

    def on_train_end(self, logs=None):
        self.spent, self.start = self.seconds(), None

    def table(self):
        """The history as the text of a CSV file; what was not measured is empty."""
        columns = list(dict.fromkeys(key for row in self.history for key in row))
        file = io.StringIO()
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(self.history)
        return file.getvalue()

    def packed(self):
        """All variables and what is known of the training, as the bytes of a file."""
        record = json.dumps({"options": self.options, "history": self.history})
        arrays = {str(i): variable.numpy() for i, variable in enumerate(self.all_variables)}
        file = io.BytesIO()
        np.savez(file, record=record, **arrays)
        return file.getvalue()

    def restore(self, name):
        """Sets all variables to those in a file, and returns the history in it."""
        path = self.folder / name
        try:
            # Opened here: of a damaged file, NumPy leaves it open.
            with open(path, "rb") as file, np.load(file) as arrays:
                record = json.loads(str(arrays["record"]))
                check_options(record["options"], self.options, path)
                values = [arrays[str(i)] for i in range(len(self.all_variables))]
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile):
            stop(f"{path} is damaged; remove it to train this anew")
        for variable, value in zip(self.all_variables, values, strict=True):
            variable.assign(value)
        return record["history"]

    def restore_best(self):
        if self.history:
            self.restore(BEST)
