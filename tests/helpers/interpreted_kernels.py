"""Runs the Triton kernels of the readout in Triton's interpreter, in a process of its own, and prints what came out.

``TRITON_INTERPRET`` has to be set before Triton is imported for the first time.
"""

from __future__ import annotations

import json
import os
import warnings
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor
from torch.nn import functional

from december_plugin.models.layers.point_kernels import KernelReading
from helpers.devices import NoWaiting

IMAGES, HEIGHT, WIDTH, CHANNELS, N = 2, 2, 3, 3, 9
# Corners, edges and beyond.
BORDERS = [[-1, -1], [1, 1], [1, -1], [0, 1], [-1.2, 0.1], [1.4, 0.1], [9, -9]]


def example(dtype: torch.dtype) -> list[Tensor]:
    """Return maps (images, height, width, channels), positions and vectors."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(IMAGES, CHANNELS, HEIGHT, WIDTH, dtype=dtype, generator=generator).permute(0, 2, 3, 1)
    positions = torch.randn(IMAGES, N, 2, dtype=dtype, generator=generator)
    positions[0, : len(BORDERS)] = torch.tensor(BORDERS)
    return [each.requires_grad_() for each in (maps, positions, torch.randn(N, CHANNELS, dtype=dtype))]


def sampled(maps: Tensor, positions: Tensor, vectors: Tensor, align_corners: bool) -> Tensor:
    """Return the responses as ``grid_sample`` and a product give them."""
    samples = functional.grid_sample(maps.permute(0, 3, 1, 2), positions[:, :, None], align_corners=align_corners)
    return (samples[..., 0] * vectors.T).sum(dim=1)


def with_gradients(read: Any, sources: list[Tensor], align_corners: bool) -> list[Tensor]:
    """Return the responses and the gradients of the sources."""
    responses = read(*sources, align_corners)
    upstream = torch.linspace(-1, 1, responses.numel(), dtype=responses.dtype).view_as(responses)
    return [responses.detach(), *torch.autograd.grad(responses, sources, upstream)]


def outcome(dtype: torch.dtype, *, align_corners: bool) -> dict[str, Any]:
    """Return the largest differences from ``grid_sample``, and whether a second run gives the same bytes."""
    sources = example(dtype)
    found, again = (with_gradients(KernelReading.apply, sources, align_corners) for _ in range(2))
    expected = with_gradients(sampled, sources, align_corners)
    names = ("responses", "maps", "positions", "vectors")
    off = {name: float((one - other).abs().max()) for name, one, other in zip(names, found, expected, strict=True)}
    return {"off": off, "again": all(torch.equal(one, other) for one, other in zip(found, again, strict=True))}


def in_half_precision() -> float:
    """Return by how much responses to maps in half precision differ from those to the same numbers in full."""
    maps, positions, vectors = example(torch.float32)
    halved = maps.detach().bfloat16().requires_grad_()
    responses = KernelReading.apply(halved, positions, vectors, True)
    responses.sum().backward()
    assert halved.grad.dtype == torch.bfloat16
    return float((responses - sampled(halved.float(), positions, vectors, True)).detach().abs().max())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with NoWaiting():
        with_gradients(KernelReading.apply, example(torch.float32), True)
    results = {"float32": outcome(torch.float32, align_corners=True), "half": in_half_precision()}
    results["float64"] = outcome(torch.float64, align_corners=False)
    print(json.dumps(results))
