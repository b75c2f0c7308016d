"""How simulated neurons respond to images: Gabor features, the drive that they give to a neuron, spike counts.

Generative model. All sessions written with one ``types_seed`` share the feature bank and the types; everything else
belongs to a session. ``F`` features, ``K`` types, neuron ``i`` of type ``k(i)``, trial ``t`` with image ``s_t``::

    phi_f(s)   = sqrt((s * even_f)^2 + (s * odd_f)^2)   even f: energy of a Gabor pair (complex cell); * is convolution
               = max(0, s * even_f)                     odd f: rectified Gabor (simple cell); orientations in two
                                                        spatial frequencies
                                                        cells="simple_and_complex": f mod 4 = 3: energy of a pair;
                                                        0, 1, 2: the pair's even and odd Gabor and the negative of the
                                                        even one, rectified: features that say the same in part
                                                        cells="single_gabors": f mod 3 = 2: energy of a pair; 0, 1: the
                                                        pair's even and odd Gabor; every Gabor has its own frequency
                                                        orientations="random": neuron i sees the features turned by
                                                        its own angle around p_i
    psi(s)     = C^(-1/2) (phi(s) - mean phi)           feature maps, whitened over reference images, or
               = (phi(s) - mean phi) / sd phi           features="correlated": in units of their standard deviations
    m_k        = sqrt(F) z_k / |z_k|, z_k ~ N(0, I_F)   mean tuning of type k: types differ in direction only;
                                                        simple and complex cells: 0 in the features of the other kind;
                                                        single Gabors: 0 in all features but feature k
    v_i        = g_i (m_k(i) + spread * n_i)            tuning of neuron i: n_i ~ N(0, I_F),
                                                        g_i = exp(gain_sd * N(0, 1))
               = g_i c_i                                population="continuum": no types, one Gaussian c_i with the
                                                        mean and the covariance that m_k(i) + spread * n_i has;
                                                        "sparse": the same, with products of two normal numbers
                                                        along its axes; "ring": a circle of radius sqrt(F), with
                                                        spread * n_i around it
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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve

from december_plugin.embeddings.probes import noise_images
from december_plugin.errors import SettingsError
from december_plugin.simulate.gabors import Gabors
from december_plugin.simulate.population import (
    BEHAVIOR,
    IMAGES,
    MIXED,
    REFERENCE,
    TRIALS,
    Population,
    complex_features,
    random_stream,
)
from december_plugin.validation.checks import check_integer

TYPE_SIZES = (0.30, 0.22, 0.18, 0.14, 0.10, 0.06)
NOISES = ("overdispersed", "poisson")
WHITENED, CORRELATED = FEATURES = ("whitened", "correlated")
GREY, CONTRAST = 128.0, 40.0
N_REFERENCE_IMAGES = 100
SMALLEST_VARIANCE = 1e-4  # of the features' least variable combination, relative to the most variable one
CHUNK = 64  # images at a time
NEURONS_AT_A_TIME = 256  # so few that what is computed for them stays in a processor's cache


def checked_shape(image_shape: Sequence[int], feature_size: int) -> tuple[int, int]:
    """Return (height, width) in pixels.

    Raises
    ------
    SettingsError
        If it is anything else, or smaller than a feature.
    """
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


@dataclass(frozen=True)
class FeatureBank:
    """Gabor features, and the scale of their maps over reference images.

    Attributes
    ----------
    even, odd
        (features, size, size) kernels of each feature; simple ones have the even kernel alone.
    mean
        (features,) mean energy over the reference images.
    whitening
        (features, features); diagonal for features that are only brought to one standard deviation.
    is_complex
        (features,) bool, which features are energies.
    """

    even: np.ndarray
    odd: np.ndarray
    mean: np.ndarray
    whitening: np.ndarray
    is_complex: np.ndarray

    @classmethod
    def draw(
        cls,
        n_features: int,
        size: int,
        shape: tuple[int, int],
        seed: int,
        *,
        features: str = WHITENED,
        cells: str = MIXED,
    ) -> FeatureBank:
        """Draw the features of a seed for images of this shape.

        Raises
        ------
        SettingsError
            If there are more features than their size in pixels can hold.
        """
        gabors = Gabors.draw(n_features, size, seed, cells=cells)
        axis = np.arange(size) - (size - 1) / 2
        even, odd = gabors.waves(*np.meshgrid(axis, axis, indexing="ij"))
        even, odd = gabors.by_feature(even - even.mean(axis=(1, 2), keepdims=True), odd)
        return cls.scaled(even, odd, complex_features(n_features, cells), shape, seed, features=features)

    @classmethod
    def scaled(
        cls,
        even: np.ndarray,
        odd: np.ndarray,
        is_complex: np.ndarray,
        shape: tuple[int, int],
        seed: int,
        *,
        features: str = WHITENED,
    ) -> FeatureBank:
        """Return features of these kernels (features, size, size), scaled by reference images of this shape.

        Raises
        ------
        SettingsError
            If there are more features than their size in pixels can hold.
        """
        n_features, size = len(even), even.shape[-1]
        reference = noise_images(N_REFERENCE_IMAGES, shape, random_stream(seed, REFERENCE))
        energies = cls(even, odd, np.zeros(n_features), np.eye(n_features), is_complex).maps(reference)
        energies = np.moveaxis(energies, 1, 0).reshape(n_features, -1)
        covariance = np.atleast_2d(np.cov(energies))
        if features == CORRELATED:
            return cls(even, odd, energies.mean(axis=1), np.diag(np.diag(covariance) ** -0.5), is_complex)
        variances, directions = np.linalg.eigh(covariance)
        if variances[0] < SMALLEST_VARIANCE * variances[-1]:
            raise SettingsError(
                f"n_features={n_features} features of feature_size={size} pixels are not distinguishable. Use fewer "
                "features, or larger ones.",
                setting="n_features",
                others=["feature_size"],
            )
        return cls(even, odd, energies.mean(axis=1), directions / np.sqrt(variances) @ directions.T, is_complex)

    def maps(self, images: np.ndarray) -> np.ndarray:
        """(images, height, width) to (images, features, height, width)."""
        even, odd = self._filter(images, self.even), self._filter(images, self.odd)
        maps = np.where(self.is_complex[:, None, None], np.hypot(even, odd), np.maximum(even, 0))
        return np.einsum("gf,tfyx->tgyx", self.whitening, maps - self.mean[:, None, None], optimize=True)

    @staticmethod
    def _filter(images: np.ndarray, kernels: np.ndarray) -> np.ndarray:
        """Convolve every image with every kernel; the result has the image's size."""
        first, (height, width) = (kernels.shape[-1] - 1) // 2, images.shape[1:]
        full = fftconvolve(images[:, None], kernels[None], mode="full", axes=(2, 3))
        return full[:, :, first : first + height, first : first + width]


