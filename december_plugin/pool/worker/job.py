"""A worker's current job: its lease, its checkpoints, and its result until it is stored."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from datajoint.errors import LostConnectionError

from december_plugin.errors import ServerError
from december_plugin.importing.datajoint_internals import has_transaction
from december_plugin.pool.jobs.job import Lease
from december_plugin.pool.jobs.leases import LeaseLostError
from december_plugin.pool.worker.checkpoints import JobCheckpoints
from december_plugin.pool.worker.job_settings import JobSettings
from december_plugin.pool.worker.outages import wait_for_places
from december_plugin.pool.worker.spooled_results import (
    forget_result,
    result_to_bytes,
    set_result_aside,
    spooled_result,
)
from december_plugin.schemas.running_job import RunningJob
from december_plugin.training.monitor import Monitor, Progress

logger = logging.getLogger(__name__)
job_logger = logging.getLogger("december_plugin.job")  # goes only to the job's own log
job_logger.propagate = False
job_logger.setLevel(logging.INFO)

SNAPSHOT_EVERY = 1.0  # at most one copy of the training's state in this time (s)
SNAPSHOT_SHARE = 20  # and at most one in this many times the duration of a copy
QUICK_SECONDS = 0.02  # results that took no longer are computed again after an outage, rather than kept
RETRY_STORE = 30.0  # pause after a checkpoint that could not be stored (s)


def lost(lease: Lease) -> LeaseLostError:
    """Return the error that says that a lease went to another worker."""
    return LeaseLostError(
        f"the lease of {lease.job_table} {lease.job_hash[:8]} went to another worker, so this result is discarded. "
        "You need not do anything: the other worker stores the job."
    )


class JobMonitor(Monitor):
    """Keeps the state of a training: every epoch in memory, every few epochs in the store.

    Each attempt writes its own file, so that a worker that was suspended and continues for a moment never replaces what
    its successor has saved.
    """

    def __init__(self, settings: JobSettings, lease: Lease):
        self.settings, self.lease = settings, lease
        self.checkpoints = JobCheckpoints(settings.store, settings.schema, *lease.job, attempt=lease.n_starts)
        self._snapshot: bytes | None = None
        self._snapshot_epoch = self._saved_epoch = 0
        self._snapshot_at = self._failed_at = float("-inf")
        self._pause = SNAPSHOT_EVERY
        self._logged_at = float("-inf")
        self._went_on = False

    def load(self) -> bytes | None:
        """Return the newest intact checkpoint of any attempt."""
        state = self.checkpoints.load()
        self._went_on = state is not None
        return state

    @property
    def what_is_kept(self) -> str:
        """Where the job's next attempt continues, in words."""
        if self._saved_epoch:
            return f"saved after epoch {self._saved_epoch}, from which the next worker continues"
        if self._went_on:
            return "the next worker continues from the checkpoint that this one started from"
        return "nothing of it is saved, so the next worker starts it over"

    def after_epoch(self, progress: Progress, get_state: Callable[[], bytes]) -> None:
        """Note the progress, and keep the state."""
        state, now = self.settings.state, time.monotonic()
        state.epoch, state.n_epochs = progress.epoch, progress.n_epochs
        # The server takes no NaN, and without heartbeats the job would go to another worker.
        state.score = progress.score if progress.score is not None and math.isfinite(progress.score) else None
        state.seconds_left = (progress.n_epochs - progress.epoch) * progress.seconds_per_epoch
        self.settings.watch.progresses(progress)
        if self.lease in self.settings.heartbeat.lost:
            raise lost(self.lease)
        if now - self._logged_at >= SNAPSHOT_EVERY:
            self._logged_at = now
            job_logger.info("epoch %d of %d, score %s", progress.epoch, progress.n_epochs, progress.score)
        is_due = progress.epoch - self._saved_epoch >= self.settings.checkpoint_every
        can_save = now - self._failed_at >= RETRY_STORE
        if (is_due and can_save) or now - self._snapshot_at >= self._pause:
            self._snapshot, self._snapshot_epoch = get_state(), progress.epoch
            self._snapshot_at = time.monotonic()
            self._pause = max(SNAPSHOT_EVERY, SNAPSHOT_SHARE * (self._snapshot_at - now))
        if is_due and can_save:
            self._save()

    def flush(self) -> None:
        """Save the last state that is in memory, if the store has an older one."""
        if self._snapshot is not None and self._snapshot_epoch > self._saved_epoch:
            self._save()

    def _save(self) -> None:
        assert self._snapshot is not None
        try:
            self.checkpoints.save(self._snapshot)
        except (ServerError, OSError) as error:
            self._failed_at = time.monotonic()
            logger.warning("the checkpoint of epoch %d could not be saved: %s", self._snapshot_epoch, error)
            return
        self._saved_epoch, self._failed_at = self._snapshot_epoch, float("-inf")
        self.settings.state.has_checkpoint = True
        job_logger.info("checkpoint of epoch %d saved", self._saved_epoch)

    def remove(self) -> None:
        """Remove the job's checkpoints of all attempts; ``december store clean`` removes what cannot be removed now."""
        try:
            self.checkpoints.remove()
        except (ServerError, OSError) as error:
            logger.warning("a checkpoint that is no longer needed could not be removed: %s", error)


