"""How often surrogates mistake a continuum for types, and how often they find planted types.

Readouts of several seeds are simulated: neurons have a place in a continuum, or a type, and each seed has its own
channels and noise. They are clustered, and so are their surrogates. Where there are no types, the p value should be at
most 0.05 in about 5 % of the simulations. Scenarios named "study" have the tuning that ``december_plugin.simulate``
plants, which each seed sees rotated and with noise.

``python studies/surrogates/null_validity.py`` adds the simulations that are missing to ``results/null_validity.csv``
and writes the table in ``docs/validation.md``; ``--help`` lists the settings.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.evaluation.agreement import SIGNIFICANT
from december_plugin.evaluation.null import SurrogateReadouts, agreements_of, null_band
from december_plugin.evaluation.valleys import LEAST_EXCESS, valleys_between
from december_plugin.simulate.image_model import TYPE_SIZES
from december_plugin.simulate.population import Population, neurons_per_type, type_tuning_of

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results/null_validity.csv", HERE.parents[1] / "docs/validation.md"
BEGIN = "<!-- begin null validity: written by studies/surrogates/null_validity.py -->\n"
END = "<!-- end null validity -->"
N_CHANNELS, N_LATENT, N_FEATURES = 16, 6, 8
MARMOSET = (78, 40, 22, 5)
SPREAD, GAIN_SD = 0.6, 0.2  # of the study's types and neurons
NOISE = 0.35  # of a seed, in the study's scenarios, times the neuron's own factor
KINDS = ("elliptical", "planar", "axial")
METHODS = (*KINDS, "combined")
OF_VALLEYS = ("elliptical", "combined")  # surrogates with whose valleys those of the clusters are compared
Rng = np.random.Generator
Readouts = list[np.ndarray]


def _per_seed(places: np.ndarray, n_seeds: int, rng: Rng, *, noise: float = 0.3) -> Readouts:
    """Return readouts (N, N_CHANNELS) of every seed: the places in the seed's own channels, and noise."""
    readouts = []
    for _ in range(n_seeds):
        channels = rng.standard_normal((places.shape[1], N_CHANNELS)) / np.sqrt(places.shape[1])
        readouts.append(places @ channels + noise * rng.standard_normal((len(places), N_CHANNELS)))
    return readouts


def _strengths(n: int, rng: Rng) -> np.ndarray:
    return np.exp(0.7 * rng.standard_normal((n, 1)))


def normal(n: int, n_seeds: int, rng: Rng) -> Readouts:
    """Simulate normal readouts."""
    return _per_seed(rng.standard_normal((n, N_LATENT)), n_seeds, rng)


def heavy_tails(n: int, n_seeds: int, rng: Rng) -> Readouts:
    """Simulate normal readouts, times the neuron's own strength, which all seeds share."""
    strengths = _strengths(n, rng)
    return [strengths * readout for readout in normal(n, n_seeds, rng)]


def cone(n: int, n_seeds: int, rng: Rng) -> Readouts:
    """Simulate readouts around a mean direction, times the neuron's own strength."""
    strengths = _strengths(n, rng)
    return [strengths * (1.0 + 0.7 * readout) for readout in normal(n, n_seeds, rng)]


def rectified(n: int, n_seeds: int, rng: Rng) -> Readouts:
    """Simulate readouts without negative weights: half of the weights are near 0, in each channel of other neurons."""
    return [np.maximum(readout, 0.05 * rng.standard_normal(readout.shape)) for readout in normal(n, n_seeds, rng)]


def ring(n: int, n_seeds: int, rng: Rng) -> Readouts:
    """Simulate readouts evenly around a circle: a continuum with a hole, which is not elliptical."""
    angle = rng.uniform(0, 2 * np.pi, n)
    return _per_seed(np.sqrt(2) * np.column_stack([np.cos(angle), np.sin(angle)]), n_seeds, rng, noise=0.2)