@dataclass(frozen=True)
class Trials:
    """The images of all trials, and the state of the animal.

    Attributes
    ----------
    tiers
        (trials,) tier of each trial.
    images
        (different images, height, width), zero mean and unit variance.
    shown
        (trials,) which image.
    arousal
        (trials,) ``b_t``.
    gaze
        (trials, 2) ``e_t``, row and column.
    behavior
        (trials, 3) pupil size, its change, running speed; None without behaviour.
    """

    tiers: np.ndarray
    images: np.ndarray
    shown: np.ndarray
    arousal: np.ndarray
    gaze: np.ndarray
    behavior: np.ndarray | None

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
    ) -> Trials:
        """Draw images, and the order in which they are shown, test images ``n_repeats`` times."""
        sizes = {"train": n_train, "validation": n_validation, "test": n_test}
        tier_of_image = np.repeat(list(sizes), list(sizes.values()))
        images = noise_images(len(tier_of_image), shape, random_stream(seed, IMAGES))
        shown = np.repeat(np.arange(len(images)), np.where(tier_of_image == "test", n_repeats, 1))
        shown = random_stream(seed, TRIALS).permutation(shown)
        tiers, n_trials = tier_of_image[shown], len(shown)
        if not behavior:
            return cls(tiers, images, shown, np.zeros(n_trials), np.zeros((n_trials, 2)), None)
        rng = random_stream(seed, BEHAVIOR)
        arousal, gaze = _drifting(n_trials, 1, rng)[:, 0], _drifting(n_trials, 2, rng)
        pupil = 40 + 8 * arousal + rng.normal(size=n_trials)
        running = np.maximum(0, 2 + 3 * arousal + rng.normal(size=n_trials))
        variables = np.stack([pupil, np.gradient(pupil), running], axis=1)
        return cls(tiers, images, shown, arousal, gaze, variables)


