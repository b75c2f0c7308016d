"""Reads feature maps at points on the CPU: a pixel's channels are a row of a matrix, a point is four rows of it.

``F.grid_sample`` gathers number by number, and the product with the feature vectors makes tensors of (images, channels,
neurons). Here sums over rows do both: the dot products of each neuron's vector with the four rows around its point are
the product of two matrices, sampled where it is needed; gradients are weighted sums of rows. Images are taken in blocks
that fit into the processor's cache. Every sum has a fixed order: the same input gives the same bytes.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 1 << 16  # points; measured: from 32,768 on torch sorts by radix, with 262,144 the cache is too small
BORDER = 1  # pixels of zeros around each map, so that every point has four pixels


class RowReading(torch.autograd.Function):
    """Bilinear reading of maps at points, dotted with vectors; arguments as :func:`~.point_reading.read_at`."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, positions: Tensor, vectors: Tensor, align_corners: bool) -> Tensor:
        """Return the responses (images, n)."""
        _expect_sparse()
        images, height, width, channels = maps.shape
        rows = vectors.new_zeros(images, height + 2 * BORDER, width + 2 * BORDER, channels)
        rows[:, BORDER:-BORDER, BORDER:-BORDER] = maps
        responses = vectors.new_empty(images, len(vectors))
        products = []
        for block in _blocks(positions):
            points = _Points(positions[block], (height, width), align_corners)
            products.append(points.products(rows[block], vectors))
            responses[block] = (products[-1] * points.weights()).sum(dim=-1).T
        ctx.save_for_backward(rows, positions, vectors, *products)
        ctx.align_corners = align_corners
        ctx.like_maps = torch.empty_like(maps, device="meta")  # its type and strides
        return responses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of maps, positions and vectors, given that of the responses (images, n)."""
        rows, positions, vectors, *products = ctx.saved_tensors
        size = (rows.shape[1] - 2 * BORDER, rows.shape[2] - 2 * BORDER)
        needs_maps, needs_positions, needs_vectors, _ = ctx.needs_input_grad
        of_maps = torch.empty_like(ctx.like_maps, device=rows.device) if needs_maps else None
        of_positions = torch.empty_like(positions) if needs_positions else None
        of_vectors = torch.zeros_like(vectors) if needs_vectors else None
        for number, block in enumerate(_blocks(positions)):
            points = _Points(positions[block], size, ctx.align_corners)
            incoming = upstream[block].T.contiguous()
            weights = points.weights() * incoming[..., None]
            if of_positions is not None:
                of_positions[block] = points.slopes(products[number], incoming).permute(2, 1, 0)
            if of_vectors is not None:
                of_vectors += points.sum_of_rows(rows[block], weights)
            if of_maps is not None:
                scattered = points.scattered(vectors, weights).view(rows[block].shape)
                of_maps[block] = scattered[:, BORDER:-BORDER, BORDER:-BORDER]
        return of_maps, of_positions, of_vectors, None


class _Points:
    """The pixels around the points of a block of images; arrays are (n, images): a neuron's are contiguous.

    Parameters
    ----------
    positions
        (images, n, 2), x and y as for ``grid_sample``.
    size
        Height and width of the maps in pixels, without the border.
    align_corners
        Whether -1 and 1 are the middles of the outermost pixels, or their outer edges.
    """

    def __init__(self, positions: Tensor, size: tuple[int, int], align_corners: bool):
        height, width = size
        x, y = positions.permute(2, 1, 0).contiguous()
        self.across = _Axis(x, width, align_corners)
        self.down = _Axis(y, height, align_corners)
        row_length = width + 2 * BORDER
        pixels = (height + 2 * BORDER) * row_length
        self.n_rows = len(positions) * pixels
        self.steps = (0, 1, row_length, row_length + 1)  # from the first pixel to all four
        numbers = self.down.first * row_length + self.across.first
        index_type = torch.int32 if self.n_rows < torch.iinfo(torch.int32).max else torch.int64
        images = torch.arange(len(positions), device=positions.device)
        self.first = (numbers.long() + pixels * images).to(index_type)

    def weights(self) -> Tensor:
        """Return the bilinear weights of the four pixels, (n, images, 4)."""
        right, below = self.across.share, self.down.share
        both = right * below
        weights = both.new_empty(*both.shape, 4)
        weights[..., 3] = both
        torch.sub(below, both, out=weights[..., 2])
        torch.sub(right, both, out=weights[..., 1])
        torch.sub(1 - right, below - both, out=weights[..., 0])
        return weights

    def _count(self, n: int) -> Tensor:
        return torch.arange(n, dtype=self.first.dtype, device=self.first.device)

    def _indices(self) -> Tensor:
        """Return the rows of the four pixels of every point, (n, images * 4)."""
        return (self.first[..., None] + self.first.new_tensor(self.steps)).flatten(start_dim=1)

    def products(self, rows: Tensor, vectors: Tensor) -> Tensor:
        """Return the products of every neuron's vector (n, channels) with its four rows, (n, images, 4)."""
        indices = self._indices()
        ends = self._count(len(vectors) + 1) * indices.shape[1]
        pattern = torch.sparse_csr_tensor(
            ends,
            indices.flatten(),
            vectors.new_zeros(indices.numel()),
            (len(vectors), self.n_rows),
            check_invariants=False,
        )
        columns = rows.reshape(self.n_rows, -1).T
        return torch.sparse.sampled_addmm(pattern, vectors, columns, beta=0).values().view(*self.first.shape, 4)

    def slopes(self, products: Tensor, incoming: Tensor) -> Tensor:
        """Return the gradient of the positions, (2, n, images), given that of the responses (n, images)."""
        upper_left, upper_right, lower_left, lower_right = products.unbind(dim=-1)
        across = torch.lerp(upper_right - upper_left, lower_right - lower_left, self.down.share)
        down = torch.lerp(lower_left - upper_left, lower_right - upper_right, self.across.share)
        return torch.stack([across * self.across.pixels_per_unit, down * self.down.pixels_per_unit]) * incoming

    def sum_of_rows(self, rows: Tensor, weights: Tensor) -> Tensor:
        """Return every neuron's sum of its rows over pixels and images, (n, channels)."""
        return functional.embedding_bag(
            self._indices(),
            rows.reshape(self.n_rows, -1),
            per_sample_weights=weights.flatten(start_dim=1),
            mode="sum",
        )

    def scattered(self, vectors: Tensor, weights: Tensor) -> Tensor:
        """Return for every row the sum of the vectors of the neurons that read it, (rows, channels)."""
        # Sorted by their first pixel, the points of a pixel are neighbours: each row is a sum over a slice of them.
        first, order = self.first.flatten().sort(stable=True)
        starts = torch.searchsorted(first, self._count(self.n_rows), out_int32=first.dtype == torch.int32)
        neurons = self._count(len(vectors)).repeat_interleave(self.first.shape[1])[order]
        by_pixel = weights.flatten(end_dim=1)[order].T.contiguous()
        total = vectors.new_zeros(self.n_rows, vectors.shape[1])
        for step, weight in zip(self.steps, by_pixel, strict=True):
            sums = functional.embedding_bag(neurons, vectors, starts, per_sample_weights=weight, mode="sum")
            total[step:] += sums[: self.n_rows - step]
        return total


