"""Images turned about their middle, and moved by whole pixels; edges are filled with grey."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROUNDING = 1e-9  # pixels: turned by multiples of 90 degrees, pixels fall on pixels


def turned(images: Tensor, degrees: float, *, grey: float = 0.0) -> Tensor:
    """Turn images about their middle, counterclockwise as displayed, with bilinear interpolation.

    Parameters
    ----------
    images
        (..., height, width).
    degrees
        Square images are turned exactly by multiples of 90, as by ``torch.rot90``.
    grey
        Value that fills the edges.

    Returns
    -------
    Tensor
        Images of the same shape.
    """
    height, width = images.shape[-2:]
    y = torch.arange(height, dtype=torch.float64)[:, None] - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64)[None, :] - (width - 1) / 2
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rows = _on_pixels(cosine * y + sine * x + (height - 1) / 2)
    columns = _on_pixels(-sine * y + cosine * x + (width - 1) / 2)
    return _interpolated(images - grey, rows, columns) + grey


def _on_pixels(places: Tensor) -> Tensor:
    nearest = places.round()
    return torch.where((places - nearest).abs() < ROUNDING, nearest, places)


def _interpolated(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the values at (height, width) places, 0 outside."""
    height, width = images.shape[-2:]
    pixels = images.flatten(start_dim=-2)
    first_row, first_column = rows.floor(), columns.floor()
    result = torch.zeros_like(images)
    for down in (0, 1):
        for right in (0, 1):
            row, column = first_row + down, first_column + right
            weights = (1 - (rows - row).abs()) * (1 - (columns - column).abs())
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long().to(images.device)
            result += pixels[..., index] * (weights * inside).to(images)
    return result


def moved(images: Tensor, shifts: Tensor, *, grey: float = 0.0) -> Tensor:
    """Move each image by whole pixels.

    Parameters
    ----------
    images
        (n, channels, height, width).
    shifts
        Down and to the right, (n, 2) int64.
    grey
        Value that fills the edges.
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - shifts[:, 0, None]
    columns = torch.arange(width, device=images.device) - shifts[:, 1, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    index = index.flatten(start_dim=1)[:, None].expand(-1, images.shape[1], -1)
    taken = images.flatten(start_dim=2).gather(2, index).reshape(images.shape)
    return torch.where(inside[:, None], taken, torch.full_like(taken, grey))


def shifts_to_the_middle(images: Tensor, *, grey: float = 0.0) -> Tensor:
    """Return the shifts (n, 2), int64, that centre images (n, channels, height, width).

    The place of an image is the mean of its pixels' places, weighted by their squared deviations from grey.
    """
    energy = (images - grey).double().square().sum(dim=1)
    total = energy.sum(dim=(1, 2)).clamp_min(torch.finfo(torch.float64).tiny)
    middles = []
    for axis, size in ((2, images.shape[-2]), (1, images.shape[-1])):
        places = torch.arange(size, dtype=torch.float64, device=images.device) - (size - 1) / 2
        middles.append((energy.sum(dim=axis) * places).sum(dim=1) / total)
    return -torch.stack(middles, dim=1).round().long()


def share_outside_the_circle(images: Tensor, *, grey: float = 0.0) -> Tensor:
    """Return the share (n,) of the squared deviations from grey outside the largest circle about the middle."""
    height, width = images.shape[-2:]
    y = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2
    x = torch.arange(width, device=images.device)[None, :] - (width - 1) / 2
    outside = torch.hypot(y.expand(height, width), x.expand(height, width)) > min(height, width) / 2
    energy = (images - grey).double().square().sum(dim=1)
    total = energy.sum(dim=(1, 2)).clamp_min(torch.finfo(torch.float64).tiny)
    return (energy * outside).sum(dim=(1, 2)) / total
