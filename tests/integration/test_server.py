"""The embedded server on a real MariaDB: who gets in, what is kept, and what happens when something is in the way."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import pymysql
import pytest

from december_plugin.database import embedded as server_module
from december_plugin.database import mariadb, server_folder
from december_plugin.database.embedded import EmbeddedServer
from december_plugin.errors import ServerError
from helpers import warm

pytestmark = pytest.mark.database

NOBODY = 65534


@contextlib.contextmanager
def stopped_afterwards(server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    try:
        yield server
    finally:
        server.stop()
        assert servers_on(server.data) == []


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """Make a server that was never started, in a folder with an awkward name; it does not outlive the test."""
    with stopped_afterwards(EmbeddedServer(tmp_path / "a home # with blanks")) as server:
        yield server


@pytest.fixture(scope="module")
def stopped_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder of a server that ran once."""
    server = EmbeddedServer(tmp_path_factory.mktemp("stopped"))
    server.start()
    server.stop()
    return server.home


@pytest.fixture
def embedded(tmp_path: Path, stopped_home: Path) -> Iterator[EmbeddedServer]:
    """Make a server that ran before and is not running; it does not outlive the test."""
    home = tmp_path / "home"
    shutil.copytree(stopped_home, home, copy_function=shutil.copyfile)
    with stopped_afterwards(EmbeddedServer(home)) as server:
        yield server


@contextlib.contextmanager
def connected(server: EmbeddedServer, **other: Any) -> Iterator[Any]:
    settings = server.settings
    place = {"host": settings.host, "port": settings.port} if "unix_socket" not in other else {}
    connection = pymysql.connect(**{**place, "user": settings.user, "password": settings.password, **other})
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def servers_on(data: Path) -> list[int]:
    return [pid for pid in mariadb.process_ids() if mariadb.is_server(pid, data)]


