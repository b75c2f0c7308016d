"""What all jobs of a worker share."""

from __future__ import annotations

from dataclasses import dataclass, field

from december_plugin.pool.jobs.leases import Leases
from december_plugin.pool.worker.heartbeat import Heartbeat, WorkerState
from december_plugin.pool.worker.spool import Spool
from december_plugin.storage.base import ObjectStore
from december_plugin.training.monitor import Progress


class JobWatch:
    """Is notified of what a worker does; this one ignores it.

    An error in ``begins`` or ``progresses`` fails the job; one in ``ends``, when the job may be stored, is only logged.
    """

    def begins(self, words: str) -> None:
        """Take note that a job begins, which ``words`` describe."""

    def progresses(self, progress: Progress) -> None:
        """Take note of an epoch of the job's training."""

    def ends(self) -> None:
        """Take note that the job has ended, in whatever way."""


@dataclass(frozen=True)
class JobSettings:
    """What all jobs of a worker share."""

    schema: str
    leases: Leases
    state: WorkerState
    heartbeat: Heartbeat
    spool: Spool
    store: ObjectStore
    storage: str
    checkpoint_every: int
    watch: JobWatch = field(default_factory=JobWatch)
