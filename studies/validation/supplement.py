"""Additional questions to the central conditions: the t mixture with learned weights, and the null of surrogates.

``python studies/validation/supplement.py --folder build/validation``, during or after ``run.py``; it can be resumed,
too.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from cells import prepared, result_path, supplement_path, unclustered, write_result
from design import BASELINE, CONTROL, LEARNED, Condition, conditions, quick_conditions

from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.embeddings.readout_vectors import readout_embeddings
from december_plugin.evaluation.agreement import agreement_across_seeds
from december_plugin.evaluation.null import null_agreement, null_band

NULLS = "nulls.csv"
N_DRAWS, QUICK_DRAWS = 39, 3


def run_supplement(folder: Path, condition: Condition, seed: int) -> Path:
    """Cluster the readouts of control and baseline by a t mixture with learned weights, and keep the baseline's."""
    target = supplement_path(result_path(folder, condition, seed))
    if target.exists():
        return target
    loaders, truth = prepared(folder, condition)
    arrays, scores = {}, []
    for role in (CONTROL, BASELINE):
        score, state = unclustered(condition, loaders, seed, role)
        vectors = readout_embeddings(state).vectors
        for count in condition.n_clusters:
            found = cluster_readouts(vectors, method="t_mixture", n_clusters=count, weights="learned")
            arrays[f"labels_{len(scores)}"] = found.labels.astype(np.int16)
            scores.append({"role": role, "variant": LEARNED, "method": "t_mixture", "n_clusters": count, **score})
        if role == BASELINE:
            arrays["readouts"] = vectors.astype(np.float32)
    write_result(target, about=json.dumps({"scores": scores}), truth=truth, **arrays)
    return target


def null_rows(folder: Path, condition: Condition, n_draws: int) -> list[dict[str, object]]:
    """Compare the agreement between seeds of k-means on the baselines' readouts with that on surrogates, for each K."""
    paths = [supplement_path(result_path(folder, condition, seed)) for seed in condition.seeds]
    readouts = []
    for path in paths:
        if path.exists():
            with np.load(path) as saved:
                readouts.append(saved["readouts"].astype(np.float64))
    if len(readouts) < 2:
        return []
    rows: list[dict[str, object]] = []
    for count in condition.n_clusters:

        def cluster(vectors: np.ndarray, _: int, count: int = count) -> np.ndarray:
            return cluster_readouts(vectors, method="kmeans", n_clusters=count).labels

        labels = {seed: cluster(vectors, seed) for seed, vectors in enumerate(readouts)}
        observed = agreement_across_seeds(labels).mean.adjusted_rand_index
        null = null_agreement(readouts, cluster, n_draws=n_draws)
        band = null_band(null.agreements.mean(axis=1), observed)
        about = {"population": condition.population, "method": "kmeans", "n_clusters": count, "n_seeds": len(readouts)}
        values = {"seeds_mean": observed, "null_mean": band.mean, "null_low": band.low, "null_high": band.high}
        rows.append({**about, "n_draws": n_draws, **values, "p_value": band.p_value})
    return rows


def main() -> int:
    """Run what is left of the supplement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/validation"), help="that of run.py (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="for run.py --quick")
    args = parser.parse_args()
    folder, chosen = args.folder.resolve(), quick_conditions() if args.quick else conditions()
    central = [condition for condition in chosen if condition.factor == "central"]
    for place in range(max(len(condition.seeds) for condition in central)):
        for condition in central:
            if place < len(condition.seeds):
                print(run_supplement(folder, condition, condition.seeds[place]).name, flush=True)
    draws = QUICK_DRAWS if args.quick else N_DRAWS
    rows = [row for condition in central for row in null_rows(folder, condition, draws)]
    pd.DataFrame(rows).to_csv(folder / NULLS, index=False, float_format="%.6f", lineterminator="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
