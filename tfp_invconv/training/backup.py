"""A Keras callback that saves a training, so that it can be killed and started again."""

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf

from tfp_invconv._utils import files
from tfp_invconv._utils.types import PathLike

# What Keras's callbacks remember from one epoch to the next.
_CALLBACK_STATE = (
    "best",
    "best_epoch",
    "cooldown_counter",
    "stopped_epoch",
    "wait",
    "_ema_weights_in_model",
)


class Backup(keras.callbacks.Callback):
    """Saves a training after each epoch; the same `fit`, started again, goes on from there.

    One file holds the weights, the optimizer's state, the seeds of dropouts, the history and, as
    its name, the number of epochs. It is written whole or not at all. So a training that is killed
    at any moment, even while it writes, ends as an undisturbed one does, to the bit where
    operations are deterministic. (`keras.callbacks.BackupAndRestore` has two files, and trains an
    epoch twice if it is killed between them.) The file stays when the training has ended: `fit`
    then trains no more. An epoch that is broken off, by Ctrl-C or for lack of time, is not saved.

    Put it last among the callbacks of `fit`. With early stopping on averaged weights, and with data
    that are shuffled anew at each epoch:

    ```python
    averages = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    stopping = keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True)
    backup = tic.callbacks.Backup("run", data=data, callbacks=[averages, stopping], minutes=60)
    model.fit(
        data,
        validation_data=validation,
        epochs=100,
        steps_per_epoch=len(data),
        callbacks=[averages, stopping, backup],
    )
    ```

    `history` is a list with a dict for each epoch since the training began, kills included:
    "epoch", counted from 1, "seconds" of training, and the logs of Keras. `seconds` is the time
    spent in training so far.

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
    ...     print(history.epoch, [row["epoch"] for row in backup.history], os.listdir(folder))
    [2] [1, 2, 3] ['epoch-000003.weights.h5']
    """

    def __init__(
        self,
        folder: PathLike,
        *,
        minutes: float | None = None,
        data: tf.data.Dataset | None = None,
        callbacks: Iterable[keras.callbacks.Callback] = (),
        config: Mapping[str, object] | None = None,
    ) -> None:
        """Makes the callback.

        Args:
          folder: of the file, used by this training alone; made if it is not there.
          minutes: the most that the training may take in all, or None. The training then stops
            after a batch, with the weights reached. Time spent in an epoch that was broken off is
            forgotten when the training is started again.
          data: the data set given to `fit`, if it is shuffled anew at each epoch: the epochs that
            are left then see the orders that they would have seen. `fit` needs
            `steps_per_epoch=len(data)`, so that Keras makes one iterator for each epoch; and a
            training that goes on in the same process, a data set that is made anew.
          callbacks: those in `fit` whose state is saved as well: Keras's `EarlyStopping`,
            `ReduceLROnPlateau`, `ModelCheckpoint` and `SwapEMAWeights`.
          config: whatever decides the training, as JSON takes it. A file that was written with
            another one is refused.
        """
        super().__init__()
        self.history: list[dict[str, float]] = []
        self._folder = Path(folder)
        self._limit = math.inf if minutes is None else 60.0 * minutes
        self._data, self._callbacks = data, list(callbacks)
        self._config = json.loads(json.dumps(config))
        self._spent, self._start = 0.0, None

    @property
    def seconds(self) -> float:
        """Time spent in training, before kills too."""
        running = 0.0 if self._start is None else time.perf_counter() - self._start
        return self._spent + running

    def on_train_begin(self, logs=None):
        """Loads the file in the folder.

        Raises:
          OSError: if it is damaged.
          ValueError: if it belongs to another model, was written with another `config`, or the
            model has no variables yet: call it on some data first.
        """
        self.history, self._spent = [], 0.0
        saved = self._saved()
        if saved:
            self._restore(saved[-1])
        self._start = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        """An epoch without batches is a whole one."""
        self._is_broken_off = False
        # `fit` has read it, and the next one may follow an exception.
        self.model._initial_epoch = None

    def on_train_batch_end(self, batch, logs=None):
        """Stops the training when its time is over."""
        self.model.stop_training |= self.seconds >= self._limit
        self._is_broken_off = self.model.stop_training

    def on_epoch_end(self, epoch, logs=None):
        """Saves the training, then removes the file before; not after a loss that is not finite."""
        if self._is_broken_off or not np.isfinite((logs or {}).get("loss", 0.0)):
            return
        values = {name: float(value) for name, value in (logs or {}).items()}
        self.history.append({"epoch": epoch + 1, "seconds": self.seconds, **values})
        old = self._saved()
        path = self._folder / f"epoch-{epoch + 1:06d}.weights.h5"
        self._save(path)
        for other in old:
            if other != path:
                other.unlink(missing_ok=True)

    def on_train_end(self, logs=None):
        """Lets the next `fit` begin where it is told to."""
        self.model._initial_epoch = None
        self._spent, self._start = self.seconds, None

    def _saved(self):
        # A path that no folder can have is an error where a file is written.
        is_folder = os.path.isdir(self._folder)
        return sorted(self._folder.glob("epoch-*.weights.h5")) if is_folder else []

    def _save(self, path):
        weights = files.WeightsInMemory()
        keras.Model.save_weights(self.model, weights)
        record = {
            "config": self._config,
            "history": self.history,
            "stopped": bool(self.model.stop_training),
            "callbacks": [_state(callback) for callback in self._callbacks],
        }
        with h5py.File(weights, "r+") as file:
            group = file.create_group("backup")
            group["record"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
            _write_arrays(group, "seeds", [v.numpy() for v in _not_in_weights(self.model)])
            for i, callback in enumerate(self._callbacks):
                _write_arrays(group, f"best_weights_{i}", getattr(callback, "best_weights", None))
        files.write_weights(weights, path)

    def _restore(self, path):
        files.verify_checksum(path)
        with h5py.File(path) as file:
            group = file["backup"]
            record = json.loads(bytes(group["record"][()]))
            seeds = _read_arrays(group, "seeds")
            best = [_read_arrays(group, f"best_weights_{i}") for i in range(len(self._callbacks))]
        if record["config"] != self._config:
            raise ValueError(
                f"Backup: {path} belongs to a training with {record['config']}, and this one has "
                f"{self._config}. Choose another folder, or remove the file to train anew."
            )
        if not self.model.optimizer.built:
            with self.model.distribute_strategy.scope():
                self.model.optimizer.build(self.model.trainable_variables)
        self.model.load_weights(path)
        for variable, value in zip(_not_in_weights(self.model), seeds, strict=True):
            variable.assign(value)
        for callback, state, arrays in zip(self._callbacks, record["callbacks"], best, strict=True):
            vars(callback).update(state)
            if arrays is not None:
                callback.best_weights = arrays
        self.history = record["history"]
        self._spent = self.history[-1]["seconds"]
        is_over = record["stopped"] or self._spent >= self._limit
        # `fit` reads what Keras's own callback sets; from its last epoch on, nothing is left.
        last = self.history[-1]["epoch"]
        self.model._initial_epoch = self.params["epochs"] if is_over else last
        if self._data is not None:
            for _ in self.history:
                iter(self._data)  # each iterator takes the seeds of one epoch


def _not_in_weights(model):
    """The variables that Keras leaves out of a file of weights: the states of seeds."""
    in_weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in in_weights]


def _state(callback):
    """The numbers that one of Keras's callbacks remembers from one epoch to the next."""
    known = {name: vars(callback)[name] for name in _CALLBACK_STATE if name in vars(callback)}
    return {
        name: value if value is None else np.asarray(value).item() for name, value in known.items()
    }


def _write_arrays(group, name, arrays):
    if arrays is not None:
        arrays_of = group.create_group(name)
        for i, array in enumerate(arrays):
            arrays_of[str(i)] = array


def _read_arrays(group, name):
    if name not in group:
        return None
    return [group[name][str(i)][()] for i in range(len(group[name]))]
