"""What blocks a lab's jobs, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from december_plugin.pool.jobs.job import Job
from december_plugin.pool.liveness import WorkerStatus
from december_plugin.pool.status.overview import Overview
from december_plugin.text.formatting import format_duration, numbered

JUST_BEGUN = 300.0  # a younger reservation without a heartbeat counts as running (s)


@dataclass(frozen=True)
class Bottleneck:
    """One thing that blocks jobs.

    Attributes
    ----------
    kind
        A name for programs: ``no_worker``, ``all_depend_on_failed``, ``workers_wait``, ``workers_overdue``,
        ``workers_idle``, ``reservations_without_worker``, ``stop_requested`` or ``no_pool_tables``.
    message
        What is wrong, in words.
    remedy
        What to do; empty if it resolves itself.
    count
        Number of jobs, workers or pools that it concerns.
    """

    kind: str
    message: str
    remedy: str
    count: int


def find_bottlenecks(overview: Overview) -> list[Bottleneck]:
    """Return what blocks jobs, the most serious first."""
    return [
        *_no_pool_tables(overview),
        *_no_worker(overview),
        *_only_failures_left(overview),
        *_waiting_workers(overview),
        *_overdue_workers(overview),
        *_orphans(overview),
        *_stopping(overview),
        *_idle_workers(overview),
    ]


def alive(overview: Overview) -> list[WorkerStatus]:
    """Return the workers that are alive."""
    return [worker for worker in overview.workers if worker.alive]


def orphans(overview: Overview) -> list[Job]:
    """Return reservations that no worker of a pool holds: of a plain ``populate()``."""
    return [job for job in overview.jobs_in("running") if not job.holder and job.age > JUST_BEGUN]


def _no_pool_tables(overview: Overview) -> Iterator[Bottleneck]:
    if not overview.has_pool_tables:
        yield Bottleneck(
            "no_pool_tables",
            f"The schema {overview.schema} has no tables of workers and pools.",
            "An account that may create tables creates them with `december register SWEEP` (nothing is registered "
            "twice). Until then, workers, pools, attempts and throughput are unknown.",
            0,
        )


def _no_worker(overview: Overview) -> Iterator[Bottleneck]:
    waiting = sum(table.waiting for table in overview.tables)
    if waiting and overview.has_pool_tables and not alive(overview):
        yield Bottleneck(
            "no_worker",
            f"{numbered(waiting, 'job')} could be begun, but no worker is alive.",
            "Start some: `december pool`, or one: `december worker`.",
            waiting,
        )


def _only_failures_left(overview: Overview) -> Iterator[Bottleneck]:
    stuck = overview.jobs_in("failed", "poisoned", "ignored")
    at_work = any(table.waiting or table.running for table in overview.tables)
    if not at_work and any(job.state != "ignored" for job in stuck):
        yield Bottleneck(
            "all_depend_on_failed",
            f"Nothing else can be begun: what is left has failed, or depends on it ({numbered(len(stuck), 'job')}).",
            "Fix the cause, then `december jobs retry --all`.",
            len(stuck),
        )


def _waiting_workers(overview: Overview) -> Iterator[Bottleneck]:
    reasons: dict[str, list[WorkerStatus]] = {}
    for worker in alive(overview):
        if worker.state == "waiting":
            reasons.setdefault(worker.detail, []).append(worker)
    for detail, workers in reasons.items():
        verb = "waits" if len(workers) == 1 else "wait"
        reason = (detail or "for the server or the store").rstrip(".")
        yield Bottleneck(
            "workers_wait",
            f"{numbered(len(workers), 'worker')} {verb} ({_hosts(workers)}): {reason}.",
            "This passes when it answers; nothing is lost meanwhile.",
            len(workers),
        )


def _overdue_workers(overview: Overview) -> Iterator[Bottleneck]:
    workers = [worker for worker in overview.workers if worker.overdue and worker.job_hash]
    held = [job for job in overview.jobs_in("running") if job.holder and not job.is_alive]
    if held:
        oldest = max((worker.heartbeat_age for worker in workers), default=0.0)
        since = f", for up to {format_duration(oldest)}" if workers else ""
        rescue = (
            "Live workers free these jobs within seconds."
            if alive(overview)
            else "The next worker that starts frees these jobs; so does `december jobs retry --stale`."
        )
        where = f" ({_hosts(workers)})" if workers else ""
        yield Bottleneck(
            "workers_overdue",
            f"{numbered(len(held), 'job')} held by workers without a heartbeat{where}{since}: dead, or cut off.",
            rescue,
            len(held),
        )


def _orphans(overview: Overview) -> Iterator[Bottleneck]:
    found = orphans(overview)
    if found:
        oldest = max(job.age for job in found)
        where = _listed(f"process {job.pid} on {job.host}" for job in found)
        yield Bottleneck(
            "reservations_without_worker",
            f"{numbered(len(found), 'job')} reserved by a plain populate(), the first {format_duration(oldest)} ago "
            f"({where}). It is not possible to tell whether they are still running.",
            "If these processes are gone: `december jobs retry --stale TIME` frees what is older than TIME.",
            len(found),
        )


def _stopping(overview: Overview) -> Iterator[Bottleneck]:
    pools = [pool for pool in overview.pools if pool.stop_requested and pool.ended_age is None]
    if pools:
        yield Bottleneck(
            "stop_requested",
            f"{numbered(len(pools), 'pool')} asked to stop: {_listed(pool.pool_id[:8] for pool in pools)}. "
            "The workers finish their jobs, or save them, and end.",
            "",
            len(pools),
        )


def _idle_workers(overview: Overview) -> Iterator[Bottleneck]:
    workers, waiting = alive(overview), [table for table in overview.tables if table.waiting]
    if waiting and workers and all(worker.state == "idle" for worker in workers):
        yield Bottleneck(
            "workers_idle",
            f"{numbered(len(workers), 'worker')} alive and idle although jobs wait in "
            f"{', '.join(table.table for table in waiting)}.",
            "If this persists, they were started with --only or --skip: start workers for these tables.",
            len(workers),
        )


def _hosts(workers: Sequence[WorkerStatus]) -> str:
    return _listed(sorted({worker.host for worker in workers}))


def _listed(names: Iterable[str], *, most: int = 3) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:most]) + (f" and {len(unique) - most} more" if len(unique) > most else "")
