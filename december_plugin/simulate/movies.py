"""Simulated recordings of movies with planted cell types, in the generic movie format, with the planted truth.

Generative model. Neuron ``i`` of type ``k(i)``, frame ``t`` of a movie ``s`` in units of its contrast::

    x_i(t)     = sum_pixels a_i(pixel) s(t, pixel)       centre minus surround: a difference of two Gaussians
    d_i(t)     = sum_lag h_i(lag) x_i(t - lag)           h(lag) = g(lag / tau) - biphasic g(lag / (1.6 tau)),
                                                         g(u) = (u exp(1 - u))^3; grey before the movie begins
    lambda_i(t) = rate * softplus(modulation * g_i * polarity * d_i(t) / SD[d_i]) / log(2)
    r_i(t)     ~ Poisson(lambda_i(t)), or negative binomial with its own dispersion

A type has a polarity (ON, OFF), a radius of the centre, a weight of the surround, a time constant ``tau`` in frames,
and a weight of the second phase. Types come in pairs of ON and OFF, from small, slow and sustained ones (as midget
cells) to large, fast and transient ones (as parasol cells); the weights of the surrounds are drawn. ``spread`` is the
SD of the log of each parameter among the neurons of a type, ``gain_sd`` that of the log gain ``g_i``. Movies are noise
with a spectrum of 1/f in space that changes from frame to frame with a memory of ``MEMORY``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from scipy.signal import lfilter

from december_plugin.datasets.movies.header import FORMAT, HEADER, VERSION
from december_plugin.errors import SettingsError
from december_plugin.simulate.folders import (
    checked_seed,
    checked_target,
    save_array,
    save_truth,
    truth_of,
    whole_recording,
)
from december_plugin.simulate.image_model import (
    CONTRAST,
    GREY,
    NOISES,
    checked_shape,
    expected_counts,
    noise_images,
    spike_counts,
)
from december_plugin.simulate.population import NOISE, neurons_per_type, random_stream
from december_plugin.validation.checks import check_choice, check_positive, check_sizes, check_spreads

TYPE_SIZES = (0.30, 0.26, 0.24, 0.20)
MEMORY = 0.5  # of a pixel, from frame to frame
N_LAGS = 12
RADIUS, TAU, BIPHASIC = (1.0, 2.0), (2.2, 1.0), (0.2, 0.8)  # of the slowest and the fastest types; pixels, frames
SURROUND_RADIUS = 2.5  # in radii of the centre
SURROUND = (0.5, 0.8)  # weight of the surround, drawn for each type
TYPES, NEURONS, MOVIES = 30, 31, 32  # random streams in addition to those of population.py


@dataclass(frozen=True)
class MovieTruth:
    """The planted truth of a simulated recording of movies; neurons in the order of ``unit_ids``.

    Attributes
    ----------
    unit_ids
        (n,) int64.
    types
        (n,) int64 planted type of each neuron.
    spatial_filters
        (n, height, width) ``a_i`` times the polarity.
    temporal_kernels
        (n, lags) ``h_i``; lag 0 is the frame itself.
    type_parameters
        (types, 5): polarity, radius in pixels, surround weight, tau in frames, biphasic weight.
    gains, dispersions
        (n,) ``g_i``, and the over-dispersion, zero for Poisson noise.
    centers
        (n, 2) row and column of the receptive field's centre in pixels.

    Examples
    --------
    >>> from december_plugin.simulate import read_movie_truth, write_movie_recording
    >>> folder = write_movie_recording("simulated-movies-truth", n_neurons=8, n_train=1, n_test=0, n_frames=60)
    >>> truth = read_movie_truth(folder)
    >>> truth.spatial_filters.shape, truth.centers.shape
    ((8, 16, 16), (8, 2))
    """

    unit_ids: np.ndarray
    types: np.ndarray
    spatial_filters: np.ndarray
    temporal_kernels: np.ndarray
    type_parameters: np.ndarray
    gains: np.ndarray
    dispersions: np.ndarray
    centers: np.ndarray


def read_movie_truth(folder: str | os.PathLike[str]) -> MovieTruth:
    """Read what :func:`write_movie_recording` planted.

    Raises
    ------
    RecordingError
        If the folder has no ``truth``.

    See Also
    --------
    write_movie_recording : Writes the recording and its truth.
    december_plugin.evaluation.agreement_with_types : Compares clusters with the planted types.

    Examples
    --------
    >>> from december_plugin.simulate import read_movie_truth, write_movie_recording
    >>> folder = write_movie_recording("simulated-movies-types", n_neurons=8, n_train=1, n_test=0, n_frames=60)
    >>> len(read_movie_truth(folder).types)
    8
    """
    return truth_of(MovieTruth, folder, writer="write_movie_recording")


def write_movie_recording(
    folder: str | os.PathLike[str],
    *,
    n_neurons: int = 40,
    n_train: int = 5,
    n_validation: int = 2,
    n_test: int = 2,
    n_repeats: int = 10,
    n_frames: int = 300,
    n_test_frames: int = 150,
    image_shape: Sequence[int] = (16, 16),
    frame_rate: float = 30.0,
    type_sizes: Sequence[float] = TYPE_SIZES,
    spread: float = 0.1,
    gain_sd: float = 0.2,
    noise: str = "poisson",
    dispersion_sd: float = 1.0,
    rate: float = 0.5,
    modulation: float = 2.0,
    types_seed: int = 1,
    seed: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a simulated recording with planted cell types; the module's docstring has the model.

    Parameters
    ----------
    folder
        Where to write; its name gives the session's name. The planted truth goes into ``<folder>/truth``.
    n_neurons
        Number of neurons, at least 2.
    n_train, n_validation, n_test
        Number of movies of each tier (``n_test=0`` leaves the tier out).
    n_repeats
        How often each test movie is shown.
    n_frames, n_test_frames
        Frames of the training movies, and of those of validation and test.
    image_shape
        (height, width) in pixels.
    frame_rate
        Frames per second (Hz).
    type_sizes
        Size of each type relative to the others; their number is the number of types.
    spread, gain_sd
        SD among the neurons of a type of the log parameters, and of the log gain.
    noise, dispersion_sd
        "poisson", or "overdispersed" with this SD of the log over-dispersion across neurons.
    rate
        Mean response (spikes per frame) at zero drive.
    modulation
        How strongly movies modulate the rate.
    types_seed
        Seed of the types: equal in two recordings, the types are shared between them.
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
    read_movie_truth : Reads what was planted.
    write_recording : Images in the SENSORIUM 2022 layout.
    december_plugin.datasets.movie_loaders : Loads the recording for training.

    Examples
    --------
    >>> from december_plugin.simulate import write_movie_recording
    >>> folder = write_movie_recording("simulated-movies", n_neurons=8, n_train=1, n_test=0, n_frames=60)
    >>> sorted(entry.name for entry in folder.iterdir())
    ['recording.yaml', 'responses', 'stimuli', 'truth', 'unit_ids.npy']
    """
    check_sizes(
        n_neurons=(n_neurons, 2),
        n_train=(n_train, 1),
        n_validation=(n_validation, 1),
        n_test=(n_test, 0),
        n_repeats=(n_repeats, 1),
        n_frames=(n_frames, N_LAGS),
        n_test_frames=(n_test_frames, N_LAGS),
        types_seed=(types_seed, 0),
    )
    seed = checked_seed(seed, folder)
    check_spreads(spread=spread, gain_sd=gain_sd, dispersion_sd=dispersion_sd)
    check_positive(rate=rate, modulation=modulation, frame_rate=frame_rate)
    check_choice("noise", noise, NOISES)
    shape = checked_shape(image_shape, 2)
    target = checked_target(folder, overwrite)
    if "." in target.name:
        raise SettingsError(f"the folder's name {target.name!r} becomes the session's name, which has no dots.")
    counts = neurons_per_type(type_sizes, n_neurons)
    dispersion = dispersion_sd if noise == "overdispersed" else None
    truth = _population(counts, shape, spread, gain_sd, dispersion, types_seed, seed)

    sizes = {"train": (n_train, n_frames), "validation": (n_validation, n_test_frames), "test": (n_test, n_test_frames)}
    movies = _movies(sizes, shape, seed)
    rates = _rates(movies, truth, rate, modulation)
    rng = random_stream(seed, NOISE)
    responses = {}
    for name, expected in rates.items():
        shown = n_repeats if name.startswith("test") else 1
        repeats = [spike_counts(expected, truth.dispersions, rng) for _ in range(shown)]
        responses[name] = np.stack(repeats) if name.startswith("test") else repeats[0]
    _write(target, movies, responses, truth, frame_rate)
    return target


