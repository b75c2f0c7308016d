"""Simulated recordings of many sessions that share images, in the layouts of macaque V4, with planted cell types.

The generative model is that of :mod:`december_plugin.simulate.image_model`, without behaviour. All sessions share the
images, the features and the types; a neuron belongs to one session. The spikes of a presentation fall into ``N_BINS``
bins of 10 ms, the first of them 40 ms after the image: few into the first ``LATENCY_BINS``, and equally many into each
of the others, a response with a latency of 70 ms.
"""

from __future__ import annotations

import csv
import json
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from december_plugin.datasets.common.files import entries_of
from december_plugin.datasets.common.images import DIGITS
from december_plugin.datasets.macaque_v4.sessions import PICKLE_TIERS
from december_plugin.errors import SettingsError
from december_plugin.simulate.folders import (
    TRUTH,
    checked_seed,
    checked_target,
    save_truth,
    truth_folder,
    whole_recording,
)
from december_plugin.simulate.image_model import (
    CONTRAST,
    GREY,
    NOISES,
    TYPE_SIZES,
    FeatureBank,
    Trials,
    checked_shape,
    drive_of,
    expected_counts,
    noise_images,
    spike_counts,
)
from december_plugin.simulate.population import (
    IMAGES,
    NOISE,
    Population,
    neurons_per_type,
    random_stream,
    type_tuning_of,
)
from december_plugin.simulate.sensorium import RecordingTruth, read_truth
from december_plugin.validation.checks import check_choice, check_positive, check_sizes, check_spreads

LAYOUTS = ("pickles", "public")
N_BINS = 12
LATENCY_BINS = 3
EARLY_SHARE = 0.05  # of the spikes, before the response begins
FIRST_SESSION_ID = 3631896544452
SUBJECT = 31
SHOWN_ORDER, SPREAD = 20, 21  # random streams in addition to those of population.py


@dataclass(frozen=True)
class _Session:
    session_id: int
    truth: RecordingTruth
    image_ids: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]  # (trials, neurons, bins)


def read_macaque_v4_truth(folder: str | os.PathLike[str]) -> dict[str, RecordingTruth]:
    """Read what :func:`write_macaque_v4_recording` planted.

    Returns
    -------
    dict
        Data key to the truth about the session's neurons.

    Raises
    ------
    RecordingError
        If the folder has no truth.

    See Also
    --------
    write_macaque_v4_recording : Writes the recording and its truth.
    december_plugin.evaluation.agreement_with_types : Compares clusters with the planted types.

    Examples
    --------
    >>> from december_plugin.simulate import read_macaque_v4_truth, write_macaque_v4_recording
    >>> sizes = {"n_sessions": 2, "n_neurons": 3, "n_images": 6, "n_shown": 4, "n_test": 2, "n_repeats": 2}
    >>> folder = write_macaque_v4_recording("simulated-v4-truth", **sizes)
    >>> [len(truth.types) for truth in read_macaque_v4_truth(folder).values()]
    [3, 3]
    """
    root = truth_folder(folder, writer="write_macaque_v4_recording")
    return {entry.name: read_truth(root / entry.name) for entry in entries_of(root)}


