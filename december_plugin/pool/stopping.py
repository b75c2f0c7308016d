"""``december pool stop``: asks pools to end, waits for them, and closes those that can no longer answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from december_plugin.errors import SettingsError
from december_plugin.pool.liveness import SHORT

if TYPE_CHECKING:
    from december_plugin.pool.jobs.records import PoolRecords
    from december_plugin.pool.liveness import PoolStatus, WorkerStatus

PAUSE = 0.5  # between two looks (s)
PAUSE_SLURM = 5.0  # between two questions to Slurm (s)
REMINDER = 15.0  # between two lines that say what it waits for (s)
SILENCE = 30.0  # a pool on another host that does not answer and has no living worker is closed after this time (s)


def stop_pools(connection: Any, schema: str, *, beginning: str | None = None, now: bool = False) -> int:
    """Stop the running pools of a schema, or those whose id begins with this, and return the exit code, 0.

    It works without the supervisors: workers read the request themselves, and it stays in the table.

    Parameters
    ----------
    connection
        A DataJoint connection.
    schema
        Where the tables of pools are.
    beginning
        Of the ids of the pools to stop; None stops all.
    now
        Kill the workers instead of letting them save their state.

    Raises
    ------
    SettingsError
        If no running pool has such an id.
    """
    from december_plugin.pool.jobs.records import PoolRecords
    from december_plugin.pool.supervisor.supervisor import STOP, STOP_NOW

    records = PoolRecords(connection, schema)
    waiting = choose_pools(records.pools(), beginning)
    if not waiting:
        print(f"No pool is running in the schema {schema}.")
        return 0
    for pool in waiting:
        records.request_stop(pool.pool_id, how=STOP_NOW if now else STOP)
    for pool in waiting:
        print(f"pool {pool.pool_id[:8]} ({pool.description}): asked to stop", flush=True)
    _Waiting(records, [pool.pool_id for pool in waiting], now=now).until_all_have_ended()
    return 0


def choose_pools(found: Sequence[PoolStatus], beginning: str | None) -> list[PoolStatus]:
    """Return the pools whose id begins with this, or all.

    Raises
    ------
    SettingsError
        If there is none.
    """
    if beginning is None:
        return list(found)
    chosen = [pool for pool in found if pool.pool_id.startswith(beginning.lower())]
    if not chosen:
        there = ", ".join(pool.pool_id[:SHORT] for pool in found)
        raise SettingsError(
            f"no pool whose id begins with {beginning!r} is running. "
            + (f"Running: {there}." if there else "None is running in this schema.")
        )
    return chosen


class _Waiting:
    def __init__(self, records: PoolRecords, pool_ids: Sequence[str], *, now: bool):
        self.records, self.now = records, now
        self.left = list(pool_ids)
        self.alive: dict[str, str] = {}  # names of workers that were alive at the last check, by their ids
        self._quiet_since: dict[str, float] = {}
        self._asked_slurm = self._reminded = float("-inf")
        self._complained = False

    def until_all_have_ended(self) -> None:
        self._reminded = time.monotonic()
        while self.left:
            found = {pool.pool_id: pool for pool in self.records.pools(running=False)}
            waiting = [found[pool_id] for pool_id in self.left if pool_id in found]
            self._tell_ends([worker for pool in waiting for worker in pool.workers])
            ends = self._ends(waiting)
            for pool in waiting:
                if pool.pool_id in ends:
                    print(f"pool {pool.pool_id[:8]} {ends[pool.pool_id]}", flush=True)
            self.left = [pool.pool_id for pool in waiting if pool.pool_id not in ends]
            if self.left:
                self._remind()
                time.sleep(PAUSE)

    def _tell_ends(self, workers: Sequence[WorkerStatus]) -> None:
        alive = {worker.worker_id: worker.name for worker in workers if worker.alive}
        for worker in workers:
            if worker.worker_id in self.alive and worker.worker_id not in alive:
                print(f"  worker {worker.name}: {worker.activity}", flush=True)
        self.alive = alive

    def _ends(self, waiting: Sequence[PoolStatus]) -> dict[str, str]:
        """Return in words how pools have ended, for those that have; a pool that cannot say so itself is closed."""
        over = self._arrays_that_are_over(waiting)
        ends: dict[str, str] = {}
        for pool in waiting:
            if pool.has_ended:
                ends[pool.pool_id] = "has ended"
                continue
            if pool.alive:
                self._quiet_since.pop(pool.pool_id, None)
                continue
            quiet_for = time.monotonic() - self._quiet_since.setdefault(pool.pool_id, time.monotonic())
            if pool.supervisor_is_gone:
                ends[pool.pool_id] = "is closed: its supervisor has ended, and no worker is left"
            elif pool.pool_id in over:
                ends[pool.pool_id] = "has ended"
            elif quiet_for >= max([SILENCE, *(worker.lease for worker in pool.workers)]):
                ends[pool.pool_id] = "is closed: it gives no sign of life"
            if pool.pool_id in ends:
                self.records.end_pool(pool.pool_id)
        return ends

    def _arrays_that_are_over(self, waiting: Sequence[PoolStatus]) -> set[str]:
        """Prevent the tasks of arrays from coming back; return the pools whose arrays are over."""
        arrays = [pool for pool in waiting if pool.slurm_job and not pool.has_ended]
        if not arrays or time.monotonic() - self._asked_slurm < PAUSE_SLURM:
            return set()
        from december_plugin.pool.slurm.array import SlurmError, cancel_all, cancel_pending, slurm_status

        self._asked_slurm = time.monotonic()
        try:
            for pool in arrays:
                (cancel_all if self.now else cancel_pending)(pool.slurm_job)
            return {pool_id for pool_id, status in slurm_status(arrays).items() if status.is_over}
        except SlurmError as error:
            if not self._complained:
                print(f"Slurm: {error} Tasks that start later find the request, and end.", file=sys.stderr)
            self._complained = True
            return set()

    def _remind(self) -> None:
        if time.monotonic() - self._reminded >= REMINDER:
            self._reminded = time.monotonic()
            names = ", ".join(self.alive.values()) or "the pools themselves"
            print(f"waiting for {names}; Ctrl-C ends only the waiting", flush=True)
