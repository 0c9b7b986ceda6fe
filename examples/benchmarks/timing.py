"""How the benchmarks time a call, and how they print a figure beside its target."""

import argparse
import ctypes
import os
import time
from pathlib import Path

import numpy as np


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def megabytes(call):
    """The most memory that a call takes beyond what the process has; nothing but on Linux."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return float("nan")

    def read(key):
        (line,) = (line for line in status.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) / 1024

    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls left unused counts too
    reset.write_text("5")  # the peak starts anew
    before = read("VmRSS")
    call()
    return read("VmHWM") - before


def in_turn(calls, repeats):
    """Times calls in turn, after a warm-up: {name: {"ms": ..., "quartiles": ..., "mb": ...}}."""
    memory = {}
    for name, call in calls.items():
        call()
        memory[name] = megabytes(call)
    times = [{name: seconds(call) for name, call in calls.items()} for _ in range(repeats)]
    return {name: summary([t[name] for t in times], memory[name]) for name in calls}


def summary(times, memory):
    first, median, third = 1e3 * np.percentile(times, [25, 50, 75])
    return {"ms": median, "quartiles": [first, third], "mb": memory}


def show(name, figures, peer=None, target=None):
    """Prints one line and returns what it says."""
    ratio = None if peer is None else figures["ms"] / peer["ms"]
    first, third = figures["quartiles"]
    line = f"{name:<52}{figures['ms']:9.2f} ms  ({first:.2f} - {third:.2f})".ljust(88)
    line += f"{figures['mb']:7.0f} MB"
    if ratio is not None:
        line += f"   ratio {ratio:5.2f}"
    print(line + verdict(ratio, target), flush=True)
    return {"name": name, **figures, "value": ratio, "target": target}


def claim(name, value, unit, target):
    """Prints one figure that is no time of a call."""
    print(f"{name:<52}{value:9.2f} {unit}{verdict(value, target)}", flush=True)
    return {"name": name, "value": value, "unit": unit, "target": target}


def verdict(value, target):
    if target is None:
        return ""
    return f"   target {target:g}: {'met' if value <= target else 'MISSED'}"


def with_batch_size(args, default):
    return argparse.Namespace(**vars(args) | {"batch_size": args.batch_size or default})


def event_shape(args):
    return [int(n) for n in args.event_shape.split("x")]


def set_threads(args):
    """Before the framework of this process starts: how many threads it gets."""
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = str(args.threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
