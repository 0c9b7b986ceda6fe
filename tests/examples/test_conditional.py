"""Images given images: what is given, and the figures of the flows."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_datasets")

import tfp_invconv as tic  # noqa: E402


def holes_of(seen):
    """First and last row, and first and last column, of the hole in each mask `[n, H, W]`."""
    places = [np.argwhere(mask == 0) for mask in seen]
    return np.array([[*p.min(0), *p.max(0)] for p in places])[:, [0, 2, 1, 3]]


def test_holes_are_rectangles_of_all_sizes_and_places(example):
    images = 1.0 + np.random.default_rng(0).integers(0, 16, [600, 8, 12, 1]).astype(np.float32)
    given, seen = np.split(example("train_conditional").cut(images, [0, 1]).numpy(), 2, -1)
    assert set(np.unique(seen)) == {0.0, 1.0}
    np.testing.assert_array_equal(given, np.where(seen == 1, images, 0))
    holes = holes_of(seen[..., 0])
    heights, widths = holes[:, 1] - holes[:, 0] + 1, holes[:, 3] - holes[:, 2] + 1
    # All of a rectangle is hidden, and nothing else.
    np.testing.assert_array_equal(np.sum(seen == 0, (1, 2, 3)), heights * widths)
    assert set(heights) == {4, 5, 6} and set(widths) == {6, 7, 8, 9}
    assert (holes[:, 0].min(), holes[:, 1].max()) == (0, 7)
    assert (holes[:, 2].min(), holes[:, 3].max()) == (0, 11)
    assert abs(np.corrcoef(heights, widths)[0, 1]) < 0.15


@pytest.mark.parametrize(
    "task, factor, shape", [("super-resolution", 4, [2, 3, 3]), ("inpainting", 2, [8, 12, 4])]
)
def test_what_is_given_does_not_tell_the_noise(example, task, factor, shape):
    condition_of, rng = example("train_conditional").condition_of, np.random.default_rng(0)
    pixels = rng.integers(0, 256, [5, 8, 12, 3]).astype(np.float32)
    noise = rng.uniform(size=pixels.shape).astype(np.float32)
    given = condition_of(pixels + noise, task, factor, [0, 1]).numpy()
    assert list(given.shape[1:]) == shape
    np.testing.assert_array_equal(given, condition_of(pixels, task, factor, [0, 1]))
    if task == "super-resolution":
        np.testing.assert_allclose(given, pixels.reshape(5, 2, 4, 3, 4, 3).mean((2, 4)), rtol=1e-6)


@pytest.mark.parametrize("task", ["super-resolution", "inpainting"])
def test_pairs_are_new_in_each_epoch_and_repeat_from_run_to_run(example, task):
    args = example("argparse").Namespace(dataset="digits", data_dir=None, levels=1, factor=2)
    load = example("train_conditional").load

    def epochs(split):
        keras.utils.set_random_seed(7)
        data = load(args, task, split, 100, 7)
        return [[np.concatenate(part) for part in zip(*data, strict=True)] for _ in range(2)]

    first, again = epochs("train[:20%]"), epochs("train[:20%]")
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert np.any(first[0][1] != first[1][1])
    (images, given), (images_again, given_again) = epochs("test")
    np.testing.assert_array_equal(images, images_again)
    np.testing.assert_array_equal(given, given_again)
    # Each condition is that of its image, in batches of their own holes.
    if task == "inpainting":
        pixels, seen = np.floor(images), given[..., 1:]
        np.testing.assert_array_equal(given[..., :1], pixels * seen)
        assert len(np.unique(seen[..., 0], axis=0)) > 80


def test_the_error_of_what_is_given(example):
    error_of_given = example("train_conditional").error_of_given
    samples = np.array([[3.9, 5.2], [300.0, -7.0]], np.float32)[None, ..., None]
    # Whole numbers from 0 to 16: 3, 5, 16 and 0, whose mean is 6.
    small = np.full([1, 1, 1, 1], 4.5, np.float32)
    assert error_of_given(samples, small, "super-resolution", 2, 16) == pytest.approx(1.5)
    given = np.array([[5.0, 0.0], [16.0, 0.0]], np.float32)
    seen = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    masked = np.stack([given, seen], -1)[None]
    assert error_of_given(samples, masked, "inpainting", 2, 16) == pytest.approx(2.0**0.5)


def test_a_row_has_the_bits_saved_with_the_same_seed(example):
    module = example("train_conditional")
    common = {"parameters": 7, "training_seconds": 1.0, "diverged": False}
    common |= {"samples_not_finite": 1, "samples_far_out": 0}
    runs = {
        task: {
            seed: {**common, "task": task, "seed": seed, "test_bits_per_dim": b}
            for seed, b in enumerate(bits)
        }
        for task, bits in (("alone", (3.0, 3.3)), ("inpainting", (2.0, 2.1)))
    }
    for run in runs["inpainting"].values():
        run |= {"error_of_given": 0.25, "error_of_given_of_others": 4.0}
    rows = [
        example("experiment").table_row(
            task, list(module.with_savings(of_task, runs["alone"]).values()), module.figures
        )
        for task, of_task in runs.items()
    ]
    assert rows == [
        "| alone | 7 | 1 | 3.150 ± 0.212 |  | 2 | 0 |  |  |",
        "| inpainting | 7 | 1 | 2.050 ± 0.071 | 1.100 ± 0.141 | 2 | 0 | 0.25 | 4.00 |",
    ]
    # Without a flow of the image alone to compare with.
    (run,) = module.with_savings({0: runs["inpainting"][0]}, {}).values()
    assert "saved" not in run


@pytest.mark.slow
def test_figures_of_images_given_images(example, run_example, tmp_path, capsys):
    small = "--levels 1 --depth 1 --width 4 --dropout 0 --epochs 2 --batch-size 100 --seeds 3"
    out = tmp_path / "runs"
    tasks = ("super-resolution", "inpainting")
    run_example("train_conditional", *tasks, *small.split(), "--out", out)
    results = json.loads((tmp_path / "runs.json").read_text())
    printed = capsys.readouterr().out

    module = example("train_conditional")
    x = np.concatenate(list(tic.data.load_images("digits", "test", 500)))
    pixels = np.floor(x)
    conditions = {
        "alone": None,
        "super-resolution": pixels.reshape(-1, 4, 2, 4, 2, 1).mean((2, 4)),
        "inpainting": module.cut(pixels, tf.constant([0, 1], tf.int64)).numpy(),
    }
    bits = {}
    for task, given in conditions.items():
        found, options = results[f"{task}/3"], {}
        if given is not None:
            options = {"conditional": list(given.shape[1:]), "conditional_prior": True}
        model = tic.FlowModel(tic.glow([8, 8, 1], 1, 1, width=4, **options))
        model.load_weights(out / task / "3" / "model.weights.h5")
        kwargs = {} if given is None else {"bijector_kwargs": {"condition": given}}
        of_each = -model.distribution.log_prob(x, **kwargs).numpy() / (64 * np.log(2))
        bits[task] = of_each.mean()
        np.testing.assert_allclose(found["test_bits_per_dim"], bits[task], rtol=1e-4)
        error = of_each.std() / 297**0.5
        np.testing.assert_allclose(found["test_bits_per_dim_standard_error"], error, rtol=1e-3)
        samples = model.sample([3, 297], condition=given, seed=3).numpy()
        assert (found["samples"], found["samples_not_finite"]) == (3 * 297, 0)
        far_out = np.any(np.abs(samples) > 3 * 17, (2, 3, 4)).sum()
        assert found["samples_far_out"] == far_out
        if given is None:
            continue
        samples = np.clip(np.floor(samples), 0, 16)
        for name, of in (("", given), ("_of_others", np.roll(given, 1, 0))):
            if task == "inpainting":
                error = (of[..., 1:] * (samples - of[..., :1])) ** 2
                error = np.sqrt(error.sum() / (3 * of[..., 1:].sum()))
            else:
                error = samples.reshape(3, 297, 4, 2, 4, 2, 1).mean((3, 5)) - of
                error = np.sqrt(np.mean(error**2))
            np.testing.assert_allclose(found[f"error_of_given{name}"], error, rtol=1e-3)
        row = next(line for line in printed.splitlines() if line.startswith(f"| {task} |"))
        saved = float(row.split("|")[5])
        np.testing.assert_allclose(saved, bits["alone"] - bits[task], atol=1e-3)
        picture = tf.io.decode_png((out / task / "3" / "samples.png").read_bytes())
        assert picture.shape[0] > 100 and len(np.unique(picture)) > 16
