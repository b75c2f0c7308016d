"""The GPU memory of a training, by arithmetic: no GPU is needed, and nothing is computed.

A training step runs on torch's ``meta`` device, where tensors have sizes but no content, and live tensors are counted
at every operation: parameters, gradients, Adam's moments, what the backward pass keeps, and temporary tensors. Data
that stay on the device are added. Workspaces of cuDNN and the allocator's rounding are not counted. SENSORIUM's way
reads maps with ``grid_sample``; ours with a kernel that keeps a copy of the maps with the channels last.

    python benchmarks/training_memory.py --channels 64 128
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from readout import LiveBytes
from torch import Tensor, nn
from training import SENSORIUM, SIZES, TARGET_MEMORY, Size, model_of, sensorium_model

from december_plugin.models.layers.readouts import FullGaussian2d

META = torch.device("meta")
PARTS = 16  # sums of the gradient of the vectors, before they are added up


class Sizes(torch.autograd.Function):
    """The tensors that the kernel of a Gaussian readout makes and keeps."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, positions: Tensor, vectors: Tensor) -> Tensor:
        dense = maps.contiguous()
        ctx.save_for_backward(dense, positions, vectors)
        return vectors.new_empty(len(maps), len(vectors))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps, positions, vectors = ctx.saved_tensors
        of_positions = torch.empty_like(positions)
        of_vectors = vectors.new_empty(PARTS, *vectors.shape).sum(dim=0)
        places = torch.empty(upstream.numel(), dtype=torch.int32, device=META).sort()
        gradients = torch.empty_like(maps), of_positions, of_vectors
        del places  # only now, as there
        return gradients


def fused(self: FullGaussian2d, x: Tensor, **_: Any) -> Tensor:
    positions = self.sample_grid(len(x))[:, :, 0]
    return Sizes.apply(x.permute(0, 2, 3, 1), positions, self.features[0, :, 0].T) + self.bias


def in_bfloat16(core: nn.Module) -> Callable[[Tensor], Tensor]:
    forward = core.to(torch.bfloat16).forward
    return lambda images: forward(images.bfloat16()).float()


def our_model(size: Size, data_keys: list[str]) -> nn.Module:
    info = {
        "input_dimensions": [1, 1, *size.image_shape],
        "output_dimension": size.n_neurons,
        "mean_responses": None,
        "cell_motor_coordinates": None,
        "pupil_channels": None,
    }
    return model_of(dict.fromkeys(data_keys, info), size, bias_start="zero")


def peak_of_steps(size: Size, *, ours: bool, bfloat16: bool = False) -> int:
    """Return the bytes that a training takes at its peak, without the data that stay on the device."""
    data_keys = [f"session{number + 1}" for number in range(size.n_sessions)]
    model = (our_model(size, data_keys) if ours else sensorium_model(size, data_keys)).to(META)
    optimizer = torch.optim.Adam(model.parameters(), foreach=True)
    with ExitStack() as stack:
        if ours:
            stack.enter_context(mock.patch.object(FullGaussian2d, "forward", fused))
        if bfloat16:
            stack.enter_context(mock.patch.object(model.core, "forward", in_bfloat16(model.core)))
        alive = stack.enter_context(LiveBytes())
        for tensor in (*model.parameters(), *model.buffers()):
            alive.count(tensor)
        for _ in range(2):  # Adam's moments are made in the first step
            for data_key in data_keys:
                add_gradients(model, data_key, size)
            optimizer.step()
        return alive.peak


def add_gradients(model: nn.Module, data_key: str, size: Size) -> None:
    images = torch.empty(size.batch_size, 1, *size.image_shape, device=META)
    responses = torch.empty(size.batch_size, size.n_neurons, device=META)
    rates = model(images, data_key=data_key)
    loss = (rates - responses * torch.log(rates + 1e-12)).sum()
    (loss + model.core.regularizer() + model.readout.regularizer(data_key)).backward()


def bytes_of_data(size: Size, *, responses: bool) -> int:
    """Return the bytes of the data on the device: one for each pixel, four for each response if responses are there."""
    trials = size.n_sessions * (size.n_train + size.n_validation)
    return trials * (size.image_shape[0] * size.image_shape[1] + 4 * size.n_neurons * responses)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="paper", help="default: %(default)s")
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128], help="of the core; default: 64 128")
    arguments = parser.parse_args(argv)
    print(f"{'channels':>8}  {'way':<40}{'steps':>10}{'data':>10}{'together':>11}{'of it':>8}")
    for channels in arguments.channels:
        size = replace(SIZES[arguments.size], channels=channels)
        steps = {
            "ours": peak_of_steps(size, ours=True),
            "ours, bfloat16": peak_of_steps(size, ours=True, bfloat16=True),
        }
        reference = peak_of_steps(size, ours=False)
        rows = [(SENSORIUM, reference, 0)]
        for way, taken in steps.items():
            rows.append((way, taken, bytes_of_data(size, responses=True)))
            rows.append((f"{way}, responses on the host", taken, bytes_of_data(size, responses=False)))
        for way, taken, data in rows:
            together = taken + data
            print(
                f"{channels:>8}  {way:<40}{taken / 1e9:>7.2f} GB{data / 1e9:>7.2f} GB{together / 1e9:>8.2f} GB"
                f"{together / reference:>7.2f}x"
            )
    print(f"target: at most {TARGET_MEMORY:g} of it")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
