"""Hashes of settings are stored in databases: they are literals here."""

from __future__ import annotations

import pytest

from december_plugin.clustering.methods import canonical_settings
from december_plugin.embeddings.alignment_recipe import AlignmentRecipe
from december_plugin.schemas.alignment import alignment_hash
from december_plugin.schemas.cluster_functions import confusion_row
from december_plugin.schemas.clusters import clustering_hash
from december_plugin.schemas.exciting_images import mei_row
from december_plugin.schemas.nulls import surrogate_row
from december_plugin.schemas.settings_tables import comma_separated, is_for_method, named_by_values, settings_hash
from december_plugin.schemas.stability import resampling_row

OF_SEEDS = {"per_cluster": 3, "models": "seeds", "norm": 2, "least_correlation": 1, "max_steps": 60}


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        (surrogate_row(None, n_draws=99, seed=0, method="combined"), "surrogate", "8f399242cf6adfd9bf6976983fa9d0c4"),
        (
            surrogate_row("x", n_draws=19, seed=3, method="elliptical", clusterings=["kmeans", "gmm"]),
            *("surrogate", "6ac603c189cd8411a992956bc8742e56"),
        ),
        (resampling_row(), "resampling", "565057f72437fe5472fc4cc58b9d25af"),
        (
            resampling_row(n_draws=20, share=0.5, seed=7, n_surrogates=9, clusterings=["gmm"]),
            *("resampling", "aa4ae0f8d7b91a6e5d7998821d09ed4d"),
        ),
        (confusion_row(), "confusion", "b617c87da558ce19c72ff3c79596912d"),
        (
            confusion_row(threshold=1, responses="images", clusterings=["kmeans", "december"]),
            *("confusion", "30d54ef728b56ee5fa76b7be806db5bc"),
        ),
        (mei_row(), "mei", "9434406f3bbff27e786be57e2798dc1b"),
        (mei_row(**OF_SEEDS, clusterings=["kmeans"]), "mei", "10682b3bc6ac8563a451afdd5498e75e"),
    ],
)
def test_rows_keep_their_hashes(row, column, expected):
    assert row[f"{column}_hash"] == expected


def test_alignments_and_clusterings_keep_their_hashes():
    assert alignment_hash(AlignmentRecipe()) == "861ce42d6a07bb94a588eb5b516d0000"
    permuted = AlignmentRecipe(schedule="paper", beta=2, n_means=1, control="features")
    assert alignment_hash(permuted) == "f86ad744228d736bdea5530a0f23fd21"
    assert clustering_hash("december", 0, {}) == "f5614f389d8de12c950c05bf67e7a41b"
    assert clustering_hash("kmeans", 3, canonical_settings("kmeans", {})) == "3e0ebdfdbf7c1be8ac449523a1bf9664"
    aligned = canonical_settings("gmm", {"covariance": "spherical", "normalize": "l2", "alignment": {}})
    assert clustering_hash("gmm", 5, aligned) == "be7a55639b35e011ca802a7f5b4a3bdc"


def test_values_that_differ_have_other_hashes_and_the_order_of_keys_does_not_matter():
    values = [1, "1", 1.5, [], {}, "", None, True]
    assert len({settings_hash(value) for value in values}) == len(values)
    assert settings_hash({"a": 1, "b": 2}) == settings_hash({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        settings_hash([float("nan")])
    assert named_by_values("x_hash", {"a": 1, "b": None}) == {"x_hash": settings_hash([1, None]), "a": 1, "b": None}


def test_methods_of_an_entry():
    assert comma_separated(["gmm", "kmeans"]) == "gmm,kmeans"
    assert comma_separated(None) is comma_separated([]) is None
    assert is_for_method("x_clusterings") == "x_clusterings IS NULL OR FIND_IN_SET(method, x_clusterings)"
