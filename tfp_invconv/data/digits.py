"""The 8x8 digits of scikit-learn as a TFDS data set that needs no download."""

import contextlib
import io

import numpy as np
import tensorflow_datasets as tfds

from tfp_invconv.data import _builders

__all__ = ["Digits"]

_NUM_TRAIN = 1500

_DESCRIPTION = """\
1,797 grey scans of handwritten digits, 8x8 pixels with values 0 to 16: the test
part of the UCI "Optical Recognition of Handwritten Digits" data, in the copy that
scikit-learn ships. `train` is the first 1,500 scans in the order of that file and
`test` the last 297; both keep the order.
"""

_CITATION = """\
@misc{alpaydin1998optical,
  author = {Alpaydin, Ethem and Kaynak, Cenk},
  title = {Optical Recognition of Handwritten Digits},
  year = {1998},
  publisher = {UCI Machine Learning Repository},
  doi = {10.24432/C50P49},
}
"""


class Digits(_builders.Builder):
    """TFDS builder "digits": `image` uint8 `[8, 8, 1]` in 0..16, `label` in 0..9.

    Importing this module registers the name, so that `tfds.load("digits")` works too.
    The data are generated from the installed scikit-learn in about a second, without
    a network.

    Raises:
      ImportError: If the data must be generated and scikit-learn is not installed.

    #### Examples

    >>> import tempfile
    >>> from tfp_invconv.data.digits import Digits
    >>> with tempfile.TemporaryDirectory() as data_dir:
    ...     digits = Digits(data_dir=data_dir)
    ...     digits.download_and_prepare()
    ...     print({name: info.num_examples for name, info in digits.info.splits.items()})
    {'train': 1500, 'test': 297}
    """

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
            citation=_CITATION,
            disable_shuffling=True,
        )

    def download_and_prepare(self, **kwargs):
        """As in TFDS, without its announcement of a download: there is none."""
        with contextlib.redirect_stdout(io.StringIO()):
            super().download_and_prepare(**kwargs)

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        try:
            from sklearn import datasets
        except ImportError as error:
            raise ImportError(
                "The data set 'digits' is made from the copy in scikit-learn, which is not "
                'installed: pip install "tfp_invconv[datasets]".'
            ) from error
        scans = datasets.load_digits()
        images = scans.images.astype(np.uint8)[..., np.newaxis]
        return {
            "train": self._generate_examples(images[:_NUM_TRAIN], scans.target[:_NUM_TRAIN]),
            "test": self._generate_examples(images[_NUM_TRAIN:], scans.target[_NUM_TRAIN:]),
        }

    def _generate_examples(self, images, labels):
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": image, "label": int(label)}
