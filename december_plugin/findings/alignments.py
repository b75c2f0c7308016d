"""What a report says about alignments: evidence for and against them, and what they have added."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from december_plugin.clustering.methods import ALIGNMENT
from december_plugin.findings.data import Analysis
from december_plugin.findings.verdict import Evidence
from december_plugin.text.formatting import numbered

NO_CONTROL = "none"
LITTLE = 0.02  # of the mean distance: a smaller gain is hardly one
UNALIGNED, PERMUTED = "unaligned", "permuted"
COLUMNS = (
    *("n_clusters", "aligned", "other", "kind", "aligned_mean", "other_mean", "difference", "spread", "result"),
    *("aligned_types_mean", "other_types_mean"),
)
# Settings that a clustering of aligned vectors and its counterpart may differ in: aligned ones have length 1 anyway.
_MAY_DIFFER = (ALIGNMENT, "normalize")

Row = Mapping[str, Any]


def alignment_comparisons(analysis: Analysis) -> pd.DataFrame:
    """Compare clusterings of aligned vectors with those of vectors as they are, and of permuted features.

    Parameters
    ----------
    analysis
        ``agreement`` and ``clustering_settings`` are read.

    Returns
    -------
    pandas.DataFrame
        One row per aligned clustering and counterpart on the same models with the same K: ``n_clusters``, ``aligned``
        and ``other`` (labels), ``kind`` ("unaligned" or "permuted"), ``aligned_mean`` and ``other_mean`` (ARI between
        seeds), their ``difference``, its ``spread`` (root of the summed variances over pairs), ``result`` ("more",
        "less", "equal" within the spread, or "unknown"), and the ARI to known types of both, ``aligned_types_mean`` and
        ``other_types_mean``.
    """
    rows = analysis.agreement.to_dict("records")
    found = []
    for own in rows:
        recipe = own["identity"].alignment
        if recipe is None or own["identity"].is_permuted:
            continue
        for other in rows:
            if (kind := _kind(own, other, analysis.clustering_settings)) is not None:
                found.append(_compared(own, other, kind))
    return pd.DataFrame(found, columns=list(COLUMNS))


def _kind(own: Row, other: Row, settings: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return how a clustering relates to an aligned one; None if they cannot be compared."""
    same = ("trainer_fn", "trainer_hash", "method", "n_clusters")
    if any(own[name] != other[name] for name in same):
        return None
    first, second = (
        {
            name: value
            for name, value in settings.get(str(row["clustering_hash"]), {}).items()
            if name not in _MAY_DIFFER
        }
        for row in (own, other)
    )
    if first != second:
        return None
    mine, theirs = own["identity"].alignment, other["identity"].alignment
    if theirs is None:
        return UNALIGNED
    if other["identity"].is_permuted and replace(theirs, control=NO_CONTROL) == mine:
        return PERMUTED
    return None


def _compared(own: Row, other: Row, kind: str) -> dict[str, Any]:
    difference = own["agreement_mean"] - other["agreement_mean"]
    spread = math.hypot(own["agreement_sd"], other["agreement_sd"])
    if math.isnan(difference) or math.isnan(spread):
        result = "unknown"
    else:
        result = "equal" if abs(difference) <= spread else "more" if difference > 0 else "less"
    return {
        "n_clusters": own["n_clusters"],
        "aligned": own["label"],
        "other": other["label"],
        "kind": kind,
        "aligned_mean": own["agreement_mean"],
        "other_mean": other["agreement_mean"],
        "difference": difference,
        "spread": spread,
        "result": result,
        "aligned_types_mean": own["types_agreement_mean"],
        "other_types_mean": other["types_agreement_mean"],
    }


def alignment_evidence(alignments: pd.DataFrame, comparisons: pd.DataFrame) -> tuple[Evidence, ...]:
    """Return evidence that alignments worked ("for"), that they did not ("against"), or for neither ("open").

    Parameters
    ----------
    alignments
        As ``alignments`` of :mod:`december_plugin.results` returns them.
    comparisons
        As returned by :func:`alignment_comparisons`.
    """
    real = alignments[alignments["control"] == NO_CONTROL]
    permuted = alignments[alignments["control"] != NO_CONTROL]
    found = [_equivariance(alignments)]
    if len(real):
        found += [_temperature(real), _distances(real, permuted), _ambiguous(real)]
    found += [_beside(comparisons, kind) for kind in (UNALIGNED, PERMUTED)]
    return tuple(each for each in found if each is not None)


