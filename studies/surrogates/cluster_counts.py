"""Which number of clusters the criteria agree on, on six planted types and on continua.

Run it with ``python studies/surrogates/cluster_counts.py``; it prints a line per simulation and method as soon as it is
computed. A simulation of one scenario takes a minute or two on a free core.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd

from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.evaluation.agreement import compare_partitions
from december_plugin.evaluation.model_selection import (
    bayesian_information_criterion,
    held_out_log_likelihood,
    silhouette,
)
from december_plugin.evaluation.null import null_agreement, null_band
from december_plugin.findings.cluster_counts import CURVE, choose_cluster_count

N_NEURONS, N_TYPES, N_SEEDS, N_CHANNELS, N_LATENT, N_DRAWS = 300, 6, 3, 16, 6, 20
COUNTS = (2, 3, 4, 5, 6, 7, 8, 10)
SETTINGS = {"kmeans": {"n_init": 3}, "t_mixture": {"n_init": 1}}
Rng = np.random.Generator


def _per_seed(latent: np.ndarray, rng: Rng) -> list[np.ndarray]:
    """Return the latent vectors as every seed sees them: in its own channels, with its own noise."""
    found = []
    for _ in range(N_SEEDS):
        own = np.random.default_rng(rng.integers(2**31))
        rotation, _ = np.linalg.qr(own.standard_normal((N_CHANNELS, N_CHANNELS)))
        vectors = np.zeros((len(latent), N_CHANNELS))
        vectors[:, :N_LATENT] = latent
        found.append((vectors + 0.3 * own.standard_normal(vectors.shape)) @ rotation)
    return found


def types(distance: float) -> Callable[[Rng], list[np.ndarray]]:
    """Return six types of equal size, their centres at this distance (in standard deviations within a type)."""

    def simulate(rng: Rng) -> list[np.ndarray]:
        centers = rng.standard_normal((N_TYPES, N_LATENT)) * distance / np.sqrt(2 * N_LATENT)
        members = np.arange(N_NEURONS) % N_TYPES
        return _per_seed(centers[members] + rng.standard_normal((N_NEURONS, N_LATENT)), rng)

    return simulate


def continuum(spread: float) -> Callable[[Rng], list[np.ndarray]]:
    """Return a normal cloud with axes of different lengths; ``spread`` is the spread of the neurons' strengths."""

    def simulate(rng: Rng) -> list[np.ndarray]:
        latent = rng.standard_normal((N_NEURONS, N_LATENT)) * np.linspace(2, 0.5, N_LATENT)
        if spread:
            latent *= np.exp(spread * rng.standard_normal((N_NEURONS, 1)))
        return _per_seed(latent, rng)

    return simulate


# Name to the simulation and a number for its random state.
SCENARIOS: dict[str, tuple[Callable[[Rng], list[np.ndarray]], int]] = {
    "six types, 5 SD apart": (types(5), 81),
    "six types, 7 SD apart": (types(7), 83),
    "six types, 10 SD apart": (types(10), 83),
    "continuum, normal": (continuum(0.0), 150),
    "continuum, heavy tails": (continuum(0.5), 156),
}


def criteria(readouts: list[np.ndarray], method: str) -> pd.DataFrame:
    """Return the criteria at every K, as ``cluster_count_table`` has them."""
    described = dict.fromkeys(CURVE, "") | {"method": method, "label": method, "n_models": N_SEEDS}
    return pd.DataFrame([_row(readouts, method, count) | described for count in COUNTS])


def _row(readouts: list[np.ndarray], method: str, count: int) -> dict[str, float]:
    def cluster(vectors: np.ndarray, _: int = 0) -> np.ndarray:
        return cluster_readouts(vectors, method=method, n_clusters=count, **SETTINGS[method]).labels

    fits = [cluster_readouts(vectors, method=method, n_clusters=count, **SETTINGS[method]) for vectors in readouts]
    pairs = itertools.combinations(fits, 2)
    agreement = [compare_partitions(a.labels, b.labels).adjusted_rand_index for a, b in pairs]
    observed = float(np.mean(agreement))
    null = null_band(null_agreement(readouts, cluster, n_draws=N_DRAWS).agreements.mean(axis=1), observed)
    silhouettes = [silhouette(vectors, fit.labels) for vectors, fit in zip(readouts, fits, strict=True)]
    row = {"n_clusters": count, "agreement_mean": observed, "agreement_sd": float(np.std(agreement, ddof=1))}
    row |= {"above_null_mean": observed - null.mean, "above_null_sd": null.sd, "p_value": null.p_value}
    row |= _mean_sd("silhouette", silhouettes)
    if method == "kmeans":
        return row
    held_out = [held_out_log_likelihood(vectors, method=method, n_clusters=count) for vectors in readouts]
    shape = {"n_neurons": N_NEURONS, "n_features": N_CHANNELS, "n_clusters": count, "weights": "uniform"}
    bics = [bayesian_information_criterion(fit.log_likelihood or np.nan, **shape) for fit in fits]
    row |= _mean_sd("heldout_log_likelihood", [each.mean for each in held_out]) | _mean_sd("bic", bics)
    return row | {"heldout_log_likelihood_se": float(np.mean([each.standard_error for each in held_out]))}


def _mean_sd(name: str, values: list[float]) -> dict[str, float]:
    return {f"{name}_mean": float(np.mean(values)), f"{name}_sd": float(np.std(values, ddof=1))}


def main() -> None:
    """Simulate, and print what the criteria say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2)
    parser.add_argument("--only", default="", help="scenarios whose name begins with this")
    arguments = parser.parse_args()
    for number in range(arguments.simulations):
        for name, (simulate, state) in SCENARIOS.items():
            if not name.startswith(arguments.only):
                continue
            readouts = simulate(np.random.default_rng([number, state]))
            for method in SETTINGS:
                (row,) = choose_cluster_count(criteria(readouts, method)).to_dict("records")
                print(f"{name}, simulation {number + 1}, {method}: {row['statement']}", flush=True)


if __name__ == "__main__":
    main()
