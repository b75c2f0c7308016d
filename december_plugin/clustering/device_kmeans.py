"""k-means on the device of the vectors: scikit-learn's algorithm with scikit-learn's random numbers.

A start is k-means++ by exactly the steps of ``sklearn.cluster.kmeans_plusplus``; only its distances are computed on the
device. The draws compare random numbers with sums over neurons in the vectors' precision, and would differ if the sums
were rounded differently. From then on, Lloyd's algorithm runs in float64 with the tolerance, the limit and the
relocation of empty clusters of ``sklearn.cluster.KMeans``.

Small restarts run together: one product gives the distances to the centres of all of them. Restarts that have converged
drop out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from december_plugin.clustering.distances import BLOCK_NUMBERS_ELSEWHERE, middle_vector

# scikit-learn's defaults
MAX_ITER = 300
TOLERANCE = 1e-4  # of the summed squared shifts of centres, in mean variances of a feature
TOGETHER_NUMBERS = 2**17  # distances to centres of the restarts that run together, unless a single one has more
# Share of an inertia by which rounding may distinguish restarts that found the same clusters in another order.
ROUNDING = 1e-12


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
        self._n_trials = 2 + int(np.log(n_clusters))
        self.tolerance = TOLERANCE * float(np.mean(np.var(vectors, axis=0)))
        centered = vectors - vectors.mean(axis=0)
        self._dtype = w.dtype
        self._centered = torch.from_numpy(centered).to(w.device).double()
        self._squares = self._centered.square().sum(dim=1)
        if w.device.type == "cpu":
            self._squares = torch.from_numpy(np.einsum("nd,nd->n", *[self._centered.numpy()] * 2))
        # Next to a vector that is far away, and pulls the mean with it, products would lose the others' distances.
        self._x = self._centered - middle_vector(self._centered)

    def best(self, seeds: Sequence[int], *, n_init: int) -> np.ndarray:
        """Labels (N,), int64, of the run with the smallest inertia; ``n_init`` runs for each seed."""
        together = max(1, TOGETHER_NUMBERS // (len(self._x) * self.n_clusters))
        best: KMeansRun | None = None
        drawn = self.draw(seeds, n_init)
        for first in range(0, len(drawn), together):
            for run in self.runs(self.starts(drawn[first : first + together])):
                best = run if best is None or run.inertia < (1 - ROUNDING) * best.inertia else best
        assert best is not None, "at least one seed and one run"
        return best.labels.cpu().numpy()

    def draw(self, seeds: Sequence[int], n_init: int = 1) -> np.ndarray:
        """Draw the random numbers (R, M) of ``n_init`` starts for each seed, as scikit-learn does one after another."""
        random = np.random.RandomState(0)  # one for all: making one takes longer than a start
        drawn = []
        for seed in seeds:
            random.seed(seed)
            drawn.append(random.random_sample((n_init, 1 + (self.n_clusters - 1) * self._n_trials)))
        return np.concatenate(drawn)

    def starts(self, uniform: np.ndarray) -> np.ndarray:
        """Return different neurons (R, K), int64, by k-means++ with the random numbers of :meth:`draw`."""
        n = len(self._x)
        ones = torch.ones(n, dtype=self._dtype).numpy()
        shares = np.cumsum(ones / ones.sum(), dtype=np.float64)
        chosen = [np.searchsorted(shares / shares[-1], uniform[:, 0], side="right")]
        closest = self._distances_to(chosen[0][:, None])[:, 0]
        totals = closest[:, None] @ ones
        each = np.arange(len(uniform))
        for drawn in np.split(uniform[:, 1:], self.n_clusters - 1, axis=1) if self.n_clusters > 1 else ():
            reached = zip(np.cumsum(closest, axis=1), drawn * totals, strict=True)
            candidates = np.stack([np.searchsorted(sums, values) for sums, values in reached]).clip(max=n - 1)
            distances = self._distances_to(candidates)
            np.minimum(closest[:, None], distances, out=distances)
            potentials = distances @ ones[:, None]
            best = potentials[..., 0].argmin(axis=1)
            closest, totals = distances[each, best], potentials[each, best]
            chosen.append(candidates[each, best])
        return np.stack(chosen, axis=1)

    def _distances_to(self, rows: np.ndarray) -> np.ndarray:
        """Squared distances (R, T, N) of all vectors to those of ``rows`` (R, T), rounded to the vectors' precision."""
        at = torch.from_numpy(rows).to(self._x.device)
        if self._x.device.type == "cpu":
            # By NumPy, run by run, which is scikit-learn's very rounding: it decides between two vectors that are next
            # to each other and far from all others, since the distances that either leaves have the same sum.
            vectors = self._centered.numpy()
            products = torch.from_numpy(np.matmul(vectors[rows], vectors.T))
        else:
            products = self._centered[at] @ self._centered.t()
        distances = products.mul_(-2).add_(self._squares[at][..., None]).add_(self._squares)
        return distances.clamp_min_(0).to(self._dtype).cpu().numpy()

    def runs(self, starts: np.ndarray) -> list[KMeansRun]:
        """Run Lloyd's algorithm from the neurons ``starts`` (R, K) as centres."""
        centers = self._x[torch.from_numpy(starts).to(self._x.device)]
        found = torch.empty_like(centers)
        n_iter = np.zeros(len(starts), dtype=np.int64)
        going = np.arange(len(starts))
        while len(going):
            n_iter[going] += 1
            # Where no label changes no centre does, to the last bit.
            before, centers = centers, self._means(centers)
            settled = (centers - before).square().sum(dim=(1, 2)) <= self.tolerance
            ended = settled.cpu().numpy() | (n_iter[going[0]] == MAX_ITER)
            if ended.any():
                kept = torch.from_numpy(~ended).to(centers.device)
                found[torch.from_numpy(going[ended]).to(centers.device)] = centers[~kept]
                going, centers = going[~ended], centers[kept]
        labels = self._nearest(found)
        inertias = self._distances(labels, found).sum(dim=1).tolist()
        return [KMeansRun(*run) for run in zip(labels, inertias, n_iter.tolist(), strict=True)]

    def _blocks(self, n_runs: int) -> Iterator[slice]:
        size = max(1, BLOCK_NUMBERS_ELSEWHERE // (n_runs * (self.n_clusters + self._x.shape[1])))
        for start in range(0, len(self._x), size):
            yield slice(start, start + size)

    def _nearest(self, centers: Tensor) -> Tensor:
        """Return the nearest of centres (R, K, D) in every run (R, N), the first of equally near ones."""
        # 30 times as fast as argmin
        return torch.cat([each.min(dim=1).indices for _, each in self._relative_distances(centers)], dim=1)

    def _relative_distances(self, centers: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield squared distances (R, K, B) of blocks of vectors to centres (R, K, D), without the vectors' squares."""
        norms, flat = centers.square().sum(dim=2).reshape(-1, 1), centers.flatten(0, 1)
        for rows in self._blocks(len(centers)):
            yield rows, torch.addmm(norms, flat, self._x[rows].t(), alpha=-2).unflatten(0, centers.shape[:2])

    def _means(self, centers: Tensor) -> Tensor:
        """Return the means (R, K, D) of the vectors that are nearest to centres (R, K, D).

        A cluster without vectors gets the one farthest from its own old centre.
        """
        # The smallest distance is found in a fraction of the time that its place is.
        sums, counts = self._sums(
            (rows, each.eq_(each.amin(dim=1, keepdim=True))) for rows, each in self._relative_distances(centers)
        )
        sizes = counts.cpu().numpy()
        if (sizes.sum(axis=1) > len(self._x)).any():  # equally near centres: the first one counts
            labels = self._nearest(centers)[:, None]
            clusters = torch.arange(self.n_clusters, device=centers.device)[:, None]
            sums, counts = self._sums(
                (rows, (labels[..., rows] == clusters).to(sums.dtype)) for rows in self._blocks(len(centers))
            )
            sizes = counts.cpu().numpy()
        empty = sizes == 0
        if not empty.any():
            return sums.div_(counts[..., None])
        labels = self._nearest(centers)
        for run in np.flatnonzero(empty.any(axis=1)):
            self._relocate(np.flatnonzero(empty[run]), sums[run], counts[run], labels[run], centers[run])
        means = sums / counts.clamp_min(1)[..., None]
        # Those that stay empty go where the largest cluster is, as in scikit-learn.
        largest = means[torch.arange(len(means), device=means.device), counts.argmax(dim=1)]
        return torch.where(counts[..., None] > 0, means, largest[:, None])

    def _sums(self, blocks: Iterator[tuple[slice, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return the sums (R, K, D) and numbers (R, K) of the vectors that are 1, and not 0, in blocks (R, K, B)."""
        sums, counts = self._x.new_zeros(()), self._x.new_zeros(())
        for rows, members in blocks:
            # As a product: adding up by index has no fixed order on a GPU. This way round it takes half the time.
            sums = sums + self._x[rows].t() @ members.flatten(0, 1).t()
            counts = counts + members.sum(dim=2)
        return sums.t().reshape(*counts.shape, -1).contiguous(), counts

    def _relocate(self, empty: np.ndarray, sums: Tensor, counts: Tensor, labels: Tensor, centers: Tensor) -> None:
        distances = self._distances(labels[None], centers[None])[0].cpu().numpy()
        if not distances.any():
            return  # more clusters than different vectors
        farthest = np.argpartition(distances, -len(empty))[: -len(empty) - 1 : -1]
        for cluster, row in zip(empty.tolist(), farthest.tolist(), strict=True):
            own, vector = labels[row], self._x[row]
            sums[own] -= vector
            counts[own] -= 1
            sums[cluster], counts[cluster] = vector, 1

    def _distances(self, labels: Tensor, centers: Tensor) -> Tensor:
        """Return the squared distances (R, N) of the vectors to the centres of their clusters in every run."""
        runs = torch.arange(len(labels), device=labels.device)[:, None]
        blocks = [
            (self._x[rows] - centers[runs, labels[:, rows]]).square().sum(dim=2) for rows in self._blocks(len(labels))
        ]
        return torch.cat(blocks, dim=1)
