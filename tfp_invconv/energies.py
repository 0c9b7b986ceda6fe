"""A flow beside a density known up to a constant: importance weights, and Markov chains."""

import collections
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_invconv._utils import checks, log_weights, seeds, targets
from tfp_invconv._utils.types import TensorLike
from tfp_invconv.bijectors import _cache


class ImportanceWeights(NamedTuple):
    """What `importance_weights` returns; see there."""

    samples: tf.Tensor
    log_weights: tf.Tensor
    ess: float
    log_z: float
    log_z_error: float


def importance_weights(
    distribution: tfp.distributions.Distribution,
    target_log_prob: Callable[[tf.Tensor], TensorLike],
    n: int,
    seed: int | None = None,
    *,
    batch_size: int = 1000,
) -> ImportanceWeights:
    """Draws samples of a flow, and weighs them so that averages are those of a target.

    ```none
    w = exp(target_log_prob(x)) / q(x),  x ~ q
    mean of f under the target = sum(exp(log_weights) * f(samples)), for any f
    ess         = (sum w)^2 / (n sum w^2), effective sample size as a share, from 1/n to 1
    log_z       = log(mean(w)), estimates the log of the target's integral
    log_z_error = sqrt((1/ess - 1) / (n - 1)), its standard error to first order in 1/n
    ```

    The error, and the averages, are only as good as the samples: those of a flow that misses a mode
    of the target tell nothing of it.

    *Cost*: each layer forward once for each sample. Memory for the n samples, and for one batch of
    evaluations.

    Args:
      distribution: the flow, without a condition; of a model, pass `model.distribution`.
      target_log_prob: function of samples `[batch_size, event]`, log-densities `[batch_size]` but
        for a constant; -inf for a weight of zero.
      n: number of samples, at least two.
      seed: int, or None for new samples at each call.
      batch_size: how many are evaluated at once.

    Returns:
      `samples` `[n, event]`; `log_weights` `[n]`, normalised: the sum of their exponentials is one;
      and `ess`, `log_z` and `log_z_error`.

    Raises:
      TypeError: if the distribution or the target is none.
      ValueError: if n is less than two, or the target returns another shape, NaN or +inf, or -inf
        for all samples.

    #### Examples

    >>> import tensorflow as tf
    >>> import tensorflow_probability as tfp
    >>> import tfp_invconv as tic
    >>> flow = tfp.distributions.Normal(0.0, 1.2)
    >>> weights = tic.importance_weights(flow, lambda x: -0.5 * x**2, 10_000, seed=0)
    >>> variance = tf.reduce_sum(tf.exp(weights.log_weights) * weights.samples**2)
    >>> print(f"{variance:.1f}, log Z {weights.log_z:.2f} +- {weights.log_z_error:.2f}")
    1.0, log Z 0.92 +- 0.00
    """
    caller = "importance_weights"
    targets.check_target(target_log_prob, distribution, caller)
    checks.check_positive_integer(batch_size, "batch_size", caller)
    checks.check_at_least_two(n, "n", caller)
    batch_size = min(batch_size, n)

    @tf.function
    def draw(seed):
        x, log_q = distribution.experimental_sample_and_log_prob(batch_size, seed=seed)
        _cache.forget_graph()
        return x, targets.evaluate_target(target_log_prob, x, 1, caller), log_q

    seed, parts = seeds.stateless_seed(seed), []
    for i in range(-(-n // batch_size)):
        parts.append(draw(tf.random.experimental.stateless_fold_in(seed, i)))
    samples, target, log_q = (tf.concat(part, 0)[:n] for part in zip(*parts, strict=True))
    nan, infinite = int(np.isnan(target).sum()), int(np.isposinf(target).sum())
    if nan or infinite or np.all(np.isneginf(target)):
        raise ValueError(
            f"{caller}: `target_log_prob` must be finite, or -inf for some of the samples; got NaN "
            f"for {nan}, inf for {infinite} and -inf for {np.isneginf(target).sum()} of {n}."
        )
    log_w = tf.cast(target, tf.float64) - tf.cast(log_q, tf.float64)
    log_sum = tf.reduce_logsumexp(log_w)
    log_z, ess = map(float, log_weights.log_z_and_ess(log_sum, tf.reduce_logsumexp(2 * log_w), n))
    normalised = tf.cast(log_w - log_sum, log_q.dtype)
    # Rounding may take it above one.
    error = np.sqrt(max(0.0, 1.0 / ess - 1.0) / (n - 1))
    return ImportanceWeights(samples, normalised, ess, log_z, float(error))


def independence_sampler(
    distribution: tfp.distributions.Distribution,
    target_log_prob: Callable[[tf.Tensor], TensorLike],
) -> tfp.mcmc.MetropolisHastings:
    """Makes a Metropolis chain whose proposals are independent samples of a flow.

    ```none
    x' ~ q;  accepted with probability min(1, p(x') q(x) / (p(x) q(x')))
    ```

    The chain's stationary distribution is the target, whatever the flow. Where they agree every
    proposal is accepted, and successive states are independent. Where the flow has less mass than
    the target, a chain stays for long: look at `is_accepted` of the kernel's results.

    It is a kernel for `tfp.mcmc.sample_chain`, in graphs or not, with any batch of chains. States
    are one tensor `[chains..., event]`. Start where the target is finite, such as at samples of the
    flow: from elsewhere TFP accepts nothing.

    *Cost of a step*: each layer forward once. The density of the state is remembered.

    Args:
      distribution: the flow, without a condition.
      target_log_prob: function of states `[chains..., event]`, log-densities `[chains...]` but for
        a constant; such a state is never accepted where it is -inf or NaN.

    Returns:
      A `tfp.mcmc.MetropolisHastings`.

    Raises:
      TypeError: if the distribution or the target is none.
      ValueError: in `sample_chain`, if the target returns another shape.

    #### Examples

    >>> import tensorflow as tf
    >>> import tensorflow_probability as tfp
    >>> import tfp_invconv as tic
    >>> flow = tfp.distributions.Normal(0.0, 1.2)
    >>> kernel = tic.independence_sampler(flow, lambda x: -0.5 * x**2)
    >>> states, accepted = tfp.mcmc.sample_chain(
    ...     200, flow.sample(50, seed=1), kernel=kernel, seed=(0, 0),
    ...     trace_fn=lambda _, results: results.is_accepted)
    >>> print(states.shape, f"{tf.math.reduce_std(states):.1f}")
    (200, 50) 1.0
    """
    targets.check_target(target_log_prob, distribution, "independence_sampler")
    return tfp.mcmc.MetropolisHastings(_UncalibratedIndependence(distribution, target_log_prob))


_Results = collections.namedtuple(
    "_Results", "target_log_prob, log_acceptance_correction, proposal_log_prob"
)


class _UncalibratedIndependence(tfp.mcmc.TransitionKernel):
    """Proposes samples of a distribution."""

    def __init__(self, distribution, target_log_prob):
        self._distribution, self._target_log_prob = distribution, target_log_prob

    @property
    def parameters(self):
        """The constructor's arguments."""
        return {"distribution": self._distribution, "target_log_prob": self._target_log_prob}

    @property
    def is_calibrated(self):
        """False: the acceptance is `tfp.mcmc.MetropolisHastings`'s part."""
        return False

    def one_step(self, current_state, previous_kernel_results, seed=None):
        """A sample for each chain, whatever its state."""
        before = previous_kernel_results.proposal_log_prob
        chains = before.shape if before.shape.is_fully_defined() else tf.shape(before)
        x, log_q = self._distribution.experimental_sample_and_log_prob(chains, seed=seed)
        x = tf.ensure_shape(x, current_state.shape)
        return x, self._results(x, log_q, before - log_q)

    def bootstrap_results(self, init_state):
        """The densities of the first state."""
        x = tf.convert_to_tensor(init_state, self._distribution.dtype)
        # TFP caches evaluations by input tensor, so pass a new one.
        log_q = self._distribution.log_prob(tf.identity(x))
        return self._results(x, log_q, tf.zeros_like(log_q))

    def _results(self, x, log_q, correction):
        _cache.forget_graph()
        ndims = x.shape.rank - self._distribution.event_shape.rank
        caller = "independence_sampler"
        target = targets.evaluate_target(self._target_log_prob, x, ndims, caller)
        return _Results(target, correction, log_q)
