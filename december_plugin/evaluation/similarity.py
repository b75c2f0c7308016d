"""How similar two embeddings of the same neurons are, whatever their axes and numbers of dimensions.

Clusters of two models can differ although the models place the neurons in the same way, if they cut a continuum.
These measures need no clusters: they compare the geometry, and are unchanged by rotations of either embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from december_plugin.embeddings.neuron_ids import IntArray, NeuronIds, match_neurons
from december_plugin.errors import EmbeddingError, SettingsError
from december_plugin.validation.checks import check_integer, check_seed

# Pairs of neurons whose distances are compared; the standard error of a correlation over so many is below 0.005.
N_PAIRS = 50_000
FEW_PER_PAIR = 8  # comparisons of all with all for each pair that is compared
ROUNDING = 1e-12  # of equal numbers, relative, when their mean is subtracted
PAIRS_AT_ONCE = 1 << 21  # numbers of one embedding that are gathered together: 16 MiB

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Similarity:
    """One number per measure; the names are the columns of the project's tables. NaN where one is not defined.

    Attributes
    ----------
    distance_correlation
        Pearson correlation, over pairs of neurons, of their Euclidean distances in the two embeddings (-1 to 1).
    cosine_correlation
        The same of the cosines of the angles between their vectors, without centring.
    linear_cka
        Linear centred kernel alignment: ``||A^T B||^2 / (||A^T A|| ||B^T B||)``, Frobenius norms, of the centred
        embeddings (Kornblith et al. 2019, section 3); 0 to 1, and 1 for a rotation and a common factor.
    """

    distance_correlation: float
    cosine_correlation: float
    linear_cka: float


SIMILARITIES: tuple[str, ...] = tuple(field.name for field in fields(Similarity))


@dataclass(frozen=True)
class EmbeddingSimilarity(Similarity):
    """The similarity of two embeddings, and the number of neurons it was computed from.

    Attributes
    ----------
    n_neurons
        Neurons that both embed.
    """

    n_neurons: int


def compare_embeddings(
    a: npt.ArrayLike, b: npt.ArrayLike, *, ids_a: Any = None, ids_b: Any = None, n_pairs: int = N_PAIRS, seed: int = 0
) -> EmbeddingSimilarity:
    """Return the similarity of two embeddings of the same neurons.

    Parameters
    ----------
    a, b
        Vectors (N, D) and (M, E).
    ids_a, ids_b
        Identities, in any form that :meth:`~december_plugin.embeddings.neuron_ids.NeuronIds.of` takes: the neurons that
        both have are compared. Without them, neurons are compared by position.
    n_pairs
        Number of random pairs of neurons over which distances and cosines are correlated; all pairs if there are no
        more.
    seed
        Seed of the draw.

    Raises
    ------
    SettingsError
        If there is no common neuron, the numbers of neurons differ without identities, or a setting is not allowed.
    EmbeddingError
        If an embedding is not a matrix of finite numbers.

    See Also
    --------
    compare_partitions : The agreement of clusters.
    december_plugin.embeddings.functional_embeddings : Embeddings that models of one architecture share.
    december_plugin.embeddings.fingerprints : Embeddings that models of any architecture share.
    december_plugin.results.configuration_table : The similarity of models in the database.

    References
    ----------
    Kornblith S, Norouzi M, Lee H, Hinton G (2019). Similarity of neural network representations revisited. *ICML*.
    https://arxiv.org/abs/1905.00414

    Examples
    --------
    A rotation changes neither distances nor angles:

    >>> import numpy as np
    >>> from december_plugin.evaluation import compare_embeddings
    >>> vectors = np.random.default_rng(0).normal(size=(50, 3))
    >>> turned = vectors @ np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    >>> found = compare_embeddings(vectors, turned)
    >>> round(found.distance_correlation, 6), round(found.linear_cka, 6), found.n_neurons
    (1.0, 1.0, 50)
    """
    check_integer("n_pairs", n_pairs, minimum=1)
    check_seed("seed", seed)
    first, second = _checked(a, "a"), _checked(b, "b")
    if ids_a is not None or ids_b is not None:
        known = [_ids(ids, vectors, name) for ids, vectors, name in ((ids_a, first, "a"), (ids_b, second, "b"))]
        at_a, at_b = match_neurons(*known, common_only=True)
        first, second = first[at_a], second[at_b]
    elif len(first) != len(second):
        raise SettingsError(
            f"a has {len(first)} neurons and b has {len(second)}; pass the identities of both to match them by session "
            "and unit id."
        )
    pairs = sampled_pairs(len(first), n_pairs, seed=seed)
    return EmbeddingSimilarity(
        distance_correlation=_correlation(pair_distances(first, pairs), pair_distances(second, pairs)),
        cosine_correlation=_correlation(pair_cosines(first, pairs), pair_cosines(second, pairs)),
        linear_cka=linear_cka(first, second),
        n_neurons=len(first),
    )


def sampled_pairs(n: int, n_pairs: int, *, seed: int) -> tuple[IntArray, IntArray]:
    """Return different unordered pairs of ``n`` items as two arrays (pairs,); all pairs if there are no more.

    Pairs are numbered ``j (j - 1) / 2 + i`` for ``i < j``, and numbers are drawn, so no list of all pairs is made.
    """
    n_all = n * (n - 1) // 2
    if n_all <= n_pairs:
        first, second = np.triu_indices(n, k=1)
        return first.astype(np.int64), second.astype(np.int64)
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.choice(n_all, size=n_pairs, replace=False, shuffle=False))
    second = ((1 + np.sqrt(1 + 8 * numbers.astype(np.float64))) / 2).astype(np.int64)
    second -= second * (second - 1) // 2 > numbers  # the root may be rounded up
    second += second * (second + 1) // 2 <= numbers  # or down
    return numbers - second * (second - 1) // 2, second


def pair_distances(vectors: Floats, pairs: tuple[IntArray, IntArray]) -> Floats:
    """Return the Euclidean distances (pairs,) between vectors (N, D)."""
    if _are_few(vectors, pairs):
        from scipy.spatial.distance import cdist

        return np.asarray(cdist(vectors, vectors)[pairs])
    return _over_pairs(vectors, pairs, lambda a, b: np.linalg.norm(a - b, axis=1))


def pair_cosines(vectors: Floats, pairs: tuple[IntArray, IntArray]) -> Floats:
    """Return the cosines (pairs,) of the angles between vectors (N, D); 0 for a vector of zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = vectors / np.where(lengths > 0, lengths, 1)
    if _are_few(vectors, pairs):
        return np.asarray((directions @ directions.T)[pairs])
    return _over_pairs(directions, pairs, lambda a, b: np.einsum("pd,pd->p", a, b))


