"""Settings of a worker, and the report of what it has done."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Settings of a worker: which tables it fills, for how long, and how it saves its work.

    Attributes
    ----------
    lease
        The worker counts as dead when its heartbeat is older than this (s).
    checkpoint_every
        Epochs between two checkpoints of a training.
    max_attempts
        A job that killed its worker this many times without a new checkpoint is not started again.
    only, skip
        Tables to fill, see :func:`december_plugin.pool.jobs.queue.choose_tables`.
    poll
        When nothing is left, look again after this time (s); None ends.
    idle_exit
        End after this time without work (s).
    max_time
        End after this time; the current job is checkpointed and given back (s).
    retry
        Forget earlier failures first.
    data_cache
        Memory for recordings that stay from one job to the next (GB); 0 for none, None for
        :func:`~december_plugin.datasets.common.data_cache.default_limit`.
    log_folder
        Where the logs of jobs go; None is ``logs`` in the folder of december.
    tensorboard
        Where the curves of trainings go, as TensorBoard event files; None writes none.

    See Also
    --------
    Worker : The worker that these settings are for.

    Examples
    --------
    >>> from december_plugin.pool import WorkerSettings
    >>> overnight = WorkerSettings(only=("gpu",), max_time=10 * 3600, checkpoint_every=1)
    >>> overnight.max_attempts, overnight.lease
    (3, 60.0)
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
    data_cache: float | None = None
    log_folder: Path | None = None
    tensorboard: Path | None = None


@dataclass
class WorkerReport:
    """What a worker did: entries computed per table, jobs that failed, why it ended, and if for want of work.

    Examples
    --------
    >>> from december_plugin.pool import WorkerReport
    >>> report = WorkerReport(computed={"TrainedModel": 4, "ClusterAssignment": 16}, n_failed=1)
    >>> sum(report.computed.values()), report.ended_by
    (20, 'nothing is left to do')
    """

    computed: dict[str, int] = field(default_factory=dict)
    n_failed: int = 0
    ended_by: str = "nothing is left to do"
    signal: int | None = None
    ended_idle: bool = False
