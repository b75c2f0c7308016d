"""``december db``: starts, stops and shows the embedded database."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from december_plugin.commands import Subparsers
from december_plugin.errors import ServerError

if TYPE_CHECKING:
    from december_plugin.server import EmbeddedServer

NOT_RUNNING = 3  # what `systemctl status` returns, too

DESCRIPTION = """\
Starts, stops and shows the embedded database, a MariaDB of your own.

december starts it by itself when it is needed, so `december db start` is rarely called for. Data, password and models
are kept between runs, in the folder that `december db status` names (set DECEMBER_HOME to choose another). With your
lab's DataJoint settings present (dj_local_conf.json, ~/.datajoint_config.json, DJ_HOST, DJ_USER, DJ_PASS) december uses
the lab's server and starts none.
"""
EPILOG = """\
examples:
  december db status    says which server is used, and where everything is
  december db stop      ends the embedded server; nothing is left running

exit codes of `december db status`: 0 the server can be used, 3 the embedded server does not run, 1 a lab's server
cannot be used
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december db`` with its actions."""
    parser = subparsers.add_parser(
        "db", help="start, stop or show the embedded database", description=DESCRIPTION, epilog=EPILOG
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("start", help="start it; nothing happens if it runs")
    actions.add_parser("stop", help="shut it down; the data are kept")
    actions.add_parser("status", help="say which server is used, whether it runs, and where everything is")


def run(args: argparse.Namespace) -> int:
    """Carry out one action."""
    return {"start": _start, "stop": _stop, "status": _status}[args.action]()


def _start() -> int:
    from december_plugin.connection import lab_settings
    from december_plugin.server import EmbeddedServer

    lab = lab_settings()
    if lab is not None:
        raise ServerError(
            f"The DataJoint settings ({lab.source}) name the database server {lab.address}: december uses it and "
            "starts none of its own. Remove these settings to use the embedded database."
        )
    server = EmbeddedServer()
    started = server.start()
    state = "started" if started else "was running already"
    print(f"The embedded database {state}: {server.settings.host}:{server.settings.port}, data in {server.data}.")
    return 0


def _stop() -> int:
    from december_plugin.server import EmbeddedServer

    stopped = EmbeddedServer().stop()
    print("The embedded database is stopped; its data are kept." if stopped else "No embedded database is running.")
    return 0


def _status() -> int:
    from december_plugin.connection import connect, lab_settings
    from december_plugin.server import EmbeddedServer

    lab = lab_settings()
    if lab is None:
        return _print_embedded(EmbeddedServer())
    print(f"database   {lab.address}, user {lab.user}")
    print(f"settings   {lab.source}")
    own = EmbeddedServer().status()
    if own.running:
        print(f"embedded   running beside it, process {own.pid}; `december db stop` ends it")
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
    if status.running:
        print(f"shell      mariadb --defaults-file='{status.credentials}'")
    return 0 if status.running else NOT_RUNNING
