"""Follows who holds which job, from the outside: the tables are read every fraction of a second."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import pymysql

from chaoslab.laboratory import Bench


@dataclass
class Hold:
    """One attempt at a job, as the tables showed it."""

    job: str
    start: int  # how often the job was begun then
    worker_id: str
    first_seen: float  # seconds since the epoch
    free: float | None = None  # when somebody else could have taken it, or nobody needed to


class Watch:
    """Reads ``PoolJob`` again and again.

    Parameters
    ----------
    bench
        Whose tables.
    """

    def __init__(self, bench: Bench):
        self.bench = bench
        self.holds: dict[tuple[str, int], Hold] = {}
        self.looked = 0.0
        self.alive: list[tuple[float, bool]] = []  # when it was noted, and whether a worker was there

    def look(self) -> list[dict[str, Any]] | None:
        """Read the table; None if the server is away."""
        try:
            rows = self.bench.query("SELECT * FROM pool_job")
        except pymysql.err.MySQLError:
            return None
        self.looked = time.time()
        current = {(row["job_hash"], row["n_starts"]) for row in rows if row["job_state"] == "running"}
        for row in rows:
            place = (row["job_hash"], row["n_starts"])
            if place in current and place not in self.holds:
                self.holds[place] = Hold(row["job_hash"], row["n_starts"], row["worker_id"], self.looked)
        for place, hold in self.holds.items():
            if place not in current and hold.free is None:
                hold.free = self.looked
        return rows

    def note_alive(self, worker_ids: Collection[str]) -> None:
        """Note whether one of these processes has shown a heartbeat: only a live worker can release a lease."""
        rows = self.bench.query("SELECT worker_id FROM pool_worker")
        self.alive.append((time.time(), any(row["worker_id"] in worker_ids for row in rows)))

    def seconds_without_a_worker(self, begin: float, end: float) -> float:
        """Return for how long within a span there was no live worker (s)."""
        seconds = 0.0
        for (t, alive), (until, _) in itertools.pairwise([*self.alive, (end, True)]):
            if not alive:
                seconds += max(0.0, min(until, end) - max(t, begin))
        return seconds

    def held_by(self, worker_id: str) -> Hold | None:
        """Return what a worker holds now."""
        self.look()
        held = [hold for hold in self.holds.values() if hold.free is None and hold.worker_id == worker_id]
        return held[-1] if held else None

    def wait(self, condition: Callable[[], Any], what: str, *, seconds: float = 120) -> Any:
        """Look until the condition holds, and return its value."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not happen within {seconds:.0f} s")
            self.look()
            time.sleep(0.1)
        return value


def reservations(bench: Bench, status: str = "reserved") -> int:
    """Return the number of rows in DataJoint's table of jobs."""
    return bench.count("~jobs", f"status = '{status}'")


def deaths(bench: Bench) -> int:
    """Return how many attempts were counted as ended by a death, over all jobs."""
    return int(bench.query("SELECT COALESCE(SUM(n_deaths), 0) AS n FROM pool_job")[0]["n"])


def job_states(bench: Bench) -> dict[str, int]:
    """Return how many jobs are in which state."""
    rows = bench.query("SELECT job_state, COUNT(*) AS n FROM pool_job GROUP BY job_state")
    return {row["job_state"]: int(row["n"]) for row in rows}
