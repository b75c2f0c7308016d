"""The answer in plain words, from the numbers alone.

Two questions are kept apart. *Are there types?* is answered by what clusters of readout vectors do whatever method
found them: do seeds agree more than on surrogates without clusters, and do criteria pick a number of clusters? *What
has the clustering loss added?* is answered by DECEMber beside the same mixture fitted afterwards, beside k-means at the
end of the pretraining, and beside strength 0. A gain in agreement is no evidence of types by itself: a loss that
freezes the partition it started from raises it, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from december_plugin.agreement import SIGNIFICANT
from december_plugin.report.data import Analysis

EQUAL_CORRELATION = 0.01  # test correlations that differ by less count as equal
CRITERIA = {
    "agreement": "agreement between seeds",
    "heldout_log_likelihood": "held-out log likelihood",
    "bic": "BIC",
    "silhouette": "silhouette",
}
ENOUGH_CRITERIA = 2  # that pick the same K

HOW_TO_NULL = (
    "Add `surrogates: [{n_draws: 100}]` to the sweep, `december register` it again, and let `december worker` draw "
    "them."
)
HOW_TO_COUNTS = (
    "Register at least three numbers of clusters for one method, and let `december worker` compute ClusterQuality."
)


@dataclass(frozen=True)
class Evidence:
    """One piece of evidence.

    Attributes
    ----------
    question
        What it is about.
    state
        "for", "against", "open" (computed, but it says neither) or "missing".
    text
        What the numbers say.
    remedy
        For what is missing: what to do.
    """

    question: str
    state: str
    text: str
    remedy: str = ""


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer for one data set and model.

    Attributes
    ----------
    verdict
        "for", "mixed" (more than a continuum, but no number of clusters), "none" or "open" (something is missing).
    headline
        One sentence.
    evidence
        About types.
    loss
        About what the clustering loss has added.
    comparisons
        See :func:`loss_comparisons`.
    """

    verdict: str
    headline: str
    evidence: tuple[Evidence, ...]
    loss: tuple[Evidence, ...]
    comparisons: pd.DataFrame


def answer(analysis: Analysis) -> Answer:
    """Return what the numbers of one data set and model say."""
    comparisons = loss_comparisons(analysis.agreement)
    needed = (_above_null(analysis), _picked_count(analysis))
    known = _known_types(analysis)
    evidence = (*needed, _seeds_agree(analysis), *([known] if known is not None else []))
    if all(each.state == "for" for each in needed):
        verdict = "for"
        headline = (
            "The numbers speak for types: seeds agree more than on surrogates without clusters, and criteria agree on "
            "a number of clusters. This is no proof: a continuum with bends or sparse axes can do the same."
        )
    elif any(each.state == "missing" for each in needed):
        verdict = "open"
        lacking = " and ".join(each.question.lower() for each in needed if each.state == "missing")
        headline = f"No evidence of types so far: what is needed to tell is missing ({lacking})."
    else:
        verdict, headline = _without_types(*needed)
    return Answer(verdict, headline, evidence, _loss_evidence(analysis, comparisons), comparisons)


def _without_types(null: Evidence, count: Evidence) -> tuple[str, str]:
    """Return verdict and headline where all is computed and not all speaks for types."""
    if null.state == "for":
        return "mixed", (
            "No clear evidence of types: seeds agree more than on surrogates without clusters, so the readout vectors "
            "have structure that these lack, but no two criteria agree on a number of clusters."
        )
    within = "seeds agree no more than on surrogates without clusters"
    if count.state == "for":
        return "none", f"No evidence of types: criteria agree on a number of clusters, but {within}."
    return "none", (
        f"No evidence of types: {within}, and no two criteria agree on a number of clusters. The numbers are "
        "compatible with a continuum."
    )


# --- are there types? ----------------------------------------------------------------------------------------------


def _above_null(analysis: Analysis) -> Evidence:
    question = "Agreement beyond that of a continuum"
    nulls = analysis.nulls
    if nulls.empty or not nulls["p_value"].notna().any():
        text = "No surrogates were drawn, so that it is not known how far seeds would agree without any clusters."
        return Evidence(question, "missing", text, HOW_TO_NULL)
    nulls = nulls[nulls["p_value"].notna()]
    above = nulls[nulls["p_value"] <= SIGNIFICANT]
    smallest_p = 1 / (nulls["n_draws"].min() + 1)
    text = (
        f"In {len(above)} of {len(nulls)} configurations the agreement between seeds is above that of surrogates with "
        f"the same mean, covariance and marginals but no clusters (p at most {SIGNIFICANT:g}, one-sided)."
    )
    expected = SIGNIFICANT * len(nulls)
    if len(above) and len(nulls) > 1:
        text += f" By chance alone, {expected:.1f} of {len(nulls)} would be."
    if smallest_p > SIGNIFICANT:
        text += f" With {nulls['n_draws'].min():g} draws p cannot be below {smallest_p:.2f}: draw more."
        return Evidence(question, "missing", text, HOW_TO_NULL)
    # One method in most of its numbers of clusters, not any one of many configurations.
    share = (nulls["p_value"] <= SIGNIFICANT).groupby(nulls["label"]).mean()
    state = "for" if (share > 0.5).any() else "against"
    if state == "against" and len(above):
        text += " No method is above it at more than half of its numbers of clusters."
    return Evidence(question, state, text)


