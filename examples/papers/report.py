"""Do the papers' claims hold? Tables of the committed results, and the pages that have them.

Each claim is about two of the trained models: it holds if the difference, averaged over the seeds
that both have, is on the right side by more than its standard deviation over them. With a single
seed, the standard errors over the test data take its place; so they do for one model against a
published figure. A ratio of times has a limit. Without results a claim is open.

    python examples/papers/report.py                           prints the tables
    python examples/papers/report.py --write docs/results.md   replaces those of a page
"""

import argparse
import dataclasses
import functools
import itertools
import math
import re
import textwrap
from pathlib import Path

import check_samples
import compare_flows
import numpy as np
import sampling_time
import train_conditional
import train_free_field
import train_generated
import train_phi4
import train_posterior
from experiment import markdown, read_runs, run_command, table_row, write

RESULTS = Path(__file__).with_name("results")
CLAIMS_HEADER = "| claim | published | here | difference | verdict |"


def read(experiment, results):
    """{name: results} of the runs of an experiment that got to their end."""
    runs = read_runs(results / f"{experiment}.json")
    return {
        name: run
        for name, run in runs.items()
        if run.get("finished", True) and not run.get("diverged")
    }


def read_seeds(experiment, model, results):
    """{seed: results} of a model in an experiment."""
    runs = read(experiment, results)
    return {
        name.rpartition("/")[2]: run
        for name, run in runs.items()
        if name.rpartition("/")[0] == model
    }


def verdict(gain, spread):
    return "holds" if gain > spread else "does not hold"


def spread_of(values, errors):
    """The spread of values over seeds, or of one value by its errors, and which of both it is."""
    if len(values) > 1:
        return np.std(values, ddof=1), f"{len(values)} seeds"
    return math.hypot(*errors), "one seed, standard error"


def against(experiment, ours, theirs, key, sign, margin=0.0, results=RESULTS):
    """What is here, the spread and the verdict: one model against another.

    Args:
      experiment: with both models.
      ours: the one that is claimed to be better.
      theirs: the other one.
      key: of the figure, in nats or bits.
      sign: 1 if larger is better, -1 if smaller is.
      margin: how much worse it may be.
      results: folder of all results.
    """
    first, second = (read_seeds(experiment, model, results) for model in (ours, theirs))
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return "", "", "open"
    values = np.array([[runs[seed][key] for seed in seeds] for runs in (first, second)])
    here = "{:.3f} against {:.3f}".format(*values.mean(1))
    differences = values[0] - values[1]
    errors = [runs[seeds[0]].get(f"{key}_standard_error") for runs in (first, second)]
    if len(seeds) == 1 and None in errors:
        return here, "of one seed", "open"
    spread, of = spread_of(differences, errors)
    text = f"{differences.mean():+.3f} ± {spread:.3f} ({of})"
    return here, text, verdict(sign * differences.mean() + margin, spread)


def above(experiment, model, key, limit, results=RESULTS):
    """The same for one model against a published figure."""
    runs = read_seeds(experiment, model, results)
    if not runs:
        return "", "", "open"
    values = [run[key] for run in runs.values()]
    errors = [run.get(f"{key}_standard_error") for run in runs.values()]
    mean = np.mean(values)
    if len(values) == 1 and None in errors:
        return f"{mean:.2f}", "of one seed", "open"
    spread, of = spread_of(values, errors)
    return f"{mean:.2f}", f"± {spread:.2f} ({of})", verdict(mean - limit, spread)


def ratio(shape, conv, other, limit, results=RESULTS):
    """The same for the time of one flow in that of another."""
    times = read("sampling_time", results).get(shape, {}).get("ms", {})
    if not {conv, other} <= times.keys():
        return "", "", "open"
    value = times[conv] / times[other]
    here = f"{times[conv]:.0f} ms against {times[other]:.0f} ms"
    return here, f"ratio {value:.2f}", verdict(limit, value)


@dataclasses.dataclass
class Claims:
    """What is claimed of one data set: (claim, published figures, function of ours) each."""

    title: str
    command: str
    comparable: str
    rows: list


bits = functools.partial(against, "cifar10_jpeg", key="test_bits_per_dim", sign=-1)
nats = functools.partial(against, "bsds300_patches", key="test_nats", sign=1)
elbo = functools.partial(against, key="test_negative_elbo", sign=-1)


def of_patches(title, published, experiment, model, limit):
    """A claim's rows for one flow, and for its average over a patch's symmetries."""
    return [
        (
            f"{title} published figure on BSDS300, {of}, nats",
            published,
            functools.partial(above, experiment, model, key, limit),
        )
        for of, key in (
            ("one flow", "flow_test_nats"),
            ("averaged over a patch's 8 symmetries", "test_nats"),
        )
    ]


