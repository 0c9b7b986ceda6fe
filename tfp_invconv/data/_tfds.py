"""Shared by the loaders: import TFDS, find and prepare a data set, with clear errors."""

import difflib
import importlib
import importlib.util
import numbers
import os
import random
import sys

_IMPORT_REMEDY = 'Try pip install "tfp_invconv[datasets]", then restart Python.'
# Beside TensorFlow 2.18 to 2.20, as on Colab, protobuf may be older than 1.21 needs.
_PROTOBUF_REMEDY = (
    "The installed tensorflow-metadata is too new for the installed protobuf: pip install "
    "tensorflow-metadata==1.17.2, then restart Python."
)


def check_arguments(caller, strings, integers):
    """Checks the types of arguments, and that integers other than the seed are positive."""
    for argument, value in strings.items():
        if not isinstance(value, str):
            raise TypeError(f"{caller}: {argument} must be a string, got {value!r}.")
    for argument, value in integers.items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise TypeError(f"{caller}: {argument} must be an integer, got {value!r}.")
        if argument != "seed" and value < 1:
            raise ValueError(f"{caller}: {argument} must be at least 1, got {value}.")


def import_tfds(caller):
    """Imports TFDS. An error says what is wrong with it, at the first try and at any later one."""
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise ImportError(
            f"{caller} needs tensorflow_datasets, which is not installed: "
            'pip install "tfp_invconv[datasets]".'
        )
    try:
        # TFDS logs the errors of its own import and stays in sys.modules half made. Its parts
        # raise them, tensorflow-metadata before anything is logged.
        for module in ("tensorflow_metadata.proto", "tensorflow_datasets.public_api"):
            importlib.import_module(module)
    except Exception as error:
        remedy = _PROTOBUF_REMEDY if "protobuf" in str(error).lower() else _IMPORT_REMEDY
        raise ImportError(
            f"{caller} needs tensorflow_datasets, which cannot be imported ({error}). {remedy}"
        ) from error
    return sys.modules["tensorflow_datasets"]


def find_builder(tfds, name, data_dir, caller):
    """Returns the TFDS builder of this name. The error of an unknown name lists similar ones."""
    # Importing our builders registers them.
    from tfp_invconv.data import bsds300_patches, caltech101_silhouettes, maf

    del bsds300_patches, caltech101_silhouettes, maf
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        if data_dir is not None and os.path.isdir(data_dir):
            known += os.listdir(data_dir)
        base = name.partition("/")[0].partition(":")[0]
        similar = difflib.get_close_matches(base.lower(), sorted(set(known)), n=5)
        # TFDS's own error would list a thousand names.
        raise ValueError(
            f"{caller}: unknown data set {name!r}; similar names: "
            f"{', '.join(similar) or 'none'}. A data set that TFDS does not define must be "
            f"prepared in the directory given as data_dir, which was {data_dir!r}."
        ) from None
    except ValueError as error:
        raise ValueError(f"{caller}: cannot open data set {name!r}: {error}") from error


def find_feature(tfds, builder, feature, caller):
    """Returns the description of one feature of a data set."""
    features = builder.info.features
    names = list(features) if isinstance(features, tfds.features.FeaturesDict) else []
    if feature not in names:
        raise ValueError(
            f"{caller}: data set {builder.name!r} has no feature {feature!r}, which {caller} "
            f"needs; it has {', '.join(names) or 'no named features'}."
        )
    return features[feature]


def prepare(tfds, builder, name, data_dir, caller):
    """Prepares the data set if need be, and returns its builder."""
    state = random.getstate()
    try:
        # TFDS draws the name of its temporary folder from Python's generator. Two processes with
        # the same seed would share a folder, and the first to finish would rename it.
        random.seed()
        builder.download_and_prepare()
        return builder
    except Exception as error:
        if builder.data_path.exists():
            # Another process prepared the data set meanwhile.
            return find_builder(tfds, name, data_dir, caller)
        if not isinstance(error, OSError):
            raise
        manual_dir = builder.data_dir_root / "downloads" / "manual"
        files = [
            f" {url} as {manual_dir / info.filename}"
            for url, info in (builder.url_infos or {}).items()
            if info.filename
        ]
        wanted = f" If it is the network, put there by hand:{';'.join(files)}." if files else ""
        raise OSError(
            f"{caller}: data set {name!r} cannot be prepared in {builder.data_dir}: {error}{wanted}"
        ) from error
    finally:
        random.setstate(state)


def split_sizes(builder):
    """Returns the number of examples in each split."""
    return {name: info.num_examples for name, info in builder.info.splits.items()}


def split_error(name, sizes, split, error, caller):
    """Returns the error for a split that does not exist or is empty."""
    return ValueError(
        f"{caller}: cannot read split {split!r} of data set {name!r} ({error}); "
        f"{caller} needs at least one example, and the splits have {sizes}."
    )
