"""The study's numbers as two small tables: the scores of every clustering, and the agreement of every pair of seeds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cells import result_path, supplement_path
from design import BASELINE, CONTROL, LEARNED, Condition
from scipy import stats

from december_plugin.evaluation.agreement import compare_partitions

CONDITION = ["population", "factor", "level"]
CLUSTERING = ["role", "variant", "method", "n_clusters"]
KEY = [*CONDITION, *CLUSTERING]
NO_SCORES = pd.Series([], index=pd.Index([], name="seed"), dtype=float)
NO_PAIRS = pd.Series([], index=pd.MultiIndex.from_arrays([[], []], names=["seed_a", "seed_b"]), dtype=float)
Chosen = Mapping[str, Any]
SCORES, PAIRS = "scores.csv", "pairs.csv"
LEVEL = 0.95  # of intervals
FEWEST = 3  # seeds for an interval
DIGITS = 6
_NAMES = {"gmm": "Gaussian mixture", "kmeans": "k-means", "t_mixture": "t mixture"}


@dataclass(frozen=True)
class Results:
    """All results from which tables and figures are made.

    Attributes
    ----------
    scores
        One row per clustering: the columns of ``CONDITION`` and ``CLUSTERING``, ``seed``, ``test_correlation`` (mean
        over neurons, single trials), ``gradient_ratio`` (NaN without clustering loss), ``truth`` (ARI to the planted
        types, NaN on a continuum) and ``control`` (ARI to the control, k-means at the end of the same pretraining).
    pairs
        One row per pair of seeds: the same columns without the seed, ``seed_a``, ``seed_b``, ``ari``.
    """

    scores: pd.DataFrame
    pairs: pd.DataFrame

    def values(self, chosen: Chosen, quantity: str) -> pd.Series:
        """Return a quantity of one clustering by seed, or the agreements ("seeds") by pair of seeds; may be empty.

        ``chosen`` has the columns of ``CONDITION`` and ``CLUSTERING``.
        """
        key = tuple(chosen[name] for name in KEY)
        if quantity == "seeds":
            rows = self._pairs_by_key.get(key)
            index = ["seed_a", "seed_b"]
            return NO_PAIRS if rows is None else rows.set_index(index)["ari"].dropna()
        rows = self._scores_by_key.get(key)
        return NO_SCORES if rows is None else rows.set_index("seed")[quantity].dropna()

    @cached_property
    def _scores_by_key(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self.scores.groupby(KEY)))

    @cached_property
    def _pairs_by_key(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self.pairs.groupby(KEY)))


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds or over pairs of seeds, with a 95 % interval over seeds; NaN if there are too few seeds."""

    mean: float
    low: float
    high: float
    n_seeds: int

    def __str__(self) -> str:
        if np.isnan(self.mean):
            return "-"
        interval = "" if np.isnan(self.low) else f" [{_signed(self.low)}, {_signed(self.high)}]"
        return f"{_signed(self.mean)}{interval}"

    @property
    def verdict(self) -> str:
        """Whether the interval of a difference excludes 0: "higher", "lower", "open" or "-"."""
        if np.isnan(self.low):
            return "-"
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "open"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-0.000", "+0.000")


def label(role: str, variant: str, method: str) -> str:
    """Return the name of a clustering in tables and figures."""
    if role == "december":
        return f"DECEMber, {variant}"
    learned = f", {LEARNED}" if variant == LEARNED else ""
    return _NAMES[method] + learned + (", end of pretraining" if role == CONTROL else "")


def collect(folder: Path, conditions: Sequence[Condition]) -> Results:
    """Compute the tables from the finished cells in ``folder``."""
    scores, pairs = [], []
    for condition in conditions:
        about = {name: getattr(condition, name) for name in CONDITION}
        found: dict[tuple[Any, ...], dict[int, np.ndarray]] = {}
        for seed in condition.seeds:
            cells = [row for path in _paths(folder, condition, seed) for row in _clusterings(path)]
            kept = {row["n_clusters"]: own for row, own, _ in cells if _is(row, post_hoc(CONTROL, "kmeans"))}
            for row, labels, truth in cells:
                found.setdefault(tuple(row[name] for name in CLUSTERING), {})[seed] = labels
                planted = truth >= 0
                ari = compare_partitions(labels[planted], truth[planted]).adjusted_rand_index if planted.any() else None
                control = compare_partitions(labels, kept[row["n_clusters"]]).adjusted_rand_index
                scores.append({**about, **row, "seed": seed, "truth": ari, "control": control})
        for key, of_seed in found.items():
            row = {**about, **dict(zip(CLUSTERING, key, strict=True))}
            for a, b in itertools.combinations(of_seed, 2):
                ari = compare_partitions(of_seed[a], of_seed[b]).adjusted_rand_index
                pairs.append({**row, "seed_a": a, "seed_b": b, "ari": ari})
    return Results(
        pd.DataFrame(scores, columns=[*KEY, "seed", "test_correlation", "gradient_ratio", "truth", "control"]),
        pd.DataFrame(pairs, columns=[*KEY, "seed_a", "seed_b", "ari"]),
    )


