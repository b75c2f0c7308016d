"""An epoch at the paper's scale, 7 sessions of 7,800 neurons and 4,500 images, against SENSORIUM's way (in TF32)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from benchmarks.gpu.fallbacks import heard, reason_against
from benchmarks.gpu.rows import Row, Target
from benchmarks.training import SENSORIUM, SIZES, TARGET_MEMORY, TARGET_SECONDS, Measured
from benchmarks.training import measure as measure_training
from december_plugin.models.layers.depth_separable import passes_trial

LIMIT_S = 120
EPOCHS = 1  # measured of each: they differ by one percent, and a part has two minutes
OURS, DECEMBER = "ours", "ours, DECEMber"
TF32 = "ours, TF32"  # torch's default, which is the precision of SENSORIUM's way
BFLOAT16 = "ours, bfloat16"
# What takes least of the memory; bfloat16's correlations are compared in the part precision.
LEAN = "ours, bfloat16, responses on the host"


def measure(device: str, *, tiny: bool) -> Iterator[Row]:
    size = dataclasses.replace(SIZES["tiny" if tiny else "paper"], epochs=EPOCHS)
    ways = [SENSORIUM, OURS, LEAN] if tiny else [SENSORIUM, OURS, TF32, BFLOAT16, LEAN, DECEMBER]
    reason = reason_against(lambda: passes_trial(torch.device(device))) if device == "cuda" else ""
    with heard("december_plugin.training") as warned:
        measured = measure_training(device, size, ways=ways)
        way, reference = next(measured)
        yield from _rows(way, reference)
        for way, each in measured:
            yield from _rows(way, each)
            target = None if way == DECEMBER else Target(at_least=TARGET_SECONDS)
            faster = reference.seconds / each.seconds
            yield Row(f"times less time than SENSORIUM's way, {way}", faster, "times", target)
            if each.peak_bytes is not None and reference.peak_bytes:
                share = each.peak_bytes / reference.peak_bytes
                target = Target(at_most=TARGET_MEMORY) if way == LEAN else None
                yield Row(f"share of the memory of SENSORIUM's way, {way}", share, "", target)
    if reason or warned:
        raise SystemExit(" / ".join([reason, *warned] if reason else warned))


def _rows(way: str, measured: Measured) -> Iterator[Row]:
    yield Row(f"an epoch, {way}", measured.seconds, "s")
    if measured.peak_bytes is not None:
        yield Row(f"memory at its peak, {way}", measured.peak_bytes / 1e9, "GB")
    yield Row(f"validation correlation after the last epoch, {way}", measured.correlation)
