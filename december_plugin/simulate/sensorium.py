"""Simulated recordings with planted cell types, written in the SENSORIUM 2022 folder layout.

The generative model is that of :mod:`december_plugin.simulate.image_model`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from december_plugin.errors import SettingsError
from december_plugin.simulate.folders import (
    checked_seed,
    checked_target,
    save_array,
    save_truth,
    session_ids,
    truth_of,
    whole_recording,
)
from december_plugin.simulate.image_model import (
    CONTRAST,
    CORRELATED,
    FEATURES,
    GREY,
    NOISES,
    TYPE_SIZES,
    FeatureBank,
    Trials,
    checked_shape,
    drive_of,
    expected_counts,
    spike_counts,
)
from december_plugin.simulate.population import (
    CELLS,
    COMMON,
    NOISE,
    ORIENTATIONS,
    POPULATIONS,
    RANDOM,
    RING,
    SINGLE,
    Population,
    neurons_per_type,
    random_stream,
    type_tuning_of,
)
from december_plugin.simulate.turned_features import TurnedFeatures
from december_plugin.validation.checks import check_choice, check_positive, check_sizes, check_spreads


@dataclass(frozen=True)
class RecordingTruth:
    """The planted truth of a simulated recording; neurons in the order of ``unit_ids``.

    Attributes
    ----------
    unit_ids
        (neurons,) int64.
    types
        (neurons,) int64 planted type of each neuron; -1 where there are none.
    tuning
        (neurons, features) ``v_i``.
    type_tuning
        (types, features) ``m_k``, the same in all recordings with the same ``types_seed``.
    gains
        (neurons,) ``g_i``.
    dispersions
        (neurons,) ``alpha_i``, zero for Poisson noise.
    centers
        (neurons, 2) row and column of the receptive field's centre in pixels.
    angles
        (neurons,) by which a neuron's features are turned, counterclockwise, in radians; None with common orientations.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.simulate import draw_recording
    >>> sizes = {"n_neurons": 12, "n_train": 20, "n_validation": 5, "n_test": 2, "n_repeats": 3}
    >>> truth = draw_recording(seed=1, type_sizes=(0.5, 0.25, 0.25), **sizes).truth
    >>> np.bincount(truth.types).tolist(), truth.type_tuning.shape
    ([6, 3, 3], (3, 8))
    """

    unit_ids: np.ndarray
    types: np.ndarray
    tuning: np.ndarray
    type_tuning: np.ndarray
    gains: np.ndarray
    dispersions: np.ndarray
    centers: np.ndarray
    angles: np.ndarray | None = None

    @classmethod
    def of(
        cls, neurons: Population, type_tuning: np.ndarray, *, noise: str, orientations: str = COMMON
    ) -> RecordingTruth:
        """Return the truth about neurons whose responses have this noise, and whose features these orientations."""
        return cls(
            unit_ids=neurons.unit_ids,
            types=neurons.types,
            tuning=neurons.tuning,
            type_tuning=type_tuning,
            gains=neurons.gains,
            dispersions=neurons.dispersions if noise == "overdispersed" else np.zeros(len(neurons.types)),
            centers=neurons.centers,
            angles=neurons.angles if orientations == RANDOM else None,
        )


def read_truth(folder: str | os.PathLike[str]) -> RecordingTruth:
    """Read what :func:`write_recording` planted.

    Parameters
    ----------
    folder
        A simulated recording.

    Raises
    ------
    RecordingError
        If the folder has no ``truth``.

    See Also
    --------
    write_recording : Writes the recording and its truth.
    december_plugin.evaluation.agreement_with_types : Compares clusters with the planted types.

    Examples
    --------
    >>> from december_plugin.simulate import read_truth, write_recording
    >>> sizes = {"n_neurons": 12, "n_train": 20, "n_validation": 5, "n_test": 2, "n_repeats": 3}
    >>> folder = write_recording("static2-1-1-simulated", seed=2, **sizes)
    >>> read_truth(folder).unit_ids.shape
    (12,)
    """
    return truth_of(RecordingTruth, folder, writer="write_recording")


@dataclass(frozen=True)
class SimulatedRecording:
    """A simulated recording in memory; ``T`` trials of all tiers, in the order in which they were shown.

    Attributes
    ----------
    images
        (T, 1, height, width) float32, grey values around 128.
    responses
        (T, neurons) float32, spikes per trial.
    behavior
        (T, 3) float64 pupil size, its change, running speed; None without behaviour.
    pupil_center
        (T, 2) float64; None without behaviour.
    tiers
        (T,) tier of each trial: train, validation or test.
    image_ids
        (T,) which image was shown; equal ids are repeats.
    coordinates
        (neurons, 3) place in the cortex in micrometres; the third is the depth.
    truth
        The planted truth, including the unit ids.

    Examples
    --------
    >>> from collections import Counter
    >>> from december_plugin.simulate import draw_recording
    >>> recording = draw_recording(seed=1, n_neurons=12, n_train=20, n_validation=5, n_test=2, n_repeats=3)
    >>> recording.images.shape, recording.responses.shape
    ((31, 1, 16, 16), (31, 12))
    >>> sorted(Counter(recording.tiers.tolist()).items())
    [('test', 6), ('train', 20), ('validation', 5)]
    """

    images: np.ndarray
    responses: np.ndarray
    behavior: np.ndarray | None
    pupil_center: np.ndarray | None
    tiers: np.ndarray
    image_ids: np.ndarray
    coordinates: np.ndarray
    truth: RecordingTruth


def draw_recording(
    *,
    seed: int,
    n_neurons: int = 250,
    n_train: int = 400,
    n_validation: int = 80,
    n_test: int = 20,
    n_repeats: int = 10,
    image_shape: Sequence[int] = (16, 16),
    population: str = "types",
    type_sizes: Sequence[float] = TYPE_SIZES,
    n_features: int = 8,
    feature_size: int = 7,
    spread: float = 0.6,
    gain_sd: float = 0.2,
    noise: str = "overdispersed",
    dispersion_sd: float = 1.5,
    rate: float = 1.0,
    modulation: float = 2.0,
    behavior: bool = False,
    behavior_gain: float = 0.2,
    eye_movement: float = 0.5,
    types_seed: int = 1,
    features: str = "whitened",
    cells: str = "mixed",
    orientations: str = "common",
) -> SimulatedRecording:
    """Draw a simulated recording with planted cell types, in memory.

    Parameters
    ----------
    seed
        Seed of everything but the feature bank and the types, an integer of at least 0.
    n_neurons, n_train, n_validation, n_test, n_repeats, image_shape, population, type_sizes, n_features, feature_size
        As in :func:`write_recording`, which writes this recording to a folder; so are the following.
    spread, gain_sd, noise, dispersion_sd, rate, modulation, behavior, behavior_gain, eye_movement, types_seed
        How neurons are tuned and respond; so do ``features``, ``cells`` and ``orientations``.

    Returns
    -------
    SimulatedRecording
        The same arguments give the same numbers.

    Raises
    ------
    SettingsError
        If a setting is not allowed.

    See Also
    --------
    write_recording : Writes it to a folder as recordings are stored.
    RecordingTruth : What was planted.

    Examples
    --------
    >>> from december_plugin.simulate import draw_recording
    >>> recording = draw_recording(seed=1, n_neurons=12, n_train=20, n_validation=5, n_test=2, n_repeats=3)
    >>> recording.responses.shape  # trials of all tiers, neurons
    (31, 12)
    >>> len(recording.truth.types)
    12
    """
    check_sizes(
        n_neurons=(n_neurons, 2),
        n_train=(n_train, 1),
        n_validation=(n_validation, 2),
        n_test=(n_test, 0),
        n_repeats=(n_repeats, 1),
        n_features=(n_features, 2 if population == RING else 1),
        feature_size=(feature_size, 3),
        types_seed=(types_seed, 0),
        seed=(seed, 0),
    )
    check_spreads(spread=spread, gain_sd=gain_sd, dispersion_sd=dispersion_sd)
    check_spreads(behavior_gain=behavior_gain, eye_movement=eye_movement)
    check_positive(rate=rate, modulation=modulation)
    check_choice("noise", noise, NOISES)
    check_choice("population", population, POPULATIONS)
    check_choice("features", features, FEATURES)
    check_choice("cells", cells, CELLS)
    check_choice("orientations", orientations, ORIENTATIONS)
    if cells == SINGLE and features != CORRELATED:
        raise SettingsError(
            f"features is {features!r}; with cells='single_gabors' it must be 'correlated': whitened features are sums "
            "of several Gabors.",
            setting="features",
            others=["cells"],
        )
    shape = checked_shape(image_shape, feature_size)
    counts = neurons_per_type(type_sizes, n_neurons)

    type_tuning = type_tuning_of(len(counts), n_features, types_seed, cells=cells)
    neurons = Population.draw(
        counts, type_tuning, spread, gain_sd, dispersion_sd, shape, seed, kind=population, orientations=orientations
    )
    trials = Trials.draw(n_train, n_validation, n_test, n_repeats, behavior, shape, seed)
    gain = np.exp(behavior_gain * trials.arousal)
    about_features = {"features": features, "cells": cells}
    if orientations == RANDOM:
        turned = TurnedFeatures.draw(n_features, feature_size, shape, types_seed, **about_features)
        features_drive = turned.drive_of(trials, neurons, eye_movement)
    else:
        bank = FeatureBank.draw(n_features, feature_size, shape, types_seed, **about_features)
        features_drive = drive_of(trials, neurons, bank, eye_movement)
    drive = modulation / np.sqrt(n_features) * features_drive
    rates = expected_counts(drive, rate) * gain[:, None]
    truth = RecordingTruth.of(neurons, type_tuning, noise=noise, orientations=orientations)
    return SimulatedRecording(
        images=(GREY + CONTRAST * trials.images[trials.shown, None]).astype(np.float32),
        responses=spike_counts(rates, truth.dispersions, random_stream(seed, NOISE)).astype(np.float32),
        behavior=trials.behavior,
        pupil_center=None if trials.behavior is None else np.array([320.0, 240.0]) + 10 * trials.gaze,
        tiers=trials.tiers,
        image_ids=trials.shown,
        coordinates=neurons.coordinates,
        truth=truth,
    )


def write_recording(
    folder: str | os.PathLike[str],
    *,
    n_neurons: int = 250,
    n_train: int = 400,
    n_validation: int = 80,
    n_test: int = 20,
    n_repeats: int = 10,
    image_shape: Sequence[int] = (16, 16),
    population: str = "types",
    type_sizes: Sequence[float] = TYPE_SIZES,
    n_features: int = 8,
    feature_size: int = 7,
    spread: float = 0.6,
    gain_sd: float = 0.2,
    noise: str = "overdispersed",
    dispersion_sd: float = 1.5,
    rate: float = 1.0,
    modulation: float = 2.0,
    behavior: bool = False,
    behavior_gain: float = 0.2,
    eye_movement: float = 0.5,
    types_seed: int = 1,
    features: str = "whitened",
    cells: str = "mixed",
    orientations: str = "common",
    seed: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a simulated recording with planted cell types.

    The model is that of :mod:`december_plugin.simulate.image_model`.

    Parameters
    ----------
    folder
        Where to write; its name gives the session's name, and the ids of animal, session and scan in ``meta/neurons``
        (1, 2 and 3 of ``static1-2-3-...``). The planted truth goes into ``<folder>/truth``.
    n_neurons
        Number of neurons, at least 2.
    n_train, n_validation, n_test
        Number of different images of each tier (validation at least 2; ``n_test=0`` leaves the tier out).
    n_repeats
        How often each test image is shown.
    image_shape
        (height, width) in pixels.
    population
        ``"types"``, or neurons without types: ``"continuum"``, whose tuning is normal with the types' mean and
        covariance; ``"sparse"``, the same with heavy tails along the axes; ``"ring"``, around a circle.
    type_sizes
        Size of each type relative to the others; their number is the number of types.
    n_features, feature_size
        Number of Gabor features, and their extent in pixels.
    spread
        SD of each element of a neuron's tuning around its type's, whose elements have a mean square of 1.
    gain_sd
        SD of the log gain.
    noise
        ``"overdispersed"`` (negative binomial) or ``"poisson"``.
    dispersion_sd
        SD of the log over-dispersion across neurons.
    rate
        Mean response (spikes per trial) at zero drive.
    modulation
        Factor on the drive: how strongly images modulate the rate.
    behavior
        Also write behaviour and pupil positions, and let them act on the responses.
    behavior_gain
        SD of the log gain that arousal has on all neurons.
    eye_movement
        SD in pixels by which receptive fields move with the pupil.
    types_seed
        Seed of the feature bank and the types: equal in two recordings, the types are shared between them.
    features
        What tuning is made of: ``"whitened"`` features, all combinations of which are equally strong over images, or
        ``"correlated"`` ones, which all have the same standard deviation and the correlations of Gabors.
    cells
        ``"mixed"``: types sum simple and complex features, which alternate. ``"simple_and_complex"``: types alternate
        between simple and complex cells, and each Gabor has four features, which are partly redundant.
        ``"single_gabors"``: each type has one Gabor, in turn an even and an odd simple cell and a complex cell of each
        spatial frequency; ``features`` is then ``"correlated"``.
    orientations
        ``"common"``: all neurons see the same features. ``"random"``: each sees them turned by its own angle around the
        centre of its receptive field, so that a type is what a neuron computes whatever its orientation.
    seed
        Seed of everything else; None takes one that is determined by the folder's name, so that recordings with
        different names differ, and the same name gives the same recording.
    overwrite
        Replace an earlier recording at ``folder``.

    Returns
    -------
    pathlib.Path
        The folder. The same arguments write the same bytes.

    Raises
    ------
    SettingsError
        If a setting is not allowed.
    RecordingError
        If the folder exists already and is not to be replaced.

    See Also
    --------
    write_recordings : Several sessions with the same types.
    read_truth : Reads what was planted.
    december_plugin.datasets.static_loaders : Loads the recording for training.

    Examples
    --------
    >>> from december_plugin.simulate import read_truth, write_recording
    >>> sizes = {"n_neurons": 12, "n_train": 20, "n_validation": 5, "n_test": 2, "n_repeats": 3}
    >>> folder = write_recording("static1-1-1-simulated", seed=1, **sizes)
    >>> len(read_truth("static1-1-1-simulated").types)
    12
    """
    seed = checked_seed(seed, folder)
    target = checked_target(folder, overwrite)
    recording = draw_recording(
        seed=seed,
        n_neurons=n_neurons,
        n_train=n_train,
        n_validation=n_validation,
        n_test=n_test,
        n_repeats=n_repeats,
        image_shape=image_shape,
        population=population,
        type_sizes=type_sizes,
        n_features=n_features,
        feature_size=feature_size,
        spread=spread,
        gain_sd=gain_sd,
        noise=noise,
        dispersion_sd=dispersion_sd,
        rate=rate,
        modulation=modulation,
        behavior=behavior,
        behavior_gain=behavior_gain,
        eye_movement=eye_movement,
        types_seed=types_seed,
        features=features,
        cells=cells,
        orientations=orientations,
    )
    _write(target, recording)
    return target


