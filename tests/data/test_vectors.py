"""The data sets of vectors and silhouettes, made of small files of the published form."""

import hashlib
import io
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic

tfds = pytest.importorskip("tensorflow_datasets")
pandas = pytest.importorskip("pandas")
scipy_io = pytest.importorskip("scipy.io")

from tfp_invconv.data import (  # noqa: E402
    _builders,
    bsds300_patches,
    caltech101_silhouettes,
    load_images,
    load_vectors,
    maf,
)

tfd = tfp.distributions
NUM_ROWS = 200


class TicVectors(_builders.VectorBuilder):
    NUM_FEATURES = 3

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(rows(50)),
            "test": self._generate_examples(rows(7)),
        }


class TicRace(TicVectors):
    """While it is made, another process makes it."""

    is_first = True

    def _split_generators(self, dl_manager):
        if TicRace.is_first:
            TicRace.is_first = False
            TicRace(data_dir=self.data_dir_root).download_and_prepare()
        return super()._split_generators(dl_manager)


class TicDoubles(_builders.Builder):
    FEATURES = {"vector": tfds.features.Tensor(shape=(4,), dtype=np.float64)}
    _split_generators = _generate_examples = None  # it is refused before

    def _info(self):
        features = tfds.features.FeaturesDict(self.FEATURES)
        return tfds.core.DatasetInfo(builder=self, features=features)


class TicMatrices(TicDoubles):
    FEATURES = {"vector": tfds.features.Tensor(shape=(4, 4), dtype=np.float32)}


class TicLengths(TicDoubles):
    FEATURES = {"vector": tfds.features.Tensor(shape=(None,), dtype=np.float32)}


def rows(count):
    return np.arange(3.0 * count).reshape(count, 3)


def values(dataset):
    return np.concatenate([batch.numpy() for batch in dataset])


def stored(name, data_dir, splits=("train", "validation", "test")):
    """What a data set has, in its order."""
    load_vectors(name, splits[0], data_dir=data_dir)  # makes it
    loaded = tfds.load(name, split=list(splits), data_dir=data_dir, batch_size=-1)
    return [part["vector"].numpy() for part in loaded]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    # Several files for a split.
    config = tfds.download.DownloadConfig(num_shards=3)
    TicVectors(data_dir=folder).download_and_prepare(download_config=config)
    return folder


# Batches.


def test_batches_have_static_shapes_and_keep_the_last(data_dir):
    dataset = load_vectors("tic_vectors", "train", 20, data_dir=data_dir)
    assert dataset.element_spec == tf.TensorSpec([None, 3], tf.float32)
    assert int(dataset.cardinality()) == 3
    assert [len(batch) for batch in dataset] == [20, 20, 10]


def test_train_is_shuffled_anew_and_test_keeps_its_order(data_dir):
    dataset = load_vectors("tic_vectors", "train", 20, data_dir=data_dir)
    first, second = values(dataset), values(dataset)
    for epoch in (first, second):
        assert (epoch != rows(50)).any()
        np.testing.assert_array_equal(epoch[np.argsort(epoch[:, 0])], rows(50))
    assert (first != second).any()
    # From anywhere to anywhere: a third of 50 places on the mean.
    assert 11 < np.mean(abs(first[:, 0] / 3 - np.arange(50))) < 23
    test = load_vectors("tic_vectors", "test", 2, data_dir=data_dir)
    np.testing.assert_array_equal(values(test), rows(7))


def test_parts_of_a_split(data_dir):
    part = load_vectors("tic_vectors", "test[2:5]", data_dir=data_dir)
    np.testing.assert_array_equal(values(part), rows(7)[2:5])
    part = values(load_vectors("tic_vectors", "train[30%:]", data_dir=data_dir))
    np.testing.assert_array_equal(np.sort(part[:, 0]), rows(50)[15:, 0])


def test_seed_decides_the_order(data_dir):
    def epoch(seed):
        return values(load_vectors("tic_vectors", data_dir=data_dir, seed=seed))

    np.testing.assert_array_equal(epoch(1), epoch(1))
    assert (epoch(1) != epoch(2)).any()


