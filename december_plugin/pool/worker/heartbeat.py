"""The heartbeat of a worker: a thread that tells the database that the worker is alive, and the worker when to stop.

The thread has its own connection and continues while torch computes. It writes the worker's row, checks whether the
lease of the current job is still valid and whether the pool was asked to stop, and gives back the jobs of workers that
died.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from december_plugin import __version__
from december_plugin.database.outages import CONNECTION_ERRORS
from december_plugin.pool.jobs.job import Lease, ReleasedJob
from december_plugin.pool.jobs.leases import Leases
from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.liveness import WorkerStatus
from december_plugin.pool.worker.gpu import WorkerGpu

logger = logging.getLogger(__name__)

BEATS_PER_LEASE = 4
SHORTEST_PAUSE = 1.0  # between two beats (s): not every short job causes a beat
HOLDS_SECONDS = 5.0  # after this time, jobs that were claimed with others and have not begun are given back
CALM = CONNECTION_ERRORS  # raised by an outage; the thread tries again


@dataclass(frozen=True)
class WorkerIdentity:
    """The identity of a worker, as in its row of ``PoolWorker``."""

    worker_id: str
    pool_id: str = ""
    gpu: str = ""
    slurm_job: str = ""
    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)

    @classmethod
    def from_environment(cls, new_id: str) -> WorkerIdentity:
        """Return what a supervisor, or Slurm, has set, with ``new_id`` if no id is set."""
        environment = os.environ
        job, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
        return cls(
            worker_id=environment.get("DECEMBER_WORKER_ID") or new_id,
            pool_id=environment.get("DECEMBER_POOL_ID", ""),
            gpu=environment.get("DECEMBER_GPU", environment.get("CUDA_VISIBLE_DEVICES", ""))[:64],
            slurm_job=f"{job}_{task}" if job else environment.get("SLURM_JOB_ID", ""),
        )


@dataclass
class WorkerState:
    """What the worker is doing. The main thread writes it, the heartbeat reads it."""

    state: str = "working"  # also while looking for its first job; idle after finding none
    detail: str = ""
    lease: Lease | None = None
    epoch: int | None = None
    n_epochs: int | None = None
    score: float | None = None
    seconds_left: float | None = None
    n_done: int = 0
    n_failed: int = 0
    busy_seconds: float = 0.0
    has_checkpoint: bool = False  # a new one that the database does not know yet
    gpu: WorkerGpu = field(default_factory=WorkerGpu.from_environment)
    n_in_line: int = 0  # jobs that were claimed with the current one and follow it
    claimed_at: float = 0.0  # when these were, by time.monotonic()

    @property
    def holds_too_much(self) -> bool:
        """Whether jobs have waited so long for their turn that others should do them."""
        return self.n_in_line > 0 and self.lease is not None and time.monotonic() - self.claimed_at > HOLDS_SECONDS

    def begin(self, lease: Lease) -> None:
        """Take up a job."""
        self.epoch = self.n_epochs = self.score = self.seconds_left = None
        self.has_checkpoint = False
        self.state, self.detail, self.lease = "working", "", lease

    def end(self) -> None:
        """Be idle."""
        self.lease = None
        self.epoch = self.n_epochs = self.score = self.seconds_left = None
        self.state, self.detail = "idle", ""


class Heartbeat:
    """Writes the worker's row every quarter of the lease, in a thread.

    Parameters
    ----------
    identity, state
        What is written.
    leases
        Of the schema.
    lease
        The worker counts as dead when its heartbeat is older than this (s).
    connect
        Opens the connection; called again after an outage.
    ask_to_stop
        Called, once, with the reason, when the pool was asked to stop, the time is over or the supervisor has ended.
    deadline
        Value of ``time.monotonic()`` at which the worker must stop, or None.
    supervisor
        Process id of the supervisor; the worker stops when this is no longer its parent.
    """

    def __init__(
        self,
        identity: WorkerIdentity,
        state: WorkerState,
        leases: Leases,
        *,
        lease: float,
        connect: Callable[[], Any],
        ask_to_stop: Callable[[str], None],
        deadline: float | None = None,
        supervisor: int | None = None,
    ):
        self.identity, self.state, self.leases, self.lease = identity, state, leases, lease
        self.connect, self.ask_to_stop = connect, ask_to_stop
        self.deadline, self.supervisor = deadline, supervisor
        self.lost: set[Lease] = set()
        self.pause = lease / BEATS_PER_LEASE
        self._connection: Any = None
        self._began = time.monotonic()
        self._failed_at: float | None = None
        self._last_beat: tuple[float, float] | None = None  # by both clocks: one stops while a machine sleeps
        self._wake, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._asked = False

    def start(self) -> None:
        """Write the first heartbeat, then continue in the thread. Errors of the first one are raised."""
        self._beat()
        self._thread.start()

    def beat_soon(self) -> None:
        """Write the state soon, because it has changed."""
        self._wake.set()

    def stop(self, *, timeout: float) -> None:
        """End the thread; the row is left unchanged."""
        self._ending.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._ending.is_set():
            self._wake.wait(self._seconds_to_wait(last))
            if self._ending.is_set():
                break
            woken = self._wake.is_set()
            self._wake.clear()
            self._look_around()
            if woken or self.state.holds_too_much or time.monotonic() - last >= self.pause:
                last = time.monotonic()
                self._try_to_beat()
                self._ending.wait(min(SHORTEST_PAUSE, self.pause))
        if self._connection is not None:
            self._close()

    def _seconds_to_wait(self, last: float) -> float:
        until_beat = last + self.pause - time.monotonic()
        until_deadline = self.deadline - time.monotonic() if self.deadline and not self._asked else until_beat
        # The parent is checked every second, because nothing wakes this thread when it dies.
        return max(0.01, min(until_beat, until_deadline, SHORTEST_PAUSE))

    def _look_around(self) -> None:
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self._ask("its time is over")
        if self.supervisor is not None and os.getppid() != self.supervisor:
            self._ask("its supervisor is gone")

    def _ask(self, reason: str) -> None:
        if not self._asked:
            self._asked = True
            self.ask_to_stop(reason)

    def _try_to_beat(self) -> None:
        try:
            self._beat()
        except CALM as error:
            if self._failed_at is None:
                logger.warning("no heartbeat can be written: the database server does not answer (%s)", error)
            self._failed_at = time.monotonic()
            self._close()
        except Exception:
            # The thread must not end: without heartbeats the others would take the worker's job.
            logger.exception("the heartbeat failed")
            self._failed_at = time.monotonic()
            self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception as error:
                logger.debug("closing the heartbeat's connection: %s", error)

    def _beat(self) -> None:
        if self._connection is None:
            self._connection = self.connect()
        began = time.monotonic(), time.time()
        if self._last_beat is not None:
            gap = max(now - before for now, before in zip(began, self._last_beat, strict=True))
            if gap > self.lease - self.pause:  # suspended: perhaps the others were, too, and are about to continue
                self._failed_at = began[0]
        records = PoolRecords(self._connection, self.leases.schema)
        records.write_heartbeat(self._status())
        self._last_beat = began
        self._look_at_lease()
        lease = self.state.lease
        if self.state.has_checkpoint and lease is not None:
            self.state.has_checkpoint = False
            self.leases.note_progress(self._connection, lease)
        if self.state.holds_too_much:
            self.leases.release_not_begun(self._connection, self.identity.worker_id)
            if self.state.lease is lease:  # otherwise the number may be that of another claim
                self.state.n_in_line = 0
        if self.identity.pool_id and records.stop_requested(self.identity.pool_id):
            self._ask("its pool was asked to stop")
        self._release_expired()

    def _status(self) -> WorkerStatus:
        identity, state = self.identity, self.state
        lease = state.lease
        return WorkerStatus(
            worker_id=identity.worker_id,
            pool_id=identity.pool_id,
            host=identity.host,
            pid=identity.pid,
            gpu=identity.gpu,
            slurm_job=identity.slurm_job,
            state=state.state,
            detail=state.detail,
            lease=self.lease,
            heartbeat_age=0.0,
            job_table=lease.job_table if lease else "",
            job_hash=lease.job_hash if lease else "",
            epoch=state.epoch,
            n_epochs=state.n_epochs,
            score=state.score,
            seconds_left=state.seconds_left,
            n_done=state.n_done,
            n_failed=state.n_failed,
            busy_seconds=state.busy_seconds,
            version=__version__,
            gpu_name=state.gpu.name,
            gpu_memory=state.gpu.memory,
            gpu_workers=state.gpu.n_sharing,
        )

    def _look_at_lease(self) -> None:
        lease = self.state.lease
        if lease is None or lease in self.lost or not self.leases.was_lost(self._connection, lease):
            return
        if self.state.lease is lease:  # the job did not end between the two checks
            self.lost.add(lease)
            logger.warning(
                "the lease of %s %s went to another worker: this one was suspended or cut off for longer than %g s. "
                "Its work on the job is discarded",
                lease.job_table,
                lease.job_hash[:8],
                self.lease,
            )

    def _release_expired(self) -> None:
        # After an outage or a suspension, the others need time for their heartbeats before they count as dead.
        if self._failed_at is not None:
            if time.monotonic() - self._failed_at < self.lease + self.pause:
                return
            self._failed_at = None
        for released in self.leases.release_expired(self._connection):
            log_released(released)


def log_released(released: ReleasedJob) -> None:
    """Log that a dead worker's job was given back."""
    logger.warning(
        "the worker %s of %s %s is dead (its attempt number %d that ended so); %s",
        released.worker_id[:8],
        released.job_table,
        released.job_hash[:8],
        released.n_deaths,
        "the job is poisoned and will not be started again" if released.poisoned else "the job is free again",
    )
