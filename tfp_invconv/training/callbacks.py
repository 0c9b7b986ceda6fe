"""Keras callbacks that show what a flow has learned, and keep it."""

from pathlib import Path

import keras
import tensorflow as tf

from tfp_invconv import plots
from tfp_invconv._utils import checks
from tfp_invconv._utils.types import PathLike, TensorLike


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


class Backup(keras.callbacks.Callback):
    """Saves a training after each epoch; the same `fit`, started again, goes on from there.

    What is saved is one file: weights, the optimizer's state, the seeds of dropouts and, as its
    name, the number of epochs. It is written whole or not at all. So a training that is killed at
    any moment, while it writes, too, ends as an undisturbed one does, to the bit where operations
    are deterministic and epochs see the same batches. (`keras.callbacks.BackupAndRestore`
    has two files, and trains an epoch twice if it is killed between them.) The file stays when the
    training has ended: then `fit` trains no more.

    #### Examples

    >>> import os, tempfile
    >>> import numpy as np
    >>> import tfp_invconv as tic
    >>> model = tic.FlowModel(tic.conf, event_shape=[3], depth=1, width=4)
    >>> model.compile("adam")
    >>> x = np.random.default_rng(0).normal(size=[8, 3]).astype("float32")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     backup = tic.callbacks.Backup(folder)
    ...     history = model.fit(x, epochs=2, callbacks=[backup], verbose=0)
    ...     history = model.fit(x, epochs=3, callbacks=[backup], verbose=0)
    ...     print(history.epoch, os.listdir(folder))
    [2] ['epoch-000003.weights.h5']
    """

    def __init__(self, folder: PathLike) -> None:
        """Args: the folder of the file, of this training alone; made if it is not there."""
        super().__init__()
        self._folder = Path(folder)

    def on_train_begin(self, logs=None):
        """Loads what is there.

        Raises:
          OSError: if the file is damaged.
          ValueError: if it is of another model.
        """
        saved = self._saved()
        if saved:
            self.model.load_weights(saved[-1])
            # What Keras's own callback sets, and `fit` looks at.
            self.model._initial_epoch = int(saved[-1].name.split(".")[0].removeprefix("epoch-"))

    def on_epoch_end(self, epoch, logs=None):
        """Saves the training, then removes what was saved before."""
        old = self._saved()
        path = self._folder / f"epoch-{epoch + 1:06d}.weights.h5"
        self.model.save_weights(path)
        for other in old:
            if other != path:
                other.unlink(missing_ok=True)

    def on_train_end(self, logs=None):
        """Lets the next `fit` begin where it is told to."""
        self.model._initial_epoch = None

    def _saved(self):
        return sorted(self._folder.glob("epoch-*.weights.h5"))
