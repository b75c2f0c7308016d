"""Workers and pools as their tables show them, and which of them are alive.

A worker is alive as long as it has not ended and its last heartbeat is younger than its lease; both are measured on the
database's clock. For a worker or supervisor on this host, the process can be checked, too.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from december_plugin.text.formatting import format_age

SHORT = 8  # characters of an id or a hash that name a worker, pool or job in messages
ENDED = ("ended", "dead")  # states of workers from which no heartbeat is expected


@dataclass(frozen=True)
class WorkerStatus:
    """A worker as it was at its last heartbeat; times are in seconds.

    See Also
    --------
    read_overview : Reads the workers of a lab.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.pool import Worker, WorkerSettings, read_overview
    >>> lab = open_lab(schema="retina")
    >>> lab.tables.SeedAgreement.delete_quick()
    >>> report = Worker(lab.tables, WorkerSettings(only=("SeedAgreement",))).run()
    >>> (worker,) = read_overview(lab.tables).workers
    >>> worker.activity, worker.n_done, worker.alive
    ('ended: nothing is left to do', 12, False)
    """

    worker_id: str
    pool_id: str
    host: str
    pid: int
    gpu: str
    slurm_job: str
    state: str
    detail: str
    lease: float
    heartbeat_age: float
    job_table: str
    job_hash: str
    epoch: int | None
    n_epochs: int | None
    score: float | None
    seconds_left: float | None
    n_done: int
    n_failed: int
    busy_seconds: float
    version: str
    gpu_name: str = ""
    gpu_memory: int = 0  # bytes
    gpu_workers: int = 1

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, or was found dead."""
        return self.state in ENDED

    @property
    def alive(self) -> bool:
        """Whether it has not ended, and its heartbeat is younger than its lease."""
        return not self.has_ended and self.heartbeat_age <= self.lease

    @property
    def overdue(self) -> bool:
        """Whether its heartbeat is overdue."""
        return not self.has_ended and not self.alive

    @property
    def process_is_gone(self) -> bool:
        """Whether it was a process of this host that no longer exists."""
        # Supervisors name their workers in the environment: a restarted container uses the same numbers again.
        name = self.worker_id if self.pool_id else ""
        return self.host == platform.node() and not process_exists(self.pid, worker_id=name)

    @property
    def name(self) -> str:
        """What messages call the worker."""
        place = f"GPU {self.gpu}" if self.gpu else "processor"
        return f"{self.worker_id[:SHORT]} ({place}, process {self.pid} on {self.host})"

    @property
    def gpu_description(self) -> str:
        """Model and memory of its GPU, and how many workers share it, as far as known."""
        words = [
            self.gpu_name,
            f"{self.gpu_memory / 2**30:.0f} GiB" if self.gpu_memory else "",
            f"one of {self.gpu_workers} workers" if self.gpu_name and self.gpu_workers > 1 else "",
        ]
        return ", ".join(word for word in words if word)

    @property
    def activity(self) -> str:
        """What it does, or how it ended, in words."""
        if self.has_ended:
            return f"{self.state}: {self.detail}".rstrip(": ").splitlines()[0]
        if not self.alive:
            return f"no sign of life for {format_age(self.heartbeat_age)}"
        activity = self.state
        if self.job_table:
            activity += f": {self.job_table.strip('_#')} {self.job_hash[:SHORT]}"
        if self.epoch is not None:
            activity += f", epoch {self.epoch} of {self.n_epochs}"
        if self.seconds_left is not None:
            activity += f", {format_age(self.seconds_left)} left"
        return activity + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class PoolStatus:
    """A pool and, if they were requested, its workers; ages are in seconds.

    Attributes
    ----------
    kind
        ``local`` or ``slurm``.
    host, pid, user
        Where and by whom it was started; for a local one, the supervisor's process.
    slurm_job
        The array job of a Slurm pool.
    n_workers
        Workers that it keeps running.
    options
        The command's options, as JSON.
    stop_requested
        0, or 1 for saving the states and ending, or 2 for ending at once.
    age, ended_age
        Time since it was started, and since it ended (None if it has not).

    See Also
    --------
    read_overview : Reads the pools of a lab.

    Examples
    --------
    >>> from december_plugin.pool import PoolStatus
    >>> pool = PoolStatus(
    ...     pool_id="5b1e0f8c", kind="slurm", host="login1", pid=311, user="ana", slurm_job="1234", n_workers=8,
    ...     options="{}", stop_requested=0, age=7200.0, ended_age=None,
    ... )
    >>> pool.description, pool.has_ended
    ('Slurm job 1234, of ana, started 2 h 0 min ago', False)
    """

    pool_id: str
    kind: str
    host: str
    pid: int
    user: str
    slurm_job: str
    n_workers: int
    options: str
    stop_requested: int
    age: float
    ended_age: float | None
    workers: tuple[WorkerStatus, ...] = ()

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, or was closed."""
        return self.ended_age is not None

    @property
    def alive(self) -> tuple[WorkerStatus, ...]:
        """Its workers that are alive."""
        return tuple(worker for worker in self.workers if worker.alive)

    @property
    def supervisor_is_gone(self) -> bool:
        """Whether its supervisor was a process of this host that no longer exists."""
        return self.kind == "local" and self.host == platform.node() and not process_exists(self.pid)

    @property
    def description(self) -> str:
        """What it is, in words."""
        where = f"Slurm job {self.slurm_job}" if self.kind == "slurm" else f"process {self.pid} on {self.host}"
        return f"{where}, of {self.user}, started {format_age(self.age)} ago"


def process_exists(pid: int, *, worker_id: str = "") -> bool:
    """Return whether a process exists on this host and may be ours; its number may have been reused.

    Parameters
    ----------
    pid
        Its number.
    worker_id
        The worker's id, if its environment has it.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # of another user
    process = Path(f"/proc/{pid}")
    try:
        if (process / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return False
        if worker_id:
            return f"DECEMBER_WORKER_ID={worker_id}".encode() in (process / "environ").read_bytes().split(b"\0")
        command = (process / "cmdline").read_bytes()
    except PermissionError:
        return True
    except OSError:  # it has just ended, or this system has no /proc
        return not Path("/proc/self").exists()
    return b"december" in command or b"python" in command
