"""Simulated neurons: of planted types, or a continuum without types; where they lie, how they are tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from december_plugin.errors import SettingsError

TYPED, UNTYPED = POPULATIONS = ("types", "continuum")
CORTEX_EXTENT = (800.0, 800.0, 200.0)  # micrometres: two directions along the cortex, and depth
FIELD_EXTENT = 0.25  # of receptive field centres, as a fraction of the image
SCATTER = 0.02  # of receptive field centres, as a fraction of the image
# Random streams: one for each cause, so that e.g. the noise model changes nothing but the noise.
BANK, TYPES, REFERENCE, NEURONS, IMAGES, TRIALS, BEHAVIOR, NOISE = range(8)


def random_stream(seed: int, purpose: int) -> np.random.Generator:
    """Return the random numbers for one of the causes above, such as ``NOISE``."""
    return np.random.default_rng([seed, purpose])


def type_tuning_of(n_types: int, n_features: int, seed: int) -> np.ndarray:
    """Return the mean tuning of each type, (types, features): directions that are uniform on a sphere."""
    directions = random_stream(seed, TYPES).normal(size=(n_types, n_features))
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


def _continuum(type_tuning: np.ndarray, shares: np.ndarray, spread: float, noise: np.ndarray) -> np.ndarray:
    """Return tuning (N, F) from one Gaussian with mean and covariance of the types' mixture; ``noise`` is N(0, 1)."""
    mean = shares @ type_tuning
    deviations = type_tuning - mean
    covariance = (shares[:, None] * deviations).T @ deviations + spread**2 * np.eye(len(mean))
    variances, directions = np.linalg.eigh(covariance)
    return mean + (noise * np.sqrt(np.maximum(variances, 0))) @ directions.T


@dataclass(frozen=True)
class Population:
    """Simulated neurons.

    Attributes
    ----------
    unit_ids
        (neurons,) int64, ascending.
    types
        (neurons,) int64 type of each neuron; -1 in a continuum.
    tuning
        (neurons, features), gains included.
    gains, dispersions
        (neurons,).
    coordinates
        (neurons, 3) place in the cortex in micrometres; the third is the depth.
    centers
        (neurons, 2) row and column of the receptive field's centre in pixels.
    """

    unit_ids: np.ndarray
    types: np.ndarray
    tuning: np.ndarray
    gains: np.ndarray
    dispersions: np.ndarray
    coordinates: np.ndarray
    centers: np.ndarray

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
    ) -> Population:
        """Draw neurons, ``counts`` (types,) of each type; ``shape`` is that of the images in pixels."""
        rng = random_stream(seed, NEURONS)
        n_neurons = int(counts.sum())
        types = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        # Unit ids have gaps, as in real recordings: a position is never a neuron's name.
        unit_ids = np.sort(rng.choice(np.arange(1, 10 * n_neurons + 1), size=n_neurons, replace=False))
        gains = np.exp(gain_sd * rng.normal(size=n_neurons))
        noise = rng.normal(size=(n_neurons, type_tuning.shape[1]))
        if kind == UNTYPED:
            tuned = _continuum(type_tuning, counts / n_neurons, spread, noise)
        else:
            tuned = type_tuning[types] + spread * noise
        tuning = gains[:, None] * tuned
        dispersions = np.exp(dispersion_sd * rng.normal(size=n_neurons))
        place = rng.uniform(size=(n_neurons, 3))
        # Retinotopy: the cortical sheet covers the middle of the image, turned a little.
        angle = rng.uniform(-0.3, 0.3)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        relative = FIELD_EXTENT * (place[:, :2] - 0.5) @ turn + SCATTER * rng.normal(size=(n_neurons, 2))
        size = np.array(shape)
        centers = np.clip((0.5 + relative) * size - 0.5, 0, size - 1)
        if kind == UNTYPED:
            types = np.full(n_neurons, -1)
        return cls(unit_ids, types, tuning, gains, dispersions, place * CORTEX_EXTENT, centers)
