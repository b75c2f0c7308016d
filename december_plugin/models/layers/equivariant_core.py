"""Rotation-equivariant stack of steerable convolutions (Ecker et al. 2019; Ustyuzhaninov et al. 2020)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from neuralpredictors.regularizers import LaplaceL2norm
from torch import Tensor, nn

from december_plugin.models.layers.steerable import SteerableConv2d, SteerableNorm2d


class EquivariantCore(nn.Module):
    """Steerable convolutions, each with batch normalisation and an ELU.

    neuralpredictors' ``RotationEquivariant2dCore`` is the same network; in release 0.3.0 it cannot be built on current
    Python, and its regularizer looks for a layer that it does not have.

    Parameters
    ----------
    input_channels
        Channels of the image.
    features, orientations
        Of every layer; the output has ``orientations * features`` channels, orientation-major.
    kernels, paddings
        Of each layer, in pixels.
    gamma_input
        Strength of the penalty of first filters that are rough, neuralpredictors' ``LaplaceL2norm``.
    gamma_hidden
        Strength of the group sparsity of the others: the mean over pairs of channels of their filter's norm.
    upsampling
        See :func:`~december_plugin.models.layers.steerable.hermite_basis`.
    batch_norm, momentum, final_nonlinearity
        As in neuralpredictors' ``Stacked2dCore``.
    """

    def __init__(
        self,
        *,
        input_channels: int,
        features: int,
        orientations: int,
        kernels: Sequence[int],
        paddings: Sequence[int],
        gamma_input: float,
        gamma_hidden: float,
        upsampling: int,
        batch_norm: bool,
        momentum: float,
        final_nonlinearity: bool,
    ):
        super().__init__()
        self.gamma_input, self.gamma_hidden = gamma_input, gamma_hidden
        self.outchannels = orientations * features
        self._laplace = LaplaceL2norm(padding=None)
        self.features = nn.Sequential()
        for layer, (size, padding) in enumerate(zip(kernels, paddings, strict=True)):
            parts: OrderedDict[str, nn.Module] = OrderedDict()
            parts["conv"] = SteerableConv2d(
                features if layer else input_channels,
                features,
                orientations,
                size=size,
                padding=padding,
                upsampling=upsampling,
                first=layer == 0,
            )
            if batch_norm:
                parts["norm"] = SteerableNorm2d(features, orientations, momentum=momentum)
            if final_nonlinearity or layer < len(kernels) - 1:
                parts["nonlin"] = nn.ELU()
            self.features.add_module(f"layer{layer}", nn.Sequential(parts))

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch, orientations * features, height', width') of images (batch, channels, height, width)."""
        return self.features(images)

    def regularizer(self) -> Tensor:
        """Return the penalties of the filters, a scalar."""
        layers: Any = self.features
        first, *others = [layer.conv for layer in layers]
        penalty = self.gamma_input * self._laplace(first.filters())
        if self.gamma_hidden and others:
            norms = [conv.filters().square().sum(dim=(2, 3)).sqrt().mean() for conv in others]
            penalty = penalty + self.gamma_hidden * torch.stack(norms).mean()
        return penalty
