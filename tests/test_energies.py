"""Importance weights, and Markov chains whose proposals are a flow's samples."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_invconv as tic

tfd = tfp.distributions


def proposal():
    """Wider than the target and beside it."""
    return tfd.MultivariateNormalDiag([0.4, -0.3], [1.3, 1.2])


def standard(x):
    """Of a standard normal, times e^3."""
    return 3.0 - 0.5 * tf.reduce_sum(x**2, -1) - np.log(2 * np.pi)


def half(x):
    """The same with a wall at x_0 = 0."""
    return tf.where(x[..., 0] > 0, standard(x), -np.inf)


@pytest.mark.parametrize("target", [standard, half])
def test_weights_are_those_of_the_samples(target):
    found = tic.importance_weights(proposal(), target, 250, seed=0, batch_size=100)
    x = found.samples.numpy()
    assert x.shape == (250, 2) and len(np.unique(x)) == 500
    w = np.exp((target(x) - proposal().log_prob(x)).numpy().astype(np.float64))
    np.testing.assert_allclose(np.exp(found.log_weights), w / w.sum(), rtol=1e-4)
    assert (w == 0).any() == (target is half)
    np.testing.assert_allclose(found.ess, w.sum() ** 2 / (250 * (w**2).sum()), rtol=1e-5)
    np.testing.assert_allclose(found.log_z, np.log(w.mean()), rtol=1e-5)
    error = w.std(ddof=1) / np.sqrt(250) / w.mean()
    np.testing.assert_allclose(found.log_z_error, error, rtol=1e-4)


@pytest.mark.slow
def test_the_error_of_log_z_is_its_spread():
    repeats = [tic.importance_weights(proposal(), standard, 500, seed) for seed in range(25)]
    log_z = np.array([each.log_z for each in repeats])
    error = np.mean([each.log_z_error for each in repeats])
    np.testing.assert_allclose(log_z.std(ddof=1), error, rtol=0.45)
    assert abs(log_z.mean() - 3.0) < 4 * error / np.sqrt(25)


def test_weights_do_not_overflow():
    found = tic.importance_weights(proposal(), lambda x: standard(x) + 1e4, 500, seed=0)
    other = tic.importance_weights(proposal(), lambda x: standard(x) - 1e4, 500, seed=0)
    np.testing.assert_allclose(found.log_z - other.log_z, 2e4, rtol=1e-6)
    np.testing.assert_allclose(found.ess, other.ess, rtol=1e-2)
    same = tic.importance_weights(proposal(), proposal().log_prob, 500, seed=0)
    assert same.ess > 1 - 1e-6 and abs(same.log_z) < 1e-6 and same.log_z_error < 1e-4


def test_weights_of_a_seed_repeat():
    first, again, other = (
        tic.importance_weights(proposal(), standard, n, seed, batch_size=20)
        for n, seed in ((50, 0), (30, 0), (50, 1))
    )
    np.testing.assert_array_equal(first.samples[:30], again.samples)
    assert np.all(first.samples != other.samples)


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"distribution": 3.0}, TypeError, "importance_weights: needs a tfd.Distribution; got 3.0"),
        ({"target_log_prob": 3.0}, TypeError, "`target_log_prob` must be a function"),
        ({"target_log_prob": lambda x: x}, ValueError, r"got float32 of shape \(10, 2\)"),
        ({"target_log_prob": lambda x: standard(x) * np.nan}, ValueError, "got NaN for 10, inf"),
        ({"target_log_prob": lambda x: standard(x) + np.inf}, ValueError, "inf for 10 and"),
        ({"target_log_prob": lambda x: standard(x) - np.inf}, ValueError, "-inf for 10 of 10"),
        ({"n": 1}, ValueError, "`n` must be an int of at least 2; got 1"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be a positive integer; got 0"),
        ({"distribution": tfd.Normal([0.0, 1.0], 1.0)}, ValueError, r"batch shape \[\]"),
    ],
)
def test_wrong_arguments_are_refused(refused, change, error, words):
    arguments = {"distribution": proposal(), "target_log_prob": standard, "n": 10, "seed": 0}
    with refused(error, match=words):
        tic.importance_weights(**{**arguments, **change})


def run(target=standard, chains=(100,), steps=200, distribution=None, seed=0):
    """States and acceptance of chains, in a graph."""
    distribution = distribution or proposal()

    @tf.function
    def sample():
        return tfp.mcmc.sample_chain(
            steps,
            current_state=distribution.sample(chains, seed=[1, seed]),
            kernel=tic.independence_sampler(distribution, target),
            trace_fn=lambda _, results: results.is_accepted,
            num_burnin_steps=20,
            seed=[0, seed],
        )

    return [each.numpy() for each in sample()]


def test_chains_sample_the_target():
    """Each chain's averages are a sample, so that their spread is the error."""
    x, accepted = run()
    assert x.shape == (200, 100, 2) and 0.5 < accepted.mean() < 0.95
    for f, expected in ((x, 0.0), (x**2, 1.0), (np.abs(x), np.sqrt(2 / np.pi))):
        means = f.mean(0)
        error = means.std(0, ddof=1) / np.sqrt(len(means))
        assert np.all(np.abs(means.mean(0) - expected) < 4 * error), (means.mean(0), error)
        assert np.all(error < 0.02)


