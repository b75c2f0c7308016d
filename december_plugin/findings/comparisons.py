"""DECEMber and its references: the same training except for what is compared.

Each configuration of DECEMber has one reference of each kind, in the same space, or none:

- "end": k-means at the end of the same pretraining, the kind of partition that it starts from. The control must have
  the same settings as far as they act before the end of the pretraining.
- "t mixture": the same mixture, fitted afterwards to a baseline whose settings are otherwise the same. The baseline may
  lack a pretraining, which in a baseline only determines when early stopping begins.
- "zero": DECEMber with strength 0 and otherwise the same settings.

What is compared is the agreement of the seeds that both have.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.clustering.methods import ALL_NEURONS, DECEMBER, alignment_recipe, embedding_space, quality_filter
from december_plugin.embeddings.space import EmbeddingSpace
from december_plugin.findings.data import Analysis
from december_plugin.training.settings import WITHOUT_EFFECT, ClusteringSettings, TrainingSettings

KINDS = ("t mixture", "end", "zero")
EQUAL_CORRELATION = 0.01  # test correlations that differ by less count as equal
COLUMNS = (
    *("n_clusters", "december", "reference", "kind", "december_mean", "reference_mean", "difference", "spread"),
    *("n_pairs", "result", "test_difference", "equal_prediction"),
)
# What makes the mixture, in the names of the trainer and of the clustering.
_MIXTURE = ("dof", "weights", "scale_bounds")
_ENDS = "stop_after_pretraining"  # what makes a baseline a control

Row = Mapping[str, Any]


def loss_comparisons(analysis: Analysis) -> pd.DataFrame:
    """Return DECEMber compared with its references, at the same number of clusters and over the same seeds.

    Parameters
    ----------
    analysis
        ``agreement``, ``pairs``, ``tested``, ``trainer_settings`` and ``clustering_settings`` are read.

    Returns
    -------
    pandas.DataFrame
        One row per configuration of DECEMber (strength above 0) and kind of reference: ``n_clusters``, ``december`` and
        ``reference`` (labels; None without a reference), ``kind``, ``december_mean``, ``reference_mean`` (ARI over the
        ``n_pairs`` pairs of seeds that both have), ``difference``, ``spread`` (root of the summed variances over
        pairs), ``result`` ("more", "less", "equal" within the spread, "unknown" with fewer than two pairs, or "none"
        without a reference), ``test_difference`` (of the test correlations, over the seeds that both have) and
        ``equal_prediction``.
    """
    table = analysis.agreement
    trained = table[(table["method"] == "december") & ~table["strength"].astype(float).eq(0.0)]
    by_count = {count: rows.to_dict("records") for count, rows in table.groupby("n_clusters")}
    numbers = _Numbers(analysis)
    rows = []
    for december in trained.to_dict("records"):
        same_k = by_count[december["n_clusters"]]
        for kind in KINDS:
            reference = _reference(december, same_k, kind, analysis)
            if reference is not None:
                rows.append(_compared(december, reference, kind, numbers))
            else:
                rows.append(_without_reference(december, kind))
    return pd.DataFrame(rows, columns=list(COLUMNS))


class _Numbers:
    """The numbers that are compared, by the key of a configuration."""

    def __init__(self, analysis: Analysis):
        self.key = list(analysis.configuration)
        self.training = [name for name in self.key if name != "clustering_hash"]
        self.pairs = _by_configuration(analysis.pairs, self.key, ["seed_a", "seed_b"], "agreement")
        self.tested = _by_configuration(analysis.tested, self.training, ["seed"], "test_correlation")


# --- the right reference -------------------------------------------------------------------------------------------


def _reference(december: Row, candidates: list[dict[str, Any]], kind: str, analysis: Analysis) -> Row | None:
    """Return the configuration to compare with, or None: of several that qualify, the one with most settings equal."""
    own = _settings(december, analysis)
    found = []
    for candidate in candidates:
        other = _settings(candidate, analysis)
        # DECEMber clusters all neurons, and their vectors as they are.
        clustering = analysis.clustering_settings.get(str(candidate["clustering_hash"]), {})
        of_all = quality_filter(clustering) == ALL_NEURONS and alignment_recipe(clustering) is None
        is_comparable = of_all and _space(candidate, analysis) == _space(december, analysis)
        if is_comparable and _QUALIFIES[kind](december, candidate, own, other, analysis):
            unequal = sum(own[name] != other[name] for name in own.keys() & other.keys())
            start = (abs(clustering.get("n_init", 0) - own.get("kmeans_n_init", 0)), clustering.get("seed", 0))
            found.append(((unequal, *start, str(candidate["label"])), candidate))
    return min(found, key=lambda entry: entry[0])[1] if found else None


def _is_end(december: Row, candidate: Row, own: Row, other: Row, analysis: Analysis) -> bool:
    """Whether a candidate is k-means at the end of the pretraining that DECEMber has gone through."""
    return bool(
        candidate["method"] == "kmeans"
        and candidate["trainer_role"] == "control"
        and _equal(_pretraining(december, own), _pretraining(candidate, other))
    )


def _is_t_mixture(december: Row, candidate: Row, own: Row, other: Row, analysis: Analysis) -> bool:
    """Whether a candidate is the same mixture, fitted to the baseline of otherwise equal settings."""
    if candidate["method"] != "t_mixture" or candidate["trainer_role"] != "baseline":
        return False
    mixture = analysis.clustering_settings.get(str(candidate["clustering_hash"]), {})
    if not all(_plain(own[name]) == _plain(mixture[name]) for name in _MIXTURE if name in own and name in mixture):
        return False
    without_pretraining = {"pretrain_epochs"} if not other.get("pretrain_epochs") else set()
    return _equal(own, other, without={_ENDS, *_clustering_names(), *without_pretraining})


def _is_strength_zero(december: Row, candidate: Row, own: Row, other: Row, analysis: Analysis) -> bool:
    """Whether a candidate is DECEMber with strength 0 and otherwise equal settings."""
    return bool(
        candidate["method"] == "december" and candidate["strength"] == 0 and _equal(own, other, without={"strength"})
    )


_QUALIFIES = {"t mixture": _is_t_mixture, "end": _is_end, "zero": _is_strength_zero}


def _settings(row: Row, analysis: Analysis) -> dict[str, Any]:
    return dict(analysis.trainer_settings.get((str(row["trainer_fn"]), str(row["trainer_hash"])), {}))


def _space(row: Row, analysis: Analysis) -> EmbeddingSpace:
    """Return the space in which a configuration clusters: that of DECEMber's trainer, or of the clustering."""
    if row["method"] == DECEMBER:
        return embedding_space(_settings(row, analysis))
    return embedding_space(analysis.clustering_settings.get(str(row["clustering_hash"]), {}))


