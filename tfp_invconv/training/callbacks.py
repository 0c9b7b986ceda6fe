"""Keras callbacks: pictures of samples, backups, a temperature, and a stop at Ctrl-C."""

import signal
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from tfp_invconv import plots
from tfp_invconv._utils import checks
from tfp_invconv._utils.types import PathLike, TensorLike
from tfp_invconv.training.backup import Backup

__all__ = ["Backup", "SampleImages", "StopOnInterrupt", "Temperature"]


class SampleImages(keras.callbacks.Callback):
    """Writes a grid of samples after every n-th epoch, from the same latents each time.

    So the pictures show how the flow that makes them changes, and nothing else. The files are
    `epoch-0001.png` and so on in `folder`; with `log_dir`, TensorBoard shows them as well.

    #### Examples

    >>> import os, tempfile
    >>> import numpy as np
    >>> import tfp_invconv as tic
    >>> model = tic.FlowModel(tic.glow, event_shape=[4, 4, 1], levels=1, depth=1, width=4)
    >>> model.compile("adam")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pictures = tic.callbacks.SampleImages(folder, every=2, count=4)
    ...     x = np.random.default_rng(0).uniform(0, 256, [8, 4, 4, 1])
    ...     history = model.fit(x.astype("float32"), epochs=5, callbacks=[pictures], verbose=0)
    ...     print(sorted(os.listdir(folder)))
    ['epoch-0002.png', 'epoch-0004.png']
    """

    def __init__(
        self,
        folder: PathLike,
        every: int = 1,
        count: int = 64,
        *,
        condition: TensorLike | None = None,
        max_value: int = 255,
        seed: int = 0,
        log_dir: PathLike | None = None,
    ) -> None:
        """Makes the callback.

        Args:
          folder: of the pictures; made if it is not there.
          every: number of epochs from one picture to the next.
          count: number of samples in a picture.
          condition: for a conditional flow, as in `FlowModel.sample`.
          max_value: the pixel value that is white.
          seed: int, of the latents.
          log_dir: folder of TensorBoard's log, or None; needs the package tensorboard.

        Raises:
          ValueError: if `every` or `count` is no positive int.
        """
        super().__init__()
        for argument, value in (("every", every), ("count", count)):
            checks.check_positive_integer(value, argument, "SampleImages")
        self._folder, self._every, self._count = Path(folder), every, count
        self._condition, self._max_value, self._seed = condition, max_value, seed
        self._writer = log_dir and tf.summary.create_file_writer(str(log_dir))

    def on_epoch_end(self, epoch, logs=None):
        """Writes a picture if it is time for one."""
        if (epoch + 1) % self._every:
            return
        samples = self.model.sample(self._count, condition=self._condition, seed=self._seed)
        path = self._folder / f"epoch-{epoch + 1:04d}.png"
        grid = plots.image_grid(samples, max_value=self._max_value, path=path)
        if self._writer:
            with self._writer.as_default():
                tf.summary.image("samples", grid[tf.newaxis], step=epoch + 1)
            self._writer.flush()


class StopOnInterrupt(keras.callbacks.Callback):
    """Ctrl-C ends the training after the current batch; a second Ctrl-C ends the program.

    Python's own KeyboardInterrupt, raised within a batch, can abort TensorFlow, and the code after
    `fit`, which would evaluate and save the model, never runs. `interrupted` says whether Ctrl-C
    was pressed.
    """

    interrupted = False

    def on_train_begin(self, logs=None):
        """Takes over the signal."""
        self.interrupted = False
        # After an exception in `fit`, which ends no callback, the signal is still taken.
        if signal.getsignal(signal.SIGINT) != self._interrupt:
            self._previous = signal.signal(signal.SIGINT, self._interrupt)

    def on_train_batch_end(self, batch, logs=None):
        """Stops the training if Ctrl-C was pressed."""
        self.model.stop_training |= self.interrupted

    def on_train_end(self, logs=None):
        """Gives the signal back."""
        signal.signal(signal.SIGINT, self._previous)

    def _interrupt(self, *_):
        self.interrupted = True
        signal.signal(signal.SIGINT, self._previous)


class Temperature(keras.callbacks.Callback):
    """Sets the temperature T of an `EnergyModel`, which trains on target_log_prob / T.

    A flow that starts at a high temperature sees a flatter target, and more of its modes. The logs
    of an epoch have its last temperature.

    #### Examples

    >>> import keras
    >>> import tfp_invconv as tic
    >>> cooling = keras.optimizers.schedules.PolynomialDecay(4.0, 800, end_learning_rate=1.0)
    >>> callback = tic.callbacks.Temperature(cooling)  # model.fit(..., callbacks=[callback])
    """

    def __init__(self, schedule: Callable[[int], TensorLike]) -> None:
        """Makes the callback.

        Args:
          schedule: function of the step of the training, counted from 0 by the optimizer, such as
            one of `keras.optimizers.schedules`; returns T > 0. With `steps_per_execution=n` it is
            asked at every n-th step.
        """
        super().__init__()
        self._schedule = schedule

    def on_train_batch_begin(self, batch, logs=None):
        """Sets the temperature of the step.

        Raises:
          ValueError: if it is not a positive number, or the model has none.
        """
        if not hasattr(self.model, "temperature"):
            raise ValueError(f"Temperature: needs an EnergyModel; got {self.model.name!r}.")
        step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        temperature = float(self._schedule(step))
        checks.check_positive_number(temperature, "schedule", "Temperature", f" in step {step}")
        self.model.temperature.assign(temperature)

    def on_epoch_end(self, epoch, logs=None):
        """Adds the temperature to the logs."""
        logs["temperature"] = float(self.model.temperature)
