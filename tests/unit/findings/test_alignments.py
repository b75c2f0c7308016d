"""What a report says about alignments, and about clusters of aligned vectors beside others."""

from __future__ import annotations

import pandas as pd
import pytest

from december_plugin.embeddings.alignment_recipe import AlignmentRecipe
from december_plugin.evaluation.methods import Method
from december_plugin.findings.alignments import alignment_comparisons, alignment_evidence
from december_plugin.findings.selection import chosen_row
from december_plugin.findings.verdict import answer
from helpers import reports

RECIPE, PERMUTED = AlignmentRecipe(), AlignmentRecipe(control="features")


def with_aligned(more: float = 0.2, less: float = 0.1) -> pd.DataFrame:
    """Return the methods of the made-up lab, and k-means of aligned vectors and of permuted ones."""
    table = reports.agreement()
    plain = table[table["label"] == "k-means"]
    parts = [table]
    for name, recipe, change in (("aligned", RECIPE, more), ("permuted", PERMUTED, -less)):
        identity = [Method("kmeans", "baseline", alignment=recipe)] * len(plain)
        hashes = name + plain["clustering_hash"]
        changed = {"clustering_hash": hashes, "agreement_mean": plain["agreement_mean"] + change, "identity": identity}
        parts.append(plain.assign(label=f"k-means, {name}", **changed))
    return pd.concat(parts, ignore_index=True)


def settings(table: pd.DataFrame) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for name in table["clustering_hash"]:
        aligned = name.startswith(("aligned", "permuted"))
        found[name] = {"n_init": 10, **({"normalize": "l2", "alignment": {}} if aligned else {})}
    return found


def compared(**changes: float) -> pd.DataFrame:
    table = with_aligned(**changes)
    return alignment_comparisons(reports.analysis(agreement=table, clustering_settings=settings(table)))


def by_question(alignments: pd.DataFrame, comparisons: pd.DataFrame) -> dict[str, tuple[str, str]]:
    return {each.question: (each.state, each.text) for each in alignment_evidence(alignments, comparisons)}


def test_aligned_clusters_are_compared_with_those_of_the_same_models_and_method() -> None:
    found = compared()
    assert found["n_clusters"].tolist() == [4, 4, 6, 6, 8, 8]
    assert set(found["aligned"]) == {"k-means, aligned"}
    assert found["other"].tolist() == ["k-means", "k-means, permuted"] * 3
    assert found["kind"].tolist() == ["unaligned", "permuted"] * 3
    assert found["difference"].tolist() == pytest.approx([0.2, 0.3] * 3)
    assert set(found["result"]) == {"more"}
    table = with_aligned()
    other = settings(table)
    other["kmeans4"]["n_init"] = 1
    found = alignment_comparisons(reports.analysis(agreement=table, clustering_settings=other))
    assert len(found) == 5  # another clustering, not the same one without alignment


def test_what_is_good_is_said() -> None:
    said = by_question(reports.alignments(), compared())
    assert {state for state, _ in said.values()} == {"for", "open"}
    assert "by no more than 2e-06 of its standard deviation" in said["Is the core rotation-equivariant?"][1]
    assert said["Was the relaxed shift a shift in the end?"][1].startswith("T from 13 to 15, above 5")
    text = said["Have vectors come closer to each other?"][1]
    assert "from 1.38 to 0.95, by 31%" in text
    assert "with permuted features 13%" in text
    assert said["Are angles ambiguous?"] == ("open", said["Are angles ambiguous?"][1])
    state, text = said["Do seeds agree more than without alignment?"]
    assert (state, text[:42]) == ("for", "In 3 of 3 comparisons they agree more than")
    assert "At best by +0.20: k-means, aligned, K = " in text


def test_what_is_suspicious_is_said() -> None:
    alignments = reports.alignments().iloc[:3].assign(temperature=[3.0, 9.0, 2.0], alignment_loss=1.375)
    said = by_question(alignments, compared(more=-0.3, less=-0.3))
    assert said["Was the relaxed shift a shift in the end?"][0] == "open"
    assert "in 2 of 3 alignments it is 5 or less" in said["Was the relaxed shift a shift in the end?"][1]
    assert said["Have vectors come closer to each other?"][0] == "against"
    assert said["Do seeds agree more than without alignment?"][0] == "against"
    assert "−0.30" in said["Do seeds agree more than without alignment?"][1]
    assert "not evidence of types" in said["Do seeds agree more than with permuted features?"][1]
    one_pair = by_question(alignments, compared().assign(result="unknown"))
    state, text = one_pair["Do seeds agree more than without alignment?"]
    assert (state, text[:54]) == ("open", "There are too few pairs of seeds for a spread. At best")
    unknown = by_question(reports.alignments(equivariance_error=None), compared().iloc[:0])
    assert unknown["Is the core rotation-equivariant?"][0] == "open"
    assert len(unknown) == 4


def test_permuted_features_are_neither_shown_nor_evidence() -> None:
    table = with_aligned()
    table = table[table["method"] == "kmeans"].reset_index(drop=True)
    row = chosen_row(table, n_clusters=6, n_types=None, choices=pd.DataFrame())
    assert row["label"] == "k-means, aligned"
    nulls = reports.nulls(table, p_value=0.4)
    nulls.loc[nulls["label"] == "k-means, permuted", "p_value"] = 0.01
    found = answer(reports.analysis(agreement=table, nulls=nulls, clustering_settings=settings(table)))
    null = found.evidence[0]
    assert null.state == "against"
    assert null.text.startswith("In 0 of 9 configurations")
    assert not Method("kmeans", alignment=RECIPE).is_control
    assert Method("kmeans", alignment=PERMUTED).is_control