def tabular(dataset):
    return functools.partial(against, dataset, "conf", "realnvp", "test_nats", 1)


CLAIMS = [
    Claims(
        "Images",
        "compare_flows.py 1x1/affine emerging/affine periodic/affine emerging/quad cinc/affine "
        "cinc/quad emerging-inverse/affine --dataset cifar10_jpeg --epochs 2 --seeds 0 1 2 "
        "--out examples/papers/results/cifar10_jpeg",
        "Only the order is comparable: the data are a smaller JPEG copy of CIFAR-10, and small "
        "flows train for a few epochs.",
        [
            (
                "emerging below 1x1, bits/dim",
                "3.43 against 3.46",
                functools.partial(bits, "emerging-affine", "1x1-affine"),
            ),
            (
                "periodic below 1x1, bits/dim",
                "1.98 against 2.03 (Galaxy)",
                functools.partial(bits, "periodic-affine", "1x1-affine"),
            ),
            (
                "quad below affine with emerging, bits/dim",
                "3.361 against 3.385",
                functools.partial(bits, "emerging-quad", "emerging-affine"),
            ),
            (
                "quad below affine with CInC, bits/dim",
                "3.388 against 3.421",
                functools.partial(bits, "cinc-quad", "cinc-affine"),
            ),
        ],
    ),
    Claims(
        "Inverses of convolutions",
        "compare_flows.py emerging/affine emerging-inverse/affine --epochs 150 --seeds 0 1 2 "
        "--out examples/papers/results/couplings",
        "Only the order is comparable: Inverse-Flow (2025) has 3x3 convolutions of one corner, and "
        "its networks and data are larger. The command of cifar10_jpeg is that above; the times "
        "are those of sampling_time.py, below.",
        [
            *(
                (
                    f"at most 0.05 bits/dim above emerging convolutions, {dataset}",
                    "similar",
                    functools.partial(
                        against,
                        runs,
                        "emerging-inverse-affine",
                        "emerging-affine",
                        "test_bits_per_dim",
                        sign=-1,
                        margin=0.05,
                    ),
                )
                for runs, dataset in (("couplings", "digits"), ("cifar10_jpeg", "cifar10_jpeg"))
            ),
            *(
                (
                    f"sampling in at most 0.95 of emerging's time, {shape}",
                    "faster",
                    functools.partial(ratio, shape, "emerging-inverse", "emerging", 0.95),
                )
                for shape in ("32x32x3", "64x64x3")
            ),
        ],
    ),
    Claims(
        "Image patches",
        "train_density.py --dataset bsds300_patches --epochs 5 --models realnvp glow conf "
        "--out examples/papers/results/bsds300_patches",
        "Only the order is comparable: CONF's 164.72 is a density of 64 numbers, one of which "
        "follows from the others.",
        [
            (
                "CONF above Real NVP on BSDS300, nats",
                "164.72 against 153.28",
                functools.partial(nats, "conf", "realnvp"),
            ),
            (
                "CONF above Glow on BSDS300, nats",
                "164.72 against 155.07",
                functools.partial(nats, "conf", "glow"),
            ),
        ],
    ),
    Claims(
        "Image patches, as published",
        "train_density.py --dataset bsds300_patches --symmetric --epochs 15 --models conf sinh "
        "--out examples/papers/results/bsds300_patches_symmetric",
        "Comparable: 63 numbers, patches by the published recipe; training adds their reflections "
        "and rotations. A Gaussian has 96.34 nats here, 96.67 as published.",
        of_patches(
            "CONF above Glow's",
            "155.07 (rerun: 156.95)",
            "bsds300_patches_symmetric",
            "conf",
            155.07,
        ),
    ),
    Claims(
        "The best of these layers on image patches",
        "train_density.py --dataset bsds300_patches --symmetric --models sinh --depth 16 "
        "--batch-size 512 --epochs 20 --out examples/papers/results/bsds300_patches_long",
        "Comparable as before; an hour and six minutes of one core. Two epochs of spline couplings "
        "were no better than two of these, and took longer.",
        of_patches(
            "sinh above the best coupling flow's",
            "157.65",
            "bsds300_patches_long",
            "sinh",
            157.65,
        ),
    ),
    Claims(
        "Tables of numbers",
        "train_density.py --dataset power --out examples/papers/results/power",
        "Comparable, with the published preprocessing, but open: the data were out of reach. "
        "Likewise for `gas`, `hepmass` and `miniboone`.",
        [
            ("CONF above Real NVP on POWER, nats", "0.49 against 0.17", tabular("power")),
            ("CONF above Real NVP on GAS, nats", "10.92 against 8.33", tabular("gas")),
            ("CONF above Real NVP on HEPMASS, nats", "-11.46 against -18.71", tabular("hepmass")),
            (
                "CONF above Real NVP on MINIBOONE, nats",
                "-7.03 against -13.55",
                tabular("miniboone"),
            ),
        ],
    ),
    *(
        Claims(
            f"Posteriors of autoencoders, {until}",
            f"train_vae.py --dataset mnist_t10k --seeds 0 1 2{option} "
            f"--out examples/papers/results/{folder}",
            "Only the order is comparable: 9,000 images of MNIST and dense networks.",
            [
                (
                    "CONF below a Gaussian posterior, -ELBO, nats",
                    "83.79 against 86.55",
                    functools.partial(elbo, folder, "conf", "gaussian"),
                ),
                (
                    "CONF below planar flows, -ELBO, nats",
                    "83.79 against 86.06",
                    functools.partial(elbo, folder, "conf", "planar"),
                ),
            ],
        )
        for folder, option, until in (
            ("vae_mnist_t10k", "", "trained until validation gets worse"),
            ("vae_mnist_t10k_100", " --epochs 100", "trained until the learning rate is zero"),
        )
    ),
    Claims(
        "Posteriors of autoencoders, silhouettes",
        "train_vae.py --dataset caltech101_silhouettes --seeds 0 1 2 "
        "--out examples/papers/results/vae_caltech101_silhouettes",
        "Comparable but for the networks, which are dense ones; open: the data were out of reach.",
        [
            (
                f"CONF below {name}, -ELBO, nats",
                f"104.09 against {published}",
                functools.partial(elbo, "vae_caltech101_silhouettes", "conf", model),
            )
            for name, model, published in (
                ("a Gaussian posterior", "gaussian", "110.80"),
                ("planar flows", "planar", "109.66"),
            )
        ],
    ),
    Claims(
        "Sampling time",
        "sampling_time.py --out examples/papers/results/sampling_time",
        "Only the ratios are comparable: the implementations and the machine are others.",
        [
            (
                f"CInC samples in at most 0.6 of emerging's time, {shape}",
                "1.31 s against 2.45 s",
                functools.partial(ratio, shape, "cinc", "emerging", 0.6),
            )
            for shape in ("32x32x3", "64x64x3")
        ]
        + [
            (
                f"emerging samples in at most 1.75 of 1x1's time, {shape}",
                "none",
                functools.partial(ratio, shape, "emerging", "1x1", 1.75),
            )
            for shape in ("32x32x3", "64x64x3")
        ],
    ),
]