def _pretraining(row: Row, settings: Row) -> dict[str, Any]:
    """Return the settings that determine the end of the pretraining; all of them for another package's trainer."""
    if not str(row["trainer_fn"]).startswith("december_plugin."):
        return {name: value for name, value in settings.items() if name not in {_ENDS, *_clustering_names()}}
    known = {each.name: settings[each.name] for each in fields(TrainingSettings) if each.name in settings}
    return TrainingSettings(**known).pretraining()


def _equal(own: Row, other: Row, *, without: Collection[str] = ()) -> bool:
    names = (own.keys() | other.keys()) - {*WITHOUT_EFFECT, *without}
    return all(name in own and name in other and _plain(own[name]) == _plain(other[name]) for name in names)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _clustering_names() -> set[str]:
    return {each.name for each in fields(ClusteringSettings)}


# --- the comparison ------------------------------------------------------------------------------------------------

Values = Mapping[tuple[Any, ...], Mapping[tuple[Any, ...], float]]


def _by_configuration(frame: pd.DataFrame, key: list[str], by: list[str], value: str) -> Values:
    """Return the finite values of a frame by configuration, and within it by seed or pair of seeds."""
    found: dict[tuple[Any, ...], dict[tuple[Any, ...], float]] = {}
    if frame.empty:
        return found
    keys = zip(*(frame[name].tolist() for name in key), strict=True)
    kinds = zip(*(frame[name].tolist() for name in by), strict=True)
    for configuration, what, number in zip(keys, kinds, frame[value].astype(float).tolist(), strict=True):
        if math.isfinite(number):
            found.setdefault(configuration, {})[what] = number
    return found


def _shared(values: Values, key: list[str], first: Row, second: Row) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of two configurations for the seeds, or pairs of seeds, that both have, in the same order."""
    own, other = (values.get(tuple(row[name] for name in key), {}) for row in (first, second))
    both = sorted(own.keys() & other.keys())
    return np.array([own[what] for what in both]), np.array([other[what] for what in both])


def _compared(december: Row, reference: Row, kind: str, data: _Numbers) -> dict[str, Any]:
    own, other = _shared(data.pairs, data.key, december, reference)
    tested = _shared(data.tested, data.training, december, reference)
    means = [float(values.mean()) if len(values) else math.nan for values in (own, other)]
    variances = [float(values.var(ddof=1)) if len(values) > 1 else math.nan for values in (own, other)]
    difference, spread = means[0] - means[1], math.sqrt(sum(variances))
    test_difference = float((tested[0] - tested[1]).mean()) if len(tested[0]) else math.nan
    if not (math.isfinite(difference) and math.isfinite(spread)):
        result = "unknown"
    elif abs(difference) <= spread:
        result = "equal"
    else:
        result = "more" if difference > 0 else "less"
    return {
        **_names(december, kind),
        "reference": reference["label"],
        "december_mean": means[0],
        "reference_mean": means[1],
        "difference": difference,
        "spread": spread,
        "n_pairs": len(own),
        "result": result,
        "test_difference": test_difference,
        "equal_prediction": bool(abs(test_difference) <= EQUAL_CORRELATION) if math.isfinite(test_difference) else None,
    }


def _without_reference(december: Row, kind: str) -> dict[str, Any]:
    numbers = dict.fromkeys(("reference_mean", "difference", "spread", "test_difference"), np.nan)
    own = {"december_mean": december["agreement_mean"], "n_pairs": 0, "result": "none", "equal_prediction": None}
    return {**_names(december, kind), "reference": None, **numbers, **own}


def _names(december: Row, kind: str) -> dict[str, Any]:
    return {"n_clusters": int(december["n_clusters"]), "december": december["label"], "kind": kind}
