"""Neurons that read at a point see a window of the image: a convolutional core is run on the windows alone.

A map is read at the four pixels around a point. Going back through a chain of convolutions, each with kernel ``k``,
dilation ``d`` and padding ``p``, these depend on ``2 + sum (k - 1) d`` pixels of the image in each direction, the first
of which is ``sum p`` before that of the map. Within windows nothing is padded, and the part of a window outside a map
is set to 0 before each padded convolution, as padding does: the numbers equal those of the whole image up to rounding.

Running a core once shows whether it is such a chain; code that uses windows also compares the responses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from december_plugin.models.layers.steerable import SteerableConv2d

FEW_CHANNELS = 4  # of a convolution's input: torch's gradient of them is slow on a CPU
SHARE = 0.75  # of the pixels of an image: larger windows are not worth it


@dataclass(frozen=True)
class _Layer:
    """A convolution of the chain: module, rows and columns that it pads, and height and width of its input's map."""

    module: nn.Module
    padding: tuple[int, int]
    size: tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """The geometry of a core's windows.

    Attributes
    ----------
    layers
        The convolutions of the core, the first one first.
    size
        Height and width of a window in pixels.
    before
        Pixels of the image before the first one of the map that is read, rows and columns.
    map_size
        Height and width of the core's output for a whole image.
    """

    layers: tuple[_Layer, ...]
    size: tuple[int, int]
    before: tuple[int, int]
    map_size: tuple[int, int]

    @classmethod
    def of(cls, core: nn.Module, inputs: Tensor) -> Windows | None:
        """Return the windows of a core for inputs of this shape (1, channels, height, width); None if there are none.

        Windows exist if the only modules that change the size of maps are convolutions of stride 1, each run once, in a
        core that takes the model's inputs unchanged.
        """
        layers: list[tuple[nn.Module, tuple[int, ...], tuple[int, ...]]] = []

        def keep(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and given and isinstance(given[0], Tensor):
                layers.append((module, tuple(given[0].shape), tuple(output.shape)))

        hooks = [each.register_forward_hook(keep) for each in core.modules() if not list(each.children())]
        try:
            with torch.no_grad():
                output = core(inputs)
        except (RuntimeError, ValueError, TypeError, AssertionError):  # the model passes it something else
            return None
        finally:
            for hook in hooks:
                hook.remove()
        if not isinstance(output, Tensor) or output.ndim != 4:
            return None
        chain, reach = [], [0, 0]
        for module, before, after in layers:
            if not (hasattr(module, "padding") or hasattr(module, "kernel_size")):
                if before[-2:] != after[-2:]:
                    return None
                continue
            padding = _padding_of(module)
            if padding is None:
                return None
            lost = [b + 2 * p - a for a, b, p in zip(after[2:], before[2:], padding, strict=True)]
            reach = [r + n for r, n in zip(reach, lost, strict=True)]
            chain.append(_Layer(module, padding, (before[2], before[3])))
        size = (reach[0] + 2, reach[1] + 2)
        height, width = inputs.shape[-2:]
        is_chain = bool(chain) and len({layer.module for layer in chain}) == len(chain)
        if not is_chain or size[0] * size[1] > SHARE * height * width:
            return None
        paddings = [layer.padding for layer in chain]
        before_map = (sum(rows for rows, _ in paddings), sum(columns for _, columns in paddings))
        return cls(tuple(chain), size, before_map, (output.shape[2], output.shape[3]))

    def corners(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first of the four pixels of the map that points (n, 2) are read from, (n, 2), and their weights.

        Parameters
        ----------
        points
            Rows and columns on the map, in pixels.
        """
        last = torch.tensor(self.map_size, device=points.device) - 2
        first = torch.minimum(points.floor().long(), last).clamp_min(0)
        beyond = points - first
        weights = torch.stack([1 - beyond, beyond], dim=1)  # (n, row or column, ...)
        return first, (weights[:, :, 0, None] * weights[:, None, :, 1])

    def cut(self, images: Tensor, first: Tensor) -> Tensor:
        """Return the windows (batch, channels, *size) of images; 0 outside.

        Parameters
        ----------
        images
            (batch, channels, height, width).
        first
            The first pixel that is read of each map, (batch, 2).
        """
        height, width = images.shape[-2:]
        starts = first - torch.tensor(self.before, device=first.device)
        rows = starts[:, 0, None] + torch.arange(self.size[0], device=first.device)
        columns = starts[:, 1, None] + torch.arange(self.size[1], device=first.device)
        index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
        index = index.flatten(start_dim=1)[:, None].expand(-1, images.shape[1], -1)
        windows = images.flatten(start_dim=2).gather(2, index).unflatten(2, self.size)
        inside = _inside(rows, columns, (height, width))
        return windows if inside is None else windows * inside.to(windows)

    @contextmanager
    def shown(self, first: Tensor) -> Iterator[None]:
        """Let the core take windows instead of images within the block.

        Parameters
        ----------
        first
            As for :meth:`cut`.
        """
        starts = first - torch.tensor(self.before, device=first.device)
        with ExitStack() as stack:
            if first.device.type == "cpu":
                hook = self.layers[0].module.register_forward_hook(_channels_last)
                stack.callback(hook.remove)
            for layer in self.layers:
                stack.enter_context(_unpadded(layer, starts))
                starts = starts + torch.tensor(layer.padding, device=first.device)
            yield


def _channels_last(_: nn.Module, __: Any, maps: Tensor) -> Tensor:
    """Return maps with their channels side by side in memory, as convolutions are faster on a CPU."""
    return maps.contiguous(memory_format=torch.channels_last)


def _padding_of(module: nn.Module) -> tuple[int, int] | None:
    """Return the rows and columns of zeros that a convolution of stride 1 pads; None of anything else."""
    if isinstance(module, nn.Conv2d):
        is_known = module.stride == (1, 1) and module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return (int(module.padding[0]), int(module.padding[1])) if is_known else None
    if isinstance(module, SteerableConv2d):
        return module.padding, module.padding
    return None


@contextmanager
def _unpadded(layer: _Layer, starts: Tensor) -> Iterator[None]:
    """Let a convolution of windows with these first pixels, (batch, 2), not pad within the block."""
    module: Any = layer.module
    padding = module.padding
    hook = None

    def outside_is_empty(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maps = given[0]
        rows = starts[:, 0, None] + torch.arange(maps.shape[2], device=maps.device)
        columns = starts[:, 1, None] + torch.arange(maps.shape[3], device=maps.device)
        inside = _inside(rows, columns, layer.size)
        return given if inside is None else (maps * inside.to(maps), *given[1:])

    if any(layer.padding):
        hook = module.register_forward_pre_hook(outside_is_empty)
    small = isinstance(module, nn.Conv2d) and module.in_channels <= FEW_CHANNELS and module.groups == 1
    small = small and module.dilation == (1, 1) and "forward" not in vars(module)
    if small:
        module.forward = lambda maps: _FewChannels.apply(maps, module.weight.detach(), _detached(module.bias))
    try:
        module.padding = 0 if isinstance(padding, int) else (0, 0)
        yield
    finally:
        module.padding = padding
        if small:
            del module.forward
        if hook is not None:
            hook.remove()


def _detached(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()


def _inside(rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor | None:
    """Return which pixels (batch, 1, rows, columns) are within a map; None if all of them are."""
    in_rows, in_columns = ((rows >= 0) & (rows < size[0])), ((columns >= 0) & (columns < size[1]))
    if bool(in_rows.all()) and bool(in_columns.all()):
        return None
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


class _FewChannels(torch.autograd.Function):
    """A convolution without padding of few channels, whose gradient is a product of matrices and a sum."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size = maps.shape[2:]
        return functional.conv2d(maps, weight, bias)

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        columns = weight.flatten(start_dim=1).T @ above[0].flatten(start_dim=2)
        return functional.fold(columns, ctx.size, weight.shape[2:]), None, None
