"""Seconds and memory of work on a device, which continues after a call has returned."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Step = Callable[[], object]


def synchronize(device: str) -> None:
    """Wait until the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(steps: Mapping[str, Step], device: str, *, repeats: int, calls: int = 1) -> dict[str, float]:
    """Return the median seconds of each step, measured in turns after one warm-up each.

    Parameters
    ----------
    steps
        Name to a function without arguments.
    device
        ``"cuda"`` or ``"cpu"``.
    repeats
        Measurements of each.
    calls
        Calls in one measurement: a step of microseconds needs several, or the wait for the device counts as well.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            synchronize(device)
            start = time.perf_counter()
            for _ in range(calls):
                step()
            synchronize(device)
            if repeat:
                seconds[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_bytes(step: Step, device: str) -> int | None:
    """Return by how much a call raises the peak memory in use on a GPU; None on a CPU, which is not measured."""
    if device != "cuda":
        return None
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
