"""``december health``: whether the workers of a host are alive, for health checks and other programs."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from typing import TYPE_CHECKING

from december_plugin.cli.commands import Subparsers
from december_plugin.errors import DecemberError, ServerError, SettingsError

if TYPE_CHECKING:
    from december_plugin.pool.liveness import WorkerStatus

UNHEALTHY = 1

DESCRIPTION = """\
Checks whether the workers of this host (or of another, or one worker) are alive: whether each worker's last heartbeat
in the database is younger than its lease. Both times are the database's, so clocks do not matter. Intended for health
checks, such as that of the docker image.
"""
EPILOG = """\
examples:
  december health                      the workers of this host
  december health --host gpu3          those of another
  december health --outage-ok          an outage of the database is not a failure: workers wait for the server

exit codes: 0 at least one worker is alive and none is overdue, 1 none is alive, one is overdue, or the state is unknown
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december health``."""
    parser = subparsers.add_parser(
        "health", help="check whether the workers of a host are alive", description=DESCRIPTION, epilog=EPILOG
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--host", metavar="NAME", help="workers of this host (default: this one)")
    which.add_argument("--worker", metavar="ID", help="one worker, by its complete id")
    parser.add_argument("--outage-ok", action="store_true", help="exit with 0 if the database cannot be reached")
    parser.add_argument("--schema", metavar="NAME", help="schema of december's tables (default: december)")


def run(args: argparse.Namespace) -> int:
    """Print each worker's last heartbeat; return whether all is well."""
    try:
        workers = _workers(args)
    except DecemberError as error:
        if not args.outage_ok:
            raise
        print(f"december: cannot tell, which counts as healthy (--outage-ok): {error}", file=sys.stderr)
        return 0
    # A process that is gone is replaced by its successor.
    gone = [worker for worker in workers if worker.overdue and worker.process_is_gone]
    for worker in workers:
        print(_in_words(worker, is_gone=worker in gone))
    expected = [worker for worker in workers if worker not in gone]
    if not expected:
        whom = f"worker {args.worker}" if args.worker else f"worker of host {args.host or platform.node()}"
        print(f"december: no {whom} is alive", file=sys.stderr)
    return 0 if expected and all(worker.alive for worker in expected) else UNHEALTHY


def _in_words(worker: WorkerStatus, *, is_gone: bool) -> str:
    place = f"GPU {worker.gpu}" if worker.gpu else "no GPU"
    verdict = "alive" if worker.alive else "gone" if is_gone else "overdue"
    return (
        f"worker {worker.worker_id[:8]} ({place}, process {worker.pid}, {worker.state}): {verdict}, last heartbeat "
        f"{worker.heartbeat_age:.0f} s ago, lease {worker.lease:g} s"
    )


def _workers(args: argparse.Namespace) -> list[WorkerStatus]:
    import datajoint as dj

    from december_plugin.database.connection import connect
    from december_plugin.database.embedded import EmbeddedServer
    from december_plugin.database.errors import readable_errors
    from december_plugin.database.lab_settings import lab_settings
    from december_plugin.pool.jobs.records import PoolRecords
    from december_plugin.schemas.lab import DEFAULT_SCHEMA, no_tables

    if lab_settings() is None and not EmbeddedServer().status().running:  # which connect() would start
        raise ServerError(
            "The embedded database is not running, so the state is unknown. If a pool is running, it waits for the "
            "database: `december db start`. Otherwise `december pool` starts both."
        )
    schema = args.schema or os.environ.get("DECEMBER_SCHEMA") or dj.config.get("december.schema") or DEFAULT_SCHEMA
    with readable_errors():
        connection = connect(needs_store=False).connection
        records = PoolRecords(connection, schema)
        if not records.has_workers():
            raise SettingsError(no_tables(connection, schema))
        if args.worker:
            return records.expected_workers(worker_id=args.worker)
        return records.expected_workers(host=args.host or platform.node())
