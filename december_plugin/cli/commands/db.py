"""``december db``: starts, stops and shows the embedded database."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.options import add_lab_options, open_lab_of
from december_plugin.errors import ServerError
from december_plugin.text.formatting import format_size, numbered

if TYPE_CHECKING:
    from december_plugin.database.backup_files import Manifest
    from december_plugin.database.embedded import EmbeddedServer, ServerStatus
    from december_plugin.schemas.lab import Lab

NOT_RUNNING = 3  # what `systemctl status` returns, too
INCOMPLETE = 3
MAX_PATHS = 20

DESCRIPTION = """\
Starts, stops and shows the embedded database, your own MariaDB.

december starts it automatically when it is needed, so `december db start` is rarely necessary. Data, password and
models are kept between runs, in the folder that `december db status` names (set DECEMBER_HOME to choose another). If
your lab's DataJoint settings are present (dj_local_conf.json, ~/.datajoint_config.json, DJ_HOST, DJ_USER, DJ_PASS),
december uses the lab's server and does not start its own.
"""
EPILOG = """\
examples:
  december db status    which server is used, and where everything is
  december db stop      stops the embedded server; nothing is left running
  december db backup /backup/december.tar.gz     database and store in one file, or, without such an ending, a folder
  DECEMBER_HOME=/new december db restore /backup/december.tar.gz
  december db migrate --dry-run                  after an upgrade: what changes in the tables

