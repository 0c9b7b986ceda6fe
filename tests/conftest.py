"""Adds up what tests have counted and prints it below their results."""

import collections
import contextlib
import ctypes
import gc
import os

import pytest

# Programs run once or twice here: what it takes to compile them well is not earned back.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


def pytest_terminal_summary(terminalreporter):
    counts = collections.Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for what, count in report.user_properties:
                    counts[what] += count
    if counts:
        words = ", ".join(f"{count} {what}" for what, count in counts.items())
        terminalreporter.write_line(f"Tried: {words}.")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the examples in docstrings that train for seconds as slow."""
    for item in items:
        if item.name.endswith((".Backup", ".SampleImages")):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def _spare_the_collector():
    """What is left of a module's tests, millions of objects in all, is not searched ever again."""
    yield
    gc.collect()
    gc.freeze()
    # glibc keeps freed memory unless told to return it: some 300 MB after a few trainings.
    trim = getattr(ctypes.pythonapi, "malloc_trim", None)
    if trim:
        trim(0)


@pytest.fixture
def refused(record_property):
    """`pytest.raises` that counts."""

    @contextlib.contextmanager
    def raises(*args, **kwargs):
        with pytest.raises(*args, **kwargs) as caught:
            yield caught
        record_property("bad arguments refused", 1)

    return raises
