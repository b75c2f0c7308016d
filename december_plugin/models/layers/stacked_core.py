"""neuralpredictors' stacked core without the operations that change nothing."""

from __future__ import annotations

from typing import Any

from neuralpredictors.layers.cores import Stacked2dCore
from torch import Tensor, nn

__all__ = ["StackedCore"]


class StackedCore(Stacked2dCore):
    """Stacked convolutions, each with batch normalisation and an ELU.

    Settings, outputs, gradients and the state dict are those of neuralpredictors' ``Stacked2dCore``. Left out are the
    sums with 0 around every ELU that is not shifted, each of which copies all maps of a layer, and a penalty of weight
    0 on the hidden layers' kernels.
    """

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
