"""The answer in plain words, from the numbers alone.

Two questions are kept separate. *Are there types?* is answered by what clusters of readout vectors do, whatever method
found them: do seeds agree more than on surrogates without clusters, are the valleys between clusters much deeper than
those of surrogates, and do criteria pick a number of clusters? If valleys were computed, they decide. *What has the
clustering loss added?* is answered by comparing DECEMber with the same mixture fitted afterwards, with k-means at the
end of the pretraining, and with strength 0. On its own, a gain in agreement is not evidence of types: a loss that
freezes the partition from which it started raises it, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from december_plugin.evaluation.agreement import SIGNIFICANT
from december_plugin.evaluation.model_selection import FEWEST_TRIED, format_n_clusters
from december_plugin.evaluation.stability import DISSOLVED, STABLE
from december_plugin.evaluation.valleys import LEAST_EXCESS, is_deep
from december_plugin.findings.comparisons import EQUAL_CORRELATION, loss_comparisons
from december_plugin.findings.data import Analysis, SelectedConfiguration
from december_plugin.findings.wording import Wording
from december_plugin.text.formatting import listed, numbered

TOO_FEW_DRAWS = "the null has too few draws"


@dataclass(frozen=True)
class Evidence:
    """One piece of evidence.

    Attributes
    ----------
    question
        Its heading.
    state
        "for", "against", "open" (computed, but not decisive) or "missing".
    text
        What the numbers say.
    remedy
        For what is missing: what to do.
    lacking
        For what is missing: what that is, in the words of a headline.
    """

    question: str
    state: str
    text: str
    remedy: str = ""
    lacking: str = ""


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer for one dataset and model.

    Attributes
    ----------
    verdict
        "for", "mixed" (more than surrogates have, but no number of clusters, or no valleys), "none" or "open"
        (something is missing).
    headline
        One sentence.
    evidence
        About types.
    loss
        About what the clustering loss has added; empty if models cannot have been trained with it.
    comparisons
        As :func:`december_plugin.findings.comparisons.loss_comparisons` returns them.
    warnings
        What contradicts the number of clusters that criteria agree on.
    """

    verdict: str
    headline: str
    evidence: tuple[Evidence, ...]
    loss: tuple[Evidence, ...]
    comparisons: pd.DataFrame
    warnings: tuple[str, ...] = ()


def answer(analysis: Analysis) -> Answer:
    """Return what the numbers of one dataset and model say, those of permuted features left out."""
    analysis = _without_permuted(analysis)
    comparisons = loss_comparisons(analysis)
    null, valleys, count = _above_null(analysis), _few_between(analysis), _picked_count(analysis)
    last = _known_types(analysis)
    evidence = tuple(each for each in (null, valleys, count, _seeds_agree(analysis), last) if each is not None)
    verdict, headline = _verdict(null, valleys, count, agreed_counts(analysis.choices), analysis.wording)
    return Answer(
        verdict, headline, evidence, _loss_evidence(analysis, comparisons), comparisons, count_warnings(analysis)
    )


def _without_permuted(analysis: Analysis) -> Analysis:
    """Return an analysis without the clusterings of permuted features, which are controls of an alignment."""
    table = analysis.agreement
    labels = {row.label for row in table.itertuples(index=False) if row.identity.is_permuted}
    if not labels or labels == set(table["label"]):
        return analysis
    names = ("agreement", "nulls", "counts", "choices", "consensus")
    kept = {name: frame for name in names if len(frame := getattr(analysis, name))}
    return replace(analysis, **{name: frame[~frame["label"].isin(labels)] for name, frame in kept.items()})


def _verdict(
    null: Evidence,
    valleys: Evidence | None,
    count: Evidence,
    agreed: tuple[float, float, float] | None,
    wording: Wording,
) -> tuple[str, str]:
    """Return verdict and headline."""
    within = f"{wording.many} agree no more than on surrogates without clusters"
    on = "" if agreed is None else f"criteria agree on {format_n_clusters(*agreed)}"
    if null.state == "missing" or count.state == "missing":
        lacking = [each.lacking for each in (null, count) if each.state == "missing"]
        return "open", f"Not decided yet: {' and '.join(lacking)}."
    if valleys is not None and "for" in (null.state, valleys.state):
        return _verdict_with_valleys(null, valleys, on if count.state == "for" else "", wording)
    if null.state == "for" and count.state == "for":
        return "for", (
            f"The numbers speak for types: {wording.many} agree more than on surrogates without clusters, and {on}. "
            "This is not proof: a continuum with bends or sparse axes can do the same."
        )
    if null.state == "for":
        return "mixed", (
            f"No clear evidence of types: {wording.many} agree more than on surrogates without clusters, so "
            "their neurons have structure that these lack, but no two criteria agree on a number of clusters."
        )
    if count.state == "for":
        return "none", f"No evidence of types: {on}, but {within}."
    return "none", (
        f"No evidence of types: {within}, and no two criteria agree on a number of clusters. The numbers are "
        "compatible with a continuum."
    )


