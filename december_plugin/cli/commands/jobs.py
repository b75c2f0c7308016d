"""``december jobs``: shows jobs, retries them, or takes them out of the queue."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.options import add_lab_options, open_lab_of
from december_plugin.cli.worker_options import seconds
from december_plugin.errors import SettingsError
from december_plugin.text.formatting import numbered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from december_plugin.pool.jobs.actions import Outcome
    from december_plugin.pool.jobs.job import Job
    from december_plugin.pool.jobs.lookup import JobLookup
    from december_plugin.pool.status.overview import Overview

REFUSED = 1
MAX_REFUSALS = 5
STALE = 86400.0  # default of --stale (s)
STATES = ("running", "failed", "poisoned", "ignored", "waiting")

DESCRIPTION = """\
Shows, retries and ignores jobs. Jobs are named by the first characters of their hash, as printed by `december status`
and `december jobs show`; any unique beginning will do. If the same key failed in several tables, add
--table.
"""
EPILOG = """\
examples:
  december jobs show                          running, failed, poisoned and ignored jobs
  december jobs show --state failed --reason "out of memory"
  december jobs show 1a2b3c4d                 key, attempts, traceback, and the end of its log
  december jobs retry 1a2b3c4d                start it again, with all its attempts
  december jobs retry --reason "out of memory"
  december jobs retry --all                   all that failed or are poisoned
  december jobs retry --stale 24:00:00        free jobs that were reserved over a day ago and no worker holds
  december jobs ignore 1a2b3c4d 5e6f7a8b      no worker starts them; retry undoes this