def _equivariance(alignments: pd.DataFrame) -> Evidence | None:
    errors = alignments["equivariance_error"].astype(float).dropna()
    question = "Is the core rotation-equivariant?"
    if errors.empty:
        text = "Not measured, as the models' cores are unknown. If a core is not, its aligned vectors mean nothing."
        return Evidence(question, "open", text)
    text = (
        "Turning the images by 90 degrees moves the core's orientations; otherwise, it changes the core's output by no "
        f"more than {errors.max():.1g} of its standard deviation."
    )
    return Evidence(question, "for", text)


def _temperature(real: pd.DataFrame) -> Evidence:
    from december_plugin.rotation.alignment import LEAST_TEMPERATURE

    low, high = real["temperature"].min(), real["temperature"].max()
    reached = f"T = {low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"T from {low:.3g} to {high:.3g}"
    question = "Was the relaxed shift a shift in the end?"
    if low > LEAST_TEMPERATURE:
        return Evidence(question, "for", f"{reached}, above {LEAST_TEMPERATURE:g}: yes, it hardly blurred vectors.")
    n_low = int((real["temperature"] <= LEAST_TEMPERATURE).sum())
    text = (
        f"{reached}: in {n_low} of {numbered(len(real), 'alignment')} it is {LEAST_TEMPERATURE:g} or less, at which "
        "the relaxed shift blurs vectors. What is clustered was shifted linearly, and not blurred."
    )
    return Evidence(question, "open", text)


def _distances(real: pd.DataFrame, permuted: pd.DataFrame) -> Evidence:
    question = "Have vectors come closer to each other?"
    before, after = real["loss_before"].mean(), real["alignment_loss"].mean()
    gain = 1 - after / before
    text = (
        f"The mean distance between vectors of length 1 fell from {before:.2f} to {after:.2f}, by {gain:.0%}. Every "
        "alignment achieves some of this, even if there are no types"
    )
    if len(permuted):
        text += f": with permuted features {1 - (permuted['alignment_loss'] / permuted['loss_before']).mean():.0%}"
    if gain < LITTLE:
        text = f"The mean distance between vectors of length 1 hardly changed, from {before:.2f} to {after:.2f}"
        text += ". Neurons are not tuned to orientation in this core, or all to the same one"
        return Evidence(question, "against", f"{text}.")
    return Evidence(question, "open", f"{text}.")


def _ambiguous(real: pd.DataFrame) -> Evidence:
    share = real["ambiguous_share"].mean()
    text = (
        f"For {share:.0%} of the neurons an angle more than 45 degrees away would have been nearly as good. They may "
        "be turned the wrong way, and one type then forms several clusters: see which clusters compute the same thing. "
        "Vectors that hardly change along the orientations, or repeat themselves, have no well-defined angle."
    )
    return Evidence("Are angles ambiguous?", "open", text)


_QUESTIONS = {
    UNALIGNED: ("Do seeds agree more than without alignment?", "without alignment"),
    PERMUTED: ("Do seeds agree more than with permuted features?", "with permuted features"),
}


def _beside(comparisons: pd.DataFrame, kind: str) -> Evidence | None:
    rows = comparisons[(comparisons["kind"] == kind) & comparisons["difference"].notna()]
    if rows.empty:
        return None
    question, words = _QUESTIONS[kind]
    best = rows.loc[rows["difference"].idxmax()]
    example = (
        f"At best by {_signed(best['difference'])}: {best['aligned']}, K = {int(best['n_clusters'])}, ARI "
        f"{best['aligned_mean']:.2f}."
    )
    judged = rows[rows["result"] != "unknown"]
    if judged.empty:
        return Evidence(question, "open", f"There are too few pairs of seeds for a spread. {example}")
    counts = {name: int((judged["result"] == name).sum()) for name in ("more", "equal", "less")}
    text = (
        f"In {counts['more']} of {numbered(len(judged), 'comparison')} they agree more than {words}, in "
        f"{counts['equal']} equally within the spread, in {counts['less']} less. {example}"
    )
    state = "for" if counts["more"] > len(judged) / 2 else "against" if counts["more"] == 0 else "open"
    if state == "against" and kind == PERMUTED:
        text += " Clusters that agree as well after features were permuted are not evidence of types."
    return Evidence(question, state, text)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
