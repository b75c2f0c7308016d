"""t-SNE coordinates of readout vectors, after Linderman and Steinerberger, with scikit-learn.

**What the guideline says** (Linderman and Steinerberger, "Clustering with t-SNE, provably", 2019; the settings of the
DECEMber paper): perplexity N/100, early exaggeration ``alpha = N/10``, learning rate ``h = 1``. Their step is

    y_i <- y_i + sum_j (alpha h) p_ij q_ij Z (y_j - y_i) - h sum_j q_ij^2 Z (y_j - y_i),

so ``h`` multiplies a gradient without its factor of 4, and what decides about the clusters is the product
``alpha h = N/10``: as ``sum_j p_ij`` is about ``1/N``, a point moves by about a tenth of the way to its neighbours.

**The equivalent in scikit-learn.** ``TSNE`` multiplies the gradient by 4, so its learning rate is ``h / 4``: 0.25 for
``h = 1``. It also keeps the learning rate when the exaggeration ends; ``alpha h`` then falls by a factor of N/10, and
next to nothing moves: with 3,000 points the divergence is 3.5 after 1,000 iterations instead of 2.1, and with a literal
learning rate of 1, four times the guideline's step, 2.3. Here the product is held constant through both stages,
``learning rate = N / (40 alpha)``: 0.25 with the exaggeration, N/40 without it, close to the N/48 of scikit-learn's
"auto"; as there, it is not below 50 in the second stage.

**What large exaggeration does to overlapping groups.** Where the neighbourhood graph has no clear parts (a spectral gap
above ``1 / alpha``), the exaggerated attraction wins over the repulsion everywhere, and the whole embedding contracts
exponentially, down to 1e-12 in trials. The arrangement survives, its scale does not, and scikit-learn's
tree takes points that are so close for one point: its second stage would leave them there. The second stage therefore
starts from the arrangement of the first, brought back to the standard deviation from which t-SNE starts (1e-4). In
trials with 500 and 4,000 points (blobs that overlap more or less, one Gaussian cloud, a ring) the divergence ended at
1 % above to 5 % below that of scikit-learn's default settings at the same perplexity.

**Perplexity.** N/100 is meant for thousands of points. With 5 neighbours per point, which it is for 500 neurons, a
continuum falls into clumps that are not there. Below 3,000 neurons the perplexity is 30, scikit-learn's default, but at
most N/15, so that it stays local.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from december_plugin.errors import SettingsError

MIN_NEURONS = 10
DEFAULT_PERPLEXITY = 30.0
# scikit-learn's own: the length of the exaggerated stage, and the standard deviation of the start.
_EXAGGERATED_ITERATIONS = 250
_ITERATIONS = 1000
_START_SD = 1e-4
_MIN_LEARNING_RATE = 50.0


@dataclass(frozen=True)
class TsneSettings:
    """The settings for a number of points, in scikit-learn's units.

    Attributes
    ----------
    perplexity
        Effective number of neighbours.
    early_exaggeration
        Factor of the attraction in the first stage.
    early_learning_rate, learning_rate
        Of the first and the second stage.
    """

    perplexity: float
    early_exaggeration: float
    early_learning_rate: float
    learning_rate: float

    @property
    def first_stage(self) -> dict[str, Any]:
        """Arguments of ``TSNE`` that make it do the exaggerated stage only."""
        return {
            "early_exaggeration": self.early_exaggeration,
            "learning_rate": self.early_learning_rate,
            "max_iter": _EXAGGERATED_ITERATIONS,
        }

    @property
    def second_stage(self) -> dict[str, Any]:
        """Arguments of ``TSNE`` for the stage without exaggeration."""
        return {"early_exaggeration": 1.0, "learning_rate": self.learning_rate, "max_iter": _ITERATIONS}


def tsne_settings(n_neurons: int) -> TsneSettings:
    """Return the settings for a number of neurons; the module's text derives them.

    Parameters
    ----------
    n_neurons
        Number of readout vectors N.

    Returns
    -------
    TsneSettings
        Perplexity ``max(N/100, min(30, N/15))`` (at least 2), early exaggeration N/10, learning rates 0.25 and
        ``max(N/40, 50)`` (at most N/2 below 100 neurons).
    """
    exaggeration = n_neurons / 10
    return TsneSettings(
        perplexity=max(n_neurons / 100, min(DEFAULT_PERPLEXITY, n_neurons / 15), 2.0),
        early_exaggeration=exaggeration,
        early_learning_rate=n_neurons / (40 * exaggeration),
        learning_rate=max(n_neurons / 40, min(_MIN_LEARNING_RATE, n_neurons / 2)),
    )


def tsne_coordinates(vectors: npt.ArrayLike, *, seed: int) -> np.ndarray:
    """Return t-SNE coordinates of readout vectors, after Linderman and Steinerberger (2019).

    Parameters
    ----------
    vectors
        Readout vectors, shape (N, D), at least 10.
    seed
        Seed of scikit-learn; the start is the first two principal components, so that little depends on it.

    Returns
    -------
    ndarray
        Coordinates, shape (N, 2), float64, centred on 0. Their units mean nothing, and neither do the sizes of groups
        or the distances between them.

    Raises
    ------
    SettingsError
        If the vectors are not a matrix of finite numbers, are all the same, or are fewer than 10.
    """
    points = checked_vectors(vectors)
    if len(points) < MIN_NEURONS:
        raise SettingsError(
            f"t-SNE needs at least {MIN_NEURONS} readout vectors; there are {len(points)}. "
            "Draw more neurons, or pass coordinates."
        )
    points = points - points.mean(axis=0)
    scale = np.abs(points).max()
    if scale == 0:
        raise SettingsError(
            f"all {len(points)} readout vectors are the same, so that there is nothing to embed. Was the model trained?"
        )
    # t-SNE does not depend on the scale of the vectors, but float32 has limits.
    points = points / scale
    settings = tsne_settings(len(points))
    start = _principal_components(points, seed=seed)
    first = _run(points, start, settings.perplexity, seed, **settings.first_stage)
    second = _run(points, _rescaled(first, otherwise=start), settings.perplexity, seed, **settings.second_stage)
    coordinates = second.astype(np.float64)
    return coordinates - coordinates.mean(axis=0)


def checked_vectors(vectors: npt.ArrayLike) -> np.ndarray:
    """Return readout vectors as float64 (N, D), or raise a :class:`SettingsError` that says what is wrong."""
    try:
        array = np.asarray(vectors, dtype=np.float64)
    except (TypeError, ValueError):
        raise SettingsError("the readout vectors are not numbers; an array of shape (N, D) is needed.") from None
    if array.ndim != 2 or 0 in array.shape:
        raise SettingsError(f"the readout vectors have shape {array.shape}; (N, D) is needed, with N and D at least 1.")
    bad = int((~np.isfinite(array)).any(axis=1).sum())
    if bad:
        raise SettingsError(
            f"{bad} of {len(array)} readout vectors hold NaN or infinite values. Leave these neurons out, or look at "
            "the training that made them."
        )
    return array


def _principal_components(points: np.ndarray, *, seed: int) -> np.ndarray:
    """Return the first two principal components, with the standard deviation from which t-SNE starts."""
    u, s, _ = np.linalg.svd(points, full_matrices=False)
    # The sign of a singular vector is arbitrary: the largest entry becomes positive.
    u = u * np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])
    components = np.zeros((len(points), 2))
    n = min(2, len(s))
    components[:, :n] = u[:, :n] * s[:n]
    components *= _START_SD / components[:, 0].std()
    # Vectors along a line could never leave it.
    components += np.random.default_rng(seed).normal(scale=0.01 * _START_SD, size=components.shape)
    return components.astype(np.float32)


def _rescaled(coordinates: np.ndarray, *, otherwise: np.ndarray) -> np.ndarray:
    """Bring an arrangement back to the scale of the start, or return the start if it shrank to a point."""
    centred = coordinates.astype(np.float64)
    centred -= centred.mean(axis=0)
    sd = centred.std(axis=0).max()
    if not np.isfinite(sd) or sd == 0:
        return otherwise
    return (centred * (_START_SD / sd)).astype(np.float32)


def _run(points: np.ndarray, start: np.ndarray, perplexity: float, seed: int, **settings: Any) -> np.ndarray:
    from sklearn.manifold import TSNE

    return TSNE(perplexity=perplexity, init=start, random_state=seed, **settings).fit_transform(points)
