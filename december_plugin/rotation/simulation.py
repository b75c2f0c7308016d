"""Simulated readout vectors of planted types at random orientations, for which the answer is known.

How a feature of a type is tuned to orientation is a draw of a periodic Gaussian process, with covariance ``exp(-2
sin(d / 2)^2 / l^2)`` between angles d apart. It is a Fourier series whose coefficients are independent, their variances
``e^-c I_k(c)`` with ``c = 1 / l^2`` (modified Bessel functions; twice that for each of cosine and sine), so that it can
be evaluated at every angle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, ive

from december_plugin.errors import SettingsError
from december_plugin.text.array_repr import ArrayRepr
from december_plugin.validation.checks import check_choice, check_count, check_number, check_seed

Floats = npt.NDArray[np.float64]

N_HARMONICS = 64  # beyond them nothing is left for length scales of at least 0.1
LEAST_LENGTH_SCALE = 0.1
LENGTH_SCALE = 0.85  # radians; clusters of unaligned vectors then have an ARI of about a half to the types
N_ACTIVE = 4  # features of a type that is sparse


@dataclass(frozen=True, eq=False, repr=False)
class SimulatedReadouts(ArrayRepr):
    """Readout vectors, and the types and angles from which they were made.

    Attributes
    ----------
    readouts
        (N, O * F) float64, orientation-major.
    types
        (N,) int64: the type of every neuron, from 0.
    angles
        (N,) float64, in radians: its orientation. Shifted back by it, neurons of a type differ by noise alone, up to
        the interpolation between orientations.
    """

    readouts: Floats
    types: npt.NDArray[np.int64]
    angles: Floats


def toy_readouts(
    n_neurons: int = 16,
    *,
    n_orientations: int = 8,
    noise: float = 0.0,
    length_scale: float = LENGTH_SCALE,
    seed: int = 0,
) -> SimulatedReadouts:
    """Return the synthetic dataset of the paper: one feature, two types (Ustyuzhaninov et al. 2020, section 4).

    Parameters
    ----------
    n_neurons, n_orientations
        Numbers of neurons N and orientations O.
    noise
        Standard deviation of the noise of every entry; tuning curves have a variance of 1.
    length_scale
        Length scale of the Gaussian process in radians, at least 0.1; the paper does not give it.
    seed
        0 to 2**32 - 1. The same seed gives the same types and angles at every noise.
    """
    rng = np.random.default_rng(check_seed("seed", seed))
    draws = _periodic_draws(rng, (2, 1), length_scale)
    return _neurons(rng, draws, n_neurons, n_orientations, noise)


def simulated_readouts(
    n_neurons: int = 6005,
    *,
    n_types: int = 10,
    n_orientations: int = 8,
    n_features: int = 16,
    features: Literal["sparse", "dense"] = "sparse",
    noise: float = 0.3,
    length_scale: float = LENGTH_SCALE,
    seed: int = 0,
) -> SimulatedReadouts:
    """Return simulated readout vectors of types at random angles, by default as many as in the paper.

    Parameters
    ----------
    n_neurons, n_types, n_orientations, n_features
        Numbers of neurons, types, orientations O and features F.
    features
        "dense": a type has all features. "sparse": it has 4 of them, drawn at random.
    noise
        Standard deviation of the noise of every entry. The entries of a type have a mean square of 1: at a noise of 1
        half of a vector's squared length is noise.
    length_scale
        Length scale of the tuning curves in radians, at least 0.1.
    seed
        0 to 2**32 - 1. The same seed gives the same types and angles at every noise.

    See Also
    --------
    RotationAlignment : Finds the planted angles.
    permuted_readouts : Readout vectors without types.

    References
    ----------
    Ustyuzhaninov I, Cadena SA, Froudarakis E, Fahey PG, Walker EY, Cobos E, Reimer J, Sinz FH, Tolias AS, Bethge M,
    Ecker AS (2020). Rotation-invariant clustering of neuronal responses in primary visual cortex. *ICLR*.
    https://iclr.cc/virtual/2020/poster/1570

    Examples
    --------
    >>> from december_plugin.evaluation import compare_partitions
    >>> from december_plugin.clustering import cluster_readouts
    >>> from december_plugin.rotation import shifted, simulated_readouts
    >>> simulated = simulated_readouts(200, n_types=4, n_features=4)
    >>> simulated.readouts.shape  # 8 orientations of 4 features
    (200, 32)
    >>> turned_back = shifted(simulated.readouts, -simulated.angles, 8)
    >>> clusters = cluster_readouts(turned_back, method="kmeans", n_clusters=4).labels
    >>> compare_partitions(simulated.types, clusters).adjusted_rand_index
    1.0
    """
    check_choice("features", features, ("sparse", "dense"))
    check_count("n_types", n_types)
    if features == "sparse" and check_count("n_features", n_features) < N_ACTIVE:
        raise SettingsError(
            f"n_features is {n_features}, but sparse types have {N_ACTIVE} of them. Use more, or dense ones.",
            setting="n_features",
        )
    rng = np.random.default_rng(check_seed("seed", seed))
    draws = _periodic_draws(rng, (n_types, n_features), length_scale)
    if features == "sparse":
        ranks = rng.permuted(np.broadcast_to(np.arange(n_features), (n_types, n_features)), axis=1)
        draws[ranks >= N_ACTIVE] = 0
    # By Parseval: the mean square over all angles.
    draws /= np.sqrt((draws**2).sum(axis=(2, 3)).mean(axis=1))[:, None, None, None]
    return _neurons(rng, draws, n_neurons, n_orientations, noise)


def distance_of_noise(noise: float, n_entries: int) -> float:
    """Return the expected distance between two vectors of so many entries that differ by independent noise alone.

    ``2 noise Gamma((D + 1) / 2) / Gamma(D / 2)``, of a chi distribution: the dashed line of the paper's Figure 4.
    """
    return float(2 * noise * np.exp(gammaln((n_entries + 1) / 2) - gammaln(n_entries / 2)))


def _periodic_draws(rng: np.random.Generator, shape: tuple[int, ...], length_scale: float) -> Floats:
    """Return Fourier coefficients (..., harmonics, cosine and sine), scaled so that squares sum to the mean square."""
    if check_number("length_scale", length_scale, above=0) < LEAST_LENGTH_SCALE:
        raise SettingsError(
            f"length_scale is {length_scale}; it must be at least {LEAST_LENGTH_SCALE} radians.", setting="length_scale"
        )
    variances = ive(np.arange(N_HARMONICS), 1 / length_scale**2)
    draws = rng.standard_normal((*shape, N_HARMONICS, 2)) * np.sqrt(variances)[:, None]
    draws[..., 0, 1] = 0
    return draws


def _neurons(
    rng: np.random.Generator, draws: Floats, n_neurons: int, n_orientations: int, noise: float
) -> SimulatedReadouts:
    check_count("n_neurons", n_neurons)
    check_count("n_orientations", n_orientations)
    check_number("noise", noise, minimum=0)
    types = rng.integers(len(draws), size=n_neurons)
    angles = rng.uniform(0, 2 * np.pi, n_neurons)
    harmonics = np.arange(N_HARMONICS)
    phases = harmonics * (2 * np.pi / n_orientations * np.arange(n_orientations)[:, None] - angles[:, None, None])
    amplitudes = np.where(harmonics == 0, 1.0, np.sqrt(2.0))
    waves = np.stack([amplitudes * np.cos(phases), amplitudes * np.sin(phases)], axis=-1)
    signals = np.empty((n_neurons, n_orientations, draws.shape[1]))
    for kind in range(len(draws)):
        signals[types == kind] = np.einsum("nokc,fkc->nof", waves[types == kind], draws[kind], optimize=True)
    noisy = signals + noise * rng.standard_normal(signals.shape)
    return SimulatedReadouts(noisy.reshape(n_neurons, -1), types, angles)
