"""Populations of simulated neurons: planted types by default, to the byte; unequal sizes; a continuum without types."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest, kurtosis, norm
from sklearn.mixture import GaussianMixture

from december_plugin.errors import SettingsError
from december_plugin.simulate import read_truth, write_recording
from december_plugin.simulate.image_model import FeatureBank, noise_images
from december_plugin.simulate.population import type_tuning_of

SMALL = {"n_neurons": 40, "n_train": 6, "n_validation": 2, "n_test": 2, "n_repeats": 2}
MANY = {"n_neurons": 4000, "n_train": 1, "n_validation": 2, "n_test": 0, "gain_sd": 0.0, "spread": 0.3}


def digest(folder: Path) -> str:
    state = hashlib.sha256()
    for file in sorted(folder.rglob("*.npy")):
        array = np.load(file)
        state.update(f"{file.relative_to(folder)}{array.dtype}{array.shape}".encode() + array.tobytes())
    return state.hexdigest()


def test_the_default_is_planted_types_in_the_same_numbers(tmp_path):
    default = write_recording(tmp_path / "default" / "a", **SMALL)
    typed = write_recording(tmp_path / "typed" / "a", population="types", **SMALL)
    assert digest(default) == digest(typed)
    assert set(read_truth(default).types) == set(range(6))


def test_the_marmoset_ratio(tmp_path):
    truth = read_truth(write_recording(tmp_path / "a", **{**SMALL, "n_neurons": 145}, type_sizes=(78, 40, 22, 5)))
    assert np.bincount(truth.types).tolist() == [78, 40, 22, 5]


@pytest.fixture(scope="module")
def tunings(tmp_path_factory):
    """Tuning of many neurons of types and of a continuum with the same moments."""
    folder = tmp_path_factory.mktemp("populations")
    kinds = ("types", "continuum")
    return {kind: read_truth(write_recording(folder / kind, population=kind, seed=0, **MANY)) for kind in kinds}


def test_a_continuum_has_the_moments_of_the_types_and_no_types(tunings):
    typed, untyped = tunings["types"].tuning, tunings["continuum"].tuning
    assert set(tunings["continuum"].types) == {-1}
    error = norm.ppf(0.9999) * typed.std(axis=0) / np.sqrt(len(typed) / 2)
    assert (np.abs(typed.mean(axis=0) - untyped.mean(axis=0)) < error).all()
    np.testing.assert_allclose(np.cov(untyped.T), np.cov(typed.T), atol=0.15)


def test_a_continuum_is_described_best_by_one_component(tunings):
    best = {}
    for kind, truth in tunings.items():
        bic = [GaussianMixture(k, random_state=0).fit(truth.tuning).bic(truth.tuning) for k in range(1, 8)]
        best[kind] = 1 + int(np.argmin(bic))
    assert best == {"types": 6, "continuum": 1}


def test_unknown_population(tmp_path):
    with pytest.raises(SettingsError, match="population is 'contiuum'"):
        write_recording(tmp_path / "a", population="contiuum", **SMALL)


# --- other ways of planting --------------------------------------------------------------------------------------


def test_correlated_features_have_unit_variance_and_the_correlations_of_the_gabors():
    white, correlated = (
        FeatureBank.draw(8, 7, (16, 16), seed=3, features=features) for features in ("whitened", "correlated")
    )
    images = noise_images(200, (16, 16), np.random.default_rng(0))
    maps = np.moveaxis(correlated.maps(images), 1, 0).reshape(8, -1)
    np.testing.assert_allclose(maps.std(axis=1), 1, atol=0.05)
    energies = np.moveaxis(white.maps(images), 1, 0).reshape(8, -1)
    # Whitened maps, given back the covariance that whitening took, are those before it.
    before = np.linalg.solve(white.whitening, energies)
    np.testing.assert_allclose(np.corrcoef(maps), np.corrcoef(before), atol=1e-9)
    assert np.abs(np.corrcoef(maps)[np.triu_indices(8, 1)]).max() > 0.3


def test_simple_and_complex_features_of_one_gabor():
    bank = FeatureBank.draw(8, 7, (16, 16), seed=3, features="correlated", cells="simple_and_complex")
    assert bank.is_complex.tolist() == [False, False, False, True] * 2
    images = noise_images(20, (16, 16), np.random.default_rng(0))
    maps = bank.maps(images) / np.diag(bank.whitening)[:, None, None] + bank.mean[:, None, None]
    for first in (0, 4):
        even, odd, negative, energy = np.moveaxis(maps[:, first : first + 4], 1, 0)
        assert (even >= -1e-9).all()
        assert (np.minimum(even, negative) < 1e-9).all()  # opposite signs of one filter
        # The energy is at least each of its parts, and what the rectified odd part hides is the rest.
        assert (energy >= np.maximum(even + negative, odd) - 1e-9).all()
        shown = odd > 1e-9
        np.testing.assert_allclose(energy[shown] ** 2, ((even + negative) ** 2 + odd**2)[shown], rtol=1e-6)


def test_types_are_of_simple_and_of_complex_cells():
    tuning = type_tuning_of(5, 16, 1, cells="simple_and_complex")
    of_complex = np.arange(16) % 4 == 3
    assert (tuning[::2][:, of_complex] == 0).all()
    assert (tuning[1::2][:, ~of_complex] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(tuning, axis=1), 4)


def test_a_ring_lies_around_a_circle_without_gaps(tmp_path):
    truth = read_truth(write_recording(tmp_path / "a", population="ring", seed=0, **{**MANY, "spread": 0.1}))
    assert set(truth.types) == {-1}
    plane = np.linalg.svd(truth.tuning, full_matrices=False)[2][:2]
    x, y = plane @ truth.tuning.T
    np.testing.assert_allclose(np.hypot(x, y), np.sqrt(8), atol=6 * 0.1)
    assert kstest((np.arctan2(y, x) + np.pi) / (2 * np.pi), "uniform").pvalue > 0.001


def test_a_sparse_continuum_has_the_moments_of_the_types_and_heavy_tails(tmp_path, tunings):
    sparse = read_truth(write_recording(tmp_path / "a", population="sparse", seed=0, **MANY)).tuning
    typed = tunings["types"].tuning
    np.testing.assert_allclose(np.cov(sparse.T), np.cov(typed.T), atol=0.3)
    axes = np.linalg.eigh(np.cov(typed.T))[1]
    # The product of two independent normal numbers has a kurtosis of 9, against 3.
    assert kurtosis((sparse - sparse.mean(axis=0)) @ axes, fisher=False, axis=0).mean() == pytest.approx(9, rel=0.25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": "white"}, "features is 'white'"),
        ({"cells": "simple"}, "cells is 'simple'"),
        (
            {"cells": "simple_and_complex", "n_features": 3},
            r"n_features is 3; cells='simple_and_complex' needs at least 4\.",
        ),
        ({"population": "ring", "n_features": 1}, r"n_features is 1; it must be at least 2\."),
    ],
)
def test_ways_of_planting_that_there_are_not(tmp_path, settings, message):
    with pytest.raises(SettingsError, match=message):
        write_recording(tmp_path / "a", **{**SMALL, **settings})
