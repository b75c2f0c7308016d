"""Depthwise convolutions on a GPU: Triton kernels, forward and backward; importing it needs Triton.

Each channel is convolved with its own small kernel. torch's kernels for float32 compute the gradient of every
number of a kernel from the whole batch, one number at a time; here a row of them is summed while the maps pass once.
Every sum has a fixed order: the same input gives the same bytes. Nothing waits for the GPU, and shapes alone decide
what is launched.

With ``TRITON_INTERPRET=1`` in the environment the kernels run on the CPU, slowly.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Measured on an H200 for 64 channels of 28 x 56 pixels and kernels of 7 pixels: larger tiles wait for their registers.
PIXELS, WARPS = 256, 2  # of a program that convolves
GRADIENT_PIXELS, GRADIENT_WARPS = 512, 4  # of a program that computes a row of gradients
IMAGES = 16  # over which it sums them
SIZES = ("channels", "height", "width", "images", "images_each", "parts")  # whose values do not cause recompilation


@triton.jit(do_not_specialize=SIZES)
def _convolve(
    maps, kernels, output, channels, height, width,
    SIDE: tl.constexpr, PIXELS: tl.constexpr, FLIPPED: tl.constexpr,
):  # fmt: skip
    """Convolve a tile of a map with its kernel, or with the flipped one, as for the gradient of the maps."""
    plane = tl.program_id(0).to(tl.int64)
    channel = plane % channels
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    row, column = pixel // width, pixel % width
    here = maps + plane * height * width + pixel
    total = tl.zeros((PIXELS,), dtype=tl.float32)
    for down in tl.static_range(SIDE):
        y = row + (down - SIDE // 2)
        inside_y = (y >= 0) & (y < height)
        for right in tl.static_range(SIDE):
            x = column + (right - SIDE // 2)
            inside = inside_y & (x >= 0) & (x < width)
            number = SIDE * SIDE - 1 - (down * SIDE + right) if FLIPPED else down * SIDE + right
            weight = tl.load(kernels + channel * SIDE * SIDE + number)
            total += weight * tl.load(here + (down - SIDE // 2) * width + (right - SIDE // 2), mask=inside, other=0)
    tl.store(output + plane * height * width + pixel, total, mask=pixel < height * width)


@triton.jit(do_not_specialize=SIZES)
def _kernel_gradients(
    maps, upstream, output, channels, height, width, images, images_each, parts,
    SIDE: tl.constexpr, ROW: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a row of a channel's kernel, from a tile of its maps in some images."""
    channel, down = tl.program_id(0) // SIDE, tl.program_id(0) % SIDE
    part, tile = tl.program_id(1), tl.program_id(2)
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    right = tl.arange(0, ROW)
    y = pixel // width + (down - SIDE // 2)
    x = (pixel % width)[None, :] + (right - SIDE // 2)[:, None]
    present = pixel < height * width
    inside = (present & (y >= 0) & (y < height))[None, :] & (x >= 0) & (x < width) & (right < SIDE)[:, None]
    offsets = pixel[None, :] + (right - SIDE // 2)[:, None] + (down - SIDE // 2) * width
    total = tl.zeros((ROW, PIXELS), dtype=tl.float32)
    first = part * images_each
    for image in range(first, tl.minimum(first + images_each, images)):
        plane = (tl.cast(image, tl.int64) * channels + channel) * height * width
        incoming = tl.load(upstream + plane + pixel, mask=present, other=0)
        total += incoming[None, :] * tl.load(maps + plane + offsets, mask=inside, other=0)
    place = ((tile * parts + part) * channels + channel) * SIDE * SIDE + down * SIDE
    tl.store(output + place + right, tl.sum(total, axis=1), mask=right < SIDE)


class DepthwiseConvolution(torch.autograd.Function):
    """Convolution of every channel with its own kernel; zeros around the maps keep their size."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, kernels: Tensor) -> Tensor:
        """Return the output, in the shape of the maps.

        Parameters
        ----------
        ctx
            torch's.
        maps
            (images, channels, height, width) float32.
        kernels
            (channels, 1, side, side) float32, of an odd side.
        """
        maps, kernels = maps.contiguous(), kernels.contiguous()
        ctx.save_for_backward(maps, kernels)
        return _convolved(maps, kernels, flipped=False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of maps and kernels, given that of the output."""
        maps, kernels = ctx.saved_tensors
        upstream = upstream.contiguous()
        needs_maps, needs_kernels = ctx.needs_input_grad
        of_maps = _convolved(upstream, kernels, flipped=True) if needs_maps else None
        of_kernels = _of_kernels(maps, upstream, kernels) if needs_kernels else None
        return of_maps, of_kernels


def _convolved(maps: Tensor, kernels: Tensor, *, flipped: bool) -> Tensor:
    images, channels, height, width = maps.shape
    output = torch.empty_like(maps)
    with torch.cuda.device_of(maps):
        _convolve[(images * channels, triton.cdiv(height * width, PIXELS))](
            maps, kernels, output, channels, height, width,
            SIDE=kernels.shape[-1], PIXELS=PIXELS, FLIPPED=flipped, num_warps=WARPS,
        )  # fmt: skip
    return output


def _of_kernels(maps: Tensor, upstream: Tensor, kernels: Tensor) -> Tensor:
    images, channels, height, width = maps.shape
    side = kernels.shape[-1]
    parts, tiles = triton.cdiv(images, IMAGES), triton.cdiv(height * width, GRADIENT_PIXELS)
    output = maps.new_empty(tiles * parts, *kernels.shape)
    with torch.cuda.device_of(maps):
        _kernel_gradients[(channels * side, parts, tiles)](
            maps, upstream, output, channels, height, width, images, IMAGES, parts,
            SIDE=side, ROW=triton.next_power_of_2(side), PIXELS=GRADIENT_PIXELS, num_warps=GRADIENT_WARPS,
        )  # fmt: skip
    return output.sum(dim=0)
