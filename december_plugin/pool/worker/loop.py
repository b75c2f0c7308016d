"""The loop of one worker process: claim a job, compute it, store it; lose nothing when something ends in between."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from december_plugin.database.connection import second_connection
from december_plugin.database.outages import is_outage
from december_plugin.database.store_identity import known_identity, store_name_of
from december_plugin.errors import DecemberError, ServerError
from december_plugin.importing.datajoint_internals import job_hash
from december_plugin.pool.jobs.description import describe_jobs
from december_plugin.pool.jobs.job import Lease
from december_plugin.pool.jobs.leases import LeaseLostError, Leases
from december_plugin.pool.jobs.queue import JobQueue, TableQueue, choose_tables
from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.jobs.waiting import clear_failures
from december_plugin.pool.transactions import leave_transaction
from december_plugin.pool.worker.heartbeat import Heartbeat, WorkerIdentity, WorkerState
from december_plugin.pool.worker.job import (
    JobSettings,
    JobWatch,
    WorkerJob,
    forget_result,
    job_logger,
    spooled_result,
    store_failure,
    wait_for_places,
)
from december_plugin.pool.worker.readiness import tell_supervisor
from december_plugin.pool.worker.spool import Spool
from december_plugin.schemas.running_job import use_job
from december_plugin.security.redaction import RedactingFilter, redacted
from december_plugin.storage.base import StoreUnavailableError
from december_plugin.storage.home import december_home
from december_plugin.storage.opening import open_store
from december_plugin.storage.s3 import use_quick_client
from december_plugin.training.monitor import monitored

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
POLL = 5.0  # pause of a worker that waits for work (s)
JUST_NOW = 0.25  # keys that are younger are claimed without another look (s)
A_WHILE_AGO = 60.0  # of keys that are older the plan is asked again (s)
MAX_RETRIES = 5  # of a job that fails although server and store answer again
FLUSH_TIME = 5.0  # for the last checkpoint of an interrupted training (s)
ANSWER_TIME = 120  # for an answer of the server (s)
IDLE_TIME = 900  # after which the server ends a connection that is silent (s)
AGAIN = 1.0  # until an interruption is raised once more (s)
MAX_ALARMS = 3  # after which the worker leaves without the job's consent
LAST_GOODBYE = 30.0  # after this time the process ends whatever it waits for (s)
GOODBYE_TIME = 3.0  # for each answer of the server at the end (s)
STORE_PATIENCE = 600.0  # of a worker that has not begun; the next one of its pool reads the settings anew (s)

Result = TypeVar("Result")


class Interrupted(BaseException):
    """A signal, or the request to stop, has ended what the worker did."""


class DeviceBrokenError(Exception):
    """After a failure of CUDA the process can use the GPU no more."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """How a worker works.

    Attributes
    ----------
    lease
        The worker counts as dead when its heartbeat is older than this (s).
    checkpoint_every
        Epochs between two checkpoints of a training.
    max_attempts
        A job that killed its worker this many times without a new checkpoint is not begun again.
    only, skip
        Tables to fill, see :func:`december_plugin.pool.jobs.queue.choose_tables`.
    poll
        When nothing is left, look again after this time (s); None ends.
    idle_exit
        End after this time without work (s).
    max_time
        End after this time; a job in work is checkpointed and given back (s).
    retry
        Forget earlier failures first.
    log_folder
        Where the logs of jobs go; None is ``logs`` in the folder of december.
    """

    lease: float = 60.0
    checkpoint_every: int = 5
    max_attempts: int = 3
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    poll: float | None = None
    idle_exit: float | None = None
    max_time: float | None = None
    retry: bool = False
    log_folder: Path | None = None


@dataclass
class WorkerReport:
    """What a worker did: entries computed per table, jobs that failed, and why it ended."""

    computed: dict[str, int] = field(default_factory=dict)
    n_failed: int = 0
    ended_by: str = "nothing is left to do"
    signal: int | None = None


class Worker:
    """Fill the tables, one leased job at a time.

    Parameters
    ----------
    tables
        What :func:`december_plugin.schemas.december_tables` returns.
    settings
        See :class:`WorkerSettings`.
    watch
        Is told about every job and its epochs.
    """

    def __init__(self, tables: Any, settings: WorkerSettings | None = None, *, watch: JobWatch | None = None):
        self.tables, self.settings = tables, settings or WorkerSettings()
        self.report = WorkerReport()
        self.describe = describe_jobs(tables)
        self.identity = WorkerIdentity.from_environment(uuid.uuid4().hex)
        self.connection = tables.schema.connection
        self.schema = tables.schema.database
        self.queue = JobQueue(choose_tables(tables, only=self.settings.only, skip=self.settings.skip))
        self.leases = Leases(self.schema, max_attempts=self.settings.max_attempts)
        self.state = WorkerState()
        supervisor = os.environ.get("DECEMBER_SUPERVISOR")
        max_time = self.settings.max_time
        self.heartbeat = Heartbeat(
            self.identity,
            self.state,
            self.leases,
            lease=self.settings.lease,
            connect=lambda: second_connection(timeout=max(self.settings.lease / 2, GOODBYE_TIME)),
            ask_to_stop=self._ask_to_stop,
            deadline=None if max_time is None else time.monotonic() + max_time,
            supervisor=int(supervisor) if supervisor else None,
        )
        storage = store_name_of(tables.TrainedModel)
        store = open_store(storage)
        store.identity = known_identity(self.connection, self.schema, storage)
        use_quick_client(self.connection, tables.TrainedModel.database, storage)
        self.job_settings = JobSettings(
            schema=self.schema,
            leases=self.leases,
            state=self.state,
            heartbeat=self.heartbeat,
            spool=Spool(None),
            store=store,
            storage=storage,
            checkpoint_every=self.settings.checkpoint_every,
            watch=watch or JobWatch(),
        )
        folder = self.settings.log_folder or december_home() / "logs"
        self.log_folder = folder / self.schema / "jobs"
        self._job: WorkerJob | None = None
        self._job_words = ""
        self._interrupted = self._leaving = False
        self._n_alarms = 0
        self._pid = os.getpid()
        self._idle_since: float | None = None
        self._first_seen: dict[str, float] = {}

    # --- from beginning to end --------------------------------------------------------------------------------

    def run(self) -> WorkerReport:
        """Work until nothing is left, or until told to stop. Must be called in the main thread, once."""
        handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._on_alarm)
        defect = None
        try:
            self._surviving(self._limit_waits)
            self._begin()
            if self.settings.retry:
                self._surviving(self._retry)
            self._deliver_spool()
            self._work_until_the_end()
        except Interrupted:
            self._leaving = True
            logger.info("stopping: %s", self.report.ended_by)
        except BaseException as error:
            defect = f"its worker broke down: {redacted(repr(error))}"
            raise
        finally:
            self._leave(defect)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self.report

    def _begin(self) -> None:
        """Write the first heartbeat; a worker of a pool looks after the store before, and waits for it afterwards.

        Raises
        ------
        ServerError
            The store cannot be used, and that may be for a mistake in the settings.
        """
        failure = store_failure(self.job_settings) if self.identity.pool_id else None
        if failure is not None and not self._is_outage_of_store(failure):
            raise failure
        self._surviving(self.heartbeat.start)
        tell_supervisor()
        if failure is None:
            return
        try:
            wait_for_places(self.job_settings, self.connection, store=True, longest=STORE_PATIENCE)
        except ServerError:
            self.report.ended_by = f"no store for {STORE_PATIENCE:g} s; the pool's next worker reads the settings anew"
            raise Interrupted from None

    def _is_outage_of_store(self, failure: ServerError) -> bool:
        """Return whether a store that cannot be used could be, when the pool began: then it is worth waiting for.

        On one machine the pool itself has used it before it started a worker. Of the tasks of a Slurm array the first
        one that finds it writes its worker's row.
        """
        if not isinstance(failure, StoreUnavailableError):
            return False
        records = PoolRecords(self.connection, self.schema)
        return self._surviving(lambda: records.could_begin(self.identity.pool_id))

    def _limit_waits(self) -> None:
        """Let neither side of the connection wait for the other for hours, when a host or the network is gone.

        The server gives up a connection that is idle: otherwise it would keep the locks of a dead host's transaction.
        """
        self.connection.conn_info.update(read_timeout=ANSWER_TIME, write_timeout=ANSWER_TIME)
        if self.connection.init_fun is None:
            self.connection.init_fun = f"SET SESSION wait_timeout = {IDLE_TIME}"
        self.connection.connect()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a process of a data loader, forked with this handler
            os._exit(1)
        if self._interrupted:
            if number == signal.SIGINT:
                os._exit(128 + number)
            return
        self._interrupted = True
        self.state.state = "draining"
        if self.report.signal is None and self.report.ended_by == WorkerReport.ended_by:
            self.report.signal = number
            self.report.ended_by = signal.Signals(number).name
        signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
        raise Interrupted

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        # Python drops an exception that is raised within a finalizer or a fork hook, and trainers may catch it.
        if os.getpid() != self._pid or self._leaving:
            return
        self._n_alarms += 1
        if self._n_alarms > MAX_ALARMS:
            self._leave(None)
            os._exit(128 + (self.report.signal or signal.SIGTERM))
        raise Interrupted

    def _leave(self, defect: str | None) -> None:
        self._interrupted = self._leaving = True  # from here on a signal changes nothing
        signal.setitimer(signal.ITIMER_REAL, 0)
        # Whatever holds a lock that is needed here must not keep the process alive.
        faulthandler.dump_traceback_later(LAST_GOODBYE, exit=True, file=2)  # a notebook's stderr is no file
        self._say_goodbye(defect)
        faulthandler.cancel_dump_traceback_later()

    def _ask_to_stop(self, reason: str) -> None:
        """Interrupt the main thread; called by the heartbeat."""
        if not self._interrupted:
            self.report.ended_by = reason
            ident = threading.main_thread().ident
            assert ident is not None
            signal.pthread_kill(ident, signal.SIGTERM)

    def _say_goodbye(self, defect: str | None) -> None:
        """Save the last state of an interrupted training, give back what is held, and say so in the tables.

        After a defect of the worker the attempt is counted, so that a job that causes it is not begun for ever.
        """
        if self._job is not None and self._job.lease not in self.heartbeat.lost:
            # In a thread, because a store that hangs must not keep the job from being given back.
            saving = threading.Thread(target=self._job.monitor.flush, daemon=True)
            saving.start()
            saving.join(FLUSH_TIME)
        self.heartbeat.stop(timeout=GOODBYE_TIME)
        if self._job is not None:
            with suppress(Exception):
                self.connection.close()  # ends a transaction that was open, with its locks
        try:
            connection = second_connection(timeout=GOODBYE_TIME)
            if defect is not None:
                self.leases.mark_dead(connection, self.identity.worker_id, defect)
                return
            message = f"interrupted: {self.report.ended_by}"
            released = self.leases.release_all(connection, self.identity.worker_id, message=message)
            PoolRecords(connection, self.schema).end_worker(
                self.identity.worker_id,
                detail=self.report.ended_by,
                n_done=self.state.n_done,
                n_failed=self.state.n_failed,
            )
            connection.close()
            if released and self._job is not None:
                logger.info("%s: free again; %s", self._job_words, self._job.monitor.what_is_kept)
        except Exception as error:  # nothing more can be done: the lease runs out
            logger.warning("the job could not be given back (%s); it is free when the lease has run out", error)

    def _retry(self) -> None:
        for queue in self.queue.tables:
            if cleared := clear_failures(queue.table, self.schema):
                logger.info("%s: %d failed jobs are tried again", type(queue.table).__name__, cleared)

    # --- which job --------------------------------------------------------------------------------------------

    def _work_until_the_end(self) -> None:
        while True:
            claimed = self._surviving(self._claim_next)
            if claimed is not None:
                self._idle_since = None
                self._first_seen.clear()
                self._work(*claimed)
            elif self._surviving(self._is_over):
                return

    def _claim_next(self) -> tuple[Any, dict[str, Any], Lease] | None:
        while (found := self.queue.next()) is not None:
            queue, key = found
            lease = self._claim(queue, key)
            if lease is not None:
                return queue.table, key, lease
        return None

    def _claim(self, queue: TableQueue, key: dict[str, Any]) -> Lease | None:
        table = queue.table
        if queue.age > JUST_NOW and key in table.proj():
            queue.was_taken()
            return None
        if queue.age > A_WHILE_AGO and not len(table.key_source & key):  # no longer planned
            return None
        log = self.log_folder / f"{table.table_name.strip('_#')}-{job_hash(table, key)[:8]}-{self._short_id}.log"
        lease = self.leases.claim(table, key, self.identity.worker_id, log_file=f"{self.identity.host}:{log}"[:1000])
        queue.was_taken() if lease is None else queue.was_free()
        return lease

    @property
    def _short_id(self) -> str:
        return self.identity.worker_id[:8]

    def _is_over(self) -> bool:
        """Return whether the worker may end; if not, wait a while."""
        if self.state.state != "idle":
            self.state.end()
            self.heartbeat.tell()
        settings, now = self.settings, time.monotonic()
        self._idle_since = self._idle_since or now
        # A claim whose commit was answered by a lost connection was taken for somebody else's.
        if self.leases.release_all(self.connection, self.identity.worker_id, message="its worker did not know of it"):
            return False
        if self._others_may_be_dead(now):
            time.sleep(min(0.5, settings.lease / 10))
            return False
        if settings.poll is None and settings.idle_exit is None:
            return True
        if settings.idle_exit is not None and now - self._idle_since >= settings.idle_exit:
            self.report.ended_by = f"no work for {settings.idle_exit:g} s"
            return True
        pause = POLL if settings.poll is None else settings.poll
        if settings.idle_exit is not None:
            pause = min(pause, max(0.05, self._idle_since + settings.idle_exit - now))
        time.sleep(pause)
        return False

    def _others_may_be_dead(self, now: float) -> bool:
        """Return whether a job is held by a worker that has not shown a heartbeat since this one became idle."""
        ages = self.leases.others(self.connection, self.identity.worker_id)
        for holder in ages:
            self._first_seen.setdefault(holder, now)
        return any(age > now - self._first_seen[holder] for holder, age in ages.items())

    def _deliver_spool(self) -> None:
        """Store first what an earlier worker on this machine has computed and could not store."""
        by_name = {queue.table.table_name: queue for queue in self.queue.tables}
        try:
            entries = self.job_settings.spool.entries(self.schema)
        except ServerError as error:
            logger.warning("whether results were computed before cannot be told, so none is delivered: %s", error)
            return
        for table_name, each in entries:
            queue = by_name.get(table_name)
            if queue is None:
                continue
            found = spooled_result(self.job_settings, table_name, each)
            if found is not None:
                self._deliver(queue, found[0])

    def _deliver(self, queue: TableQueue, key: dict[str, Any]) -> None:
        table = queue.table
        if self._surviving(lambda: key in table.proj()):
            forget_result(self.job_settings, table.table_name, job_hash(table, key))
            return
        lease = self._surviving(lambda: self._claim(queue, key))
        if lease is not None:  # otherwise its lease has not run out yet: the job comes up like any other
            self._work(table, key, lease)

    # --- the job ----------------------------------------------------------------------------------------------

    def _work(self, table: Any, key: dict[str, Any], lease: Lease) -> None:
        start = time.monotonic()
        name = type(table).__name__
        uses_store = hasattr(table, "ModelStorage")
        self.state.begin(lease)
        self.heartbeat.tell()
        job = self._job = WorkerJob(self.job_settings, lease, key, uses_store=uses_store)
        self._job_words = self.describe(name, key)
        with self._job_log(lease), self._watched():
            error = self._compute(table, key, job)
            if error is None and not job.ended and not self._surviving(lambda: key in table.proj()):
                error = _nothing_inserted(name)
            self.state.busy_seconds += time.monotonic() - start
            if error is None:
                if not job.ended:  # another worker had stored it a moment before
                    self._surviving(lambda: self.leases.finish(self.connection, lease))
                job.forget()
            elif isinstance(error, LeaseLostError):
                logger.warning("%s: %s", self._job_words, error)
            elif _is_broken_device(error):
                # No failure of the job, which another GPU may do: counted as the death of this worker.
                job_logger.error("%s", redacted("".join(traceback.format_exception(error))))
                raise DeviceBrokenError(f"the GPU cannot be used any more by this process: {error}")
            else:
                self._fail(table, key, job, error)
        if error is None and job.ended:  # not in the job's log: trivial jobs have none
            what = "delivered from the spool" if job.came_from_spool else "done"
            seconds = time.monotonic() - start
            # The table and the time for who folds what takes no time (see december_plugin.cli.commands.worker).
            logger.info("%s: %s in %.1f s", self._job_words, what, seconds, extra={"finished": (name, seconds)})
            self.report.computed[name] = self.report.computed.get(name, 0) + 1
            self.state.n_done += 1
        self._job = None
        self.state.end()

    def _fail(self, table: Any, key: dict[str, Any], job: WorkerJob, error: BaseException) -> None:
        leave_transaction(self.connection)
        message = redacted(f"{type(error).__name__}: {error}")
        stack = redacted("".join(traceback.format_exception(error)))
        job_logger.error("%s", stack)

        def is_recorded() -> bool:
            recorded = self.leases.fail(table, key, job.lease, message=message, stack=stack)
            return recorded or not self.leases.was_lost(self.connection, job.lease)

        if not self._surviving(is_recorded):
            logger.warning("%s: %s", self.describe(type(table).__name__, key), job.lost())
            return
        job.give_result_up()
        logger.error("failed: %s: %s", self.describe(type(table).__name__, key), message)
        self.report.n_failed += 1
        self.state.n_failed += 1

    def _compute(self, table: Any, key: dict[str, Any], job: WorkerJob) -> BaseException | None:
        """Populate one key; return the error that it failed with, None if it is stored."""
        retries = 0
        while True:
            error = self._populate(table, key, job)
            if error is None or not is_outage(error) or retries >= MAX_RETRIES:
                return error
            logger.warning("%s: %s; it is tried again", self.describe(type(table).__name__, key), error)
            leave_transaction(self.connection)
            waited = wait_for_places(self.job_settings, self.connection, store=job.uses_store)
            retries = 0 if waited else retries + 1
            time.sleep(min(2.0**retries, 30.0))
            if not self._surviving(lambda: self.leases.is_held(self.connection, job.lease)):
                # A connection that was lost at the commit may have stored the job.
                job.ended = not self._surviving(lambda: self.leases.was_lost(self.connection, job.lease))
                return None if job.ended else job.lost()

    @staticmethod
    def _populate(table: Any, key: dict[str, Any], job: WorkerJob) -> BaseException | None:
        # The reservation is this worker's own: DataJoint's would turn every interruption into a failure.
        job.ended = False
        try:
            with use_job(job), monitored(job.monitor):
                result = table.populate(keys=[key], suppress_errors=True, return_exception_objects=True)
        except (SystemExit, Exception) as error:  # of the job, or of the driver, on the way in or at the commit
            return error
        errors = [error for _, error in result["error_list"]]
        if errors and isinstance(errors[0], KeyboardInterrupt):
            raise errors[0]
        return errors[0] if errors else None

    @contextmanager
    def _watched(self) -> Iterator[None]:
        watch = self.job_settings.watch
        watch.begins(self._job_words)
        try:
            yield
        finally:
            watch.ends()

    @contextmanager
    def _job_log(self, lease: Lease) -> Iterator[None]:
        """Write what is logged about the job to a file of its own, which is made at the first line."""
        path = self.log_folder / f"{lease.job_table.strip('_#')}-{lease.job_hash[:8]}-{self._short_id}.log"
        handler = JobLog(path)
        handler.addFilter(RedactingFilter())
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        loggers = (logging.getLogger("december_plugin"), job_logger)
        for each in loggers:
            each.addHandler(handler)
        try:
            yield
        finally:
            for each in loggers:
                each.removeHandler(handler)
            handler.close()

    def _surviving(self, step: Callable[[], Result]) -> Result:
        """Return what a step on the database returns, however long the server is away in between."""
        delay = 1.0
        while True:
            try:
                return step()
            except Exception as error:
                if not is_outage(error):
                    raise
                logger.warning("the database server: %s", error)
            wait_for_places(self.job_settings, self.connection, store=False)
            time.sleep(delay)
            delay = min(2 * delay, 60.0)


class JobLog(logging.FileHandler):
    """The log of one job, made at its first line; a folder that is gone or full costs the line, not the job."""

    def __init__(self, path: Path):
        super().__init__(path, delay=True, encoding="utf-8")

    def _open(self) -> Any:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, if it can be written."""
        with suppress(OSError):  # on opening the file; what happens later is caught by the base
            super().emit(record)


def _nothing_inserted(name: str) -> DecemberError:
    return DecemberError(
        f"the make of {name} ended without an error and inserted nothing, so that this job would be begun for ever. It "
        "must insert its key, or raise an error; `december jobs ignore` takes a job out of the queue."
    )


def _is_broken_device(error: BaseException | None) -> bool:
    # Out of memory is the job's own failure; after other errors of CUDA the process has no GPU any more.
    return error is not None and "CUDA error" in str(error) and "out of memory" not in str(error)
