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
def replacing(path):
    """The path of a file to write beside another, which it replaces in the end, in one step.

    Where the writing fails, the new file is removed; where the process is killed, it stays, under
    a name of its own. In both cases the old one is as it was.

    Raises:
      OSError: if the file can't be written.
    """
    folder, name = os.path.split(os.fspath(path))
    # Of a name that no other process has, and with the ending that Keras looks at.
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
    """A file in memory that Keras takes for one of weights, by its name."""

    def __str__(self):
        return "memory.weights.h5"


def add_checksum(path_or_file):
    """Writes into an HDF5 file the checksum of its arrays."""
    with h5py.File(path_or_file, "r+") as file:
        file.attrs[_CHECKSUM] = _checksum(file)


def check_whole(path):
    """Raises an OSError if a file of weights, HDF5's or Keras's own, is not as it was written."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        is_whole = _is_whole(path)
    except Exception as error:  # whatever a library makes of damage
        raise OSError(f"{path} is damaged: {error}") from error
    if not is_whole:
        raise OSError(f"{path} is damaged: it has other numbers than were written.")


def _is_whole(path):
    if str(path).endswith(".keras"):
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    with h5py.File(path, "r") as file:
        return file.attrs.get(_CHECKSUM) in (None, _checksum(file))


def _checksum(file):
    total = 0

    def add(name, item):
        nonlocal total
        if isinstance(item, h5py.Dataset):
            total = zlib.crc32(item[()].tobytes(), zlib.crc32(name.encode(), total))

    file.visititems(add)
    return total
