"""The Caltech 101 silhouettes, 28x28, as a TFDS data set."""

import numpy as np
import tensorflow_datasets as tfds

from tfp_invconv.data import _builders

__all__ = ["Caltech101Silhouettes"]

_URL = "https://people.cs.umass.edu/~marlin/data/caltech101_silhouettes_28_split1.mat"
_MD5 = "4483e9c14b188fd09937f9ea6f9ea777"

_DESCRIPTION = """\
Outlines of the objects in the images of Caltech 101, filled and scaled to 28x28 pixels that
are 0 or 1: 4,100 to train, 2,264 to validate and 2,307 to test.
"""

_CITATION = """\
@inproceedings{marlin2010inductive,
  author = {Marlin, Benjamin M. and Swersky, Kevin and Chen, Bo and de Freitas, Nando},
  title = {Inductive Principles for Restricted {Boltzmann} Machine Learning},
  booktitle = {AISTATS},
  year = {2010},
}
"""


class Caltech101Silhouettes(_builders.Builder):
    """TFDS builder "caltech101_silhouettes": `image` uint8 `[28, 28, 1]` 0 or 1, `label` 0..100.

    The splits are "train", "validation" and "test". Pixels are those of the authors' file,
    https://people.cs.umass.edu/~marlin/data/caltech101_silhouettes_28_split1.mat, or of a copy
    of it in manual_dir. Its checksum is checked in either case.

    Raises:
      OSError: If the file cannot be downloaded. The message says which file to put where.
      ValueError: If the file is not the published one.
      ImportError: If the data set must be prepared and scipy is not installed.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{_URL}; needed only offline."

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=101),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://people.cs.umass.edu/~marlin/data.shtml",
            citation=_CITATION,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        try:
            import scipy.io
        except ImportError as error:
            raise ImportError(
                "The data set 'caltech101_silhouettes' is a MATLAB file, and scipy is not "
                'installed: pip install "tfp_invconv[datasets]".'
            ) from error
        path = _builders.fetch(dl_manager, _URL, _MD5)
        with path.open("rb") as file:
            try:
                arrays = scipy.io.loadmat(file)
            except Exception as error:
                raise ValueError(f"{path} is no MATLAB file: {error}.") from error
        keys = {"train": "train", "validation": "val", "test": "test"}
        return {
            split: self._generate_examples(
                path, arrays.get(f"{key}_data"), arrays.get(f"{key}_labels")
            )
            for split, key in keys.items()
        }

    def _generate_examples(self, path, pixels, labels):
        if pixels is None or labels is None or pixels.shape != (labels.size, 28 * 28):
            raise ValueError(
                f"{path} is not the file of the silhouettes: it needs train_data, val_data and "
                "test_data of shape [N, 784], and train_labels and so on of shape [N, 1]."
            )
        # MATLAB goes down the columns of an image first.
        images = pixels.reshape(-1, 28, 28, 1).transpose(0, 2, 1, 3).astype(np.uint8)
        for index, (image, label) in enumerate(zip(images, labels.ravel(), strict=True)):
            yield index, {"image": image, "label": int(label) - 1}
