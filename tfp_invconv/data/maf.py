"""POWER, GAS, HEPMASS and MINIBOONE as TFDS data sets, prepared as published."""

import io
import pathlib
import tarfile
import zlib

import numpy as np

from tfp_invconv.data import _builders

__all__ = ["Gas", "Hepmass", "Miniboone", "Power"]

_URL = "https://zenodo.org/records/1161203/files/data.tar.gz"
_MD5 = "9b9c9b0375315ad270eba4ce80c093ab"

# What the pickle of a data frame of numbers refers to.
_CLASSES_OF_A_FRAME = {
    "builtins": {"slice"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct"},
    "numpy.core.numeric": {"_frombuffer"},
    "pandas._libs.internals": {"_unpickle_block"},
    "pandas.core.frame": {"DataFrame"},
    "pandas.core.indexes.base": {"Index", "_new_Index"},
    "pandas.core.indexes.numeric": {"Int64Index"},
    "pandas.core.indexes.range": {"RangeIndex"},
    "pandas.core.internals": {"BlockManager"},
    "pandas.core.internals.managers": {"BlockManager"},
}
# Where other versions of Python, NumPy and pandas have them.
_OTHER_PLACES = {
    "__builtin__": "builtins",
    "numpy._core": "numpy.core",
    "pandas.indexes": "pandas.core.indexes",
}

_CITATION = """\
@inproceedings{papamakarios2017masked,
  author = {Papamakarios, George and Pavlakou, Theo and Murray, Iain},
  title = {Masked Autoregressive Flow for Density Estimation},
  booktitle = {Advances in Neural Information Processing Systems 30},
  year = {2017},
}
"""


class _Maf(_builders.VectorBuilder, skip_registration=True):
    """A data set in the archive of Papamakarios et al. 2017, prepared as in their paper.

    The archive (about 860 MB, downloaded once for the four data sets) is
    https://zenodo.org/records/1161203/files/data.tar.gz. A copy in manual_dir replaces the
    download, and so do unpacked files such as `manual_dir/data/power/data.npy`. The archive's
    checksum is checked wherever it came from; unpacked files have no checksum.

    Raises:
      OSError: If the archive cannot be downloaded. The message says which file to put where.
      ValueError: If the files are not the published ones.
    """

    FILES: tuple[str, ...] | None = None
    HOMEPAGE = "https://doi.org/10.5281/zenodo.1161203"
    CITATION = _CITATION
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{_URL}, or its unpacked folder `data`; needed only offline."

    def _split_generators(self, dl_manager):
        files = _read_files(dl_manager, self.FILES)
        train, validation, test = self._split(*files)
        return {
            "train": self._generate_examples(train),
            "validation": self._generate_examples(validation),
            "test": self._generate_examples(test),
        }

    def _split(self, *files):
        """Returns the vectors of train, validation and test from the open files."""
        raise NotImplementedError


class Power(_Maf):
    """TFDS builder "power": `vector` float32 `[6]`, the power consumption of a household.

    Each measurement gets uniform noise as wide as its rounding, drawn once, as published. Vectors
    are then scaled so that train and validation together have mean 0 and standard deviation 1.
    Densities are in units of these deviations, like the published ones.
    """

    NUM_FEATURES = 6
    FILES = ("power/data.npy",)
    DESCRIPTION = "Electric power consumption of a household (UCI), as in Papamakarios et al. 2017."

    def _split(self, file):
        rng = np.random.RandomState(42)
        data = _load_array(file, self.name)
        rng.shuffle(data)
        # Drop the reactive power and the global intensity.
        data = np.delete(data, [1, 3], axis=1)
        voltage = 0.01 * rng.rand(len(data), 1)
        active_power = 0.001 * rng.rand(len(data), 1)
        sub_metering = rng.rand(len(data), 3)
        time = np.zeros([len(data), 1])
        data = data + np.hstack([active_power, voltage, sub_metering, time])
        return _standardised(*_last_tenths(data))


class Gas(_Maf):
    """TFDS builder "gas": `vector` float32 `[8]`, gas sensors in mixtures of ethylene and CO.

    Of sensors whose correlation exceeds 0.98, one is kept. The whole data set is scaled to mean 0
    and standard deviation 1, as published.

    The archive contains a pickled data frame. The unpickler admits only the classes of a data
    frame, so a file of unknown origin cannot run code.

    Raises:
      ImportError: If pandas is missing or cannot read the pickle, which pandas 0.x wrote.
      ValueError: If the pickle refers to anything but a data frame of numbers.
    """

    NUM_FEATURES = 8
    FILES = ("gas/ethylene_CO.pickle",)
    DESCRIPTION = "Gas sensors in gas mixtures (UCI), as in Papamakarios et al. 2017."

    def _split(self, file):
        frame = _read_frame(file, self.FILES[0])
        try:
            data = frame.drop(columns=["Meth", "Eth", "Time"]).to_numpy(np.float64)
        except (AttributeError, KeyError) as error:
            raise ValueError(
                f"{self.FILES[0]} of the data set 'gas' has no columns Meth, Eth and Time."
            ) from error
        while (repeated := np.sum(np.corrcoef(data, rowvar=False) > 0.98, axis=1) > 1).any():
            data = np.delete(data, np.argmax(repeated), axis=1)
        return _last_tenths((data - data.mean(axis=0)) / data.std(axis=0, ddof=1))


class Hepmass(_Maf):
    """TFDS builder "hepmass": `vector` float32 `[21]`, particle collisions of mass 1000.

    Only examples of the signal are kept, without the features whose smallest value occurs more
    than five times. They are scaled so that train and validation together have mean 0 and
    standard deviation 1.
    """

    NUM_FEATURES = 21
    FILES = ("hepmass/1000_train.csv", "hepmass/1000_test.csv")
    DESCRIPTION = "HEPMASS (UCI), particles of mass 1000, as in Papamakarios et al. 2017."

    def _split(self, train_file, test_file):
        # Rows of the test file end in an extra number.
        num_columns = len(train_file.readline().split(b","))
        test_file.readline()
        try:
            train, test = (
                np.loadtxt(file, delimiter=",", usecols=range(num_columns))
                for file in (train_file, test_file)
            )
        except ValueError as error:
            raise ValueError(f"A .csv file of the data set 'hepmass': {error}.") from error
        train, test = (data[data[:, 0] == 1, 1:] for data in (train, test))
        mean, deviation = train.mean(axis=0), train.std(axis=0, ddof=1)
        train, test = (train - mean) / deviation, (test - mean) / deviation
        continuous = np.sum(train == train.min(axis=0), axis=0) <= 5
        train, test = train[:, continuous], test[:, continuous]
        return *_last_tenth(train), test


class Miniboone(_Maf):
    """TFDS builder "miniboone": `vector` float32 `[43]`, electron and muon neutrinos.

    Vectors are scaled so that train and validation together have mean 0 and standard deviation 1.
    """

    NUM_FEATURES = 43
    FILES = ("miniboone/data.npy",)
    DESCRIPTION = "MiniBooNE particle identification (UCI), as in Papamakarios et al. 2017."

    def _split(self, file):
        return _standardised(*_last_tenths(_load_array(file, self.name)))


def _read_files(dl_manager, names):
    """Returns open files of these names, from manual_dir or from the archive."""
    folder = _builders.manual_dir(dl_manager) / "data"
    paths = [folder / name for name in names]
    if all(path.exists() for path in paths):
        return [io.BytesIO(path.read_bytes()) for path in paths]
    unpacked = f", or unpacked: {' and '.join(str(path) for path in paths)}"
    archive_path = _builders.fetch(dl_manager, _URL, _MD5, unpacked)
    contents = {}
    try:
        with tarfile.open(archive_path) as archive:
            for member in archive:
                # Two parts of the path, for it may start with "data" or "./data".
                name = "/".join(pathlib.PurePosixPath(member.name).parts[-2:])
                if name in names:
                    contents[name] = archive.extractfile(member).read()
                if len(contents) == len(names):
                    break
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ValueError(
            f"{archive_path} is no whole archive ({error}). Replace or delete it."
        ) from error
    if missing := [name for name in names if name not in contents]:
        raise ValueError(f"The archive {archive_path} has no {' and no '.join(missing)}.")
    return [io.BytesIO(contents[name]) for name in names]


class _NotAFrameError(ValueError):
    """A pickle refers to something that is not part of a data frame."""


def _read_frame(file, name):
    """Returns the pandas data frame in a pickle without running anything from it."""
    try:
        import pandas
        from pandas.compat import pickle_compat
    except ImportError as error:
        raise ImportError(
            "The data set 'gas' is a pickled pandas data frame, and pandas is not "
            'installed: pip install "pandas<3".'
        ) from error

    class FrameUnpickler(pickle_compat.Unpickler):
        """Finds classes where pandas has moved them, and admits only those of a data frame."""

        def find_class(self, module, attribute):
            place = module
            for other, usual in _OTHER_PLACES.items():
                if f"{module}.".startswith(f"{other}."):
                    place = module.replace(other, usual, 1)
            if attribute not in _CLASSES_OF_A_FRAME.get(place, ()):
                raise _NotAFrameError(
                    f"{name} of the data set 'gas' is not the published file: it refers to "
                    f"{module}.{attribute}, which no data frame of numbers does. It was not run."
                )
            return super().find_class(module, attribute)

    try:
        # Python 2 wrote the published file, and its strings are bytes.
        return FrameUnpickler(file, encoding="latin-1").load()
    except _NotAFrameError:
        raise
    except Exception as error:
        raise ImportError(
            f"{name} of the data set 'gas' cannot be read by pandas {pandas.__version__} "
            f"({error}). pandas 0.x wrote the published file, which pandas 2 still reads: "
            'pip install "pandas<3".'
        ) from error


def _load_array(file, name):
    """Returns the matrix in a .npy file."""
    try:
        data = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"The file of data set {name!r} is no .npy file: {error}.") from error
    if data.ndim != 2:
        raise ValueError(f"The file of data set {name!r} has an array of shape {data.shape}.")
    return data


def _last_tenth(data):
    """Splits off the last tenth of `data`."""
    size = int(0.1 * len(data))
    if size == 0:
        raise ValueError(f"{len(data)} examples are too few to split off a tenth.")
    return data[:-size], data[-size:]


def _last_tenths(data):
    """Splits into train, validation (the last tenth of the rest) and test (the last tenth)."""
    rest, test = _last_tenth(data)
    return *_last_tenth(rest), test


def _standardised(train, validation, test):
    """Scales all three by the mean and the standard deviation of train and validation."""
    known = np.vstack([train, validation])
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    return [(data - mean) / deviation for data in (train, validation, test)]
