"""One worker process: claims jobs, computes and stores them; loses nothing when something ends it in between."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from december_plugin.database.connection import second_connection
from december_plugin.database.store_identity import known_identity, store_name_of
from december_plugin.datasets.common.data_cache import DataCache, default_limit, kept_between_jobs
from december_plugin.errors import ServerError
from december_plugin.importing.datajoint_internals import job_hash
from december_plugin.pool.jobs.actions import clear_failures
from december_plugin.pool.jobs.description import describe_jobs
from december_plugin.pool.jobs.leases import Leases
from december_plugin.pool.jobs.queue import JobQueue, TableQueue, choose_tables
from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.worker.claiming import JobClaimer
from december_plugin.pool.worker.gpu import MpsLostError
from december_plugin.pool.worker.heartbeat import Heartbeat, WorkerIdentity, WorkerState
from december_plugin.pool.worker.interruption import Interrupted, Interruption
from december_plugin.pool.worker.job_settings import JobSettings, JobWatch
from december_plugin.pool.worker.outages import Result, store_failure, surviving, wait_for_places
from december_plugin.pool.worker.readiness import tell_supervisor
from december_plugin.pool.worker.runner import JobRunner
from december_plugin.pool.worker.settings import WorkerReport, WorkerSettings
from december_plugin.pool.worker.spool import Spool
from december_plugin.pool.worker.spooled_results import forget_result, spooled_result
from december_plugin.security.redaction import redacted
from december_plugin.storage.base import StoreUnavailableError
from december_plugin.storage.home import december_home
from december_plugin.storage.opening import open_store
from december_plugin.storage.s3 import use_quick_client

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 120  # for an answer of the server
IDLE_CONNECTION_SECONDS = 900  # after which the server ends a connection that is silent
STORE_PATIENCE_SECONDS = 600.0  # of a worker that has not begun; its pool's next one reads the settings again
FLUSH_SECONDS = 5.0  # for the last checkpoint of an interrupted training
GOODBYE_ANSWER_SECONDS = 3.0  # for each answer of the server at the end


class Worker:
    """Fill the tables, one leased job at a time.

    Parameters
    ----------
    tables
        What :func:`december_plugin.schemas.december_tables` returns.
    settings
        See :class:`~december_plugin.pool.worker.settings.WorkerSettings`.
    watch
        Is notified of every job and its epochs.

    See Also
    --------
    WorkerSettings : Which tables a worker fills, for how long, and how.
    read_overview : Reads what waits, runs and has failed.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.pool import Worker, WorkerSettings
    >>> lab = open_lab(schema="retina")
    >>> lab.tables.SeedAgreement.delete_quick()
    >>> report = Worker(lab.tables, WorkerSettings(only=("SeedAgreement",))).run()
    >>> report.computed, report.n_failed, report.ended_by
    ({'SeedAgreement': 12}, 0, 'nothing is left to do')
    """

    def __init__(self, tables: Any, settings: WorkerSettings | None = None, *, watch: JobWatch | None = None):
        self.tables, self.settings = tables, settings or WorkerSettings()
        self.report = WorkerReport()
        describe = describe_jobs(tables, strict=True)
        self.identity = WorkerIdentity.from_environment(uuid.uuid4().hex)
        self.connection = tables.schema.connection
        self.schema = tables.schema.database
        queue = JobQueue(choose_tables(tables, only=self.settings.only, skip=self.settings.skip))
        self.leases = Leases(self.schema, max_attempts=self.settings.max_attempts)
        self.state = WorkerState()
        self.interruption = Interruption(self.state, self.report, say_goodbye=lambda: self._say_goodbye(None))
        supervisor = os.environ.get("DECEMBER_SUPERVISOR")
        max_time = self.settings.max_time
        self.heartbeat = Heartbeat(
            self.identity,
            self.state,
            self.leases,
            lease=self.settings.lease,
            connect=lambda: second_connection(timeout=max(self.settings.lease / 2, GOODBYE_ANSWER_SECONDS)),
            ask_to_stop=self.interruption.ask,
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
        log_folder = folder / self.schema / "jobs"
        self.claimer = JobClaimer(
            queue,
            self.leases,
            identity=self.identity,
            state=self.state,
            heartbeat=self.heartbeat,
            settings=self.settings,
            report=self.report,
            connection=self.connection,
            log_folder=log_folder,
        )
        self.runner = JobRunner(
            self.job_settings,
            self.connection,
            describe=describe,
            report=self.report,
            log_folder=log_folder,
            tensorboard=self.settings.tensorboard,
        )

    # --- from beginning to end --------------------------------------------------------------------------------

    def run(self) -> WorkerReport:
        """Work until nothing is left, or until asked to stop. Must be called in the main thread, once."""
        defect = None
        limit = self.settings.data_cache
        n_workers = int(os.environ.get("DECEMBER_POOL_WORKERS") or 1)
        recordings = DataCache(default_limit(n_workers) if limit is None else int(limit * 1e9))
        with self.interruption.handled(), kept_between_jobs(recordings):
            try:
                self._surviving(self._limit_waits)
                self._begin()
                if self.settings.retry:
                    self._surviving(self._retry)
                self._deliver_spool()
                self._work_until_the_end()
            except Interrupted:
                self.interruption.note_end()
                logger.info("stopping: %s", self.report.ended_by)
            except MpsLostError as error:
                self.report.ended_by = str(error)  # not the fault of a job: none is counted
                raise
            except BaseException as error:
                defect = f"its worker broke down: {redacted(repr(error))}"
                raise
            finally:
                self.interruption.leave(lambda: self._say_goodbye(defect))
        return self.report

    def _begin(self) -> None:
        """Write the first heartbeat; a worker of a pool checks the store before, and waits for it afterwards.

        Raises
        ------
        ServerError
            The store cannot be used, possibly because of a mistake in the settings.
        """
        failure = store_failure(self.job_settings) if self.identity.pool_id else None
        if failure is not None and not self._is_outage_of_store(failure):
            raise failure
        self._surviving(self.heartbeat.start)
        tell_supervisor()
        if failure is None:
            return
        try:
            wait_for_places(self.job_settings, self.connection, store=True, longest=STORE_PATIENCE_SECONDS)
        except ServerError:
            self.report.ended_by = (
                f"no store for {STORE_PATIENCE_SECONDS:g} s; the pool's next worker reads the settings again"
            )
            raise Interrupted from None

    def _is_outage_of_store(self, failure: ServerError) -> bool:
        """Return whether a store that cannot be used now was usable when the pool began: then it is worth waiting for.

        On one machine, the pool itself has used it before it started a worker. In a Slurm array, the first task that
        finds it writes its worker's row.
        """
        if not isinstance(failure, StoreUnavailableError):
            return False
        records = PoolRecords(self.connection, self.schema)
        return self._surviving(lambda: records.could_begin(self.identity.pool_id))

    def _limit_waits(self) -> None:
        """Keep both sides of the connection from waiting for hours for each other when a host or the network is gone.

        The server closes an idle connection: otherwise it would keep the locks of a dead host's transaction.
        """
        self.connection.conn_info.update(read_timeout=ANSWER_SECONDS, write_timeout=ANSWER_SECONDS)
        if self.connection.init_fun is None:
            self.connection.init_fun = f"SET SESSION wait_timeout = {IDLE_CONNECTION_SECONDS}"
        self.connection.connect()

    def _say_goodbye(self, defect: str | None) -> None:
        """Save the last state of an interrupted training, give back the jobs, and record this in the tables.

        After a bug in the worker the attempt is counted, so that a job that causes it is not started forever.
        """
        if self.runner.job is not None and self.runner.job.lease not in self.heartbeat.lost:
            # In a thread, because a store that hangs must not keep the job from being given back.
            saving = threading.Thread(target=self.runner.job.monitor.flush, daemon=True)
            saving.start()
            saving.join(FLUSH_SECONDS)
        self.heartbeat.stop(timeout=GOODBYE_ANSWER_SECONDS)
        if self.runner.job is not None:
            with suppress(Exception):
                self.connection.close()  # ends a transaction that was open, with its locks
        try:
            connection = second_connection(timeout=GOODBYE_ANSWER_SECONDS)
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
            if released and self.runner.job is not None:
                logger.info("%s: free again; %s", self.runner.description, self.runner.job.monitor.what_is_kept)
        except Exception as error:  # nothing more can be done; the lease will run out
            logger.warning("the job could not be given back (%s); it is free when the lease has run out", error)

    def _retry(self) -> None:
        for queue in self.claimer.queue.tables:
            if cleared := clear_failures(queue.table, self.schema):
                logger.info("%s: %d failed jobs are tried again", type(queue.table).__name__, cleared)

    # --- its jobs ---------------------------------------------------------------------------------------------

    def _work_until_the_end(self) -> None:
        while True:
            job = self._surviving(self.claimer.next)
            if job is not None:
                self.claimer.note(job, self.runner.run(job, following=self.claimer.next_in_line))
            elif self._surviving(self.claimer.is_over):
                self.report.ended_idle = True
                return

    def _deliver_spool(self) -> None:
        """First store what an earlier worker on this machine has computed and could not store."""
        by_name = {queue.table.table_name: queue for queue in self.claimer.queue.tables}
        try:
            entries = self.job_settings.spool.entries(self.schema)
        except ServerError as error:
            logger.warning("earlier results on this machine cannot be read, so none are delivered: %s", error)
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
        job = self._surviving(lambda: self.claimer.claim(queue, key))
        if job is not None:  # otherwise its lease has not run out yet: the job comes up like any other
            self.runner.run(job)

    def _surviving(self, step: Callable[[], Result]) -> Result:
        return surviving(self.job_settings, self.connection, step)
