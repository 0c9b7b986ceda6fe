"""Runs the examples as commands, in this process or in one of their own."""

import ast
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    """Imports an example as a module."""
    for folder in (EXAMPLES / "benchmarks", EXAMPLES / "papers", EXAMPLES):
        monkeypatch.syspath_prepend(folder)
    return importlib.import_module


@pytest.fixture
def run_example(example, monkeypatch):
    """Runs an example in this process, as a command with these arguments."""

    def run(name, *arguments):
        module = example(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        # What follows `if __name__ == "__main__"`, with the names of the module.
        last = ast.parse(inspect.getsource(module)).body[-1]
        exec(compile(ast.Module(last.body, []), module.__file__, "exec"), vars(module))

    return run


@pytest.fixture
def end_of(run_example):
    """Runs an example that ends by itself, and returns its exit code or last words."""

    def end_of(name, *arguments):
        with pytest.raises(SystemExit) as end:
            run_example(name, *arguments)
        return end.value.code

    return end_of


@pytest.fixture
def start():
    """Starts an example in a process of its own."""

    def start(script, *arguments):
        return subprocess.Popen(
            [sys.executable, "-u", EXAMPLES / script, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "COLUMNS": "80"},
        )

    return start