def linear_cka(a: Floats, b: Floats) -> float:
    """Return the linear centred kernel alignment of embeddings (N, D) and (N, E); NaN if one is of equal vectors."""
    a, b = _centred(a), _centred(b)
    norms = [float(np.linalg.norm(each.T @ each)) for each in (a, b)]
    return float(np.sum((a.T @ b) ** 2)) / (norms[0] * norms[1]) if all(norms) else math.nan


def _are_few(vectors: Floats, pairs: tuple[IntArray, IntArray]) -> bool:
    """Tell whether comparing all vectors with all takes less time than comparing the pairs."""
    return len(vectors) ** 2 <= FEW_PER_PAIR * len(pairs[0])


def _over_pairs(vectors: Floats, pairs: tuple[IntArray, IntArray], compare: Any) -> Floats:
    size = max(1, PAIRS_AT_ONCE // vectors.shape[1])
    parts = [
        compare(vectors[pairs[0][start : start + size]], vectors[pairs[1][start : start + size]])
        for start in range(0, len(pairs[0]), size)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def _correlation(a: Floats, b: Floats) -> float:
    """Return the Pearson correlation, NaN if there are fewer than two values or all are equal."""
    if len(a) < 2:
        return math.nan
    a, b = _centred(a), _centred(b)
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    return float(np.clip(a @ b / (norms[0] * norms[1]), -1, 1)) if all(norms) else math.nan


def _centred(values: Floats) -> Floats:
    """Return values minus their mean over the first axis; zeros if only rounding errors remain."""
    centred = values - values.mean(axis=0)
    return centred if np.linalg.norm(centred) > ROUNDING * np.linalg.norm(values) else np.zeros_like(centred)


def _ids(ids: Any, vectors: Floats, name: str) -> NeuronIds:
    known = NeuronIds.of(ids)
    if len(known) != len(vectors):
        raise SettingsError(
            f"ids_{name} has the identities of {len(known)} neurons, and {name} has {len(vectors)}; every row needs "
            "its own."
        )
    return known


def _checked(vectors: npt.ArrayLike, name: str) -> Floats:
    array = np.asarray(vectors, dtype=np.float64)
    if array.ndim != 2 or not array.shape[1]:
        raise EmbeddingError(f"{name} has shape {array.shape}; an embedding is (neurons, features).")
    if not np.isfinite(array).all():
        raise EmbeddingError(f"{name} holds NaN or infinite values.")
    return array
