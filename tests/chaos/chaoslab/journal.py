"""What the trainings write down themselves: a JSON line when they begin, after every epoch, and when they are through.

Lines are appended with one ``write`` each, so that many processes can share the file and a killed one leaves no half
line. A reader can still meet a line of which only the beginning is written; it waits for the next reading. Nothing here
knows of the database: the journal is what the tables are checked against.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

VARIABLE = "CHAOS_JOURNAL"  # path of the file, in the environment of the workers


def write(event: str, job: str, **values: Any) -> None:
    """Append one line, if this process was given a journal."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    line = json.dumps({"event": event, "job": job, "pid": os.getpid(), "t": time.time(), **values}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def digest(value: Any) -> str:
    """Return a SHA-256 of nested dicts, lists, arrays, tensors and scalars: names, types, shapes and every byte."""
    state = hashlib.sha256()
    _feed(state, value)
    return state.hexdigest()


def _feed(state: Any, value: Any) -> None:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, Mapping):
        state.update(b"{")
        for name in sorted(value, key=str):
            state.update(f"{name!s}:".encode())
            _feed(state, value[name])
    elif isinstance(value, (list, tuple)):
        state.update(b"[")
        for entry in value:
            _feed(state, entry)
    elif isinstance(value, np.ndarray):
        state.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    else:
        value = value.item() if isinstance(value, np.generic) else value
        state.update(f"{type(value).__name__}{value!r};".encode())


@dataclass
class Attempt:
    """One call of a trainer by one worker."""

    job: str
    pid: int
    began: float  # seconds since the epoch, as all times here
    epochs: dict[int, float] = field(default_factory=dict)  # number to the time at which it was done
    ended: float | None = None
    digest: str | None = None
    busy: float = 0.0  # seconds, of trivial jobs

    @property
    def last(self) -> float:
        """When it was last heard of."""
        return self.ended or max(self.epochs.values(), default=self.began)

    def seconds_per_epoch(self) -> float | None:
        """Return the mean time between two epochs of this attempt, or None if it had fewer than two."""
        if len(self.epochs) < 2:
            return None
        times = sorted(self.epochs.values())
        return (times[-1] - times[0]) / (len(times) - 1)


class Journal:
    """Reads the file."""

    def __init__(self, path: Path):
        self.path = path

    def attempts(self) -> list[Attempt]:
        """Return all attempts in the order in which they began."""
        found: list[Attempt] = []
        current: dict[tuple[int, str], Attempt] = {}
        text = self.path.read_text() if self.path.exists() else ""
        for line in text.split("\n")[:-1]:  # the last one is empty, or not yet written to its end
            row = json.loads(line)
            place = (row["pid"], row["job"])
            if row["event"] == "begin":
                current[place] = Attempt(row["job"], row["pid"], row["t"])
                found.append(current[place])
            elif row["event"] == "epoch":
                current[place].epochs[row["epoch"]] = row["t"]
            elif row["event"] == "end":
                attempt = current[place]
                attempt.ended, attempt.digest = row["t"], row.get("digest")
                attempt.busy = row.get("busy", 0.0)
        return found

    def of(self, job: str) -> list[Attempt]:
        """Return the attempts at one job."""
        return [attempt for attempt in self.attempts() if attempt.job == job]

    def epochs_computed(self) -> int:
        """Return how many epochs were computed, counting those once that were computed again."""
        return len({(attempt.job, epoch) for attempt in self.attempts() for epoch in attempt.epochs})

    def epochs_computed_twice(self) -> int:
        """Return how many epochs were computed again, over all trainings."""
        counts: Counter[tuple[str, int]] = Counter()
        for attempt in self.attempts():
            counts.update((attempt.job, epoch) for epoch in attempt.epochs)
        return sum(count - 1 for count in counts.values())
