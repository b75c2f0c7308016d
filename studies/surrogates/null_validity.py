"""How often surrogates call a continuum types, and how often they find planted types.

Readouts of two seeds are simulated: neurons have a place in a continuum, or a type, and each seed has its own channels.
They are clustered, and so are their surrogates. Where there are no types, the p value should be at most 0.05 in about
5 % of the simulations. Run it with ``python studies/surrogates/null_validity.py``; ``--help`` lists the settings.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.evaluation.agreement import compare_partitions
from december_plugin.evaluation.null import SURROGATE_METHODS, null_agreement, null_band

N_SEEDS, N_CHANNELS, N_LATENT = 2, 16, 6
Rng = np.random.Generator


def _per_seed(places: np.ndarray, rng: Rng, *, noise: float = 0.3) -> list[np.ndarray]:
    """Return readouts (N, N_CHANNELS) of every seed: the places in channels of the seed's own, and noise."""
    readouts = []
    for _ in range(N_SEEDS):
        channels = rng.standard_normal((places.shape[1], N_CHANNELS)) / np.sqrt(places.shape[1])
        readouts.append(places @ channels + noise * rng.standard_normal((len(places), N_CHANNELS)))
    return readouts


def _strengths(n: int, rng: Rng) -> np.ndarray:
    return np.exp(0.7 * rng.standard_normal((n, 1)))


def normal(n: int, rng: Rng) -> list[np.ndarray]:
    """Simulate normal readouts."""
    return _per_seed(rng.standard_normal((n, N_LATENT)), rng)


def heavy_tails(n: int, rng: Rng) -> list[np.ndarray]:
    """Simulate normal readouts, times a strength of the neuron's own that all seeds share."""
    strengths = _strengths(n, rng)
    return [strengths * readout for readout in normal(n, rng)]


def cone(n: int, rng: Rng) -> list[np.ndarray]:
    """Simulate readouts around a mean direction, times a strength of the neuron's own."""
    strengths = _strengths(n, rng)
    return [strengths * (1.0 + 0.7 * readout) for readout in normal(n, rng)]


def rectified(n: int, rng: Rng) -> list[np.ndarray]:
    """Simulate readouts without negative weights: half of the weights are near 0, in each channel of other neurons."""
    return [np.maximum(readout, 0.05 * rng.standard_normal(readout.shape)) for readout in normal(n, rng)]


def ring(n: int, rng: Rng) -> list[np.ndarray]:
    """Simulate readouts evenly around a circle: a continuum with a hole, which is not elliptical."""
    angle = rng.uniform(0, 2 * np.pi, n)
    return _per_seed(np.sqrt(2) * np.column_stack([np.cos(angle), np.sin(angle)]), rng, noise=0.2)


def types(distance: float) -> Callable[[int, Rng], list[np.ndarray]]:
    """Return five types of equal size around centres at this distance (in standard deviations within a type)."""

    def simulate(n: int, rng: Rng) -> list[np.ndarray]:
        centers = rng.standard_normal((5, N_LATENT))
        centers *= distance / np.sqrt(2 * N_LATENT)
        return _per_seed(centers[np.arange(n) % 5] + rng.standard_normal((n, N_LATENT)), rng)

    return simulate


SCENARIOS: dict[str, Callable[[int, Rng], list[np.ndarray]]] = {
    "continuum, normal": normal,
    "continuum, heavy tails": heavy_tails,
    "continuum, cone": cone,
    "continuum, rectified": rectified,
    "continuum, ring": ring,
    "types, 2 SD apart": types(2.0),
    "types, 3 SD apart": types(3.0),
    "types, 5 SD apart": types(5.0),
}


def p_value(readouts: list[np.ndarray], *, clustering: str, n_clusters: int, n_draws: int, method: str) -> float:
    """Return the p value of the agreement between two seeds."""
    settings = {"n_init": 3 if clustering == "kmeans" else 1}

    def cluster(vectors: np.ndarray, _: int) -> np.ndarray:
        return cluster_readouts(vectors, method=clustering, n_clusters=n_clusters, **settings).labels

    observed = compare_partitions(*(cluster(readout, 0) for readout in readouts)).adjusted_rand_index
    null = null_agreement(readouts, cluster, n_draws=n_draws, method=method)
    return null_band(null.agreements.mean(axis=1), observed).p_value


def main() -> None:
    """Simulate, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--neurons", type=int, default=300)
    parser.add_argument("--draws", type=int, default=19)
    parser.add_argument("--clusters", type=int, default=5)
    parser.add_argument("--clustering", default="kmeans", choices=("kmeans", "t_mixture", "gmm"))
    parser.add_argument("--only", default="", help="scenarios whose name begins with this")
    arguments = parser.parse_args()
    rows = []
    for number, (name, simulate) in enumerate(SCENARIOS.items()):
        if not name.startswith(arguments.only):
            continue
        start, found = time.monotonic(), {method: [] for method in SURROGATE_METHODS}
        for simulation in range(arguments.simulations):
            readouts = simulate(arguments.neurons, np.random.default_rng([number, simulation]))
            for method, values in found.items():
                settings = {"n_clusters": arguments.clusters, "n_draws": arguments.draws, "method": method}
                values.append(p_value(readouts, clustering=arguments.clustering, **settings))
        for method, values in found.items():
            row = {"scenario": name, "surrogates": method, "p <= 0.05": np.mean(np.array(values) <= 0.05)}
            rows.append(row | {"p <= 0.5": np.mean(np.array(values) <= 0.5), "mean p": np.mean(values)})
            print(*row.values(), f"{time.monotonic() - start:.0f} s", sep="  ", flush=True)
    print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