def _verdict_with_valleys(null: Evidence, valleys: Evidence, on: str, wording: Wording) -> tuple[str, str]:
    """Return verdict and headline where agreement or valleys are beyond those of surrogates.

    ``on`` is what criteria agree on; "" if they do not.
    """
    more = f"{wording.many} agree more than on surrogates without clusters"
    if valleys.state != "for":
        return "mixed", (
            f"No clear evidence of types: {more}, but the valleys between clusters are not much deeper than those of "
            "surrogates. Parts of a continuum of another shape do the same, and so do types that overlap."
        )
    said = [*([more] if null.state == "for" else []), "few neurons lie between the clusters"]
    if not on:
        text = f"No clear evidence of types: {listed(said)}, but no two criteria agree on a number of clusters."
        return "mixed", text
    return "for", (
        f"The numbers speak for types: {listed([*said, on])}. This is not proof: a continuum that is dense in some "
        "places and sparse between them can do the same."
    )


# --- are there types? ----------------------------------------------------------------------------------------------


def _above_null(analysis: Analysis) -> Evidence:
    question = "Agreement beyond that of a continuum"
    nulls, many = analysis.nulls, analysis.wording.many
    if analysis.agreement["n_models"].max() < 2:
        return _one_model(question, analysis)
    if nulls.empty or not nulls["p_value"].notna().any():
        text = f"No surrogates were drawn, so it is not known how far {many} would agree without any clusters."
        return Evidence(question, "missing", text, analysis.wording.draw_surrogates, "no null was computed")
    nulls = nulls[nulls["p_value"].notna()]
    above = nulls[nulls["p_value"] <= SIGNIFICANT]
    text = (
        f"In {len(above)} of {len(nulls)} configurations the agreement between {many} is above that of surrogates with "
        f"the same mean, covariance and marginals but no clusters (p at most {SIGNIFICANT:g}, one-sided)."
    )
    if len(nulls) > 1:
        text += " They share trainings and neurons, so they are not independent"
        text += (
            f"; by chance alone, {SIGNIFICANT * len(nulls):.1f} of {len(nulls)} would be, on average."
            if len(above)
            else "."
        )
    if too_few := _too_few_draws(nulls):
        return Evidence(question, "missing", f"{text} {too_few}", analysis.wording.draw_surrogates, TOO_FEW_DRAWS)
    # One method in most of its numbers of clusters, not any one of many configurations.
    share = (nulls["p_value"] <= SIGNIFICANT).groupby(nulls["label"]).mean()
    state = "for" if (share > 0.5).any() else "against"
    if state == "against" and len(above):
        text += " No method is above it at more than half of its numbers of clusters."
    return Evidence(question, state, text)


