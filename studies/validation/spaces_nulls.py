"""Whether k-means agrees more between the model seeds of one recording, and has deeper valleys, than on surrogates."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
from design import BASELINE, Condition
from spaces_cells import embedded, embeddings_path
from spaces_design import Population, draws_of

from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.evaluation.agreement import agreement_across_seeds
from december_plugin.evaluation.null import null_agreement, null_band
from december_plugin.evaluation.valleys import valleys_between

N_DRAWS = 19
N_RESTARTS = 3
METHODS = ("elliptical", "combined")
SHOWN = ("readout vectors", "functional, direction")
TABLE = "spaces_nulls.csv"


def null_path(folder: Path, draw: Condition) -> Path:
    """Return where the p values of a recording are kept."""
    return folder / "nulls" / f"{draw.name}.json"


def null_draw(folder: Path, draw: Condition, n_draws: int = N_DRAWS) -> Path:
    """Keep agreement between seeds and p value of a recording in the spaces that are shown, by method of surrogates."""
    target = null_path(folder, draw)
    paths = [path for path in (embeddings_path(folder, draw, seed) for seed in draw.seeds) if path.exists()]
    if target.exists() or len(paths) < 2:
        return target
    by_space: dict[str, list[np.ndarray]] = {space: [] for space in SHOWN}
    for path in paths:
        with np.load(path) as cell:
            for space, vectors in embedded(cell, BASELINE).items():
                if space in by_space:
                    by_space[space].append(vectors)

    def cluster(vectors: np.ndarray, _: int) -> np.ndarray:
        found = cluster_readouts(vectors, method="kmeans", n_clusters=draw.n_clusters[0], n_init=N_RESTARTS)
        return found.labels

    rows = []
    for space, method in itertools.product(SHOWN, METHODS):
        readouts = by_space[space]
        labels = {seed: cluster(vectors, seed) for seed, vectors in enumerate(readouts)}
        observed = agreement_across_seeds(labels).mean.adjusted_rand_index
        null = null_agreement(readouts, cluster, n_draws=n_draws, method=method)
        band = null_band(null.agreements.mean(axis=1), observed)
        valleys = valleys_between(readouts, list(labels.values())).mean()
        of_valleys = null_band(null.valleys.mean(axis=1), valleys)
        rows.append(
            {
                "space": space,
                "surrogates": method,
                "n_seeds": len(readouts),
                "seeds": observed,
                "null_mean": band.mean,
                "null_high": band.high,
                "p_value": band.p_value,
                "valleys": valleys,
                "null_valleys": of_valleys.mean,
                "valleys_p_value": of_valleys.p_value,
            }
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(rows), encoding="utf-8")
    draft.rename(target)
    return target


def collect_nulls(folder: Path, populations: tuple[Population, ...]) -> pd.DataFrame:
    """Return one row for each recording, space and method of surrogates."""
    rows = [
        {"population": population.name, "draw": int(draw.level), **row}
        for population in populations
        for draw in draws_of(population)
        if null_path(folder, draw).exists()
        for row in json.loads(null_path(folder, draw).read_text(encoding="utf-8"))
    ]
    columns = ["population", "draw", "space", "surrogates", "n_seeds", "seeds", "null_mean", "null_high", "p_value"]
    return pd.DataFrame(rows, columns=[*columns, "valleys", "null_valleys", "valleys_p_value"])
