"""A job as the tables show it, and the right to store its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from december_plugin.pool.liveness import SHORT, WorkerStatus

STATES = {"reserved": "running", "error": "failed", "ignore": "ignored"}  # of ~jobs, in our words


@dataclass(frozen=True)
class Job:
    """One job; how much is known about it depends on what has read it. Ages and times are on the database's clock.

    Attributes
    ----------
    table, job_hash, key
        Which job: the table's name, DataJoint's hash, the primary key (None if it is not known).
    state
        ``running``, ``failed``, ``poisoned`` or ``ignored`` with a row in ``~jobs``; ``waiting``, ``done`` or
        ``planned`` without.
    host, pid, user
        Who wrote the row in ``~jobs``; empty without one.
    age
        Age of that row (s); 0 without one.
    reason, stack
        Message and traceback of a failure.
    holder
        Id of the worker that holds the lease; empty if none does, as for a plain ``populate()``.
    worker
        The holder, or the worker that held it last, if anything is known about it.
    n_starts, n_deaths
        Numbers of attempts, and of those that ended with a dead worker; 0 if no worker has begun it.
    elapsed
        Time since the last attempt began (s).
    has_record
        Whether a worker has ever begun it.
    last_worker, last_words, log_file
        Of the last attempt: who, how it ended, and ``host:path`` of its log.
    begun, ended
        Of the last attempt (UTC).

    See Also
    --------
    read_overview : Reads the jobs of a lab.

    Examples
    --------
    >>> from december_plugin.pool import Job
    >>> job = Job("TrainedModel", "9c1185a5c5e9fc54612808977ee8f548", "failed", host="gpu3", pid=4711, user="ana")
    >>> str(job), job.reserved_by
    ('TrainedModel 9c1185a5', 'process 4711 on gpu3 (database user ana)')
    """

    table: str
    job_hash: str
    state: str
    key: dict[str, Any] | None = field(default=None, hash=False)
    host: str = ""
    pid: int = 0
    user: str = ""
    age: float = 0.0
    reason: str = ""
    stack: str = ""
    holder: str = ""
    worker: WorkerStatus | None = None
    n_starts: int = 0
    n_deaths: int = 0
    elapsed: float | None = None
    has_record: bool = False
    last_worker: str = ""
    last_words: str = ""
    log_file: str = ""
    begun: datetime | None = None
    ended: datetime | None = None

    @property
    def id(self) -> str:
        """Short name."""
        return self.job_hash[:SHORT]

    @property
    def is_alive(self) -> bool:
        """Whether a live worker computes it."""
        return bool(self.holder) and self.worker is not None and self.worker.alive

    @property
    def reserved_by(self) -> str:
        """Who wrote the row in ``~jobs``, in words; empty without one."""
        return f"process {self.pid} on {self.host} (database user {self.user})" if self.host else ""

    def __str__(self) -> str:
        return f"{self.table} {self.id}"


@dataclass(frozen=True)
class Lease:
    """The right to store a job: its table and hash, the holder, and how often the job had been begun."""

    job_schema: str
    job_table: str
    job_hash: str
    worker_id: str
    n_starts: int

    @property
    def job(self) -> tuple[str, str]:
        """Table and hash."""
        return self.job_table, self.job_hash


@dataclass(frozen=True)
class ReleasedJob:
    """A job whose lease was taken away from a worker that died."""

    job_schema: str
    job_table: str
    job_hash: str
    worker_id: str
    n_deaths: int
    n_fruitless: int  # of these, since the last checkpoint
    poisoned: bool
