"""POWER, GAS, HEPMASS and MINIBOONE, made of small files of the published form."""

import base64
import io
import os
import pickle
import signal
import subprocess
import sys
import zlib

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
    """Six pairs of sensors of correlation 0.985, of which one goes, and one pair of 0.975."""
    # Columns of mean 0, orthogonal to each other.
    basis = np.random.default_rng(0).normal(size=[NUM_ROWS, 14])
    basis, _ = np.linalg.qr(basis - basis.mean(axis=0))
    correlation = np.array([0.985] * 6 + [0.975])
    twins = correlation * basis[:, :7] + np.sqrt(1 - correlation**2) * basis[:, 7:]
    sensors = 3 + 20 * np.stack([basis[:, :7], twins], axis=2).reshape(NUM_ROWS, 14)
    rng = np.random.default_rng(1)
    frame = pandas.DataFrame({"Time": rng.normal(size=NUM_ROWS), "Meth": 0.0, "Eth": 1.0})
    for index, sensor in enumerate(sensors.T):
        frame[f"R{index}"] = sensor
    file = io.BytesIO()
    frame.to_pickle(file)
    kept = sensors[:, [1, 3, 5, 7, 9, 11, 12, 13]]
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
    assert [len(part) for part in maf._last_tenths(np.zeros([19, 1]))] == [17, 1, 1]


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
    members = {f"data/{name}": content for name, content in hepmass()[0].items()}
    monkeypatch.setattr(maf, "_MD5", put_archive(manual_dir / "data.tar.gz", members))
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
            "data.tar.gz is not the published file: its MD5 is .*, but should be .*Replace or",
        ),
    ],
)
def test_wrong_files(tmp_path, name, files, words):
    put(tmp_path / "downloads" / "manual", files)
    builder = tfds.builder(name, data_dir=tmp_path)
    with pytest.raises((ValueError, ImportError), match=words):
        builder.download_and_prepare()


def test_truncated_archive_and_one_without_the_file(tmp_path, monkeypatch):
    path = tmp_path / "downloads" / "manual" / "data.tar.gz"
    put_archive(path, {"data/miniboone/data.npy": npy(np.arange(150.0).reshape(50, 3))})
    # Whose checksum would be the published one.
    monkeypatch.setattr(maf, "_MD5", None)
    with pytest.raises(ValueError, match="data.tar.gz has no power/data.npy"):
        load_vectors("power", data_dir=tmp_path)
    for content in (path.read_bytes()[:200], b"?"):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match="(?s)data.tar.gz is no whole archive .*Replace or del"
        ):
            load_vectors("miniboone", data_dir=tmp_path)


@pytest.mark.parametrize("folder", ["manual", "tfp_invconv"])
def test_checksum_of_a_file_that_is_there(tmp_path, folder, monkeypatch):
    path = tmp_path / "downloads" / folder / "data.tar.gz"
    members = {f"data/{name}": content for name, content in power()[0].items()}
    checksum = put_archive(path, members)
    monkeypatch.setattr(maf, "_MD5", "0" * 32)
    words = f"{path} is not the published file: its MD5 is {checksum}, but should be 000"
    with pytest.raises(ValueError, match=words):
        load_vectors("power", data_dir=tmp_path)
    monkeypatch.setattr(maf, "_MD5", checksum)
    assert len(values(load_vectors("power", data_dir=tmp_path))) == 162


# Pickles.

# pandas.DataFrame({"Time": [0.0, 0.5], "Meth": [0, 0], "R0": [-50.25, 1e-3]}) as Python 2.7 and
# pandas 0.20 wrote it, in base 85 of its compression.
OLD_PICKLE = (
    "c-nQ6-EPw`6vvY^Eo(MdfwA#T83Q~%LJMObfHVmqq!G2C3SU-"
    "{lX`VToA$&GP>D!z(IFm%x8NCg0$zc8B(U8K)QX)8%R2s_zs~RYe6+$Li93Y5;UJ;zenR@xc}4_zu5Vzje*!Cm0>"
    "Wj#PX+17C$QU4#I`R+Lnz_0O6fW{hKs%y%uSg_v7kvzdfa*18-"
    "#BfBqm*&I8c_}4r;?Znvr+td&=E_aO(Imedq6~i~|ct%W}o>3{D_y>mC-vIPDKd6LCN7iHIZ#899DJ!$HhNl7_;8"
    "%0%TzU;PRvJ!6c`;ByO3A<y&*<6O{@v~nJ&vGsD>GdxoYmXKG#=7(mp`Qo<>eR#Vf_|k?mvWo^443@Fgs=*4jUq^"
    "C4XQ>FV9jjTLYo-S+IM4nMm5{hgot8Rtv<n$rM7YQWNd#Q-"
    "3~X~jhj7_5)on0@E1tzBrd8U8tB6(DKbBR+VtLj9lK}gN0M|6YlW71$0^q8lqPq9(*Vmul8^NnxV=8_~$|?Uf<!|"
    "Qx(V_qKBmFDJOo%`>eFL!tCjamzVvAGuNVh*`OLDa9h^;U+$ei}pq~`W)%^ls+q~<PLCVvZDn!!C>s=4(Iw+^)o>"
    "hiOQoI2cR^SBhK9p&(#4I3zfhX~L0yNNH895zGW57J1kQtbN<??s{9h%L1x8h0C)-jZG_jds{-"
    "n!zK)HrbY%g?@g_cGy}<Q!auuaQ^_d5+Gg"
)


def test_a_pickle_of_python_2_is_read():
    file = io.BytesIO(zlib.decompress(base64.b85decode(OLD_PICKLE)))
    frame = maf._read_frame(file, "old.pickle").sort_index(axis=1)
    expected = pandas.DataFrame({"Meth": [0, 0], "R0": [-50.25, 1e-3], "Time": [0.0, 0.5]})
    pandas.testing.assert_frame_equal(frame, expected)


class Call:
    """Unpickled, it is the result of a call."""

    def __init__(self, function, *args):
        self._call = function, args

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize(
    "name, make_call",
    [
        ("system", lambda path: Call(os.system, f"touch {path}")),
        ("eval", lambda path: Call(eval, f"__import__('os').mkdir({str(path)!r})")),
        ("getattr", lambda path: Call(getattr, pandas.DataFrame, "eval")),
        # pandas and NumPy themselves have what runs or writes something.
        ("memmap", lambda path: Call(np.memmap, str(path), "uint8", "w+", 0, 1)),
        ("to_pickle", lambda path: Call(pandas.to_pickle, 0, str(path))),
        ("DataFrame.eval", lambda path: Call(pandas.DataFrame.eval, pandas.DataFrame(), "1 + 1")),
    ],
)
@pytest.mark.parametrize("protocol, in_a_frame", [(2, False), (5, False), (5, True)])
def test_a_pickle_runs_nothing(tmp_path, name, make_call, protocol, in_a_frame):
    path = tmp_path / "written"
    call = make_call(path)
    content = pickle.dumps(pandas.DataFrame({"Time": [call]}) if in_a_frame else call, protocol)
    put(tmp_path / "downloads" / "manual" / "data" / "gas", {"ethylene_CO.pickle": content})
    # Protocol 2 takes a method by getattr.
    words = "getattr" if protocol == 2 and "." in name else name
    with pytest.raises(ValueError, match=rf"'gas' .* it refers to \S*\b{words}, .* not run"):
        load_vectors("gas", data_dir=tmp_path)
    assert not path.exists()
    # It would have run otherwise.
    pickle.loads(content)
    assert path.exists() == (name not in ("getattr", "DataFrame.eval"))


@pytest.mark.slow
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
