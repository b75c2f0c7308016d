"""t-SNE coordinates of readout vectors, after Linderman and Steinerberger, with openTSNE.

**What the guideline says** (Linderman and Steinerberger, "Clustering with t-SNE, provably", 2019; the settings of the
DECEMber paper): perplexity N/100, early exaggeration ``alpha = N/10``, learning rate ``h = 1``. Their step is

    y_i <- y_i + sum_j (alpha h) p_ij q_ij Z (y_j - y_i) - h sum_j q_ij^2 Z (y_j - y_i),

so ``h`` multiplies a gradient without its factor of 4, and the clusters depend on the product
``alpha h = N/10``: as ``sum_j p_ij`` is about ``1/N``, a point moves by about a tenth of the way to its neighbours.

**In openTSNE** the gradient has no factor of 4 either (a test compares it with the formula), so its learning rate is
``h`` itself: 1 in the exaggerated stage. scikit-learn's has the factor; there the equivalent is 0.25. If it stayed at 1
when the exaggeration ends, almost nothing would move, as ``alpha h`` falls by a factor of N/10. The product is
therefore held constant through both stages: the second stage has the learning rate N/10, close to the N/12 of Belkina
et al. (2019) and the N of openTSNE's "auto", and not below 200. Both stages have the guideline's step plus what all
implementations add to it: momentum (0.5, then 0.8) and a gain per coordinate.

**What large exaggeration does to overlapping groups.** Where the neighbourhood graph has no clear parts (a spectral gap
above ``1 / alpha``), the exaggerated attraction wins over the repulsion everywhere, and the whole embedding contracts
exponentially, down to 1e-12 in trials. The arrangement survives, its scale does not. The second stage therefore starts
from the arrangement of the first, brought back to the standard deviation from which t-SNE starts (1e-4).

**Perplexity.** N/100 is meant for thousands of points. With 5 neighbours per point, which it is for 500 neurons, a
continuum falls into spurious clumps. Below 3,000 neurons the perplexity is 30, the usual default, but at most N/15, so
that it stays local.

**The same seed gives the same picture**: the neighbours are exact (openTSNE's approximate search depends on the number
of threads), the start is the principal components.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from december_plugin.errors import SettingsError

MIN_NEURONS = 10
DEFAULT_PERPLEXITY = 30.0
# openTSNE's own: the lengths of the stages, and the standard deviation of the start.
_EXAGGERATED_ITERATIONS = 250
_ITERATIONS = 500
_START_SD = 1e-4
_MIN_LEARNING_RATE = 200.0
# Above this number, interpolation on a grid is faster than a tree.
_GRID_FROM = 4000
_THREADS_FROM = 2000


@dataclass(frozen=True)
class TsneSettings:
    """The settings for a number of points, in openTSNE's units, which are those of the guideline.

    Attributes
    ----------
    perplexity
        Effective number of neighbours.
    early_exaggeration
        Factor of the attraction in the first stage.
    early_learning_rate, learning_rate
        Learning rates of the first and the second stage.

    Examples
    --------
    >>> from december_plugin.plots import tsne_settings
    >>> tsne_settings(1000)
    TsneSettings(perplexity=30.0, early_exaggeration=100.0, early_learning_rate=1.0, learning_rate=200.0)
    """

    perplexity: float
    early_exaggeration: float
    early_learning_rate: float
    learning_rate: float

    @property
    def first_stage(self) -> dict[str, Any]:
        """Arguments of ``TSNEEmbedding.optimize`` for the exaggerated stage."""
        return {
            "exaggeration": self.early_exaggeration,
            "learning_rate": self.early_learning_rate,
            "momentum": 0.5,
            "n_iter": _EXAGGERATED_ITERATIONS,
        }

    @property
    def second_stage(self) -> dict[str, Any]:
        """Arguments of ``TSNEEmbedding.optimize`` for the stage without exaggeration."""
        return {"exaggeration": 1.0, "learning_rate": self.learning_rate, "momentum": 0.8, "n_iter": _ITERATIONS}


def tsne_settings(n_neurons: int) -> TsneSettings:
    """Return the settings for a number of neurons; the module's text derives them.

    Parameters
    ----------
    n_neurons
        Number of readout vectors N.

    Returns
    -------
    TsneSettings
        Perplexity ``max(N/100, min(30, N/15))`` (at least 2), early exaggeration N/10, learning rates 1 and
        ``max(N/10, 200)`` (at most 2 N below 100 neurons).

    See Also
    --------
    tsne_coordinates : Uses these settings.

    References
    ----------
    Linderman GC, Steinerberger S (2019). Clustering with t-SNE, provably. *SIAM Journal on Mathematics of Data Science*
    1, 313-332. https://doi.org/10.1137/18M1216134

    Belkina AC, Ciccolella CO, Anno R, Halpert R, Spidlen J, Snyder-Cappione JE (2019). Automated optimized parameters
    for T-distributed stochastic neighbor embedding improve visualization and analysis of large datasets. *Nature
    Communications* 10, 5415. https://doi.org/10.1038/s41467-019-13055-y

    Examples
    --------
    The perplexity grows with the number of neurons:

    >>> from december_plugin.plots import tsne_settings
    >>> [tsne_settings(n_neurons).perplexity for n_neurons in (150, 1000, 10_000)]
    [10.0, 30.0, 100.0]
    """
    return TsneSettings(
        perplexity=max(n_neurons / 100, min(DEFAULT_PERPLEXITY, n_neurons / 15), 2.0),
        early_exaggeration=n_neurons / 10,
        early_learning_rate=1.0,
        learning_rate=max(n_neurons / 10, min(_MIN_LEARNING_RATE, 2.0 * n_neurons)),
    )


def tsne_coordinates(vectors: npt.ArrayLike, *, seed: int) -> np.ndarray:
    """Return t-SNE coordinates of readout vectors, after Linderman and Steinerberger (2019).

    Parameters
    ----------
    vectors
        Readout vectors, shape (N, D), at least 10.
    seed
        The start is the first two principal components, so that little depends on it.

    Returns
    -------
    ndarray
        Coordinates, shape (N, 2), float64, centred on 0. Their units mean nothing, and neither do the sizes of groups
        or the distances between them.

    Raises
    ------
    SettingsError
        If the vectors are not a matrix of finite numbers, are all the same, or are fewer than 10.

    See Also
    --------
    tsne_settings : The settings for a number of neurons.
    december_plugin.plots.embedding_figure : Draws the coordinates.
    december_plugin.plots.tsne_frame : Coordinates of models in the database.

    References
    ----------
    Linderman GC, Steinerberger S (2019). Clustering with t-SNE, provably. *SIAM Journal on Mathematics of Data Science*
    1, 313-332. https://doi.org/10.1137/18M1216134

    Belkina AC, Ciccolella CO, Anno R, Halpert R, Spidlen J, Snyder-Cappione JE (2019). Automated optimized parameters
    for T-distributed stochastic neighbor embedding improve visualization and analysis of large datasets. *Nature
    Communications* 10, 5415. https://doi.org/10.1038/s41467-019-13055-y

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.plots import tsne_coordinates
    >>> tsne_coordinates(np.random.default_rng(0).normal(size=(60, 4)), seed=0).shape
    (60, 2)
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
            f"all {len(points)} readout vectors are the same, so they cannot be embedded. Was the model trained?"
        )
    # t-SNE does not depend on the scale of the vectors, but float32 has limits.
    points = points / scale
    settings = tsne_settings(len(points))
    start = _principal_components(points, seed=seed)
    affinities = _affinities(points, settings.perplexity)
    first = _run(affinities, start, seed, **settings.first_stage)
    coordinates = _run(affinities, _rescaled(first, otherwise=start), seed, **settings.second_stage)
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
            f"{bad} of {len(array)} readout vectors hold NaN or infinite values. Leave these neurons out, or check "
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
    # Vectors on a line could never leave it.
    components += np.random.default_rng(seed).normal(scale=0.01 * _START_SD, size=components.shape)
    return components


