"""The cost of a training step of the Gaussian readout, forward and backward, compared with neuralpredictors' readout.

The same positions are drawn and the same gradients computed (of the core's output, the positions and their spread, the
features and the bias) by neuralpredictors' own class, by ours with its ``grid_sample``, and by ours with the fused
reading. Measurements take turns; times are medians, on the CPU of the processor time, so that other processes count
less. Memory is what a step allocates at its peak, without the core's output and the parameters. "auto" is the one of
the two that the default setting chooses.

    python benchmarks/readout.py --threads 1 --repeats 5
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from neuralpredictors.layers.readouts import FullGaussian2d as OfNeuralpredictors
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701 (no public path)
from torch.utils._pytree import tree_leaves  # noqa: PLC2701

from december_plugin.models.layers.point_reading import reads_fused
from december_plugin.models.layers.readouts import FullGaussian2d

Step = Callable[[], object]
KINDS = ("neuralpredictors", "grid_sample", "fused")


@dataclass(frozen=True)
class Size:
    """Images of a batch, channels, height and width of the core's output, neurons."""

    images: int
    channels: int
    height: int
    width: int
    neurons: int

    def __str__(self) -> str:
        return f"{self.images} images, {self.channels} x {self.height} x {self.width}, {self.neurons:,} neurons"


SIZES = {
    "demonstration": Size(32, 16, 10, 10, 120),
    "a session of 1,000": Size(32, 64, 28, 56, 1000),
    "SENSORIUM, batch of 32": Size(32, 64, 28, 56, 7800),
    "SENSORIUM, batch of 128": Size(128, 64, 28, 56, 7800),
}


class ReadoutStep:
    """A training step of a readout, forward and backward, the same each time.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    size
        The size of the problem, which alone determines the numbers.
    device
        Where, "cpu" or "cuda".
    dtype
        Type of all numbers.
    drawn
        Whether positions are drawn, as in training; a GPU draws others than the CPU. Otherwise they are the means.
    """

    def __init__(
        self, kind: str, size: Size, device: str, *, dtype: torch.dtype = torch.float32, drawn: bool = True
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        maps = torch.randn(size.images, size.channels, size.height, size.width, generator=generator)
        self.maps = maps.to(device, dtype).requires_grad_()
        self.upstream = torch.randn(size.images, size.neurons, generator=generator).to(device, dtype)
        self.readout = build_readout(kind, size).to(device, dtype)
        self.drawn = drawn

    def __call__(self) -> Tensor:
        torch.manual_seed(0)
        return self.forward_and_backward()

    def forward_and_backward(self) -> Tensor:
        """Do the same with other positions at each call."""
        self.maps.grad = None
        self.readout.zero_grad()
        responses = self.readout(self.maps, sample=self.drawn)
        responses.backward(self.upstream)
        return responses.detach()

    def results(self) -> dict[str, Tensor]:
        """Return responses and gradients by name, from one more step; inputs without influence have none."""
        results = {"responses": self(), "maps": self.maps.grad}
        results |= {name: parameter.grad for name, parameter in self.readout.named_parameters()}
        return {name: value for name, value in results.items() if value is not None}


def build_readout(kind: str, size: Size) -> torch.nn.Module:
    """Return a readout with the settings of the SENSORIUM model and the same weights for every kind."""
    own = {} if kind == "neuralpredictors" else {"kernel": kind, "regularizer_type": "l1"}
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (OfNeuralpredictors if kind == "neuralpredictors" else FullGaussian2d)(
            (size.channels, size.height, size.width),
            size.neurons,
            bias=True,
            init_mu_range=0.3,
            init_sigma=0.1,
            gauss_type="full",
            grid_mean_predictor={"hidden_layers": 1, "hidden_features": 30, "final_tanh": True},
            source_grid=np.random.default_rng(0).uniform(size=(size.neurons, 2)),
            **own,
        )


def median_seconds(steps: Mapping[str, Step], device: str, repeats: int) -> dict[str, float]:
    """Return median seconds of each step, measured in turns after one warm-up each."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for repeat in range(repeats + 1):
        for kind, step in steps.items():
            start = clock()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            if repeat:
                seconds[kind].append(clock() - start)
    return {kind: statistics.median(values) for kind, values in seconds.items()}


def peak_megabytes(step: Step, device: str) -> float:
    """Return by how much a step raises the memory of tensors at its peak, MB."""
    step()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with LiveBytes() as memory:
        step()
    return memory.peak / 1e6


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the live tensors that were made while it is active, on devices without a counter.

    Attributes
    ----------
    now, peak
        In bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, Any] = {}

    def count(self, tensor: Tensor) -> None:
        """Count a tensor's memory until it is freed."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return

        def gone(_: Any) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(results):
            if isinstance(leaf, Tensor) and leaf.layout is torch.strided:
                self.count(leaf)
        return results


def largest_difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return by how much responses and gradients differ, relative to the largest number of each."""
    largest = {name: value.abs().max().clamp_min(torch.finfo(value.dtype).tiny) for name, value in expected.items()}
    return max(float((found[name].to(value) - value).abs().max() / largest[name]) for name, value in expected.items())


def report(name: str, size: Size, device: str, repeats: int) -> list[str]:
    steps = {kind: ReadoutStep(kind, size, device) for kind in KINDS}
    difference = largest_difference(steps["fused"].results(), steps["neuralpredictors"].results())
    seconds = median_seconds(steps, device, repeats)
    maps = torch.empty(size.images, size.channels, size.height, size.width, device=device)
    auto = "fused" if reads_fused("auto", maps, size.neurons) else "grid_sample"
    lines = [f"{name}: {size}; auto: {auto}; fused differs by at most {difference:.1g} of the largest"]
    for kind, value in seconds.items():
        ratio = seconds["neuralpredictors"] / value
        memory = peak_megabytes(steps[kind], device)
        lines.append(f"  {kind:<18}{1e3 * value:>10.2f} ms{memory:>10.1f} MB{ratio:>8.2f} times as fast")
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each (default: %(default)s)")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="default: all")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {arguments.threads} thread(s)"
        print(f"{where}; torch {torch.__version__}; median of {arguments.repeats}, forward and backward\n")
        for name in arguments.sizes:
            print("\n".join(report(name, SIZES[name], device, arguments.repeats)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
