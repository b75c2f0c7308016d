"""The feature covariance of a model, from the drives of its neurons on probe stimuli.

A fingerprint is the drive ``F_it = <w_i, phi(x_t) - mean>`` of every neuron on the same probes at the same positions.
With readout vectors ``W`` (N, D) of full rank, ``F = W Phi^T`` determines the centred features ``Phi`` (T, D), and so
their covariance, without the core.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from december_plugin.errors import EmbeddingError

MISFIT = 1e-3  # of the fingerprints, relative, that readout vectors of the same model leave unexplained: float32


def covariance_of_fingerprints(
    vectors: npt.NDArray[np.floating], fingerprints: npt.NDArray[np.floating], *, name: str = "the fingerprints"
) -> npt.NDArray[np.float64]:
    """Return the feature covariance that follows from readout vectors and fingerprints.

    Parameters
    ----------
    vectors
        Readout vectors ``W`` (N, D).
    fingerprints
        ``F`` (N, T): the drive of every neuron on T probes, all at the same positions; the mean over probes is
        subtracted.
    name
        Name of the fingerprints in messages.

    Returns
    -------
    ndarray
        ``Sigma`` (D, D) float64, with ``W Sigma W^T = F F^T / T``; if the rank of ``W`` is below D, the one of smallest
        norm.

    Raises
    ------
    EmbeddingError
        If they have another number of neurons, or are not drives of these readout vectors.
    """
    if len(fingerprints) != len(vectors):
        raise EmbeddingError(
            f"{name} are of {len(fingerprints)} neurons and the readout vectors of {len(vectors)}, so they cannot be "
            "of the same neurons."
        )
    w, f = np.asarray(vectors, dtype=np.float64), np.asarray(fingerprints, dtype=np.float64)
    f = f - f.mean(axis=1, keepdims=True)
    features, *_ = np.linalg.lstsq(w, f, rcond=None)  # (D, T)
    left = np.linalg.norm(f - w @ features)
    total = np.linalg.norm(f)
    if not total:
        raise EmbeddingError(f"{name} are constant over the probes, so they say nothing about the features.")
    if left > MISFIT * total:
        raise EmbeddingError(
            f"{name} are not drives of these readout vectors: a part of {left / total:.2g} of them cannot be written "
            "as weights times features. They are from another model or order of neurons, from after the nonlinearity, "
            "or of every neuron at its own position; give the model's feature covariance instead."
        )
    return np.asarray(features @ features.T / f.shape[1])
