"""The DECEMber step at the size of the SENSORIUM 2022 mice: E-step, clustering loss, its gradient, M-step.

The limit that arithmetic sets is in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from benchmarks.em_step import DOF, make_data
from benchmarks.gpu.rows import Row, Target
from benchmarks.gpu.timing import peak_bytes, seconds_of
from december_plugin.clustering.losses import DECEMber

LIMIT_S = 35
SIZE = (54_569, 128, 100)  # neurons, features, clusters
TINY = (300, 8, 5)


def december_step(device: str, n: int, d: int, k: int) -> Callable[[], None]:
    """Return a step that is the same each time, but for the clusters that it moves."""
    data, centers = (torch.from_numpy(array).to(device) for array in make_data(n, d, k))
    vectors = data.requires_grad_()
    december = DECEMber(k, d, dof=DOF).to(device)
    december.mixture.centers.copy_(centers)
    december.mixture.scales.fill_(1)

    def step() -> None:
        vectors.grad = None
        december.loss(vectors).backward()
        december.m_step(vectors.detach())

    return step


def recorded(step: Callable[[], None]) -> Callable[[], None]:
    """Return the replay of a CUDA graph of the step."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def measure(device: str, *, tiny: bool) -> Iterator[Row]:
    n, d, k = TINY if tiny else SIZE
    step = december_step(device, n, d, k)
    seconds = seconds_of({"step": step}, device, repeats=2 if tiny else 20, calls=1 if tiny else 10)["step"]
    size = f"{n:,} neurons, {d} features, {k} clusters"
    yield Row(f"one step, {size}", 1e3 * seconds, "ms", Target(at_most=1))
    memory = peak_bytes(step, device)
    if memory is not None:
        yield Row("memory that a step takes at its peak", memory / 1e6, "MB")
    if device == "cuda":
        replay = recorded(step)
        seconds = seconds_of({"graph": replay}, device, repeats=20, calls=10)["graph"]
        yield Row(f"one step in a CUDA graph, {size}", 1e3 * seconds, "ms", Target(at_most=1))
