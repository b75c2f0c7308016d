"""``december status``: what is done, running, waiting and failed."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from december_plugin.commands import Subparsers
from december_plugin.commands._lab import add_lab_options, open_lab_of

if TYPE_CHECKING:
    from december_plugin.lab import Lab
    from december_plugin.pool import TableStatus

MAX_FAILURES = 20

DESCRIPTION = """\
Shows for each table how many entries are done, running, waiting and failed, and why jobs failed. What a table waits
for counts only once the tables before it have it.
"""
EPILOG = """\
examples:
  december status
  december status --json      for scripts

exit codes: 0, or 3 if some jobs failed
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december status``."""
    parser = subparsers.add_parser(
        "status", help="what is done, running or failed, and why", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_lab_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the status."""
    from december_plugin.commands.worker import SOME_FAILED
    from december_plugin.pool import table_statuses

    lab = open_lab_of(args)
    statuses = table_statuses(lab.tables)
    if args.json:
        print(json.dumps({"schema": lab.schema, "tables": [_as_json(status) for status in statuses]}, indent=2))
    else:
        _print(lab, statuses)
    return SOME_FAILED if any(status.failed for status in statuses) else 0


def _as_json(status: TableStatus) -> dict[str, Any]:
    return {
        "table": status.name,
        "done": status.done,
        "waiting": status.waiting,
        "running": [vars(job) for job in status.running],
        "failed": [vars(job) for job in status.failed],
    }


def _print(lab: Lab, statuses: list[TableStatus]) -> None:
    from december_plugin.pool import describe_jobs

    describe = describe_jobs(lab.tables)
    print(f"schema {lab.schema}, {len(lab.tables.TrainingPlan())} trainings planned\n")
    print(f"{'table':<20}{'done':>8}{'running':>9}{'waiting':>9}{'failed':>8}")
    for status in statuses:
        counts = f"{status.done:>8}{len(status.running):>9}{status.waiting:>9}{len(status.failed):>8}"
        print(f"{status.name:<20}{counts}")
    running = [(status.name, job) for status in statuses for job in status.running]
    if running:
        print("\nrunning")
        for name, job in running:
            print(f"  {describe(name, job.key)}  (process {job.pid} on {job.host})")
    failed = [(status.name, job) for status in statuses for job in status.failed]
    if failed:
        print("\nfailed")
        for name, job in failed[:MAX_FAILURES]:
            print(f"  {describe(name, job.key)}\n    {job.reason}")
        if len(failed) > MAX_FAILURES:
            print(f"  ... and {len(failed) - MAX_FAILURES} more (december status --json has all)")
        print("\nMend the cause, then `december worker --retry` tries them again.")
    elif any(status.waiting for status in statuses):
        print("\n`december worker` computes what is waiting.")
