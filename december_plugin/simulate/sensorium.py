"""Simulated recordings with planted cell types, written in the SENSORIUM 2022 folder layout.

Generative model. All sessions written with one ``types_seed`` share the feature bank and the types; everything else
belongs to a session. ``F`` features, ``K`` types, neuron ``i`` of type ``k(i)``, trial ``t`` with image ``s_t``::

    phi_f(s)   = sqrt((s * even_f)^2 + (s * odd_f)^2)   even f: energy of a Gabor pair (complex cell); * is convolution
               = max(0, s * even_f)                     odd f: rectified Gabor (simple cell); orientations in two
                                                        spatial frequencies
    psi(s)     = C^(-1/2) (phi(s) - mean phi)           feature maps, whitened over reference images
    m_k        = sqrt(F) z_k / |z_k|, z_k ~ N(0, I_F)   mean tuning of type k: types differ in direction only
    v_i        = g_i (m_k(i) + spread * n_i)            tuning of neuron i: n_i ~ N(0, I_F),
                                                        g_i = exp(gain_sd * N(0, 1))
               = g_i c_i                                population="continuum": no types, one Gaussian c_i with the
                                                        mean and the covariance that m_k(i) + spread * n_i has
    d_it       = modulation / sqrt(F) * <v_i, psi(s_t)(p_i + e_t)>
    lambda_it  = rate * softplus(d_it) / log(2) * exp(behavior_gain * b_t)
    r_it       ~ Poisson(lambda_it)                     noise="poisson"
    r_it       ~ NegativeBinomial(mean lambda_it, variance lambda_it + alpha_i lambda_it^2),
                 alpha_i = exp(dispersion_sd * N(0, 1))   noise="overdispersed": reliability with heavy tails

``p_i`` is the centre of the receptive field: a linear map of the neuron's cortical position (retinotopy) plus scatter.
``b_t`` (arousal) and ``e_t`` (eye movement) are zero unless behaviour is simulated. Images are Gaussian noise with an
amplitude spectrum of 1/f, in grey values around 128.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve

from december_plugin.datasets.common.arrays import read_array
from december_plugin.errors import RecordingError, SettingsError
from december_plugin.simulate.naming import checked_seed, session_ids
from december_plugin.simulate.population import (
    BANK,
    BEHAVIOR,
    IMAGES,
    NOISE,
    POPULATIONS,
    REFERENCE,
    TRIALS,
    _neurons_per_type,
    _Population,
    _stream,
    _type_tuning,
)
from december_plugin.validation.checks import check_choice, check_integer, check_positive, check_sizes, check_spreads

TYPE_SIZES = (0.30, 0.22, 0.18, 0.14, 0.10, 0.06)
NOISES = ("overdispersed", "poisson")
WAVELENGTHS = (0.6, 1.0)  # of the fine and the coarse features, as a fraction of their size
ENVELOPE = 0.25  # SD of the Gabor envelope, as a fraction of the features' size
GREY, CONTRAST = 128.0, 40.0
N_REFERENCE_IMAGES = 100
SMALLEST_VARIANCE = 1e-4  # of the features' least variable combination, relative to the most variable one
CHUNK = 64  # images at a time


@dataclass(frozen=True)
class RecordingTruth:
    """What a simulated recording was made of; neurons in the order of ``unit_ids``.

    Attributes
    ----------
    unit_ids
        (neurons,) int64.
    types
        (neurons,) int64 planted type of each neuron; -1 in a continuum, which has none.
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
    """

    unit_ids: np.ndarray
    types: np.ndarray
    tuning: np.ndarray
    type_tuning: np.ndarray
    gains: np.ndarray
    dispersions: np.ndarray
    centers: np.ndarray


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
    """
    truth = Path(folder) / "truth"
    if not truth.is_dir():
        raise RecordingError(f"{truth} is missing: {folder} is no simulated recording. Write one with write_recording.")
    return RecordingTruth(**{field.name: read_array(truth / f"{field.name}.npy") for field in fields(RecordingTruth)})


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
    seed: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a simulated recording with planted cell types; the module's docstring has the model.

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
        ``"types"``, or ``"continuum"``: neurons without types, whose tuning has the same mean and covariance.
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
    seed
        Seed of everything else; None takes one that the folder's name decides, so that recordings of different names
        differ, and the same name gives the same recording.
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
    """
    check_sizes(
        n_neurons=(n_neurons, 2),
        n_train=(n_train, 1),
        n_validation=(n_validation, 2),
        n_test=(n_test, 0),
        n_repeats=(n_repeats, 1),
        n_features=(n_features, 1),
        feature_size=(feature_size, 3),
        types_seed=(types_seed, 0),
    )
    seed = checked_seed(seed, folder)
    check_spreads(spread=spread, gain_sd=gain_sd, dispersion_sd=dispersion_sd)
    check_spreads(behavior_gain=behavior_gain, eye_movement=eye_movement)
    check_positive(rate=rate, modulation=modulation)
    check_choice("noise", noise, NOISES)
    check_choice("population", population, POPULATIONS)
    shape = _checked_shape(image_shape, feature_size)
    counts = _neurons_per_type(type_sizes, n_neurons)
    target = _checked_target(folder, overwrite)

    bank = _FeatureBank.draw(n_features, feature_size, shape, types_seed)
    type_tuning = _type_tuning(len(counts), n_features, types_seed)
    neurons = _Population.draw(counts, type_tuning, spread, gain_sd, dispersion_sd, shape, seed, kind=population)
    trials = _Trials.draw(n_train, n_validation, n_test, n_repeats, behavior, shape, seed)
    gain = np.exp(behavior_gain * trials.arousal)
    drive = modulation / np.sqrt(n_features) * _drive(trials, neurons, bank, eye_movement)
    rates = rate / np.log(2) * np.logaddexp(0, drive) * gain[:, None]
    dispersions = neurons.dispersions if noise == "overdispersed" else np.zeros(n_neurons)
    truth = RecordingTruth(
        unit_ids=neurons.unit_ids,
        types=neurons.types,
        tuning=neurons.tuning,
        type_tuning=type_tuning,
        gains=neurons.gains,
        dispersions=dispersions,
        centers=neurons.centers,
    )
    data = trials.data()
    data["responses"] = _spikes(rates, dispersions, _stream(seed, NOISE)).astype(np.float32)
    _write(target, data, trials, neurons, truth)
    return target


def _checked_shape(image_shape: Sequence[int], feature_size: int) -> tuple[int, int]:
    if len(image_shape) != 2:
        raise SettingsError(
            f"image_shape is {image_shape!r}; (height, width) in pixels is expected.", setting="image_shape"
        )
    height, width = (check_integer("image_shape", size, minimum=1) for size in image_shape)
    if min(height, width) < feature_size:
        raise SettingsError(
            f"image_shape is {(height, width)}, smaller than feature_size={feature_size}. Use larger images.",
            setting="image_shape",
            others=["feature_size"],
        )
    return height, width


def _checked_target(folder: str | os.PathLike[str], overwrite: bool) -> Path:
    target = Path(os.path.abspath(Path(folder).expanduser()))
    if not target.exists():
        return target
    if not overwrite:
        raise RecordingError(f"{target} exists already. Choose another folder, or pass overwrite=True to replace it.")
    if not (target / "truth").is_dir():
        raise RecordingError(f"{target} is no simulated recording, so it is not replaced. Choose another folder.")
    return target


@dataclass(frozen=True)
class _FeatureBank:
    even: np.ndarray  # (features, size, size)
    odd: np.ndarray
    mean: np.ndarray  # (features,) of the energies over reference images
    whitening: np.ndarray  # (features, features)

    @classmethod
    def draw(cls, n_features: int, size: int, shape: tuple[int, int], seed: int) -> _FeatureBank:
        rng = _stream(seed, BANK)
        n_angles = (n_features + 1) // 2
        fine = np.arange(n_features) >= n_angles
        # The orientations of the two frequencies lie between each other.
        angles = np.pi / n_angles * (np.arange(n_features) % n_angles + 0.5 * fine + rng.uniform())
        wavelengths = size * np.where(fine, *WAVELENGTHS)
        axis = np.arange(size) - (size - 1) / 2
        y, x = np.meshgrid(axis, axis, indexing="ij")
        along = np.cos(angles)[:, None, None] * x + np.sin(angles)[:, None, None] * y
        envelope = np.exp(-(x**2 + y**2) / (2 * (ENVELOPE * size) ** 2))
        carrier = 2 * np.pi * along / wavelengths[:, None, None]
        even, odd = envelope * np.cos(carrier), envelope * np.sin(carrier)
        even = even - even.mean(axis=(1, 2), keepdims=True)
        reference = _noise_images(N_REFERENCE_IMAGES, shape, _stream(seed, REFERENCE))
        energies = cls(even, odd, np.zeros(n_features), np.eye(n_features)).maps(reference)
        energies = np.moveaxis(energies, 1, 0).reshape(n_features, -1)
        variances, directions = np.linalg.eigh(np.atleast_2d(np.cov(energies)))
        if variances[0] < SMALLEST_VARIANCE * variances[-1]:
            raise SettingsError(
                f"n_features={n_features} features of feature_size={size} pixels cannot be told apart. Use fewer "
                "features, or larger ones.",
                setting="n_features",
                others=["feature_size"],
            )
        return cls(even, odd, energies.mean(axis=1), directions / np.sqrt(variances) @ directions.T)

    def maps(self, images: np.ndarray) -> np.ndarray:
        """(images, height, width) to (images, features, height, width)."""
        even, odd = self._filter(images, self.even), self._filter(images, self.odd)
        simple = np.arange(len(self.even)) % 2 == 1
        maps = np.where(simple[:, None, None], np.maximum(even, 0), np.hypot(even, odd))
        return np.einsum("gf,tfyx->tgyx", self.whitening, maps - self.mean[:, None, None], optimize=True)

    @staticmethod
    def _filter(images: np.ndarray, kernels: np.ndarray) -> np.ndarray:
        """Convolve every image with every kernel; the result has the image's size."""
        first, (height, width) = (kernels.shape[-1] - 1) // 2, images.shape[1:]
        full = fftconvolve(images[:, None], kernels[None], mode="full", axes=(2, 3))
        return full[:, :, first : first + height, first : first + width]


