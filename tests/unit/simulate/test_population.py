"""Populations of simulated neurons: planted types by default, to the byte; unequal sizes; a continuum without types."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.mixture import GaussianMixture

from december_plugin.errors import SettingsError
from december_plugin.simulate import read_truth, write_recording

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
