"""The folder of the embedded server: its paths, who may use it, its lock, its log, and the file with the password."""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import filelock

from december_plugin.errors import ServerError, ServerUnreachableError
from december_plugin.storage.atomic import write_atomically
from december_plugin.storage.home import december_home

MAX_SOCKET_PATH = 103  # bytes: macOS takes 103, Linux 107
LOCK_TIMEOUT = 300.0  # seconds, longer than a slow start and a slow stop
MAX_LOG = 10_000_000  # of the error log, when a server is started (bytes)


@dataclass(frozen=True)
class ServerSettings:
    """How to connect to the embedded server."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)


class ServerFolder:
    """The folder ``server`` in december's home, which only its owner can read.

    Parameters
    ----------
    home
        See :func:`december_plugin.storage.home.december_home`. Nothing is created before :meth:`prepare`.

    Attributes
    ----------
    home, path
        December's home, and the folder in it.
    data
        The data folder of MariaDB.
    credentials, init_file
        User, password, host and port for clients; statements that the server runs before it listens.
    error_log, pid_file, socket
        Written by the server. The socket is outside the folder where the path would be too long.
    """

    def __init__(self, home: str | os.PathLike[str] | None = None):
        self.home = december_home(home)
        self.path = self.home / "server"
        self.data = self.path / "data"
        self.credentials = self.path / "client.cnf"
        self.init_file = self.path / "init.sql"
        self.error_log = self.path / "error.log"
        self.pid_file = self.path / "mariadb.pid"
        self.socket = _socket_path(self.path)

    def prepare(self) -> None:
        """Make the folder, readable by its owner alone.

        Raises
        ------
        ServerError
            It belongs to another user.
        OSError
            It cannot be made.
        """
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_owner(self.home)
        self.path.mkdir(exist_ok=True, mode=0o700)
        _check_owner(self.path)
        self.path.chmod(0o700)
        if self.socket.parent != self.path:
            self.socket.parent.mkdir(exist_ok=True, mode=0o700)
            _check_owner(self.socket.parent, follow_symlinks=False)
            self.socket.parent.chmod(0o700)

    def check_owner(self) -> None:
        """Raise a :class:`ServerError` if the folder belongs to another user."""
        _check_owner(self.path)

    @contextlib.contextmanager
    def readable_errors(self) -> Iterator[None]:
        """Turn an OSError inside a with block into a :class:`ServerError` that says what to do."""
        try:
            yield
        except OSError as error:
            raise ServerError(
                f"The folder {self.home} for the embedded database cannot be used ({error.strerror or error}). Make it "
                "writable, or set DECEMBER_HOME to a folder that is."
            ) from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from starting or stopping the server inside a with block.

        Raises
        ------
        ServerUnreachableError
            Another process has held the lock for too long.
        ServerError
            The lock file cannot be used.
        """
        lock = filelock.FileLock(self.path / "lock", timeout=LOCK_TIMEOUT)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise ServerUnreachableError(
                f"Another process has been starting or stopping the embedded database in {self.home} for more than "
                f"{LOCK_TIMEOUT:.0f} s. Check {self.error_log}, end that process, and try again."
            ) from None
        except OSError as error:
            raise ServerError(f"The lock file {lock.lock_file} cannot be used: {error.strerror or error}.") from None
        try:
            yield
        finally:
            lock.release()

    def read_credentials(self) -> ServerSettings:
        """Return host, port, user and password, as the last start left them.

        Raises
        ------
        ServerError
            The server was never started, or the file with the password is damaged.
        """
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(self.credentials.read_text(encoding="utf-8"))
            client = parser["client"]
            return ServerSettings(client["host"], int(client["port"]), client["user"], client["password"])
        except FileNotFoundError:
            raise ServerError(
                f"The embedded database has no password file {self.credentials}. Run `december db stop`, then "
                "`december db start`: the start makes a new one and keeps the data."
            ) from None
        except (OSError, ValueError, KeyError, configparser.Error) as error:
            reason = str(error).splitlines()[0]
            raise ServerError(
                f"The embedded database's password file {self.credentials} cannot be read ({reason}). Delete it, then "
                "run `december db stop` and `december db start`: the start makes a new one and keeps the data."
            ) from None

    def write_credentials(self, settings: ServerSettings) -> None:
        """Write the file with the password, which :meth:`read_credentials` reads."""
        names = ("user", "password", "host", "port")
        lines = ["[client]", *(f"{name}={getattr(settings, name)}" for name in names)]
        write_atomically(self.credentials, "".join(f"{line}\n" for line in lines).encode(), mode=0o600)

    def rotate_log(self) -> None:
        """Begin a new log if the old one is large; one old log is kept."""
        if self.log_size() > MAX_LOG:
            self.error_log.replace(self.error_log.with_name(f"{self.error_log.name}.1"))

    def log_size(self) -> int:
        """Return the bytes of the error log; 0 if there is none."""
        return self.error_log.stat().st_size if self.error_log.exists() else 0

    def log_since(self, start: int) -> str:
        """Return what is in the error log from a byte on."""
        with contextlib.suppress(OSError), self.error_log.open("rb") as log:
            log.seek(start)
            return log.read().decode("utf-8", errors="replace")
        return ""

    def temporary(self) -> Path:
        """Return the server's own folder for temporary files: a starting server clears a shared one."""
        folder = self.path / "tmp"
        folder.mkdir(exist_ok=True, mode=0o700)
        return folder


def _check_owner(folder: Path, *, follow_symlinks: bool = True) -> None:
    info = folder.stat(follow_symlinks=follow_symlinks)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        raise ServerError(
            f"{folder} does not belong to the user who runs this (user id {os.geteuid()}; it belongs to "
            f"{info.st_uid}). Run december as its owner, or set DECEMBER_HOME to a folder of your own."
        )


def _socket_path(folder: Path) -> Path:
    """Return the socket's path: in `folder`, or in a private folder under /tmp where that is too long for a socket."""
    path = folder / "mariadb.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path("/tmp") / f"december-{os.geteuid()}-{digest}" / "mariadb.sock"
