"""Reads feature maps at the neurons' positions, as Gaussian readouts do, without a tensor of all samples.

``F.grid_sample`` makes a tensor of (images, channels, neurons), its product with the feature vectors another one, and
the backward pass as many again: at 128 images, 64 channels and 7,800 neurons 256 MB each. A fused reading has the same
results to rounding, and the same bytes for the same input: :mod:`~december_plugin.models.layers.point_rows` on the CPU,
:mod:`~december_plugin.models.layers.point_kernels` on CUDA, which needs Triton.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from december_plugin.models.layers import trial
from december_plugin.models.settings import READOUT_KERNELS
from december_plugin.validation.checks import check_choice

# Device: module and class. Others read with grid_sample.
FUSED = {"cpu": ("point_rows", "RowReading"), "cuda": ("point_kernels", "KernelReading")}
# On the CPU, the cost of a point apart from its channels pays off from these sizes on; with fewer neurons than pixels,
# most of the time goes into the maps. Measured by benchmarks/readout.py.
FEWEST_CHANNELS = 32
FEWEST_SAMPLES = 1 << 21  # images x channels x neurons: 8 MiB in float32, more than a processor's cache holds


def reads_fused(kernel: str, maps: Tensor, n: int, *, frames: int = 1) -> bool:
    """Return whether maps are read by the fused implementation for their device.

    Parameters
    ----------
    kernel
        "fused": if there is one; "grid_sample": never; "auto": if it is faster, on the CPU depending on the sizes.
    maps
        What is read, (batch, channels, ..., height, width).
    n
        Number of neurons.
    frames
        Number of maps for each entry of the batch.

    Warns
    -----
    UserWarning
        If it cannot be used on this device, once, with the reason; the answer is then False.
    """
    check_choice("readout_kernel", kernel, READOUT_KERNELS)
    if kernel == "grid_sample" or maps.device.type not in FUSED:
        return False
    if kernel == "auto" and maps.device.type == "cpu":
        batch, channels, (height, width) = len(maps), maps.shape[1], maps.shape[-2:]
        if channels < FEWEST_CHANNELS or n < height * width or batch * frames * channels * n < FEWEST_SAMPLES:
            return False
    return passes_trial(maps.device)


def read_at(maps: Tensor, positions: Tensor, vectors: Tensor, *, align_corners: bool = True) -> Tensor:
    """Return ``<w_i, map at the position of neuron i>`` for every image and neuron, by the fused implementation.

    Parameters
    ----------
    maps
        (images, height, width, channels), of any strides; in half precision, too.
    positions
        (images, n, 2), x and y; -1 and 1 are the edges of the map, beyond which it is 0.
    vectors
        ``w_i``, (n, channels).
    align_corners
        As for ``torch.nn.functional.grid_sample``: whether -1 and 1 are the middles of the outermost pixels.

    Returns
    -------
    Tensor
        (images, n), of the type to which those of maps and vectors promote. Sums are in float32 at least. Gradients
        go to maps, positions and vectors; second ones do not exist, as for ``grid_sample``.
    """
    promoted = torch.promote_types(maps.dtype, vectors.dtype)
    exact = torch.promote_types(promoted, torch.float32)
    reading = _fused(maps.device.type)
    responses: Tensor = reading.apply(maps, positions.to(exact), vectors.to(exact).contiguous(), align_corners)
    return responses.to(promoted)


def _fused(device_type: str) -> Any:
    module, name = FUSED[device_type]
    return getattr(importlib.import_module(f"december_plugin.models.layers.{module}"), name)


@functools.cache
def passes_trial(device: torch.device) -> bool:
    """Return whether the fused implementation runs on a device and agrees with ``grid_sample`` there; tried once.

    Warns
    -----
    UserWarning
        If it does not, with the reason.
    """
    return trial.passed(
        lambda: _largest_difference(device),
        warning=lambda reason: (
            f"The fused readout cannot be used on {device} ({reason}); grid_sample reads the maps instead, which is "
            "slower and takes more memory. Results are the same to rounding. readout_kernel='grid_sample' selects it "
            "without a warning."
        ),
    )


def _largest_difference(device: torch.device) -> float:
    """Return how much responses and gradients differ from those of ``grid_sample`` in a small example."""
    images, height, width, channels, n = 2, 3, 4, 16, 16
    # No random numbers, because those of a training must not change.
    values = torch.linspace(0, 50, images * height * width * channels, device=device).sin()
    maps = values.view(images, height, width, channels).requires_grad_()
    positions = torch.linspace(-1.3, 1.3, images * n * 2, device=device).view(images, n, 2).requires_grad_()
    vectors = torch.linspace(0, 70, n * channels, device=device).cos().view(n, channels).requires_grad_()
    sources = (maps, positions, vectors)
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        found = read_at(*sources)
        sampled = functional.grid_sample(maps.permute(0, 3, 1, 2), positions[:, :, None], align_corners=True)
        expected = (sampled[..., 0] * vectors.T).sum(dim=1)
        upstream = torch.linspace(-1, 1, images * n, device=device).view(images, n)
        pairs = zip(
            (found, *torch.autograd.grad(found, sources, upstream)),
            (expected, *torch.autograd.grad(expected, sources, upstream)),
            strict=True,
        )
        return max(float((one - other).detach().abs().max()) for one, other in pairs)
