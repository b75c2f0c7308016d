"""Reads feature maps at points on a GPU: Triton kernels, forward and backward; importing it needs Triton.

Channels are contiguous, so that a point is four rows of memory, and sums over channels stay in registers: there is no
tensor of (images, channels, neurons). The backward pass has no atomic additions. Gradients of positions and vectors are
summed by the neuron; those of the maps by the pixel, over points sorted by where they are. Every sum has a fixed order:
the same input gives the same bytes. Nothing waits for the GPU, and shapes alone decide what is launched.

With ``TRITON_INTERPRET=1`` in the environment the kernels run on the CPU, slowly.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 1024  # numbers in a tile of (neurons, channels): a program holds about six of them in its registers
POINTS = 16  # that a pixel's program reads at once
SORTED = 1024  # points whose cells a program computes
SIZES = ("n", "images", "images_each", "points", "height", "width")  # whose values do not cause recompilation
PROGRAMS = 2048  # at least this many for the gradients of the neurons: a dozen for each multiprocessor


@triton.jit
def _pixel(position, size, ALIGN_CORNERS: tl.constexpr):
    """Return the pixel coordinates of positions along an axis, as ``grid_sample`` does."""
    return (position + 1) * ((size - 1) * 0.5) if ALIGN_CORNERS else (position + 1) * (size * 0.5) - 0.5


@triton.jit
def _before(pixel, size):
    """Return the number of the pixel at or before coordinates, from -1 to size - 1; -2 beyond."""
    floor = tl.floor(pixel)
    return tl.where((floor >= -1) & (floor < size), floor, -2).to(tl.int32)


@triton.jit
def _rows(image, x, y, channel, height, width, channels):
    """Return the channels of an image's pixels at x and y, (points, channels); zeros beyond it."""
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    addresses = image + ((y * width + x) * channels)[:, None] + channel[None, :]
    return tl.load(addresses, mask=inside[:, None] & (channel < channels)[None, :], other=0)


@triton.jit(do_not_specialize=SIZES)
def _respond(
    maps, positions, vectors, responses, n, height, width, channels,
    NEURONS: tl.constexpr, CHANNELS: tl.constexpr, ALIGN_CORNERS: tl.constexpr,
):  # fmt: skip
    """Compute the responses of a tile of neurons to an image."""
    tiles = tl.cdiv(n, NEURONS)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    neuron = (tl.program_id(0) % tiles) * NEURONS + tl.arange(0, NEURONS)
    channel = tl.arange(0, CHANNELS)
    present = neuron < n
    point = positions + (image * n + neuron) * 2
    across = _pixel(tl.load(point, mask=present, other=-9), width, ALIGN_CORNERS)
    down = _pixel(tl.load(point + 1, mask=present, other=-9), height, ALIGN_CORNERS)
    x, y = _before(across, width), _before(down, height)
    right, below = (across - tl.floor(across))[:, None], (down - tl.floor(down))[:, None]
    here = maps + image * height * width * channels
    upper = (1 - right) * _rows(here, x, y, channel, height, width, channels)
    upper += right * _rows(here, x + 1, y, channel, height, width, channels)
    lower = (1 - right) * _rows(here, x, y + 1, channel, height, width, channels)
    lower += right * _rows(here, x + 1, y + 1, channel, height, width, channels)
    known = present[:, None] & (channel < channels)[None, :]
    vector = tl.load(vectors + neuron[:, None] * channels + channel[None, :], mask=known, other=0)
    response = tl.sum(((1 - below) * upper + below * lower) * vector, axis=1)
    tl.store(responses + image * n + neuron, response, mask=present)


