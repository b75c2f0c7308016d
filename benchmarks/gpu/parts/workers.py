"""Several workers on one GPU: trainings per hour of 1, 2 and 4 processes, in turns and through MPS.

A training of the demo's model has 30 epochs of 2 sessions of 250 neurons, one of the paper's model 100 epochs of 7
sessions of 7,800 neurons; starts and loading do not count. No process may take more than its share of the memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.gpu import workers
from benchmarks.gpu.rows import Row

LIMIT_S = 65
ENDING_S = 12  # of these: a part that is killed would leave the daemon of MPS behind


def measure(device: str, *, tiny: bool) -> Iterator[Row]:
    names, processes = (("tiny",), workers.PROCESSES[:2]) if tiny else (("demo", "paper"), workers.PROCESSES)
    ones: dict[str, float] = {}
    until = time.monotonic() + LIMIT_S - ENDING_S
    for found in workers.measure(device, names=names, processes=processes, until=until):
        one = ones.setdefault(found.name, found.per_hour)  # of the first way: a single process does not share
        number = f"{found.number} workers" if found.number > 1 else "1 worker"
        way = f", {found.way}" if found.way and found.number > 1 else ""
        against = f"one worker: {found.per_hour / one:.2f} times" if found.number > 1 else ""
        yield Row(f"the {found.name} model, {number}{way}", found.per_hour, "trainings/h", None, against)
