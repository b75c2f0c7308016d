"""The answer: "types" only where the numbers say so, and what is missing where they cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import report_parts as parts

from december_plugin.report.answer import Answer, answer, loss_comparisons, overall


def of(found: Answer, question: str) -> tuple[str, str]:
    each = next(each for each in (*found.evidence, *found.loss) if each.question == question)
    return each.state, each.text


def test_nothing_is_claimed_where_the_evidence_is_missing() -> None:
    found = answer(parts.analysis())
    assert found.verdict == "open"
    assert found.headline == (
        "No evidence of types so far: what is needed to tell is missing (agreement beyond that of a continuum and a "
        "number of clusters)."
    )
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
        "None of the criteria picks a number of clusters, for any method.",
    )


def test_types_need_both_the_null_and_a_number_of_clusters() -> None:
    table = parts.agreement()
    above = replace(parts.full_analysis(), nulls=parts.nulls(table, p_value=0.0099))
    assert answer(above).verdict == "mixed"
    assert answer(above).headline == (
        "No clear evidence of types: seeds agree more than on surrogates without clusters, so the readout vectors have "
        "structure that these lack, but no two criteria agree on a number of clusters."
    )
    picked = replace(parts.full_analysis(), choices=parts.choices(table, picked=6.0))
    assert answer(picked).verdict == "none"
    assert answer(picked).headline == (
        "No evidence of types: criteria agree on a number of clusters, but seeds agree no more than on surrogates "
        "without clusters."
    )
    both = replace(above, choices=parts.choices(table, picked=6.0))
    found = answer(both)
    assert found.verdict == "for"
    assert found.headline.startswith(
        "The numbers speak for types: seeds agree more than on surrogates without clusters"
    )
    assert found.headline.endswith("This is no proof: a continuum with bends or sparse axes can do the same.")


def test_one_method_by_chance_above_the_null_is_not_enough() -> None:
    table = parts.agreement()
    nulls = parts.nulls(table)
    nulls.loc[0, "p_value"] = 0.01
    state, text = of(answer(replace(parts.full_analysis(), nulls=nulls)), "Agreement beyond that of a continuum")
    assert state == "against"
    assert text.startswith("In 1 of 15 configurations the agreement between seeds is above that of surrogates")
    assert "By chance alone, 0.8 of 15 would be. No method is above it at more than half" in text


def test_too_few_draws_cannot_tell() -> None:
    nulls = parts.nulls(parts.agreement(), n_draws=10)
    state, text = of(answer(replace(parts.full_analysis(), nulls=nulls)), "Agreement beyond that of a continuum")
    assert state == "missing"
    assert text.endswith("With 10 draws p cannot be below 0.09: draw more.")


def test_december_beside_its_references() -> None:
    frame = loss_comparisons(parts.agreement())
    # Literal values: "auto" equals the t mixture, "100" lies 0.1 above it; both beside k-means at the end.
    rows = frame[frame["n_clusters"] == 6].set_index(["december", "reference"])
    equal = rows.loc[("DECEMber, strength auto", "t mixture")]
    assert equal["difference"] == pytest.approx(0.0)
    assert equal["spread"] == pytest.approx(0.0282843, abs=1e-6)
    assert equal["result"] == "equal"
    assert rows.loc[("DECEMber, strength 100", "t mixture")]["result"] == "more"
    assert rows.loc[("DECEMber, strength auto", "k-means, end of pretraining")]["result"] == "less"
    assert not rows.loc[("DECEMber, strength auto", "k-means, end of pretraining")]["equal_prediction"]
    assert "k-means" not in set(frame["reference"])


def test_what_the_loss_has_added_is_said_with_its_numbers() -> None:
    found = answer(parts.analysis())
    assert of(found, "Beside the t mixture fitted afterwards") == (
        "open",
        "At the same K, seeds agree more in 3, equally within the spread in 3 and less in 0 of 6 comparisons "
        "(differences of ARI +0.000 to +0.100).",
    )
    state, text = of(found, "Beside k-means at the end of the pretraining")
    assert state == "open"
    assert text.endswith("In 6 of them the test correlations differ by more than 0.01.")
    assert of(found, "Beside DECEMber with strength 0")[0] == "missing"
    assert of(found, "Lock-in") == (
        "against",
        "In 3 configurations (DECEMber, strength 100) the loss was so strong that it mostly freezes the partition that "
        "k-means found at the end of the pretraining; their agreement says little.",
    )


def test_strength_zero_is_a_reference_and_no_december() -> None:
    table = parts.agreement()
    zero = table[table["label"] == "DECEMber, strength 100"].assign(strength=0.0, label="DECEMber, strength 0")
    frame = loss_comparisons(parts.pd.concat([table, zero], ignore_index=True))
    assert set(frame.loc[frame["kind"] == "zero", "reference"]) == {"DECEMber, strength 0"}
    assert "DECEMber, strength 0" not in set(frame["december"])


def test_one_pair_of_seeds_has_no_spread() -> None:
    found = answer(replace(parts.analysis(), agreement=parts.agreement(seeds_sd=np.nan, n_pairs=1)))
    assert of(found, "Beside the t mixture fitted afterwards") == (
        "missing",
        "There are not enough pairs of seeds to compare: two pairs, that is three seeds, are the least.",
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
        "0.010 (1 = identical, 0 = by chance). At their number, K = 6, it is 0.760 ± 0.010 for DECEMber, strength auto."
    )


def test_several_data_sets() -> None:
    open_, none = answer(parts.analysis()), answer(parts.full_analysis())
    assert overall([none, none]) == "No evidence of types in any data set and model."
    assert overall([open_, none]).startswith("No evidence of types so far;")
    for_ = replace(none, verdict="for")
    assert overall([for_, none]) == "In 1 of 2 data sets and models the numbers speak for types."
