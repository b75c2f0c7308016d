"""``december clean``: old logs, pretrainings and rows of pools."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.options import add_lab_options, open_lab_of
from december_plugin.cli.worker_options import names
from december_plugin.errors import DecemberError, SettingsError
from december_plugin.text.formatting import format_size

if TYPE_CHECKING:
    from december_plugin.pool.old_files import OldFile

UNUSABLE = 3
MIN_DAYS, MAX_DAYS = 1.0, 36500.0
DAY = 86400.0
WHAT = ("logs", "pretrainings", "pools")

DESCRIPTION = """\
Lists, and on request removes, what need not be kept forever: logs of jobs and workers and shared pretrainings of this
machine, and the rows of pools and workers that ended long ago and of jobs done long ago. Results, failures and whatever
belongs to a running pool are kept. To clean up regularly, run it from cron with --delete.
"""
EPILOG = """\
examples:
  december clean                                     what is older than 30 days; removes nothing
  december clean --delete                            removes it
  december clean --only pretrainings --older-than 7 --delete
  december store clean                               for what killed workers left in the store

Rows are removed only with the admin's account (docs/security.md). Estimates of future jobs are based on jobs that are
done, so keep some of them.

exit codes: 0, or 3 if something could not be removed
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december clean``."""
    parser = subparsers.add_parser(
        "clean", help="remove old logs, pretrainings and rows of pools", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("--delete", action="store_true", help="remove what was found; without it nothing is removed")
    parser.add_argument(
        "--older-than", type=float, default=30.0, metavar="DAYS", help="keep what is younger (default: 30, at least 1)"
    )
    parser.add_argument(
        "--only", type=names, default=WHAT, metavar="WHAT", help=f"only these of {', '.join(WHAT)} (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_lab_options(parser)


def run(args: argparse.Namespace) -> int:
    """List what is old, and remove it on request."""
    from december_plugin.pool.old_files import LOGS, POOLS, PRETRAININGS, old_files

    if not MIN_DAYS <= args.older_than <= MAX_DAYS:
        raise SettingsError(
            f"--older-than is {args.older_than:g}; it must be a number of days from {MIN_DAYS:g} to {MAX_DAYS:g}."
        )
    if unknown := [name for name in args.only if name not in WHAT]:
        raise SettingsError(f"--only names {unknown[0]!r}; allowed are {', '.join(WHAT)}.")
    seconds = args.older_than * DAY
    files = {kind: old_files(kind, seconds) for kind in (LOGS, PRETRAININGS) if kind in args.only}
    rows, problems = _rows(args, seconds) if POOLS in args.only else (None, [])
    removed: list[OldFile] = []
    if args.delete:
        for found in files.values():
            removed += _remove(found, seconds, problems)
    if args.json:
        print(json.dumps(_as_json(files, rows, removed, problems), indent=2))
    else:
        _print(args, files, rows, removed, problems)
    return UNUSABLE if problems else 0


def _rows(args: argparse.Namespace, seconds: float) -> tuple[dict[str, int] | None, list[str]]:
    """Return how many rows there are, or were removed; None, and why, if the database cannot be reached."""
    from december_plugin.database.errors import readable_errors
    from december_plugin.pool.jobs.records import PoolRecords
    from december_plugin.pool.transactions import transaction

    try:
        lab = open_lab_of(args, read_only=True)
        with readable_errors():
            records = PoolRecords(lab.tables.schema.connection, lab.schema)
            if not args.delete:
                return records.count_old(seconds), []
            with transaction(records.connection):
                return records.delete_old(seconds), []
    except DecemberError as error:
        return None, [f"rows of pools: {error}"]


def _remove(files: list[OldFile], seconds: float, problems: list[str]) -> list[OldFile]:
    from december_plugin.pool.old_files import remove

    removed = []
    for file in files:
        try:
            if remove(file, seconds):
                removed.append(file)
        except OSError as error:
            problems.append(f"{file.path} cannot be removed: {error.strerror or error}")
    return removed


def _as_json(
    files: dict[str, list[OldFile]], rows: dict[str, int] | None, removed: list[OldFile], problems: list[str]
) -> dict[str, Any]:
    listed = {kind: [{"path": str(file.path), "bytes": file.size} for file in found] for kind, found in files.items()}
    return {**listed, "rows": rows, "removed": [str(file.path) for file in removed], "problems": problems}


def _print(
    args: argparse.Namespace,
    files: dict[str, list[OldFile]],
    rows: dict[str, int] | None,
    removed: list[OldFile],
    problems: list[str],
) -> None:
    from december_plugin.pool.old_files import KINDS, POOLS

    for kind, found in files.items():
        size = format_size(sum(file.size for file in found))
        places = sorted({_top(file.path, kind) for file in found})
        print(f"{len(found):>8}  {KINDS[kind]}, {size}" + (f", in {', '.join(places)}" if places else ""))
    if rows is not None:
        print(f"{sum(rows.values()):>8}  {KINDS[POOLS]}")
    total = sum(len(found) for found in files.values()) + sum((rows or {}).values())
    if args.delete:
        freed = format_size(sum(file.size for file in removed))
        print(f"\n{len(removed) + sum((rows or {}).values())} removed, {freed}.")
    elif total:
        print(f"\nNothing was removed. `december clean --delete` removes what is older than {args.older_than:g} days.")
    else:
        print(f"\nNothing is older than {args.older_than:g} days.")
    for problem in problems:
        print(f"Not everything could be removed: {problem}")


def _top(path: Path, kind: str) -> str:
    """Return the folder that a file is listed under."""
    from december_plugin.pool.old_files import PRETRAININGS
    from december_plugin.storage.home import december_home

    return str(path.parent if kind == PRETRAININGS or december_home() not in path.parents else december_home())