def claims(results=RESULTS):
    """For each set of claims what is comparable, the command, and the table."""
    parts = []
    for of_data in CLAIMS:
        rows = [
            f"| {' | '.join([claim, published, *ours(results=results)])} |"
            for claim, published, ours in of_data.rows
        ]
        words = f"python examples/papers/{of_data.command}"
        command = " \\\n    ".join(textwrap.wrap(words, 96, break_on_hyphens=False))
        parts.append(
            f"### {of_data.title}\n\n{of_data.comparable}\n\n"
            f"```\n{command}\n```\n\n{markdown(CLAIMS_HEADER, rows)}"
        )
    return "\n\n".join(parts)


def samples(is_wanted, results=RESULTS):
    """The rows of check_samples.py about the flows that are wanted, data set by data set."""
    runs = read_runs(results / "check_samples.json").values()
    return markdown(
        check_samples.HEADER, [check_samples.row(run) for run in runs if is_wanted(run)]
    )


def bounds(results=RESULTS):
    """Emerging flows with several bounds of their log-scales."""
    return samples(lambda run: (run["conv"], run["coupling"]) == ("emerging", "affine"), results)


def kinds(results=RESULTS):
    """Every convolution with every coupling."""
    return samples(lambda run: run["log_scale_bound"] == 1.0, results)


def compared(results=RESULTS, experiments=("digits",)):
    """Kinds of flow in experiments on one data set."""
    return markdown(
        compare_flows.HEADER,
        [row for experiment in experiments for row in compared_rows(experiment, results)],
    )


def compared_rows(experiment, results):
    """Rows of the kinds of flow in an experiment."""
    rows, found = [], read_runs(results / f"{experiment}.json")
    for name in dict.fromkeys(name.rpartition("/")[0] for name in found):
        runs = list(read_seeds(experiment, name, results).values())
        if not runs:
            continue
        parts = (runs[0].get(part, "?") for part in ("flow", "conv", "coupling", "noise"))
        label = "/".join(part for part in parts if part in name)
        rows.append(table_row(label, runs, compare_flows.figures))
    return rows


