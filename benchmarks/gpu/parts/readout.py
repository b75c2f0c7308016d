"""The Gaussian readout as a kernel: errors against float64 on the CPU, time and memory against neuralpredictors'."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.em_step import recorded
from benchmarks.gpu.errors import relative_error
from benchmarks.gpu.fallbacks import reason_against
from benchmarks.gpu.rows import Row, Target
from benchmarks.gpu.timing import peak_bytes, seconds_of
from benchmarks.readout import KINDS, SIZES, ReadoutStep, Size
from december_plugin.models.layers.point_reading import passes_trial

LIMIT_S = 40
COMPARED = Size(16, 64, 28, 56, 2000)  # with float64 on the CPU
MEASURED = SIZES["SENSORIUM, batch of 128"]
TINY = Size(4, 8, 6, 7, 30)
CLOSE = Target(at_most=1e-5, everywhere=True)


def measure(device: str, *, tiny: bool) -> Iterator[Row]:
    reason = reason_against(lambda: passes_trial(torch.device(device)))
    compared = TINY if tiny else COMPARED
    found = ReadoutStep("fused", compared, device, drawn=False).results()
    expected = ReadoutStep("neuralpredictors", compared, "cpu", dtype=torch.float64, drawn=False).results()
    for name, value in expected.items():
        if not value.any():  # of the spread, where positions are not drawn
            continue
        what = "responses" if name == "responses" else f"gradient of {name}"
        yield Row(f"{what}: error against float64", relative_error(found[name], value), "", CLOSE)
    size = TINY if tiny else MEASURED
    steps = {kind: ReadoutStep(kind, size, device) for kind in KINDS}
    seconds = seconds_of(steps, device, repeats=2 if tiny else 20)
    for kind, value in seconds.items():
        yield Row(f"forward and backward, {kind}", 1e3 * value, "ms", None, str(size))
        memory = peak_bytes(steps[kind], device)
        if memory is not None:
            yield Row(f"memory at its peak, {kind}", memory / 1e6, "MB")
    if device == "cuda":
        # Launch by launch the host takes most of the time, for which trainings do not wait.
        replays = {kind: recorded(step.forward_and_backward) for kind, step in steps.items()}
        seconds = seconds_of(replays, device, repeats=20)
        for kind, value in seconds.items():
            yield Row(f"the same in a CUDA graph, as in a training, {kind}", 1e3 * value, "ms")
    faster = seconds["neuralpredictors"] / seconds["fused"]
    yield Row("times less time than neuralpredictors' readout", faster, "times", Target(at_least=3))
    if reason:
        raise SystemExit(reason)