exit codes of `december db status`: 0 the server can be used, 3 the embedded server does not run, 1 a lab's server
cannot be used; of backup and restore: 0 done, 3 done, but files that rows refer to were missing in the store before
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december db`` with its actions."""
    parser = subparsers.add_parser(
        "db", help="start, stop or show the embedded database", description=DESCRIPTION, epilog=EPILOG
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("start", help="start it, unless it is running")
    stop = actions.add_parser("stop", help="shut it down; the data are kept")
    stop.add_argument(
        "--force", action="store_true", help="stop it even while workers are alive; they wait until it runs again"
    )
    actions.add_parser("status", help="say which server is used, whether it runs, and where everything is")
    backup = actions.add_parser("backup", help="copy the embedded database and its store into a file or folder")
    backup.add_argument("path", metavar="FILE|FOLDER", help="a file that ends in .tar, .tar.gz or .tgz, or a folder")
    restore = actions.add_parser("restore", help="restore a backup where there is no database yet")
    restore.add_argument("path", metavar="FILE|FOLDER", help="what `december db backup` wrote")
    migrate = actions.add_parser("migrate", help="update the tables of an earlier version, also on a lab's server")
    migrate.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    add_lab_options(migrate)


def run(args: argparse.Namespace) -> int:
    """Run one action."""
    if args.action in ("backup", "restore"):
        return {"backup": _backup, "restore": _restore}[args.action](Path(args.path).expanduser())
    if args.action == "migrate":
        return _migrate(args)
    if args.action == "stop":
        return _stop(force=args.force)
    return {"start": _start, "status": _status}[args.action]()


def _start() -> int:
    from december_plugin.database.embedded import EmbeddedServer
    from december_plugin.database.lab_settings import lab_settings

    lab = lab_settings()
    if lab is not None:
        raise ServerError(
            f"The DataJoint settings ({lab.source}) name the database server {lab.address}: december uses it and "
            "does not start its own. Remove these settings to use the embedded database."
        )
    server = EmbeddedServer()
    started = server.start()
    state = "started" if started else "was running already"
    print(f"The embedded database {state}: {server.settings.host}:{server.settings.port}, data in {server.data}.")
    return 0


def _stop(*, force: bool) -> int:
    from december_plugin.database.embedded import EmbeddedServer

    server = EmbeddedServer()
    workers = _living_workers(server) if server.status().running else []
    if workers and not force:
        _ask_to_stop(workers)
    stopped = server.stop()
    print("The embedded database is stopped; its data are kept." if stopped else "No embedded database is running.")
    return 0


def _backup(target: Path) -> int:
    from december_plugin.database.backup import back_up
    from december_plugin.database.embedded import EmbeddedServer
    from december_plugin.pool.worker.spool import Spool

    _refuse_lab("backs it up")
    manifest = back_up(target, EmbeddedServer())
    print(f"Backed up and read back: {_in_words(manifest)}, in {target}.")
    print(f"The database was stopped for {manifest.seconds_stopped:.0f} s.")
    if waiting := Spool().waiting():
        print(f"Not in it: {len(waiting)} finished results in {Spool().folder}, which a worker has yet to store.")
    return _print_missing(manifest)


def _restore(source: Path) -> int:
    from december_plugin.database.backup import restore
    from december_plugin.database.embedded import EmbeddedServer

    _refuse_lab("restores it")
    server = EmbeddedServer()
    manifest = restore(source, server)
    print(f"Restored completely: {_in_words(manifest)}, of {manifest.made} UTC.")
    print(f"The database is in {server.data}; the next command starts it.")
    return _print_missing(manifest)


def _migrate(args: argparse.Namespace) -> int:
    from december_plugin.pool.status.living_workers import living_workers
    from december_plugin.schemas.migration import finish, outdated

    def opened() -> Lab:
        return open_lab_of(args, read_only=True, allow_outdated=True)

    lab = opened()
    connection = lab.tables.schema.connection
    changes = outdated(lab.tables)
    if not changes:
        print(f"The tables in {lab.schema!r} are up to date.")
        return 0
    print(f"The tables in {lab.schema!r} are of an earlier version:")
    for change in changes:
        print(f"  {change.table}: {change.what}")
    if args.dry_run:
        return 0
    alive = [worker.name for schema, worker in living_workers(connection) if schema == lab.schema]
    if alive:
        number = f"{numbered(len(alive), 'worker')} {'fills' if len(alive) == 1 else 'fill'}"
        raise ServerError(
            f"{number} these tables: {', '.join(alive)}. End them first (`december pool stop`, "
            "Ctrl-C), then migrate, and start them again with this version."
        )
    for change in changes:
        change.apply()
    connection.dependencies.clear()
    finish(opened().tables)
    print("They are up to date now. `december worker` computes what is missing.")
    return 0


def _refuse_lab(what: str) -> None:
    from december_plugin.database.lab_settings import lab_settings

    lab = lab_settings()
    if lab is not None:
        raise ServerError(
            f"The DataJoint settings ({lab.source}) name the database server {lab.address}: its administrator {what} "
            "(see docs/operations.md). This command is for the embedded database."
        )


def _in_words(manifest: Manifest) -> str:
    stores = ", ".join(f"{number:,} files of the store {name}" for name, number in manifest.stores.items())
    tables = sum(manifest.tables.values())
    return f"{tables:,} tables in {len(manifest.tables):,} schemas, {stores}; {format_size(manifest.size)}"


def _print_missing(manifest: Manifest) -> int:
    if not manifest.missing:
        return 0
    print(f"\nMISSING in the store, though rows refer to them ({len(manifest.missing):,}):")
    for path in manifest.missing[:MAX_PATHS]:
        print(f"  {path}")
    return INCOMPLETE


def _living_workers(server: EmbeddedServer) -> list[str]:
    """Describe the workers that are alive; none if the server does not answer, which then may be stopped."""
    from december_plugin.database.errors import readable_errors
    from december_plugin.importing.datajoint import quiet_datajoint
    from december_plugin.pool.status.living_workers import living_workers

    dj, own = quiet_datajoint(), server.settings
    try:
        with readable_errors():
            connection = dj.Connection(own.host, own.user, own.password, own.port, None, False)
            try:
                found = living_workers(connection)
            finally:
                connection.close()
    except ServerError:
        return []
    return [f"{worker.name} in the schema {schema}: {worker.activity}" for schema, worker in found]


def _ask_to_stop(workers: list[str]) -> None:
    """Ask whether the server may be stopped under these workers; without a terminal, that needs ``--force``."""
    number = numbered(len(workers), "worker")
    lines = "\n".join(f"  {words}" for words in workers)
    alive = f"{number} {'works' if len(workers) == 1 else 'work'} with the embedded database:\n{lines}"
    remedy = "End them first (`december pool stop`, or Ctrl-C where they run)"
    if not sys.stdin.isatty():
        raise ServerError(
            f"{alive}\n{remedy}, or add --force: they wait until the database runs again, and lose nothing."
        )
    print(f"{alive}\n{remedy}. If it is stopped now, they wait until it runs again, and lose nothing.")
    if input("Stop it now? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ServerError("The embedded database was not stopped.")


def _status() -> int:
    from december_plugin.database.connection import connect
    from december_plugin.database.embedded import EmbeddedServer
    from december_plugin.database.lab_settings import lab_settings

    lab = lab_settings()
    if lab is None:
        return _print_embedded(EmbeddedServer())
    print(f"database   {lab.address}, user {lab.user}")
    print(f"settings   {lab.source}")
    own = EmbeddedServer().status()
    if own.running:
        print(f"embedded   also running, process {own.pid}; `december db stop` ends it")
    connection = connect().connection
    version = connection.query("SELECT VERSION()").fetchone()[0]
    print(f"state      can be used (version {version})")
    return 0


def _print_embedded(server: EmbeddedServer) -> int:
    status = server.status()
    place = f", 127.0.0.1:{status.port}" if status.port else ""
    print(f"database   embedded{place}")
    print(f"state      {f'running, process {status.pid}' if status.running else 'not running'}")
    print(f"data       {status.data}")
    print(f"store      {status.home / 'store'}")
    print(f"socket     {status.socket}")
    print(f"password   {status.credentials}")
    print(f"log        {status.error_log}")
    print(f"size       {_sizes(status)}")
    if status.running:
        print(f"shell      mariadb --defaults-file='{status.credentials}'")
    return 0 if status.running else NOT_RUNNING


def _sizes(status: ServerStatus) -> str:
    """Return how much space the parts of december's folder take, and how much is free."""
    parts = {"data": status.data, "store": status.home / "store", "logs": status.home / "logs"}
    words = ", ".join(f"{name} {format_size(_folder_size(folder))}" for name, folder in parts.items())
    free = f"; {format_size(shutil.disk_usage(status.home).free)} free" if status.home.is_dir() else ""
    return words + free


def _folder_size(folder: Path) -> int:
    """Return the bytes of all files below a folder, without following links; 0 for one that does not exist."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(place, name).lstat().st_size
            except OSError:  # removed in the meantime
                continue
    return total