@pytest.mark.parametrize(
    "error, words, arguments",
    [
        (ValueError, "unknown data set 'POWERS'; similar names: .*power", ["POWERS"]),
        (ValueError, "'digits' has no feature 'vector'.*it has image, label", ["digits"]),
        (TypeError, "vectors of dtype .*float64.*needs float32", ["tic_doubles"]),
        (ValueError, r"vectors of shape \(4, 4\).*static shape \[N\]", ["tic_matrices"]),
        (ValueError, r"vectors of shape \(None,\).*static shape \[N\]", ["tic_lengths"]),
        (ValueError, "'valid' of data set 'tic_vectors' .*'test': 7", ["tic_vectors", "valid"]),
        (
            ValueError,
            r"'test\[:0\]' of data set .*empty.*at least one",
            ["tic_vectors", "test[:0]"],
        ),
        (
            ValueError,
            r"'test\[6:3\]' of data set .*empty.*at least one",
            ["tic_vectors", "test[6:3]"],
        ),
        (TypeError, "name must be a string, got None", [None]),
        (TypeError, "split must be a string, got 3", ["tic_vectors", 3]),
        (ValueError, "batch_size must be at least 1, got 0", ["tic_vectors", "train", 0]),
        (TypeError, "batch_size must be an integer, got 2.5", ["tic_vectors", "train", 2.5]),
    ],
)
def test_errors(data_dir, error, words, arguments):
    with pytest.raises(error, match="load_vectors: .*" + words):
        load_vectors(*arguments, data_dir=data_dir)


def test_seed_must_be_an_integer(data_dir):
    with pytest.raises(TypeError, match="load_vectors: seed must be an integer, got None"):
        load_vectors("tic_vectors", data_dir=data_dir, seed=None)


# POWER, GAS, HEPMASS, MINIBOONE.


def power():
    """Files of the published form, and what the published recipe makes of them."""
    data = np.random.default_rng(0).normal(size=[NUM_ROWS, 8])
    rng = np.random.RandomState(42)
    expected = data[rng.permutation(NUM_ROWS)][:, [0, 2, 4, 5, 6, 7]]
    expected[:, 1] += 0.01 * rng.rand(NUM_ROWS)
    expected[:, 0] += 0.001 * rng.rand(NUM_ROWS)
    expected[:, 2:5] += rng.rand(NUM_ROWS, 3)
    known = expected[:180]
    return {"power/data.npy": npy(data)}, (expected - known.mean(axis=0)) / known.std(axis=0)


def miniboone():
    data = np.random.default_rng(0).uniform(5, 9, size=[NUM_ROWS, 43])
    known = data[:180]
    expected = (data - known.mean(axis=0)) / known.std(axis=0)
    return {"miniboone/data.npy": npy(data)}, expected


def gas():
    """Each second of 16 sensors repeats the one before it, so that one goes."""
    rng = np.random.default_rng(0)
    sensors = rng.normal(3, 2, size=[NUM_ROWS, 8]).repeat(2, axis=1)
    sensors[:, 1::2] += 0.01 * rng.normal(size=[NUM_ROWS, 8])
    frame = pandas.DataFrame({"Time": rng.normal(size=NUM_ROWS), "Meth": 0.0, "Eth": 1.0})
    for index, sensor in enumerate(sensors.T):
        frame[f"R{index}"] = sensor
    file = io.BytesIO()
    frame.to_pickle(file)
    kept = sensors[:, 1::2]
    expected = (kept - kept.mean(axis=0)) / kept.std(axis=0, ddof=1)
    return {"gas/ethylene_CO.pickle": file.getvalue()}, expected


def hepmass():
    """27 features, six of them discrete; a row of the test file has one number more."""
    rng = np.random.default_rng(0)
    train, test = rng.normal(4, 3, size=[300, 28]), rng.normal(4, 3, size=[40, 29])
    for data, num_signals in ((train, 180), (test, 20)):
        data[:, 0] = rng.permutation(len(data)) < num_signals
        data[:, [2, 5, 9, 13, 17, 27]] = rng.integers(0, 3, size=[len(data), 6])
    signal_rows = np.flatnonzero(train[:, 0])
    # As often as a continuous feature may repeat its smallest value.
    train[signal_rows[:5], 1] = -50.0
    # A discrete one whose smallest value is just too frequent.
    train[:, 2] = 7.0 + rng.uniform(size=300)
    train[signal_rows[:6], 2] = 6.0
    kept = np.setdiff1d(np.arange(1, 28), [2, 5, 9, 13, 17, 27])
    known = train[train[:, 0] == 1][:, kept]
    expected = np.concatenate([known, test[test[:, 0] == 1][:, kept]])
    expected = (expected - known.mean(axis=0)) / known.std(axis=0, ddof=1)
    files = {"hepmass/1000_train.csv": csv(train), "hepmass/1000_test.csv": csv(test)}
    return files, expected


def npy(data):
    file = io.BytesIO()
    np.save(file, data)
    return file.getvalue()


