"""The answer: "types" only where the numbers say so, and what is missing where they cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from december_plugin.findings.verdict import Answer, answer, overall
from helpers import reports as parts


def of(found: Answer, question: str) -> tuple[str, str]:
    each = next(each for each in (*found.evidence, *found.loss) if each.question == question)
    return each.state, each.text


def test_nothing_is_claimed_where_the_evidence_is_missing() -> None:
    found = answer(parts.analysis())
    assert found.verdict == "open"
    assert found.headline == "Not decided yet: no null was computed and too few numbers of clusters were tried."
    without_null = replace(parts.full_analysis(), nulls=parts.pd.DataFrame())
    assert answer(without_null).headline == "Not decided yet: no null was computed."
    too_few = replace(parts.full_analysis(), nulls=parts.nulls(parts.agreement(), n_draws=10))
    assert answer(too_few).headline == "Not decided yet: the null has too few draws."
    assert found.evidence[0].remedy.startswith("Add `surrogates: [{n_draws: 100}]` to the sweep")


def test_agreement_within_the_null_is_no_evidence() -> None:
    found = answer(parts.full_analysis())
    assert found.verdict == "none"
    assert found.headline == (
        "No evidence of types: seeds agree no more than on surrogates without clusters, and no two criteria agree on a "
        "number of clusters. The numbers are compatible with a continuum."
    )
    assert of(found, "A number of clusters") == (
        "against",
        "No criterion picks a single number of clusters, for any method.",
    )


def test_types_need_both_the_null_and_a_number_of_clusters() -> None:
    table = parts.agreement()
    above = replace(parts.full_analysis(), nulls=parts.nulls(table, p_value=0.0099))
    assert answer(above).verdict == "mixed"
    assert answer(above).headline == (
        "No clear evidence of types: seeds agree more than on surrogates without clusters, so their neurons have "
        "structure that these lack, but no two criteria agree on a number of clusters."
    )
    picked = replace(parts.full_analysis(), choices=parts.choices(table, picked=6.0))
    assert answer(picked).verdict == "none"
    assert answer(picked).headline == (
        "No evidence of types: criteria agree on K = 6, but seeds agree no more than on surrogates without clusters."
    )
    both = replace(above, choices=parts.choices(table, picked=6.0))
    found = answer(both)
    assert found.verdict == "for"
    assert found.headline == (
        "The numbers speak for types: seeds agree more than on surrogates without clusters, and criteria agree on K = "
        "6. This is not proof: a continuum with bends or sparse axes can do the same."
    )
    assert found.warnings == ()


def test_valleys_decide_where_somebody_looked_for_them() -> None:
    table = parts.agreement()

    def found(p_value: float, valleys_p_value: float, picked: float | None = None) -> Answer:
        nulls = parts.nulls(table, p_value=p_value, valleys_p_value=valleys_p_value)
        choices = parts.choices(table) if picked is None else parts.choices(table, picked=picked)
        return answer(replace(parts.full_analysis(), nulls=nulls, choices=choices))

    both = found(0.01, 0.02, picked=6.0)
    assert both.verdict == "for"
    assert both.headline == (
        "The numbers speak for types: seeds agree more than on surrogates without clusters, few neurons lie between "
        "the clusters and criteria agree on K = 6. This is not proof: a continuum that is dense in some places and "
        "sparse between them can do the same."
    )
    assert of(both, "Valleys between clusters") == (
        "for",
        "In 15 of 15 configurations the valleys between clusters are at least 1.75 times as deep, or as empty, as "
        "those of surrogates, and p is at most 0.05 (one-sided). A continuum has no such valleys unless it is sparse "
        "in between; nor have types that overlap. At the number of clusters on which the criteria of a method agree, "
        "they are this deep for 5 of 5 methods.",
    )
    # A ring: seeds agree more than its elliptical surrogates do.
    ring = found(0.01, 0.4, picked=6.0)
    assert ring.verdict == "mixed"
    assert ring.headline == (
        "No clear evidence of types: seeds agree more than on surrogates without clusters, but the valleys between "
        "clusters are not much deeper than those of surrogates. Parts of a continuum of another shape do the same, and "
        "so do types that overlap."
    )
    assert found(0.4, 0.02, picked=6.0).headline.startswith("The numbers speak for types: few neurons lie between")
    assert found(0.4, 0.02).headline == (
        "No clear evidence of types: few neurons lie between the clusters, but no two criteria agree on a number of "
        "clusters."
    )
    few = answer(replace(parts.full_analysis(), nulls=parts.nulls(table, n_draws=3, valleys_p_value=0.25)))
    assert few.headline.startswith("Not decided yet: the null has too few draws")
    state, text = of(few, "Valleys between clusters")
    assert state == "missing"
    assert text.endswith("With 3 draws p cannot be below 0.25: draw more.")
    assert found(0.4, 0.4).headline == found(0.4, np.nan).headline
    assert "Valleys between clusters" not in [item.question for item in found(0.01, np.nan).evidence]


def test_valleys_decide_at_the_number_of_clusters_on_which_criteria_agree() -> None:
    """Four types that are far apart: clusters that split one of them have no valleys, whichever K were tried."""
    table = parts.agreement()
    nulls = parts.nulls(table, p_value=0.01, valleys_p_value=0.02)
    beyond = nulls["n_clusters"] > 4
    nulls.loc[beyond, ["valleys_mean", "valleys_p_value"]] = [0.1, 1.0]
    assert beyond.groupby(nulls["label"]).mean().min() > 0.5

    def found(picked: float) -> Answer:
        return answer(replace(parts.full_analysis(), nulls=nulls, choices=parts.choices(table, picked=picked)))

    assert found(4.0).verdict == "for"
    assert of(found(4.0), "Valleys between clusters")[1].endswith("this deep for 5 of 5 methods.")
    assert found(8.0).verdict == "mixed"
    assert of(found(8.0), "Valleys between clusters")[1].endswith("this deep for 0 of 5 methods.")
    state, text = of(found(np.nan), "Valleys between clusters")
    assert state == "against"
    assert text.endswith("No method has them at more than half of its numbers of clusters.")
    nulls["valleys_mean"] = np.where(nulls["n_clusters"] == nulls["n_clusters"].max(), 0.1, 0.4)
    nulls["valleys_p_value"] = np.where(nulls["n_clusters"] == nulls["n_clusters"].max(), 1.0, 0.02)
    assert of(found(np.nan), "Valleys between clusters")[0] == "for"


def test_methods_whose_criteria_agree_on_no_number_count_by_their_share_and_the_text_says_so() -> None:
    """Only one method has deep valleys, and its criteria agree on no number of clusters."""
    table = parts.agreement()
    choices = parts.choices(table, picked=6.0)
    alone = choices["label"][0]
    choices.loc[choices["label"] == alone, ["count", "count_low", "count_high"]] = np.nan
    nulls = parts.nulls(table, valleys_p_value=0.02)
    nulls["valleys_mean"] = np.where(nulls["label"] == alone, 0.4, 0.2)
    state, text = of(answer(replace(parts.full_analysis(), nulls=nulls, choices=choices)), "Valleys between clusters")
    assert state == "for"
    assert text.endswith(
        "At the number of clusters on which the criteria of a method agree, they are this deep for 0 of 4 methods. The "
        "valleys of 1 of 1 other method are this deep at more than half of the numbers of clusters."
    )
    nulls["valleys_mean"] = 0.2
    state, text = of(answer(replace(parts.full_analysis(), nulls=nulls, choices=choices)), "Valleys between clusters")
    assert state == "against"
    assert "0 of 4 methods. The valleys of 0 of 1 other method" in text


def test_the_number_of_clusters_has_an_uncertainty_and_what_contradicts_it_is_said() -> None:
    table = parts.agreement()
    choices = parts.choices(table, picked=5.0, low=4.0)
    choices.loc[choices["method"] == "kmeans", ["count", "count_low", "count_high", "n_criteria"]] = [np.nan] * 3 + [2]
    above = parts.nulls(table, p_value=0.0099)
    found = answer(replace(parts.full_analysis(), nulls=above, choices=choices))
    assert "criteria agree on K = 5 (4 to 5)." in found.headline
    assert of(found, "A number of clusters") == (
        "for",
        "For 3 of 5 methods, at least two criteria agree on a number of clusters: K = 5 (4 to 5). There are 6 "
        "known types 'by hand', a different number. The clusters shown one by one are those of K = 6, but criteria "
        "agree on K = 5 (4 to 5).",
    )
    assert found.warnings == (
        "There are 6 known types 'by hand', a different number.",
        "The clusters shown one by one are those of K = 6, but criteria agree on K = 5 (4 to 5).",
    )
    within = parts.choices(table, picked=6.0, low=4.0)
    assert answer(replace(parts.full_analysis(), choices=within)).warnings == ()


def test_only_criteria_that_exist_are_counted() -> None:
    choices = parts.choices(parts.agreement(), n_criteria=[4, 4, 2, 4, 2], n_picks=[1, 0, 0, 0, 0])
    state, text = of(answer(replace(parts.full_analysis(), choices=choices)), "A number of clusters")
    assert state == "against"
    assert text == (
        "Of 16 curves (one per criterion and method), 1 picks a single number of clusters, but no two criteria agree "
        "for the same method."
    )
    choices = parts.choices(parts.agreement(), n_criteria=0)
    assert of(answer(replace(parts.full_analysis(), choices=choices)), "A number of clusters")[0] == "missing"


def test_one_method_by_chance_above_the_null_is_not_enough() -> None:
    table = parts.agreement()
    nulls = parts.nulls(table)
    nulls.loc[0, "p_value"] = 0.01
    state, text = of(answer(replace(parts.full_analysis(), nulls=nulls)), "Agreement beyond that of a continuum")
    assert state == "against"
    assert text.startswith("In 1 of 15 configurations the agreement between seeds is above that of surrogates")
    assert text.endswith(
        "They share trainings and neurons, so they are not independent; by chance alone, 0.8 of 15 would be, on "
        "average. No method is above it at more than half of its numbers of clusters."
    )


def test_too_few_draws_cannot_tell() -> None:
    nulls = parts.nulls(parts.agreement(), n_draws=10)
    state, text = of(answer(replace(parts.full_analysis(), nulls=nulls)), "Agreement beyond that of a continuum")
    assert state == "missing"
    assert text.endswith("With 10 draws p cannot be below 0.09: draw more.")


def test_what_the_loss_has_added_is_said_with_its_numbers() -> None:
    found = answer(parts.analysis())
    assert of(found, "Compared with the t mixture fitted afterwards") == (
        "open",
        "At the same K and over the same seeds, seeds agree more in 3, equally within the spread in 3 and less in 0 of "
        "6 comparisons (differences of ARI +0.000 to +0.100); they share trainings and neurons, and are not "
        "independent.",
    )
    state, text = of(found, "Compared with k-means at the end of the pretraining")
    assert state == "open"
    assert text.endswith("In 6 of them the test correlations differ by more than 0.01.")
    assert of(found, "Compared with DECEMber with strength 0") == (
        "missing",
        "There is no DECEMber with strength 0 and otherwise equal settings.",
    )
    assert of(found, "Lock-in") == (
        "against",
        "In 3 configurations (DECEMber, strength 100) the loss was so strong that it mostly freezes the partition that "
        "k-means found at the end of the pretraining; their agreement says little.",
    )


def test_a_missing_control_is_said_beside_the_comparisons_that_there_are() -> None:
    settings = parts.trainer_settings(d100={"pretrain_epochs": 25})
    found = answer(replace(parts.analysis(), trainer_settings=settings))
    each = next(each for each in found.loss if each.question == "Compared with k-means at the end of the pretraining")
    assert each.text.endswith("There is no k-means at the end of the same pretraining for DECEMber, strength 100.")
    assert each.remedy.startswith("Add a `baseline_trainer` with `stop_after_pretraining: true` and the same ")


def test_one_pair_of_seeds_has_no_spread() -> None:
    analysis = parts.analysis()
    found = answer(replace(analysis, pairs=analysis.pairs[analysis.pairs["seed_b"] == 2]))
    assert of(found, "Compared with the t mixture fitted afterwards") == (
        "missing",
        "There are too few pairs of seeds to compare: at least two pairs, i.e. three seeds, are needed.",
    )


def test_without_december() -> None:
    table = parts.agreement()
    found = answer(replace(parts.analysis(), agreement=table[table["method"] != "december"]))
    assert [each.question for each in found.loss] == ["What DECEMber adds"]
    assert found.loss[0].remedy == "Add `december_plugin.trainers.december_trainer` to the trainers of the sweep."


def test_known_types_are_told_with_their_number() -> None:
    state, text = of(answer(parts.full_analysis()), "Agreement with known types")
    assert state == "open"
    assert text == (
        "With the 6 known types 'by hand' the agreement is highest for DECEMber, strength auto with K = 8: ARI 0.780 ± "
        "0.010 (1 = identical, 0 = by chance). With as many clusters as types, K = 6, it is highest for "
        "DECEMber, strength auto: 0.760 ± 0.010."
    )


def test_several_data_sets() -> None:
    open_, none = answer(parts.analysis()), answer(parts.full_analysis())
    assert overall([none, none]) == "No evidence of types in any dataset and model."
    assert (
        overall([open_, none]) == "Not decided yet: for some datasets, something that is needed has not been computed."
    )
    for_ = replace(none, verdict="for")
    assert overall([for_, none]) == "In 1 of 2 datasets and models the numbers speak for types."
