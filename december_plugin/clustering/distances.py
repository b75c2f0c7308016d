"""Squared distances of many readout vectors to few centres with diagonal scales, without an (N, K, D) tensor.

With the vectors ``x`` and centres ``m`` measured from the features' mean, one distance is a matrix product::

    delta_ik = sum_d (x_id - m_kd)^2 / s2_kd = [x^2, x]_i . [1 / s2, -2 m / s2]_k + sum_d m_kd^2 / s2_kd

The three terms are large and nearly cancel, in float32 by up to 0.1 nat of log density even after centring. So the
product runs in float64, over blocks of neurons small enough for the processor's cache, whatever the vectors' own
precision. Quantities per neuron and cluster are laid out clusters first, ``(K, B)`` for a block of ``B`` neurons.

On a GPU a host that reads a number waits for everything queued before it. *Asynchronous* distances, of float32 vectors,
never read one: there are few large blocks, nothing is checked, and no centre is treated separately for being far away.
They are measured from a middle of the vectors that a few far ones do not move. Then only far centres have large terms,
and for their own neurons float64 products lose less than the vectors' float32 has lost already: at a distance of ``r``
scales, rounding a vector costs about ``1e-7 r`` and the products ``1e-16 r^2``, which is less up to ``r = 1e9``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from december_plugin.errors import EmbeddingError
from december_plugin.validation.tensors import tensor_of

# Numbers of float64 that one block's temporaries may take: a few MB stay in a processor's cache, while a GPU wants
# few large kernels (half a GB: 100,000 neurons of 128 features and 100 clusters are one block).
BLOCK_NUMBERS = {"cpu": 2**20}
BLOCK_NUMBERS_ELSEWHERE = 2**26
MIDDLE_ROWS = 255  # vectors whose median is the origin of asynchronous distances
# Squared centre per scale, summed over features, up to which the difference of products is exact to about 1e-7. One
# readout vector that is far from all others takes a centre, and the mean of the vectors, beyond it.
LARGEST_TERM = 1e8
LARGEST_VALUE = 1e145  # sums of squares of larger values overflow


def as_vectors(w: Tensor | np.ndarray, *, n_features: int | None = None) -> Tensor:
    """Check readout vectors and return them as a floating tensor, on their device and their autograd graph.

    Parameters
    ----------
    w
        Readout vectors (N, D), N at least 1, any floating or integer dtype. A NumPy array is taken too.
    n_features
        The number of features ``D`` they must have, if it is known.

    Returns
    -------
    Tensor
        ``w`` itself, if it is a floating tensor; otherwise converted to float64.

    Raises
    ------
    EmbeddingError
        If they are not two-dimensional, empty, or of another ``D``.
    """
    w = tensor_of(w)
    if w.ndim != 2:
        raise EmbeddingError(
            f"Readout vectors must form a matrix (neurons, features), but have the shape {tuple(w.shape)}. "
            "Reshape them to one row per neuron."
        )
    if not w.is_floating_point():
        w = w.double()
    n, d = w.shape
    if n == 0 or d == 0:
        raise EmbeddingError(f"There are no readout vectors to cluster: the matrix has {n} rows and {d} columns.")
    if n_features is not None and d != n_features:
        raise EmbeddingError(
            f"The readout vectors have {d} features, but n_features is {n_features}. "
            f"Pass vectors with {n_features} columns, or build it with n_features={d}."
        )
    return w


def mean_vector(w: Tensor) -> Tensor:
    """Return the features' mean (D,), float64, of vectors (N, D).

    Raises
    ------
    EmbeddingError
        If the vectors hold NaN or infinite values.
    """
    mean = w.mean(dim=0).double()
    if torch.isfinite(mean).all():
        return mean
    rows = torch.nonzero(~torch.isfinite(w).all(dim=1)).flatten()
    if len(rows) == 0:  # the float32 sum overflowed
        return w.double().mean(dim=0)
    raise not_finite(len(rows), len(w), int(rows[0]))


def not_finite(n_bad: int, n: int, first: int) -> EmbeddingError:
    """Return the error that says how many of ``n`` vectors are not finite, and which is the first."""
    return EmbeddingError(
        f"{n_bad} of {n} readout vectors hold NaN or infinite values, the first is row {first}. "
        "Clustering needs finite vectors: check whether the training diverged (lower its learning rate), "
        "or leave these neurons out."
    )


def middle_vector(w: Tensor) -> Tensor:
    """Return the features' median (D,), float64, of at most 255 of the vectors (N, D), evenly spaced; no check."""
    sample = w[:: -(-len(w) // MIDDLE_ROWS)]
    return sample.sort(dim=0).values[(len(sample) - 1) // 2].double()


class FiniteVectors:
    """Which vectors of asynchronous steps were not finite, kept on their device until :meth:`check` reads it."""

    def __init__(self, w: Tensor) -> None:
        self.n = len(w)
        self._found = torch.zeros(2, dtype=torch.int64, device=w.device)  # in the first such step: how many, the first

    def is_of(self, w: Tensor) -> bool:
        """Tell whether vectors are as many, and on the same device."""
        return len(w) == self.n and w.device == self._found.device

    def note(self, log_likelihoods: Tensor) -> None:
        """Note which vectors' log likelihoods (N,) are not finite, unless there were such before."""
        bad = ~torch.isfinite(log_likelihoods)
        found = torch.stack([bad.sum(), bad.to(torch.uint8).argmax()])
        self._found.copy_(torch.where(self._found[0] > 0, self._found, found))

    def check(self) -> None:
        """Raise an EmbeddingError if there were any, and forget them."""
        n_bad, first = self._found.tolist()
        self._found.zero_()
        if n_bad:
            raise not_finite(n_bad, self.n, first)


def check_magnitude(w: Tensor) -> float:
    """Return the largest absolute value of vectors (N, D).

    Raises
    ------
    EmbeddingError
        If the vectors hold NaN or infinite values, or such large ones that their squares are infinite.
    """
    mean_vector(w)
    largest = float(w.abs().max())
    if largest > LARGEST_VALUE:
        raise EmbeddingError(
            f"The largest readout weight is {largest:.2g}, whose square is not a finite number. Check whether the "
            "training diverged (lower its learning rate), or leave out the neurons with such weights."
        )
    return largest


def working_dtype(w: Tensor) -> torch.dtype:
    """Return the precision of results per neuron: float64 for float64 vectors, else float32."""
    return torch.float64 if w.dtype == torch.float64 else torch.float32


class ShiftedVectors:
    """``N`` vectors measured from their middle, block by block.

    Parameters
    ----------
    w
        Vectors (N, D); any graph they have is ignored.
    n_clusters
        Number of clusters K: a block leaves room for quantities per neuron and cluster.
    asynchronous
        Whether the host never waits for the device of the vectors, which are float32 or less precise (see above).
    keep_features
        Whether to compute the features of vectors that are a single block only once.

    Attributes
    ----------
    shift
        The features' mean (D,), float64, or a median: the origin from which vectors and centres are measured.

    Raises
    ------
    EmbeddingError
        If the vectors hold NaN or infinite values. Asynchronous ones are not checked.
    """

    def __init__(self, w: Tensor, n_clusters: int, *, asynchronous: bool = False, keep_features: bool = False) -> None:
        self.w, self.n_clusters = w.detach(), n_clusters
        self.asynchronous = asynchronous
        self.shift = middle_vector(self.w) if asynchronous else mean_vector(self.w)
        self._keep_features = keep_features
        self._kept: Tensor | None = None

    def blocks(self, dtype: torch.dtype = torch.float64) -> Iterator[tuple[slice, Tensor]]:
        """Yield the rows of a block and its features (B, 2 D), ``[x^2, x]`` with ``x = w - shift``.

        The features are overwritten by the next block, and are not the caller's to change.
        """
        if self._kept is not None and self._kept.dtype == dtype:
            yield slice(0, len(self.w)), self._kept
            return
        d, size = self.w.shape[1], self._block_size()
        buffer = self.w.new_empty((size, 2 * d), dtype=dtype)
        shift = self.shift.to(dtype)
        for rows in self.rows():
            features = buffer[: rows.stop - rows.start]
            x = features[:, d:]
            if self.w.dtype == dtype:
                torch.sub(self.w[rows], shift, out=x)
            else:
                x.copy_(self.w[rows]).sub_(shift)
            torch.mul(x, x, out=features[:, :d])
            if self._keep_features and size == len(self.w):
                self._kept = features
            yield rows, features

    def rows(self) -> Iterator[slice]:
        """Yield the rows of the blocks."""
        n, size = len(self.w), self._block_size()
        for start in range(0, n, size):
            yield slice(start, min(start + size, n))

    def _block_size(self) -> int:
        n, d = self.w.shape
        numbers = BLOCK_NUMBERS.get(self.w.device.type, BLOCK_NUMBERS_ELSEWHERE)
        if self.asynchronous:
            numbers = BLOCK_NUMBERS_ELSEWHERE
        return min(n, max(4, numbers // (2 * d + 4 * self.n_clusters) // 64) * 64)


class DiagonalDistances(ShiftedVectors):
    """Distances of ``N`` vectors to ``K`` centres, block by block, and their gradients.

    Parameters
    ----------
    w, asynchronous, keep_features
        As for :class:`ShiftedVectors`.
    centers, scales
        Centres (K, D) and squared scales (K, D), the scales positive.

    Raises
    ------
    EmbeddingError
        If the vectors hold NaN or infinite values. Asynchronous distances of such a vector are not finite, either.
    """

    def __init__(
        self, w: Tensor, centers: Tensor, scales: Tensor, *, asynchronous: bool = False, keep_features: bool = False
    ) -> None:
        super().__init__(w, len(centers), asynchronous=asynchronous, keep_features=keep_features)
        self.move_to(centers, scales)

    def move_to(self, centers: Tensor, scales: Tensor) -> None:
        """From now on, measure to other centres (K, D), with other squared scales (K, D)."""
        precisions = scales.detach().double().reciprocal()
        centered = centers.detach().double() - self.shift
        scaled = centered * precisions
        self.coefficients = torch.cat([precisions, -2 * scaled], dim=1)
        self.offsets = (centered * scaled).sum(dim=1, keepdim=True)
        far = [] if self.asynchronous else torch.nonzero(self.offsets[:, 0] > LARGEST_TERM).flatten().tolist()
        self._far = [(k, centered[k], precisions[k]) for k in far]
        self._slopes: Tensor | None = None

    def evaluate(self, features: Tensor) -> Tensor:
        """Return the squared distances (K, B), float64; rounding can make a distance of 0 slightly negative."""
        delta = torch.addmm(self.offsets, self.coefficients, features.t())
        for k, center, precision in self._far:
            delta[k] = (features[:, len(center) :] - center).square() @ precision
        return delta.clamp_min_(0) if self.asynchronous else delta

    def backward_vectors(self, gradients: Tensor, rows: slice, out: Tensor) -> None:
        """Write to ``out`` (N, D) the gradients with respect to the vectors that follow from those of the distances.

        ``gradients`` are those with respect to the distances (K, B) of the block ``rows``.

        Computed in the precision of ``gradients``: nothing here cancels as badly as in the distances. If asynchronous,
        in float64, since a GPU may be set to multiply float32 matrices with less precision (TF32).
        """
        gradients = gradients.double() if self.asynchronous else gradients
        dtype, d = gradients.dtype, self.w.shape[1]
        if self._slopes is None or self._slopes.dtype != dtype:
            self._slopes = self.coefficients.to(dtype, copy=True)
            self._slopes[:, :d] *= 2
        slopes = gradients.t() @ self._slopes
        x = self.w[rows].to(dtype) - self.shift.to(dtype)
        if out.dtype == dtype:
            torch.addcmul(slopes[:, d:], x, slopes[:, :d], out=out[rows])
        else:
            out[rows] = torch.addcmul(slopes[:, d:], x, slopes[:, :d])

    def backward_centers(self, gradients: Tensor, features: Tensor) -> Tensor:
        """Turn gradients with respect to the distances (K, B) into gradients with respect to the centres (K, D)."""
        d = self.w.shape[1]
        gradients = gradients.double()
        by_precision = self.coefficients[:, :d] * (gradients @ features[:, d:])
        return -2 * by_precision - self.coefficients[:, d:] * gradients.sum(dim=1, keepdim=True)


class _SquaredDistances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, centers: Tensor, scales: Tensor) -> Tensor:
        # Clones: an M-step may overwrite the parameters before the gradient is taken.
        ctx.save_for_backward(w, centers.clone(), scales.clone())
        distances = DiagonalDistances(w, centers, scales)
        delta = w.new_empty((len(centers), len(w)), dtype=torch.float64)
        for rows, features in distances.blocks():
            delta[:, rows] = distances.evaluate(features).clamp_min_(0)
        return delta.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        w, centers, scales = ctx.saved_tensors
        distances = DiagonalDistances(w, centers, scales)
        to_w = torch.empty_like(w) if ctx.needs_input_grad[0] else None
        to_centers = centers.new_zeros(centers.shape, dtype=torch.float64) if ctx.needs_input_grad[1] else None
        for rows, features in distances.blocks():
            block = gradients[rows].t()
            if to_w is not None:
                distances.backward_vectors(block, rows, to_w)
            if to_centers is not None:
                to_centers += distances.backward_centers(block, features)
        return to_w, None if to_centers is None else to_centers.to(centers.dtype), None


def squared_distances(w: Tensor, centers: Tensor, scales: Tensor) -> Tensor:
    """Squared distances of vectors to centres, each feature divided by its scale.

    ``delta_ik = sum_d (w_id - mu_kd)^2 / s2_kd``

    Parameters
    ----------
    w
        Vectors (N, D), finite.
    centers
        Centres (K, D).
    scales
        Squared scales (K, D), positive.

    Returns
    -------
    Tensor
        Distances (N, K), float64, never negative. Differentiable once, with respect to ``w`` and ``centers``;
        ``scales`` count as constants.
    """
    return _SquaredDistances.apply(w, centers, scales)