def types(distance: float) -> Callable[[int, int, Rng], Readouts]:
    """Return five types of equal size around centres at this distance (in standard deviations within a type)."""

    def simulate(n: int, n_seeds: int, rng: Rng) -> Readouts:
        centers = rng.standard_normal((5, N_LATENT))
        centers *= distance / np.sqrt(2 * N_LATENT)
        return _per_seed(centers[np.arange(n) % 5] + rng.standard_normal((n, N_LATENT)), n_seeds, rng)

    return simulate


def study(kind: str, sizes: Sequence[float] = TYPE_SIZES) -> Callable[[int, int, Rng], Readouts]:
    """Return the tuning of a simulated population, rotated in every seed, with noise that differs between neurons."""

    def simulate(n: int, n_seeds: int, rng: Rng) -> Readouts:
        seed = int(rng.integers(2**31))
        tuning = type_tuning_of(len(sizes), N_FEATURES, seed)
        counts = neurons_per_type(sizes, n)
        places = Population.draw(counts, tuning, SPREAD, GAIN_SD, 0.0, (16, 16), seed, kind=kind).tuning
        noise = NOISE * np.exp(0.4 * rng.standard_normal((n, 1)))
        readouts = []
        for _ in range(n_seeds):
            turn = np.linalg.qr(rng.standard_normal((N_CHANNELS, N_CHANNELS)))[0][:N_FEATURES]
            seen = places + noise * rng.standard_normal(places.shape)
            readouts.append(seen @ turn + 0.1 * rng.standard_normal((n, N_CHANNELS)))
        return readouts

    return simulate


# Name: simulation, number of clusters.
SCENARIOS: dict[str, tuple[Callable[[int, int, Rng], Readouts], int]] = {
    "study: ring": (study("ring"), 6),
    "study: sparse continuum": (study("sparse"), 6),
    "study: continuum": (study("continuum"), 6),
    "study: unequal types": (study("types", MARMOSET), 4),
    "study: types": (study("types"), 6),
    "continuum, ring": (ring, 5),
    "continuum, heavy tails": (heavy_tails, 5),
    "continuum, cone": (cone, 5),
    "continuum, normal": (normal, 5),
    "continuum, rectified": (rectified, 5),
    "types, 2 SD apart": (types(2.0), 5),
    "types, 3 SD apart": (types(3.0), 5),
    "types, 5 SD apart": (types(5.0), 5),
}
FIRST = 100  # simulation; those before it were used up for choosing how valleys are measured, and how deep they must be
DESIGN = ["scenario", "directions", "n_seeds", "n_neurons", "n_draws", "clustering"]


def p_values(readouts: Readouts, *, clustering: str, n_clusters: int, n_draws: int) -> dict[str, float]:
    """Return the p value of the agreement by method of surrogates; the combined one takes the draws of its kinds.

    For some also the p value of the valleys, and how many times as deep as those of surrogates they are.
    """
    settings = {"n_init": 1}

    def found(vectors: Readouts) -> tuple[float, float]:
        """Return the agreement between seeds and the valleys between clusters, means over pairs and over seeds."""
        labels = [cluster_readouts(own, method=clustering, n_clusters=n_clusters, **settings).labels for own in vectors]
        return float(agreements_of(labels).mean()), float(valleys_between(vectors, labels).mean())

    observed = found(readouts)
    drawn = np.empty((len(KINDS), n_draws, 2))
    for place, kind in enumerate(KINDS):
        surrogates = SurrogateReadouts(readouts, method=kind)
        drawn[place] = [found(surrogates.draw(number).readouts) for number in range(n_draws)]
    null = {**dict(zip(KINDS, drawn, strict=True)), "combined": drawn.max(axis=0)}
    values = {method: null_band(null[method][:, 0], observed[0]).p_value for method in METHODS}
    for method in OF_VALLEYS:
        band = null_band(null[method][:, 1], observed[1])
        values |= {f"valleys, {method}": band.p_value, f"excess, {method}": observed[1] / band.mean}
    return values


