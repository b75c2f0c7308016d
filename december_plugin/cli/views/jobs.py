"""``december jobs show`` on the terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from december_plugin.cli.views.status import job_words
from december_plugin.cli.views.tables import heading, new_console, new_table, show, text, verbatim

if TYPE_CHECKING:
    from december_plugin.pool.jobs.lookup import JobDetails, JobRef
    from december_plugin.pool.status.overview import Overview, QueuedJob

    Describe = Callable[[str, Mapping[str, Any]], str]

MOST = 50
STYLES = {"running": "green", "failed": "red", "poisoned": "bold red", "ignored": "yellow"}
ORDER = ("running", "poisoned", "failed", "ignored")


def print_list(overview: Overview, jobs: Sequence[QueuedJob], *, show_all: bool) -> None:
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


def print_waiting(refs: Sequence[JobRef], tables: Any, *, show_all: bool, as_json: bool) -> None:
    """Print jobs that could be begun now."""
    from december_plugin.pool.jobs.waiting import describe_jobs

    describe = describe_jobs(tables)
    if as_json:
        from december_plugin.cli.views.status_json import dumped

        print(dumped([_ref_as_dict(ref, describe) for ref in refs]))
        return
    shown = refs if show_all else refs[:MOST]
    for ref in shown:
        print(f"{ref.id}  {describe(ref.table_name, ref.key or {})}")
    if len(refs) > len(shown):
        print(f"... and {len(refs) - len(shown):,} more (--all)")
    if not refs:
        print("no such jobs")


def list_as_json(overview: Overview, jobs: Sequence[QueuedJob]) -> str:
    """Return jobs as in ``december status --json``."""
    from december_plugin.cli.views.status_json import dumped, job_as_dict

    return dumped([job_as_dict(overview, job) for job in jobs])


def details_as_json(details: JobDetails, describe: Describe, *, lines: int) -> str:
    """Return everything about a job as JSON."""
    from december_plugin.cli.views.status_json import as_utc, dumped
    from december_plugin.pool.jobs.lookup import log_tail

    place, tail = log_tail(details.log_file, lines)
    content = {name: value for name, value in vars(details).items() if name != "ref"}
    content |= {"begun": as_utc(details.begun), "ended": as_utc(details.ended)}
    content["error_stack"] = content.pop("stack")
    log = None if tail is None else "\n".join(tail)
    return dumped({**_ref_as_dict(details.ref, describe), **content, "log_place": place, "log": log})


def print_details(details: JobDetails, describe: Describe, *, lines: int) -> None:
    """Print everything about a job, the traceback and the end of its log last."""
    from december_plugin.pool.jobs.lookup import log_tail

    console = new_console()
    ref = details.ref
    words = describe(ref.table_name, ref.key or {})
    table = new_table(("", {"style": "bold"}), ("", {"no_wrap": False, "overflow": "fold"}), plain=True)
    table.show_header = False
    for name, value in _facts(details, words):
        table.add_row(text(name), text(value, STYLES.get(value.split(" ")[0], "") if name == "state" else ""))
    parts: list[Any] = [table]
    if ref.key:
        parts += [heading("key"), *(text(f"  {name}: {value}") for name, value in ref.key.items())]
    if details.reason:
        parts += [heading("message", "bold red"), verbatim(details.reason)]
    if details.stack.strip():
        parts += [heading("traceback"), verbatim(details.stack.rstrip())]
    place, tail = log_tail(details.log_file, lines)
    if place:
        title = heading(f"log: {place}" if tail is None else f"end of the log {place}")
        title.no_wrap = True  # a path is copied whole
        parts += [title]
        parts += [verbatim("\n".join(tail))] if tail else []
    show(console, parts)


def _facts(details: JobDetails, words: str) -> list[tuple[str, str]]:
    from december_plugin.text.formatting import in_words, numbered

    ref, worker = details.ref, details.worker
    facts = [("job", f"{ref.job_hash}"), ("what", words), ("table", ref.table_name), ("state", _state(details))]
    if details.queue_age is not None and not details.holder:
        facts.append(("by", f"{details.reserved_by}, {in_words(details.queue_age)} ago"))
    if details.has_record:
        deaths = f", {details.n_deaths} of them ended with the death of the worker" if details.n_deaths else ""
        facts.append(("attempts", f"{numbered(details.n_starts, 'attempt')}{deaths}"))
        facts.append(("begun", _time(details.begun)))
    if details.ended is not None and not details.holder:
        facts.append(("ended", _time(details.ended)))
    if details.holder:
        facts.append(("held by", _worker(details.holder, worker)))
        if worker is not None and worker["epoch"] is not None and worker["job_hash"] == ref.job_hash:
            facts.append(("progress", _worker_progress(worker)))
    elif details.last_worker:
        facts.append(("last worker", _worker(details.last_worker, worker)))
    # The message of a failure is printed on its own.
    if details.last_words and details.last_words.strip() != details.reason.strip():
        facts.append(("last words", details.last_words))
    return facts


def _state(details: JobDetails) -> str:
    state = details.ref.state
    if state == "running" and not details.holder:
        return "reserved by a process that is no worker with a heartbeat: a plain populate() or an older version"
    if state == "running" and not (details.worker and details.worker["alive"]):
        return "running, but its worker shows no heartbeat: dead, suspended or cut off"
    if state == "poisoned":
        return "poisoned (given up, because it kept killing its workers)"
    return f"{state}, begun before" if state == "waiting" and details.has_record else state


def _worker(worker_id: str, worker: Mapping[str, Any] | None) -> str:
    from december_plugin.text.formatting import in_words

    if worker is None:
        return f"worker {worker_id[:8]}, of which nothing more is known"
    gpu = f"GPU {worker['gpu']}" if worker["gpu"] else "no GPU"
    slurm = f", Slurm job {worker['slurm_job']}" if worker["slurm_job"] else ""
    words = f"worker {worker_id[:8]} on {worker['host']} ({gpu}, process {worker['pid']}{slurm})"
    if worker["state"] in ("ended", "dead"):
        return f"{words}, {worker['state']}" + (f": {worker['detail']}" if worker["detail"] else "")
    return (
        f"{words}, {worker['state']}, last heartbeat {in_words(worker['heartbeat_age'])} ago (lease "
        f"{in_words(worker['lease'])})"
    )


def _worker_progress(worker: Mapping[str, Any]) -> str:
    from december_plugin.text.formatting import in_words

    parts = [f"epoch {worker['epoch']} of {worker['n_epochs']}"]
    if worker["score"] is not None:
        parts.append(f"score {worker['score']:.3f}")
    if worker["seconds_left"] is not None:
        parts.append(f"{in_words(worker['seconds_left'])} left")
    return ", ".join(parts)


def _progress(job: QueuedJob) -> str:
    if job.worker is None:
        return f"process {job.pid} on {job.host}, no heartbeat"
    place = f"{job.worker.host}" + (f" GPU {job.worker.gpu}" if job.worker.gpu else "")
    progress = f"{_worker_progress(asdict(job.worker))}, " if job.worker.epoch is not None else ""
    return progress + place + ("" if job.is_alive else ", no heartbeat")


def _ref_as_dict(ref: JobRef, describe: Describe) -> dict[str, Any]:
    return {
        "id": ref.id,
        "hash": ref.job_hash,
        "table": ref.table_name,
        "state": ref.state,
        "key": ref.key,
        "description": describe(ref.table_name, ref.key or {}),
    }


def _time(time: datetime | None) -> str:
    return "" if time is None else time.strftime("%Y-%m-%d %H:%M:%S UTC")