def test_a_state_is_kept_where_its_proposal_is_refused():
    x, accepted = run(half, chains=(20, 5))
    assert x.shape == (200, 20, 5, 2) and accepted.shape == (200, 20, 5)
    stays = np.all(x[1:] == x[:-1], -1)
    np.testing.assert_array_equal(stays, ~accepted[1:])
    assert np.mean(x[-1, ..., 0] > 0) > 0.4  # chains that start beyond the wall stay there
    started_inside = x[0, ..., 0] > 0
    assert np.all(x[:, started_inside, 0] > 0)


def test_all_is_accepted_where_the_flow_is_the_target():
    _, accepted = run(lambda x: proposal().log_prob(x) + 3.0)
    assert accepted.mean() > 0.9999


def test_chains_of_a_seed_repeat():
    first, again, other = (run(chains=(), steps=30, seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (30, 2) and np.all(first != other)


def test_one_step_runs_without_a_graph():
    kernel = tic.independence_sampler(proposal(), standard)
    state = tf.zeros([4, 2])
    results = kernel.bootstrap_results(state)
    state, results = kernel.one_step(state, results, seed=[0, 0])
    x = results.proposed_state
    ratio = standard(x) - standard(tf.zeros([4, 2]))
    ratio += proposal().log_prob(tf.zeros([4, 2])) - proposal().log_prob(x)
    np.testing.assert_allclose(results.log_accept_ratio, ratio, rtol=1e-4)
    assert kernel.is_calibrated and not kernel.inner_kernel.is_calibrated
    state, _ = kernel.one_step(state, results)
    assert state.shape == [4, 2]


def test_wrong_targets_of_a_chain_are_refused(refused):
    with refused(TypeError, match="independence_sampler: `target_log_prob` must be a function"):
        tic.independence_sampler(proposal(), None)
    with refused(ValueError, match=r"float32 of shape \(4, 3\); got float32 of shape \(\)"):
        run(tf.reduce_sum, chains=(4, 3))


@pytest.mark.slow
def test_a_flow_with_networks_weighs_and_proposes():
    flow = tic.conf([2], depth=1, width=8, seed=0, data_range=None)
    weights = tic.importance_weights(flow, standard, 4000, seed=0)
    assert abs(weights.log_z - 3.0) < 4 * weights.log_z_error + 1e-4
    x, _ = run(chains=(20,), steps=100, distribution=flow)
    assert abs(x.std() - 1.0) < 0.1
