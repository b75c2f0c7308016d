"""Fingerprints: what neurons compute, in coordinates that are the same for all models.

The fingerprint ``F_i = (<w_i, phi(x_t, p_s) - mean over t>)_{t,s}`` is the drive of neuron ``i`` for one fixed set of
probe stimuli ``x_t`` if it read at the positions ``p_s``. It has the geometry of functional embeddings, and, unlike
theirs, its axes are the same for every seed and every architecture: fingerprints of different models can be averaged
and compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from december_plugin.embeddings.batches import evaluating
from december_plugin.embeddings.readout_vectors import ReadoutEmbeddings, readout_embeddings
from december_plugin.embeddings.received_features import core_outputs, features_at
from december_plugin.embeddings.space import EmbeddingSpace, Normalize
from december_plugin.errors import EmbeddingError, MisfitError
from december_plugin.validation.checks import check_integer

# Where neurons are made to read, x and y from -1 to 1: away from the edges, whose features padding distorts.
POSITIONS = tuple((x, y) for y in (-0.5, 0.0, 0.5) for x in (-0.5, 0.0, 0.5))

Floats = npt.NDArray[np.float64]


@overload
def fingerprints(
    models: nn.Module,
    probes: Tensor | npt.NDArray[Any],
    *,
    positions: npt.ArrayLike = ...,
    n_components: int | None = ...,
    normalize: Normalize = ...,
) -> ReadoutEmbeddings: ...
@overload
def fingerprints(
    models: Sequence[nn.Module],
    probes: Tensor | npt.NDArray[Any],
    *,
    positions: npt.ArrayLike = ...,
    n_components: int | None = ...,
    normalize: Normalize = ...,
) -> list[ReadoutEmbeddings]: ...
def fingerprints(
    models: nn.Module | Sequence[nn.Module],
    probes: Tensor | npt.NDArray[Any],
    *,
    positions: npt.ArrayLike = POSITIONS,
    n_components: int | None = None,
    normalize: Normalize = "l2",
) -> ReadoutEmbeddings | list[ReadoutEmbeddings]:
    """Return the fingerprints of all neurons of one model, or of each of several models.

    A readout with a mask or with attention is read at points, too: its weights are used and its mask is left out.

    Parameters
    ----------
    models
        One model, or a sequence of models, with ``core`` and ``readout``. Their cores may differ in everything but the
        stimuli that they take.
    probes
        Stimuli, the same for all models: (stimuli, channels, height, width), or (clips, channels, frames, height,
        width) of movies, such as those of :mod:`december_plugin.embeddings.probes`.
    positions
        (places, 2): x and y from -1 to 1 in each core's output.
    n_components
        Keep the coordinates along this many principal components of the neurons of all given models, about 0 rather
        than the mean, so that angles are kept; None: the fingerprints themselves.
    normalize
        "l2": directions, divided by the length of the whole fingerprint. "none": in standard deviations of the drive:
        a squared distance is the variance over stimuli of the difference of drives, its mean over positions.

    Returns
    -------
    ReadoutEmbeddings or list of ReadoutEmbeddings
        ``vectors`` (N, stimuli x places), places fastest, or (N, n_components), float64.

    Raises
    ------
    SettingsError
        If a setting is not allowed, or there are fewer components.
    EmbeddingError
        If a core cannot take the probes, models answer them with different numbers of frames, or features are not
        known at other positions than the neurons'.

    See Also
    --------
    noise_probes : Stimuli of noise to show the models.
    image_probes : Stimuli from recorded images.
    functional_embeddings : Embeddings of one model's neurons.

    Examples
    --------
    >>> from december_plugin.embeddings import fingerprints, noise_probes
    >>> from december_plugin.models import stacked_core_gaussian_readout
    >>> shape = {"input_dimensions": [1, 1, 16, 16], "output_dimension": 5, "mean_responses": None}
    >>> model = stacked_core_gaussian_readout(
    ...     None, seed=0, data_info={"1-1-1": shape}, hidden_channels=4, layers=1, grid_mean_predictor=None
    ... )
    >>> fingerprints(model, noise_probes((1, 16, 16), n=30), n_components=3).vectors.shape
    (5, 3)
    """
    space = EmbeddingSpace(normalize=normalize)
    single = isinstance(models, nn.Module)
    listed: list[nn.Module] = [models] if isinstance(models, nn.Module) else list(models)
    if not listed:
        raise EmbeddingError("there are no models to compute fingerprints of; give at least one.")
    readouts = [readout_embeddings(model) for model in listed]
    features = [_features(model, probes, _checked(positions)) for model in listed]
    if len({feature.shape[1] for feature in features}) > 1:
        raise EmbeddingError(
            "the models answer the probes with different numbers of frames "
            f"({', '.join(str(feature.shape[1]) for feature in features)}, with all positions); give them clips of "
            "which their cores return as many."
        )
    weights = [_weights(readout.vectors, feature, space) for readout, feature in zip(readouts, features, strict=True)]
    if n_components is not None:
        axes = _principal_axes(weights, features, check_integer("n_components", n_components, minimum=1))
        features = [feature @ axes for feature in features]
    found = [
        ReadoutEmbeddings(w @ feature, readout.data_keys, readout.unit_positions, readout.unit_ids)
        for w, feature, readout in zip(weights, features, readouts, strict=True)
    ]
    return found[0] if single else found


def _checked(positions: npt.ArrayLike) -> Tensor:
    places = np.asarray(positions, dtype=np.float64)
    if places.ndim != 2 or places.shape[1] != 2 or not len(places) or not (np.abs(places) <= 1).all():
        raise MisfitError(
            f"positions have the shape {places.shape}; they must be (places, 2), x and y from -1 to 1.",
            setting="positions",
        )
    return torch.from_numpy(places)


def _features(model: nn.Module, probes: Tensor | npt.NDArray[Any], positions: Tensor) -> Floats:
    """Return ``phi(x_t, p_s)`` less its mean over ``t``, (D, t x s), so scaled that squares sum to the variance."""
    readout: nn.Module = next(iter(model.readout.values()))  # type: ignore[operator]
    with evaluating(model), torch.no_grad():
        received = [
            features_at(readout, core_output, positions).double().cpu() for core_output in core_outputs(model, probes)
        ]
    features = torch.cat(received)
    n_samples, n_places, n_features = features.shape
    if n_samples < 2:
        raise EmbeddingError("there is only one probe stimulus; fingerprints need at least two.")
    features = (features - features.mean(dim=0)) / np.sqrt((n_samples - 1) * n_places)
    if not features.isfinite().all():
        raise EmbeddingError("the core's output for the probes holds NaN or infinite values.")
    return features.reshape(-1, n_features).T.contiguous().numpy()


def _weights(vectors: npt.NDArray[Any], features: Floats, space: EmbeddingSpace) -> Floats:
    """Return readout vectors (N, D), scaled such that the fingerprints made of them are normalised."""
    w = vectors.astype(np.float64)
    if w.shape[1] != len(features):
        raise EmbeddingError(
            f"the readout vectors have {w.shape[1]} features, but {len(features)} are read at every position."
        )
    if space.normalize == "none":
        return w
    lengths = np.sqrt(np.maximum(np.einsum("nd,de,ne->n", w, features @ features.T, w, optimize=True), 0))
    return w / np.where(lengths > 0, lengths, 1)[:, None]


def _principal_axes(weights: list[Floats], features: list[Floats], n_components: int) -> Floats:
    """Return the principal axes (t x s, n_components) of all fingerprints ``w @ features``, which are never made.

    They are those of ``(w^T w)^(1/2) @ features``, which has D rows for each model instead of N.
    """
    rows = []
    for w, feature in zip(weights, features, strict=True):
        values, vectors = np.linalg.eigh(w.T @ w)
        rows.append((np.sqrt(np.maximum(values, 0))[:, None] * vectors.T) @ feature)
    stacked = np.concatenate(rows)
    if n_components > min(stacked.shape):
        raise MisfitError(
            f"n_components is {n_components}, but the fingerprints have at most {min(stacked.shape)} components.",
            setting="n_components",
        )
    axes = np.linalg.svd(stacked, full_matrices=False)[2][:n_components].T
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(n_components)])
    return np.asarray(axes * signs)
