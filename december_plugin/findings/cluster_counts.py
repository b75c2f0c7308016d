"""Which numbers of clusters the criteria pick."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.clustering.methods import METHODS
from december_plugin.evaluation.agreement import SIGNIFICANT
from december_plugin.evaluation.model_selection import (
    AGREEMENT,
    BIC,
    CRITERIA,
    FEWEST_TRIED,
    HELD_OUT,
    OF_ONE_MODEL,
    AgreedSelection,
    Criterion,
    Selection,
    agreed_selection,
    format_n_clusters,
    format_range,
    select_n_clusters,
)

# What configurations of one curve have in common.
CURVE = (
    *("dataset_fn", "dataset_hash", "model_fn", "model_hash", "trainer_fn", "trainer_role", "trainer_settings"),
    *("method", "clustering_settings"),
)
# Differences of the Bayesian information criterion below this are weak evidence (Kass and Raftery 1995).
BIC_TOLERANCE = 10.0
_PHRASES = {criterion.name: criterion.phrase for criterion in CRITERIA}


def choose_cluster_count(frame: pd.DataFrame) -> pd.DataFrame:
    """Say which number of clusters each criterion picks, if any, and whether they agree.

    The agreement between seeds counts only above its null: on its own, it is highest for few clusters, even if there
    are none. The uncertainty of a mean over models is its standard error; of the held-out log likelihood, the standard
    error over splits if that is larger; of the BIC, at least 10; of the agreement above its null, that of the null's
    draws and, as pairs share seeds, the standard deviation over pairs divided by the square root of half the number of
    seeds. A criterion picks a K if no other K is within this uncertainty of the best. Otherwise, it has a range that it
    cannot distinguish, or says nothing if this range reaches the smallest or largest K that was tried, or fewer than
    three were: see :func:`december_plugin.evaluation.model_selection.select_n_clusters` and
    :func:`~december_plugin.evaluation.model_selection.agreed_selection`.

    Parameters
    ----------
    frame
        As :func:`december_plugin.results.cluster_count_table` returns it. Of the columns that describe a curve
        (:data:`CURVE`), those that it has. Methods that find the number of clusters themselves, by ``identity``, have
        no curve and are left out.

    Returns
    -------
    pandas.DataFrame
        One row per dataset, model, trainer and clustering (but for the number of clusters): ``label``; ``smallest``,
        ``largest`` and ``n_counts`` of the K that were tried. For each of the criteria ``agreement``,
        ``heldout_log_likelihood``, ``bic`` and ``silhouette`` the K that it picks, NaN for none; with ``_low`` and
        ``_high`` the range that it cannot distinguish; with ``_says`` all of it in words. ``n_criteria``, how many
        exist for the method and are computed, and ``n_picks``, how many of them pick a K. ``count``, the K that at
        least two criteria agree on, with its uncertainty ``count_low`` to ``count_high`` and ``agreeing``, the names of
        these criteria; NaN and "" for none. ``statement``, a sentence.

    See Also
    --------
    december_plugin.results.cluster_count_table : The criteria of the models in the database.
    december_plugin.plots.cluster_count_figure : Draws the criteria.
    december_plugin.answer.study_readouts : Computes the criteria without a database.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import choose_cluster_count, cluster_count_table
    >>> lab = open_lab(schema="retina")
    >>> choices = choose_cluster_count(cluster_count_table(lab.tables, {"method": "kmeans"}))
    >>> print(choices["statement"][0])
    Of K = 2 to 4, no two criteria agree on one. The silhouette picks K = 3;
    the agreement above its null is nowhere above its null (p at most 0.05).
    """
    if "identity" in frame:
        frame = frame[[not method.finds_count for method in frame["identity"]]]
    described_by = [name for name in CURVE if name in frame]
    columns = ["label", *described_by, "smallest", "largest", "n_counts"]
    columns += [f"{name}{part}" for name in _PHRASES for part in ("", "_low", "_high", "_says")]
    columns += ["n_criteria", "n_picks", "count", "count_low", "count_high", "agreeing", "statement"]
    rows = []
    for values, curve in frame.groupby(described_by, sort=False, dropna=False):
        described = dict(zip(described_by, values, strict=True))
        curve = curve.sort_values("n_clusters").drop_duplicates("n_clusters")
        counts = [int(count) for count in curve["n_clusters"]]
        picks = _picks(curve, str(described["method"]))
        agreed = agreed_selection(picks, counts)
        row = {"label": " / ".join(dict.fromkeys(curve["label"])), **described}
        row |= {"smallest": counts[0], "largest": counts[-1], "n_counts": len(counts)}
        row |= {"n_criteria": sum(_is_computed(pick) for pick in picks.values())}
        row |= {"n_picks": sum(pick.n_clusters is not None for pick in picks.values())}
        for criterion in CRITERIA:
            row |= _pick_columns(criterion.name, picks.get(criterion.name))
        row |= {"statement": _statement(picks, counts, agreed), "agreeing": ""}
        if agreed is not None:
            row |= {"count": agreed.n_clusters, "count_low": agreed.low, "count_high": agreed.high}
            row |= {"agreeing": ", ".join(agreed.criteria)}
        rows.append(row)
    found = pd.DataFrame(rows, columns=columns)
    return found.astype(dict.fromkeys(("count", "count_low", "count_high"), float))


# --- parts of the above ------------------------------------------------------------------------------------------


def _picks(curve: pd.DataFrame, method: str) -> dict[str, Selection]:
    """Return what each criterion says that exists for the method."""
    counts = curve["n_clusters"].astype(int).tolist()
    n_models = curve["n_models"].to_numpy(dtype=float)

    def pick(name: str, errors: np.ndarray, **settings: Any) -> Selection:
        values = curve[name].to_numpy(dtype=float)
        return select_n_clusters(counts, values.tolist(), np.nan_to_num(errors).tolist(), **settings)

    def standard_error(name: str) -> np.ndarray:
        return np.asarray(np.nan_to_num(curve[f"{name}_sd"].to_numpy(dtype=float)) / np.sqrt(n_models))

    def error(criterion: Criterion) -> np.ndarray:
        found = standard_error(criterion.curve)
        if criterion is HELD_OUT:
            return np.maximum(found, np.nan_to_num(curve["heldout_log_likelihood_se"].to_numpy(dtype=float)))
        return np.maximum(found, BIC_TOLERANCE) if criterion is BIC else found

    picks = {AGREEMENT.name: _pick_above_null(curve, pick)}
    has_likelihood = method in METHODS and METHODS[method].has_likelihood
    for criterion in OF_ONE_MODEL:
        if has_likelihood or not criterion.needs_likelihood:
            picks[criterion.name] = pick(f"{criterion.curve}_mean", error(criterion), better=criterion.better)
    return picks


def _pick_above_null(curve: pd.DataFrame, pick: Any) -> Selection:
    p_values = curve["p_value"].to_numpy(dtype=float)
    if np.isnan(p_values).all():
        return Selection(None, (), "has no null to be judged by")
    if not (p_values <= SIGNIFICANT).any():
        return Selection(None, tuple(curve["n_clusters"]), f"is nowhere above its null (p at most {SIGNIFICANT:g})")
    n_seeds = np.maximum(curve["n_models"].to_numpy(dtype=float) / 2, 1)
    over_pairs = np.nan_to_num(curve["agreement_sd"].to_numpy(dtype=float)) / np.sqrt(n_seeds)
    return pick("above_null_mean", np.hypot(over_pairs, curve["above_null_sd"].to_numpy(dtype=float)))


def _is_computed(pick: Selection) -> bool:
    return bool(pick.as_good)


def _pick_columns(name: str, pick: Selection | None) -> dict[str, Any]:
    if pick is None:
        return {name: math.nan, f"{name}_says": "does not exist"}
    low, high = (pick.as_good[0], pick.as_good[-1]) if pick.as_good else (math.nan, math.nan)
    says = f"{pick.n_clusters}" if pick.n_clusters is not None else "none: " + pick.why_not.removeprefix("is ")
    if pick.n_clusters is None and pick.is_inside:
        says = format_range(pick.as_good)
    count = float(pick.n_clusters) if pick.n_clusters is not None else math.nan
    return {name: count, f"{name}_low": low, f"{name}_high": high, f"{name}_says": says}


def _statement(picks: Mapping[str, Selection], counts: list[int], agreed: AgreedSelection | None) -> str:
    if len(counts) < FEWEST_TRIED:
        tried = " and ".join(map(str, counts))
        were = "was" if len(counts) == 1 else "were"
        return f"Only K = {tried} {were} tried; choosing a number of clusters takes at least three."
    tried = f"K = {counts[0]} to {counts[-1]}"
    said = [
        f"{_PHRASES[name]} picks K = {pick.n_clusters}" for name, pick in picks.items() if pick.n_clusters is not None
    ]
    others = [f"{_PHRASES[name]} {pick.why_not}" for name, pick in picks.items() if pick.n_clusters is None]
    if agreed is not None:
        *first, last = (_PHRASES[name] for name in agreed.criteria)
        names = f"{', '.join(first)} and {last}"
        begin = (
            f"Of {tried}, criteria agree on {format_n_clusters(agreed.n_clusters, agreed.low, agreed.high)}: {names}."
        )
    elif said:
        begin = f"Of {tried}, no two criteria agree on one."
    else:
        begin = f"Of {tried}, no criterion picks one."
    rest = "; ".join([*said, *others])
    return f"{begin} {rest[0].upper()}{rest[1:]}."
