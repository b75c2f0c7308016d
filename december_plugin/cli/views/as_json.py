"""``december status --json`` and ``december jobs show --json``: the same as on the terminal, with stable names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from december_plugin.pool.jobs.job import Job
    from december_plugin.pool.liveness import PoolStatus
    from december_plugin.pool.status.overview import Overview

# Free texts may contain anything, even a password.
FREE_TEXT = frozenset(
    {"reason", "example", "detail", "description", "message", "last_words", "error_message", "error_stack", "log"}
)


def overview_as_json(overview: Overview) -> str:
    """Return everything that is known as JSON; times are seconds, ages are those on the database's clock."""
    from december_plugin.pool.status.bottlenecks import find_bottlenecks

    content = {
        "schema": overview.schema,
        "time": as_utc(overview.time),
        "planned": overview.planned,
        "tables": [_table(overview, counts.table) for counts in overview.tables],
        "failures": [asdict(reason) for reason in overview.reasons],
        "workers": [
            {**asdict(worker), "alive": worker.alive, "overdue": worker.overdue} for worker in overview.workers
        ],
        "pools": [_pool(pool) for pool in overview.pools],
        "throughput": asdict(overview.throughput),
        "blocks": [asdict(found) for found in find_bottlenecks(overview)],
    }
    return dumped(content)


def dumped(content: Any) -> str:
    """Return JSON whose free texts contain no secrets."""
    from december_plugin.pool.status.failures import all_redacted

    places = list(_free_texts(content))
    for (owner, name), text in zip(places, all_redacted([owner[name] for owner, name in places]), strict=True):
        owner[name] = text
    return json.dumps(content, indent=2, default=_plain)


def as_utc(time: datetime | None) -> str | None:
    """Return a time of the database in ISO 8601."""
    return None if time is None else time.isoformat(timespec="seconds") + "Z"


def job_as_dict(overview: Overview, job: Job) -> dict[str, Any]:
    """Return what is known of a job that is running, failed, poisoned or ignored."""
    worker = job.worker
    return {
        "id": job.id,
        "hash": job.job_hash,
        "table": job.table,
        "state": job.state,
        "key": {name: _number(value) for name, value in (job.key or {}).items()},
        "description": overview.describe(job.table, job.key or {}),
        "host": job.host,
        "pid": job.pid,
        "user": job.user,
        "age": job.age,
        "reason": job.reason,
        "n_starts": job.n_starts,
        "n_deaths": job.n_deaths,
        "elapsed": job.elapsed,
        "worker": job.holder,
        "alive": job.is_alive,
        "gpu": worker.gpu if worker else "",
        "epoch": worker.epoch if worker else None,
        "n_epochs": worker.n_epochs if worker else None,
        "score": worker.score if worker else None,
        "seconds_left": worker.seconds_left if worker else None,
        "heartbeat_age": worker.heartbeat_age if worker else None,
        "lease": worker.lease if worker else None,
    }


def _pool(pool: PoolStatus) -> dict[str, Any]:
    return {
        "pool_id": pool.pool_id,
        "kind": pool.kind,
        "host": pool.host,
        "user": pool.user,
        "slurm_job": pool.slurm_job,
        "n_workers": pool.n_workers,
        "stop_requested": bool(pool.stop_requested),
        "age": pool.age,
        "ended_age": pool.ended_age,
    }


def _table(overview: Overview, name: str) -> dict[str, Any]:
    (counts,) = (counts for counts in overview.tables if counts.table == name)
    jobs: dict[str, list[dict[str, Any]]] = {state: [] for state in ("running", "failed", "poisoned", "ignored")}
    for job in overview.jobs:
        if job.table == name:
            jobs[job.state].append(job_as_dict(overview, job))
    return {"table": name, "done": counts.done, "waiting": counts.waiting, **jobs}


def _free_texts(content: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(content, dict):
        for name, value in content.items():
            if name in FREE_TEXT and isinstance(value, str):
                yield content, name
            elif isinstance(value, (dict, list)):
                yield from _free_texts(value)
    elif isinstance(content, list):
        for value in content:
            yield from _free_texts(value)


def _number(value: Any) -> Any:
    # A key may hold an integer that is hashed in its own way.
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