class WorkerJob(RunningJob):
    """A job that a worker has claimed."""

    def __init__(
        self,
        settings: JobSettings,
        lease: Lease,
        key: dict[str, Any],
        *,
        uses_store: bool,
        begin_next: Callable[[Any], bool] | None = None,
    ):
        self.settings, self.lease, self.key, self.uses_store = settings, lease, key, uses_store
        self.monitor = JobMonitor(settings, lease)
        self._begin_next = begin_next
        self.ended = self.began_next = False  # in the transaction that is open, or that was committed
        self.came_from_spool = False

    def finished_result(self) -> tuple[Any, ...] | None:
        """Return the result that an earlier attempt on this machine left in the spool."""
        found = spooled_result(self.settings, *self.lease.job)
        self.came_from_spool = found is not None
        if found is None:
            return None
        job_logger.info("the result was computed before and is taken from the spool")
        return found[1:]

    def is_worth_keeping(self, seconds: float) -> bool:
        """Return whether it is a model, or took longer to compute than a disk takes to write it."""
        return self.uses_store or seconds > QUICK_SECONDS

    def keep_result(self, result: tuple[Any, ...]) -> None:
        """Write the result to the spool; a full disk costs the safety copy, not the result."""
        try:
            self.settings.spool.put(self.settings.schema, *self.lease.job, result_to_bytes((self.key, *result)))
        except Exception as error:  # including a lab's own table, whose result may be of any kind
            logger.warning("the result could not be kept on this machine until it is stored: %s", error)

    def forget(self) -> None:
        """Remove what was kept of the job, which is stored."""
        forget_result(self.settings, *self.lease.job)
        if self.uses_store:
            self.monitor.remove()

    def give_result_up(self) -> None:
        """Move a result that could not be stored out of the spool, so that the job's next attempt computes it again."""
        if self.came_from_spool:
            set_result_aside(self.settings, *self.lease.job, reason="it could not be stored")

    def wait_until_storable(self, connection: Any, *, longest: float, what: str) -> None:
        """Wait for server and store, however long it takes: the result is safe meanwhile."""
        wait_for_places(self.settings, connection, store=self.uses_store)

    def check_lease(self, connection: Any) -> None:
        """End the lease in the transaction that stores the result; a :class:`LeaseLostError` if another has it."""
        if not self.ended:
            if not has_transaction(connection):  # it was lost with a connection that was reopened
                raise LostConnectionError("The transaction in which the result was to be stored was lost.")
            if not self.settings.leases.end(connection, self.lease):
                raise lost(self.lease)
            self.ended = True
            self.began_next = self._begin_next is not None and self._begin_next(connection)

    def lost(self) -> LeaseLostError:
        """Return the error that says that the lease went to another worker."""
        return lost(self.lease)