def _write(target: Path, recording: SimulatedRecording) -> None:
    items = {name: getattr(recording, name) for name in ("images", "responses", "behavior", "pupil_center")}
    with whole_recording(target) as draft:
        for item, values in items.items():
            if values is None:
                continue
            for trial, value in enumerate(values):
                save_array(draft / "data" / item / f"{trial}.npy", value)
            axis, precise = None if item == "images" else 0, values.astype(np.float64)
            for name in ("mean", "std", "min", "max", "median"):
                statistic = getattr(np, name)(precise, axis=axis)
                save_array(draft / "meta" / "statistics" / item / "all" / f"{name}.npy", np.asarray(statistic))
        n_trials, n_neurons = recording.responses.shape
        animal, session, scan = session_ids(target)
        for name, per_neuron in {
            "unit_ids": recording.truth.unit_ids,
            "cell_motor_coordinates": recording.coordinates,
            "animal_ids": np.full(n_neurons, animal, dtype=np.int64),
            "sessions": np.full(n_neurons, session, dtype=np.int64),
            "scan_idx": np.full(n_neurons, scan, dtype=np.int64),
            "area": np.full(n_neurons, "V1"),
            "layer": np.full(n_neurons, "L2/3"),
        }.items():
            save_array(draft / "meta" / "neurons" / f"{name}.npy", per_neuron)
        for name, per_trial in {
            "tiers": recording.tiers,
            "frame_image_id": recording.image_ids,
            "frame_image_class": np.full(n_trials, "simulated"),
            "trial_idx": np.arange(n_trials),
        }.items():
            save_array(draft / "meta" / "trials" / f"{name}.npy", per_trial)
        save_truth(draft, recording.truth)
        (draft / "config.json").write_text(json.dumps({"links": {}}), encoding="utf-8")