def _picked_count(analysis: Analysis) -> Evidence:
    question = "A number of clusters"
    choices = analysis.choices
    if choices.empty or not (choices["n_counts"] >= 3).any():
        text = "The criteria need at least three numbers of clusters of one method, and the quality of each clustering."
        return Evidence(question, "missing", text, HOW_TO_COUNTS)
    names = [name for name in CRITERIA if name in choices]
    agreeing = []
    for row in choices.to_dict("records"):
        picked = [int(row[name]) for name in names if row[name] == row[name]]
        agreeing += [count for count in set(picked) if picked.count(count) >= ENOUGH_CRITERIA]
    computed = analysis.counts[[f"{name}_mean" for name in names if f"{name}_mean" in analysis.counts]].notna()
    if agreeing:
        listed = ", ".join(f"K = {count}" for count in sorted(set(agreeing)))
        n_agreeing = len(agreeing)
        curves = f"{n_agreeing} of {len(choices)} curves" if len(choices) > 1 else "the curve"
        text = f"In {curves}, at least two criteria pick the same number of clusters: {listed}."
        return Evidence(question, "for", text)
    if not computed.to_numpy().any():
        text = "Held-out likelihood, BIC and silhouette are not computed yet."
        return Evidence(question, "missing", text, "`december worker` computes ClusterQuality.")
    n_picks = int(choices[names].notna().to_numpy().sum())
    if n_picks == 0:
        text = "None of the criteria picks a number of clusters, for any method."
    else:
        text = (
            f"Of {len(choices) * len(names)} looks (criteria times methods) {n_picks} pick a number of clusters, but "
            "no two criteria the same one for the same method."
        )
    remedy = "Where the best is at the smallest or largest K that was tried, register a wider range."
    return Evidence(question, "against", text, remedy)


def _seeds_agree(analysis: Analysis) -> Evidence:
    question = "Do neurons keep their cluster?"
    chosen = analysis.chosen
    if chosen is None or chosen.n_seeds < 2 or not chosen.neurons["stability"].notna().any():
        text = "With one seed it is not known which neurons keep their cluster."
        return Evidence(question, "missing", text, "Add seeds to the sweep, and register it again.")
    stability = chosen.neurons["stability"]
    text = (
        f"{chosen.label}, K = {chosen.n_clusters}: {(stability >= 1).mean():.0%} of {len(stability):,} neurons are in "
        f"the same cluster in all {chosen.n_seeds} seeds (clusters matched between seeds first). Stable cores are "
        "needed for types, but a continuum has them, too."
    )
    return Evidence(question, "open", text)


def _known_types(analysis: Analysis) -> Evidence | None:
    table = analysis.agreement
    if analysis.types_name is None or not table["types_mean"].notna().any():
        return None
    known = table[table["types_mean"].notna()]
    best = known.loc[known["types_mean"].idxmax()]
    at_true = ""
    if analysis.n_types in set(known["n_clusters"]):
        rows = known[known["n_clusters"] == analysis.n_types]
        row = rows.loc[rows["types_mean"].idxmax()]
        at_true = f" At their number, K = {analysis.n_types}, it is {_mean_sd(row, 'types')} for {row['label']}."
    text = (
        f"With the {analysis.n_types} known types {analysis.types_name!r} the agreement is highest for {best['label']} "
        f"with K = {int(best['n_clusters'])}: ARI {_mean_sd(best, 'types')} (1 = identical, 0 = by chance).{at_true}"
    )
    return Evidence("Agreement with known types", "open", text)


# --- what has the clustering loss added? ---------------------------------------------------------------------------

REFERENCES = {
    "t mixture": "the t mixture fitted afterwards",
    "end": "k-means at the end of the pretraining",
    "zero": "DECEMber with strength 0",
}


def loss_comparisons(agreement: pd.DataFrame) -> pd.DataFrame:
    """Return DECEMber beside its references, at the same number of clusters.

    Parameters
    ----------
    agreement
        Rows of ``agreement_table`` of one data set and model, with ``label``.

    Returns
    -------
    pandas.DataFrame
        One row per configuration of DECEMber (strength above 0) and reference: ``n_clusters``, ``december`` and
        ``reference`` (labels), ``kind`` ("t mixture", "end" or "zero"), ``december_mean``, ``reference_mean`` (ARI
        between seeds), ``difference``, ``spread`` (root of the summed variances over pairs of seeds), ``result``
        ("more", "less", "equal" within the spread, or "unknown"), ``test_difference`` (of the test correlations) and
        ``equal_prediction``.
    """
    trained = agreement[(agreement["method"] == "december") & ~_is_zero(agreement)]
    rows = []
    for row in trained.to_dict("records"):
        same_k = agreement[agreement["n_clusters"] == row["n_clusters"]]
        for kind, references in _references(same_k).items():
            rows += [_compared(row, reference, kind) for reference in references.to_dict("records")]
    columns = ["n_clusters", "december", "reference", "kind", "december_mean", "reference_mean", "difference", "spread"]
    columns += ["result", "test_difference", "equal_prediction"]
    return pd.DataFrame(rows, columns=columns)


