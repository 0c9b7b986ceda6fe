"""The mathematics of the papers' experiments, and their sampling times."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp


@pytest.mark.parametrize("model", ["realnvp", "glow", "conf", "spline", "sinh"])
def test_a_flow_starts_as_the_gaussian_in_the_units_of_the_data(example, model):
    """So its density integrates to one, in whatever units."""
    args = example("argparse").Namespace(depth=2, width=8, dropout=0.0)
    rng = np.random.default_rng(0)
    data = rng.normal(size=[500, 4]) @ rng.normal(size=[4, 4]) / 256 + 3.0
    gaussian = data.mean(0), np.cov(data, rowvar=False)
    flow = example("train_density").make_flow(model, gaussian, args, seed=0)
    # Without the mixing's, the only ones that are not the identity: rotations.
    normal = tfp.distributions.MultivariateNormalTriL(gaussian[0], np.linalg.cholesky(gaussian[1]))
    np.testing.assert_allclose(
        flow.log_prob(data.astype(np.float32)), normal.log_prob(data), rtol=1e-3
    )


def vectors_of(patches):
    return (patches - patches.mean((1, 2), keepdims=True)).reshape(len(patches), 64)[:, :63]


def test_symmetries_are_the_reflections_and_rotations_of_patches(example):
    patches = np.random.default_rng(0).normal(size=[2, 8, 8])
    moved = np.einsum("sij,bj->sbi", example("train_density").symmetries(), vectors_of(patches))
    mirrored = patches[:, :, ::-1]
    expected = [np.rot90(p, turns, (1, 2)) for p in (patches, mirrored) for turns in range(4)]
    assert sorted(np.round(np.ravel(m), 5).tolist() for m in moved) == sorted(
        np.round(np.ravel(vectors_of(e)), 5).tolist() for e in expected
    )


def test_each_patch_is_moved_anew_by_any_of_its_symmetries(example):
    module = example("train_density")
    patch = vectors_of(np.random.default_rng(0).normal(size=[1, 8, 8])).astype(np.float32)
    vectors = tf.data.Dataset.from_tensors(patch).repeat(300).unbatch().batch(100)
    moved = module.moved_at_random(vectors, 100, seed=0)
    epochs = [np.concatenate(list(moved.as_numpy_iterator())) for _ in range(2)]
    all_moved = module.symmetries() @ patch[0]
    chosen = [np.abs(epoch[:, None] - all_moved).max(-1) for epoch in epochs]
    assert all(np.all(c.min(1) < 1e-5) for c in chosen)
    first, second = (c.argmin(1) for c in chosen)
    assert set(first) == set(range(8)) and np.any(first[:100] != first[100:200])
    assert np.any(first != second)


def test_the_averaged_density_is_that_of_each_symmetry(example):
    module = example("train_density")
    scale = np.linspace(1.0, 2.0, 63).astype(np.float32)
    flow = tfp.distributions.MultivariateNormalDiag(np.zeros(63, np.float32), scale)
    patches = vectors_of(np.random.default_rng(0).normal(size=[3, 8, 8])).astype(np.float32)
    found = module.averaged(flow).log_prob(patches)
    each = [flow.log_prob(patches @ matrix.T) for matrix in module.symmetries()]
    np.testing.assert_allclose(found, tf.reduce_logsumexp(each, 0) - np.log(8), rtol=1e-5)


def test_symmetric_needs_patches(example):
    vectors = tf.data.Dataset.from_tensors(tf.zeros([2, 6]))
    with pytest.raises(SystemExit, match="needs the 63 numbers of an 8x8 patch, and .* have 6"):
        example("train_density").moved_at_random(vectors, 2, seed=0)


def test_planar_flows_have_their_log_determinant(example):
    u, w, b = np.split(np.random.default_rng(0).normal(size=[5, 7]).astype(np.float32), [3, 6], -1)
    flow = example("train_vae").Planar(*map(tf.constant, (u, w, b)))
    z = tf.random.stateless_normal([5, 3], [0, 0])
    with tf.GradientTape() as tape:
        tape.watch(z)
        moved = flow.forward(z)
    jacobian = tape.batch_jacobian(moved, z)
    expected = np.linalg.slogdet(jacobian.numpy())[1]
    np.testing.assert_allclose(flow.forward_log_det_jacobian(z, 1), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("posterior", ["gaussian", "planar", "conf"])
def test_importance_weights_average_to_the_likelihood(example, posterior):
    """Of a decoder that does not look at z, whatever the posterior is."""
    train_vae = example("train_vae")
    keras.utils.set_random_seed(0)
    args = example("argparse").Namespace(flows=2, latents=2, width=4)
    model = train_vae.VAE(6, train_vae.POSTERIORS[posterior], args, seed=0)
    images = np.random.default_rng(0).integers(0, 2, size=[10, 6]).astype(np.float32)
    model(images)
    for variable in model.posterior.trainable_variables:
        variable.assign_add(0.3 * tf.random.stateless_normal(variable.shape, [0, 1]))
    # A proposal near the prior, and a decoder that gives each pixel one half.
    for variable in (*model.gaussian.variables, *model.decoder.layers[-1].variables):
        variable.assign(tf.zeros_like(variable))
    figures = train_vae.evaluate(model, images, count=4000)
    np.testing.assert_allclose(figures["test_nll"], 6 * np.log(2), atol=0.03)
    assert figures["test_negative_elbo"] > figures["test_nll"]


def test_sampling_time_goes_on_with_what_is_not_done(
    example, run_example, monkeypatch, tmp_path, capsys
):
    module, measured = example("sampling_time"), []

    def measure(args, shape):
        if len(measured) == 1 and shape == [4, 4, 1]:
            raise KeyboardInterrupt
        measured.append(shape)
        ms = {"1x1": 2.0, "cinc": 3.0}
        return {"ms": ms, "quartiles": {conv: [1.0, 4.0] for conv in ms}}

    monkeypatch.setattr(module, "measure", measure)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(name, "1")
    arguments = ["--shapes", "2x2x1", "4x4x1", "--convs", "1x1", "cinc"]
    arguments += ["--out", tmp_path / "runs"]
    with pytest.raises(SystemExit, match="^sampling_time: interrupted"):
        run_example("sampling_time", *arguments)
    measured.append("interrupted")
    run_example("sampling_time", *arguments)
    assert measured == [[2, 2, 1], "interrupted", [4, 4, 1]]
    assert "| 4x4x1 | cinc | 3 (1 - 4) | 1.50 |" in capsys.readouterr().out


# The report.
