"""Installs tfp_invconv. Tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

DATASETS = [
    "tensorflow-datasets>=4.9.7",
    # TensorFlow Datasets 4.9.10 needs it to prepare a data set, but does not say so.
    "importlib_resources",
    "scikit-learn",
]
EXAMPLES = [*DATASETS, "matplotlib"]
DOCS = ["furo", "myst-nb", "sphinx", "sphinx-design"]
TEST = [
    *EXAMPLES,
    "hypothesis",
    "ipykernel",
    # Without it the progress bar of TensorFlow Datasets warns in a notebook.
    "ipywidgets",
    "mypy",
    "nbclient",
    # The data set GAS is a pickle of a data frame of a version that pandas 3 does not read.
    "pandas<3",
    "pytest",
    "pytest-xdist",
    "ruff>=0.17",
    "tensorboard",
]

setup(
    name="tfp_invconv",
    version="0.2.0",
    description="Invertible convolutions as TensorFlow Probability bijectors",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=[
        "normalizing flows",
        "invertible convolutions",
        "density estimation",
        "tensorflow probability",
        "bijectors",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["tfp_invconv", "tfp_invconv.*"]),
    package_data={"tfp_invconv": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        "h5py",
        # Earlier ones copy a tf.Variable that they are to hold.
        "keras>=3.10",
        "numpy",
        "tensorflow>=2.18",
        "tensorflow-probability[tf]>=0.25",
        # TensorFlow Probability imports distutils, which Python 3.12 left to setuptools.
        "setuptools; python_version >= '3.12'",
        # For `TypeAliasType`, which `typing` has from Python 3.12.
        "typing_extensions>=4.6",
    ],
    extras_require={
        "datasets": DATASETS,
        "examples": EXAMPLES,
        "docs": DOCS,
        "test": TEST,
        # Peers that examples/benchmarks measures beside ours, if they are there.
        "benchmark": ["normflows"],
    },
)
