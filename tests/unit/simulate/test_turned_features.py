"""Types at random orientations: what a neuron computes is the same, turned, whatever its angle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from december_plugin.errors import SettingsError
from december_plugin.insilico.turning import turned
from december_plugin.simulate import draw_recording, read_truth, write_recording
from december_plugin.simulate.image_model import Trials
from december_plugin.simulate.population import Population
from december_plugin.simulate.turned_features import TurnedFeatures
from december_plugin.validation.tensors import tensor_of

SINGLE: dict[str, Any] = {"features": "correlated", "cells": "single_gabors", "n_features": 6}
RANDOM: dict[str, Any] = {"orientations": "random", "n_neurons": 12, "n_train": 30, "n_validation": 2, "n_test": 2}
MIDDLE = np.array([[7.0, 7.0]])  # of images of 15 x 15 pixels


def neurons(tuning: np.ndarray, angles: np.ndarray, centers: np.ndarray) -> Population:
    zeros = np.zeros(len(angles))
    return Population(zeros, zeros, tuning, zeros, zeros, zeros, centers, angles)


def shown(images: np.ndarray, gaze: np.ndarray | None = None) -> Trials:
    n = len(images)
    gaze = np.zeros((n, 2)) if gaze is None else gaze
    return Trials(np.full(n, "train"), images, np.arange(n), np.zeros(n), gaze, None)


@pytest.mark.parametrize("settings", [{"n_features": 8}, {**SINGLE}, {"n_features": 8, "cells": "simple_and_complex"}])
def test_a_turned_neuron_responds_to_turned_images_as_it_would_unturned(settings: dict[str, Any]) -> None:
    bank = TurnedFeatures.draw(size=7, shape=(15, 15), seed=1, **settings)
    rng = np.random.default_rng(0)
    images, tuning = rng.normal(size=(5, 15, 15)), rng.normal(size=(1, settings["n_features"]))
    as_it_is = bank.drive_of(shown(images), neurons(tuning, np.zeros(1), MIDDLE), 0.0)
    quarter = bank.drive_of(shown(np.rot90(images, axes=(1, 2))), neurons(tuning, np.full(1, np.pi / 2), MIDDLE), 0.0)
    np.testing.assert_allclose(quarter, as_it_is, atol=1e-9)
    assert np.ptp(as_it_is) > 0.1


def test_kernels_at_any_angle_are_the_turned_ones() -> None:
    bank = TurnedFeatures.draw(6, 9, (17, 17), 1, features="correlated", cells="single_gabors")
    middle = np.array([[8.0, 8.0]])
    for as_it_is, other in zip(
        bank.kernels(np.zeros(1), middle, (17, 17)), bank.kernels(np.radians([40.0]), middle, (17, 17)), strict=True
    ):
        interpolated = turned(tensor_of(as_it_is[:, 0]), 40.0).numpy()
        for found, expected in zip(other[:, 0], interpolated, strict=True):
            assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.97


def test_drive_is_that_of_a_plain_loop() -> None:
    bank = TurnedFeatures.draw(6, 7, (11, 13), 2, features="correlated", cells="single_gabors")
    rng = np.random.default_rng(3)
    images, tuning = rng.normal(size=(2, 11, 13)), rng.normal(size=(2, 6))
    angles, centers = np.array([0.3, 4.0]), np.array([[5.2, 6.1], [4.0, 7.5]])
    drive = bank.drive_of(shown(images), neurons(tuning, angles, centers), 0.0)
    wavelengths = [7.0, 7.0, 7.0, 4.2, 4.2, 4.2]
    for image in range(2):
        for neuron in range(2):
            total = 0.0
            for feature in range(6):
                even = odd = 0.0
                gabor = bank.gabors.angles[feature // 3]
                for row in range(11):
                    for column in range(13):
                        down, right = row - centers[neuron, 0], column - centers[neuron, 1]
                        # The direction of the wave, turned counterclockwise where rows are counted downwards.
                        wave = gabor - angles[neuron]
                        phase = 2 * np.pi * (np.cos(wave) * right + np.sin(wave) * down) / wavelengths[feature]
                        envelope = np.exp(-(down**2 + right**2) / (2 * 1.75**2))
                        mean = np.exp(-2 * (np.pi * 1.75 / wavelengths[feature]) ** 2)
                        even += images[image, row, column] * envelope * (np.cos(phase) - mean)
                        odd += images[image, row, column] * envelope * np.sin(phase)
                energy = (max(even, 0.0), max(odd, 0.0), float(np.hypot(even, odd)))[feature % 3]
                scale = bank.bank.whitening[feature, feature]
                total += tuning[neuron, feature] * scale * (energy - bank.bank.mean[feature])
            assert drive[image, neuron] == pytest.approx(total, abs=1e-9)


def test_receptive_fields_move_with_the_gaze() -> None:
    bank = TurnedFeatures.draw(6, 5, (15, 15), 1, features="correlated", cells="single_gabors")
    images, tuning, angle = np.random.default_rng(0).normal(size=(1, 15, 15)), np.ones((1, 6)), np.full(1, 0.7)
    gazing = bank.drive_of(shown(images, np.array([[1.0, -0.5]])), neurons(tuning, angle, MIDDLE), 2.0)
    moved = bank.drive_of(shown(images), neurons(tuning, angle, MIDDLE + np.array([2.0, -1.0])), 0.0)
    np.testing.assert_allclose(gazing, moved, atol=1e-2)


def test_features_have_their_scale_at_every_angle() -> None:
    settings = {**RANDOM, **SINGLE, "n_train": 1500, "n_neurons": 24}
    recording = draw_recording(seed=1, spread=0.0, gain_sd=0.0, **settings)
    # Drives have the standard deviation ``modulation`` = 2 and the mean 0, so that rates are alike.
    rates = recording.responses.mean(axis=0)
    for kind in range(6):
        own = rates[recording.truth.types == kind]
        assert own.std() < 0.35 * own.mean()


def test_angles_are_kept_and_all_orientations_occur(tmp_path: Path) -> None:
    common = write_recording(tmp_path / "static1-1-1-a", seed=1, n_neurons=10, n_train=5, n_validation=2, n_test=0)
    assert read_truth(common).angles is None
    assert not (common / "truth" / "angles.npy").exists()
    settings = {**RANDOM, "n_neurons": 100, "n_train": 5}
    angles = read_truth(write_recording(tmp_path / "static1-1-1-b", seed=1, **settings)).angles
    assert angles is not None
    assert np.histogram(angles, bins=4, range=(0, 2 * np.pi))[0].min() > 12


def test_each_type_has_one_gabor() -> None:
    truth = draw_recording(seed=1, **RANDOM, **SINGLE, spread=0.0).truth
    assert (np.count_nonzero(truth.tuning, axis=1) == 1).all()
    assert truth.tuning.argmax(axis=1).tolist() == truth.types.tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"orientations": "all"}, "orientations is 'all'"),
        ({"cells": "single_gabors"}, "features is 'whitened'; with cells='single_gabors' it must be 'correlated'"),
        ({**SINGLE, "n_features": 5}, r"n_features is 5; cells='single_gabors' needs one for each of the 6 types\."),
    ],
)
def test_orientations_and_features_that_do_not_go(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        draw_recording(seed=1, **{**RANDOM, **settings})