def simulation(
    name: str, number: int, *, directions: bool, n_seeds: int, n_neurons: int, n_draws: int, clustering: str
) -> dict[str, object]:
    """Return one row of the results: the settings, the simulation's number, the p value of every method."""
    simulate, n_clusters = SCENARIOS[name]
    place = list(SCENARIOS).index(name)
    readouts = simulate(n_neurons, n_seeds, np.random.default_rng([place, number]))
    if directions:
        readouts = [own / np.linalg.norm(own, axis=1, keepdims=True) for own in readouts]
    about = dict(zip(DESIGN, (name, directions, n_seeds, n_neurons, n_draws, clustering), strict=True))
    found = p_values(readouts, clustering=clustering, n_clusters=n_clusters, n_draws=n_draws)
    return {**about, "simulation": number, **found}


def table(results: pd.DataFrame) -> str:
    """Return a markdown table: in how many simulations p is at most 0.05, and valleys are deep, by scenario."""
    header = ["simulated", "vectors", "seeds", "neurons", "simulations", *(f"`{method}`" for method in METHODS)]
    header += [f"valleys, `{method}`" for method in OF_VALLEYS]
    lines = [header, ["---"] * len(header)]
    order = {name: place for place, name in enumerate(SCENARIOS)}
    groups = sorted(results.groupby(DESIGN), key=lambda group: (group[0][1], group[0][2], order[group[0][0]]))
    for (name, directions, n_seeds, n_neurons, *_), own in groups:
        shares = [f"{100 * np.mean(own[method] <= 0.05 + 1e-9):.0f} %" for method in METHODS]
        for method in OF_VALLEYS:
            # None of these is deep merely because little of the density is left.
            deep = (own[f"excess, {method}"] >= LEAST_EXCESS) & (own[f"valleys, {method}"] <= SIGNIFICANT)
            shares.append(f"{100 * np.mean(deep):.0f} %")
        what = "directions" if directions else "as they are"
        lines.append([name, what, str(n_seeds), str(n_neurons), str(len(own)), *shares])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def filled(page: str, results: pd.DataFrame) -> str:
    """Return the page with the table in its block; an error if it does not have exactly one."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    page, count = pattern.subn(lambda _: f"{BEGIN}\n{table(results)}\n\n{END}", page)
    if count != 1:
        raise SystemExit(f"the page has {count} blocks for this table; write one: {BEGIN.strip()} {END}")
    return page


def main() -> None:
    """Simulate what is missing, keep it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=100, help="of each scenario (%(default)s)")
    parser.add_argument("--neurons", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=19)
    parser.add_argument("--clustering", default="kmeans", choices=("kmeans", "t_mixture", "gmm"))
    parser.add_argument("--directions", action="store_true", help="vectors of length 1")
    parser.add_argument("--only", nargs="+", default=[""], help="scenarios whose name begins with one of these")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing after so many minutes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="(%(default)s)")
    parser.add_argument("--page", type=Path, default=PAGE, help="(%(default)s)")
    arguments = parser.parse_args()
    design = {"directions": arguments.directions, "n_seeds": arguments.seeds, "n_neurons": arguments.neurons}
    design |= {"n_draws": arguments.draws, "clustering": arguments.clustering}
    chosen = [name for name in SCENARIOS if name.startswith(tuple(arguments.only))]
    results = pd.read_csv(arguments.results) if arguments.results.exists() else pd.DataFrame(columns=DESIGN)
    began = time.monotonic()
    # Some of every scenario in each round, so that an interrupted study has results for all.
    for number in range(FIRST, FIRST + arguments.simulations):
        for name in chosen:
            about = {"scenario": name, **design, "simulation": number}
            known = not results.empty and (results[list(about)] == pd.Series(about)).all(axis=1).any()
            if known or time.monotonic() - began > 60 * arguments.minutes:
                continue
            row = pd.DataFrame([simulation(name, number, **design)])
            results = row if results.empty else pd.concat([results, row], ignore_index=True)
            arguments.results.parent.mkdir(parents=True, exist_ok=True)
            results.to_csv(arguments.results, index=False, float_format="%.6f", lineterminator="\n")
    if arguments.page.exists():
        arguments.page.write_text(filled(arguments.page.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
