"""Computes the jobs that a worker has claimed: each is stored, recorded as failed, or left to another worker."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from december_plugin.database.outages import is_outage
from december_plugin.errors import DecemberError
from december_plugin.pool.jobs.description import plain_words
from december_plugin.pool.jobs.leases import LeaseLostError
from december_plugin.pool.liveness import SHORT
from december_plugin.pool.transactions import leave_transaction
from december_plugin.pool.worker.claiming import ClaimedJob
from december_plugin.pool.worker.gpu import is_out_of_memory
from december_plugin.pool.worker.interruption import Interrupted
from december_plugin.pool.worker.job import WorkerJob, job_logger
from december_plugin.pool.worker.job_log import job_log_path, logged_to
from december_plugin.pool.worker.job_settings import JobSettings
from december_plugin.pool.worker.outages import Result, surviving, wait_for_places
from december_plugin.pool.worker.settings import WorkerReport
from december_plugin.schemas.running_job import use_job
from december_plugin.security.redaction import redacted
from december_plugin.training.monitor import Monitor, monitored
from december_plugin.training.tensorboard import TensorBoardMonitor, run_name

logger = logging.getLogger(__name__)

MAX_RETRIES = 5  # of a job that fails although server and store answer again
CROWDED_PAUSES = (10.0, 30.0, 60.0, 120.0, 300.0)  # before a job that found no GPU memory is retried (s)


class JobRunner:
    """Runs one claimed job after the other.

    Parameters
    ----------
    settings
        What all jobs of the worker share.
    connection
        To the database.
    describe
        Puts a job, given as a table's name and a key, into words; what it raises fails the job.
    report
        Counts finished and failed jobs.
    log_folder
        For the logs of jobs.
    tensorboard
        For the curves of trainings, each in its own folder there; None writes none.

    Attributes
    ----------
    job
        The current one, or None. It stays after an interruption.
    description
        The same in words.
    """

    def __init__(
        self,
        settings: JobSettings,
        connection: Any,
        *,
        describe: Callable[[str, Mapping[str, Any]], str],
        report: WorkerReport,
        log_folder: Path,
        tensorboard: Path | None = None,
    ):
        self.settings, self.connection = settings, connection
        self.describe, self.report, self.log_folder = describe, report, log_folder
        self.tensorboard = tensorboard
        self.job: WorkerJob | None = None
        self.description = ""

    def run(self, claimed: ClaimedJob, *, following: ClaimedJob | None = None) -> float:
        """Compute a claimed job and store it, or record its failure; return how long that took (s).

        Parameters
        ----------
        claimed
            The job, which has begun.
        following
            The next one, which begins in the transaction that stores the result.

        Raises
        ------
        DeviceBrokenError
            The GPU cannot be used, or no longer.
        """
        start = time.monotonic()
        table, key, lease = claimed.table, claimed.key, claimed.lease
        name = type(table).__name__
        self.settings.state.begin(lease)
        self.settings.heartbeat.beat_soon()
        job = self.job = self._job(claimed, following)
        with logged_to(job_log_path(self.log_folder, *lease.job, lease.worker_id)), self._watched():
            error = self._announce(name, key)
            if error is None:
                error = self._compute(table, key, job)
            if error is None and not job.ended and not self.surviving(lambda: key in table.proj()):
                error = _nothing_inserted(name)
            self.settings.state.busy_seconds += time.monotonic() - start
            if error is None:
                if not job.ended:  # another worker had stored it a moment before
                    self.surviving(lambda: self.settings.leases.finish(self.connection, lease))
                job.forget()
            elif isinstance(error, LeaseLostError):
                logger.warning("%s: %s", self.description, error)
            elif (failure := self.settings.state.gpu.failure(error)) is not None:
                # Not the job's failure, as another GPU may do it: it counts as this worker's death, or not at all.
                job_logger.error("%s", redacted("".join(traceback.format_exception(error))))
                raise failure
            else:
                self._fail(table, key, job, error)
        seconds = time.monotonic() - start
        if error is None and job.ended:
            self._done(name, job, seconds)
            if following is not None:
                following.has_begun = job.began_next
        self.job = None
        self.settings.state.end()
        return seconds

    def _job(self, claimed: ClaimedJob, following: ClaimedJob | None) -> WorkerJob:
        def begin_next(connection: Any) -> bool:
            assert following is not None
            return self.settings.leases.begin(connection, following.lease, log_file=following.log_file)

        return WorkerJob(
            self.settings,
            claimed.lease,
            claimed.key,
            uses_store=hasattr(claimed.table, "ModelStorage"),
            begin_next=None if following is None else begin_next,
        )

    def _done(self, name: str, job: WorkerJob, seconds: float) -> None:
        # Not in the job's log: trivial jobs have none.
        what = "delivered from the spool" if job.came_from_spool else "done"
        # Table and time, with which quick jobs are summarised (see december_plugin.cli.commands.worker).
        logger.info("%s: %s in %.1f s", self.description, what, seconds, extra={"finished": (name, seconds)})
        self.report.computed[name] = self.report.computed.get(name, 0) + 1
        self.settings.state.n_done += 1

    def _fail(self, table: Any, key: dict[str, Any], job: WorkerJob, error: BaseException) -> None:
        leave_transaction(self.connection)
        message = redacted(f"{type(error).__name__}: {error}")
        stack = redacted("".join(traceback.format_exception(error)))
        job_logger.error("%s", stack)

        def is_recorded() -> bool:
            recorded = self.settings.leases.fail(table, key, job.lease, message=message, stack=stack)
            return recorded or not self.settings.leases.was_lost(self.connection, job.lease)

        if not self.surviving(is_recorded):
            logger.warning("%s: %s", self.description, job.lost())
            return
        job.give_result_up()
        logger.error("failed: %s: %s", self.description, message)
        self.report.n_failed += 1
        self.settings.state.n_failed += 1

    def _compute(self, table: Any, key: dict[str, Any], job: WorkerJob) -> BaseException | None:
        """Populate one key; return the error if it failed, None if it is stored."""
        retries = 0
        while True:
            error = self._populate_on_gpu(table, key, job)
            if error is None or not is_outage(error) or retries >= MAX_RETRIES:
                return error
            logger.warning("%s: %s; it is tried again", self.description, error)
            leave_transaction(self.connection)
            waited = wait_for_places(self.settings, self.connection, store=job.uses_store)
            retries = 0 if waited else retries + 1
            time.sleep(min(2.0**retries, 30.0))
            if not self.surviving(lambda: self.settings.leases.is_held(self.connection, job.lease)):
                # A connection that was lost at the commit may have stored the job.
                job.ended = not self.surviving(lambda: self.settings.leases.was_lost(self.connection, job.lease))
                return None if job.ended else job.lost()

    def _populate_on_gpu(self, table: Any, key: dict[str, Any], job: WorkerJob) -> BaseException | None:
        """Populate one key; wait for GPU memory that others have taken, and explain a lack of it."""
        state = self.settings.state
        state.gpu = state.gpu.prepare(type(table).__name__)
        for pause in (*CROWDED_PAUSES, None):
            error = self._populate(table, key, job)
            if error is None or not is_out_of_memory(error):
                return error
            explained = state.gpu.explained(error, use := state.gpu.memory_use(), key)
            explained.__cause__ = error
            state.gpu.release_memory(error)
            if pause is None or use is None or not use.is_crowded:
                break
            if not self._wait_for_memory(explained, pause, job):
                return job.lost()
        return explained

    def _wait_for_memory(self, problem: BaseException, pause: float, job: WorkerJob) -> bool:
        """Wait (s) before retrying a job to which others left too little memory; return False if the job was lost."""
        state, before = self.settings.state, self.settings.state.state
        logger.warning("%s: %s; it is tried again in %g s", self.description, problem, pause)
        leave_transaction(self.connection)
        job.monitor.flush()  # so that it continues from where it was
        state.state, state.detail = "waiting", str(problem)
        self.settings.heartbeat.beat_soon()
        time.sleep(pause)
        state.state, state.detail = before, ""
        self.settings.heartbeat.beat_soon()
        return self.surviving(lambda: self.settings.leases.is_held(self.connection, job.lease))

    def _populate(self, table: Any, key: dict[str, Any], job: WorkerJob) -> BaseException | None:
        # This worker makes the reservation itself: DataJoint would turn every interruption into a failure.
        job.ended = job.began_next = False
        try:
            with use_job(job), self._monitor(type(table).__name__, key, job) as monitor, monitored(monitor):
                result = table.populate(keys=[key], suppress_errors=True, return_exception_objects=True)
        except (Interrupted, KeyboardInterrupt):
            raise
        except BaseException as error:  # of the job, or of the driver, on the way in or at the commit
            return error
        errors = [error for _, error in result["error_list"]]
        if errors and isinstance(errors[0], KeyboardInterrupt):
            raise errors[0]
        return errors[0] if errors else None

    @contextmanager
    def _monitor(self, name: str, key: Mapping[str, Any], job: WorkerJob) -> Iterator[Monitor]:
        """Yield what watches the job's training."""
        if self.tensorboard is None:
            yield job.monitor
            return
        folder = self.tensorboard / run_name(self.description.removeprefix(f"{name}: "), job.lease.job_hash[:SHORT])
        with TensorBoardMonitor(folder, inner=job.monitor, about={"job": job.lease.job_hash, **key}) as monitor:
            yield monitor

    def _announce(self, name: str, key: Mapping[str, Any]) -> BaseException | None:
        """Say which job begins; return the error that this ended with."""
        self.description = plain_words(name, key)
        try:
            self.description = self.describe(name, key)
            self.settings.watch.begins(self.description)
        except Exception as error:
            return error
        return None

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        finally:
            try:
                self.settings.watch.ends()
            except Exception:  # the job is stored, or recorded as failed
                logger.exception("%s: what watches the worker failed at the end of this job", self.description)

    def surviving(self, step: Callable[[], Result]) -> Result:
        """Return what a step on the database returns, however long the server is away in between."""
        return surviving(self.settings, self.connection, step)


def _nothing_inserted(name: str) -> DecemberError:
    return DecemberError(
        f"{name}.make() finished without inserting a row, so this job would be retried forever. It must insert its "
        "key, or raise an error; `december jobs ignore` takes a job out of the queue."
    )
