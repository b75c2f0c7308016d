"""The minimum spanning tree of mutual reachability distances, for many vectors of many features.

HDBSCAN is single linkage by the distance ``max(core_i, core_j, |x_i - x_j|)``, where ``core_i`` is the distance from a
vector to its k-th nearest one (Campello et al. 2013, "Density-based clustering based on hierarchical density
estimates"). The minimum spanning tree of this distance determines all clusters. scikit-learn grows it vector by vector,
one distance at a time, since its trees of boxes rule out nothing in many dimensions. Here, distances are matrix
products:

1. scikit-learn's search in blocks finds the nearest neighbors. Nearly all edges of the tree are between neighbors.
2. The graph of neighbors has a spanning tree. If the graph is in parts, they are joined first, where samples of them
   come close.
3. A pair of vectors improves a spanning tree only if it is closer than the longest edge of the path between the two. In
   the order in which Prim's algorithm reaches the vectors, that is the longest of the edges by which it reached those
   after the first up to the second: for a block of pairs, an outer maximum. Products in float32 rule out nearly all
   pairs, by a bound on their rounding errors; float64 decides about the rest.

Several pairs are often equally far: a vector reaches as many as there are within its core distance over equally long
edges. Which of them are in the tree, and in which order they are merged, decides to which cluster a vector between two
belongs. So pairs that are as close as the longest edge are kept, too, and Prim's algorithm chooses among them as
scikit-learn's does.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array, triu
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from sklearn.neighbors import NearestNeighbors

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEWEST_NEIGHBORS = 15  # of every vector in the graph; fewer leave it in many parts
MOST_NEIGHBORS = 50  # more take memory and hardly improve its tree
SAMPLE = 64  # vectors of a part that look for the nearest other part
ROWS, COLUMNS = 1024, 2048  # of a block of pairs, which stays in a processor's cache
BLOCK_NUMBERS = 2**22  # float64 numbers of one array: 32 MB
MOST_EDGES = 2**24  # kept at a time: 400 MB
SHORTEST = float(np.finfo(np.float64).smallest_subnormal)  # a sparse graph cannot hold edges of length 0
UNDERFLOW = 1e-30  # float32 cannot distinguish squares below it


class Edges(NamedTuple):
    """Pairs of vectors, (E,) each, with their mutual reachability distances."""

    first: IntArray
    second: IntArray
    lengths: FloatArray


class Growth(NamedTuple):
    """How a spanning tree grows, (N,) each.

    Attributes
    ----------
    order
        The vectors, from the first on.
    steps
        Lengths of the edges by which they are reached; 0 for the first, which is reached by none.
    origins
        The vectors from which they are reached; -1 for the first.
    """

    order: IntArray
    steps: FloatArray
    origins: IntArray


def reachability_tree(vectors: FloatArray, n_samples: int) -> csr_array:
    """Return the minimum spanning tree of the mutual reachability distances of vectors.

    Parameters
    ----------
    vectors
        Vectors (N, D), finite, at least two.
    n_samples
        Vectors whose distance measures how dense it is around each vector, itself included, 1 to N.

    Returns
    -------
    csr_array
        Symmetric (N, N), both directions of N - 1 edges: what :class:`sklearn.cluster.HDBSCAN` takes as precomputed
        distances, with ``min_samples=1``. Equal lengths, and those of 0, are made to differ by the smallest possible
        amount, in the order in which scikit-learn sorts them.
    """
    core, neighbors = _neighbors(vectors, n_samples)
    tree = _spanning_tree(len(vectors), neighbors)
    while (parts := connected_components(tree, directed=False))[0] > 1:
        tree = _spanning_tree(len(vectors), _edges_of(tree), _joints(vectors, core, parts[1]))
    edges = _edges_of(tree)
    for pairs in _close_pairs(vectors, core, _prim(tree)):
        if len(edges.lengths) + len(pairs.lengths) > MOST_EDGES:  # so many are equally long: any will do
            edges = _edges_of(_spanning_tree(len(vectors), edges))
        edges = _joined([edges, pairs])
    return _distinct(_prim(_graph(len(vectors), edges)))


def _neighbors(vectors: FloatArray, n_samples: int) -> tuple[FloatArray, Edges]:
    """Return the core distances (N,), and edges to nearest neighbors."""
    n = len(vectors)
    n_neighbors = min(max(n_samples - 1, FEWEST_NEIGHBORS), n - 1)
    centered = vectors - np.median(vectors, axis=0)  # large numbers would cancel
    search = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(centered)
    second = search.kneighbors(return_distance=False)
    distances = _distances(vectors, np.repeat(np.arange(n), n_neighbors), second.ravel()).reshape(n, n_neighbors)
    core = np.zeros(n) if n_samples == 1 else np.partition(distances, n_samples - 2, axis=1)[:, n_samples - 2]
    n_kept = min(n_neighbors, MOST_NEIGHBORS)
    first, second = np.repeat(np.arange(n), n_kept), second[:, :n_kept].ravel()
    return core, Edges(first, second, _reachability(core, first, second, distances[:, :n_kept].ravel()))


def _joints(vectors: FloatArray, core: FloatArray, parts: IntArray) -> Edges:
    """Return an edge from every part (N,) but the largest to another part, the shortest one of a sample of vectors."""
    sizes = np.bincount(parts)
    first, second = [], []
    for part in np.flatnonzero(np.arange(len(sizes)) != sizes.argmax()):
        members, others = np.flatnonzero(parts == part), np.flatnonzero(parts != part)
        members = members[:: -(-len(members) // SAMPLE)]
        origin = vectors[members].mean(axis=0)
        x = vectors[members] - origin
        x_squares = (x**2).sum(axis=1, keepdims=True)
        found = []
        for some in _slices(len(others), max(1, BLOCK_NUMBERS // (vectors.shape[1] + len(members)))):
            y = vectors[others[some]] - origin
            squares = x_squares - 2 * x @ y.T + (y**2).sum(axis=1)
            reach = _reachability(core, members[:, None], others[some], np.sqrt(np.maximum(squares, 0)))
            i, j = np.unravel_index(reach.argmin(), reach.shape)
            found.append((reach[i, j], members[i], others[some][j]))
        _, nearest, other = min(found)
        first.append(nearest)
        second.append(other)
    pairs = np.array(first), np.array(second)
    return Edges(*pairs, _reachability(core, *pairs, _distances(vectors, *pairs)))


def _close_pairs(vectors: FloatArray, core: FloatArray, growth: Growth) -> Iterator[Edges]:
    """Yield the pairs that are at most as far as the longest edge of the path between them in a spanning tree."""
    order, steps = growth.order, growth.steps
    if steps.max() <= SHORTEST:
        return
    vectors, core = vectors[order], core[order]
    for rows in _slices(len(order), ROWS):
        found = []
        for first, second, limits in _near_pairs(vectors, steps, rows):
            some = (np.maximum(core[first], core[second]) <= limits) & (limits > SHORTEST)
            first, second, limits = first[some], second[some], limits[some]
            lengths = _reachability(core, first, second, _distances(vectors, first, second))
            some = lengths <= limits
            found.append(Edges(order[first[some]], order[second[some]], lengths[some]))
        yield _joined(found)


def _near_pairs(vectors: FloatArray, steps: FloatArray, rows: slice) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
    """Yield pairs (P,) of some rows with later rows that may be closer than the longest step from one to the other.

    With these longest steps (P,). Pairs that are not yielded are certainly not closer.
    """
    n, d = vectors.shape
    unit = steps.max()
    error = (d + 10) * float(np.finfo(np.float32).eps)  # of a squared distance per squared norm: twice the bound
    origin = vectors[rows].mean(axis=0)  # rows that follow each other are mostly near each other
    x = ((vectors[rows] - origin) / unit).astype(np.float32)
    x_squares = (1 - error) * (x**2).sum(axis=1, keepdims=True)
    later = np.triu(np.ones((len(x), len(x)), dtype=bool), 1)
    within = np.maximum.accumulate(np.where(later, steps[rows], 0.0), axis=1)
    to_last, after = within[:, -1:], np.maximum.accumulate(steps[rows.stop :])
    blocks = [(rows, within)]
    for some in _slices(n - rows.stop, COLUMNS):
        blocks.append((slice(rows.stop + some.start, rows.stop + some.stop), after[some]))
    for columns, longest in blocks:
        y = ((vectors[columns] - origin) / unit).astype(np.float32)
        squares = x @ (-2 * y.T)
        squares += x_squares
        squares += (1 - error) * (y**2).sum(axis=1)
        bounds = np.maximum(_bound(to_last, unit), _bound(longest, unit)) if columns != rows else _bound(longest, unit)
        # Pairs whose square overflows float32, and is not a number, are not ruled out.
        first, second = np.nonzero(~(squares >= bounds))
        limits = within[first, second] if columns == rows else np.maximum(to_last[first, 0], longest[second])
        yield rows.start + first, columns.start + second, limits


def _bound(lengths: FloatArray, unit: float) -> npt.NDArray[np.float32]:
    """Return squares of lengths in a unit, in float32, rounded up."""
    return ((lengths / unit) ** 2 * (1 + 1e-6) + UNDERFLOW).astype(np.float32)


def _prim(graph: csr_array) -> Growth:
    """Grow a minimum spanning tree of a symmetric graph from the first vector, as scikit-learn does.

    Of several vectors that are equally far from the tree, the first is next; of several edges to it, the oldest.
    """
    n = graph.shape[0]
    indptr, indices, lengths = graph.indptr.tolist(), graph.indices.tolist(), graph.data.tolist()
    order, steps, origins = np.empty(n, dtype=np.int64), np.empty(n), [-1] * n
    nearest = [math.inf] * n
    waiting = [(0.0, 0)]
    for place in range(n):
        length, vector = heapq.heappop(waiting)
        while nearest[vector] < length:  # reached before
            length, vector = heapq.heappop(waiting)
        order[place], steps[place], nearest[vector] = vector, length, -1.0
        for edge in range(indptr[vector], indptr[vector + 1]):
            if lengths[edge] < nearest[neighbor := indices[edge]]:
                nearest[neighbor], origins[neighbor] = lengths[edge], vector
                heapq.heappush(waiting, (lengths[edge], neighbor))
    return Growth(order, steps, np.array(origins)[order])


def _distinct(growth: Growth) -> csr_array:
    """Return a tree as a graph whose lengths, from the shortest to the longest, are all different."""
    by_length = np.argsort(growth.steps[1:]) + 1  # as scikit-learn's, which is not stable
    bits = growth.steps[by_length].view(np.int64)  # of positive numbers: in their order
    places = np.arange(len(bits))
    lengths = (np.maximum.accumulate(bits - places) + places).view(np.float64)
    return _graph(len(growth.order), Edges(growth.origins[by_length], growth.order[by_length], lengths))


def _spanning_tree(n: int, *some: Edges) -> csr_array:
    """Return the minimum spanning tree, or forest, of edges between N vectors, as a symmetric graph (N, N)."""
    tree = minimum_spanning_tree(_graph(n, _joined(some)))
    return csr_array(tree + tree.T)


def _graph(n: int, edges: Edges) -> csr_array:
    """Return edges between N vectors, each given once or more often, as a symmetric graph (N, N)."""
    first, second = np.minimum(edges.first, edges.second), np.maximum(edges.first, edges.second)
    pairs, once = np.unique(first * n + second, return_index=True)
    lengths = np.maximum(edges.lengths[once], SHORTEST)
    ends = [each.astype(np.int32) for each in np.divmod(pairs, n)]  # older versions of SciPy's csgraph take no int64
    half = coo_array((lengths, tuple(ends)), shape=(n, n)).tocsr()
    return csr_array(half + half.T)


def _edges_of(tree: csr_array) -> Edges:
    """Return the edges of a symmetric graph, each of them once."""
    pairs = triu(tree).tocoo()
    return Edges(pairs.row.astype(np.int64), pairs.col.astype(np.int64), pairs.data)


def _joined(some: Sequence[Edges]) -> Edges:
    return Edges(*(np.concatenate(each) for each in zip(*some, strict=True)))


def _reachability(core: FloatArray, first: IntArray, second: IntArray, distances: FloatArray) -> FloatArray:
    return np.maximum(distances, np.maximum(core[first], core[second]))


def _distances(vectors: FloatArray, first: IntArray, second: IntArray) -> FloatArray:
    """Return the Euclidean distances (P,) of pairs of vectors, not as products, which cancel."""
    distances = np.empty(len(first))
    for some in _slices(len(first), max(1, BLOCK_NUMBERS // vectors.shape[1])):
        distances[some] = np.linalg.norm(vectors[first[some]] - vectors[second[some]], axis=1)
    return distances


def _slices(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
