"""``december jobs show`` on the terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from december_plugin.cli.views.status import job_words
from december_plugin.cli.views.tables import heading, new_console, new_table, show, text, verbatim

if TYPE_CHECKING:
    from december_plugin.pool.jobs.job import Job
    from december_plugin.pool.liveness import WorkerStatus
    from december_plugin.pool.status.overview import Overview

    Describe = Callable[[str, Mapping[str, Any]], str]

MOST = 50
STYLES = {"running": "green", "failed": "red", "poisoned": "bold red", "ignored": "yellow"}
ORDER = ("running", "poisoned", "failed", "ignored")
WORKER_FIELDS = (  # of a job's worker, in JSON
    "worker_id",
    "host",
    "pid",
    "gpu",
    "slurm_job",
    "state",
    "detail",
    "lease",
    "epoch",
    "n_epochs",
    "score",
    "seconds_left",
    "job_hash",
    "heartbeat_age",
    "alive",
)


def print_list(overview: Overview, jobs: Sequence[Job], *, show_all: bool) -> None:
    """Print jobs, one per line."""
    console = new_console()
    if not jobs:
        print("no such jobs")
        return
    ordered = sorted(jobs, key=lambda job: ORDER.index(job.state))
    table = new_table(
        "job", "state", ("what", {"ratio": 1}), ("reason, or progress", {"ratio": 1}), plain=not console.is_terminal
    )
    table.expand = True
    shown = ordered if show_all else ordered[:MOST]
    for job in shown:
        table.add_row(
            text(job.id, "cyan"),
            text(job.state, STYLES[job.state]),
            text(job_words(overview, job, width=console.width)),
            text(" ".join(job.reason.split()) if job.state != "running" else _progress(job)),
        )
    rest = [text(f"... and {len(jobs) - len(shown):,} more (--all)", "dim")] if len(jobs) > len(shown) else []
    show(console, [table, *rest, text("\n`december jobs show JOB` has the traceback and the log of one job.", "dim")])


def print_waiting(jobs: Sequence[Job], tables: Any, *, show_all: bool, as_json: bool) -> None:
    """Print jobs that could be started now."""
    from december_plugin.pool.jobs.description import describe_jobs

    describe = describe_jobs(tables)
    if as_json:
        from december_plugin.cli.views.as_json import dumped

        print(dumped([_name_as_dict(job, describe) for job in jobs]))
        return
    shown = jobs if show_all else jobs[:MOST]
    for job in shown:
        print(f"{job.id}  {describe(job.table, job.key or {})}")
    if len(jobs) > len(shown):
        print(f"... and {len(jobs) - len(shown):,} more (--all)")
    if not jobs:
        print("no such jobs")


def list_as_json(overview: Overview, jobs: Sequence[Job]) -> str:
    """Return jobs as in ``december status --json``."""
    from december_plugin.cli.views.as_json import dumped, job_as_dict

    return dumped([job_as_dict(overview, job) for job in jobs])


def details_as_json(job: Job, describe: Describe, *, lines: int) -> str:
    """Return everything about a job as JSON."""
    from december_plugin.cli.views.as_json import as_utc, dumped
    from december_plugin.pool.jobs.lookup import log_tail

    place, tail = log_tail(job.log_file, lines)
    content = {
        **_name_as_dict(job, describe),
        "reason": job.reason,
        "reserved_by": job.reserved_by,
        "queue_age": job.age if job.reserved_by else None,
        "has_record": job.has_record,
        "holder": job.holder,
        "n_starts": job.n_starts,
        "n_deaths": job.n_deaths,
        "last_worker": job.last_worker,
        "last_words": job.last_words,
        "log_file": job.log_file,
        "begun": as_utc(job.begun),
        "ended": as_utc(job.ended),
        "worker": None if job.worker is None else {name: getattr(job.worker, name) for name in WORKER_FIELDS},
        "error_stack": job.stack,
        "log_place": place,
        "log": None if tail is None else "\n".join(tail),
    }
    return dumped(content)


def print_details(job: Job, describe: Describe, *, lines: int) -> None:
    """Print everything about a job, the traceback and the end of its log last."""
    from december_plugin.pool.jobs.lookup import log_tail

    console = new_console()
    description = describe(job.table, job.key or {})
    table = new_table(("", {"style": "bold"}), ("", {"no_wrap": False, "overflow": "fold"}), plain=True)
    table.show_header = False
    for name, value in _facts(job, description):
        table.add_row(text(name), text(value, STYLES.get(value.split(" ")[0], "") if name == "state" else ""))
    parts: list[Any] = [table]
    if job.key:
        parts += [heading("key"), *(text(f"  {name}: {value}") for name, value in job.key.items())]
    if job.reason:
        parts += [heading("message", "bold red"), verbatim(job.reason)]
    if job.stack.strip():
        parts += [heading("traceback"), verbatim(job.stack.rstrip())]
    place, tail = log_tail(job.log_file, lines)
    if place:
        title = heading(f"log: {place}" if tail is None else f"end of the log {place}")
        title.no_wrap = True  # a path is copied whole
        parts += [title]
        parts += [verbatim("\n".join(tail))] if tail else []
    show(console, parts)


def _facts(job: Job, description: str) -> list[tuple[str, str]]:
    from december_plugin.text.formatting import format_duration, numbered

    worker = job.worker
    facts = [("job", job.job_hash), ("what", description), ("table", job.table), ("state", _state(job))]
    if job.reserved_by and not job.holder:
        facts.append(("by", f"{job.reserved_by}, {format_duration(job.age)} ago"))
    if job.has_record:
        deaths = f", {job.n_deaths} of them ended with the death of the worker" if job.n_deaths else ""
        facts.append(("attempts", f"{numbered(job.n_starts, 'attempt')}{deaths}"))
        facts.append(("begun", _time(job.begun)))
    if job.ended is not None and not job.holder:
        facts.append(("ended", _time(job.ended)))
    if job.holder:
        facts.append(("held by", _worker(job.holder, worker)))
        if worker is not None and worker.epoch is not None and worker.job_hash == job.job_hash:
            facts.append(("progress", _worker_progress(worker)))
    elif job.last_worker:
        facts.append(("last worker", _worker(job.last_worker, worker)))
    # The message of a failure is printed separately.
    if job.last_words and job.last_words.strip() != job.reason.strip():
        facts.append(("last words", job.last_words))
    return facts


def _state(job: Job) -> str:
    state = job.state
    if state == "running" and not job.holder:
        return "reserved by a process without a heartbeat, such as a plain populate()"
    if state == "running" and not job.is_alive:
        return "running, but its worker shows no heartbeat: dead, suspended or cut off"
    if state == "poisoned":
        return "poisoned (given up, because it kept killing its workers)"
    return f"{state}, started before" if state == "waiting" and job.has_record else state


def _worker(worker_id: str, worker: WorkerStatus | None) -> str:
    from december_plugin.text.formatting import format_duration

    if worker is None:
        return f"worker {worker_id[:8]}, about which nothing more is known"
    gpu = f"GPU {worker.gpu}" if worker.gpu else "no GPU"
    slurm = f", Slurm job {worker.slurm_job}" if worker.slurm_job else ""
    words = f"worker {worker_id[:8]} on {worker.host} ({gpu}, process {worker.pid}{slurm})"
    if worker.has_ended:
        return f"{words}, {worker.state}" + (f": {worker.detail}" if worker.detail else "")
    heartbeat = f"last heartbeat {format_duration(worker.heartbeat_age)} ago (lease {format_duration(worker.lease)})"
    return f"{words}, {worker.state}, {heartbeat}"


def _worker_progress(worker: WorkerStatus) -> str:
    from december_plugin.text.formatting import format_duration

    parts = [f"epoch {worker.epoch} of {worker.n_epochs}"]
    if worker.score is not None:
        parts.append(f"score {worker.score:.3f}")
    if worker.seconds_left is not None:
        parts.append(f"{format_duration(worker.seconds_left)} left")
    return ", ".join(parts)


def _progress(job: Job) -> str:
    if job.worker is None:
        return f"process {job.pid} on {job.host}, no heartbeat"
    place = f"{job.worker.host}" + (f" GPU {job.worker.gpu}" if job.worker.gpu else "")
    progress = f"{_worker_progress(job.worker)}, " if job.worker.epoch is not None else ""
    return progress + place + ("" if job.is_alive else ", no heartbeat")


def _name_as_dict(job: Job, describe: Describe) -> dict[str, Any]:
    return {
        "id": job.id,
        "hash": job.job_hash,
        "table": job.table,
        "state": job.state,
        "key": job.key,
        "description": describe(job.table, job.key or {}),
    }


def _time(time: datetime | None) -> str:
    return "" if time is None else time.strftime("%Y-%m-%d %H:%M:%S UTC")
