"""Feature maps that are read at points, by ``grid_sample`` and a product, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Corners and edges of the map, its last pixel's far side, and points beyond it on every side.
BORDERS = [[-1, -1], [1, 1], [-1, 1], [1, -1], [0, 1], [1, 0], [-1.2, 0], [1.25, 0.1], [0, -1.4], [0.3, 1.5], [9, 9]]


def reading_problem(
    dtype: torch.dtype, *, images: int, channels: int, size: tuple[int, int], n: int, device: str = "cpu"
) -> list[Tensor]:
    """Return maps (images, channels, height, width), positions and vectors, whose gradients are wanted."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((images, channels, *size), (images, n, 2), (n, channels))
    maps, positions, vectors = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
    positions[0, : len(BORDERS)] = torch.tensor(BORDERS, dtype=torch.float64)[:n]
    return [each.to(device, dtype).requires_grad_() for each in (maps, positions, vectors)]


def sampled(maps: Tensor, positions: Tensor, vectors: Tensor, *, align_corners: bool = True) -> Tensor:
    """Return the responses (images, n) by way of all samples."""
    samples = functional.grid_sample(maps, positions[:, :, None], align_corners=align_corners)
    return (samples[..., 0] * vectors.T).sum(dim=1)


def with_gradients(read: Callable[..., Tensor], sources: Sequence[Tensor], **settings: Any) -> list[Tensor]:
    """Return the responses of ``read`` and the gradients of its sources; nothing is copied from the host."""
    responses = read(*sources, **settings)
    upstream = torch.linspace(-1, 1, responses.numel(), dtype=torch.float64, device=responses.device)
    return [responses.detach(), *torch.autograd.grad(responses, sources, upstream.view_as(responses).to(responses))]


def largest_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference of numbers, relative to the largest number of each tensor or 1."""
    pairs = zip(found, expected, strict=True)
    return max(float((one.to(other) - other).abs().max() / other.abs().max().clamp_min(1)) for one, other in pairs)