def _few_between(analysis: Analysis) -> Evidence | None:
    """Return whether far fewer neurons lie between clusters than between surrogates'; None if not computed."""
    nulls = analysis.nulls
    if analysis.agreement["n_models"].max() < 2 or nulls.empty or not nulls["valleys_p_value"].notna().any():
        return None
    nulls = nulls[nulls["valleys_p_value"].notna()]
    found = is_deep(nulls["valleys_mean"], nulls["null_valleys_mean"], nulls["valleys_p_value"])
    deep = pd.Series(found, index=nulls.index)
    text = (
        f"In {deep.sum()} of {len(nulls)} configurations the valleys between clusters are at least {LEAST_EXCESS:g} "
        f"times as deep, or as empty, as those of surrogates, and p is at most {SIGNIFICANT:g} (one-sided). A "
        "continuum has no such valleys unless it is sparse in between; nor have types that overlap."
    )
    question = "Valleys between clusters"
    if too_few := _too_few_draws(nulls):
        return Evidence(question, "missing", f"{text} {too_few}", analysis.wording.draw_surrogates, TOO_FEW_DRAWS)
    # Clusters that merge or split types have other valleys, so a share of all K would depend on which K were tried.
    agreed = {} if analysis.choices.empty else analysis.choices.set_index("label")["count"].dropna().to_dict()
    labels = nulls["label"]
    at_count = deep[nulls["n_clusters"] == labels.map(agreed)].groupby(labels).mean() > 0.5
    mostly = deep[~labels.isin(at_count.index)].groupby(labels).mean() > 0.5
    if len(at_count):
        text += (
            " At the number of clusters on which the criteria of a method agree, they are this deep for "
            f"{at_count.sum()} of {numbered(len(at_count), 'method')}."
        )
        if len(mostly):
            text += (
                f" The valleys of {mostly.sum()} of {numbered(len(mostly), 'other method')} are this deep at more than "
                "half of the numbers of clusters."
            )
    elif deep.any() and not mostly.any():
        text += " No method has them at more than half of its numbers of clusters."
    return Evidence(question, "for" if at_count.any() or mostly.any() else "against", text)


def _too_few_draws(nulls: pd.DataFrame) -> str:
    """Return that so few surrogates cannot give a small p value; "" if they can."""
    smallest_p = 1 / (nulls["n_draws"].min() + 1)
    if smallest_p <= SIGNIFICANT:
        return ""
    return f"With {nulls['n_draws'].min():g} draws p cannot be below {smallest_p:.2f}: draw more."


def _one_model(question: str, analysis: Analysis) -> Evidence:
    """Return that a single model has no agreement and, for the headline, what is known about it instead."""
    wording, chosen = analysis.wording, analysis.chosen
    text = f"There is only one {wording.one}, so there is no agreement to compare with that of surrogates."
    lacking = f"there is only one {wording.one}"
    if chosen is not None and len(chosen.resampled):
        lacking += f" ({_found_again(chosen.resampled)} are found again in parts of its neurons)"
        if _beside_surrogates(chosen.resampled):
            text = f"There is only one {wording.one}, so there is no agreement. How stable its clusters are compared "
            text += "with those of surrogates is shown below."
    return Evidence(question, "missing", text, wording.add_models, lacking)


def _picked_count(analysis: Analysis) -> Evidence:
    question = "A number of clusters"
    choices = analysis.choices
    if choices.empty or not (choices["n_counts"] >= FEWEST_TRIED).any():
        text = "The criteria need at least three numbers of clusters of one method, and the quality of each clustering."
        return Evidence(
            question, "missing", text, analysis.wording.try_more_counts, "too few numbers of clusters were tried"
        )
    agreed = agreed_counts(choices)
    n_looks, n_picks = int(choices["n_criteria"].sum()), int(choices["n_picks"].sum())
    if agreed is not None:
        agreeing = choices[choices["count"].notna()]
        curves = f"{len(agreeing)} of {len(choices)} methods" if len(choices) > 1 else agreeing["label"].iloc[0]
        text = f"For {curves}, at least two criteria agree on a number of clusters: {format_n_clusters(*agreed)}."
        warnings = count_warnings(analysis)
        return Evidence(question, "for", " ".join([text, *warnings]))
    if n_looks == 0:
        text = "Held-out likelihood, BIC and silhouette have not been computed yet."
        remedy = analysis.wording.compute_criteria
        return Evidence(question, "missing", text, remedy, "the criteria for the number of clusters were not computed")
    if n_picks == 0:
        text = "No criterion picks a single number of clusters, for any method."
    else:
        verb = "picks" if n_picks == 1 else "pick"
        text = (
            f"Of {n_looks} curves (one per criterion and method), {n_picks} {verb} a single number of clusters, but no "
            "two criteria agree for the same method."
        )
    if analysis.nulls.empty:
        many = analysis.wording.many
        text += f" The agreement between {many} is not among them: without a null it favours small numbers."
    return Evidence(question, "against", text, analysis.wording.widen_range)


def agreed_counts(choices: pd.DataFrame) -> tuple[float, float, float] | None:
    """Return the K that criteria agree on, with the smallest and largest that cannot be excluded; None for none.

    Of several methods the K that most of them have, and the range of all.
    """
    if choices.empty or not choices["count"].notna().any():
        return None
    known = choices[choices["count"].notna()]
    votes = known["count"].value_counts()
    count = min(votes[votes == votes.max()].index)
    return float(count), float(known["count_low"].min()), float(known["count_high"].max())