@dataclass(frozen=True)
class _Trials:
    tiers: np.ndarray  # (trials,)
    images: np.ndarray  # (different images, height, width), zero mean and unit variance
    shown: np.ndarray  # (trials,) which image
    arousal: np.ndarray  # (trials,)
    gaze: np.ndarray  # (trials, 2)
    behavior: np.ndarray | None  # (trials, 3) pupil size, its change, running speed

    @classmethod
    def draw(
        cls,
        n_train: int,
        n_validation: int,
        n_test: int,
        n_repeats: int,
        behavior: bool,
        shape: tuple[int, int],
        seed: int,
    ) -> _Trials:
        sizes = {"train": n_train, "validation": n_validation, "test": n_test}
        tier_of_image = np.repeat(list(sizes), list(sizes.values()))
        images = _noise_images(len(tier_of_image), shape, _stream(seed, IMAGES))
        shown = np.repeat(np.arange(len(images)), np.where(tier_of_image == "test", n_repeats, 1))
        shown = _stream(seed, TRIALS).permutation(shown)
        tiers, n_trials = tier_of_image[shown], len(shown)
        if not behavior:
            return cls(tiers, images, shown, np.zeros(n_trials), np.zeros((n_trials, 2)), None)
        rng = _stream(seed, BEHAVIOR)
        arousal, gaze = _drifting(n_trials, 1, rng)[:, 0], _drifting(n_trials, 2, rng)
        pupil = 40 + 8 * arousal + rng.normal(size=n_trials)
        running = np.maximum(0, 2 + 3 * arousal + rng.normal(size=n_trials))
        variables = np.stack([pupil, np.gradient(pupil), running], axis=1)
        return cls(tiers, images, shown, arousal, gaze, variables)

    def data(self) -> dict[str, np.ndarray]:
        """Return what goes into ``data/``, but for the responses."""
        images = (GREY + CONTRAST * self.images[self.shown, None]).astype(np.float32)
        data = {"images": images}
        if self.behavior is not None:
            data["behavior"] = self.behavior
            data["pupil_center"] = np.array([320.0, 240.0]) + 10 * self.gaze
        return data


