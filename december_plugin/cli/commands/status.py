"""``december status``: what is done, running, waiting and failed, who works, and what blocks."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.options import add_lab_options, open_lab_of
from december_plugin.errors import ExitCode

if TYPE_CHECKING:
    from rich.console import Console

    from december_plugin.pool.status.overview import Overview

REFRESH = 5.0  # pause of the live view (s)
SHARE = 4  # the live view waits at least this many times as long as its queries took

DESCRIPTION = """\
Shows for each table how many entries are done, running, waiting, failed, poisoned (given up, because they kept killing
their workers) and ignored; the running jobs with their progress; why jobs failed, grouped by reason; the workers by
host and GPU with the age of their last heartbeat on the database's clock; the throughput; and what blocks. A row counts
as waiting only once the tables before it have what it needs. A read-only account can run this.
"""
EPILOG = """\
examples:
  december status
  december status --live         refreshed until Ctrl-C
  december status --live 30      every 30 seconds
  december status --json         for scripts: everything, including all failed jobs

`december jobs show JOB` has the traceback and the log of one job.

exit codes: 0, or 3 if some jobs failed or are poisoned
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december status``."""
    parser = subparsers.add_parser(
        "status", help="show what is done, running or failed, and why", description=DESCRIPTION, epilog=EPILOG
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument(
        "--live",
        "--watch",
        dest="live",
        nargs="?",
        type=_interval,
        const=REFRESH,
        metavar="SECONDS",
        help=f"refresh every SECONDS (default: {REFRESH:g}) until Ctrl-C",
    )
    parser.add_argument("--all", action="store_true", help="show all rows, not only the first 20 of each table")
    add_lab_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the status."""
    from december_plugin.pool.status.overview import read_overview

    lab = open_lab_of(args, read_only=True)
    if args.live is not None:
        return _watch(lab.tables, args.live, show_all=args.all)
    overview = read_overview(lab.tables)
    if args.json:
        from december_plugin.cli.views.as_json import overview_as_json

        print(overview_as_json(overview))
    else:
        _print(overview, show_all=args.all)
    return ExitCode.SOME_FAILED if overview.some_failed else ExitCode.DONE


def _print(overview: Overview, *, show_all: bool) -> None:
    from december_plugin.cli.views.tables import new_console, show

    console = new_console()
    show(console, _parts(overview, console, show_all=show_all))


def _parts(overview: Overview, console: Console, *, show_all: bool) -> list[Any]:
    from december_plugin.cli.views.status import StatusView

    most = None if show_all else 20
    return StatusView(overview, width=console.width, plain=not console.is_terminal, most=most).parts()


def _watch(tables: Any, interval: float, *, show_all: bool) -> int:
    """Show the status until Ctrl-C; an outage of the server is shown and does not end it."""
    from rich.console import Group
    from rich.live import Live

    from december_plugin.cli.views.tables import new_console, show, text
    from december_plugin.pool.status.overview import read_overview

    console = new_console()
    overview = read_overview(tables)  # if the server is unavailable now, this is an error
    try:
        with Live(console=console, screen=console.is_terminal, auto_refresh=False, transient=False) as live:
            problem = ""
            while True:
                note = text(problem or f"every {interval:g} s, Ctrl-C ends", "bold red" if problem else "dim")
                parts = [*_parts(overview, console, show_all=show_all), text(""), note]
                if console.is_terminal:
                    live.update(Group(note, *parts[:-2]), refresh=True)
                else:
                    show(console, parts)
                start = time.monotonic()
                time.sleep(interval)
                start = time.monotonic()
                try:
                    overview, problem = read_overview(tables), ""
                except Exception as error:
                    problem = _outage(error)
                time.sleep(max(0.0, min(SHARE * (time.monotonic() - start), 60.0) - interval))
    except KeyboardInterrupt:
        pass
    if console.is_terminal:  # the live screen disappears; its last view stays
        _print(overview, show_all=show_all)
    return ExitCode.SOME_FAILED if overview.some_failed else ExitCode.DONE


def _outage(error: Exception) -> str:
    """Return what an error of the server means; other errors are raised."""
    from december_plugin.database.errors import explain_error
    from december_plugin.database.outages import is_outage

    if not is_outage(error):
        raise error
    return f"These numbers are out of date: {explain_error(error) or error}"


def _interval(words: str) -> float:
    try:
        seconds = float(words)
    except ValueError:
        seconds = 0.0
    if not 0.5 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{words!r} is not a number of seconds from 0.5 to 86400")
    return seconds
