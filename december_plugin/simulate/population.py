"""Simulated neurons, of planted types or of a continuum without types: their places and their tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from december_plugin.errors import SettingsError

TYPED, UNTYPED, RING, SPARSE = POPULATIONS = ("types", "continuum", "ring", "sparse")
MIXED, SEPARATE, SINGLE = CELLS = ("mixed", "simple_and_complex", "single_gabors")
COMMON, RANDOM = ORIENTATIONS = ("common", "random")
# Features of one Gabor where types are of simple or of complex cells; the last is the complex one.
N_KINDS = {SEPARATE: 4, SINGLE: 3}
CORTEX_EXTENT = (800.0, 800.0, 200.0)  # micrometres: two directions along the cortex, and depth
FIELD_EXTENT = 0.25  # of receptive field centres, as a fraction of the image
SCATTER = 0.02  # of receptive field centres, as a fraction of the image
# Random streams: one for each cause, so that e.g. the noise model changes nothing but the noise.
BANK, TYPES, REFERENCE, NEURONS, IMAGES, TRIALS, BEHAVIOR, NOISE, SHAPE, TURNS = range(10)


def random_stream(seed: int, purpose: int) -> np.random.Generator:
    """Return the random numbers for one of the causes above, such as ``NOISE``."""
    return np.random.default_rng([seed, purpose])


def complex_features(n_features: int, cells: str) -> np.ndarray:
    """Return which features are energies of Gabor pairs (complex cells), (features,) bool; the others are simple."""
    period, complex_one = (N_KINDS[cells], N_KINDS[cells] - 1) if cells in N_KINDS else (2, 0)
    return np.asarray(np.arange(n_features) % period == complex_one)


def type_tuning_of(n_types: int, n_features: int, seed: int, *, cells: str = MIXED) -> np.ndarray:
    """Return the mean tuning of each type, (types, features): directions that are uniform on a sphere.

    With ``cells="simple_and_complex"`` types alternate between simple and complex cells: their mean tuning has only
    features of that kind. With ``"single_gabors"`` each type has a single feature.

    Raises
    ------
    SettingsError
        If there are too few features for a complex one, or for one of each type.
    """
    if cells == SINGLE:
        if n_features < n_types:
            raise SettingsError(
                f"n_features is {n_features}; cells='single_gabors' needs one for each of the {n_types} types.",
                setting="n_features",
                others=["cells"],
            )
        return np.sqrt(n_features) * np.eye(n_types, n_features)
    directions = random_stream(seed, TYPES).normal(size=(n_types, n_features))
    if cells == SEPARATE:
        if n_features < N_KINDS[SEPARATE]:
            raise SettingsError(
                f"n_features is {n_features}; cells='simple_and_complex' needs at least {N_KINDS[SEPARATE]}.",
                setting="n_features",
                others=["cells"],
            )
        directions *= complex_features(n_features, cells) == (np.arange(n_types) % 2 == 1)[:, None]
    return np.sqrt(n_features) * directions / np.linalg.norm(directions, axis=1, keepdims=True)


def neurons_per_type(type_sizes: Sequence[float], n_neurons: int) -> np.ndarray:
    """Return how many neurons each type has, (types,) int64, in proportion to the sizes; their sum is ``n_neurons``.

    Raises
    ------
    SettingsError
        If the sizes are not positive numbers.
    """
    sizes = np.asarray(type_sizes, dtype=float)
    if sizes.ndim != 1 or len(sizes) == 0 or not np.isfinite(sizes).all() or not (sizes > 0).all():
        raise SettingsError(
            f"type_sizes is {type_sizes!r}; one positive number for each type is expected.", setting="type_sizes"
        )
    shares = sizes / sizes.sum() * n_neurons
    counts = np.floor(shares).astype(int)
    missing = n_neurons - counts.sum()
    counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1  # largest remainders first
    return counts


def _mixture_moments(
    type_tuning: np.ndarray, shares: np.ndarray, spread: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean (F,) of the types' mixture, the variances (F,) along its axes, ascending, and the axes (F, F)."""
    mean = shares @ type_tuning
    deviations = type_tuning - mean
    covariance = (shares[:, None] * deviations).T @ deviations + spread**2 * np.eye(len(mean))
    variances, directions = np.linalg.eigh(covariance)
    return mean, np.maximum(variances, 0), directions


