"""The error of a result compared with float64 on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor


def relative_error(result: Tensor, reference: Tensor) -> float:
    """Return the norm of the difference over the norm of the reference, both taken in float64 on the CPU."""
    reference = reference.detach().to("cpu", torch.float64)
    difference = result.detach().to("cpu", torch.float64) - reference
    return float(torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(reference))
