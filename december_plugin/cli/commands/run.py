"""``december run``: from a sweep to its report."""

from __future__ import annotations

import argparse
import sys

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.commands.pool import (
    add_notification_option,
    add_place_options,
    chosen_tables,
    notification_target_of,
    open_for_workers,
    settings_of,
)
from december_plugin.cli.commands.register import add_register_options, read_sweep, write_sweep
from december_plugin.cli.commands.report import add_report_options
from december_plugin.cli.options import add_lab_options
from december_plugin.cli.worker_options import add_work_options
from december_plugin.errors import ExitCode, SettingsError

IDLE = 10.0  # of all workers, after which the pool ends (s)

DESCRIPTION = """\
Registers a sweep, keeps workers running until nothing is left to do, and writes the report: `december register`,
`december pool` and `december report` one after the other, on this machine. Press Ctrl-C once, and the workers save
their states and end; press it twice, and they are killed. In either case, run the same command again to continue. The
workers fill all tables of the schema, so they also finish what earlier sweeps left undone.
"""
EPILOG = """\
examples:
  december run sweep.yaml                          a worker on each GPU, then report.html
  december run sweep.yaml --cpu 2 -o types.html    two workers on the processor
  december run laptop/marmoset-2 --cpu 2           a sweep that comes with december
  december run sweep.yaml --gpus 0,2 --no-tsne

exit codes: 0 the report was written and nothing is left to do; 3 as 0, but some jobs failed or are poisoned (`december
status` says why); 1 the workers cannot work with these settings; 130, 143, 140, 129 ended by SIGINT (Ctrl-C), SIGTERM,
SIGUSR2, SIGHUP before the report
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december run``."""
    parser = subparsers.add_parser(
        "run", help="go from a sweep to its report: register, pool, report", description=DESCRIPTION, epilog=EPILOG
    )
    add_register_options(parser)
    add_report_options(parser.add_argument_group("the report"))
    add_place_options(parser)
    add_work_options(parser, idle_exit=IDLE)
    add_notification_option(parser)
    add_lab_options(parser)


def run(args: argparse.Namespace) -> int:
    """Register, train and cluster, report."""
    from december_plugin.cli.commands import report
    from december_plugin.pool.supervisor.supervisor import SIGNALLED, run_pool

    # Mistakes are found before hours of work.
    report.check_options(args)
    notify = notification_target_of(args)
    sweep = read_sweep(args.sweep, check_recordings=True)
    environment, lab = open_for_workers(args, create=True)
    settings = settings_of(args, lab.schema)
    chosen_tables(lab, settings)
    if args.types is not None:
        lab.tables.KnownTypes().frame(args.types)
    _say(1, "register")
    write_sweep(sweep, lab, fabrikant=args.fabrikant)
    _say(2, "train, cluster and compare (`december status --live`, in another terminal, shows the progress)")
    code = run_pool(settings, environment=environment, notify=notify)
    if code >= SIGNALLED:
        print("Stopped before the report. Run the same command again to continue.", file=sys.stderr)
    if code not in (ExitCode.DONE, ExitCode.SOME_FAILED):
        return code
    _say(3, "report")
    try:
        written = report.run(args)
    except SettingsError as error:
        if code != ExitCode.SOME_FAILED:
            raise
        print(f"There is no report, because jobs failed: {error}", file=sys.stderr)
        return code
    _print_rest(lab.tables)
    return written or code


def _say(step: int, what: str) -> None:
    print(f"[{step}/3] {what}", flush=True)


def _print_rest(tables: object) -> None:
    """Say what is not in the report because it is not done: time ran out, or other workers have it."""
    from december_plugin.pool.jobs.description import counted
    from december_plugin.pool.status.overview import read_overview

    left = {table.table: table.waiting + table.running for table in read_overview(tables).tables}
    rest = ", ".join(counted(table, number) for table, number in left.items() if number)
    if rest:
        print(f"Not in the report, because not done yet: {rest}. Run the same command again to continue.")