class _Axis:
    """Where points are between the pixels of one axis.

    Attributes
    ----------
    first
        Number of the pixel at or before the point, counted with the border; the next one exists, too.
    share
        Weight of that next one, in [0, 1]. Points beyond the border read only its zeros.
    pixels_per_unit
        By how many pixels a point moves per unit of its position: 0 beyond the border, where nothing changes.
    """

    def __init__(self, positions: Tensor, size: int, align_corners: bool):
        scale = (size - 1) / 2 if align_corners else size / 2
        pixels = (positions + 1) * scale
        if not align_corners:
            pixels -= 0.5
        within = pixels.clamp(-BORDER, size)
        # NaN must remain in the weights, but cannot be an index.
        before = within.floor().clamp_(max=size - 1).nan_to_num_(nan=-BORDER)
        self.share = within - before
        self.first = before + BORDER
        self.pixels_per_unit = ((pixels >= -BORDER) & (pixels < size)) * scale


def _blocks(positions: Tensor) -> Iterator[slice]:
    """Yield blocks of images with about :data:`BLOCK` points each."""
    images, n, _ = positions.shape
    step = max(1, BLOCK // max(1, n))
    return (slice(start, start + step) for start in range(0, images, step))


@functools.cache
def _expect_sparse() -> None:
    """Suppress torch's warning, once in a process, that its matrices in compressed rows are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 0], [], [], (1, 1), dtype=torch.float32, device="cpu")
