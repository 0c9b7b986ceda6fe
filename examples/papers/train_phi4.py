"""The lattice field theory phi^4 on a torus: flows trained on its action, without data.

The action of a field phi on an N x N torus is

  S = sum over sites of [sum over both axes of (2 phi^2 - phi phi_next - phi phi_previous)
                         + m^2 phi^2 + lambda phi^4]

as in the tutorial of Albergo et al. (arXiv 2101.08176), and its density exp(-S) / Z. Three flows
learn it, all of `tic.fields`, alike but for the layer between the couplings:

  couplings  checkerboard couplings alone
  periodic   with a `PeriodicConv`
  spectral   with a `SpectralScaling`

Prints the effective sample size (the share of independent samples that as many of the flow's are
worth) on the way and at the end, log Z, and observables with their errors: the mean of phi^2, the
susceptibility, which is the sum over x of <phi(0) phi(x)>, and the two-point function, here the
correlations of the means of lines at a distance; by the flow's weighted samples, and by Metropolis
chains whose proposals are the flow's. A long Hamiltonian Monte Carlo run is beside them. The
picture ess.png has the effective sample size on the way.

Killed at any moment, the same command goes on with the epoch that was not done.
"""

import functools
import math

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import training
from experiment import (
    mean_and_spread,
    options_parser,
    picture,
    results_of,
    results_of_each,
    run_command,
    show,
    write,
)
from lattice import action

import tfp_invconv as tic

FLOWS = {"couplings": None, "periodic": "periodic", "spectral": "spectral"}

# What decides the results, besides the seed.
OPTIONS = {
    "size": (8, "sites along each axis"),
    "mass_squared": (-4.0, "m^2"),
    "coupling": (8.0, "lambda"),
    "depth": (8, "steps of two couplings"),
    "width": (16, "channels in the couplings' networks"),
    "epochs": (20, "epochs"),
    "steps": (100, "steps in an epoch"),
    "batch_size": (128, "samples in a step"),
    "learning_rate": (3e-3, "highest learning rate"),
    "samples": (100_000, "samples, and states of Metropolis chains, for the final figures"),
}
WARMUP = 50
CHAINS = 100
KINDS = ("weighted", "chain")


def parse_arguments():
    parser = options_parser(__doc__, OPTIONS, "runs/phi4")
    flows = list(FLOWS)
    parser.add_argument("--flows", nargs="+", choices=flows, default=flows, help="which (all)")
    return parser.parse_args()


def log_density(phi, mass_squared, coupling):
    """-S of fields `[n, N, N, 1]`."""
    return -action(phi, mass_squared, coupling)


