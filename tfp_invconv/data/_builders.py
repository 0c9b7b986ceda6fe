"""Shared by this package's TFDS builders: files by URL or by hand, vectors, no leftovers."""

import hashlib
import http.client
import secrets
import urllib.request

import numpy as np
from tqdm.auto import tqdm

from tfp_invconv.data._tfds import import_tfds

import_tfds("tfp_invconv.data")  # its errors say what is wrong with TFDS
import tensorflow_datasets as tfds  # noqa: E402

_BLOCK_BYTES = 2**20


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that removes the leftovers of a killed preparation of the same version."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}

    # TFDS 4.9.10 looks for checksums with importlib_resources, which it does not install. Ours
    # are in the code.
    url_infos = None

    def _post_download_and_prepare_hook(self):
        # TFDS prepares in a folder of this name and renames it in the end. A process that still
        # prepares the same data set could not rename its folder any more, so it loses nothing.
        for leftover in self.data_path.parent.glob(f"incomplete.*_{self.data_path.name}"):
            leftover.rmtree(missing_ok=True)


class VectorBuilder(Builder, skip_registration=True):
    """A builder with one feature, "vector", float32 `[NUM_FEATURES]`."""

    NUM_FEATURES: int | None = None
    DESCRIPTION: str | None = None
    HOMEPAGE: str | None = None
    CITATION: str | None = None

    def _info(self):
        vector = tfds.features.Tensor(shape=(self.NUM_FEATURES,), dtype=np.float32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict({"vector": vector}),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            disable_shuffling=True,
        )

    def _generate_examples(self, vectors):
        if vectors.shape[1] != self.NUM_FEATURES:
            raise ValueError(
                f"The files of data set {self.name!r} give {vectors.shape[1]} numbers for each "
                f"example; there must be {self.NUM_FEATURES}. They are not the published files."
            )
        if not np.isfinite(vectors).all():
            raise ValueError(
                f"The files of data set {self.name!r} give numbers that are not finite."
            )
        for index, vector in enumerate(vectors.astype(np.float32)):
            yield index, {"vector": vector}


def manual_dir(dl_manager):
    """Returns the folder for files put there by hand, which need not exist."""
    try:
        return dl_manager.manual_dir
    except AssertionError:  # the folder is missing or empty
        return dl_manager.download_dir / "manual"


def fetch(dl_manager, url, md5=None, alternative=""):
    """Returns the path of a file in manual_dir, downloaded earlier, or downloaded now.

    The checksum is checked wherever the file came from. A download gets its name only when it is
    complete.

    Args:
      dl_manager: The download manager of a TFDS builder.
      url: Where the file is.
      md5: Its published checksum, or None.
      alternative: Other files that may be put into manual_dir instead, for the error message.

    Raises:
      OSError: If the file cannot be downloaded.
      ValueError: If the file exists and has another checksum.
    """
    name = url.rpartition("/")[2]
    by_hand = manual_dir(dl_manager) / name
    # Several data sets share one archive, so it is not in the folder of one of them.
    downloaded = dl_manager.download_dir / "tfp_invconv" / name
    for path in (by_hand, downloaded):
        if path.exists():
            if fault := _checksum_fault(path, md5):
                raise ValueError(
                    f"{path} is not the published file: {fault}. Replace or delete it."
                )
            return path
    downloaded.parent.mkdir(parents=True, exist_ok=True)
    # Another process may download the same file.
    partial = downloaded.with_name(f"{name}.{secrets.token_hex(4)}.part")
    try:
        _download(url, partial, md5)
        partial.rename(downloaded)
    except (OSError, http.client.HTTPException) as error:
        partial.unlink(missing_ok=True)
        if downloaded.exists():  # another process was faster
            return downloaded
        checksum = f" (MD5 {md5})" if md5 else ""
        raise OSError(
            f"{url} cannot be downloaded: {error}. Download it by other means and put it at "
            f"{by_hand}{checksum}{alternative}, or anywhere else with the folder given as "
            "manual_dir in a tfds.download.DownloadConfig."
        ) from error
    for leftover in downloaded.parent.glob(f"{name}.*part"):
        leftover.unlink(missing_ok=True)
    return downloaded


def _download(url, path, md5):
    """Downloads a file. Without a network, TFDS's own download fails only after minutes."""
    size = 0
    with urllib.request.urlopen(url, timeout=60) as response, path.open("wb") as file:
        total = int(response.headers["Content-Length"] or 0)
        with tqdm.wrapattr(response, "read", total=total or None, desc=url) as body:
            while block := body.read(_BLOCK_BYTES):
                file.write(block)
                size += len(block)
    if total and size != total:
        raise OSError(f"the connection ended after {size} of {total} bytes")
    if fault := _checksum_fault(path, md5):
        raise OSError(fault)


def _checksum_fault(path, md5):
    """Says what is wrong with the checksum of a file, or returns None."""
    if md5 is None:
        return None
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    found = digest.hexdigest()
    return None if found == md5 else f"its MD5 is {found}, but should be {md5}"
