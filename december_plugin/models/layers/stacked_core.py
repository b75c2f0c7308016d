"""neuralpredictors' stacked core without the operations that change nothing."""

from __future__ import annotations

from typing import Any

import torch
from neuralpredictors.layers.cores import Stacked2dCore
from neuralpredictors.regularizers import LaplaceL2norm
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["StackedCore"]

# Pixels of the longest side of a kernel whose penalty is one product: its size grows with the fourth power.
LARGEST_IN_ONE_PRODUCT = 15


class StackedCore(Stacked2dCore):
    """Stacked convolutions, each with batch normalisation and an ELU.

    Settings, outputs, gradients and the state dict are those of neuralpredictors' ``Stacked2dCore``, those of the
    penalty on the first layer's kernels within rounding. Left out are the sums with 0 around every ELU that is not
    shifted, each of which copies all maps of a layer, and a penalty of weight 0 on the hidden layers' kernels. The
    penalty ``LaplaceL2norm`` is a product with a matrix instead of a convolution.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        penalty, (height, width) = self._input_weights_regularizer, self.features[0].conv.kernel_size
        laplacian, self._share = None, 1.0
        if type(penalty) is LaplaceL2norm and max(height, width) <= LARGEST_IN_ONE_PRODUCT:
            pixels = torch.eye(height * width).view(-1, 1, height, width)
            laplacian = penalty.laplace(pixels).flatten(1)
            if self.use_avg_reg:  # means over pixels instead of sums, of which there may be another number
                self._share = height * width / laplacian.shape[1]
        # The kernels' Laplacians (pixels, pixels') by one product with the kernels.
        self.register_buffer("_laplacian", laplacian, persistent=False)

    def add_activation(self, layer: dict[str, Any]) -> None:
        """Add the nonlinearity of a layer, if it has one."""
        super().add_activation(layer)
        if "nonlin" in layer and self.elu_xshift == self.elu_yshift == 0:
            layer["nonlin"] = nn.ELU(inplace=True)

    def laplace(self) -> Tensor:
        """Return the penalty of the first layer's kernels, without its weight."""
        if self._laplacian is None:
            return super().laplace()
        return self._share * _RelativeNorm.apply(self.features[0].conv.weight, self._laplacian)

    def regularizer(self) -> Tensor:
        """Return the penalty of the first layer's kernels, and of the hidden ones' if that has a weight."""
        if self.gamma_hidden == 0:
            return self.gamma_input * self.laplace()
        return super().regularizer()


class _RelativeNorm(torch.autograd.Function):
    """``|x M|^2 / |x|^2`` of kernels ``x`` and a matrix ``M`` that takes their pixels to others."""

    @staticmethod
    def forward(ctx: Any, kernels: Tensor, matrix: Tensor) -> Tensor:
        rows = kernels.flatten(0, 1).flatten(1)
        mapped = rows @ matrix
        squares = rows.square().sum()
        ratio = mapped.square().sum() / squares
        ctx.save_for_backward(kernels, matrix, mapped, squares, ratio)
        return ratio

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        kernels, matrix, mapped, squares, ratio = ctx.saved_tensors
        gradient = (mapped @ matrix.t()).view_as(kernels) - ratio * kernels
        return gradient.mul_(2 * upstream / squares), None