def csv(data):
    file = io.BytesIO()
    header = ",".join(["# label", *(f"f{index}" for index in range(data.shape[1] - 1))])
    np.savetxt(file, data, delimiter=",", header=header, comments="")
    return file.getvalue()


def put(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def put_archive(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "recipe, sizes",
    [(power, [162, 18, 20]), (gas, [162, 18, 20]), (hepmass, [162, 18, 20])]
    + [(miniboone, [162, 18, 20])],
)
def test_published_preparation(tmp_path, recipe, sizes):
    files, expected = recipe()
    put(tmp_path / "downloads" / "manual" / "data", files)
    parts = stored(recipe.__name__, tmp_path)
    assert [len(part) for part in parts] == sizes
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-5, atol=1e-5)


def test_archive_is_downloaded_once_for_all_and_checked(tmp_path, monkeypatch):
    files = {**power()[0], **miniboone()[0]}
    # As tar on a Mac writes it.
    members = {f"./data/{name}": content for name, content in files.items()}
    members = {"./data/power/._data.npy": b"", **members}
    source = tmp_path / "source" / "data.tar.gz"
    checksum = put_archive(source, members)
    monkeypatch.setattr(maf, "_URL", source.as_uri())
    monkeypatch.setattr(maf, "_MD5", "0" * 32)
    with pytest.raises(OSError, match=f"its MD5 is {checksum}, but should be 000.*put it at "):
        load_vectors("power", data_dir=tmp_path)
    assert list((tmp_path / "downloads" / "tfp_invconv").iterdir()) == []

    monkeypatch.setattr(maf, "_MD5", checksum)
    # What a killed download left.
    put(tmp_path / "downloads" / "tfp_invconv", {"data.tar.gz.part": b"half" * 10**5})
    np.testing.assert_allclose(np.concatenate(stored("power", tmp_path)), power()[1], atol=1e-5)
    source.unlink()
    assert len(stored("miniboone", tmp_path)[0]) == 162
    assert [path.name for path in (tmp_path / "downloads" / "tfp_invconv").iterdir()] == [
        "data.tar.gz"
    ]


def test_impossible_download_says_which_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(maf, "_URL", (tmp_path / "none" / "data.tar.gz").as_uri())
    manual_dir = tmp_path / "downloads" / "manual"
    with pytest.raises(OSError, match="load_vectors: data set 'hepmass'") as caught:
        load_vectors("hepmass", data_dir=tmp_path)
    message = str(caught.value)
    assert f"put it at {manual_dir / 'data.tar.gz'} (MD5 {maf._MD5})" in message
    for name in ("1000_train.csv", "1000_test.csv"):
        assert str(manual_dir / "data" / "hepmass" / name) in message
    # And so it is.
    put_archive(manual_dir / "data.tar.gz", {f"data/{n}": c for n, c in hepmass()[0].items()})
    assert len(values(load_vectors("hepmass", data_dir=tmp_path))) == 162


@pytest.mark.parametrize(
    "name, files, words",
    [
        ("power", {"data/power/data.npy": b"?"}, "data set 'power' is no .npy file"),
        (
            "power",
            {"data/power/data.npy": npy(np.ones(9))},
            r"'power' has an array of shape \(9,\)",
        ),
        ("power", {"data/power/data.npy": npy(np.ones([5, 8]))}, "5 examples are too few"),
        ("miniboone", {"data/miniboone/data.npy": npy(rows(50))}, "give 3 numbers .*must be 43"),
        ("miniboone", {"data/miniboone/data.npy": npy(np.full([50, 43], np.nan))}, "not finite"),
        ("gas", {"data/gas/ethylene_CO.pickle": b"?"}, r'pip install "pandas<3"'),
        (
            "power",
            {"data.tar.gz": b"?"},
            r"(?s)data.tar.gz is no whole archive .*Replace or delete",
        ),
        ("bsds300_patches", {"BSDS300-images.tgz": b"?"}, "images.tgz is no whole archive"),
        (
            "caltech101_silhouettes",
            {"caltech101_silhouettes_28_split1.mat": b"?"},
            "no MATLAB file",
        ),
    ],
)
def test_wrong_files(tmp_path, name, files, words):
    put(tmp_path / "downloads" / "manual", files)
    builder = tfds.builder(name, data_dir=tmp_path)
    with pytest.raises((ValueError, ImportError), match=words):
        builder.download_and_prepare()


def test_truncated_archive_and_one_without_the_file(tmp_path):
    path = tmp_path / "downloads" / "manual" / "data.tar.gz"
    put_archive(path, {"data/miniboone/data.npy": npy(rows(50))})
    with pytest.raises(ValueError, match="data.tar.gz has no power/data.npy"):
        load_vectors("power", data_dir=tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="data.tar.gz is no whole archive"):
        load_vectors("miniboone", data_dir=tmp_path)


