"""Pools as their tables show them: which there are, which of their workers live, and the request to stop."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from december_plugin.errors import SettingsError
from december_plugin.pool.jobs.leases import AGE, SHORT

_POOL_COLUMNS = (
    "pool_id",
    "pool_kind",
    "pool_host",
    "pool_pid",
    "pool_user",
    "slurm_job",
    "n_workers",
    "pool_options",
    "stop_requested",
)
_WORKER_COLUMNS = (
    "worker_id",
    "pool_id",
    "worker_host",
    "worker_pid",
    "worker_gpu",
    "worker_state",
    "worker_detail",
    "lease",
    "job_table",
    "job_hash",
    "job_epoch",
    "job_n_epochs",
    "job_seconds_left",
)


@dataclass(frozen=True)
class WorkerSign:
    """The last that was heard of a worker of a pool; ``age`` of that and ``lease`` are in seconds."""

    row: Mapping[str, Any]
    age: float

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended, and its heartbeat is younger than its lease."""
        return self.row["worker_state"] not in ("ended", "dead") and self.age <= self.row["lease"]

    @property
    def name(self) -> str:
        """The worker, as in messages."""
        place = f"GPU {self.row['worker_gpu']}" if self.row["worker_gpu"] else "processor"
        return (
            f"{self.row['worker_id'][:SHORT]} ({place}, process {self.row['worker_pid']} on {self.row['worker_host']})"
        )

    @property
    def words(self) -> str:
        """What it does."""
        row = self.row
        if row["worker_state"] in ("ended", "dead"):
            return f"{row['worker_state']}: {row['worker_detail']}".rstrip(": ").splitlines()[0]
        if not self.is_alive:
            return f"no sign of life for {duration(self.age)}"
        words = row["worker_state"]
        if row["job_table"]:
            words += f": {row['job_table'].strip('_#')} {row['job_hash'][:SHORT]}"
        if row["job_epoch"] is not None:
            words += f", epoch {row['job_epoch']} of {row['job_n_epochs']}"
        if row["job_seconds_left"] is not None:
            words += f", {duration(row['job_seconds_left'])} left"
        return words + (f" ({row['worker_detail']})" if row["worker_detail"] else "")


@dataclass(frozen=True)
class PoolSign:
    """A pool with its workers; ``age`` is the time since it was started (s)."""

    row: Mapping[str, Any]
    age: float
    has_ended: bool
    workers: tuple[WorkerSign, ...]

    @property
    def pool_id(self) -> str:
        """The id."""
        return str(self.row["pool_id"])

    @property
    def alive(self) -> tuple[WorkerSign, ...]:
        """Workers that give signs of life."""
        return tuple(worker for worker in self.workers if worker.is_alive)

    @property
    def supervisor_is_gone(self) -> bool:
        """Whether its supervisor was a process of this host that no longer exists."""
        is_ours = self.row["pool_kind"] == "local" and self.row["pool_host"] == platform.node()
        return is_ours and not _is_december(int(self.row["pool_pid"]))

    @property
    def words(self) -> str:
        """What it is."""
        row = self.row
        where = f"process {row['pool_pid']} on {row['pool_host']}"
        if row["pool_kind"] == "slurm":
            where = f"Slurm job {row['slurm_job']}"
        return f"{where}, of {row['pool_user']}, started {duration(self.age)} ago"


def pools(connection: Any, schema: str, *, running: bool = True) -> list[PoolSign]:
    """Return the pools of a schema, oldest first; with ``running`` only those that have not ended."""
    names = ", ".join(_POOL_COLUMNS)
    found = connection.query(
        f"SELECT {names}, {AGE.format('pool_started')}, pool_ended IS NOT NULL FROM `{schema}`.`pool` "
        + ("WHERE pool_ended IS NULL " if running else "")
        + "ORDER BY pool_started, pool_id"
    ).fetchall()
    workers: dict[str, list[WorkerSign]] = {row[0]: [] for row in found}
    if workers:
        rows = connection.query(
            f"SELECT {', '.join(_WORKER_COLUMNS)}, {AGE.format('heartbeat')} FROM `{schema}`.`pool_worker` "
            f"WHERE pool_id IN ({', '.join(['%s'] * len(workers))}) ORDER BY worker_host, worker_gpu, worker_started",
            args=tuple(workers),
        ).fetchall()
        for *values, age in rows:
            sign = WorkerSign(dict(zip(_WORKER_COLUMNS, values, strict=True)), float(age))
            workers[sign.row["pool_id"]].append(sign)
    return [
        PoolSign(dict(zip(_POOL_COLUMNS, values, strict=True)), float(age), bool(has_ended), tuple(workers[values[0]]))
        for *values, age, has_ended in found
    ]


def living_workers(connection: Any) -> list[tuple[str, WorkerSign]]:
    """Return the workers of all schemas of a server that are alive, with their schemas.

    Those of this host whose processes are gone do not count, though their heartbeats may be young.
    """
    schemas = connection.query(
        "SELECT table_schema FROM information_schema.tables WHERE table_name = 'pool_worker' ORDER BY table_schema"
    ).fetchall()
    found = []
    for (schema,) in schemas:
        rows = connection.query(
            f"SELECT {', '.join(_WORKER_COLUMNS)}, {AGE.format('heartbeat')} FROM `{schema}`.`pool_worker` "
            "WHERE worker_state NOT IN ('ended', 'dead') ORDER BY worker_host, worker_gpu, worker_started"
        ).fetchall()
        for *values, age in rows:
            sign = WorkerSign(dict(zip(_WORKER_COLUMNS, values, strict=True)), float(age))
            is_ours = sign.row["worker_host"] == platform.node()
            if sign.is_alive and not (is_ours and not _is_december(int(sign.row["worker_pid"]))):
                found.append((str(schema), sign))
    return found


def choose_pools(found: Sequence[PoolSign], beginning: str | None) -> list[PoolSign]:
    """Return the pools whose id begins like this, or all.

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


def request_stop(connection: Any, schema: str, pool_ids: Sequence[str], *, how: int) -> None:
    """Ask pools to stop; ``how`` is 1 for saving the states first, 2 for at once. It is never taken back."""
    for pool_id in pool_ids:
        connection.query(
            f"UPDATE `{schema}`.`pool` SET stop_requested = GREATEST(stop_requested, %s) WHERE pool_id = %s",
            args=(how, pool_id),
        )


def duration(seconds: float) -> str:
    """Return a time in words, with its two largest units."""
    seconds = max(0, round(seconds))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def _is_december(pid: int) -> bool:
    """Return whether this process exists and may be one of ours; its number may have been given to another."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # of another user
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return Path("/proc/self").exists() is False
    return state != "Z" and (b"december" in words or b"python" in words)
