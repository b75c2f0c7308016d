"""What convolutions of lower precision save in a training, and what they do to its correlation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from benchmarks.gpu.rows import Row
from benchmarks.training import SIZES
from benchmarks.training import measure as measure_training

LIMIT_S = 55
SESSIONS, EPOCHS = 2, 10  # of the paper's size; after so many epochs the correlation has settled
FULL, LOWER = "ours", ("ours, TF32", "ours, bfloat16")


def measure(device: str, *, tiny: bool) -> Iterator[Row]:
    size = dataclasses.replace(SIZES["tiny"], epochs=1)
    if not tiny:
        size = dataclasses.replace(SIZES["paper"], n_sessions=SESSIONS, epochs=EPOCHS)
    measured = measure_training(device, size, ways=[FULL, *LOWER])
    _, full = next(measured)
    yield Row("an epoch in float32", full.seconds, "s", None, f"correlation {full.correlation:.4f}")
    for way, each in measured:
        name = way.removeprefix("ours, ")
        yield Row(f"an epoch in {name}", each.seconds, "s", None, f"correlation {each.correlation:.4f}")
        yield Row(f"times less time in {name}", full.seconds / each.seconds, "times")
        yield Row(f"correlation more than in float32, {name}", each.correlation - full.correlation)
