"""Clusters as regions of high density: components of a t mixture that paths of high density connect belong together.

A mixture of many components describes the density of the vectors, whatever shape its clusters have. Between the centres
of any two components there is a path along which the density falls as little as possible; its lowest point is the pass
between them. Components are merged over the highest passes first, which gives a tree (t-NEB: Ritzert, Turishcheva et
al. 2025, "Hierarchical clustering with maximum density paths and mixture models"). The tree is cut at the passes that
are deepest below the lower of the two peaks that they separate, rather than at the lowest passes: those are at the rim,
where everything is low. Components of few neurons, of which the rim has most, do not become clusters.

Paths are found by the nudged elastic band in the form of a string (E, Ren and Vanden-Eijnden 2007): points on a path
climb at right angles to it and are spread out evenly along it again. A point climbs by the fixed-point step of the
mixture's density,

    m(x) = sum_k r_k(x) mu_k / s2_k  /  sum_k r_k(x) / s2_k,    r_k(x) = q_k(x) (nu + D) / (nu + delta_k(x)),

which needs no step size, does not depend on the features' units, and stops exactly where the gradient of the log
density is 0, ``grad log p(x) = sum_k r_k(x) (mu_k - x) / s2_k``.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from december_plugin.clustering.student_t_mixture import StudentTMixture
from december_plugin.text.array_repr import ArrayRepr

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

N_POINTS = 17  # of a path, both ends included
MOST_STEPS = 200
PATIENCE = 10  # steps after which a path must have gained
LEAST_GAIN = 1e-3  # nats by which its lowest point must have risen by then
FINER = 4  # points between two points of a path at which its density is evaluated in the end
BLOCK_NUMBERS = 2**22  # float64 numbers of one array: 32 MB


class MixtureDensity:
    """The density of a fitted t mixture, and steps that climb it.

    Vectors are in units of ``unit`` (D,), the mixture's mean scale of every feature, about ``origin``: paths do not
    depend on the units of the features, and differences of squares stay exact.

    Parameters
    ----------
    mixture
        The mixture, fitted.
    """

    def __init__(self, mixture: StudentTMixture) -> None:
        fitted = (mixture.centers, mixture.scales, mixture.mixing_weights)
        centers, scales, weights = (np.asarray(each.detach().cpu().double()) for each in fitted)
        self.dof, (self.n_components, self.n_features) = mixture.dof, centers.shape
        self.unit = np.sqrt(weights @ scales)
        self.origin = weights @ centers
        self.centers = (centers - self.origin) / self.unit
        precisions = self.unit**2 / scales
        # delta = [x^2, x] @ coefficients + squares; numerator and denominator of the step are r @ targets.
        self._coefficients = np.concatenate([precisions, -2 * self.centers * precisions], axis=1).T
        self._squares = (self.centers**2 * precisions).sum(axis=1)
        self._targets = np.concatenate([self.centers * precisions, precisions], axis=1)
        with torch.no_grad():
            self._constants = np.asarray(mixture.log_constants().cpu()).ravel()

    def log_density(self, x: FloatArray) -> FloatArray:
        """Return the log density (nats, per unit of the original features) at points (P, D) of our units."""
        return self._posterior(x)[0]

    def climb(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the log densities (P,) at points (P, D), and the points that the fixed-point step leads to."""
        log_density, responsibilities, delta = self._posterior(x)
        r = responsibilities * ((self.dof + self.n_features) / (self.dof + delta))
        sums = r @ self._targets
        return log_density, sums[:, : self.n_features] / sums[:, self.n_features :]

    def _posterior(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        delta = np.maximum(np.concatenate([x**2, x], axis=1) @ self._coefficients + self._squares, 0.0)
        logits = self._constants - (self.dof + self.n_features) / 2 * np.log1p(delta / self.dof)
        most = logits.max(axis=1, keepdims=True)
        responsibilities = np.exp(logits - most)
        sums = responsibilities.sum(axis=1, keepdims=True)
        return (most + np.log(sums))[:, 0], responsibilities / sums, delta


def passes(density: MixtureDensity) -> FloatArray:
    """Return the log densities at the lowest points of the paths between all components.

    Parameters
    ----------
    density
        The density of a mixture of M components.

    Returns
    -------
    ndarray
        (M, M) float64, symmetric, nats; the diagonal has the log densities at the centres. A path is at least as good
        as the straight line. That of two components over a third one may be better than their own: see
        :func:`merge_tree`.
    """
    found = np.diag(density.log_density(density.centers))
    pairs = np.array(list(itertools.combinations(range(density.n_components), 2)), dtype=np.int64).reshape(-1, 2)
    per_block = max(1, BLOCK_NUMBERS // (FINER * N_POINTS * max(density.n_components, 2 * density.n_features)))
    for start in range(0, len(pairs), per_block):
        rows, columns = pairs[start : start + per_block].T
        lowest = _lowest_points(density, density.centers[rows], density.centers[columns])
        found[rows, columns] = found[columns, rows] = lowest
    return found


def _lowest_points(density: MixtureDensity, starts: FloatArray, ends: FloatArray) -> FloatArray:
    """Return the log densities (B,) at the lowest points of the best paths between ``starts`` and ``ends`` (B, D)."""
    fractions = np.linspace(0.0, 1.0, N_POINTS)[:, None]
    paths = starts[:, None] * (1 - fractions) + ends[:, None] * fractions  # (B, N_POINTS, D)
    best = _lowest(density, paths)
    checked, active = best.copy(), np.arange(len(paths))
    for step in range(1, MOST_STEPS + 1):
        paths = _stepped(density, paths)
        if step % PATIENCE:
            continue
        best[active] = np.maximum(best[active], _lowest(density, paths))
        gains = best[active] - checked[active] >= LEAST_GAIN
        checked[active] = best[active]
        paths, active = paths[gains], active[gains]
        if not len(active):
            break
    return best


def _lowest(density: MixtureDensity, paths: FloatArray) -> FloatArray:
    """Return the lowest log density (B,) along paths (B, P, D), including between their points."""
    between = np.arange(FINER)[:, None] / FINER
    finer = paths[:, :-1, None] * (1 - between) + paths[:, 1:, None] * between
    points = np.concatenate([finer.reshape(len(paths), -1, paths.shape[2]), paths[:, -1:]], axis=1)
    return density.log_density(points.reshape(-1, paths.shape[2])).reshape(len(paths), -1).min(axis=1)


def _stepped(density: MixtureDensity, paths: FloatArray) -> FloatArray:
    """Return paths (B, P, D) whose inner points climbed at right angles to them, and are evenly spread again."""
    inner = paths[:, 1:-1]
    _, higher = density.climb(inner.reshape(-1, inner.shape[2]))
    move = higher.reshape(inner.shape) - inner
    tangents = paths[:, 2:] - paths[:, :-2]
    lengths = np.linalg.norm(tangents, axis=2, keepdims=True)
    tangents = np.divide(tangents, lengths, out=np.zeros_like(tangents), where=lengths > 0)
    move -= (move * tangents).sum(axis=2, keepdims=True) * tangents
    return _evenly_spread(np.concatenate([paths[:, :1], inner + move, paths[:, -1:]], axis=1))


def _evenly_spread(paths: FloatArray) -> FloatArray:
    """Return the points (B, P, D) on the same broken lines at equal distances along them."""
    n_points = paths.shape[1]
    steps = np.linalg.norm(np.diff(paths, axis=1), axis=2)
    along = np.concatenate([np.zeros((len(paths), 1)), np.cumsum(steps, axis=1)], axis=1)
    wanted = along[:, -1:] * np.linspace(0.0, 1.0, n_points)
    # The segment that contains each wanted point, and where in it the point is.
    segment = (along[:, None, :] <= wanted[:, :, None]).sum(axis=2) - 1
    segment = np.clip(segment, 0, n_points - 2)
    rows = np.arange(len(paths))[:, None]
    length = steps[rows, segment]
    part = np.divide(wanted - along[rows, segment], length, out=np.zeros_like(wanted), where=length > 0)[:, :, None]
    return paths[rows, segment] * (1 - part) + paths[rows, segment + 1] * part


@dataclass(frozen=True, eq=False, repr=False)
class MergeTree(ArrayRepr):
    """The order in which components are merged, over the highest passes first.

    Attributes
    ----------
    merged
        (M - 1, 2) int64: two components whose clusters are merged, one of either, the highest pass first.
    heights
        (M - 1,) log density at the pass (nat), descending.
    depths
        (M - 1,) by how much the pass is below the lower of the two clusters' highest centres (nats), at least 0.
    """

    merged: IntArray
    heights: FloatArray
    depths: FloatArray

    def into(self, n_clusters: int, shares: FloatArray | None = None, *, min_share: float = 0.0) -> IntArray:
        """Return the clusters (M,) of the components that the deepest passes keep apart.

        Parameters
        ----------
        n_clusters
            Number of clusters, 1 to M.
        shares
            Shares (M,) of the neurons that the components have.
        min_share
            A pass that would leave a cluster with a smaller share of the neurons is not used as long as there are
            others: a few neurons far from everything else have a component that deep passes surround.
        """
        return self._apart(n_clusters, shares, (min_share, 0.0))

    def apart(self, min_depth: float, shares: FloatArray | None = None, *, min_share: float = 0.0) -> IntArray:
        """Return the clusters (M,) that passes of at least this depth keep apart; see :meth:`into`."""
        return self._apart(len(self.merged) + 1, shares, (min_share,), min_depth)

    def _apart(
        self, most_clusters: int, shares: FloatArray | None, min_shares: tuple[float, ...], min_depth: float = 0.0
    ) -> IntArray:
        """Split the components at one pass after another; use the next smaller share where the first is not enough.

        What is split stays split, so that clusters for fewer K are unions of those for more.
        """
        kept = np.zeros(len(self.merged), dtype=bool)
        clusters = self._without(kept)
        for min_share, at in itertools.product(min_shares, np.argsort(-self.depths, kind="stable")):
            if clusters.max() + 1 == most_clusters:
                break
            if kept[at] or self.depths[at] < min_depth:
                continue
            kept[at] = True
            parted = self._without(kept)
            if shares is not None and np.bincount(parted, weights=shares).min() < min_share:
                kept[at] = False
            else:
                clusters = parted
        return clusters

    def _without(self, kept: npt.NDArray[np.bool_]) -> IntArray:
        """Return the clusters of the components where the passes that are ``kept`` merge nothing."""
        clusters = np.arange(len(self.merged) + 1)
        for first, second in self.merged[~kept]:
            clusters[clusters == clusters[second]] = clusters[first]
        return np.asarray(np.unique(clusters, return_inverse=True)[1], dtype=np.int64)


def merge_tree(passes: FloatArray) -> MergeTree:
    """Return the tree of components that passes (M, M) connect: a spanning tree of the highest passes.

    It finds for every two components the path over all others along which the lowest pass is highest.

    Parameters
    ----------
    passes
        As :func:`passes` returns them.
    """
    n = len(passes)
    rows, columns = np.triu_indices(n, 1)
    order = np.argsort(-passes[rows, columns], kind="stable")
    cluster, peaks = list(range(n)), np.diag(passes).copy()

    def root(component: int) -> int:
        while cluster[component] != component:
            component = cluster[component]
        return component

    merged, heights, depths = [], [], []
    for at in order:
        first, second = root(int(rows[at])), root(int(columns[at]))
        if first == second:
            continue
        if peaks[first] < peaks[second]:
            first, second = second, first
        cluster[second] = first
        merged.append((int(rows[at]), int(columns[at])))
        heights.append(passes[rows[at], columns[at]])
        depths.append(max(peaks[second] - heights[-1], 0.0))
    return MergeTree(np.array(merged, dtype=np.int64).reshape(-1, 2), np.array(heights), np.array(depths))
