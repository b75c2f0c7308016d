"""Keeps a number of workers running while faults take them down."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass

import pymysql

from chaoslab.laboratory import Bench, Worker


@dataclass(frozen=True)
class Member:
    """A worker process that can be the target of a fault."""

    worker_id: str
    pid: int


class Crew:
    """Some ``december worker`` processes, as on hosts whose supervisor tells nobody: a death shows in the lease only.

    Parameters
    ----------
    bench
        Where they work.
    size
        How many are kept running.
    options
        More options of ``december worker``.
    """

    def __init__(self, bench: Bench, size: int, *options: str):
        self.bench, self.size, self.options = bench, size, options
        self.running: list[Worker] = []
        self.codes: Counter[int] = Counter()

    def tend(self, *, replace: bool = True) -> None:
        """Note who ended; start others in their place."""
        for worker in [worker for worker in self.running if worker.code is not None]:
            self.running.remove(worker)
            self.codes[worker.code or 0] += 1
        while replace and len(self.running) < self.size:
            self.running.append(self.bench.start_worker("--poll", "0.5", *self.options))

    def members(self) -> list[Member]:
        """Return the workers that live."""
        return [Member(worker.worker_id, worker.pid) for worker in self.running if worker.code is None]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End all of them, and wait."""
        for worker in self.running:
            if worker.code is None:
                worker.signal(number)
        for worker in self.running:
            try:
                worker.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self.tend(replace=False)


class PoolCrew:
    """The workers of a ``december pool``: its supervisor restarts them, and tells the others of a death at once."""

    def __init__(self, bench: Bench, size: int, *options: str):
        self.bench, self.size = bench, size
        words = [sys.executable, "-m", "december_plugin.cli", "pool", "--cpu", str(size), *bench.worker_options()]
        log = bench.logs / "pool.log"
        environment = bench.environment()
        self.process = bench.laboratory.start(
            [*words, *options], log=log, cwd=bench.desk, env=environment, start_new_session=True
        )
        self.log = log

    def tend(self) -> None:
        """Nothing: the supervisor does."""

    def members(self) -> list[Member]:
        """Return its workers that live, by their heartbeat rows."""
        with contextlib.suppress(pymysql.err.MySQLError):
            rows = self.bench.query(
                "SELECT worker_id, worker_pid FROM pool_worker WHERE worker_ended IS NULL AND pool_id <> ''"
            )
            # Its own children only: a process id may have been given to somebody else's process since.
            ours = [row for row in rows if _parent(row["worker_pid"]) == self.process.pid]
            return [Member(row["worker_id"], row["worker_pid"]) for row in ours]
        return []

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Drain it, and wait."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _parent(pid: int) -> int | None:
    """Return the parent of a process that is not a zombie, or None."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, parent = file.read().rsplit(")", 1)[1].split()[:2]
    except OSError:
        return None
    return int(parent) if state != "Z" else None
