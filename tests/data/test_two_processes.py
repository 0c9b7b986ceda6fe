"""Two processes at one data set."""

import contextlib
import os
import random

import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets")

from tfp_invconv.data import _builders, load_vectors  # noqa: E402


class TicTwins(_builders.VectorBuilder):
    """While it is made, another process makes it, whose random numbers are the same."""

    NUM_FEATURES = 1
    is_first = True
    folders = set()

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(np.zeros([10, 1]))}

    def _generate_examples(self, vectors):
        self.folders.add(self.data_dir)
        for index, example in super()._generate_examples(vectors):
            if index == 5 and TicTwins.is_first:
                TicTwins.is_first = False
                self.other_process()
            yield index, example

    def other_process(self):
        random.seed(0)
        # Its folder is whole as soon as it is there.
        TicTwins.found = len(load_vectors("tic_twins", data_dir=self.data_dir_root))


def test_processes_with_one_seed_prepare_in_folders_of_their_own(tmp_path, record_property):
    random.seed(0)
    vectors = load_vectors("tic_twins", batch_size=20, data_dir=tmp_path)
    assert next(iter(vectors)).shape == [10, 1]
    assert TicTwins.found == 1
    assert len(TicTwins.folders) == 2
    assert [path.name for path in (tmp_path / "tic_twins").iterdir()] == ["1.0.0"]
    # And what is random after it does not depend on it.
    drawn = random.random()
    random.seed(0)
    load_vectors("tic_twins", data_dir=tmp_path)
    assert random.random() == drawn
    record_property("faults survived", 1)


class Killed(BaseException):
    """Stands for a kill, after which nothing is cleaned up."""


class Downloads:
    """What `fetch` asks of TFDS."""

    def __init__(self, folder):
        self.download_dir, self.manual_dir = folder / "downloads", folder / "manual"


@pytest.mark.parametrize("other_ends", [True, False], ids=["whole", "killed"])
def test_two_processes_download_one_file(tmp_path, monkeypatch, other_ends, record_property):
    content, downloads = bytes(range(200)), Downloads(tmp_path)
    others = iter([True])

    def download(url, path, md5):
        with path.open("wb") as file:
            file.write(content[:100])
            file.flush()
            if next(others, None):
                # The other process begins when this one is half done.
                with contextlib.suppress(Killed):
                    assert _builders.fetch(downloads, url).read_bytes() == content
            elif not other_ends:
                file.truncate(20)
                raise Killed
            file.write(content[100:])

    monkeypatch.setattr(_builders, "_download", download)
    path = _builders.fetch(downloads, "https://example.com/data.tar.gz")
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["data.tar.gz"]
    record_property("faults survived", 1)
