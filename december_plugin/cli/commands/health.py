"""``december health``: whether the workers of a host are alive, for health checks and other programs."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from december_plugin.cli.commands import Subparsers
from december_plugin.errors import DecemberError, ServerError, SettingsError

UNHEALTHY = 1

DESCRIPTION = """\
Says whether the workers of this host (or of another, or one worker) are alive: whether the last heartbeat that each has
written into the database is younger than its lease. Both times are the database's, so clocks do not matter. Meant for
health checks, as that of the docker image.
"""
EPILOG = """\
examples:
  december health                      the workers of this host
  december health --host gpu3          those of another
  december health --outage-ok          not being able to ask is no bad sign: workers wait for a server that is away

exit codes: 0 at least one worker is alive and none is overdue, 1 none is alive, one is overdue, or nobody can tell
"""

# A worker that has ended or was declared dead is not expected to show signs of life.
QUERY = """
SELECT worker_id, pool_id, worker_host, worker_pid, worker_gpu, worker_state, lease,
       TIMESTAMPDIFF(MICROSECOND, heartbeat, UTC_TIMESTAMP(6)) / 1e6
FROM `{schema}`.pool_worker
WHERE worker_state NOT IN ('ended', 'dead') AND {column} = %s
ORDER BY worker_gpu, worker_id
"""


@dataclass(frozen=True)
class Sign:
    """The last sign of life of a worker; ``age`` and ``lease`` are in seconds."""

    worker: str
    pool: str
    host: str
    pid: int
    gpu: str
    state: str
    lease: float
    age: float

    @property
    def alive(self) -> bool:
        """Whether the heartbeat is younger than the lease."""
        return self.age <= self.lease

    @property
    def gone(self) -> bool:
        """Whether it is a process of this host that no longer exists: its successor counts, not it."""
        return not self.alive and self.host == platform.node() and not _exists(self)

    def __str__(self) -> str:
        place = f"GPU {self.gpu}" if self.gpu else "no GPU"
        verdict = "alive" if self.alive else "gone" if self.gone else "overdue"
        return (
            f"worker {self.worker[:8]} ({place}, process {self.pid}, {self.state}): {verdict}, last heartbeat "
            f"{self.age:.0f} s ago, lease {self.lease:g} s"
        )


def _exists(sign: Sign) -> bool:
    """Return whether the worker's process exists on this host; a restarted container uses the same numbers again."""
    try:
        environment = Path(f"/proc/{sign.pid}/environ").read_bytes()
    except PermissionError:
        return True
    except OSError:
        return False
    # Supervisors name their workers in the environment.
    return not sign.pool or f"DECEMBER_WORKER_ID={sign.worker}".encode() in environment.split(b"\0")


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december health``."""
    parser = subparsers.add_parser(
        "health", help="whether the workers of a host are alive", description=DESCRIPTION, epilog=EPILOG
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--host", metavar="NAME", help="workers of this host (default: this one)")
    which.add_argument("--worker", metavar="ID", help="one worker, by its complete id")
    parser.add_argument("--outage-ok", action="store_true", help="exit with 0 if the database cannot be asked")
    parser.add_argument("--schema", metavar="NAME", help="schema of december's tables (default: december)")


def run(args: argparse.Namespace) -> int:
    """Print each worker's sign of life; return whether all is well."""
    try:
        signs = _signs(args)
    except DecemberError as error:
        if not args.outage_ok:
            raise
        print(f"december: cannot tell, which counts as healthy (--outage-ok): {error}", file=sys.stderr)
        return 0
    for sign in signs:
        print(sign)
    expected = [sign for sign in signs if not sign.gone]
    if not expected:
        whom = f"worker {args.worker}" if args.worker else f"worker of host {args.host or platform.node()}"
        print(f"december: no {whom} is alive", file=sys.stderr)
    return 0 if expected and all(sign.alive for sign in expected) else UNHEALTHY


def _signs(args: argparse.Namespace) -> list[Sign]:
    import datajoint as dj

    from december_plugin.database.connection import connect
    from december_plugin.database.embedded import EmbeddedServer
    from december_plugin.database.errors import readable_errors
    from december_plugin.database.lab_settings import lab_settings
    from december_plugin.schemas.lab import DEFAULT_SCHEMA, no_tables

    if lab_settings() is None and not EmbeddedServer().status().running:  # which connect() would start
        raise ServerError(
            "The embedded database is not running, so nobody can tell. If a pool works, it waits for the database: "
            "`december db start`. Otherwise `december pool` starts both."
        )
    schema = args.schema or os.environ.get("DECEMBER_SCHEMA") or dj.config.get("december.schema") or DEFAULT_SCHEMA
    column, value = ("worker_id", args.worker) if args.worker else ("worker_host", args.host or platform.node())
    with readable_errors():
        connection = connect(needs_store=False).connection
        if not _has_tables(connection, schema):
            raise SettingsError(no_tables(connection, schema))
        rows: Any = connection.query(QUERY.format(schema=schema, column=column), args=(value,)).fetchall()
    return [Sign(*row[:6], *map(float, row[6:])) for row in rows]


def _has_tables(connection: Any, schema: str) -> bool:
    query = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = %s AND table_name = 'pool_worker'"
    return bool(connection.query(query, args=(schema,)).fetchone()[0])