def test_killed_preparation_leaves_nothing_half_made(tmp_path):
    put(tmp_path / "downloads" / "manual" / "data", miniboone()[0])
    program = """
import sys, time
from tfp_invconv.data import _builders, load_vectors
whole = _builders.VectorBuilder._generate_examples
def half(self, vectors):
    for index, example in enumerate(whole(self, vectors)):
        if index == 100:
            print("half", flush=True)
            time.sleep(60)
        yield example
_builders.VectorBuilder._generate_examples = half
load_vectors("miniboone", data_dir=sys.argv[1])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert any(line == "half\n" for line in process.stdout)
    process.kill()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    (leftover,) = (tmp_path / "miniboone").iterdir()
    assert leftover.name.startswith("incomplete.")

    parts = stored("miniboone", tmp_path)
    np.testing.assert_allclose(np.concatenate(parts), miniboone()[1], rtol=1e-5, atol=1e-5)
    assert [path.name for path in (tmp_path / "miniboone").iterdir()] == ["1.0.0"]


def test_two_processes_may_make_one_data_set(tmp_path):
    np.testing.assert_array_equal(
        values(load_vectors("tic_race", "test", data_dir=tmp_path)), rows(7)
    )
    assert [path.name for path in (tmp_path / "tic_race").iterdir()] == ["1.0.0"]


# BSDS300.


class Bsds300Gray(_builders.Builder, skip_registration=True):
    """Random 9x9 images, in no order, whose numbers sort differently as strings."""

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 1), dtype=np.uint8),
        }
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split):
        numbered = list(enumerate(grey_images(split)))
        for number, image in numbered[1::2] + numbered[::2]:
            yield number, {"id": str(number), "image": image[..., np.newaxis]}


def grey_images(split):
    rng = np.random.default_rng(["train", "test"].index(split))
    return rng.integers(0, 256, size=[20 if split == "train" else 3, 9, 9], dtype=np.uint8)


@pytest.fixture
def small_bsds(monkeypatch):
    monkeypatch.setattr(bsds300_patches, "_NUM_IMAGES", {"train": 20, "test": 3})
    counts = {"train": 1000, "validation": 100, "test": 200}
    monkeypatch.setattr(bsds300_patches, "_NUM_PATCHES", counts)


def test_patches_follow_the_recipe(tmp_path, small_bsds):
    Bsds300Gray(data_dir=tmp_path).download_and_prepare()
    parts = stored("bsds300_patches", tmp_path)
    assert [part.shape for part in parts] == [(1000, 63), (100, 63), (200, 63)]
    train, test = grey_images("train"), grey_images("test")
    is_validation = np.arange(20) % 10 == 0
    for vectors, images in zip(
        parts, (train[~is_validation], train[is_validation], test), strict=True
    ):
        patches = np.lib.stride_tricks.sliding_window_view(images, (1, 8, 8)).reshape(-1, 64)
        # The last pixel is minus the sum of the others.
        pixels = 256 * np.append(vectors, -vectors.sum(axis=1, keepdims=True), axis=1)
        spread = np.ptp(pixels[:, np.newaxis] - patches.astype(np.float32), axis=2)
        # Each is one patch and noise in [0, 1), and every place in every image occurs.
        assert ((spread < 1).sum(axis=1) == 1).all()
        assert (spread < 1).any(axis=0).all()
        noise = pixels - patches[np.argmin(spread, axis=1)]
        np.testing.assert_allclose(noise.var(axis=1).mean(), 63 / 64 / 12, rtol=0.05)


def test_patches_of_the_archive(tmp_path, small_bsds):
    """Of images of one colour each, whose luma is known."""
    colours = {f"BSDS300/images/train/{n}.jpg": [10 * n, 255 - 10 * n, n] for n in range(20)}
    colours |= {f"BSDS300/images/test/{n}.jpg": [n, 0, 200] for n in (30, 4, 100)}
    members = {
        name: tf.io.encode_jpeg(np.full([9, 12, 3], colour, np.uint8), quality=100).numpy()
        for name, colour in reversed(colours.items())
    }
    members["BSDS300/iids_train.txt"] = b"0\n"
    path = tmp_path / "downloads" / "manual" / "BSDS300-images.tgz"
    put_archive(path, members)
    assert len(values(load_vectors("bsds300_patches", "test", data_dir=tmp_path))) == 200
    images = bsds300_patches._archived_images(path)
    assert [len(images[split]) for split in ("train", "test")] == [20, 3]
    expected = [np.dot(colour, [0.299, 0.587, 0.114]) for colour in list(colours.values())[:20]]
    np.testing.assert_allclose([image[4, 4] for image in images["train"]], expected, atol=2)
    np.testing.assert_allclose([image[4, 4] for image in images["test"]], [24, 32, 53], atol=2)
    assert images["train"][0].shape == (9, 12)

    put_archive(path, dict(list(members.items())[1:]))
    builder = tfds.builder("bsds300_patches", data_dir=tmp_path / "other")
    config = tfds.download.DownloadConfig(manual_dir=path.parent)
    with pytest.raises(ValueError, match="has 3 images in 'test', but there are 2"):
        builder.download_and_prepare(download_config=config)


def test_density_is_in_units_of_the_vectors():
    """Images of one grey leave the noise, whose Gaussian is known in closed form."""
    vectors = bsds300_patches._vectors([np.full([9, 9], 7, np.uint8)], 20_000, seed=0)
    vectors = vectors.astype(np.float64)
    # The covariance (I - 1/64) / 12 / 256**2 has 63 times log 256 in its determinant.
    expected = 63 * np.log(256) + np.log(8) - 63 / 2 * np.log(2 * np.pi * np.e / 12)

    def gaussian(x):
        factor = np.linalg.cholesky(np.cov(x, rowvar=False))
        return tfd.MultivariateNormalTriL(x.mean(axis=0), factor)

    by_gaussian = tf.reduce_mean(gaussian(vectors).log_prob(vectors))
    np.testing.assert_allclose(by_gaussian, expected, atol=0.1)
    # A flow that divides by the deviations first says the same of the same vectors.
    deviation = vectors.std(axis=0)
    scaling = tic.ActNorm(np.zeros(63), -np.log(deviation))
    flow = tfd.TransformedDistribution(gaussian(vectors / deviation), scaling)
    by_flow = tf.reduce_mean(flow.log_prob(vectors))
    np.testing.assert_allclose(by_flow, by_gaussian, rtol=1e-9)


# Silhouettes and binarised MNIST.


def test_silhouettes(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, size=[6, 28, 28], dtype=np.uint8)
    labels = np.array([[1], [101], [7], [8], [9], [10]], np.uint8)
    arrays = {}
    for key, part in (("train", np.s_[:3]), ("val", np.s_[3:4]), ("test", np.s_[4:])):
        # As MATLAB flattens images.
        arrays[f"{key}_data"] = images[part].transpose(0, 2, 1).reshape(-1, 784)
        arrays[f"{key}_labels"] = labels[part]
    source = tmp_path / "source" / "silhouettes.mat"
    source.parent.mkdir()
    scipy_io.savemat(source, arrays)
    monkeypatch.setattr(caltech101_silhouettes, "_URL", source.as_uri())
    checksum = hashlib.md5(source.read_bytes()).hexdigest()
    monkeypatch.setattr(caltech101_silhouettes, "_MD5", checksum)
    parts = {"train+test": [0, 1, 2, 4, 5], "validation": [3], "test": [4, 5]}
    for split, indices in parts.items():
        dataset = load_images(
            "caltech101_silhouettes", split, data_dir=tmp_path, with_labels=True, seed=1
        )
        pixels, classes = dataset.unbatch().batch(10).get_single_element()
        order = np.argsort(classes)
        np.testing.assert_array_equal(np.sort(labels[indices, 0]), classes.numpy()[order] + 1)
        expected = images[indices][np.argsort(labels[indices, 0])]
        np.testing.assert_array_equal(np.floor(pixels.numpy())[order, ..., 0], expected)

    scipy_io.savemat(source, {"train_data": arrays["train_data"]})
    put(tmp_path / "downloads" / "manual", {"silhouettes.mat": source.read_bytes()})
    builder = tfds.builder("caltech101_silhouettes", data_dir=tmp_path / "other")
    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "downloads" / "manual")
    with pytest.raises(ValueError, match="is not the file of the silhouettes: it needs train_data"):
        builder.download_and_prepare(download_config=config)


def test_binarised_mnist_names_its_files_where_there_is_no_network(tmp_path, monkeypatch):
    def fail(self):
        raise OSError("no network")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(OSError, match="'binarized_mnist' cannot be .*: no network") as caught:
        load_images("binarized_mnist", data_dir=tmp_path)
    for part in ("train", "valid", "test"):
        name = f"binarized_mnist_{part}.amat"
        assert f"/{name} as {tmp_path / 'downloads' / 'manual' / name}" in str(caught.value)
