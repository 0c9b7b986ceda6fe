"""POWER, GAS, HEPMASS and MINIBOONE, made of small files of the published form."""

import io
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import put, put_archive, stored, values

tfds = pytest.importorskip("tensorflow_datasets")
pandas = pytest.importorskip("pandas")

from tfp_invconv.data import load_vectors, maf  # noqa: E402

NUM_ROWS = 200


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
        (
            "miniboone",
            {"data/miniboone/data.npy": npy(np.arange(150.0).reshape(50, 3))},
            "give 3 numbers .*must be 43",
        ),
        ("miniboone", {"data/miniboone/data.npy": npy(np.full([50, 43], np.nan))}, "not finite"),
        ("gas", {"data/gas/ethylene_CO.pickle": b"?"}, r'pip install "pandas<3"'),
        (
            "power",
            {"data.tar.gz": b"?"},
            r"(?s)data.tar.gz is no whole archive .*Replace or delete",
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
    put_archive(path, {"data/miniboone/data.npy": npy(np.arange(150.0).reshape(50, 3))})
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