def _noise_images(count: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    amplitude = np.divide(1, frequency, out=np.zeros(shape), where=frequency > 0)
    amplitude /= np.sqrt(np.mean(amplitude**2))
    return np.fft.ifft2(np.fft.fft2(rng.normal(size=(count, height, width))) * amplitude).real


def _drifting(n_trials: int, dimensions: int, rng: np.random.Generator, memory: float = 0.9) -> np.ndarray:
    values = rng.normal(size=(n_trials, dimensions))
    for trial in range(1, n_trials):
        values[trial] = memory * values[trial - 1] + np.sqrt(1 - memory**2) * values[trial]
    return values


def _drive(trials: _Trials, population: _Population, bank: _FeatureBank, eye_movement: float) -> np.ndarray:
    drive = np.empty((len(trials.shown), len(population.types)))
    for start in range(0, len(drive), CHUNK):
        part = slice(start, start + CHUNK)
        maps = bank.maps(trials.images[trials.shown[part]])
        centers = population.centers + eye_movement * trials.gaze[part, None, :]
        drive[part] = np.einsum("tnf,nf->tn", _interpolate(maps, centers), population.tuning)
    return drive


def _interpolate(maps: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Bilinear values of (trials, features, height, width) at (trials, neurons, 2): (trials, neurons, features)."""
    last = np.array(maps.shape[2:]) - 1
    centers = np.clip(centers, 0, last)
    corner = np.minimum(centers.astype(int), np.maximum(last - 1, 0))
    row, column = np.moveaxis(corner, 2, 0)
    down, right = np.moveaxis((centers - corner)[..., None], 2, 0)
    trial = np.arange(len(maps))[:, None]
    below, beside = np.minimum(row + 1, last[0]), np.minimum(column + 1, last[1])
    upper = (1 - right) * maps[trial, :, row, column] + right * maps[trial, :, row, beside]
    lower = (1 - right) * maps[trial, :, below, column] + right * maps[trial, :, below, beside]
    return (1 - down) * upper + down * lower


def _spikes(rates: np.ndarray, dispersions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Poisson counts whose rates are multiplied by Gamma factors of mean 1 and variance ``dispersions``."""
    shape = 1 / np.where(dispersions > 0, dispersions, 1)
    factors = np.where(dispersions > 0, rng.gamma(shape, 1 / shape, size=rates.shape), 1)
    return rng.poisson(rates * factors)


def _write(
    target: Path, data: dict[str, np.ndarray], trials: _Trials, population: _Population, truth: RecordingTruth
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Written beside the target and moved into place, so that nobody ever reads half a recording.
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        for item, values in data.items():
            for trial, value in enumerate(values):
                _save(draft / "data" / item / f"{trial}.npy", value)
            axis = None if item == "images" else 0
            for name in ("mean", "std", "min", "max", "median"):
                statistic = getattr(np, name)(values.astype(np.float64), axis=axis)
                _save(draft / "meta" / "statistics" / item / "all" / f"{name}.npy", np.asarray(statistic))
        n_neurons, n_trials = len(population.types), len(trials.shown)
        animal, session, scan = session_ids(target)
        for name, per_neuron in {
            "unit_ids": population.unit_ids,
            "cell_motor_coordinates": population.coordinates,
            "animal_ids": np.full(n_neurons, animal, dtype=np.int64),
            "sessions": np.full(n_neurons, session, dtype=np.int64),
            "scan_idx": np.full(n_neurons, scan, dtype=np.int64),
            "area": np.full(n_neurons, "V1"),
            "layer": np.full(n_neurons, "L2/3"),
        }.items():
            _save(draft / "meta" / "neurons" / f"{name}.npy", per_neuron)
        for name, per_trial in {
            "tiers": trials.tiers,
            "frame_image_id": trials.shown,
            "frame_image_class": np.full(n_trials, "simulated"),
            "trial_idx": np.arange(n_trials),
        }.items():
            _save(draft / "meta" / "trials" / f"{name}.npy", per_trial)
        for field in fields(RecordingTruth):
            _save(draft / "truth" / f"{field.name}.npy", getattr(truth, field.name))
        (draft / "config.json").write_text(json.dumps({"links": {}}), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _save(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, array, allow_pickle=False)
