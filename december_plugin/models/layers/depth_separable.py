"""neuralpredictors' depth-separable convolution, computed faster in float32 on a GPU.

cuDNN has no fast float32 kernels for its parts: on an H200 a matrix product replaces the convolutions of one pixel,
whose weights' gradients take most of the time otherwise, and Triton kernels replace the depthwise one
(:mod:`~december_plugin.models.layers.depthwise_kernels`). In TF32 and in half precision cuDNN's tensor cores are
faster for the convolutions of one pixel; in half precision, with channels last in memory, for all of them.
"""

from __future__ import annotations

import functools
import importlib

import torch
from neuralpredictors.layers.conv import DepthSeparableConv2d as OfNeuralpredictors
from torch import Tensor, nn
from torch.nn import functional

from december_plugin.models.layers import trial

LARGEST = 15  # side of a kernel in pixels: the loop over it is unrolled


class DepthSeparableConv2d(OfNeuralpredictors):
    """Convolutions of one pixel, of each channel by itself, and of one pixel again.

    Settings, parameters and the state dict are those of neuralpredictors'; outputs and gradients are too, on the CPU to
    the last bit and on a GPU to rounding.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Return (images, channels, height', width') of maps (images, channels, height, width)."""
        if not maps.is_cuda or maps.dtype != torch.float32 or torch.is_autocast_enabled():
            return super().forward(maps)
        return pointwise(self.out_depth_conv, depthwise(self.spatial_conv, pointwise(self.in_depth_conv, maps)))


def pointwise(layer: nn.Module, maps: Tensor) -> Tensor:
    """Return a layer's convolution of one pixel of maps (images, channels, height, width) float32."""
    assert isinstance(layer, nn.Conv2d)
    if _tf32_is_allowed():
        return layer(maps)
    matrices = layer.weight.flatten(start_dim=1).expand(len(maps), -1, -1)
    output = torch.bmm(matrices, maps.flatten(start_dim=2))
    if layer.bias is not None:
        output.add_(layer.bias[:, None])
    return output.unflatten(2, maps.shape[2:])


def depthwise(layer: nn.Module, maps: Tensor) -> Tensor:
    """Return a layer's separate convolutions of all channels of maps (images, channels, height, width) float32."""
    assert isinstance(layer, nn.Conv2d)
    if not is_plain_depthwise(layer) or not passes_trial(maps.device):
        return layer(maps)
    output = _convolved(maps, layer.weight)
    return output if layer.bias is None else output.add_(layer.bias[:, None, None])


def _convolved(maps: Tensor, kernels: Tensor) -> Tensor:
    module = importlib.import_module("december_plugin.models.layers.depthwise_kernels")
    output: Tensor = module.DepthwiseConvolution.apply(maps, kernels)
    return output


def is_plain_depthwise(layer: nn.Conv2d) -> bool:
    """Return whether our kernels compute this layer, which keeps the number and size of the maps."""
    side = layer.kernel_size[0]
    return (
        layer.in_channels == layer.out_channels == layer.groups
        and layer.kernel_size == (side, side)
        and side % 2 == 1
        and side <= LARGEST
        and layer.padding == (side // 2, side // 2)
        and layer.padding_mode == "zeros"
        and layer.stride == layer.dilation == (1, 1)
    )


@functools.cache
def passes_trial(device: torch.device) -> bool:
    """Return whether the depthwise kernels run on a device and agree with torch's there; tried once.

    Warns
    -----
    UserWarning
        If they do not, with the reason.
    """
    return trial.passed(
        lambda: _largest_difference(device),
        warning=lambda reason: (
            f"The kernels for depthwise convolutions cannot be used on {device} ({reason}); torch's are used "
            "instead, which are slower in float32. Results are the same to rounding."
        ),
    )


def _largest_difference(device: torch.device) -> float:
    """Return how much output and gradients differ from torch's in a small example."""
    images, channels, height, width, side = 2, 2, 3, 5, 3
    # No random numbers, because those of a training must not change.
    values = torch.linspace(0, 90, images * channels * height * width, device=device).sin()
    maps = values.view(images, channels, height, width).requires_grad_()
    kernels = torch.linspace(0, 20, channels * side * side, device=device).cos().view(channels, 1, side, side)
    sources = (maps, kernels.requires_grad_())
    with torch.enable_grad():
        found = _convolved(*sources)
        expected = functional.conv2d(maps.double(), kernels.double(), padding=side // 2, groups=channels)
        upstream = values.view_as(maps).detach().cos()
        pairs = zip(
            (found, *torch.autograd.grad(found, sources, upstream)),
            (expected, *torch.autograd.grad(expected, sources, upstream.double())),
            strict=True,
        )
        return max(float((one - other).detach().abs().max()) for one, other in pairs)


def _tf32_is_allowed() -> bool:
    """Return whether cuDNN or cuBLAS may round factors to TF32 now."""
    # Since torch 2.9 by operation; the switch for all of cuDNN cannot be read if its operations differ.
    convolutions = getattr(torch.backends.cudnn, "conv", None)
    by_cudnn = torch.backends.cudnn.allow_tf32 if convolutions is None else convolutions.fp32_precision == "tf32"
    return by_cudnn or torch.backends.cuda.matmul.allow_tf32