@triton.jit(do_not_specialize=SIZES)
def _neuron_gradients(
    maps, positions, vectors, upstream, of_positions, of_vectors, n, images, images_each, height, width, channels,
    NEURONS: tl.constexpr, CHANNELS: tl.constexpr, ALIGN_CORNERS: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a tile's positions in some images, and the sum over them of those of its vectors."""
    tiles = tl.cdiv(n, NEURONS)
    part = tl.program_id(0) // tiles
    neuron = (tl.program_id(0) % tiles) * NEURONS + tl.arange(0, NEURONS)
    channel = tl.arange(0, CHANNELS)
    present = neuron < n
    known = present[:, None] & (channel < channels)[None, :]
    vector = tl.load(vectors + neuron[:, None] * channels + channel[None, :], mask=known, other=0)
    total = tl.zeros_like(vector)
    first = part * images_each
    for number in range(first, tl.minimum(first + images_each, images)):
        image = tl.cast(number, tl.int64)
        point = (image * n + neuron) * 2
        across = _pixel(tl.load(positions + point, mask=present, other=-9), width, ALIGN_CORNERS)
        down = _pixel(tl.load(positions + point + 1, mask=present, other=-9), height, ALIGN_CORNERS)
        x, y = _before(across, width), _before(down, height)
        right, below = (across - tl.floor(across))[:, None], (down - tl.floor(down))[:, None]
        here = maps + image * height * width * channels
        upper_left = _rows(here, x, y, channel, height, width, channels).to(vector.dtype)
        upper_right = _rows(here, x + 1, y, channel, height, width, channels).to(vector.dtype)
        lower_left = _rows(here, x, y + 1, channel, height, width, channels).to(vector.dtype)
        lower_right = _rows(here, x + 1, y + 1, channel, height, width, channels).to(vector.dtype)
        incoming = tl.load(upstream + image * n + neuron, mask=present, other=0)
        upper = (1 - right) * upper_left + right * upper_right
        lower = (1 - right) * lower_left + right * lower_right
        total += incoming[:, None] * ((1 - below) * upper + below * lower)
        along_x = (1 - below) * (upper_right - upper_left) + below * (lower_right - lower_left)
        # From -1 to 1 is the width of the map, or the distance between the middles of its outermost pixels.
        pixels_x = (width - 1) * 0.5 if ALIGN_CORNERS else width * 0.5
        pixels_y = (height - 1) * 0.5 if ALIGN_CORNERS else height * 0.5
        slope_x = incoming * tl.sum(along_x * vector, axis=1) * pixels_x
        slope_y = incoming * tl.sum((lower - upper) * vector, axis=1) * pixels_y
        tl.store(of_positions + point, slope_x, mask=present)
        tl.store(of_positions + point + 1, slope_y, mask=present)
    offsets = (tl.cast(part, tl.int64) * n + neuron[:, None]) * channels + channel[None, :]
    tl.store(of_vectors + offsets, total, mask=known)


@triton.jit(do_not_specialize=SIZES)
def _find_cells(
    positions, cells, points, n, height, width, POINTS: tl.constexpr, ALIGN_CORNERS: tl.constexpr
):  # fmt: skip
    """Find the cells between four pixels in which points lie, by number: image by image, row by row, beyond last."""
    point = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    present = point < points
    x = _before(_pixel(tl.load(positions + point * 2, mask=present, other=-9), width, ALIGN_CORNERS), width)
    y = _before(_pixel(tl.load(positions + point * 2 + 1, mask=present, other=-9), height, ALIGN_CORNERS), height)
    in_image = (height + 1) * (width + 1)
    cell = tl.where((x == -2) | (y == -2), in_image, (y + 1) * (width + 1) + x + 1)
    tl.store(cells + point, point // n * (in_image + 1) + cell, mask=present)


@triton.jit(do_not_specialize=SIZES)
def _map_gradients(
    positions, vectors, upstream, order, starts, of_maps, n, height, width, channels,
    POINTS: tl.constexpr, CHANNELS: tl.constexpr, ALIGN_CORNERS: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of one pixel, (channels,), from the points in the four cells around it."""
    number = tl.program_id(0).to(tl.int64)
    image, pixel = number // (height * width), number % (height * width)
    x, y = pixel % width, pixel // width
    channel = tl.arange(0, CHANNELS)
    total = tl.zeros((CHANNELS,), dtype=vectors.dtype.element_ty)
    # The cells on the left and on the right are neighbours in the order: one run above the pixel and one below.
    for row in range(2):
        cell = image * ((height + 1) * (width + 1) + 1) + (y + row) * (width + 1) + x
        last = tl.load(starts + cell + 2)
        for start in range(tl.load(starts + cell), last, POINTS):
            at = start + tl.arange(0, POINTS)
            point = tl.load(order + at, mask=at < last, other=0)
            across = _pixel(tl.load(positions + point * 2), width, ALIGN_CORNERS)
            down = _pixel(tl.load(positions + point * 2 + 1), height, ALIGN_CORNERS)
            weight = (1 - tl.abs(across - x)) * (1 - tl.abs(down - y)) * tl.load(upstream + point)
            weight = tl.where(at < last, weight, 0)
            addresses = vectors + (point % n * channels)[:, None] + channel[None, :]
            rows = tl.load(addresses, mask=(at < last)[:, None] & (channel < channels)[None, :], other=0)
            total += tl.sum(weight[:, None] * rows, axis=0)
    tl.store(of_maps + number * channels + channel, total, mask=channel < channels)


class KernelReading(torch.autograd.Function):
    """Bilinear reading of maps at points, dotted with vectors; arguments as :func:`~.point_reading.read_at`."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, positions: Tensor, vectors: Tensor, align_corners: bool) -> Tensor:
        """Return the responses (images, n)."""
        dense, positions, vectors = maps.contiguous(), positions.contiguous(), vectors.contiguous()
        images, height, width, channels = dense.shape
        n = len(vectors)
        responses = vectors.new_empty(images, n)
        tile = _tile(channels)
        with torch.cuda.device_of(maps):
            _respond[(images * triton.cdiv(n, tile["NEURONS"]),)](
                dense, positions, vectors, responses, n, height, width, channels,
                **tile, ALIGN_CORNERS=align_corners,
            )  # fmt: skip
        ctx.save_for_backward(dense, positions, vectors)
        ctx.align_corners = align_corners
        return responses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of maps, positions and vectors, given that of the responses (images, n)."""
        maps, positions, vectors = ctx.saved_tensors
        upstream = upstream.contiguous()
        needs_maps, needs_positions, needs_vectors, _ = ctx.needs_input_grad
        of_maps = of_positions = of_vectors = None
        with torch.cuda.device_of(maps):
            if needs_positions or needs_vectors:
                of_positions, of_vectors = _of_neurons(maps, positions, vectors, upstream, ctx.align_corners)
            if needs_maps:
                of_maps = _of_maps(maps, positions, vectors, upstream, ctx.align_corners)
        return of_maps, of_positions, of_vectors, None


def _tile(channels: int) -> dict[str, int]:
    channels = triton.next_power_of_2(channels)
    return {"NEURONS": max(1, TILE // channels), "CHANNELS": channels}


def _of_neurons(
    maps: Tensor, positions: Tensor, vectors: Tensor, upstream: Tensor, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of positions (images, n, 2) and vectors (n, channels)."""
    images, height, width, channels = maps.shape
    n = len(vectors)
    tile = _tile(channels)
    tiles = triton.cdiv(n, tile["NEURONS"])
    images_each = triton.cdiv(images, min(images, triton.cdiv(PROGRAMS, tiles)))
    parts = triton.cdiv(images, images_each)
    of_positions = torch.empty_like(positions)
    of_vectors = vectors.new_empty(parts, n, channels)
    _neuron_gradients[(parts * tiles,)](
        maps, positions, vectors, upstream, of_positions, of_vectors, n, images, images_each, height, width, channels,
        **tile, ALIGN_CORNERS=align_corners,
    )  # fmt: skip
    return of_positions, of_vectors.sum(dim=0)


def _of_maps(maps: Tensor, positions: Tensor, vectors: Tensor, upstream: Tensor, align_corners: bool) -> Tensor:
    """Return the gradient of the maps (images, height, width, channels)."""
    images, height, width, channels = maps.shape
    n = len(vectors)
    n_cells = images * ((height + 1) * (width + 1) + 1)
    small = n_cells < torch.iinfo(torch.int32).max
    cells = torch.empty(images * n, dtype=torch.int32 if small else torch.int64, device=maps.device)
    _find_cells[(triton.cdiv(len(cells), SORTED),)](
        positions, cells, len(cells), n, height, width, POINTS=SORTED, ALIGN_CORNERS=align_corners
    )
    cells, order = cells.sort(stable=True)
    starts = torch.searchsorted(cells, torch.arange(n_cells + 1, dtype=cells.dtype, device=cells.device))
    of_maps = torch.empty_like(maps)
    _map_gradients[(images * height * width,)](
        positions, vectors, upstream, order, starts, of_maps, n, height, width, channels,
        POINTS=POINTS, CHANNELS=triton.next_power_of_2(channels), ALIGN_CORNERS=align_corners, num_warps=2,
    )  # fmt: skip
    return of_maps
