"""Criteria for the number of clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import silhouette_score
from sklearn.mixture import GaussianMixture

from december_plugin.clustering.kmeans import spawn_seeds
from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.clustering.student_t_mixture import StudentTMixture
from december_plugin.errors import SettingsError
from december_plugin.evaluation.model_selection import (
    LIKELIHOOD_METHODS,
    AgreedSelection,
    Selection,
    agreed_selection,
    bayesian_information_criterion,
    held_out_log_likelihood,
    select_n_clusters,
    silhouette,
    smallest_within_error,
)
from december_plugin.findings.cluster_counts import choose_cluster_count

COUNTS = [2, 3, 4, 5, 6]


def planted(n: int = 240, k: int = 4, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    types = np.arange(n) % k
    return 3 * rng.standard_normal((k, 5))[types] + rng.standard_normal((n, 5)) / 2, types


# --- the criteria ------------------------------------------------------------------------------------------------


def test_held_out_likelihood_is_that_of_neurons_the_fit_never_saw():
    vectors, _ = planted(90)
    found = held_out_log_likelihood(vectors, method="gmm", n_clusters=3, n_splits=3, seed=4)
    expected = []
    for split_seed in spawn_seeds(4, 3):
        order = np.random.default_rng(split_seed).permutation(90)
        settings = {"covariance_type": "diag", "reg_covar": 1e-6, "max_iter": 500, "tol": 1e-5}
        fitted = GaussianMixture(3, random_state=split_seed, **settings).fit(vectors[order[30:]])
        expected.append(fitted.score(vectors[order[:30]]))
    assert found.values == pytest.approx(expected)
    assert found.mean == pytest.approx(np.mean(expected))
    assert found.standard_error == pytest.approx(np.std(expected, ddof=1) / np.sqrt(3))


@pytest.mark.parametrize("method", LIKELIHOOD_METHODS)
def test_every_method_with_a_likelihood_scores_neurons_that_are_held_out(method):
    vectors, _ = planted(24, 2)
    assert np.isfinite(held_out_log_likelihood(vectors, method=method, n_clusters=2, n_splits=2).mean)


def test_held_out_likelihood_of_the_t_mixture():
    vectors, _ = planted(90)
    found = held_out_log_likelihood(vectors, method="t_mixture", n_clusters=4, n_splits=2, settings={"dof": 5.0})
    (split_seed, _) = spawn_seeds(0, 2)
    order = np.random.default_rng(split_seed).permutation(90)
    mixture = StudentTMixture(4, 5, dof=5.0)
    mixture.fit(torch.as_tensor(vectors[order[30:]]), seed=split_seed, n_init=1, tol=1e-5)
    assert found.values[0] == pytest.approx(mixture.score(torch.as_tensor(vectors[order[:30]])))


def test_held_out_likelihood_of_spherical_clusters_at_the_best_of_several_starts():
    vectors, _ = planted(60)
    found = held_out_log_likelihood(
        vectors, method="gmm", n_clusters=3, n_splits=2, n_init=3, settings={"covariance": "spherical", "n_init": 7}
    )
    (split_seed, _) = spawn_seeds(0, 2)
    order = np.random.default_rng(split_seed).permutation(60)
    settings = {"covariance_type": "spherical", "n_init": 3, "reg_covar": 1e-6, "max_iter": 500, "tol": 1e-5}
    fitted = GaussianMixture(3, random_state=split_seed, **settings).fit(vectors[order[20:]])
    assert found.values[0] == pytest.approx(fitted.score(vectors[order[:20]]))


@pytest.mark.parametrize("covariance", ["diagonal", "spherical"])
@pytest.mark.parametrize("weights", ["uniform", "learned"])
def test_bic_counts_parameters(weights, covariance):
    vectors, _ = planted(60)
    kind = {"diagonal": "diag", "spherical": "spherical"}[covariance]
    fitted = GaussianMixture(3, covariance_type=kind, random_state=0).fit(vectors)
    found = bayesian_information_criterion(
        fitted.score(vectors), n_neurons=60, n_features=5, n_clusters=3, weights=weights, covariance=covariance
    )
    expected = fitted.bic(vectors) - (2 * np.log(60) if weights == "uniform" else 0)
    assert found == pytest.approx(expected)


def test_silhouette_is_scikit_learns_on_the_same_sample():
    vectors, types = planted(200)
    assert silhouette(vectors, types) == pytest.approx(silhouette_score(vectors, types))
    chosen = np.random.default_rng(7).choice(200, 50, replace=False)
    sampled = silhouette(vectors, types, most_neurons=50, seed=7)
    assert sampled == pytest.approx(silhouette_score(vectors[chosen], types[chosen]))
    assert np.isnan(silhouette(vectors, np.zeros(200)))
    assert np.isnan(silhouette(vectors[:4], [0, 1, 2, 3]))


def test_all_criteria_find_planted_types():
    vectors, _ = planted(120)
    counts = [3, 4, 5]
    curves: dict[str, list[float]] = {"heldout": [], "bic": [], "silhouette": []}
    for count in counts:
        clustered = cluster_readouts(vectors, method="t_mixture", n_clusters=count, n_init=1)
        curves["heldout"].append(
            held_out_log_likelihood(vectors, method="t_mixture", n_clusters=count, n_splits=2).mean
        )
        shape = {"n_neurons": 120, "n_features": 5, "n_clusters": count, "weights": "uniform"}
        curves["bic"].append(-bayesian_information_criterion(clustered.log_likelihood, **shape))
        curves["silhouette"].append(silhouette(vectors, clustered.labels))
    assert {name: counts[int(np.argmax(values))] for name, values in curves.items()} == dict.fromkeys(curves, 4)


# --- reading a K off a curve -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "error", "as_good"),
    [
        ([1, 2, 4, 3, 1], 0.5, (4,)),
        ([1, 2, 4, np.nan, 1], 0.5, (4,)),
        ([1, 2, 4, 3, 1], np.nan, (4,)),
    ],
)
def test_a_peak_that_is_separate_is_picked(values, error, as_good):
    pick = select_n_clusters(COUNTS, values, [error] * 5)
    assert (pick.n_clusters, pick.as_good, pick.why_not, pick.is_inside) == (as_good[0], as_good, "", True)
    turned = select_n_clusters(COUNTS, [-value for value in values], [error] * 5, better="smaller")
    assert turned == pick


@pytest.mark.parametrize(("values", "error"), [([1, 3.8, 4, 3, 1], 0.5), ([1, 4, 4, 3, 1], 0.0)])
def test_what_cannot_be_distinguished_is_a_range_and_no_pick(values, error):
    pick = select_n_clusters(COUNTS, values, [error] * 5)
    assert (pick.n_clusters, pick.as_good, pick.is_inside) == (None, (3, 4), True)
    assert pick.why_not == "cannot distinguish K = 3 to 4"


@pytest.mark.parametrize(
    ("values", "why_not"),
    [
        ([1, 2, 3, 4, 5], "is best at the largest K that was tried, 6"),
        ([5, 4, 3, 2, 1], "is best at the smallest K that was tried, 2"),
        ([1, 2, 4, 3.9, 3.7], "cannot distinguish K = 4 to 6, up to the edge of what was tried"),
        ([3.8, 4, 3, 2, 1], "cannot distinguish K = 2 to 3, up to the edge of what was tried"),
        ([np.nan] * 5, "is not computed"),
        ([1, np.nan, 4, np.nan, np.nan], "is computed for 2 numbers of clusters, and needs 3"),
    ],
)
def test_an_edge_or_a_plateau_is_none(values, why_not):
    pick = select_n_clusters(COUNTS, values, [0.5] * 5)
    assert (pick.n_clusters, pick.why_not, pick.is_inside) == (None, why_not, False)


TRIED = [2, 3, 4, 5, 6, 7, 8, 10]


def said(*as_good: int, is_inside: bool = True) -> Selection:
    alone = len(as_good) == 1 and is_inside
    return Selection(as_good[0] if alone else None, as_good, "" if alone else "no", is_inside)


@pytest.mark.parametrize(
    ("values", "errors", "expected"),
    [
        ([1.0, 2.0, 3.0, 3.2, 3.1], [0.3] * 5, 4),
        ([1.0, 2.0, 3.0, 3.2, 3.1], [9.0, 9.0, 9.0, 0.1, 9.0], 5),
        ([3.2, np.nan, 3.0, 3.2, 3.1], [np.nan] * 5, 2),
        ([np.nan, np.nan, np.nan, np.nan, 1.0], [0.0] * 5, 6),
        ([np.nan] * 5, [0.0] * 5, None),
    ],
)
def test_a_plateau_begins_at_the_smallest_within_the_error(values, errors, expected):
    assert smallest_within_error([2, 3, 4, 5, 6], values, errors) == expected


def test_two_criteria_agree_and_their_ranges_are_the_uncertainty():
    wide, edge = said(3, 4, 5, 6, 7, 8), said(10, is_inside=False)
    agreed = agreed_selection({"a": said(5), "b": said(5, 6), "c": wide, "d": edge}, TRIED)
    assert agreed == AgreedSelection(5, 5, 6, ("a", "b"))
    assert agreed_selection({"a": said(5, 6), "b": said(6, 7)}, TRIED) == AgreedSelection(6, 5, 7, ("a", "b"))
    assert agreed_selection({"a": said(5, 6), "b": said(5, 6), "c": said(6)}, TRIED) == AgreedSelection(
        6, 5, 6, ("a", "b", "c")
    )


@pytest.mark.parametrize(
    "picks",
    [
        {"a": said(3), "b": said(5)},
        {"a": said(5), "b": said(3, 4, 5, 6, 7, 8)},  # a wide range is no vote for anything within it
        {"a": said(3, 4, 5, 6, 7, 8), "b": said(3, 4, 5, 6, 7, 8)},
        {"a": said(5), "b": said(5, 6, 7, 8, 10, is_inside=False)},
        {"a": said(5)},
        {"a": said(3, 5), "b": said(5)},  # two peaks with a gap
        {"a": said(3), "b": said(3, 4), "c": said(6), "d": said(6, 7)},  # two against two
    ],
)
def test_no_two_criteria_agree(picks):
    assert agreed_selection(picks, TRIED) is None


def test_a_narrow_range_is_fewer_than_half_of_what_was_tried():
    assert agreed_selection({"a": said(3, 4), "b": said(3)}, [2, 3, 4, 5]) is None
    assert agreed_selection({"a": said(3, 4), "b": said(3)}, [2, 3, 4, 5, 6]) == AgreedSelection(3, 3, 4, ("a", "b"))
    # A real case: six planted types, agreement above its null, held-out likelihood and BIC of the t mixture.
    ranges = {
        "agreement": said(5, 6, 7),
        "heldout": said(6, 7, 8),
        "bic": said(6, 7),
        "silhouette": said(2, is_inside=False),
    }
    assert agreed_selection(ranges, TRIED) == AgreedSelection(6, 5, 8, ("agreement", "heldout", "bic"))


# --- side by side ------------------------------------------------------------------------------------------------


def curves(method: str = "gmm", **values: list[float]) -> pd.DataFrame:
    """Return a frame as of ``cluster_count_table``, one configuration per K; what is not given rises with K."""
    rising = [1.0, 2.0, 3.0, 4.0, 5.0]
    columns = {
        "above_null_mean": rising,
        "heldout_log_likelihood_mean": rising,
        "bic_mean": [-100 * value for value in rising],
        "silhouette_mean": rising,
        "p_value": 0.01,
        **values,
    }
    same = dict.fromkeys(
        ("dataset_fn", "dataset_hash", "model_fn", "model_hash", "trainer_fn", "trainer_settings"), "x"
    )
    frame = pd.DataFrame({**columns, **same, "n_clusters": COUNTS, "label": "a method", "clustering_settings": ""})
    spread = ["agreement_sd", "heldout_log_likelihood_sd", "bic_sd", "silhouette_sd", "heldout_log_likelihood_se"]
    spreads = dict.fromkeys(spread, 0.1) | {"above_null_sd": 0.1}
    return frame.assign(trainer_role="baseline", method=method, n_models=4, **spreads)


def choice(frame: pd.DataFrame) -> dict[str, Any]:
    (row,) = choose_cluster_count(frame).to_dict("records")
    return row


def test_when_nothing_picks_a_number_it_is_said():
    row = choice(curves())
    assert np.isnan([row[name] for name in ("agreement", "heldout_log_likelihood", "bic", "silhouette")]).all()
    assert row["statement"] == (
        "Of K = 2 to 6, no criterion picks one. The agreement above its null is best at the largest K "
        "that was tried, 6; the held-out log likelihood is best at the largest K that was tried, 6; the BIC is best at "
        "the largest K that was tried, 6; the silhouette is best at the largest K that was tried, 6."
    )
    assert (row["n_criteria"], row["n_picks"], row["agreeing"]) == (4, 0, "")


def test_what_picks_and_what_does_not_is_said():
    row = choice(curves(above_null_mean=[1.0, 2.0, 5.0, 4.97, 1.0], bic_mean=[0.0, -900.0, -200.0, -100.0, 0.0]))
    assert (row["agreement_low"], row["agreement_high"], row["bic"]) == (4, 5, 3.0)
    assert np.isnan(row["agreement"])
    assert (row["agreement_says"], row["bic_says"]) == ("4 to 5", "3")
    assert row["silhouette_says"] == "none: best at the largest K that was tried, 6"
    assert row["statement"].startswith(
        "Of K = 2 to 6, no two criteria agree on one. The BIC picks K = 3; the agreement above its null "
        "cannot distinguish K = 4 to 5; "
    )


def test_what_is_agreed_on_is_said():
    peaked = [1.0, 2.0, 5.0, 3.0, 1.0]
    row = choice(curves(above_null_mean=peaked, silhouette_mean=peaked))
    assert (row["count"], row["count_low"], row["count_high"], row["agreeing"]) == (4, 4, 4, "agreement, silhouette")
    assert row["statement"].startswith(
        "Of K = 2 to 6, criteria agree on K = 4: the agreement above its null and the silhouette."
    )


def test_agreement_is_judged_above_its_null():
    without = choice(curves(above_null_mean=[np.nan] * 5, p_value=np.nan))
    assert without["agreement_says"] == "none: has no null to be judged by"
    assert without["n_criteria"] == 3
    within = choice(curves(above_null_mean=[0.0, 0.0, 5.0, 0.0, 0.0], p_value=0.3))
    assert within["agreement_says"] == "none: nowhere above its null (p at most 0.05)"
    assert within["n_criteria"] == 4


def test_criteria_that_a_method_does_not_have_do_not_exist():
    row = choice(curves("kmeans", heldout_log_likelihood_mean=[np.nan] * 5, bic_mean=[np.nan] * 5))
    assert (row["heldout_log_likelihood_says"], row["bic_says"]) == ("does not exist", "does not exist")
    assert row["n_criteria"] == 2
    assert "likelihood" not in row["statement"]
    assert "BIC" not in row["statement"]


def test_the_errors_are_those_that_are_said():
    close = [1.0, 4.96, 5.0, 2.0, 1.0]  # 0.1 / sqrt(4) = 0.05 of standard error over models
    assert choice(curves(silhouette_mean=close))["silhouette_says"] == "3 to 4"
    far = [1.0, 4.94, 5.0, 2.0, 1.0]
    assert choice(curves(silhouette_mean=far))["silhouette"] == 4.0
    # The error over splits, 0.1, is larger.
    assert choice(curves(heldout_log_likelihood_mean=far))["heldout_log_likelihood_says"] == "3 to 4"
    # A difference of 10 is weak.
    assert choice(curves(bic_mean=[0.0, -92.0, -100.0, -50.0, 0.0]))["bic_says"] == "3 to 4"
    # Of the draws 0.1, over pairs of four seeds 0.1 / sqrt(2): together 0.122.
    assert choice(curves(above_null_mean=[1.0, 4.88, 5.0, 2.0, 1.0]))["agreement_says"] == "3 to 4"
    assert choice(curves(above_null_mean=[1.0, 4.87, 5.0, 2.0, 1.0]))["agreement"] == 4.0


def test_trainers_apart_from_their_number_of_clusters_are_apart():
    both = pd.concat([curves(), curves().assign(trainer_settings="y")])
    assert len(choose_cluster_count(both)) == 2


# --- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "kmeans"}, "'kmeans' has no likelihood."),
        ({"n_splits": 1}, "n_splits is 1, but must be at least 2."),
        ({"test_share": 1.0}, "test_share is 1.0, but must be between 0 and 1."),
        (
            {"n_clusters": 41},
            "n_clusters is 41, but a split leaves only 40 of 60 neurons to fit. Choose fewer clusters",
        ),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(SettingsError) as raised:
        held_out_log_likelihood(planted(60)[0], **{"method": "gmm", "n_clusters": 2, **settings})
    assert str(raised.value).startswith(message)


def test_better_must_be_a_direction():
    with pytest.raises(SettingsError, match=r"^better is 'more'; it must be 'larger' or 'smaller'\.$"):
        select_n_clusters(COUNTS, [1.0] * 5, [0.0] * 5, better="more")
