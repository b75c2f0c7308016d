"""Alignment of all readout vectors of a model by a recipe: dead neurons, controls, metrics."""

from __future__ import annotations

import numpy as np
import pytest

from december_plugin.embeddings.alignment_recipe import AlignmentRecipe
from december_plugin.errors import EmbeddingError, MisfitError, SettingsError
from december_plugin.rotation import RotationAlignment, cyclic_mean
from december_plugin.rotation.recipes import align_neurons, before_alignment, turned

QUICK = {"n_restarts": 1, "n_means": 1}


def readouts(n: int = 24) -> np.ndarray:
    rng = np.random.default_rng(0)
    tuning = np.array([[3.0, 0.5], [1.0, 2.0], [0.2, 1.0], [0.0, 0.4]])
    turns = [np.roll(tuning, k, axis=0).ravel() for k in rng.integers(4, size=n)]
    return np.array(turns) + 0.05 * rng.normal(size=(n, 8))


def test_neurons_without_a_readout_have_no_angle_and_change_nothing_for_the_others():
    vectors = readouts()
    found = align_neurons(vectors, 4, AlignmentRecipe(**QUICK))
    with_dead = np.insert(vectors, [0, 5, 24], 0.0, axis=0)
    dead = ~with_dead.any(axis=1)
    again = align_neurons(with_dead, 4, AlignmentRecipe(**QUICK))
    assert np.isnan(again.angles).tolist() == dead.tolist()
    np.testing.assert_array_equal(again.angles[~dead], found.angles)
    assert (found.n_zero, again.n_zero) == (0, 3)
    assert not again.ambiguous[dead].any()
    assert again.ambiguous_share == found.ambiguous_share == found.ambiguous.mean()
    assert (again.alignment_loss, again.loss_before) == (found.alignment_loss, found.loss_before)
    shifted = turned(with_dead, again.angles, 4)
    assert (shifted[dead] == 0).all()
    directions = shifted[~dead] / np.linalg.norm(shifted[~dead], axis=1, keepdims=True)
    assert np.linalg.norm(directions - directions[0], axis=1).max() < 0.2


def test_a_recipe_is_what_the_estimator_is_told():
    vectors = readouts()
    recipe = AlignmentRecipe(n_restarts=2, beta=5.0, seed=3, n_means=2)
    found = align_neurons(vectors, 4, recipe)
    expected = RotationAlignment(4, n_restarts=2, beta=5.0, random_state=3, n_means=2).fit(vectors)
    np.testing.assert_array_equal(found.angles, expected.angles_)
    assert (found.temperature, found.beta) == (expected.temperature_, 5.0)


def test_a_functional_recipe_aligns_in_the_metric_and_leaves_out_what_has_no_drive():
    vectors, rng = readouts(), np.random.default_rng(1)
    factors = np.diag([1.0, 0.0] * 4)  # the second feature never varies
    covariance = factors @ (np.eye(8) + 0.3 * (rng.normal(size=(8, 8)) @ np.ones((8, 8)) * 0.01)) @ factors
    covariance = covariance @ covariance.T
    vectors[2] = np.tile([0.0, 1.0], 4)
    found = align_neurons(vectors, 4, AlignmentRecipe(space="functional", **QUICK), covariance)
    assert np.flatnonzero(np.isnan(found.angles)).tolist() == [2]
    others = np.delete(vectors, 2, axis=0)
    expected = RotationAlignment(4, metric=cyclic_mean(covariance, 4), random_state=0, **QUICK).fit(others)
    np.testing.assert_allclose(np.delete(found.angles, 2), expected.angles_, atol=1e-6)
    with pytest.raises(EmbeddingError, match="an alignment by what neurons compute needs the model's feature cov"):
        align_neurons(vectors, 4, AlignmentRecipe(space="functional"))


def test_controls_are_permuted_before_they_are_aligned():
    vectors = readouts()
    assert before_alignment(vectors, 4, AlignmentRecipe()) is not vectors
    np.testing.assert_array_equal(before_alignment(vectors, 4, AlignmentRecipe()), vectors)
    permuted = before_alignment(vectors, 4, AlignmentRecipe(control="neurons", seed=2))
    assert not np.array_equal(permuted, vectors)
    np.testing.assert_array_equal(
        np.sort(permuted.reshape(24, 4, 2), axis=0), np.sort(vectors.reshape(24, 4, 2), axis=0)
    )


def test_readouts_that_cannot_be_aligned():
    with pytest.raises(EmbeddingError, match=r"^1 of 3 readout vectors are not zero; at least two are needed"):
        align_neurons([[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], 4, AlignmentRecipe())
    with pytest.raises(EmbeddingError, match="hold NaN or infinite values"):
        align_neurons(np.full((3, 4), np.nan), 4, AlignmentRecipe())
    with pytest.raises(MisfitError, match="n_orientations is 4, but readout vectors have 6 entries"):
        align_neurons(np.ones((3, 6)), 4, AlignmentRecipe())


@pytest.mark.parametrize(
    ("settings", "phrase"),
    [
        ({}, "aligned"),
        ({"schedule": "paper"}, "aligned (paper's schedule)"),
        ({"n_means": 1, "seed": 2}, "aligned (one mean, seed 2)"),
        ({"power": 1, "n_restarts": 5, "beta": 0.5}, "aligned (distances, not squared, restarts 5, beta 0.5)"),
        ({"space": "functional"}, "aligned (by what neurons compute)"),
        ({"control": "neurons"}, "aligned (features permuted across neurons)"),
    ],
)
def test_recipes_in_words(settings, phrase):
    assert AlignmentRecipe(**settings).phrase == phrase


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"power": True}, "power is True, but must be 1 or 2."),
        ({"beta": 0}, "beta is 0, but must be a positive number, or None for the schedule's."),
        ({"n_means": 0}, "n_means is 0, but must be an integer from 1 to 10000, or None for the schedule's."),
        ({"n_restarts": 1.5}, "n_restarts is 1.5, but must be an integer from 1 to 1000."),
        (
            {"control": None},
            "control is None, which is unknown. Did you mean 'none'? Allowed: features, neurons, none.",
        ),
        ({"metric": 1}, "AlignmentRecipe has no setting 'metric'."),
    ],
)
def test_recipes_that_are_none(settings, message):
    with pytest.raises(SettingsError) as raised:
        AlignmentRecipe(**settings)
    assert str(raised.value).startswith(message)


def test_equal_recipes_have_equal_settings():
    numbers = AlignmentRecipe(power=np.int64(1), n_restarts=np.int32(2), beta=np.float32(3), n_means=np.int64(4))
    assert repr(numbers.as_settings()) == repr(AlignmentRecipe(power=1, n_restarts=2, beta=3, n_means=4).as_settings())
