"""A stack of convolutions over space and time; neuralpredictors 0.3.0 has none."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from neuralpredictors.regularizers import LaplaceL2norm
from torch import Tensor, nn


class MovieCore(nn.Module):
    """Convolutions over space and time, each with batch normalisation and an ELU.

    Parameters
    ----------
    input_channels
        Channels of the movie.
    hidden_channels, temporal_kernels, spatial_kernels, spatial_dilations
        Of each layer: channels, kernel sizes in frames and pixels, dilation of the spatial kernel.
    separable
        Whether a layer is a convolution over space followed by one over time, without anything in between; otherwise it
        is one with a full space-time kernel.
    padded
        Of each layer: whether it keeps height and width. Frames are never padded.
    gamma_input
        Strength of the penalty of first kernels that are rough in space, neuralpredictors' ``LaplaceL2norm``: the mean
        squared Laplacian relative to the mean square. Full kernels are taken frame by frame.
    gamma_temporal
        Strength of the penalty of first kernels that are rough in time: the sum of squared second differences, relative
        to the sum of squares.
    batch_norm, momentum, final_nonlinearity
        As in neuralpredictors' ``Stacked2dCore``.

    Attributes
    ----------
    lost_frames, lost_pixels
        By how many frames and pixels (height and width alike) the output is smaller than the input.
    """

    def __init__(
        self,
        *,
        input_channels: int,
        hidden_channels: Sequence[int],
        temporal_kernels: Sequence[int],
        spatial_kernels: Sequence[int],
        spatial_dilations: Sequence[int],
        separable: bool,
        padded: Sequence[bool],
        gamma_input: float,
        gamma_temporal: float,
        batch_norm: bool,
        momentum: float,
        final_nonlinearity: bool,
    ):
        super().__init__()
        self.hidden_channels = tuple(hidden_channels)
        self.temporal_kernels = tuple(temporal_kernels)
        self.spatial_kernels = tuple(spatial_kernels)
        self.separable = separable
        self.gamma_input, self.gamma_temporal = gamma_input, gamma_temporal
        self.lost_frames = sum(kernel - 1 for kernel in temporal_kernels)
        extents = [(kernel - 1) * dilation for kernel, dilation in zip(spatial_kernels, spatial_dilations, strict=True)]
        self.lost_pixels = sum(extent for extent, pad in zip(extents, padded, strict=True) if not pad)
        self._laplace = LaplaceL2norm(padding=None)
        self.features = nn.Sequential()
        incoming = [input_channels, *hidden_channels]
        for layer, outgoing in enumerate(hidden_channels):
            parts: OrderedDict[str, nn.Module] = OrderedDict()
            spatial: dict[str, Any] = {
                "dilation": (1, spatial_dilations[layer], spatial_dilations[layer]),
                "padding": (0, extents[layer] // 2, extents[layer] // 2) if padded[layer] else 0,
            }
            time, size = temporal_kernels[layer], spatial_kernels[layer]
            if separable:
                parts["space"] = nn.Conv3d(incoming[layer], outgoing, (1, size, size), bias=False, **spatial)
                parts["time"] = nn.Conv3d(outgoing, outgoing, (time, 1, 1), bias=not batch_norm)
            else:
                parts["conv"] = nn.Conv3d(incoming[layer], outgoing, (time, size, size), bias=not batch_norm, **spatial)
            if batch_norm:
                parts["norm"] = nn.BatchNorm3d(outgoing, momentum=momentum)
            if final_nonlinearity or layer < len(hidden_channels) - 1:
                parts["nonlin"] = nn.ELU()
            self.features.add_module(f"layer{layer}", nn.Sequential(parts))
        self.apply(_initialize)

    def forward(self, videos: Tensor) -> Tensor:
        """Return (batch, channels', frames', height', width') of videos (batch, channels, frames, height, width)."""
        return self.features(videos)

    def regularizer(self) -> Tensor:
        """Return the penalties of the first layer's kernels, a scalar."""
        first: Any = self.features[0]
        in_space = first.space.weight[:, :, 0] if self.separable else first.conv.weight.flatten(1, 2)
        in_time = first.time.weight.flatten(3)[..., 0] if self.separable else first.conv.weight
        return self.gamma_input * self._laplace(in_space) + self.gamma_temporal * roughness_in_time(in_time)


def roughness_in_time(kernels: Tensor) -> Tensor:
    """Return the squared second differences along the axis of time relative to the squares, both summed; a scalar.

    Parameters
    ----------
    kernels
        (outgoing, incoming, frames, ...).
    """
    if kernels.shape[2] < 3:
        return torch.zeros((), dtype=kernels.dtype, device=kernels.device)
    return kernels.diff(n=2, dim=2).square().sum() / kernels.square().sum()


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