def count_warnings(analysis: Analysis) -> tuple[str, ...]:
    """Return sentences about what contradicts the number of clusters that criteria agree on."""
    agreed = agreed_counts(analysis.choices)
    if agreed is None:
        return ()
    found = list(shown_warnings(analysis))
    if analysis.n_types is not None and not agreed[1] <= analysis.n_types <= agreed[2]:
        found.insert(0, f"There are {analysis.n_types} known types {analysis.types_name!r}, a different number.")
    return tuple(found)


def shown_warnings(analysis: Analysis) -> tuple[str, ...]:
    """Return whether the clusters that are shown contradict the number that criteria agree on, in a sentence."""
    agreed = agreed_counts(analysis.choices)
    if agreed is None or analysis.chosen is None or agreed[1] <= analysis.chosen.n_clusters <= agreed[2]:
        return ()
    shown, on = analysis.chosen.n_clusters, format_n_clusters(*agreed)
    return (f"The clusters shown one by one are those of K = {shown}, but criteria agree on {on}.",)


def _seeds_agree(analysis: Analysis) -> Evidence:
    question = "Do neurons keep their cluster?"
    chosen, wording = analysis.chosen, analysis.wording
    if chosen is None or chosen.n_seeds < 2 or not chosen.neurons["stability"].notna().any():
        text = f"With only one {wording.one}, it is not known which neurons keep their cluster."
        if chosen is None or chosen.resampled.empty:
            return Evidence(question, "missing", text, wording.add_models)
        text = f"{text} {chosen.title}: {resampled_words(chosen)}"
        return Evidence(question, "open", text, wording.add_models)
    stability = chosen.neurons["stability"]
    text = (
        f"{chosen.title}: {(stability >= 1).mean():.0%} of {len(stability):,} neurons are in "
        f"the same cluster in all {chosen.n_seeds} {wording.many} (clusters matched between {wording.many} first). "
        "Stable cores are needed for types, but a continuum has them, too."
    )
    return Evidence(question, "open", text)


def resampled_words(chosen: SelectedConfiguration) -> str:
    """Return how well the clusters of a single model are found again in parts of its neurons; "" if it is not known."""
    frame = chosen.resampled
    if frame.empty:
        return ""
    n_dissolved = int((frame["jaccard_mean"] < DISSOLVED).sum())
    return (
        f"Clustered again, {frame.attrs['share']:.0%} of the neurons at a time ({frame.attrs['n_draws']} draws), "
        f"{_found_again(frame)} are found again (Jaccard similarity of at least {STABLE:g} on average) and "
        f"{n_dissolved} dissolve (below {DISSOLVED:g}).{_beside_surrogates(frame)} Slices of a continuum can be found "
        "again, too, and all parts share one training: this says less than agreement between models."
    )


def _beside_surrogates(frame: pd.DataFrame) -> str:
    """Return how the stability of a single model's clusters compares with that of surrogates; "" without any."""
    attrs = frame.attrs
    p_value = attrs.get("p_value", math.nan)
    if math.isnan(p_value):
        return ""
    return (
        f" The mean similarity of all clusters is {attrs['jaccard']:.3f}, that of the clusters of surrogates without "
        f"clusters {attrs['null_mean']:.3f} (p = {p_value:.3g}, one-sided, {attrs['n_surrogates']} draws)."
    )


def _found_again(frame: pd.DataFrame) -> str:
    return f"{int((frame['jaccard_mean'] >= STABLE).sum())} of {numbered(len(frame), 'cluster')}"


def _known_types(analysis: Analysis) -> Evidence | None:
    table = analysis.agreement
    if analysis.types_name is None or not table["types_agreement_mean"].notna().any():
        return None
    known = table[table["types_agreement_mean"].notna()]
    best = known.loc[known["types_agreement_mean"].idxmax()]
    at_true = ""
    if analysis.n_types in set(known["n_clusters"]):
        rows = known[known["n_clusters"] == analysis.n_types]
        row = rows.loc[rows["types_agreement_mean"].idxmax()]
        at_true = (
            f" With as many clusters as types, K = {analysis.n_types}, it is highest for {row['label']}: "
            f"{_mean_sd(row, 'types_agreement')}."
        )
    text = (
        f"With the {analysis.n_types} known types {analysis.types_name!r} the agreement is highest for {best['label']} "
        f"with K = {int(best['n_clusters'])}: ARI {_mean_sd(best, 'types_agreement')} (1 = identical, 0 = by chance)."
        f"{at_true}"
    )
    return Evidence("Agreement with known types", "open", text)


