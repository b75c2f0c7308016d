"""Cyclic shifts of readout vectors along the orientations: by whole steps, linear in between, and relaxed.

A readout vector of a rotation-equivariant core has ``O`` orientations of ``F`` features, orientation-major: entry
``o F + f`` belongs to feature f at orientation o. Turning the stimulus by ``2 pi / O`` shifts the orientations by one.
For angles in between, a shifted vector is a mean of shifts by whole steps,

    r(alpha) = sum_k g_k(alpha) roll(r, k),

with two weights that are not 0 in the linear shift (Ustyuzhaninov et al. 2020, equation 2), and ``g_k(alpha) =
softmax_k(T cos(alpha - 2 pi k / O))`` in its relaxation (equation 4), whose gradient is nowhere 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from december_plugin.embeddings.space import checked_covariance
from december_plugin.errors import EmbeddingError, MisfitError
from december_plugin.validation.checks import check_integer

Floats = npt.NDArray[np.float64]


def checked_readouts(readouts: Any, n_orientations: int) -> Floats:
    """Return readout vectors as an array (N, O, F) of orientations and features.

    Parameters
    ----------
    readouts
        (N, O * F), orientation-major, finite.
    n_orientations
        Number of orientations O.

    Raises
    ------
    EmbeddingError
        If they are not a matrix, or not finite.
    MisfitError
        If the number of their entries is not a multiple of O.
    """
    vectors = np.asarray(readouts, dtype=np.float64)
    if vectors.ndim != 2:
        raise EmbeddingError(
            f"readout vectors have the shape {vectors.shape}; they must be (neurons, orientations * features)."
        )
    if not np.isfinite(vectors).all():
        raise EmbeddingError("the readout vectors hold NaN or infinite values; check the model.")
    return vectors.reshape(len(vectors), *shape_of(vectors.shape[1], n_orientations))


def shape_of(n_entries: int, n_orientations: int) -> tuple[int, int]:
    """Return O and F of readout vectors with so many entries, or raise a :class:`MisfitError`."""
    if n_entries % check_integer("n_orientations", n_orientations, minimum=1):
        raise MisfitError(
            f"n_orientations is {n_orientations}, but readout vectors have {n_entries} entries, which is not a "
            "multiple of it: each feature must exist at every orientation.",
            setting="n_orientations",
        )
    return n_orientations, n_entries // n_orientations


def shifted(readouts: npt.ArrayLike, angles: npt.ArrayLike, n_orientations: int) -> Floats:
    """Return readout vectors that are shifted linearly, each by its angle.

    Parameters
    ----------
    readouts
        (N, O * F), orientation-major.
    angles
        (N,) in radians: ``2 pi / O`` is a shift by one orientation.
    n_orientations
        Number of orientations O.

    Returns
    -------
    ndarray
        (N, O * F) float64. With ``x = O alpha / 2 pi``, of which i is the integer part: ``(1 - x + i) roll(r, i) + (x -
        i) roll(r, i + 1)`` along the orientations, the same for all features.

    Raises
    ------
    EmbeddingError, MisfitError
        As for :func:`checked_readouts`, or if there is not one finite angle for each neuron.

    See Also
    --------
    RotationAlignment : Finds the angles.
    fourier_amplitudes : Features that no shift changes.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.rotation import shifted
    >>> tuning = [[3.0, 2.0, 1.0, 0.0]]  # one feature at four orientations
    >>> shifted(tuning, [np.pi / 2], n_orientations=4)
    array([[0., 3., 2., 1.]])
    >>> shifted(tuning, [np.pi / 4], n_orientations=4)
    array([[1.5, 2.5, 1.5, 0.5]])
    """
    vectors, turns = checked_readouts(readouts, n_orientations), np.asarray(angles, dtype=np.float64)
    if turns.shape != (len(vectors),) or not np.isfinite(turns).all():
        raise EmbeddingError(
            f"angles have the shape {turns.shape}; there must be one finite angle for each of {len(vectors)} neurons."
        )
    steps = np.mod(turns, 2 * np.pi) * (n_orientations / (2 * np.pi))
    whole = np.floor(steps).astype(np.int64)
    later = (steps - whole)[:, None, None]
    source = (np.arange(n_orientations) - whole[:, None]) % n_orientations
    rows = np.arange(len(vectors))[:, None]
    found = (1 - later) * vectors[rows, source] + later * vectors[rows, source - 1]
    return np.asarray(found.reshape(len(vectors), -1))


def relaxed_weights(angles: Tensor, temperature: Tensor | float, n_orientations: int) -> Tensor:
    """Return the weights (N, O) of the shifts by whole steps in the relaxed shift.

    Parameters
    ----------
    angles
        (N,) in radians.
    temperature
        T, at least 0: the larger it is, the more the nearest steps weigh. 0 is the mean of all shifts.
    n_orientations
        Number of orientations O.
    """
    steps = torch.arange(n_orientations, dtype=angles.dtype, device=angles.device) * (2 * math.pi / n_orientations)
    return torch.softmax(temperature * torch.cos(angles[:, None] - steps), dim=1)


def weighted_shifts(vectors: Tensor, weights: Tensor) -> Tensor:
    """Return the means of shifts by whole steps: one product with a circulant matrix (O, O) for each neuron.

    Parameters
    ----------
    vectors
        (N, O, F).
    weights
        Weights of the shifts, (N, O), or (1, O) if they are the same for all.

    Returns
    -------
    Tensor
        (N, O, F).
    """
    orientations = torch.arange(vectors.shape[1], device=vectors.device)
    circulant = weights[:, (orientations[:, None] - orientations) % len(orientations)]
    return circulant @ vectors


def frequency_counts(n_orientations: int) -> list[int]:
    """Return how often a real Fourier transform along the orientations has each of its O // 2 + 1 frequencies.

    Twice, with its negative; frequency 0, and the highest one where O is even, are their own negatives.
    """
    return [1 if 2 * k % n_orientations == 0 else 2 for k in range(n_orientations // 2 + 1)]


def power_spectra(vectors: Tensor) -> Tensor:
    """Return how the squared lengths of vectors (N, O, F) spread over the frequencies along the orientations.

    Returns
    -------
    Tensor
        (N, O // 2 + 1), of which every row sums to the squared length. The squared length of ``sum_k g_k roll(r, k)``
        is the sum of these, each times the squared modulus of the Fourier transform of ``g`` at the frequency.
    """
    transformed = torch.fft.rfft(vectors, dim=1)
    n = vectors.shape[1]
    counts = torch.tensor(frequency_counts(n), device=vectors.device)
    return (transformed.real.square() + transformed.imag.square()).sum(dim=2) * counts / n


def cyclic_mean(covariance: npt.ArrayLike, n_orientations: int) -> Floats:
    """Return a feature covariance averaged over cyclic shifts of the orientations, so that it commutes with them.

    Parameters
    ----------
    covariance
        ``Sigma`` (O * F, O * F), of :func:`~december_plugin.embeddings.functional.feature_covariance`.
    n_orientations
        Number of orientations O.

    Returns
    -------
    ndarray
        (O * F, O * F) float64, block-circulant. In its root's coordinates the shift of a vector is the vector of the
        shift, and distances are those of drives, averaged over turns of the stimulus.

    Raises
    ------
    EmbeddingError, MisfitError
        If it is not a covariance, or the number of features is not a multiple of O.

    See Also
    --------
    RotationAlignment : Aligns in the metric of such a covariance.
    december_plugin.embeddings.feature_covariance : The covariance of a model's features.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.rotation import cyclic_mean
    >>> cyclic_mean(np.diag([1.0, 2.0, 3.0, 6.0]), n_orientations=4)  # four orientations of one feature
    array([[3., 0., 0., 0.],
           [0., 3., 0., 0.],
           [0., 0., 3., 0.],
           [0., 0., 0., 3.]])
    """
    sigma = checked_covariance(covariance)
    o, f = shape_of(len(sigma), n_orientations)
    blocks = sigma.reshape(o, f, o, f)
    mean = sum(np.roll(blocks, k, axis=(0, 2)) for k in range(o)) / o
    return np.asarray(mean).reshape(o * f, o * f)