def write_macaque_v4_recording(
    folder: str | os.PathLike[str],
    *,
    layout: str = "pickles",
    n_sessions: int = 3,
    n_neurons: int = 20,
    n_images: int = 400,
    n_shown: int = 300,
    n_test: int = 15,
    n_repeats: int = 10,
    image_shape: Sequence[int] = (16, 16),
    border: int = 0,
    type_sizes: Sequence[float] = TYPE_SIZES,
    n_features: int = 8,
    feature_size: int = 7,
    spread: float = 0.6,
    gain_sd: float = 0.2,
    noise: str = "overdispersed",
    dispersion_sd: float = 1.5,
    rate: float = 1.0,
    modulation: float = 2.0,
    types_seed: int = 1,
    seed: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write sessions of spike counts to shared images; the module's docstring has the model.

    Parameters
    ----------
    folder
        Where to write. The images go into ``images``; session pickles into ``sessions``, or responses of the public
        layout into ``train`` and ``test``; the planted truth into ``truth/<data key>/truth``.
    layout
        "pickles" (as nnvision reads them) or "public" (as Cadena et al. 2024 published theirs).
    n_sessions, n_neurons
        Number of sessions, and of neurons in each.
    n_images, n_shown
        Number of images to train on, and how many of them a session shows, drawn at random, once each.
    n_test, n_repeats
        Number of test images, the same in all sessions, and how often each is shown.
    image_shape, border
        (height, width) in pixels, and how many grey pixels are added on every side, for the loader to crop.
    type_sizes, n_features, feature_size, spread, gain_sd, noise, dispersion_sd, rate, modulation, types_seed
        As in :func:`december_plugin.simulate.write_recording`.
    seed
        Seed of everything else; None takes one that is determined by the folder's name, so that recordings with
        different names differ, and the same name gives the same recording.
    overwrite
        Replace an earlier recording at ``folder``.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    SettingsError
        If a setting is not allowed.
    RecordingError
        If the folder exists already and is not to be replaced.

    See Also
    --------
    read_macaque_v4_truth : Reads what was planted.
    write_recording : Images in the SENSORIUM 2022 layout.
    december_plugin.datasets.macaque_v4_loaders : Loads the recording for training.

    Examples
    --------
    >>> from december_plugin.simulate import write_macaque_v4_recording
    >>> sizes = {"n_sessions": 2, "n_neurons": 3, "n_images": 6, "n_shown": 4, "n_test": 2, "n_repeats": 2}
    >>> folder = write_macaque_v4_recording("simulated-v4", **sizes)
    >>> sorted(entry.name for entry in folder.iterdir())
    ['images', 'sessions', 'truth']
    """
    check_sizes(
        n_sessions=(n_sessions, 1),
        n_neurons=(n_neurons, 1),
        n_images=(n_images, 2),
        n_shown=(n_shown, 2),
        n_test=(n_test, 2),
        n_repeats=(n_repeats, 1),
        border=(border, 0),
        n_features=(n_features, 1),
        feature_size=(feature_size, 3),
        types_seed=(types_seed, 0),
    )
    seed = checked_seed(seed, folder)
    check_spreads(spread=spread, gain_sd=gain_sd, dispersion_sd=dispersion_sd)
    check_positive(rate=rate, modulation=modulation)
    check_choice("layout", layout, LAYOUTS)
    check_choice("noise", noise, NOISES)
    if n_shown > n_images:
        raise SettingsError(
            f"n_shown is {n_shown}, but there are n_images={n_images}. Show fewer, or write more.",
            setting="n_shown",
            others=["n_images"],
        )
    shape = checked_shape(image_shape, feature_size)
    type_counts = neurons_per_type(type_sizes, n_neurons * n_sessions)
    target = checked_target(folder, overwrite)

    bank = FeatureBank.draw(n_features, feature_size, shape, types_seed)
    tuning = type_tuning_of(len(type_counts), n_features, types_seed)
    neurons = Population.draw(type_counts, tuning, spread, gain_sd, dispersion_sd, shape, seed)
    images = noise_images(n_images + n_test, shape, random_stream(seed, IMAGES))
    drive = modulation / np.sqrt(n_features) * drive_of(_each_once(images), neurons, bank, 0.0)
    rates = expected_counts(drive, rate)  # (images, neurons of all sessions)
    truth = RecordingTruth.of(neurons, tuning, noise=noise)
    sizes = (n_images, n_shown, n_test, n_repeats)
    sessions = [_session(number, rates, _part(truth, number, n_neurons), sizes, seed) for number in range(n_sessions)]
    _write(target, images, border, sessions, layout)
    return target


def _each_once(images: np.ndarray) -> Trials:
    count = len(images)
    return Trials(
        tiers=np.full(count, "train"),
        images=images,
        shown=np.arange(count),
        arousal=np.zeros(count),
        gaze=np.zeros((count, 2)),
        behavior=None,
    )


def _part(truth: RecordingTruth, number: int, n_neurons: int) -> RecordingTruth:
    part = slice(number * n_neurons, (number + 1) * n_neurons)
    values = {field.name: getattr(truth, field.name) for field in fields(RecordingTruth)}
    per_neuron = {name for name, value in values.items() if value is not None and name != "type_tuning"}
    selected = {name: value[part] if name in per_neuron else value for name, value in values.items()}
    # Unit ids restart in every session, as spike sorting numbers them: only session and unit id name a neuron.
    selected["unit_ids"] = 1 + 2 * np.arange(n_neurons, dtype=np.int64)
    return RecordingTruth(**selected)


def _session(
    number: int, rates: np.ndarray, truth: RecordingTruth, sizes: tuple[int, int, int, int], seed: int
) -> _Session:
    n_images, n_shown, n_test, n_repeats = sizes
    n_neurons = len(truth.types)
    rng = np.random.default_rng([seed, SHOWN_ORDER, number])
    image_ids = {
        "train": rng.permutation(n_images)[:n_shown],
        "test": rng.permutation(np.repeat(n_images + np.arange(n_test), n_repeats)),
    }
    noise, spread = np.random.default_rng([seed, NOISE, number]), np.random.default_rng([seed, SPREAD, number])
    profile = np.r_[
        np.full(LATENCY_BINS, EARLY_SHARE / LATENCY_BINS),
        np.full(N_BINS - LATENCY_BINS, (1 - EARLY_SHARE) / (N_BINS - LATENCY_BINS)),
    ]
    counts = {}
    for tier, ids in image_ids.items():
        own = rates[ids, number * n_neurons : (number + 1) * n_neurons]
        counts[tier] = spread.multinomial(spike_counts(own, truth.dispersions, noise), profile)
    return _Session(FIRST_SESSION_ID + 1000 * number, truth, image_ids, counts)


def _write(target: Path, images: np.ndarray, border: int, sessions: Sequence[_Session], layout: str) -> None:
    with whole_recording(target) as draft:
        pixels = np.clip(np.round(GREY + CONTRAST * images), 0, 255).astype(np.uint8)
        pixels = np.pad(pixels, ((0, 0), (border, border), (border, border)), constant_values=int(GREY))
        (draft / "images").mkdir(parents=True)
        for number, image in enumerate(pixels):
            _write_image(draft / "images", number, image, layout)
        for session in sessions:
            (_write_pickle if layout == "pickles" else _write_public)(draft, session)
            save_truth(draft / TRUTH / str(session.session_id), session.truth)


def _write_image(folder: Path, number: int, image: np.ndarray, layout: str) -> None:
    if layout == "pickles":
        np.save(folder / f"{number:0{DIGITS}d}.npy", image, allow_pickle=False)
    else:
        from skimage.io import imsave

        imsave(folder / f"{number:0{DIGITS}d}.png", image, check_contrast=False)


def _write_pickle(root: Path, session: _Session) -> None:
    n_neurons = len(session.truth.types)
    content: dict[str, Any] = {
        "subject_id": SUBJECT,
        "session_id": session.session_id,
        "unit_ids": session.truth.unit_ids,
        "electrode_nums": 1 + np.arange(n_neurons) % 32,
        "x_grid_location": 0.0,
        "y_grid_location": 0.0,
        "relative_micron_depth": 60.0 * np.arange(n_neurons),
    }
    for tier, name in PICKLE_TIERS.items():
        content[f"{name}_image_ids"] = session.image_ids[tier]
        content[f"{name}_responses"] = np.ascontiguousarray(session.counts[tier].transpose(1, 2, 0)).astype(float)
    file = root / "sessions" / f"CSRF19_V4_{session.session_id}.pickle"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(pickle.dumps(content, protocol=4))


def _write_public(root: Path, session: _Session) -> None:
    for tier in PICKLE_TIERS:
        folder = root / tier / str(session.session_id)
        folder.mkdir(parents=True)
        meta = {"subject_id": str(SUBJECT), "session_id": session.session_id}
        if tier == "train":
            meta["unit_ids"] = session.truth.unit_ids.tolist()
        (folder / "meta_data.json").write_text(json.dumps(meta), encoding="utf-8")
        with (folder / "responses.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["trial_id", "image_id", "responses"])
            for trial, (image_id, counts) in enumerate(zip(session.image_ids[tier], session.counts[tier], strict=True)):
                rows.writerow([trial, int(image_id), json.dumps(counts.tolist())])