# --- what has the clustering loss added? ---------------------------------------------------------------------------

REFERENCES = {
    "t mixture": "the t mixture fitted afterwards",
    "end": "k-means at the end of the pretraining",
    "zero": "DECEMber with strength 0",
}
REMEDIES = {
    "t mixture": "Add `{method: t_mixture, n_clusters: [...]}` to the clusterings, with the same K, and a "
    "`baseline_trainer` with the same settings.",
    "end": "Add a `baseline_trainer` with `stop_after_pretraining: true` and the same `pretrain_epochs` and `lr_init`, "
    "and `{method: kmeans, n_clusters: [...]}` with the same K.",
    "zero": "Add `strength: 0` to the grid of the `december_trainer`.",
}


def _loss_evidence(analysis: Analysis, comparisons: pd.DataFrame) -> tuple[Evidence, ...]:
    if not analysis.wording.trains:
        return ()
    if not (analysis.agreement["method"] == "december").any():
        remedy = "Add `december_plugin.trainers.december_trainer` to the trainers of the sweep."
        return (Evidence("What DECEMber adds", "missing", "No model was trained with the clustering loss.", remedy),)
    found = [_beside(comparisons[comparisons["kind"] == kind], kind) for kind in REFERENCES]
    return (*found, _lock_in(analysis.agreement))


def _beside(rows: pd.DataFrame, kind: str) -> Evidence:
    question = f"Compared with {REFERENCES[kind]}"
    without = sorted(set(rows.loc[rows["result"] == "none", "december"]))
    known = rows[~rows["result"].isin(["none", "unknown"])]
    if known.empty:
        if (rows["result"] == "unknown").any():
            text = "There are too few pairs of seeds to compare: at least two pairs, i.e. three seeds, are needed."
            return Evidence(question, "missing", text, "Add seeds to the sweep, and register it again.")
        return Evidence(question, "missing", NO_REFERENCE[kind], REMEDIES[kind])
    counts = known["result"].value_counts()
    more, less, equal = (int(counts.get(name, 0)) for name in ("more", "less", "equal"))
    unequal = int((known["equal_prediction"] == False).sum())  # noqa: E712
    differences = known["difference"]
    text = (
        f"At the same K and over the same seeds, seeds agree more in {more}, equally within the spread in {equal} and "
        f"less in {less} of {len(known)} comparisons (differences of ARI {_signed(differences.min())} to "
        f"{_signed(differences.max())}){NOT_INDEPENDENT if len(known) > 1 else '.'}"
    )
    if unequal:
        text += f" In {unequal} of them the test correlations differ by more than {EQUAL_CORRELATION:g}."
    remedy = ""
    if without:
        text += f" {NO_REFERENCE[kind][:-1]} for {', '.join(without)}."
        remedy = REMEDIES[kind]
    state = "for" if more > len(known) / 2 else "against" if less > len(known) / 2 else "open"
    return Evidence(question, state, text, remedy)


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


# What is missing for a comparison.
NO_REFERENCE = {
    "t mixture": "There is no t mixture of a baseline with otherwise equal settings.",
    "end": "There is no k-means at the end of the same pretraining.",
    "zero": "There is no DECEMber with strength 0 and otherwise equal settings.",
}
NOT_INDEPENDENT = "; they share trainings and neurons, and are not independent."


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _mean_sd(row: pd.Series, name: str) -> str:
    mean, sd = row[f"{name}_mean"], row[f"{name}_sd"]
    return f"{mean:.3f} ± {sd:.3f}" if sd == sd else f"{mean:.3f}"


def overall(answers: Sequence[Answer]) -> str:
    """Return one sentence over several datasets and models."""
    n_for = sum(each.verdict == "for" for each in answers)
    n_open = sum(each.verdict == "open" for each in answers)
    if n_for == 0 and n_open:
        return "Not decided yet: for some datasets, something that is needed has not been computed."
    if n_for == 0:
        return "No evidence of types in any dataset and model."
    return f"In {n_for} of {len(answers)} datasets and models the numbers speak for types."
