"""Files that are written whole or not at all, and weights that show damage."""

import contextlib
import io
import os
import secrets
import zipfile
import zlib

import h5py
import tensorflow as tf

_CHECKSUM = "tfp_invconv_crc32"


@contextlib.contextmanager
def atomic_write(path):
    """Yields the path of a temporary file that replaces `path` in one step at the end.

    A failed write removes the temporary file; a killed process leaves it behind, under a name of
    its own. Either way the old file is as it was.

    Raises:
      OSError: if the file can't be written.
    """
    folder, name = os.path.split(os.fspath(path))
    # A name that no other process has, with the suffix that Keras looks at.
    new = os.path.join(folder, f".{secrets.token_hex(4)}.{name}")
    try:
        if folder:
            tf.io.gfile.makedirs(folder)
        yield new
        tf.io.gfile.rename(new, os.fspath(path), overwrite=True)
    except (OSError, tf.errors.OpError) as error:
        raise OSError(f"{path} cannot be written: {getattr(error, 'message', error)}") from error
    finally:
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.remove(new)


class WeightsInMemory(io.BytesIO):
    """A file in memory whose name tells Keras that it holds weights."""

    def __str__(self):
        return "memory.weights.h5"


def write_weights(weights, path):
    """Writes a `WeightsInMemory` to a file, atomically and with a checksum of its arrays."""
    with h5py.File(weights, "r+") as file:
        file.attrs[_CHECKSUM] = _checksum(file)
    # HDF5 itself would crash the process sooner or later once the disk is full.
    with atomic_write(path) as new, tf.io.gfile.GFile(new, "wb") as file:
        file.write(weights.getvalue())


def verify_checksum(path):
    """Raises an OSError if a `.weights.h5` or `.keras` file is not as it was written."""
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        # h5py and zipfile read no remote files.
        with tf.io.gfile.GFile(path, "rb") as file:
            is_whole = _is_whole(io.BytesIO(file.read()), str(path).endswith(".keras"))
    except Exception as error:  # whatever a library raises at damage
        raise OSError(f"{path} is damaged: {error}") from error
    if not is_whole:
        raise OSError(f"{path} is damaged: it has other numbers than were written.")


def _is_whole(content, is_archive):
    if is_archive:
        with zipfile.ZipFile(content) as archive:
            return archive.testzip() is None
    with h5py.File(content, "r") as file:
        return file.attrs.get(_CHECKSUM) in (None, _checksum(file))


def _checksum(file):
    total = 0

    def add(name, item):
        nonlocal total
        if isinstance(item, h5py.Dataset):
            total = zlib.crc32(item[()].tobytes(), zlib.crc32(name.encode(), total))

    file.visititems(add)
    return total
