"""How far the confidences of post hoc mixtures, and stabilities across seeds, can be trusted on planted types.

Run it with ``python studies/surrogates/confidence_calibration.py``; it prints a table.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.evaluation.calibration import calibration
from december_plugin.evaluation.consensus import consensus_partition

N_TYPES, N_LATENT, N_SEEDS = 5, 6, 5


def main() -> None:
    """Simulate, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=10)
    parser.add_argument("--neurons", type=int, default=500)
    arguments = parser.parse_args()
    rows = []
    for width in (16, 64):
        for distance in (2.0, 3.0, 5.0):
            for method in ("gmm", "t_mixture"):
                found = [
                    _simulation(arguments.neurons, width, distance, method, number)
                    for number in range(arguments.simulations)
                ]
                setting = {"channels": width, "distance": distance, "method": method}
                rows.append(setting | pd.DataFrame(found).mean().to_dict())
                print(
                    *(f"{value:.3g}" if isinstance(value, float) else value for value in rows[-1].values()), flush=True
                )
    print(pd.DataFrame(rows).round(3).to_string(index=False))


def _simulation(n: int, width: int, distance: float, method: str, number: int) -> dict[str, float]:
    rng = np.random.default_rng([width, int(10 * distance), number])
    types = np.arange(n) % N_TYPES
    centers = distance / np.sqrt(2 * N_LATENT) * rng.standard_normal((N_TYPES, N_LATENT))
    places = centers[types] + rng.standard_normal((n, N_LATENT))
    labels, single = [], []
    for _ in range(N_SEEDS):
        channels = rng.standard_normal((N_LATENT, width)) / np.sqrt(N_LATENT)
        readouts = places @ channels + 0.3 * rng.standard_normal((n, width))
        clustered = cluster_readouts(readouts, method=method, n_clusters=N_TYPES, n_init=1)
        labels.append(clustered.labels)
        single.append((clustered.confidences.mean(), calibration(clustered.labels, clustered.confidences, types)))
    consensus = consensus_partition(labels)
    stability = calibration(consensus.clusters, consensus.stability, types)
    return {
        "confidence": float(np.mean([confidence for confidence, _ in single])),
        "accuracy": float(np.mean([found.accuracy for _, found in single])),
        "error of confidence": float(np.mean([found.expected_calibration_error for _, found in single])),
        "stability": float(consensus.stability.mean()),
        "accuracy of consensus": stability.accuracy,
        "error of stability": stability.expected_calibration_error,
    }


if __name__ == "__main__":
    main()