def _untyped(
    kind: str, type_tuning: np.ndarray, shares: np.ndarray, spread: float, noise: np.ndarray, seed: int
) -> np.ndarray:
    """Return tuning (N, F) without types; ``noise`` (N, F) is N(0, 1).

    A ring is in the plane of the mixture's two widest axes. The others have mean and covariance of the mixture: one
    Gaussian or, if it is sparse, the product of two normal numbers, which has heavy tails, along every axis.
    """
    mean, variances, directions = _mixture_moments(type_tuning, shares, spread)
    rng = random_stream(seed, SHAPE)
    if kind == RING:
        angle = 2 * np.pi * rng.uniform(size=len(noise))
        circle = np.column_stack([np.cos(angle), np.sin(angle)]) @ directions[:, -2:].T
        return np.asarray(np.sqrt(len(mean)) * circle + spread * noise)
    if kind == SPARSE:
        noise = noise * rng.normal(size=noise.shape)
    return np.asarray(mean + (noise * np.sqrt(variances)) @ directions.T)


@dataclass(frozen=True)
class Population:
    """Simulated neurons.

    Attributes
    ----------
    unit_ids
        (neurons,) int64, ascending.
    types
        (neurons,) int64 type of each neuron; -1 where there are no types.
    tuning
        (neurons, features), gains included.
    gains, dispersions
        (neurons,).
    coordinates
        (neurons, 3) place in the cortex in micrometres; the third is the depth.
    centers
        (neurons, 2) row and column of the receptive field's centre in pixels.
    angles
        (neurons,) by which a neuron's features are turned, counterclockwise, in radians; 0 with common orientations.
    """

    unit_ids: np.ndarray
    types: np.ndarray
    tuning: np.ndarray
    gains: np.ndarray
    dispersions: np.ndarray
    coordinates: np.ndarray
    centers: np.ndarray
    angles: np.ndarray

    @classmethod
    def draw(
        cls,
        counts: np.ndarray,
        type_tuning: np.ndarray,
        spread: float,
        gain_sd: float,
        dispersion_sd: float,
        shape: tuple[int, int],
        seed: int,
        *,
        kind: str = TYPED,
        orientations: str = COMMON,
    ) -> Population:
        """Draw neurons, ``counts`` (types,) of each type; ``shape`` is that of the images in pixels.

        ``kind`` is one of ``POPULATIONS``; without types it has the moments of a mixture with these ``counts``.
        ``orientations`` is one of ``ORIENTATIONS``.
        """
        rng = random_stream(seed, NEURONS)
        n_neurons = int(counts.sum())
        types = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        # Unit ids have gaps, as in real recordings: a position is never a neuron's name.
        unit_ids = np.sort(rng.choice(np.arange(1, 10 * n_neurons + 1), size=n_neurons, replace=False))
        gains = np.exp(gain_sd * rng.normal(size=n_neurons))
        noise = rng.normal(size=(n_neurons, type_tuning.shape[1]))
        if kind == TYPED:
            tuned = type_tuning[types] + spread * noise
        else:
            tuned = _untyped(kind, type_tuning, counts / n_neurons, spread, noise, seed)
        tuning = gains[:, None] * tuned
        dispersions = np.exp(dispersion_sd * rng.normal(size=n_neurons))
        place = rng.uniform(size=(n_neurons, 3))
        # Retinotopy: the cortical sheet covers the middle of the image, turned a little.
        angle = rng.uniform(-0.3, 0.3)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        relative = FIELD_EXTENT * (place[:, :2] - 0.5) @ turn + SCATTER * rng.normal(size=(n_neurons, 2))
        size = np.array(shape)
        centers = np.clip((0.5 + relative) * size - 0.5, 0, size - 1)
        if kind != TYPED:
            types = np.full(n_neurons, -1)
        angles = np.zeros(n_neurons)
        if orientations == RANDOM:
            angles = random_stream(seed, TURNS).uniform(0, 2 * np.pi, size=n_neurons)
        return cls(unit_ids, types, tuning, gains, dispersions, place * CORTEX_EXTENT, centers, angles)
