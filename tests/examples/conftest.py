"""Runs the examples as commands, in this process."""

import ast
import importlib
import inspect
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
