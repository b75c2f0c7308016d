"""The embedded MariaDB: a private database server for users without a lab server.

Everything is in one folder (:func:`december_plugin.storage.home.december_home`)::

    home/server/            readable by the user alone
        data/               the database, kept between runs
        client.cnf          user, password, host and port; `mariadb --defaults-file=...` also reads it
        mariadb.sock  mariadb.pid  error.log  lock  tmp/
    home/store/             models and other attachments (see december_plugin.database.default_store)

The server listens on its socket and on 127.0.0.1 only. It outlives the process that started it, until
:meth:`EmbeddedServer.stop`. Starting and stopping are guarded by a file lock, so any number of processes may call
:meth:`EmbeddedServer.start` at once and share one server.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from december_plugin.database.mariadb import (
    HOST,
    OPTIONS,
    USER,
    account_sql,
    find_programs,
    is_free,
    is_server,
    process_ids,
)
from december_plugin.database.server_folder import ServerFolder, ServerSettings
from december_plugin.errors import ServerError, ServerUnreachableError
from december_plugin.storage.atomic import write_atomically

FIRST_PORT = 13306
N_PORTS = 200
START_TIMEOUT = 120.0  # seconds; recovery after a power loss can take a while
STOP_TIMEOUT = 120.0  # seconds
END_TIMEOUT = 5.0  # seconds
LOG_LINES = 12
READY = "ready for connections"
# What MariaDB logs when another server has the data open; it keeps trying for half a minute.
DATA_IN_USE = ("Can't lock aria control file", "Unable to lock ./ibdata1")

# Servers by their ids and the process that started them (a fork inherits this), so that they are reaped when they end.
_children: dict[tuple[int, int], subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class ServerStatus:
    """Where everything is, and whether the server runs (`pid` is None if it does not)."""

    pid: int | None
    port: int | None
    home: Path
    data: Path
    socket: Path
    credentials: Path
    error_log: Path

    @property
    def running(self) -> bool:
        """Whether the server process exists."""
        return self.pid is not None


class _PortInUseError(Exception):
    """Another program took the port between the check and the start."""


class EmbeddedServer:
    """A MariaDB server of one user, in one folder.

    Parameters
    ----------
    home
        The folder, see :func:`december_plugin.storage.home.december_home`. Nothing is created before :meth:`start`.

    Examples
    --------
    >>> server = EmbeddedServer()
    >>> server.start()  # doctest: +SKIP
    True
    >>> server.settings.port  # doctest: +SKIP
    13306
    >>> server.stop()  # doctest: +SKIP
    True
    """

    def __init__(self, home: str | os.PathLike[str] | None = None):
        self._files = ServerFolder(home)
        self.home, self.folder = self._files.home, self._files.path
        self.data, self.credentials = self._files.data, self._files.credentials
        self.error_log, self.pid_file, self.socket = self._files.error_log, self._files.pid_file, self._files.socket

    def start(self) -> bool:
        """Start the server, on first use with a new, empty database; do nothing if it is running.

        Returns
        -------
        bool
            True if this call started it, False if it was running.

        Raises
        ------
        ServerError
            MariaDB is not installed, the folder cannot be used, or the server does not start; the message ends with
            the last lines of the server's error log.
        """
        with self._files.readable_errors():
            self._files.prepare()
            with self._files.locked():
                pid = self._pid()
                if pid is not None:
                    self._wait_until_ready(pid)
                    return False
                server, installer = find_programs()
                self._initialise(installer)
                self._launch(server)
                return True

    def stop(self) -> bool:
        """Shut the server down cleanly and wait until it has ended; the data are kept.

        Returns
        -------
        bool
            True if it was running, False otherwise.

        Raises
        ------
        ServerError
            It is still shutting down after two minutes.
        """
        if not self.folder.is_dir():
            return False
        self._files.check_owner()
        with self._files.locked():
            pid = self._pid()
            if pid is None:
                self.pid_file.unlink(missing_ok=True)
                return False
            self._shut_down(pid)
            if self.socket.parent != self.folder:
                with contextlib.suppress(OSError):
                    self.socket.parent.rmdir()
            return True

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[Path]:
        """Yield the data folder while no server uses it and none can start; a server that was running is started again.

        Raises
        ------
        ServerError
            As of :meth:`stop` and :meth:`start`.
        """
        self._files.check_owner()
        with self._files.locked():
            pid = self._pid()
            if pid is not None:
                self._shut_down(pid)
            try:
                yield self.data
            finally:
                if pid is not None:
                    self._launch(find_programs()[0])

    def adopt(self, data: Path) -> None:
        """Take over the data folder of a server that was shut down; the next start gives it a new password.

        Parameters
        ----------
        data
            On the same file system. It is moved.

        Raises
        ------
        ServerError
            A database exists already, or the folder cannot be used.
        """
        with self._files.readable_errors():
            self._files.prepare()
            with self._files.locked():
                if self.data.exists():
                    raise ServerError(f"{self.data} already contains a database. Move it away first.")
                data.rename(self.data)

    def status(self) -> ServerStatus:
        """Return where everything is and whether the server runs; changes nothing and waits for nothing."""
        port = None
        with contextlib.suppress(ServerError):
            port = self.settings.port
        return ServerStatus(self._pid(), port, self.home, self.data, self.socket, self.credentials, self.error_log)

    @property
    def settings(self) -> ServerSettings:
        """Host, port, user and password, as the last start left them.

        Raises
        ------
        ServerError
            The server was never started, or the file with the password is damaged.
        """
        return self._files.read_credentials()

    def _pid(self) -> int | None:
        """Return the process id of the server that uses our data folder, whatever the pid file says."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self.pid_file.read_text())
            if is_server(pid, self.data):
                return pid
        return next((pid for pid in process_ids() if is_server(pid, self.data)), None)

    def _shut_down(self, pid: int) -> None:
        if not self._terminate(pid):
            raise ServerError(
                f"The embedded database (process {pid}) is still shutting down after {STOP_TIMEOUT:.0f} s. "
                f"Wait, and run `december db status`; its log is {self.error_log}."
            )

    def _terminate(self, pid: int) -> bool:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + STOP_TIMEOUT
        while is_server(pid, self.data):
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        child = _children.pop((os.getpid(), pid), None)
        if child is not None:
            child.wait()
        return True

    def _initialise(self, installer: str) -> None:
        """Create the empty database next to its final place, so that an interrupted run leaves nothing unfinished."""
        if (self.data / "mysql").is_dir():
            return
        if self.data.exists():
            raise ServerError(
                f"{self.data} exists but holds no database. Move it away, and run `december db start` again."
            )
        partial = self.folder / "data.partial"
        if partial.exists():
            shutil.rmtree(partial)
        # No --user: given one, the script changes the owner of files in the system's plugin folder.
        command = [installer, "--no-defaults", f"--datadir={partial}", "--force", "--skip-test-db"]
        command += ["--auth-root-authentication-method=socket", "--auth-root-socket-user=root"]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(self._files.temporary())},
            check=False,
        )
        if done.returncode != 0 or not (partial / "mysql").is_dir():
            lines = done.stdout.decode("utf-8", errors="replace").strip().splitlines()
            raise ServerError(
                f"{installer} could not create a database in {self.folder} (exit code {done.returncode}):\n"
                + "\n".join(lines[:LOG_LINES])
            )
        partial.rename(self.data)

    def _launch(self, server: str) -> None:
        before = self.credentials.read_bytes() if self.credentials.exists() else None
        for port in self._free_ports():
            self._write_credentials(port)
            self._files.rotate_log()
            log_start = self._files.log_size()
            process = self._spawn(server, port)
            try:
                self._wait_until_ready(process.pid, log_start=log_start)
                return
            except _PortInUseError:
                continue
            except BaseException:
                _end(process)
                if before is not None:
                    write_atomically(self.credentials, before, mode=0o600)
                raise
            finally:
                self._files.init_file.unlink(missing_ok=True)
        raise ServerError(
            f"No free port from {FIRST_PORT} to {FIRST_PORT + N_PORTS - 1} on {HOST} for the embedded database. End a "
            "program that listens there, or set DECEMBER_HOME to a folder whose server may run instead."
        )

    def _free_ports(self) -> Iterator[int]:
        with contextlib.suppress(ServerError):
            remembered = self.settings.port
            if is_free(remembered):
                yield remembered
        yield from filter(is_free, range(FIRST_PORT, FIRST_PORT + N_PORTS))

    def _write_credentials(self, port: int) -> None:
        try:
            password = self.settings.password
        except ServerError:
            password = secrets.token_urlsafe(24)
        self._files.write_credentials(ServerSettings(HOST, port, USER, password))
        write_atomically(self._files.init_file, account_sql(password).encode(), mode=0o600)

    def _spawn(self, server: str, port: int) -> subprocess.Popen[bytes]:
        command = [server, "--no-defaults", *OPTIONS, f"--port={port}", f"--datadir={self.data}"]
        command += [f"--socket={self.socket}", f"--pid-file={self.pid_file}", f"--log-error={self.error_log}"]
        command += [f"--init-file={self._files.init_file}"]
        if os.geteuid() == 0:
            command.append("--user=root")
        with self.error_log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                env={**os.environ, "UMASK": "0600", "UMASK_DIR": "0700", "TMPDIR": str(self._files.temporary())},
                start_new_session=True,  # outlives the terminal and its Ctrl-C
            )
        _children[os.getpid(), process.pid] = process
        self.pid_file.write_text(f"{process.pid}\n")
        return process

    def _wait_until_ready(self, pid: int, *, log_start: int | None = None) -> None:
        """Wait until the server answers; `log_start` is where the log of a server that we just launched begins."""
        launched = log_start is not None
        # Only the server that we launched listens on its socket; another program may be listening on the port.
        place = {"unix_socket": str(self.socket)} if launched else {"host": self.settings.host}
        end = time.monotonic() + START_TIMEOUT
        while True:
            child = _children.get((os.getpid(), pid))
            alive = child.poll() is None if child else is_server(pid, self.data)
            log = self._files.log_since(log_start) if log_start is not None else ""
            if not alive and "Bind on TCP/IP port" in log:
                raise _PortInUseError
            if any(words in log for words in DATA_IN_USE):
                raise self._failure(
                    "cannot start: another server, perhaps on another machine, uses its data", log_start
                )
            if not alive:
                raise self._failure("did not start", log_start)
            refusal = "" if launched and READY not in log else _try_to_connect(self.settings, place)
            if refusal is None:
                return
            if refusal:
                raise self._failure(refusal, log_start, kind=ServerError)
            if time.monotonic() > end:
                raise self._failure(f"did not answer within {START_TIMEOUT:.0f} s", log_start)
            time.sleep(0.05)

    def _failure(
        self, problem: str, log_start: int | None, *, kind: type[ServerError] = ServerUnreachableError
    ) -> ServerError:
        log = self._files.log_since(max(0, self._files.log_size() - 10_000) if log_start is None else log_start)
        last = "\n".join(log.strip().splitlines()[-LOG_LINES:])
        return kind(
            f"The embedded database in {self.folder} {problem}.\n"
            f"The last lines of its log {self.error_log}:\n{last or '(nothing)'}"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server that did not start; one that waits for a lock ignores SIGTERM."""
    process.terminate()
    try:
        process.wait(timeout=END_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _try_to_connect(settings: ServerSettings, place: dict[str, str]) -> str | None:
    """Return None if the server lets us in, "" if it does not answer yet, else what is wrong."""
    import pymysql

    try:
        connection: Any = pymysql.connect(
            **place,
            port=settings.port,
            user=settings.user,
            password=settings.password,
            connect_timeout=10,
            ssl_disabled=True,
        )
    except pymysql.err.OperationalError as error:
        if error.args[0] == pymysql.constants.ER.ACCESS_DENIED_ERROR:
            return "does not accept the password in its own password file (stop and start it to renew the password)"
        return ""
    connection.close()
    return None
