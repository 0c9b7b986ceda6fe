"""What the benchmarks report of the times that they measure, with stand-ins for the timing."""

import argparse
import contextlib
import json
import math
import multiprocessing
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfp_invconv as tic

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"


def figures(ms):
    return {"ms": ms, "quartiles": [ms, ms], "mb": 0.0}


def values(rows, key="value"):
    return {row["name"]: row[key] for row in rows}


def test_layers_are_timed_beside_a_convolution_of_their_size(example, monkeypatch):
    module, milliseconds = example("layers"), {"conv2d 3x3": 2.0, "conv2d 1x1": 1.0}
    for layer, ms in (("EmergingConv", 6.0), ("HouseholderQR1x1", 5.0), ("PeriodicConv", 4.0)):
        for factor, direction in enumerate(module.DIRECTIONS, 1):
            milliseconds[f"{layer}, {direction}"] = factor * ms
            milliseconds[f"{layer}, {direction}, with gradients"] = 3 * factor * ms
    monkeypatch.setattr(
        module,
        "in_turn",
        lambda calls, repeats: {name: figures(milliseconds[name]) for name in calls},
    )
    names = ["EmergingConv", "HouseholderQR1x1", "PeriodicConv"]
    rows = module.run(argparse.Namespace(shapes=["2x4x4x48"], layers=names, repeats=1))
    found = {k: v for k, v in values(rows).items() if not k.startswith(" ")}
    to_latent, to_data = module.DIRECTIONS
    assert found == {
        "conv2d 3x3": None,
        "conv2d 1x1": None,
        f"EmergingConv, {to_latent}": 3.0,
        f"EmergingConv, {to_data}": 6.0,
        f"HouseholderQR1x1, {to_latent}": 5.0,
        f"HouseholderQR1x1, {to_data}": 10.0,
        f"PeriodicConv, {to_latent}": 2.0,
        f"PeriodicConv, {to_data}": 4.0,
    }
    assert [row["value"] for row in rows if row["name"].startswith(" ")] == [3.0] * 6
    targets = values(rows, "target")
    assert targets[f"EmergingConv, {to_data}"] == 5.0
    assert targets[f"PeriodicConv, {to_data}"] == 6.0  # of 48 channels and more


@pytest.mark.slow
@pytest.mark.parametrize("shape, peer", [("2x9x4", "conv1d 3"), ("2x3x4x4x4", "conv3d 3x3x3")])
def test_signals_and_volumes_are_timed_beside_convolutions_of_their_axes(
    example, monkeypatch, shape, peer
):
    module = example("layers")
    # Each call runs once: a convolution of another rank would raise an error.
    monkeypatch.setattr(
        module,
        "in_turn",
        lambda calls, _: {n: (call(), figures(1.0))[1] for n, call in calls.items()},
    )
    arguments = argparse.Namespace(shapes=[shape], layers=["EmergingConv"], repeats=1)
    rows = module.run(arguments)
    assert rows[0]["name"] == peer
    assert {row["target"] for row in rows if row["name"].startswith("Emerging")} == {None}


@pytest.mark.slow
def test_both_directions_of_a_layer_and_all_their_gradients(example):
    conv = tic.EmergingConv.trainable([3, 4, 2], seed=0)
    calls = example("layers").both_directions(conv, [5, 3, 4, 2])
    x = tf.random.stateless_normal([5, 3, 4, 2], [0, 0])
    for (value, with_gradients), function in zip(
        calls.values(), (conv.inverse, conv.forward), strict=True
    ):
        np.testing.assert_allclose(value()[0], function(x), rtol=1e-4, atol=1e-5)
        again, gradients = with_gradients()
        np.testing.assert_allclose(again, function(tf.identity(x)), rtol=1e-4, atol=1e-5)
        assert len(gradients) == 1 + len(conv.trainable_variables)


def test_the_growth_is_the_exponent_of_large_images(example, monkeypatch):
    module = example("growth")
    milliseconds = {16: 7.0, 32: 20.0, 64: 30.0, 128: 200.0, 256: 400.0}

    def both_directions(conv, shape):
        count, height, width, channels = shape
        assert (count, channels) == (4, 12) and height == width
        return {"latent to data": [milliseconds[height], float(height**3)]}

    monkeypatch.setattr(module, "both_directions", both_directions)
    monkeypatch.setattr(
        module, "in_turn", lambda calls, repeats: {name: figures(ms) for name, ms in calls.items()}
    )
    *rows, exponent = module.run(argparse.Namespace(repeats=1))
    assert [row["side"] for row in rows[::2]] == list(milliseconds)
    # From 32 on, without the times with gradients.
    sides, ms = np.log([item for item in milliseconds.items() if item[0] >= 32]).T
    np.testing.assert_allclose(exponent["value"], np.polyfit(sides, ms, 1)[0], rtol=1e-6)