def sampling(results=RESULTS):
    """The time of a hundred samples, for each convolution."""
    shapes = read("sampling_time", results).values()
    return markdown(sampling_time.HEADER, itertools.chain(*map(sampling_time.table_rows, shapes)))


def generated(results=RESULTS):
    """Flows of signals and volumes, beside the exact density."""
    runs = {kind: read_seeds(kind, kind, results) for kind in train_generated.KINDS}
    return without_empty_columns(table_of(train_generated, runs))


def torus(results=RESULTS):
    """Flows of fields and maps on a torus, beside the exact density."""
    runs = {kind: read_seeds("torus", kind, results) for kind in train_generated.KINDS}
    return table_of(train_generated, runs)


def posterior(results=RESULTS):
    """Flows of blurred images, beside the exact posterior."""
    runs = {flow: read_seeds("posterior", flow, results) for flow in train_posterior.FLOWS}
    return table_of(train_posterior, runs)


def conditional(results=RESULTS):
    """Flows of images given images."""
    runs = {}
    for dataset in ("digits", "mnist_t10k"):
        read_task = functools.partial(read_seeds, f"conditional_{dataset}", results=results)
        alone = read_task("alone")
        for task in ("alone", *train_conditional.TASKS):
            of_task = train_conditional.with_savings(read_task(task), alone)
            runs[f"{dataset}, {task}"] = of_task
    return table_of(train_conditional, runs)


def free_field(results=RESULTS):
    """Free fields on lattices of several sizes, beside the exact log Z."""
    runs = {name: read_seeds("free_field", name, results) for name in train_free_field.LATTICES}
    return table_of(train_free_field, runs)


def phi4(results=RESULTS):
    """Flows of the lattice theory phi^4, beside Hamiltonian Monte Carlo."""
    reference = read("phi4", results).get("hmc")
    runs = {flow: read_seeds("phi4", flow, results) for flow in train_phi4.FLOWS if reference}
    runs = {flow: train_phi4.with_deviations(found, reference) for flow, found in runs.items()}
    return table_of(train_phi4, runs)


def without_empty_columns(table):
    """The columns of a table that some row has; results of earlier versions lack some."""
    header, line, *rows = (row[1:-1].split("|") for row in table.split("\n"))
    kept = [i for i in range(len(header)) if any(row[i].strip() for row in rows)]
    return "\n".join(f"|{'|'.join(row[i] for i in kept)}|" for row in (header, line, *rows))


def table_of(script, runs):
    """The table of a script, {name: {seed: results}}, without names that have no runs."""
    rows = [
        table_row(name, list(of_seeds.values()), script.figures)
        for name, of_seeds in runs.items()
        if of_seeds
    ]
    return markdown(script.HEADER, rows)


PAGES = {
    "results.md": {
        "bounds": bounds,
        "kinds": kinds,
        "compared": compared,
        "couplings": functools.partial(compared, experiments=["couplings", "peers"]),
        **{
            name: functools.partial(compared, experiments=[name])
            for name in (
                "noise",
                "peers_50",
                "couplings_cifar10_jpeg",
                "couplings_mnist_t10k",
                "couplings_mnist_t10k_long",
            )
        },
        "sampling": sampling,
        "claims": claims,
    },
    "kinds_of_data.md": {
        "generated": generated,
        "posterior": posterior,
        "conditional": conditional,
    },
    "fields.md": {"free_field": free_field, "torus": torus, "phi4": phi4},
}


def replaced(page, tables=PAGES["results.md"], results=RESULTS):
    """The text of a page, with each table between its two markers replaced."""
    for name, table in tables.items():
        start, end = f"<!-- {name}: written by report.py -->", f"<!-- end of {name} -->"
        pattern = re.escape(start) + ".*?" + re.escape(end)
        text = f"{start}\n\n{table(results)}\n\n{end}"
        page, count = re.subn(pattern, lambda _, text=text: text, page, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page has {count} times {start} ... {end}, and needs it once")
    return page


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--write", type=Path, metavar="PAGE", help=f"the page with tables: {' or '.join(PAGES)}")
    page = parser.parse_args().write
    if page and page.name not in PAGES:
        parser.error(f"--write takes {' or '.join(PAGES)}; got {page}")
    if page:
        write(page, replaced(page.read_text(), PAGES[page.name]))
    else:
        tables = [table() for tables in PAGES.values() for table in tables.values()]
        print("\n\n".join(tables))


if __name__ == "__main__":
    run_command(main)
