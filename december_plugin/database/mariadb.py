"""What the embedded server needs to know about MariaDB and about processes: programs, options, accounts, identity."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path

from december_plugin.errors import ServerError

HOST = "127.0.0.1"
USER = "december"
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/bin", "/opt/homebrew/bin")
INSTALL_HINT = (
    "Install it with `apt-get install mariadb-server` (as root), or name your lab's server in DJ_HOST, DJ_USER "
    "and DJ_PASS."
)
OPTIONS = (
    f"--bind-address={HOST}",
    "--skip-name-resolve",
    "--skip-ssl",
    "--skip-log-bin",
    "--local-infile=0",
    "--unix-socket=OFF",  # the password is the only way in
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_general_ci",
    "--max-allowed-packet=128M",  # MariaDB turns away statements from half of this on
    "--wait-timeout=604800",  # a worker may be silent for a whole training
)


def account_sql(password: str) -> str:
    """Return the statements that the server runs before it listens: our accounts, and no other access."""
    places = ("localhost", HOST)  # the socket, and the loopback port
    password = password.replace("\\", "\\\\").replace("'", "\\'")
    lines = [
        "DELETE FROM mysql.global_priv WHERE User IN ('', 'root');",
        "DELETE FROM mysql.proxies_priv;",
        "FLUSH PRIVILEGES;",
    ]
    for place in places:
        lines.append(f"CREATE OR REPLACE USER '{USER}'@'{place}' IDENTIFIED BY '{password}';")
        lines.append(f"GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'{place}' WITH GRANT OPTION;")
    return "\n".join(lines) + "\n"


def find_programs() -> tuple[str, str]:
    """Return the paths of the server program and of the program that creates an empty database."""
    # An ordinary user's PATH has no /usr/sbin on Debian.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS])
    server = shutil.which("mariadbd", path=path) or shutil.which("mysqld", path=path)
    if server is None:
        raise ServerError(
            f"MariaDB is not installed: no mariadbd or mysqld on PATH or in {SYSTEM_FOLDERS[0]}. {INSTALL_HINT}"
        )
    installer = shutil.which("mariadb-install-db", path=path) or shutil.which("mysql_install_db", path=path)
    if installer is None:
        raise ServerError(f"MariaDB is incomplete: {server} is there, mariadb-install-db is not. {INSTALL_HINT}")
    return server, installer


def is_free(port: int) -> bool:
    """Return whether this port of the loopback interface is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def process_ids() -> list[int]:
    """Return the ids of all processes."""
    if os.path.isdir("/proc/self"):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    listing = subprocess.run(["ps", "-axo", "pid="], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in listing.split()]


def is_server(pid: int, data: Path) -> bool:
    """Return whether a process is a MariaDB server on this data folder; a process that has ended is not one."""
    words = _command_line(pid)
    return bool(words) and os.path.basename(words[0]) in ("mariadbd", "mysqld") and f"--datadir={data}" in words


def _command_line(pid: int) -> list[str]:
    if os.path.isdir("/proc/self"):
        with contextlib.suppress(OSError):
            return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
        return []
    command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return listing.replace(" --", "\0--").split("\0")