def observables(phi):
    """Of each field, by name: numbers whose means over fields are the observables."""
    phi = np.asarray(phi, np.float64)[..., 0]
    size = phi.shape[-1]
    lines = np.stack([phi.mean(-1), phi.mean(-2)])
    return {
        "phi_squared": np.mean(phi**2, (-2, -1)),
        "susceptibility": size**2 * np.mean(phi, (-2, -1)) ** 2,
        **{
            f"two_point_{distance}": np.mean(lines * np.roll(lines, distance, -1), (0, -1))
            for distance in range(size // 2 + 1)
        },
    }


def weighted(values, weights):
    """The mean of values `[n]` with weights of sum one, and its standard error."""
    mean = np.sum(weights * values)
    return mean, math.sqrt(np.sum(weights**2 * (values - mean) ** 2))


def of_chains(values):
    """The mean of values `[steps, chains]` of independent chains, and its standard error."""
    means = values.mean(0)
    return means.mean(), means.std(ddof=1) / math.sqrt(len(means))


def with_errors(kind, found):
    """{observable: (mean, error)} as results."""
    results = {}
    for name, (mean, error) in found.items():
        results[f"{kind}_{name}"], results[f"{kind}_{name}_error"] = float(mean), float(error)
    return results


def with_deviations(runs, reference):
    """The results of runs, each with its largest deviation from Hamiltonian Monte Carlo.

    That is the difference of an observable in standard errors.
    """
    names = [key[4:-6] for key in reference if key.startswith("hmc_") and key.endswith("_error")]

    def deviation(run, kind, name):
        error = math.hypot(run[f"{kind}_{name}_error"], reference[f"hmc_{name}_error"])
        return abs(run[f"{kind}_{name}"] - reference[f"hmc_{name}"]) / error

    return {
        key: run
        if run["diverged"]
        else run | {f"{k}_deviation": max(deviation(run, k, name) for name in names) for k in KINDS}
        for key, run in runs.items()
    }


def hmc(args, _):
    """The observables by a long run of independent chains."""
    target = functools.partial(log_density, mass_squared=args.mass_squared, coupling=args.coupling)
    kernel = tfp.mcmc.HamiltonianMonteCarlo(target, step_size=0.1, num_leapfrog_steps=10)

    @tf.function
    def run():
        return tfp.mcmc.sample_chain(
            500,
            tf.zeros([1000, args.size, args.size, 1]),
            num_burnin_steps=200,
            kernel=kernel,
            trace_fn=lambda _, results: results.is_accepted,
            seed=[0, 0],
        )

    states, accepted = run()
    found = {name: of_chains(values) for name, values in observables(states).items()}
    return {
        **with_errors("hmc", found),
        "acceptance": float(np.mean(accepted)),
        "finished": True,
        "diverged": False,
    }


def evaluate(flow, target, args, seed):
    """The figures of a trained flow."""
    weights = tic.importance_weights(flow, target, args.samples, seed=seed)
    shares = np.exp(weights.log_weights, dtype=np.float64)
    by_weights = {
        name: weighted(values, shares) for name, values in observables(weights.samples).items()
    }

    @tf.function
    def run():
        kernel = tic.independence_sampler(flow, target)
        start = flow.sample(CHAINS, seed=[seed, 1])
        steps = args.samples // CHAINS
        trace = lambda _, results: results.is_accepted  # noqa: E731
        return tfp.mcmc.sample_chain(
            steps, start, num_burnin_steps=steps // 5, kernel=kernel, trace_fn=trace, seed=[seed, 2]
        )

    states, accepted = run()
    by_chain = {name: of_chains(values) for name, values in observables(states).items()}
    return {
        "ess": weights.ess,
        "log_z": weights.log_z,
        "log_z_error": weights.log_z_error,
        "acceptance": float(np.mean(accepted)),
        **with_errors("weighted", by_weights),
        **with_errors("chain", by_chain),
    }


def train(name, args, seed, options, folder):
    """Trains one flow and returns its results."""
    keras.utils.set_random_seed(seed)
    shape = [args.size, args.size, 1]
    flow = tic.fields(shape, args.depth, conv=FLOWS[name], odd=True, width=args.width, seed=seed)
    target = functools.partial(log_density, mass_squared=args.mass_squared, coupling=args.coupling)
    model = tic.EnergyModel(flow, target)
    steps = args.epochs * args.steps - WARMUP
    rate = keras.optimizers.schedules.CosineDecay(
        1e-4, steps, warmup_target=args.learning_rate, warmup_steps=WARMUP
    )
    backup = tic.callbacks.Backup(folder, minutes=args.minutes, config=options)
    results = training.fit(
        f"{name}/{seed}",
        model,
        keras.optimizers.Adam(rate),
        [backup],
        folder,
        batch_size=args.batch_size,
        steps_per_epoch=args.steps,
        epochs=args.epochs,
    )
    results["ess_of_epochs"] = [row["ess"] for row in backup.history]
    if not results["diverged"]:
        results |= evaluate(flow, target, args, seed)
    return results


HEADER = (
    "| flow | parameters | training, s | effective sample size after a quarter of the steps | half "
    "| all | log Z | <phi^2>, weighted | by chains | susceptibility, weighted | by chains "
    "| standard errors from HMC, weighted | by chains |"
)


def figures(runs):
    """What the table has of a flow, over its seeds."""

    def column(key, form):
        return mean_and_spread([run[key] for run in runs], form)

    def after(part):
        """At the end of the first of so many parts of the training; NaN for fewer epochs."""
        curves = [run["ess_of_epochs"] for run in runs]
        return mean_and_spread(
            [ess[len(ess) // part - 1] if len(ess) >= part else math.nan for ess in curves]
        )

    observed = [
        column(f"{kind}_{name}", form)
        for name, form in (("phi_squared", ".5f"), ("susceptibility", ".4f"))
        for kind in KINDS
    ]
    deviations = [f"{max(run[f'{kind}_deviation'] for run in runs):.1f}" for kind in KINDS]
    return after(4), after(2), column("ess", ".3f"), column("log_z", ".4f"), *observed, *deviations


def main():
    args = parse_arguments()
    options = {name: getattr(args, name) for name in (*OPTIONS, "minutes")}
    lattice = {name: options[name] for name in ("size", "mass_squared", "coupling")}
    found = results_of_each(train, args, "flow", args.flows, options)
    reference = results_of(functools.partial(hmc, args), args.out, "hmc", lattice)
    found = {flow: with_deviations(runs, reference) for flow, runs in found.items()}
    curves = {
        flow: [
            [(args.steps * epoch, ess) for epoch, ess in enumerate(run["ess_of_epochs"], 1)]
            for run in runs.values()
        ]
        for flow, runs in found.items()
    }
    write(args.out / "ess.png", picture(curves, "effective sample size", "steps"))
    show(found, HEADER, figures, args.out, "ess", "effective sample size")


if __name__ == "__main__":
    run_command(main)