exit codes: 0, or 1 if a named job could not be retried or ignored
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december jobs``."""
    parser = subparsers.add_parser(
        "jobs", help="show jobs, retry or ignore them", description=DESCRIPTION, epilog=EPILOG
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    _add_show(actions)
    _add_retry(actions)
    ignore = actions.add_parser("ignore", help="take jobs out of the queue, including waiting ones", epilog=EPILOG)
    ignore.add_argument("jobs", nargs="+", metavar="JOB", help="name of a job")
    ignore.add_argument("--table", metavar="NAME", help="its table, if several have such a job")
    add_lab_options(ignore)


def _add_show(actions: Subparsers) -> None:
    show = actions.add_parser("show", help="list jobs, or show everything about one", epilog=EPILOG)
    show.add_argument("job", nargs="?", metavar="JOB", help="name of a job; without it jobs are listed")
    show.add_argument("--table", metavar="NAME", help="jobs of this table")
    show.add_argument("--state", choices=STATES, help="jobs in this state (default: all but waiting)")
    show.add_argument("--reason", metavar="TEXT", help="jobs whose error message contains this text")
    show.add_argument("--all", action="store_true", help="list all jobs, not only the first 50")
    show.add_argument("--lines", type=_lines, default=20, metavar="N", help="lines of the job's log (default: 20)")
    show.add_argument("--json", action="store_true", help="print JSON")
    add_lab_options(show)


def _add_retry(actions: Subparsers) -> None:
    retry = actions.add_parser("retry", help="start jobs again", epilog=EPILOG)
    retry.add_argument("jobs", nargs="*", metavar="JOB", help="name of a job")
    retry.add_argument("--all", action="store_true", help="all that failed or are poisoned")
    retry.add_argument("--failed", action="store_true", help="all that failed")
    retry.add_argument("--poisoned", action="store_true", help="all that were given up after killing their workers")
    retry.add_argument("--ignored", action="store_true", help="all that are ignored")
    retry.add_argument("--table", metavar="NAME", help="those of this table")
    retry.add_argument("--reason", metavar="TEXT", help="those whose error message contains this text (any case)")
    retry.add_argument(
        "--stale",
        nargs="?",
        type=seconds,
        const=STALE,
        metavar="TIME",
        help="also reservations that are older than TIME (seconds or HH:MM:SS; default: 24:00:00) and that no worker "
        "with a heartbeat holds, such as those of a killed populate(); make sure that its process is gone",
    )
    add_lab_options(retry)


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    return {"show": _show, "retry": _retry, "ignore": _ignore}[args.action](args)


# ---- show


def _show(args: argparse.Namespace) -> int:
    from december_plugin.pool.jobs.lookup import JobLookup

    lab = open_lab_of(args, read_only=True)
    lookup = JobLookup(lab.tables)
    if args.job is not None:
        return _show_one(lookup, args)
    lookup.chosen_tables(args.table)  # a misspelled one is an error
    from december_plugin.cli.views.jobs import list_as_json, print_list, print_waiting
    from december_plugin.pool.status.overview import read_overview

    if args.state == "waiting":
        print_waiting(
            lookup.waiting(lookup.chosen_tables(args.table)), lab.tables, show_all=args.all, as_json=args.json
        )
        return 0
    overview = read_overview(lab.tables)
    jobs = _chosen(overview, [args.state] if args.state else list(STATES), args)
    if args.json:
        print(list_as_json(overview, jobs))
    else:
        print_list(overview, jobs, show_all=args.all)
    return 0


def _show_one(lookup: JobLookup, args: argparse.Namespace) -> int:
    from december_plugin.cli.views.jobs import details_as_json, print_details
    from december_plugin.pool.jobs.description import describe_jobs

    details = lookup.details(lookup.find(args.job, table=args.table))
    describe = describe_jobs(lookup.tables)
    if args.json:
        print(details_as_json(details, describe, lines=args.lines))
    else:
        print_details(details, describe, lines=args.lines)
    return 0


def _chosen(overview: Overview, states: Sequence[str], args: argparse.Namespace) -> list[Job]:
    """Return the jobs in these states that the options name."""
    return [
        job
        for job in overview.jobs
        if job.state in states
        and args.table in (None, job.table)
        and (args.reason is None or args.reason.lower() in job.reason.lower())
    ]


# ---- retry and ignore


def _retry(args: argparse.Namespace) -> int:
    from december_plugin.pool.jobs.actions import JobActions
    from december_plugin.pool.jobs.lookup import JobLookup

    _check_selection(args)
    lab = open_lab_of(args, read_only=True)
    lookup = JobLookup(lab.tables)
    jobs = [lookup.find(job, table=args.table) for job in args.jobs] or _selected(lookup, args)
    outcome = JobActions(lookup, stale=args.stale).retry(jobs)
    _report(outcome, "will be started again", nothing="There is nothing to start again.", named=bool(args.jobs))
    return REFUSED if outcome.refused and args.jobs else 0


def _check_selection(args: argparse.Namespace) -> None:
    groups = [f"--{name}" for name in ("all", "failed", "poisoned", "ignored") if getattr(args, name)]
    if args.jobs and (groups or args.reason):
        given = groups[0] if groups else "--reason"
        raise SettingsError(f"both names of jobs ({args.jobs[0]}) and {given} are given. Give only one of the two.")
    if not (args.jobs or groups or args.reason or args.table or args.stale is not None):
        raise SettingsError(
            "which jobs? Give their names, or --all, --failed, --poisoned, --ignored, --table NAME, --reason TEXT, or "
            "--stale TIME. `december jobs show` lists jobs."
        )


def _selected(lookup: JobLookup, args: argparse.Namespace) -> list[Job]:
    from december_plugin.pool.status.overview import read_overview

    tables = {type(table).__name__ for table in lookup.chosen_tables(args.table)}
    states = {state for state in ("failed", "poisoned", "ignored") if getattr(args, state)}
    # A table or a reason alone means what failed for it; --stale alone means the reservations alone.
    if args.all or (not states and (args.reason or (args.table and args.stale is None))):
        states |= {"failed", "poisoned"}
    overview = read_overview(lookup.tables)
    jobs = _chosen(overview, sorted(states), args)
    if args.stale is not None and args.reason is None:
        reserved = [job for job in overview.jobs_in("running") if job.table in tables and not job.is_alive]
        jobs += [job for job in reserved if job.holder or job.age >= args.stale]
    return jobs


def _ignore(args: argparse.Namespace) -> int:
    from december_plugin.pool.jobs.actions import JobActions
    from december_plugin.pool.jobs.lookup import JobLookup

    lab = open_lab_of(args, read_only=True)
    lookup = JobLookup(lab.tables)
    outcome = JobActions(lookup).ignore([lookup.find(job, table=args.table) for job in args.jobs])
    _report(outcome, "ignored from now on; `december jobs retry` undoes this", nothing="", named=True)
    return REFUSED if outcome.refused else 0


def _report(outcome: Outcome, what: str, *, nothing: str, named: bool) -> None:
    by_table: dict[str, list[Job]] = {}
    for job in outcome.changed:
        by_table.setdefault(job.table, []).append(job)
    for table, jobs in by_table.items():
        names = f": {', '.join(job.id for job in jobs)}" if len(jobs) <= MAX_REFUSALS else ""
        print(f"{table}: {numbered(len(jobs), 'job')} {what}{names}")
    if not outcome.changed and not outcome.refused and nothing:
        print(nothing)
    # If no jobs were named, one that a worker has taken in the meantime is not worth a line.
    for job, reason in outcome.refused[: None if named else MAX_REFUSALS]:
        print(f"december: {job} {reason}", file=sys.stderr)
    if not named and len(outcome.refused) > MAX_REFUSALS:
        print(f"december: and {len(outcome.refused) - MAX_REFUSALS:,} more", file=sys.stderr)


def _lines(words: str) -> int:
    if not words.isdigit():
        raise argparse.ArgumentTypeError(f"{words!r} is not a number of lines")
    return int(words)
