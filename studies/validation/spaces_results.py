"""The numbers of the study of spaces as one small table, and intervals over recordings.

Recordings are the independent units: model seeds of one recording share its neurons and images. So scores are means
over the model seeds, or the pairs of seeds, of each recording, and intervals come from resampling recordings, with
replacement, as many as there are of each population (the bootstrap, percentiles).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from design import Condition
from spaces_cells import december_path, embeddings_path, labels_path
from spaces_design import TRAININGS, Population, draws_of

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.evaluation.agreement import compare_partitions

KEY = ["population", "draw", "role", "space", "method"]
TABLE = "spaces.csv"
DECEMBER = "december"
N_BOOTSTRAP = 4_000
FEWEST = 3  # recordings for an interval
LEVEL = 95.0
QUANTITIES = ("truth", "seeds")
Found = dict[int, np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A mean over recordings with a 95 % interval, NaN where there are too few."""

    mean: float
    low: float
    high: float
    n_recordings: int

    @property
    def verdict(self) -> str:
        """Whether the interval of a difference excludes 0: "higher", "lower", "open" or "-"."""
        if np.isnan(self.low):
            return "-"
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "open"


def collect(folder: Path, populations: Sequence[Population]) -> pd.DataFrame:
    """Return one row per recording and clustering.

    Columns are those of ``KEY``; ``truth``, mean over model seeds of the ARI to the planted types, NaN without types;
    ``seeds``, mean over pairs of model seeds of the ARI, both over the neurons that have a cluster; ``n_found``, the
    mean number of clusters with neurons; ``clustered``, the mean share of neurons that have a cluster;
    ``test_correlation`` and ``n_seeds``.
    """
    rows = []
    for population in populations:
        for draw in draws_of(population):
            for (role, space, method), (labels, correlations, truth) in _clusterings(folder, draw).items():
                pairs = [_agreement(a, b) for a, b in itertools.combinations(labels.values(), 2)]
                planted = truth >= 0
                to_truth = [_agreement(own[planted], truth[planted]) for own in labels.values() if planted.any()]
                rows.append(
                    {
                        **dict(zip(KEY, (population.name, int(draw.level), role, space, method), strict=True)),
                        "truth": np.mean(to_truth) if to_truth else np.nan,
                        "seeds": np.mean(pairs) if pairs else np.nan,
                        "n_found": np.mean([len(np.unique(own[own != NO_CLUSTER])) for own in labels.values()]),
                        "clustered": np.mean([np.mean(own != NO_CLUSTER) for own in labels.values()]),
                        "test_correlation": np.mean(correlations),
                        "n_seeds": len(labels),
                    }
                )
    return pd.DataFrame(rows, columns=[*KEY, *QUANTITIES, "n_found", "clustered", "test_correlation", "n_seeds"])


def _agreement(a: np.ndarray, b: np.ndarray) -> float:
    return compare_partitions(a, b, no_cluster=NO_CLUSTER).adjusted_rand_index


def _clusterings(folder: Path, draw: Condition) -> dict[tuple[str, str, str], tuple[Found, list[float], np.ndarray]]:
    """Return by role, space and method: labels by model seed, test correlations, planted types."""
    found: dict[tuple[str, str, str], tuple[Found, list[float], np.ndarray]] = {}
    for seed in draw.seeds:
        for key, labels, correlation, truth in _of_cell(folder, draw, seed):
            of_seed, correlations, _ = found.setdefault(key, ({}, [], truth))
            of_seed[seed] = labels
            correlations.append(correlation)
    return found


def _of_cell(
    folder: Path, draw: Condition, seed: int
) -> Iterator[tuple[tuple[str, str, str], np.ndarray, float, np.ndarray]]:
    if labels_path(folder, draw, seed).exists():
        with np.load(embeddings_path(folder, draw, seed)) as cell, np.load(labels_path(folder, draw, seed)) as labels:
            truth = cell["truth"]
            for key in labels.files:
                role, space, method = key.split("|")
                yield (role, space, method), labels[key], float(cell[f"{role}_test_correlation"]), truth
    for training in TRAININGS:
        path = december_path(folder, draw, seed, training)
        if path.exists():
            with np.load(path) as cell:
                name = training.name.removeprefix(f"{training.space.phrase}, ")
                key = (DECEMBER, training.space.phrase, f"DECEMber, {name}")
                yield key, cell["labels"], float(cell["test_correlation"]), cell["truth"]


def save(table: pd.DataFrame, folder: Path) -> None:
    """Write the table, rounded to six digits after the point."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / TABLE, index=False, float_format="%.6f", lineterminator="\n")


def load(folder: Path) -> pd.DataFrame:
    """Read what :func:`save` wrote."""
    return pd.read_csv(folder / TABLE)


def over_recordings(values: pd.Series, seed: int = 0) -> Estimate:
    """Return the mean over recordings, whose index begins with the population, with an interval by the bootstrap.

    Each population counts by its number of recordings; recordings are resampled within their population.
    """
    values = values.dropna()
    n = len(values)
    if not n:
        return Estimate(np.nan, np.nan, np.nan, 0)
    if n < FEWEST:
        return Estimate(float(values.mean()), np.nan, np.nan, n)
    rng, total = np.random.default_rng(seed), np.zeros(N_BOOTSTRAP)
    for _, own in values.groupby(level="population", sort=True):
        drawn = rng.integers(len(own), size=(N_BOOTSTRAP, len(own)))
        total += own.to_numpy()[drawn].sum(axis=1)
    low, high = np.percentile(total / n, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Estimate(float(values.mean()), float(low), float(high), n)


def values_of(
    table: pd.DataFrame, populations: Sequence[str], chosen: tuple[str, str, str], quantity: str
) -> pd.Series:
    """Return a quantity of one clustering (role, space, method) by population and draw; may be empty."""
    role, space, method = chosen
    rows = table[
        table["population"].isin(populations)
        & (table["role"] == role)
        & (table["space"] == space)
        & (table["method"] == method)
    ]
    return rows.set_index(["population", "draw"])[quantity]


def difference(
    table: pd.DataFrame,
    populations: Sequence[str],
    first: tuple[str, str, str],
    second: tuple[str, str, str],
    quantity: str,
) -> Estimate:
    """Return the first clustering minus the second, paired by recording."""
    own, other = (values_of(table, populations, each, quantity) for each in (first, second))
    return over_recordings((own - other).dropna())


def mean_of(table: pd.DataFrame, populations: Sequence[str], chosen: tuple[str, str, str], quantity: str) -> Estimate:
    """Return the mean of a quantity of one clustering."""
    return over_recordings(values_of(table, populations, chosen, quantity))