def _paths(folder: Path, condition: Condition, seed: int) -> list[Path]:
    """Return the files of a cell; a supplement counts only together with its cell."""
    path = result_path(folder, condition, seed)
    return [each for each in (path, supplement_path(path)) if path.exists() and each.exists()]


def _is(row: dict[str, Any], chosen: Chosen) -> bool:
    return all(row[name] == value for name, value in chosen.items())


def _clusterings(path: Path) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    with np.load(path) as cell:
        rows = json.loads(str(cell["about"]))["scores"]
        truth = cell["truth"]
        for place, row in enumerate(rows):
            yield row, cell[f"labels_{place}"], truth


def save(results: Results, folder: Path) -> None:
    """Write both tables, rounded to six digits after the point."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in ((SCORES, results.scores), (PAIRS, results.pairs)):
        table.to_csv(folder / name, index=False, float_format=f"%.{DIGITS}f", lineterminator="\n")


def load(folder: Path) -> Results:
    """Read what :func:`save` wrote."""
    text = dict.fromkeys(["population", "factor", "level", "role", "variant", "method"], str)
    tables = (pd.read_csv(folder / name, dtype=text, keep_default_na=False, na_values={}) for name in (SCORES, PAIRS))
    scores, pairs = tables
    for column in ("test_correlation", "gradient_ratio", "truth", "control"):
        scores[column] = pd.to_numeric(scores[column])
    return Results(scores, pairs)


def over_seeds(values: pd.Series) -> Estimate:
    """Mean of one value per seed (index), with Student's t interval."""
    values = values.dropna()
    return _estimate(float(values.mean()) if len(values) else np.nan, values.to_numpy(float))


def over_pairs(pairs: pd.DataFrame) -> Estimate:
    """Mean over pairs of seeds, with an interval from the jackknife over seeds.

    Pairs share seeds and are not independent: with ``m`` the mean over all pairs and ``m_i`` that without seed ``i``,
    the pseudo-values ``n m - (n - 1) m_i`` count as one value per seed (Arvesen 1969, "Jackknifing U-statistics").
    """
    if pairs.empty:
        return Estimate(np.nan, np.nan, np.nan, 0)
    seeds = sorted({*pairs["seed_a"], *pairs["seed_b"]})
    mean, n = float(pairs["ari"].mean()), len(seeds)
    if n < FEWEST:
        return Estimate(mean, np.nan, np.nan, n)
    without = [pairs.loc[(pairs["seed_a"] != s) & (pairs["seed_b"] != s), "ari"].mean() for s in seeds]
    return _estimate(mean, n * mean - (n - 1) * np.asarray(without))


def _estimate(mean: float, values: np.ndarray) -> Estimate:
    n = len(values)
    if n < FEWEST:
        return Estimate(mean, np.nan, np.nan, n)
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def difference(results: Results, first: Chosen, second: Chosen, quantity: str) -> Estimate:
    """Return the first clustering minus the second, paired by seed, or by pair of seeds for ``quantity`` "seeds".

    ``quantity`` is "truth", "seeds" or "test_correlation".
    """
    paired = (results.values(first, quantity) - results.values(second, quantity)).dropna()
    return _estimated(paired, quantity)


def mean_of(results: Results, chosen: Chosen, quantity: str) -> Estimate:
    """Return the mean of a quantity of one clustering over seeds, or over pairs of seeds."""
    return _estimated(results.values(chosen, quantity), quantity)


def _estimated(values: pd.Series, quantity: str) -> Estimate:
    if quantity == "seeds":
        return over_pairs(values.rename("ari").reset_index())
    return over_seeds(values)


def post_hoc(role: str, method: str, variant: str | None = None) -> dict[str, str]:
    """Return the values that choose a post hoc clustering of this role, ``CONTROL`` or ``BASELINE``."""
    return {"role": role, "variant": variant or role, "method": method}


def december(variant: str) -> dict[str, str]:
    """Return the values that choose a DECEMber training."""
    return {"role": "december", "variant": variant, "method": "december"}


def _post_hoc_methods(*chosen: tuple[str, str, str]) -> dict[str, dict[str, str]]:
    return {label(role, variant, method): post_hoc(role, method, variant) for role, method, variant in chosen}


COMPARATORS = _post_hoc_methods(
    (BASELINE, "gmm", BASELINE),
    (BASELINE, "kmeans", BASELINE),
    (BASELINE, "t_mixture", BASELINE),
    (BASELINE, "t_mixture", LEARNED),
    (CONTROL, "kmeans", CONTROL),
    (CONTROL, "t_mixture", CONTROL),
)
STRENGTHS = ("strength 0", "strength auto", "strength 1", "strength 10", "strength 100")
METHODS = {
    **_post_hoc_methods(
        *((role, method, role) for role in (BASELINE, CONTROL) for method in _NAMES),
        *((role, "t_mixture", LEARNED) for role in (BASELINE, CONTROL)),
    ),
    **{label("december", variant, "december"): december(variant) for variant in (*STRENGTHS, LEARNED)},
}
