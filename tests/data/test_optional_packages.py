"""What works without optional packages, and errors that name them."""

import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("sklearn.datasets")

from tfp_invconv.data import images as images_module  # noqa: E402
from tfp_invconv.data import load_images  # noqa: E402


def test_digits_without_scikit_learn(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "tfp_invconv\[datasets\]"'):
        load_images("digits", data_dir=tmp_path)


def run_program(program, **kwargs):
    """What a Python program prints that imports the package from where these tests do."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=pathlib.Path(images_module.__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **kwargs,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_import_needs_no_optional_package():
    # Blocked, not looked for in sys.modules: Keras itself imports the last two if it can.
    printed = run_program("""
import sys
for name in ("tensorflow_datasets", "sklearn", "matplotlib"):
    sys.modules[name] = None
import tfp_invconv.data
for name in ("digits", "mnist"):
    try:
        tfp_invconv.data.load_images(name)
    except ImportError as error:
        print(error)
""")
    about_digits, about_mnist = printed.splitlines()
    assert "scikit-learn, which cannot be imported" in about_digits
    assert 'pip install "tfp_invconv[datasets]"' in about_digits
    assert "load_images needs tensorflow_datasets, which is not installed" in about_mnist
    assert 'pip install "tfp_invconv[datasets]"' in about_mnist


# Like TFDS, these packages catch what goes wrong in their own import.
BROKEN_TFDS = """
try:
    from tensorflow_datasets.public_api import *
except Exception:
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault, remedy",
    [
        (
            "RuntimeError('Detected incompatible Protobuf Gencode/Runtime versions')",
            "pip install tensorflow-metadata==1.17.2, then restart Python.",
        ),
        (
            "ImportError(\"cannot import name 'runtime_version' from 'google.protobuf'\")",
            "pip install tensorflow-metadata==1.17.2, then restart Python.",
        ),
        ("ImportError(\"No module named 'etils'\")", 'pip install "tfp_invconv[datasets]"'),
    ],
)
def test_a_broken_tfds_is_named_at_every_try(tmp_path, fault, remedy):
    for name, content in {
        "tensorflow_datasets/__init__.py": BROKEN_TFDS,
        "tensorflow_datasets/public_api.py": f"raise {fault}",
        "tensorflow_metadata/__init__.py": "",
        "tensorflow_metadata/proto.py": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    printed = run_program(f"""
import sys
sys.path.insert(0, r"{tmp_path}")
import tensorflow_datasets  # as a user's own program may
from tfp_invconv import data
assert len(data.load_images()) == 24
def from_builders(_):
    from tfp_invconv.data import maf
for load in (data.load_images, data.load_images, data.load_vectors, from_builders):
    try:
        load("cifar10")
    except ImportError as error:
        print(error)
""")
    messages = printed.splitlines()
    assert [message.split()[0] for message in messages] == [
        "load_images",
        "load_images",
        "load_vectors",
        "tfp_invconv.data",
    ]
    for message in messages:
        assert "needs tensorflow_datasets, which cannot be imported (" in message
        assert remedy in message