def test_flows_are_compared_job_by_job(example):
    module = example("flows")
    ours, plain, inverse = (
        f"tfp_invconv {conv}" for conv in ("emerging", "1x1", "emerging-inverse")
    )
    milliseconds = {"networks alone": 10.0, ours: 12.0, plain: 8.0, inverse: 6.0}
    milliseconds |= {"tfb.Glow": 16.0, "normflows Glow": 24.0}
    times = {
        (flow, job): figures(ms * factor)
        for flow, ms in milliseconds.items()
        for job, factor in zip(module.JOBS, (1, 3, 2), strict=True)
    }
    args = argparse.Namespace(event_shape="4x4x1", levels=1, depth=1, width=4, batch_size=2)
    rows = module.show_flows(args, list(milliseconds), times)
    found = {row["name"]: (row["value"], row["target"]) for row in rows if "unit" in row}
    expected = {}
    for peer, ratio, target in (
        ("tfb.Glow", 0.75, None),
        ("normflows Glow", 0.5, 0.8),
        (plain, 1.5, 1.1),
    ):
        expected |= {f"{ours}, {job} / {peer}, {job}": (ratio, target) for job in module.JOBS}
    for job in ("log_prob", "training step"):
        expected[f"{ours}, {job} / networks alone, {job}"] = 1.2, 1.45
    expected[f"{ours}, sample / {ours}, log_prob"] = 2.0, 1.15
    expected[f"{inverse}, sample / {plain}, sample"] = 0.75, 1.1
    expected[f"{inverse}, log_prob / {ours}, log_prob"] = 0.5, 1.3
    assert found == expected


@pytest.mark.slow
def test_the_jobs_of_a_flow(example, monkeypatch):
    glow, kinds = tic.glow, []
    monkeypatch.setattr(
        tic, "glow", lambda *args, **kw: kinds.append(kw["conv"]) or glow(*args, **kw)
    )
    size = dict(event_shape="4x4x1", levels=1, depth=1, width=4, batch_size=3)
    jobs = example("flows").tensorflow_flows(argparse.Namespace(**size))
    assert kinds == ["emerging", "1x1", "emerging-inverse"]
    del jobs["networks alone"]
    for calls in jobs.values():
        before = calls["log_prob"]().numpy()
        assert calls["sample"]().shape == [3, 4, 4, 1]
        calls["training step"]()
        assert before.shape == (3,) and np.any(calls["log_prob"]() != before)


@pytest.mark.slow
def test_networks_alone_are_those_of_a_flow(example, monkeypatch):
    conv_net, made = tic.networks.conv_net, []

    def recorded(shape, channels, **options):
        made.append([*shape, channels, options["width"]])
        return conv_net(shape, channels, **options)

    size = dict(levels=2, depth=1, width=4)
    tic.glow([8, 4, 1], network=recorded, **size)
    of_flow, made[:] = sorted(made), []
    monkeypatch.setattr(tic.networks, "conv_net", recorded)
    args = argparse.Namespace(event_shape="8x4x1", batch_size=3, **size)
    jobs = example("flows").networks_alone(args)
    assert sorted(made) == of_flow
    outputs, gradients = jobs["log_prob"](), jobs["training step"]()
    assert sorted([*y.shape] for y in outputs) == sorted([3, *n[:2], n[3]] for n in of_flow)
    # Of the input, and of two parameters in each of three layers.
    assert [len(g) for g in gradients] == [7] * len(outputs)
    assert all(gradient is not None for g in gradients for gradient in g)


class Alone:
    """A pool of this process itself, which answers by the function's name and what it is given."""

    def __init__(self, answers):
        self.answers = answers

    def get_context(self, method):
        return self

    def Pool(self, count, **options):  # noqa: N802
        return contextlib.nullcontext(self)

    def apply(self, function, arguments):
        return self.answers[function.__name__](*arguments)


