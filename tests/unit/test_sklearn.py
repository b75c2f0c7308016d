"""The mixture as a scikit-learn estimator."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_t
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from december_plugin.clustering import student_t_mixture as mixture
from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.errors import SettingsError
from december_plugin.sklearn import StudentTMixture


@parametrize_with_checks([StudentTMixture(), StudentTMixture(2, weights="learned", random_state=0)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.standard_t(4, (80, 3)), 12 + 2 * rng.standard_t(4, (40, 3))])


def test_is_the_mixture_of_the_package(samples):
    estimator = StudentTMixture(2, weights="learned", random_state=7).fit(samples)
    ours = mixture.StudentTMixture(2, 3, weights="learned").fit(samples, seed=7)
    np.testing.assert_array_equal(estimator.means_, ours.centers)
    np.testing.assert_array_equal(estimator.scales_, ours.scales)
    np.testing.assert_array_equal(estimator.weights_, ours.mixing_weights)
    np.testing.assert_array_equal(estimator.predict_proba(samples), ours.predict_proba(samples))
    np.testing.assert_array_equal(estimator.score_samples(samples), ours.score_samples(samples))
    assert estimator.lower_bound_ == ours.log_likelihood_ == pytest.approx(estimator.score(samples), rel=1e-9)
    assert (estimator.n_iter_, estimator.converged_) == (ours.n_iter_, True)
    stored = cluster_readouts(samples, method="t_mixture", n_clusters=2, seed=7, weights="learned", tol=1e-4)
    np.testing.assert_array_equal(estimator.labels_, stored.labels)
    np.testing.assert_array_equal(estimator.fit_predict(samples), stored.labels)
    assert (estimator.labels_ == estimator.predict(samples)).all()
    assert sorted(np.bincount(estimator.labels_)) == [40, 80]


def test_densities_are_scipys(samples):
    estimator = StudentTMixture(2, dof=3.5, weights="learned", random_state=0).fit(samples)
    densities = sum(
        weight * multivariate_t(mean, np.diag(scale), df=3.5).pdf(samples)
        for weight, mean, scale in zip(estimator.weights_, estimator.means_, estimator.scales_, strict=True)
    )
    np.testing.assert_allclose(estimator.score_samples(samples), np.log(densities), rtol=1e-9)
    log_likelihood = float(np.log(densities).sum())
    p = 2 * 2 * 3 + 1
    assert estimator.bic(samples) == pytest.approx(-2 * log_likelihood + p * math.log(len(samples)))
    assert estimator.aic(samples) == pytest.approx(-2 * log_likelihood + 2 * p)
    np.testing.assert_allclose(estimator.covariances_, estimator.scales_ * 3.5 / 1.5)
    assert np.isinf(StudentTMixture(dof=2, random_state=0).fit(samples).covariances_).all()


def test_criteria_meet_scikit_learns_for_large_dof(samples):
    estimator = StudentTMixture(2, dof=1e9, weights="learned", tol=1e-9, random_state=0).fit(samples)
    gaussian = GaussianMixture(2, covariance_type="diag", tol=1e-9, max_iter=500, random_state=0).fit(samples)
    assert estimator.bic(samples) == pytest.approx(gaussian.bic(samples), rel=1e-4)
    assert estimator.aic(samples) == pytest.approx(gaussian.aic(samples), rel=1e-4)


def test_samples_come_from_the_mixture(samples):
    estimator = StudentTMixture(2, dof=6.0, weights="learned", random_state=0).fit(samples)
    drawn, clusters = estimator.sample(200_000)
    assert (drawn.shape, drawn.dtype, clusters.dtype) == ((200_000, 3), np.float64, np.int64)
    for k in range(2):
        own = drawn[clusters == k]
        assert len(own) / len(drawn) == pytest.approx(estimator.weights_[k], abs=0.01)
        np.testing.assert_allclose(own.mean(axis=0), estimator.means_[k], atol=0.05)
        np.testing.assert_allclose(own.var(axis=0), estimator.covariances_[k], rtol=0.1)
    np.testing.assert_array_equal(estimator.sample(5)[0], estimator.sample(5)[0])
    with pytest.raises(SettingsError, match=r"^n_samples is 0, but must be an integer of at least 1\.$"):
        estimator.sample(0)


def test_in_a_pipeline_and_a_grid_search(samples):
    pipeline = make_pipeline(StandardScaler(), StudentTMixture(random_state=0))
    search = GridSearchCV(pipeline, {"studenttmixture__n_components": [1, 2]}, cv=3).fit(samples)
    assert search.best_params_ == {"studenttmixture__n_components": 2}
    assert clone(StudentTMixture(3, dof=5, scale_bounds=(1e-3, 10))).get_params()["scale_bounds"] == (1e-3, 10)


def test_random_states(samples):
    generator = np.random.RandomState(0)
    first, second = (StudentTMixture(4, random_state=generator).fit(samples).lower_bound_ for _ in range(2))
    again = StudentTMixture(4, random_state=np.random.RandomState(0)).fit(samples).lower_bound_
    assert first == again
    assert math.isfinite(second)
    assert StudentTMixture(2).fit(samples).means_.shape == (2, 3)


def test_data_frames_keep_their_names(samples):
    frame = pd.DataFrame(samples, columns=["a", "b", "c"])
    estimator = StudentTMixture(2, random_state=0).fit(frame)
    assert estimator.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(estimator.predict(frame), estimator.labels_)


def test_errors(samples):
    message = r"^n_components is 200, but there are only 120 samples\. Choose n_components between 1 and 120\.$"
    with pytest.raises(SettingsError, match=message):
        StudentTMixture(200).fit(samples)
    with pytest.raises(ValueError, match="Seed must be between 0 and"):
        StudentTMixture(random_state=-1).fit(samples)
    with pytest.raises(NotFittedError):
        StudentTMixture().predict(samples)
    with pytest.raises(AttributeError, match=r"^covariances_ exists only after the mixture is fitted\.$"):
        _ = StudentTMixture().covariances_
    with pytest.warns(ConvergenceWarning, match="has not converged after 1 M-steps"):
        StudentTMixture(4, max_iter=1, random_state=0).fit(samples)
