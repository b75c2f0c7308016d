"""The directions of vectors, with a gradient that is cheap enough for every training step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Directions(torch.autograd.Function):
    """``v / ||v||`` of vectors (N, D), or 0 for a vector of zeros, in few passes over them and with little memory.

    ``dL/dv = (g - (g . x) x) / ||v||`` with the direction ``x`` and its gradient ``g``; ``g`` where ``v`` is 0.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        """Return the directions (N, D)."""
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        lengths = torch.where(lengths > 0, lengths, 1)  # not 0 / 0
        directions = vectors / lengths
        ctx.save_for_backward(directions, lengths)
        return directions

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the gradient with respect to the vectors."""
        directions, lengths = ctx.saved_tensors
        along = torch.linalg.vecdot(gradient, directions, dim=1)[:, None]
        return torch.addcmul(gradient, directions, along, value=-1).div_(lengths)
