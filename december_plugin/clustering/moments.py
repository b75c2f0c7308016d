"""The M-step's sums over neurons, and the centres and scales that follow from them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from december_plugin.clustering.distances import ShiftedVectors

EMPTY_MASS = 1e-6  # neurons; a cluster that has less keeps its centre and scales
# Squared centre per scale up to which sums of products give the scale to about 1e-4 (float32) and 1e-6 (float64).
MAX_CANCELLATION = {torch.float32: 1e3, torch.float64: 1e9}
Weighted = tuple[Tensor, Tensor, Tensor]  # q and u (K, B), features (B, 2 D)


class Moments:
    """Weighted sums over neurons from which the M-step follows, float64, about the origin of ``vectors``."""

    def __init__(self, vectors: ShiftedVectors) -> None:
        k = vectors.n_clusters
        self.shift = vectors.shift
        self.features = self.shift.new_zeros(k, 2 * len(self.shift))  # (K, 2 D): sums of q u [x^2, x]
        self.weights = self.shift.new_zeros(k, 1)  # sums of q u
        self.masses = self.shift.new_zeros(k, 1)  # sums of q

    def add(self, q: Tensor, u: Tensor, features: Tensor) -> None:
        """Add a block: ``q`` and ``u`` (K, B), ``features`` (B, 2 D), in whose precision the sums of it are made."""
        qu = (q * u).to(features.dtype)
        self.features += qu @ features
        self.weights += qu.sum(dim=1, keepdim=True)
        self.masses += q.sum(dim=1, keepdim=True)

    def solve(self) -> tuple[Tensor, Tensor]:
        """Return the centres relative to ``shift``, and the scales (K, D); meaningless for an empty cluster."""
        second, first = self.features.chunk(2, dim=1)
        centers = first / self.weights.clamp_min(torch.finfo(torch.float64).tiny)
        return centers, (second - centers * first) / self.masses.clamp_min(EMPTY_MASS)

    def cancel(self, solved: tuple[Tensor, Tensor], smallest_scale: float, dtype: torch.dtype) -> Tensor:
        """Tell which clusters (K,) are so far from the mean and so narrow that ``solve`` loses a scale of theirs."""
        centers, scales = solved
        lost = centers.square() > MAX_CANCELLATION[dtype] * scales.clamp_min(smallest_scale)
        return (lost & (self.masses >= EMPTY_MASS)).any(dim=1)

    def scales_about(self, centers: Tensor, k: int, blocks: Iterator[Weighted]) -> Tensor:
        """Return the scales (D,) of cluster ``k`` as sums of squares about its centre, in a second pass."""
        total = torch.zeros_like(centers[k])
        for q, u, features in blocks:
            total += (q[k] * u[k]).double() @ (features[:, len(total) :] - centers[k]).square()
        return total / self.masses[k]
