"""Settings that every clustering has beside those of its method."""

from __future__ import annotations

import numpy as np
import pytest

from december_plugin.clustering.methods import (
    ALL_NEURONS,
    POST_HOC,
    QualityFilter,
    canonical_settings,
    embedding_space,
    own_settings,
    quality_filter,
    setting_mistakes,
)
from december_plugin.embeddings.space import EmbeddingSpace


@pytest.mark.parametrize("method", POST_HOC)
def test_the_space_is_stored_only_where_it_is_not_that_of_the_readout_vectors(method):
    defaults = canonical_settings(method, {})
    assert defaults == canonical_settings(method, {"space": "readout", "normalize": "none"})
    assert not {"space", "normalize"} & defaults.keys()
    functional = canonical_settings(method, {"space": "functional", "normalize": "l2"})
    assert functional == {**defaults, "space": "functional", "normalize": "l2"}
    assert canonical_settings(method, {"space": "functional"}) == {**defaults, "space": "functional"}


def test_the_covariance_is_stored_only_where_it_is_not_diagonal():
    defaults = canonical_settings("gmm", {})
    assert defaults == {"max_iter": 500, "n_init": 5, "reg_covar": 1e-6, "seed": 0, "tol": 1e-5}  # as it always was
    assert canonical_settings("gmm", {"covariance": "diagonal"}) == defaults
    assert canonical_settings("gmm", {"covariance": "spherical"}) == {**defaults, "covariance": "spherical"}
    ((name, error),) = setting_mistakes("gmm", {"covariance": "full"})
    assert name == "covariance"
    assert str(error) == "covariance is 'full', which is unknown. Allowed: diagonal, spherical."


def test_the_space_is_found_in_stored_settings_and_the_rest_is_the_methods():
    stored = canonical_settings("kmeans", {"normalize": "l2", "seed": 3})
    assert embedding_space(stored) == EmbeddingSpace(normalize="l2")
    assert own_settings(stored) == {"n_init": 20, "seed": 3}
    assert embedding_space(canonical_settings("kmeans", {})) == EmbeddingSpace()


@pytest.mark.parametrize("method", POST_HOC)
def test_the_filter_is_stored_only_where_it_leaves_neurons_out(method):
    defaults = canonical_settings(method, {})
    assert canonical_settings(method, {"minimum_test_correlation": None}) == defaults
    stored = canonical_settings(method, {"minimum_test_correlation": 0.3})
    assert stored == {**defaults, "minimum_test_correlation": 0.3}
    assert own_settings(stored) == defaults
    assert quality_filter(stored) == QualityFilter(minimum_test_correlation=0.3)
    assert quality_filter(defaults) == ALL_NEURONS


@pytest.mark.parametrize("value", [0, 0.0, np.float64(0), np.int64(0)])
def test_the_same_filter_has_the_same_settings(value):
    stored = canonical_settings("kmeans", {"minimum_test_correlation": value})
    assert repr(stored["minimum_test_correlation"]) == "0.0"


@pytest.mark.parametrize("value", [1.01, -2, True, "0.3", [0.3]])
def test_a_filter_is_a_correlation(value):
    ((name, error),) = setting_mistakes("kmeans", {"minimum_test_correlation": value})
    assert name == "minimum_test_correlation"
    assert "but must be a test correlation from -1 to 1, or None for all neurons." in str(error)


def test_the_filter_keeps_what_is_predicted_so_well_and_nothing_that_is_not_known():
    correlations = np.array([0.3, np.nan, 0.29999, 0.9, -0.1], dtype=np.float32)
    assert QualityFilter(minimum_test_correlation=0.3).keeps(correlations).tolist() == [True, False, False, True, False]
    assert ALL_NEURONS.keeps(correlations).all()
    assert QualityFilter(minimum_test_correlation=0.3).phrase == "test correlation 0.3 and above"
    assert ALL_NEURONS.phrase == ""


def test_mistakes_name_the_setting_and_what_is_allowed():
    found = setting_mistakes("gmm", {"normalise": "l2", "space": "functonal", "normalize": None})
    assert [(name, str(error)) for name, error in found] == [
        (
            "normalise",
            "gmm has no setting 'normalise'. Did you mean 'normalize'? Allowed: alignment, covariance, max_iter, "
            "minimum_test_correlation, n_init, normalize, reg_covar, seed, space, tol.",
        ),
        ("space", "space is 'functonal', which is unknown. Did you mean 'functional'? Allowed: functional, readout."),
        ("normalize", "normalize is None, which is unknown. Did you mean 'none'? Allowed: l2, none."),
    ]
