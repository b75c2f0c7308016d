"""k-means on the device of the vectors: scikit-learn's algorithm with scikit-learn's random numbers.

A start is k-means++ by the very steps of ``sklearn.cluster.kmeans_plusplus``, of which only the distances are computed
on the device: the draws compare random numbers with sums over neurons in the vectors' precision, and would be others if
the sums were rounded otherwise. From there on, Lloyd's algorithm in float64 has the tolerance, the limit and the
relocation of empty clusters of ``sklearn.cluster.KMeans``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from december_plugin.clustering.distances import BLOCK_NUMBERS_ELSEWHERE

# scikit-learn's defaults
MAX_ITER = 300
TOLERANCE = 1e-4  # of the summed squared shifts of centres, in mean variances of a feature


class KMeansRun(NamedTuple):
    """One k-means clustering.

    Attributes
    ----------
    labels
        Cluster of every neuron (N,), int64, on the device.
    inertia
        Sum of squared distances to the clusters' centres.
    n_iter
        Number of iterations.
    """

    labels: Tensor
    inertia: float
    n_iter: int


class DeviceKMeans:
    """k-means of vectors on their device.

    Parameters
    ----------
    w
        Vectors (N, D), float32 or float64, finite. Their precision is that of the draws of k-means++.
    n_clusters
        Number of clusters ``K``, at most ``N``.
    """

    def __init__(self, w: Tensor, n_clusters: int) -> None:
        vectors = w.cpu().numpy()
        self.n_clusters = n_clusters
        self.tolerance = TOLERANCE * float(np.mean(np.var(vectors, axis=0)))
        centered = vectors - vectors.mean(axis=0)
        self._dtype = w.dtype
        self._x = torch.from_numpy(centered).to(w.device).double()
        self._squares = self._x.square().sum(dim=1)

    def best(self, seeds: Sequence[int], *, n_init: int) -> np.ndarray:
        """Labels (N,), int64, of the run with the smallest inertia; ``n_init`` runs for each seed."""
        best: KMeansRun | None = None
        for seed in seeds:
            random = np.random.RandomState(seed)
            for _ in range(n_init):
                run = self.run(self.start(random))
                best = run if best is None or run.inertia < best.inertia else best
        assert best is not None, "at least one seed and one run"
        return best.labels.cpu().numpy()

    def start(self, random: np.random.RandomState) -> np.ndarray:
        """Draw different neurons (K,), int64, by k-means++: the same as scikit-learn from the same random state."""
        n = len(self._x)
        ones = torch.ones(n, dtype=self._dtype).numpy()
        n_trials = 2 + int(np.log(self.n_clusters))
        chosen = [int(random.choice(n, p=ones / ones.sum()))]
        closest = self._distances_to(np.asarray(chosen))
        total = closest @ ones
        while len(chosen) < self.n_clusters:
            candidates = np.searchsorted(np.cumsum(closest), random.uniform(size=n_trials) * total).clip(max=n - 1)
            distances = self._distances_to(candidates)
            np.minimum(closest, distances, out=distances)
            totals = distances @ ones[:, None]
            best = int(totals.argmin())
            closest, total = distances[best], totals[best]
            chosen.append(int(candidates[best]))
        return np.asarray(chosen)

    def _distances_to(self, rows: np.ndarray) -> np.ndarray:
        """Squared distances (M, N) of all vectors to those of ``rows`` (M,), rounded to the vectors' precision."""
        at = torch.from_numpy(rows).to(self._x.device)
        distances = (self._x[at] @ self._x.t()).mul_(-2).add_(self._squares[at][:, None]).add_(self._squares)
        return distances.clamp_min_(0).to(self._dtype).cpu().numpy()

    def run(self, start: np.ndarray) -> KMeansRun:
        """Run Lloyd's algorithm from the neurons ``start`` (K,) as centres."""
        centers = self._x[torch.from_numpy(start).to(self._x.device)]
        labels = torch.full((len(self._x),), -1, device=self._x.device)
        n_iter, settled = 0, False
        while n_iter < MAX_ITER and not settled:
            n_iter += 1
            before, labels = labels, self._nearest(centers)
            moved = self._means(labels, centers)
            shift, centers = (moved - centers).square().sum(), moved
            if torch.equal(labels, before):
                return KMeansRun(labels, float(self._distances(labels, centers).sum()), n_iter)
            settled = float(shift) <= self.tolerance
        labels = self._nearest(centers)
        return KMeansRun(labels, float(self._distances(labels, centers).sum()), n_iter)

    def _blocks(self) -> Iterator[slice]:
        size = max(1, BLOCK_NUMBERS_ELSEWHERE // (self.n_clusters + self._x.shape[1]))
        for start in range(0, len(self._x), size):
            yield slice(start, start + size)

    def _nearest(self, centers: Tensor) -> Tensor:
        """Return the nearest centre (N,), the first of equally near ones."""
        norms = centers.square().sum(dim=1)
        return torch.cat(
            [torch.addmm(norms, self._x[rows], centers.t(), alpha=-2).argmin(dim=1) for rows in self._blocks()]
        )

    def _means(self, labels: Tensor, centers: Tensor) -> Tensor:
        """Return the means (K, D) of the clusters, an empty one at the vector farthest from its own old centre."""
        clusters = torch.arange(self.n_clusters, device=labels.device)[:, None]
        sums, counts = torch.zeros_like(centers), centers.new_zeros(self.n_clusters)
        for rows in self._blocks():
            # As a product: adding up by index has no fixed order on a GPU.
            members = (labels[rows] == clusters).to(sums.dtype)
            sums += members @ self._x[rows]
            counts += members.sum(dim=1)
        empty = torch.nonzero(counts == 0).flatten()
        if len(empty):
            self._relocate(empty, sums, counts, labels, centers)
        means = sums / counts.clamp_min(1)[:, None]
        # Those that stay empty go where the largest cluster is, as in scikit-learn.
        return torch.where(counts[:, None] > 0, means, means[counts.argmax()])

    def _relocate(self, empty: Tensor, sums: Tensor, counts: Tensor, labels: Tensor, centers: Tensor) -> None:
        distances = self._distances(labels, centers)
        if not distances.any():
            return  # more clusters than different vectors
        for cluster, row in zip(empty.tolist(), distances.topk(len(empty)).indices.tolist(), strict=True):
            own, vector = labels[row], self._x[row]
            sums[own] -= vector
            counts[own] -= 1
            sums[cluster], counts[cluster] = vector, 1

    def _distances(self, labels: Tensor, centers: Tensor) -> Tensor:
        """Return the squared distances (N,) of the vectors to the centres of their clusters."""
        return torch.cat([(self._x[rows] - centers[labels[rows]]).square().sum(dim=1) for rows in self._blocks()])