def _drifting(n_trials: int, dimensions: int, rng: np.random.Generator, memory: float = 0.9) -> np.ndarray:
    values = rng.normal(size=(n_trials, dimensions))
    for trial in range(1, n_trials):
        values[trial] = memory * values[trial - 1] + np.sqrt(1 - memory**2) * values[trial]
    return values


def drive_of(trials: Trials, population: Population, bank: FeatureBank, eye_movement: float) -> np.ndarray:
    """Return ``<v_i, psi(s_t)(p_i + e_t)>``, (trials, neurons); ``eye_movement`` is in pixels per unit of gaze."""
    drive = np.empty((len(trials.shown), len(population.types)))
    for start in range(0, len(drive), CHUNK):
        part = slice(start, start + CHUNK)
        maps = np.ascontiguousarray(np.moveaxis(bank.maps(trials.images[trials.shown[part]]), 1, 3))
        centers = population.centers + eye_movement * trials.gaze[part, None, :]
        for first in range(0, drive.shape[1], NEURONS_AT_A_TIME):
            neurons = slice(first, first + NEURONS_AT_A_TIME)
            features = interpolate(maps, centers[:, neurons])
            drive[part, neurons] = np.einsum("tnf,nf->tn", features, population.tuning[neurons])
    return drive


def interpolate(maps: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Bilinear values of (trials, height, width, features) at (trials, neurons, 2): (trials, neurons, features)."""
    n_trials, height, width, n_features = maps.shape
    last = np.array([height, width]) - 1
    centers = np.clip(centers, 0, last)
    corner = np.minimum(centers.astype(int), np.maximum(last - 1, 0))
    row, column = np.moveaxis(corner, 2, 0)
    down, right = np.moveaxis((centers - corner)[..., None], 2, 0)
    below, beside = np.minimum(row + 1, last[0]), np.minimum(column + 1, last[1])
    pixels = maps.reshape(-1, n_features)
    first_row = height * np.arange(n_trials)[:, None]

    def values(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return pixels.take((first_row + row) * width + column, axis=0)

    upper = (1 - right) * values(row, column) + right * values(row, beside)
    lower = (1 - right) * values(below, column) + right * values(below, beside)
    return (1 - down) * upper + down * lower


def expected_counts(drive: np.ndarray, rate: float) -> np.ndarray:
    """Return ``rate * softplus(drive) / log(2)``: ``rate`` spikes at zero drive."""
    return rate / np.log(2) * np.logaddexp(0, drive)


def spike_counts(rates: np.ndarray, dispersions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Poisson counts whose rates are multiplied by Gamma factors of mean 1 and variance ``dispersions``."""
    shape = 1 / np.where(dispersions > 0, dispersions, 1)
    factors = np.where(dispersions > 0, rng.gamma(shape, 1 / shape, size=rates.shape), 1)
    return rng.poisson(rates * factors)
