"""scikit-learn's 8x8 digits: the image data set that needs no download and no TFDS."""

import re

import numpy as np
import tensorflow as tf

__all__ = ["Digits"]

_SPLITS = {"train": range(1500), "test": range(1500, 1797), "all": range(1797)}

_BOUND = r"(-?[\d_.]+)?(%?)"
_PART = re.compile(rf"([\w-]+)(?:\[{_BOUND}:{_BOUND}\])?")


class Digits:
    """1,797 grey scans of handwritten digits, 8x8 pixels from 0 to 16.

    They are the test part of the UCI data set "Optical Recognition of Handwritten Digits"
    (Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49), in the copy that scikit-learn
    ships. "train" is the first 1,500 scans of that file, "test" the last 297, both in its order.
    """

    shape = (8, 8, 1)
    split_sizes = {name: len(indices) for name, indices in _SPLITS.items()}

    def prepare(self):
        """Loads all scans.

        Raises:
          ImportError: If scikit-learn cannot be imported.
        """
        try:
            from sklearn import datasets
        except ImportError as error:
            raise ImportError(
                "load_images takes the data set 'digits' from scikit-learn, which cannot be "
                f'imported ({error}): pip install "tfp_invconv[datasets]".'
            ) from error
        scans = datasets.load_digits()
        self._images = scans.images.astype(np.uint8)[..., np.newaxis]
        self._labels = scans.target.astype(np.int32)

    def read(self, split):
        """Returns pairs of a uint8 image and its int32 label."""
        indices = _indices(split)
        return tf.data.Dataset.from_tensor_slices((self._images[indices], self._labels[indices]))


def _indices(split):
    """Returns the indices of a split, in TFDS's syntax, such as "train[:50%]+test[-10:]"."""
    parts = [_part_indices(part) for part in re.split(r"\s*\+\s*", split)]
    return np.concatenate(parts).astype(int)


def _part_indices(part):
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError(f"{part!r} is neither a split nor a slice of one, such as 'train[:100]'")
    name, start, start_unit, stop, stop_unit = match.groups()
    if name not in _SPLITS:
        raise ValueError(f"unknown split {name!r}")
    indices = _SPLITS[name]
    # A percent sign at one bound counts for both.
    in_percent = start_unit or stop_unit
    bounds = [
        bound and (round(float(bound) * len(indices) / 100) if in_percent else int(bound))
        for bound in (start, stop)
    ]
    if any(abs(bound or 0) > len(indices) for bound in bounds):
        raise ValueError(f"{name!r} has only {len(indices)} examples")
    return indices[slice(*bounds)]