def listening(pid: int) -> set[tuple[str, int]]:
    """Return the addresses on which a process listens, from the kernel's tables."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    inodes = {match[1] for link in links if (match := re.fullmatch(r"socket:\[(\d+)\]", link))}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            address, port = words[1].split(":")
            if words[3] == "0A" and words[9] in inodes:
                found.add((address, int(port, 16)))
    return found


def run_as_nobody(action: Callable[[], None]) -> str:
    """Run `action` in a child process that gives up root, and return the repr of what it raised, or ""."""
    codecs.lookup("idna")  # for host names; the child may not be able to read Python's library
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            action()
        except BaseException as error:
            os.write(writer, repr(error).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        problem = pipe.read().decode()
    os.waitpid(child, 0)
    return problem


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")


# ---- who gets in


def test_first_start_makes_a_private_server(fresh: EmbeddedServer) -> None:
    assert not fresh.home.exists()
    assert fresh.start() is True
    status = fresh.status()
    assert status.running
    assert mode(fresh.home) == mode(fresh.folder) == mode(fresh.data) == 0o700
    assert mode(fresh.credentials) == 0o600
    assert listening(status.pid) == {("0100007F", fresh.settings.port)}  # 127.0.0.1 and nothing else
    assert stat.S_ISSOCK(fresh.socket.stat().st_mode)
    assert fresh.settings.host == "127.0.0.1"
    assert len(fresh.settings.password) == 32
    assert fresh.settings.password not in repr(fresh.settings)


def test_password_is_nowhere_but_in_its_file(embedded: EmbeddedServer) -> None:
    embedded.start()
    secret = embedded.settings.password.encode()
    process = Path(f"/proc/{embedded.status().pid}")
    assert secret not in (process / "cmdline").read_bytes()
    assert secret not in (process / "environ").read_bytes()
    small = [path for path in embedded.folder.iterdir() if path.is_file()]
    assert [path.name for path in small if secret in path.read_bytes()] == ["client.cnf"]


def test_server_is_detached_from_the_terminal(embedded: EmbeddedServer) -> None:
    embedded.start()
    pid = embedded.status().pid
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/fd/1") == os.readlink(f"/proc/{pid}/fd/2") == str(embedded.error_log)


@pytest.mark.parametrize("user", ["root", "", "december", "mariadb.sys", "mysql"])
@pytest.mark.parametrize("way", ["socket", "port"])
def test_only_the_password_opens(server: EmbeddedServer, user: str, way: str) -> None:
    place = {"unix_socket": str(server.socket)} if way == "socket" else {}
    for password in ("", "wrong"):
        with (
            pytest.raises(pymysql.err.OperationalError, match=r"Access denied|is locked"),
            connected(server, user=user, password=password, **place),
        ):
            pass


def test_accounts_are_ours_alone(server: EmbeddedServer) -> None:
    with connected(server, unix_socket=str(server.socket)) as cursor:
        cursor.execute("SELECT user, host, JSON_VALUE(priv, '$.account_locked') FROM mysql.global_priv")
        assert sorted(cursor.fetchall()) == [
            ("december", "127.0.0.1", None),
            ("december", "localhost", None),
            ("mariadb.sys", "localhost", "1"),
        ]
        cursor.execute("SHOW DATABASES LIKE 'test'")
        assert cursor.fetchall() == ()


def test_server_settings(server: EmbeddedServer) -> None:
    with connected(server) as cursor:
        cursor.execute(
            "SELECT @@character_set_server, @@collation_server, @@have_ssl, @@log_bin, @@local_infile, @@wait_timeout"
        )
        assert cursor.fetchone() == ("utf8mb4", "utf8mb4_general_ci", "DISABLED", 0, 0, 7 * 24 * 3600)


def test_row_of_60_megabytes_is_stored(server: EmbeddedServer) -> None:
    blob = b"0123456789abcdef" * 3_750_000
    with connected(server) as cursor:
        cursor.execute("CREATE DATABASE packet")
        try:
            cursor.execute("CREATE TABLE packet.t (value LONGBLOB)")
            cursor.execute("INSERT INTO packet.t VALUES (%s)", (blob,))
            cursor.execute("SELECT SHA1(value), LENGTH(value) FROM packet.t")
            assert cursor.fetchone()[1] == 60_000_000
        finally:
            cursor.execute("DROP DATABASE packet")


# ---- start, stop, start


def test_data_password_and_port_are_kept(embedded: EmbeddedServer) -> None:
    assert embedded.start() is True
    pid, settings = embedded.status().pid, embedded.settings
    assert embedded.start() is False
    assert EmbeddedServer(embedded.home).start() is False
    assert embedded.status().pid == pid
    with connected(embedded) as cursor:
        cursor.execute("CREATE DATABASE kept")
    assert embedded.stop() is True
    assert not os.path.exists(f"/proc/{pid}")
    assert not embedded.status().running
    assert embedded.stop() is False
    assert embedded.start() is True
    assert embedded.settings == settings
    with connected(embedded) as cursor:
        cursor.execute("SHOW DATABASES LIKE 'kept'")
        assert cursor.fetchall() == (("kept",),)


def test_nothing_is_made_by_stop_and_status(fresh: EmbeddedServer) -> None:
    assert fresh.stop() is False
    assert not fresh.status().running
    assert fresh.status().port is None
    assert not fresh.home.exists()


def test_many_processes_meet_in_one_server(fresh: EmbeddedServer) -> None:
    code = (
        "import sys; from december_plugin.database.embedded import EmbeddedServer; "
        "print(EmbeddedServer(sys.argv[1]).start())"
    )
    command = [sys.executable, "-c", code, str(fresh.home)]
    starters = [warm.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert sorted(starter.communicate()[0].strip() for starter in starters) == ["False", "False", "False", "True"]
    # Its starter has ended, and it still runs.
    assert servers_on(fresh.data) == [fresh.status().pid]
    with connected(fresh) as cursor:
        cursor.execute("SELECT 1")


def test_killed_server_starts_again(embedded: EmbeddedServer) -> None:
    embedded.start()
    first = embedded.status().pid
    with connected(embedded) as cursor:
        cursor.execute("CREATE DATABASE kept")
    os.kill(first, signal.SIGKILL)
    while mariadb.is_server(first, embedded.data):
        time.sleep(0.01)
    assert embedded.pid_file.exists()
    assert not embedded.status().running
    assert embedded.start() is True
    with connected(embedded) as cursor:
        cursor.execute("SHOW DATABASES LIKE 'kept'")
        assert cursor.fetchall() == (("kept",),)


def test_pid_file_of_another_program_is_no_server(fresh: EmbeddedServer) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        fresh.folder.mkdir(parents=True, mode=0o700)
        fresh.pid_file.write_text(f"{stranger.pid}\n")
        assert not fresh.status().running
        assert fresh.stop() is False
        assert fresh.start() is True
        fresh.pid_file.write_text(f"{stranger.pid}\n")
        assert fresh.start() is False  # found by its data folder
        assert fresh.stop() is True
        assert stranger.poll() is None
        stranger.communicate(b"\n")


def test_interrupted_first_start_leaves_nothing_in_the_way(fresh: EmbeddedServer) -> None:
    (fresh.folder / "data.partial" / "mysql").mkdir(parents=True)
    assert fresh.start() is True
    assert not (fresh.folder / "data.partial").exists()


def test_port_in_use_is_left_for_another_which_is_remembered(embedded: EmbeddedServer) -> None:
    embedded.start()
    first = embedded.settings.port
    embedded.stop()
    with socket.create_server(("127.0.0.1", first)):
        embedded.start()
        second = embedded.settings.port
        assert second != first
        embedded.stop()
    embedded.start()
    assert embedded.settings.port == second


def test_port_taken_while_the_server_starts(embedded: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        text = embedded.credentials.read_text()
        embedded.credentials.write_text(re.sub("port=.*", f"port={taken}", text))
        monkeypatch.setattr(server_module, "is_free", lambda port: port == taken or mariadb.is_free(port))
        assert embedded.start() is True
        assert embedded.settings.port != taken
        assert f"running on port: {taken}" in embedded.error_log.read_text()


def test_long_folder_name_has_its_socket_elsewhere(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / ("long" * 30))
    server.start()
    try:
        assert len(os.fsencode(server.socket)) <= 103
        assert mode(server.socket.parent) == 0o700
        with connected(server, unix_socket=str(server.socket)) as cursor:
            cursor.execute("SELECT 1")
    finally:
        server.stop()
    assert not server.socket.parent.exists()


@needs_root
def test_ordinary_user() -> None:
    with tempfile.TemporaryDirectory(prefix="december-nobody-") as home:  # pytest's folders are root's alone
        os.chown(home, NOBODY, NOBODY)
        start_use_and_stop_as_nobody(EmbeddedServer(home))


def start_use_and_stop_as_nobody(server: EmbeddedServer) -> None:
    def start_use_and_stop() -> None:
        assert server.start() is True
        try:
            assert server.start() is False
            with connected(server) as cursor:
                cursor.execute("CREATE DATABASE mine")
            with connected(server, unix_socket=str(server.socket)) as cursor:
                cursor.execute("SELECT CURRENT_USER()")
                assert cursor.fetchone() == ("december@localhost",)
            with (
                pytest.raises(pymysql.err.OperationalError),
                connected(server, user="root", password="", unix_socket=str(server.socket)),
            ):
                pass
            assert os.stat(f"/proc/{server.status().pid}").st_uid == NOBODY
        finally:
            assert server.stop() is True

    assert run_as_nobody(start_use_and_stop) == ""
    assert servers_on(server.data) == []


# ---- what is in the way, said clearly


def test_missing_mariadb_is_one_line_with_the_remedy(
    fresh: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(mariadb, "SYSTEM_FOLDERS", (str(tmp_path),))
    with pytest.raises(ServerError) as raised:
        fresh.start()
    assert str(raised.value) == (
        f"MariaDB is not installed: no mariadbd or mysqld on PATH or in {tmp_path}. Install it with `apt-get install "
        "mariadb-server` (as root), or name your lab's server in DJ_HOST, DJ_USER and DJ_PASS."
    )


def test_start_failure_shows_the_log(embedded: EmbeddedServer) -> None:
    embedded.start()
    embedded.stop()
    settings = embedded.settings
    (embedded.data / "ibdata1").write_bytes(b"no database" * 1000)
    with pytest.raises(ServerError, match=r"did not start\.\nThe last lines of its log .*error\.log:\n(.*\n)*.*InnoDB"):
        embedded.start()
    assert not embedded.status().running
    assert embedded.settings == settings


def test_folder_without_a_database(fresh: EmbeddedServer) -> None:
    fresh.data.mkdir(parents=True)
    with pytest.raises(ServerError, match=r"server/data exists but holds no database\. Move it away, and run"):
        fresh.start()


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerError, match=r"cannot be used \(Not a directory\)\. Make it writable, or set"):
        EmbeddedServer(tmp_path / "file" / "home").start()


@needs_root
def test_folder_of_another_user(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    message = rf"home does not belong to the user who runs this \(user id 0; it belongs to {NOBODY}\)\. Run december"
    with pytest.raises(ServerError, match=message):
        EmbeddedServer(home).start()


def test_lost_password_file(embedded: EmbeddedServer) -> None:
    embedded.start()
    with connected(embedded) as cursor:
        cursor.execute("CREATE DATABASE kept")
    embedded.credentials.unlink()
    with pytest.raises(
        ServerError, match=r"has no password file .*client\.cnf\. Run `december db stop`, then `december"
    ):
        embedded.start()
    assert embedded.stop() is True
    embedded.credentials.write_text("no settings")
    with pytest.raises(ServerError, match=r"password file .*client\.cnf cannot be read \(.*\)\. Delete it, then run"):
        _ = embedded.settings
    assert embedded.start() is True
    with connected(embedded) as cursor:
        cursor.execute("SHOW DATABASES LIKE 'kept'")
        assert cursor.fetchall() == (("kept",),)


def test_changed_password_file(embedded: EmbeddedServer) -> None:
    embedded.start()
    text = embedded.credentials.read_text()
    embedded.credentials.write_text(re.sub("password=.*", r"password=it's \\'mine", text))
    with pytest.raises(ServerError, match="does not accept the password in its own password file"):
        embedded.start()
    embedded.stop()
    embedded.start()
    assert embedded.settings.password == r"it's \'mine"


def test_another_server_has_the_data(embedded: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded.start()
    settings = embedded.settings
    monkeypatch.setattr(server_module, "END_TIMEOUT", 0.5)
    with monkeypatch.context() as patch:  # as seen from another machine
        patch.setattr(server_module, "is_server", lambda pid, data: False)
        with pytest.raises(ServerError, match="another server, perhaps on another machine, uses its data"):
            embedded.start()
    assert embedded.settings == settings
    assert embedded.start() is False


def test_lock_that_is_never_released(fresh: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.folder.mkdir(parents=True)
    monkeypatch.setattr(server_folder, "LOCK_TIMEOUT", 0.1)
    with (
        filelock.FileLock(fresh.folder / "lock"),
        pytest.raises(ServerError, match=r"Another process has been starting or stopping .* for more than 0 s"),
    ):
        fresh.start()


def test_server_that_does_not_stop(embedded: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded.start()
    pid = embedded.status().pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(server_module, "STOP_TIMEOUT", 0.2)
            with pytest.raises(ServerError, match=rf"\(process {pid}\) is still shutting down after 0 s\. Wait"):
                embedded.stop()
    finally:
        os.kill(pid, signal.SIGCONT)


def test_server_that_does_not_answer(embedded: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "START_TIMEOUT", 0.2)
    monkeypatch.setattr(server_module, "_try_to_connect", lambda settings, place: "")
    with pytest.raises(ServerError, match=r"did not answer within 0 s\.\nThe last lines of its log"):
        embedded.start()
    assert servers_on(embedded.data) == []


@pytest.mark.skipif(shutil.which("ps") is None, reason="the system has no ps")
def test_processes_are_found_without_proc(embedded: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded.start()
    pid = embedded.status().pid
    monkeypatch.setattr(mariadb.os.path, "isdir", lambda path: False)  # as on macOS
    assert pid in mariadb.process_ids()
    assert mariadb.is_server(pid, embedded.data)
    assert not mariadb.is_server(os.getpid(), embedded.data)


def test_temporary_files_are_in_a_folder_of_its_own(server: EmbeddedServer, admin: Any) -> None:
    admin.execute("SELECT @@tmpdir")
    assert admin.fetchone() == (str(server.folder / "tmp"),)
