"""The DECEMber step at the size of the SENSORIUM 2022 mice: E-step, clustering loss, its gradient, M-step.

The limit that arithmetic sets is in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.em_step import DOF, GPU_TARGET, make_data, measure_on_gpu, step_of_a_gpu
from benchmarks.gpu.fallbacks import reason_against
from benchmarks.gpu.rows import Row, Target
from benchmarks.gpu.timing import seconds_of
from december_plugin.clustering.losses import kernels_work

LIMIT_S = 30
SIZE = (54_569, 128, 100)  # neurons, features, clusters
TINY = (300, 8, 5)


def measure(device: str, *, tiny: bool) -> Iterator[Row]:
    n, d, k = TINY if tiny else SIZE
    size = f"{n:,} neurons, {d} features, {k} clusters"
    if device == "cpu":
        step = step_of_a_gpu(*make_data(n, d, k))
        seconds = seconds_of({"step": step}, device, repeats=2)["step"]
        yield Row("one step", 1e3 * seconds, "ms", Target(at_most=GPU_TARGET), size)
    else:
        where = torch.device(device, torch.cuda.current_device())
        reason = reason_against(lambda: kernels_work(where, k, d, DOF, False))
        found = measure_on_gpu(n, d, k)
        yield Row("one step, launch by launch", found["launches_ms"], "ms", None, size)
        yield Row("one step in a CUDA graph, as in a training", found["graph_ms"], "ms", Target(at_most=GPU_TARGET))
        yield Row("memory of a step at its peak", found["peak_mb"], "MB")
        if reason:
            raise SystemExit(reason)