def test_first_calls_are_compared_with_those_of_the_first_depth(example, monkeypatch):
    module = example("start")

    def start_up(args, depth):
        assert args.batch_size == 16
        return {"first sample": (depth / 2, "s", 6.0), "variables": (4 * depth, "", None)}

    def loops_and_unrolled(args):
        return {"sample": {"unrolled": figures(4.0), "in a loop": figures(6.0)}}

    answers = {"start_up": start_up, "loops_and_unrolled": loops_and_unrolled}
    monkeypatch.setattr(multiprocessing, "get_context", Alone(answers).get_context)
    size = dict(event_shape="4x4x1", levels=1, depth=1, width=4, batch_size=None)
    rows = module.run(argparse.Namespace(depths=[2, 3, 6], **size))
    found = [(row["name"], row["value"], row["target"], row.get("depth")) for row in rows]
    assert found == [
        ("first sample", 1.0, 6.0, 2),
        ("variables", 8, None, 2),
        ("first sample", 1.5, 6.0, 3),
        ("variables", 12, None, 3),
        ("first sample, depth 3 / 2", 1.5, 1.25, None),
        ("first sample", 3.0, 6.0, 6),
        ("variables", 24, None, 6),
        ("first sample, depth 6 / 2", 3.0, 1.25, None),
        ("sample, unrolled", 1.0, None, None),
        ("sample, in a loop", 1.5, 1.05, None),
    ]


def test_steps_in_a_loop_are_timed_beside_the_same_unrolled(example, monkeypatch):
    module, made = example("start"), []

    class Model:
        def __init__(self, options):
            made.append(options)

        compile = initialize = train_on_batch = sample = lambda *args, **kwargs: None

    monkeypatch.setattr(tic, "glow", lambda *args, width, seed, **options: options)
    monkeypatch.setattr(tic, "FlowModel", Model)
    monkeypatch.setattr(module, "in_turn", lambda calls, repeats: list(calls))
    size = dict(event_shape="4x4x1", levels=1, depth=1, width=4, batch_size=2, repeats=1)
    assert module.loops_and_unrolled(argparse.Namespace(**size)) == {
        "training step": ["unrolled", "in a loop", "in a loop, recomputed"],
        "sample": ["unrolled", "in a loop"],
    }
    assert made == [{"unroll": True}, {}, {"remat": True}]


@pytest.fixture(name="command")
def fixture_command(example, monkeypatch):
    """Runs the benchmarks as a command, each part being its name and one target met or missed."""
    for i, part in enumerate(("layers", "flows", "growth", "start")):
        row = {"name": part, "value": 1.0 + i, "target": 3.5}
        monkeypatch.setattr(example(part), "run", lambda args, row=row: [row])
    monkeypatch.setattr(example("timing"), "set_threads", lambda args: None)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
        runpy.run_path(BENCHMARKS / "__main__.py", run_name="__main__")

    return run


def test_the_command_runs_all_parts_and_counts_the_targets_that_are_met(command, tmp_path, capsys):
    command("--json", tmp_path / "times.json")
    assert "3 of 4 targets met" in capsys.readouterr().out
    results = json.loads((tmp_path / "times.json").read_text())
    assert {part: row["name"] for part, (row,) in results.items()} == {
        part: part for part in ("layers", "flows", "growth", "start")
    }
    command("growth", "layers", "--json", tmp_path / "times.json")
    assert "2 of 2 targets met" in capsys.readouterr().out
    assert list(json.loads((tmp_path / "times.json").read_text())) == ["growth", "layers"]
    with pytest.raises(SystemExit) as end:
        command("growth", "layer")
    assert end.value.code == 2


def test_calls_are_timed_in_turn_and_their_own_memory_is_counted(example):
    timing, order = example("timing"), []
    calls = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    assert list(timing.in_turn(calls, repeats=3)) == ["a", "b"]
    # A warm-up and a look at the memory each, and the repeats.
    assert order == ["a"] * 2 + ["b"] * 2 + 3 * ["a", "b"]
    taken = timing.megabytes(lambda: np.ones([64, 2**20], np.uint8))
    assert math.isnan(taken) or 50 < taken < 200
    args = argparse.Namespace(batch_size=None, width=4)
    assert timing.with_batch_size(args, 16) == argparse.Namespace(batch_size=16, width=4)
    args.batch_size = 8
    assert timing.with_batch_size(args, 16).batch_size == 8
