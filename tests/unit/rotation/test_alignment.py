"""The estimator: angles that were planted, scikit-learn's own checks, and input that cannot be aligned."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.embeddings.space import covariance_root
from december_plugin.errors import AlignmentError, EmbeddingError, MisfitError, SettingsError
from december_plugin.rotation import RotationAlignment, cyclic_mean, fitting, shifted
from december_plugin.rotation.simulation import simulated_readouts, toy_readouts

ORIENTATIONS = 8
# One orientation: scikit-learn's samples have any number of features.
ALIGNMENTS = [RotationAlignment(1, n_restarts=1, random_state=0)]


def not_applicable(estimator):
    return {"check_estimators_dtypes": "cut to integers, one of its samples is zero and has no direction"}


@parametrize_with_checks(ALIGNMENTS, expected_failed_checks=not_applicable)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def planted():
    """Return noisy readout vectors of three types at random angles."""
    return simulated_readouts(120, n_types=3, n_features=6, noise=0.3, seed=1)


@pytest.fixture(scope="module")
def fitted(planted):
    return RotationAlignment(ORIENTATIONS, random_state=0).fit(planted.readouts)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.slow(1.5)
def test_types_are_recovered_at_any_orientation(planted, fitted):
    aligned = fitted.transform(planted.readouts)
    found = {
        name: cluster_readouts(vectors, method="gmm", n_clusters=3, covariance="spherical").labels
        for name, vectors in {"raw": unit(planted.readouts), "aligned": aligned}.items()
    }
    scores = {name: adjusted_rand_score(planted.types, labels) for name, labels in found.items()}
    assert scores["aligned"] > 0.95
    assert scores["raw"] < 0.8
    # Within a type, angles differ from the planted ones by the same turn.
    for kind in range(3):
        turns = np.exp(1j * (fitted.angles_ + planted.angles)[planted.types == kind])
        assert abs(turns.mean()) > 0.98


def test_what_is_reported(planted, fitted):
    directions = unit(planted.readouts)
    aligned = shifted(directions, fitted.angles_, ORIENTATIONS)
    again = clone(fitted).fit_transform(planted.readouts)
    np.testing.assert_allclose(fitted.transform(planted.readouts), again, atol=1e-5)
    np.testing.assert_allclose(fitted.transform(planted.readouts), aligned, atol=1e-5)
    assert fitted.loss_before_ == pytest.approx(pdist(directions).mean())
    assert fitted.alignment_loss_ == pytest.approx(pdist(aligned).mean())
    assert fitted.alignment_loss_ < 0.95 * fitted.loss_before_
    single = clone(fitted).set_params(n_means=1).fit(planted.readouts)
    assert single.alignment_loss_ == min(run.alignment_loss for run in fitted.runs_)
    np.testing.assert_allclose(single.means_, shifted(directions, single.angles_, ORIENTATIONS).mean(axis=0)[None])
    assert [(run.restart, run.beta) for run in fitted.runs_] == [(0, 10.0), (1, 10.0), (2, 10.0)]
    assert fitted.temperature_ > 0
    assert fitted.means_.shape == (12, 48)
    assert fitted.ambiguous_.shape == (120,)
    assert fitted.ambiguous_share_ == fitted.ambiguous_.mean() < 0.5


def test_the_same_seed_gives_the_same_angles(planted):
    alignments = [
        RotationAlignment(ORIENTATIONS, n_restarts=1, random_state=seed).fit(planted.readouts) for seed in (3, 3, 4)
    ]
    first, again, other = (each.angles_ for each in alignments)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_new_neurons_are_turned_to_the_fitted_mean(planted, fitted):
    whole_steps = np.random.default_rng(0).integers(ORIENTATIONS, size=120) * 2 * np.pi / ORIENTATIONS
    turned = shifted(planted.readouts, whole_steps, ORIENTATIONS)
    np.testing.assert_allclose(fitted.transform(3 * turned), fitted.transform(planted.readouts), atol=1e-9)


def test_lengths_are_kept_where_asked(planted, fitted):
    kept = clone(fitted).set_params(normalize=False).fit_transform(planted.readouts)
    lengths = np.linalg.norm(planted.readouts, axis=1, keepdims=True)
    np.testing.assert_allclose(kept, lengths * fitted.fit_transform(planted.readouts), atol=1e-9)


def test_a_metric_aligns_what_neurons_compute(planted):
    rng = np.random.default_rng(2)
    features = rng.normal(size=(300, 48)) * np.tile([3, 1, 1, 0.5, 0.2, 0], 8)
    sigma = np.cov(features, rowvar=False)
    found = RotationAlignment(ORIENTATIONS, metric=sigma, n_restarts=1, random_state=0).fit(planted.readouts)
    root = covariance_root(cyclic_mean(sigma, ORIENTATIONS))
    by_hand = RotationAlignment(ORIENTATIONS, n_restarts=1, random_state=0).fit(planted.readouts @ root)
    np.testing.assert_allclose(found.angles_, by_hand.angles_, atol=1e-6)
    np.testing.assert_allclose(found.transform(planted.readouts), by_hand.transform(planted.readouts @ root), atol=1e-6)


def test_the_papers_objective_and_schedule(monkeypatch):
    monkeypatch.setattr(fitting, "PAPER_RATE", 0.1)  # ten times as fast
    monkeypatch.setattr(fitting, "MOST_STEPS", 150)
    toy = toy_readouts(12, seed=2)
    with_distances = RotationAlignment(ORIENTATIONS, power=1, n_restarts=1, random_state=0).fit(toy.readouts)
    assert with_distances.alignment_loss_ < 0.8 * with_distances.loss_before_
    paper = RotationAlignment(ORIENTATIONS, schedule="paper", beta=10.0, n_restarts=2, random_state=0).fit(toy.readouts)
    assert paper.temperature_ > 5
    assert paper.alignment_loss_ < paper.loss_before_
    assert len(paper.runs_) == 2
    message = (
        r"^none of 1 fits reached a temperature above 5, .*: the largest was [0-9.e-]+, with beta 0\.001\. Use sche"
    )
    with pytest.raises(AlignmentError, match=message):
        RotationAlignment(ORIENTATIONS, schedule="paper", beta=1e-3, n_restarts=1, random_state=0).fit(toy.readouts)


@pytest.mark.parametrize("seed", range(3))
def test_no_neuron_can_improve_on_its_angle_by_itself(planted, seed):
    found = RotationAlignment(ORIENTATIONS, n_restarts=1, n_means=1, random_state=seed).fit(planted.readouts)
    directions = unit(planted.readouts)
    for angle in np.linspace(0, 2 * np.pi, 50):
        moved = shifted(directions, np.full(120, angle), ORIENTATIONS)
        aligned = shifted(directions, found.angles_, ORIENTATIONS)
        gain = ((aligned - found.means_) ** 2).sum(axis=1) - ((moved - found.means_) ** 2).sum(axis=1)
        assert gain.max() < 1e-6


def test_data_frames_keep_their_names(planted, fitted):
    frame = pd.DataFrame(planted.readouts).rename(columns=str)
    assert clone(fitted).fit(frame).feature_names_in_[:2].tolist() == ["0", "1"]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"schedule": "slow"}, SettingsError, "schedule is 'slow'"),
        ({"power": 3}, SettingsError, "power is 3, but must be 1 or 2."),
        ({"n_restarts": 0}, SettingsError, "n_restarts is 0"),
        ({"beta": 0}, SettingsError, "beta is 0"),
        ({"n_means": 0}, SettingsError, "n_means is 0"),
        ({"normalize": "l2"}, SettingsError, "normalize is 'l2'"),
        ({"n_orientations": 5}, MisfitError, "n_orientations is 5, but readout vectors have 16 entries"),
        (
            {"metric": np.eye(3)},
            EmbeddingError,
            "covariance is of 3 features and the readout vectors have 16",
        ),
    ],
)
def test_settings_that_are_not_allowed(settings, error, message):
    with pytest.raises(error, match=re.escape(message)):
        RotationAlignment(**{"n_orientations": ORIENTATIONS, **settings}).fit(np.ones((4, 16)))


def test_vectors_that_cannot_be_aligned(fitted):
    vectors = np.random.default_rng(0).normal(size=(5, 16))
    vectors[[1, 3]] = 0
    message = "2 of 5 readout vectors are zero, the first that of row 1: they have no direction that could be aligned."
    with pytest.raises(EmbeddingError, match=re.escape(message)):
        RotationAlignment(ORIENTATIONS).fit(vectors)
    vectors[[1, 3]] = [1.0] + [0.0] * 15
    message = "2 of 5 functional embeddings, the drives of neurons, are zero, the first that of row 1"
    with pytest.raises(EmbeddingError, match=re.escape(message)):
        RotationAlignment(ORIENTATIONS, metric=np.diag([0.0, 1.0] * 8)).fit(vectors)
    vectors[0, 0] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        RotationAlignment(ORIENTATIONS).fit(vectors)
    with pytest.raises(ValueError, match="Found array with 1 sample"):
        RotationAlignment(ORIENTATIONS).fit(np.ones((1, 16)))
    with pytest.raises(ValueError, match="X has 16 features, but RotationAlignment is expecting 48"):
        fitted.transform(np.ones((2, 16)))
    with pytest.raises(NotFittedError):
        RotationAlignment(ORIENTATIONS).transform(np.ones((2, 16)))
    with pytest.raises(AttributeError, match=r"^ambiguous_share_ exists only after the alignment is fitted\.$"):
        _ = RotationAlignment(ORIENTATIONS).ambiguous_share_