def _is_zero(rows: pd.DataFrame) -> pd.Series:
    return rows["strength"].fillna(np.nan).eq(0.0)


def _references(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    role, method = rows["trainer_role"], rows["method"]
    return {
        "t mixture": rows[(method == "t_mixture") & (role == "baseline")],
        "end": rows[(method == "kmeans") & (role == "control")],
        "zero": rows[(method == "december") & _is_zero(rows)],
    }


def _compared(december: dict, reference: dict, kind: str) -> dict:
    difference = december["seeds_mean"] - reference["seeds_mean"]
    spread = math.hypot(december["seeds_sd"], reference["seeds_sd"])
    test_difference = december["test_mean"] - reference["test_mean"]
    if not (math.isfinite(difference) and math.isfinite(spread)):
        result = "unknown"
    elif abs(difference) <= spread:
        result = "equal"
    else:
        result = "more" if difference > 0 else "less"
    return {
        "n_clusters": int(december["n_clusters"]),
        "december": december["label"],
        "reference": reference["label"],
        "kind": kind,
        "december_mean": december["seeds_mean"],
        "reference_mean": reference["seeds_mean"],
        "difference": difference,
        "spread": spread,
        "result": result,
        "test_difference": test_difference,
        "equal_prediction": bool(abs(test_difference) <= EQUAL_CORRELATION) if math.isfinite(test_difference) else None,
    }


def _loss_evidence(analysis: Analysis, comparisons: pd.DataFrame) -> tuple[Evidence, ...]:
    if not (analysis.agreement["method"] == "december").any():
        remedy = "Add `december_plugin.trainers.december_trainer` to the trainers of the sweep."
        return (Evidence("What DECEMber adds", "missing", "No model was trained with the clustering loss.", remedy),)
    found = [_beside(comparisons[comparisons["kind"] == kind], kind) for kind in REFERENCES]
    return (*found, _lock_in(analysis.agreement))


def _beside(rows: pd.DataFrame, kind: str) -> Evidence:
    question = f"Beside {REFERENCES[kind]}"
    remedies = {
        "t mixture": "Add `{method: t_mixture, n_clusters: [...]}` to the clusterings, with the same K, and a "
        "`baseline_trainer`.",
        "end": "Add a `baseline_trainer` with `stop_after_pretraining: true`, and `{method: kmeans, ...}`.",
        "zero": "Add `strength: 0` to the grid of the `december_trainer`.",
    }
    known = rows[rows["result"] != "unknown"]
    if known.empty:
        text = "There is nothing to compare with at the same number of clusters."
        if len(rows):
            text = "There are not enough pairs of seeds to compare: two pairs, that is three seeds, are the least."
            return Evidence(question, "missing", text, "Add seeds to the sweep, and register it again.")
        return Evidence(question, "missing", text, remedies[kind])
    counts = known["result"].value_counts()
    more, less, equal = (int(counts.get(name, 0)) for name in ("more", "less", "equal"))
    unequal = int((known["equal_prediction"] == False).sum())  # noqa: E712
    differences = known["difference"]
    text = (
        f"At the same K, seeds agree more in {more}, equally within the spread in {equal} and less in {less} of "
        f"{len(known)} comparisons (differences of ARI {_signed(differences.min())} to {_signed(differences.max())})."
    )
    if unequal:
        text += f" In {unequal} of them the test correlations differ by more than {EQUAL_CORRELATION:g}."
    state = "for" if more > len(known) / 2 else "against" if less > len(known) / 2 else "open"
    return Evidence(question, state, text)


def _lock_in(agreement: pd.DataFrame) -> Evidence:
    rows = agreement[(agreement["method"] == "december") & agreement["locked_in"].fillna(0).astype(bool)]
    if rows.empty:
        text = "In no configuration was the loss so strong that it mostly freezes the partition it started from."
        return Evidence("Lock-in", "open", text)
    labels = ", ".join(sorted(set(rows["label"])))
    text = (
        f"In {len(rows)} configurations ({labels}) the loss was so strong that it mostly freezes the partition that "
        "k-means found at the end of the pretraining; their agreement says little."
    )
    return Evidence("Lock-in", "against", text)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _mean_sd(row: pd.Series, name: str) -> str:
    mean, sd = row[f"{name}_mean"], row[f"{name}_sd"]
    return f"{mean:.3f} ± {sd:.3f}" if sd == sd else f"{mean:.3f}"


def overall(answers: Sequence[Answer]) -> str:
    """Return one sentence over several data sets and models."""
    n_for = sum(each.verdict == "for" for each in answers)
    n_open = sum(each.verdict == "open" for each in answers)
    if n_for == 0 and n_open:
        return "No evidence of types so far; for some data sets what is needed to tell is missing."
    if n_for == 0:
        return "No evidence of types in any data set and model."
    return f"In {n_for} of {len(answers)} data sets and models the numbers speak for types."
