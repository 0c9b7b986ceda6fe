"""Runs examples/train_image_flow.py for the experiments that train many image flows."""

import json
import os
import subprocess
import sys
from pathlib import Path

from experiment import stop

SCRIPT = Path(__file__).parents[1] / "train_image_flow.py"


def log_scale_bound(text):
    """A number, or "sigmoid"."""
    return text if text == "sigmoid" else float(text)


def train(options, folder, data_dir):
    """Trains a flow in a process of its own, and returns its results.

    Args:
      options: a dict of the script's arguments.
      folder: of the run; the output goes into log.txt.
      data_dir: of TFDS, or None.
    """
    path, log = folder / "results.json", folder / "log.txt"
    given = {**options, "data_dir": data_dir, "out": folder}
    arguments = [
        f"--{key.replace('_', '-')}={value}" for key, value in given.items() if value is not None
    ]
    path.unlink(missing_ok=True)  # of a run that was interrupted
    with open(log, "w") as file:
        subprocess.run(
            [sys.executable, SCRIPT, *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "80"},
        )
    if not path.exists():
        words = log.read_text().splitlines() or ["it was killed"]
        stop(f"{words[-1]} (the whole output: {log})")
    return json.loads(path.read_text())