def _rescaled(coordinates: np.ndarray, *, otherwise: np.ndarray) -> np.ndarray:
    """Bring an arrangement back to the scale of the start, or return the start if it shrank to a point."""
    centred = coordinates.astype(np.float64)
    centred -= centred.mean(axis=0)
    sd = centred.std(axis=0).max()
    if not np.isfinite(sd) or sd == 0:
        return otherwise
    return centred * (_START_SD / sd)


def _affinities(points: np.ndarray, perplexity: float) -> Any:
    """Return openTSNE's affinities of the exact nearest neighbours."""
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors
    from sklearn.neighbors import NearestNeighbors

    k = min(len(points) - 1, int(3 * perplexity))
    distances, indices = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points).kneighbors()
    neighbors = PrecomputedNeighbors(indices, distances)
    return PerplexityBasedNN(perplexity=min(perplexity, k / 3), knn_index=neighbors, n_jobs=_n_threads(len(points)))


def _run(affinities: Any, start: np.ndarray, seed: int, **settings: Any) -> np.ndarray:
    from openTSNE import TSNEEmbedding

    method = "bh" if len(start) < _GRID_FROM else "fft"
    embedding = TSNEEmbedding(
        start,
        affinities,
        negative_gradient_method=method,
        n_jobs=_n_threads(len(start)),
        max_step_norm=5,
        random_state=seed,
    )
    return np.array(embedding.optimize(**settings), dtype=np.float64)


def _n_threads(n_neurons: int) -> int:
    # Threads that wait for each other after every small step cost more than they save, especially on a busy machine.
    if n_neurons < _THREADS_FROM:
        return 1
    # Processors of this process, which may be fewer than those of the machine.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
