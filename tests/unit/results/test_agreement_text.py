"""The table of ``december ari``: the best of each K, the null, and what is not there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from december_plugin.findings.summaries import highest_nulls
from december_plugin.results.agreement_text import (
    VALLEYS,
    agreement_lines,
    agreement_text,
    how_to_read,
    with_null,
    with_stability,
)


def row(n_clusters: int, label: str, mean: float, **values: Any) -> dict[str, Any]:
    known = {"agreement_sd": 0.01, "n_pairs": 3, "types_agreement_mean": np.nan, "types_agreement_sd": np.nan}
    known |= {
        "n_clusters": n_clusters,
        "label": label,
        "agreement_mean": mean,
        "test_correlation_mean": 0.25,
        "test_correlation_sd": np.nan,
    }
    return {**known, **values}


ROWS = [
    row(3, "DECEMber", 0.9),
    row(3, "k-means", 0.7),
    row(4, "DECEMber", 0.8),
    row(4, "k-means", 0.8001),
    row(4, "t mixture", 0.5),
    row(5, "DECEMber", 0.6),
    row(5, "t mixture", np.nan, n_pairs=0),
]


def test_the_best_of_each_k_is_marked() -> None:
    lines = agreement_lines(pd.DataFrame(ROWS))
    assert [line for line, _ in lines] == [
        "   K  method      ARI between seeds   pairs   test correlation",
        "--------------------------------------------------------------",
        "   3  DECEMber        0.900 ± 0.010*      3      0.250        ",
        "   3  k-means         0.700 ± 0.010       3      0.250        ",
        "",
        "   4  DECEMber        0.800 ± 0.010*      3      0.250        ",  # equal, as they are shown
        "   4  k-means         0.800 ± 0.010*      3      0.250        ",
        "   4  t mixture       0.500 ± 0.010       3      0.250        ",
        "",
        "   5  DECEMber        0.600 ± 0.010       3      0.250        ",
        "   5  t mixture                   -       0      0.250        ",
        "",
        "* the highest agreement at its K",
    ]
    assert [line[3:14] for line, is_best in lines if is_best] == ["3  DECEMber", "4  DECEMber", "4  k-means "]


def test_the_null_stands_beside_the_agreement() -> None:
    rows = [
        row(3, "DECEMber", 0.9, null_mean=0.3, null_sd=0.02, p_value=0.05),
        row(3, "k-means", 0.7, null_mean=np.nan, null_sd=np.nan, p_value=np.nan),
    ]
    assert agreement_text(pd.DataFrame(rows)).splitlines() == [
        "   K  method     ARI between seeds   pairs            null        p   test correlation",
        "--------------------------------------------------------------------------------------",
        "   3  DECEMber       0.900 ± 0.010*      3   0.300 ± 0.020    0.050      0.250        ",
        "   3  k-means        0.700 ± 0.010       3               -        -      0.250        ",
        "",
        "* the highest agreement at its K",
        "null: agreement on surrogates without clusters, mean ± sd over draws; p: share of these that agree as well",
    ]


def test_valleys_have_a_p_value_of_their_own() -> None:
    null = {"null_mean": 0.3, "null_sd": 0.02, "p_value": 0.05}
    values = {"DECEMber": (0.9, 0.2), "k-means": (0.7, np.nan)}
    null |= {"valleys_mean": 0.4, "null_valleys_mean": 0.2}
    rows = [row(3, label, mean, **null, valleys_p_value=p) for label, (mean, p) in values.items()]
    assert agreement_text(pd.DataFrame(rows)).splitlines() == [
        "   K  method     ARI between seeds   pairs            null        p       valleys        p   test correlation",
        "-------------------------------------------------------------------------------------------------------------",
        "   3  DECEMber       0.900 ± 0.010*      3   0.300 ± 0.020    0.050   0.40 / 0.20    0.200      0.250        ",
        "   3  k-means        0.700 ± 0.010       3   0.300 ± 0.020    0.050             -        -      0.250        ",
        "",
        "* the highest agreement at its K",
        "null: agreement on surrogates without clusters, mean ± sd over draws; p: share of these that agree as well",
        *VALLEYS.splitlines(),
    ]


def test_nothing_is_marked_where_there_is_nothing_to_choose() -> None:
    same = pd.DataFrame([row(3, "a", 0.5), row(3, "b", 0.5), row(4, "a", 0.7)])
    assert "*" not in agreement_text(same)
    without = same.assign(null_mean=np.nan, null_sd=np.nan, p_value=np.nan)
    assert agreement_text(without) == agreement_text(same)


def test_of_several_nulls_the_highest_counts() -> None:
    nulls = pd.DataFrame(
        {
            "trainer_hash": ["a", "a", "b"],
            "surrogate_name": ["many draws", "high", "only"],
            "n_draws": [1000, 20, 20],
            "null_mean": [0.1, 0.3, 0.2],
            "null_sd": [0.01, 0.02, 0.03],
            "p_value": [0.001, 0.2, 0.05],
            "valleys_mean": 0.4,
            "null_valleys_mean": 0.2,
            "valleys_p_value": np.nan,
        }
    )
    assert highest_nulls(nulls, ["trainer_hash"])["surrogate_name"].tolist() == ["only", "high"]
    beside = with_null(pd.DataFrame({"trainer_hash": ["a", "b", "c"]}), nulls)
    assert beside["p_value"].tolist()[:2] == [0.2, 0.05]
    assert beside["p_value"].isna().tolist() == [False, False, True]


def test_a_clustering_loss_is_spoken_of_only_where_there_is_one() -> None:
    trained = how_to_read(pd.DataFrame({"method": ["kmeans", "december"]}))
    elsewhere = how_to_read(pd.DataFrame({"method": ["kmeans", "gmm"]}))
    assert "clustering loss" in trained
    for word in ("loss", "DECEMber", "pretraining", "test correlation"):
        assert word not in elsewhere
    assert all("not evidence of cell types" in " ".join(text.split()) for text in (trained, elsewhere))


def test_one_seed_has_stability() -> None:
    one = pd.DataFrame([row(3, "k-means", np.nan, n_pairs=0, n_models=1), row(4, "k-means", np.nan, n_pairs=0)])
    one = one.assign(clustering_hash=["a", "b"])
    text = agreement_text(one)
    assert "With a single seed, there is nothing to compare. `stability: [{n_draws: 20}]` in the sweep or" in text
    values = {"jaccard": [0.8, 0.9], "null_mean": [np.nan, np.nan], "p_value": [np.nan, np.nan]}
    stability = pd.DataFrame({"clustering_hash": ["a", "a"], **values})
    lines = agreement_text(with_stability(one, stability)).splitlines()
    assert lines[0].split() == ["K", "method", "ARI", "between", "seeds", "pairs", "stability", "test", "correlation"]
    assert lines[2].split() == ["3", "k-means", "-", "0", "0.850", "±", "0.071", "0.250"]
    assert lines[4].split() == ["4", "k-means", "-", "0", "-", "0.250"]
    assert lines[6].startswith("stability: within each model, how well its clusters are found again in random parts")
    assert "there is nothing to compare" not in "".join(lines)


def test_stability_has_the_largest_p_value_of_the_seeds() -> None:
    rows = pd.DataFrame([row(3, "k-means", 0.9), row(4, "k-means", 0.8)]).assign(clustering_hash=["a", "b"])
    values = {
        "jaccard": [0.8, 0.9, 0.7, 0.7],
        "null_mean": [0.5, 0.7, 0.6, np.nan],
        "p_value": [0.05, 0.2, 0.1, np.nan],
    }
    stability = pd.DataFrame({"clustering_hash": ["a", "a", "b", "b"], **values})
    table = with_stability(rows, stability)
    assert table["stability_null_mean"].iloc[0] == pytest.approx(0.6)
    lines = agreement_text(table).splitlines()
    assert lines[0].split()[-4:] == ["stability", "p", "test", "correlation"]
    assert lines[2].split() == ["3", "k-means", "0.900", "±", "0.010", "3", "0.850", "±", "0.071", "0.200", "0.250"]
    assert lines[4].split() == ["4", "k-means", "0.800", "±", "0.010", "3", "0.700", "±", "0.000", "-", "0.250"]
    assert any(line.startswith("p of stability: share of surrogates without clusters") for line in lines)
