"""Mean distances between all pairs of vectors, block by block: no matrix of all pairs is ever held.

The mean squared distance has a closed form, ``sum_{i<j} ||x_i - x_j||^2 = N sum_i ||x_i||^2 - ||sum_i x_i||^2``: it is
linear in the number of vectors. The mean distance has none: every pair is computed, a few million at a time, and the
gradient is added up in the same pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK_NUMBERS = 1 << 22  # of pairs at a time: 32 MiB in float64
ROUNDING = 1e-13  # squared distances below this part of the mean squared length are rounding: the two are the same


class _MeanDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        gradient = torch.zeros_like(vectors) if ctx.needs_input_grad[0] else None
        # About their mean, so that differences of squares keep their digits.
        centred = vectors - vectors.mean(dim=0)
        total = vectors.new_zeros(())
        for rows, columns, distances in _blocks(centred):
            own = len(distances)
            total += distances[:, :own].sum() / 2 + distances[:, own:].sum()
            if gradient is None:
                continue
            inverse = torch.where(distances > 0, distances.reciprocal(), 0.0)
            gradient[rows] += centred[rows] * inverse.sum(dim=1, keepdim=True) - inverse @ centred[columns]
            inverse = inverse[:, own:]
            later = slice(rows.stop, columns.stop)
            gradient[later] += centred[later] * inverse.sum(dim=0)[:, None] - inverse.mT @ centred[rows]
        pairs = len(vectors) * (len(vectors) - 1) / 2
        if gradient is not None:
            ctx.save_for_backward(gradient / pairs)
        return total / pairs

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Tensor:
        (gradient,) = ctx.saved_tensors
        return outer[0] * gradient


def _blocks(vectors: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield some rows, all columns from the first of them on, and the distances between these vectors."""
    n, start = len(vectors), 0
    squares = vectors.square().sum(dim=1)
    negligible = ROUNDING * squares.mean()
    while start < n:
        stop = min(n, start + max(1, BLOCK_NUMBERS // (n - start)))
        rows, columns = slice(start, stop), slice(start, n)
        squared = torch.addmm(squares[columns], vectors[rows], vectors[columns].mT, alpha=-2) + squares[rows, None]
        yield rows, columns, torch.where(squared > negligible, squared, 0.0).sqrt_()
        start = stop


def mean_distance(vectors: Tensor) -> Tensor:
    """Return the mean over pairs of the distance between vectors (N, D), N at least 2; differentiable.

    If two vectors are the same, so that their distance has no gradient, the gradient counts as 0.
    """
    return _MeanDistance.apply(vectors)


def mean_squared_distance(squared_lengths: Tensor, total: Tensor) -> Tensor:
    """Return the mean over pairs of the squared distance between vectors.

    Parameters
    ----------
    squared_lengths
        Squared lengths of the vectors, (N,), N at least 2.
    total
        Their sum, of any shape.
    """
    n = len(squared_lengths)
    return 2 / (n - 1) * (squared_lengths.sum() - total.square().sum() / n)
