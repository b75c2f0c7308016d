"""neuralpredictors' stacked core without the operations that change nothing."""

from __future__ import annotations

from typing import Any

import torch
from neuralpredictors.layers.cores import Stacked2dCore
from torch import Tensor, nn

from december_plugin.models.layers.depth_separable import DepthSeparableConv2d

__all__ = ["StackedCore"]


class StackedCore(Stacked2dCore):
    """Stacked convolutions, each with batch normalisation and an ELU.

    Settings, outputs, gradients and the state dict are those of neuralpredictors' ``Stacked2dCore``. Left out are the
    sums with 0 around every ELU that is not shifted, each of which copies all maps of a layer, and a penalty of weight
    0 on the hidden layers' kernels. On a GPU the layout in memory, and the way in which depth-separable layers are
    computed, are those that are fastest in the training's precision.
    """

    def add_subsequent_layers(self) -> None:
        """Add the hidden layers."""
        if self.conv_layer_name == "ds_conv":
            self.ConvLayer = DepthSeparableConv2d
        super().add_subsequent_layers()

    def forward(self, input_: Tensor) -> Tensor:
        """Return the maps (images, channels, height', width') of images (images, channels, height, width)."""
        if input_.is_cuda and torch.is_autocast_enabled():
            # What cuDNN's tensor cores work on: anything else is rearranged, or convolved without them.
            input_ = input_.to(memory_format=torch.channels_last)
        return super().forward(input_)

    def add_activation(self, layer: dict[str, Any]) -> None:
        """Add the nonlinearity of a layer, if it has one."""
        super().add_activation(layer)
        if "nonlin" in layer and self.elu_xshift == self.elu_yshift == 0:
            layer["nonlin"] = nn.ELU(inplace=True)

    def regularizer(self) -> Tensor:
        """Return the penalty of the first layer's kernels, and of the hidden ones' if that has a weight."""
        if self.gamma_hidden == 0:
            return self.gamma_input * self.laplace()
        return super().regularizer()