def _type_parameters(n_types: int, seed: int) -> np.ndarray:
    """Return (types, 5): polarity, radius, surround, tau, biphasic."""
    rng = np.random.default_rng([seed, TYPES])
    pairs = (n_types + 1) // 2
    fast = (np.arange(n_types) // 2) / max(1, pairs - 1)
    polarity = np.where(np.arange(n_types) % 2 == 0, 1.0, -1.0)
    ranges = {"radius": RADIUS, "tau": TAU, "biphasic": BIPHASIC}
    values = {name: slow * (last / slow) ** fast for name, (slow, last) in ranges.items()}
    surround = rng.uniform(*SURROUND, size=n_types)
    return np.stack([polarity, values["radius"], surround, values["tau"], values["biphasic"]], axis=1)


def _population(
    counts: np.ndarray,
    shape: tuple[int, int],
    spread: float,
    gain_sd: float,
    dispersion_sd: float | None,
    types_seed: int,
    seed: int,
) -> MovieTruth:
    rng = np.random.default_rng([seed, NEURONS])
    n_neurons = int(counts.sum())
    types = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    parameters = _type_parameters(len(counts), types_seed)
    own = parameters[types] * np.c_[np.ones(n_neurons), np.exp(spread * rng.normal(size=(n_neurons, 4)))]
    polarity, radius, surround, tau, biphasic = own.T
    size = np.array(shape)
    centers = (0.25 + 0.5 * rng.uniform(size=(n_neurons, 2))) * (size - 1)
    rows, columns = np.indices(shape)
    squares = (rows - centers[:, 0, None, None]) ** 2 + (columns - centers[:, 1, None, None]) ** 2
    spatial = _gaussian(squares, radius) - surround[:, None, None] * _gaussian(squares, SURROUND_RADIUS * radius)
    lags = np.arange(N_LAGS)
    kernels = _bump(lags / tau[:, None]) - biphasic[:, None] * _bump(lags / (1.6 * tau[:, None]))
    unit_ids = np.sort(rng.choice(np.arange(1, 10 * n_neurons + 1), size=n_neurons, replace=False))
    gains = np.exp(gain_sd * rng.normal(size=n_neurons))
    dispersions = np.exp((dispersion_sd or 0.0) * rng.normal(size=n_neurons))
    return MovieTruth(
        unit_ids=unit_ids,
        types=types,
        spatial_filters=polarity[:, None, None] * spatial,
        temporal_kernels=kernels,
        type_parameters=parameters,
        gains=gains,
        dispersions=np.zeros(n_neurons) if dispersion_sd is None else dispersions,
        centers=centers,
    )


def _gaussian(squares: np.ndarray, radius: np.ndarray) -> np.ndarray:
    values = np.exp(-squares / (2 * radius[:, None, None] ** 2))
    return values / values.sum(axis=(1, 2), keepdims=True)


def _bump(u: np.ndarray) -> np.ndarray:
    return (u * np.exp(1 - u)) ** 3


def _movies(sizes: Mapping[str, tuple[int, int]], shape: tuple[int, int], seed: int) -> dict[str, np.ndarray]:
    """Return name to (frames, height, width) uint8."""
    movies: dict[str, np.ndarray] = {}
    for tier, (count, n_frames) in sizes.items():
        for number in range(count):
            rng = np.random.default_rng([seed, MOVIES, len(movies)])
            fresh = noise_images(n_frames, shape, rng)
            fresh[1:] *= np.sqrt(1 - MEMORY**2)
            frames = lfilter([1.0], [1.0, -MEMORY], fresh, axis=0)
            pixels = np.clip(np.round(GREY + CONTRAST * frames), 0, 255)
            movies[f"{tier}-{number}"] = pixels.astype(np.uint8)
    return movies


def _rates(
    movies: Mapping[str, np.ndarray], truth: MovieTruth, rate: float, modulation: float
) -> dict[str, np.ndarray]:
    """Return the expected responses to each movie, (frames, n)."""
    drives = {name: _drive(movie, truth) for name, movie in movies.items()}
    scale = np.concatenate([drive for name, drive in drives.items() if name.startswith("train")]).std(axis=0)
    factor = modulation * truth.gains / scale
    return {name: expected_counts(factor * drive, rate) for name, drive in drives.items()}


def _drive(movie: np.ndarray, truth: MovieTruth) -> np.ndarray:
    """Return the input of each neuron in each frame, (frames, n)."""
    contrast = (movie.reshape(len(movie), -1) - GREY) / CONTRAST
    filtered = contrast @ truth.spatial_filters.reshape(len(truth.types), -1).T
    drive = np.zeros_like(filtered)
    for lag in range(N_LAGS):
        drive[lag:] += truth.temporal_kernels[:, lag] * filtered[: len(filtered) - lag]
    return drive


def _write(
    target: Path,
    movies: Mapping[str, np.ndarray],
    responses: Mapping[str, np.ndarray],
    truth: MovieTruth,
    frame_rate: float,
) -> None:
    entries: dict[str, dict[str, object]] = {}
    tiers: dict[str, list[str]] = {}
    with whole_recording(target) as draft:
        for name, movie in movies.items():
            save_array(draft / "stimuli" / f"{name}.npy", movie)
            save_array(draft / "responses" / f"{name}.npy", responses[name].astype(np.uint16))
            entry: dict[str, object] = {"stimulus": f"stimuli/{name}.npy", "responses": f"responses/{name}.npy"}
            if responses[name].ndim == 3:
                entry["repeats"] = len(responses[name])
            entries[name] = entry
            tiers.setdefault(name.rpartition("-")[0], []).append(name)
        save_array(draft / "unit_ids.npy", truth.unit_ids)
        save_truth(draft, truth)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "data_key": target.name,
            "frame_rate": float(frame_rate),
            "unit_ids": "unit_ids.npy",
            "stimulus": {"unit": "grey level", "minimum": 0, "maximum": 255},
            "responses": {"unit": "spikes per frame", "minimum": 0},
            "movies": entries,
            "tiers": tiers,
        }
        (draft / HEADER).write_text(yaml.safe_dump(header, sort_keys=False), encoding="utf-8")
