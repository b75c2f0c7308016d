"""Which server is used, and who starts and stops it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest

from december_plugin.database import connection as connection_module
from december_plugin.database.connection import connect, database_session
from december_plugin.database.embedded import EmbeddedServer
from december_plugin.database.lab_settings import lab_settings
from december_plugin.errors import ServerError
from december_plugin.storage.settings import DEFAULT_STORE
from helpers import warm

Command = Callable[..., subprocess.CompletedProcess[str]]
SECRET = "correct horse"  # of the fixture lab


# ---- which server


def test_without_settings_the_embedded_server_is_used(
    unconfigured: Any, server: EmbeddedServer, december_home: Path
) -> None:
    assert lab_settings() is None
    database = connect()
    assert database.is_embedded
    assert not database.started
    assert database.connection is unconfigured.conn()
    assert database.connection.query("SELECT @@port").fetchone() == (server.settings.port,)
    assert unconfigured.config["stores"][DEFAULT_STORE]["location"] == str(december_home / "store")
    assert unconfigured.config["database.use_tls"] is False
    assert lab_settings() is None  # its own settings are no lab's
    assert connect().connection is database.connection


def test_saved_settings_of_the_embedded_server_are_no_lab(unconfigured: Any, server: EmbeddedServer) -> None:
    own = server.settings
    unconfigured.config.update({"database.host": own.host, "database.port": 1, "database.user": own.user})
    unconfigured.config["database.password"] = own.password
    assert lab_settings() is None
    assert connect().is_embedded
    assert unconfigured.config["database.port"] == own.port


def test_lab_settings_are_used_as_they_are(lab: Any, server: EmbeddedServer, tmp_path: Path) -> None:
    database = connect(home=tmp_path / "home")
    assert not database.is_embedded
    assert database.connection.get_user() == "student@127.0.0.1"
    assert not (tmp_path / "home").exists()


def test_connection_that_a_program_opened_is_kept(lab: Any, server: EmbeddedServer, tmp_path: Path) -> None:
    opened = lab.conn(f"127.0.0.1:{server.settings.port}", "student", SECRET, use_tls=False)
    lab.config.update({"database.host": "localhost", "database.port": 3306})
    lab.config.update({"database.user": None, "database.password": None})
    database = connect(home=tmp_path / "home")
    assert database.connection is opened
    assert not database.is_embedded
    assert lab_settings().source == "dj.conn()"


def test_lab_server_without_tls(lab: Any) -> None:
    assert lab.config["database.use_tls"] is None
    assert connect().connection.is_connected
    assert lab.config["database.use_tls"] is False


@pytest.mark.parametrize("file", ["dj_local_conf.json", "~/.datajoint_config.json"])
def test_settings_in_a_file(server: EmbeddedServer, file: str, tmp_path: Path, december: Command) -> None:
    place = tmp_path / Path(file).name
    own = server.settings
    settings = {"host": own.host, "port": own.port, "user": own.user, "password": own.password}
    place.write_text(json.dumps({f"database.{name}": value for name, value in settings.items()}))
    cwd = tmp_path if file.startswith("dj") else tmp_path.parent
    home = tmp_path / "home"
    done = december("db", "status", cwd=cwd, HOME=str(tmp_path), DECEMBER_HOME=str(home))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == [f"database   127.0.0.1:{own.port}, user december", f"settings   {place}"]
    assert not (home / "server").exists()
    done = december("db", "start", cwd=cwd, HOME=str(tmp_path), DECEMBER_HOME=str(home))
    assert done.returncode == 1
    assert done.stderr == (
        f"december: error: The DataJoint settings ({place}) name the database server 127.0.0.1:{own.port}: december "
        "uses it and does not start its own. Remove these settings to use the embedded database.\n"
    )
    assert not (home / "server").exists()


def test_settings_file_with_a_mistake(server: EmbeddedServer, tmp_path: Path, december: Command) -> None:
    place = tmp_path / "dj_local_conf.json"
    place.write_text('{"database.host": "db.lab",}')
    for command in ("db", "status"), ("status",), ("worker",):
        done = december(*command, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"december: error: DataJoint's settings in {place} are not valid JSON: Expecting property name enclosed in "
            "double quotes: line 1 column 28 (char 27). Correct the file.\n"
        )


def test_settings_file_that_is_not_utf8(server: EmbeddedServer, tmp_path: Path, december: Command) -> None:
    place = tmp_path / "dj_local_conf.json"
    for encoding, position in (("latin-1", 20), ("utf-16", 0)):
        place.write_bytes('{"database.user": "müller"}'.encode(encoding))
        done = december("status", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"december: error: DataJoint's settings in {place} are not valid JSON: the byte at position {position} is "
            "not UTF-8. Save the file as UTF-8.\n"
        )


def test_settings_in_the_environment(server: EmbeddedServer, tmp_path: Path, december: Command) -> None:
    own = server.settings
    variables = {"DJ_HOST": f"{own.host}:{own.port}", "DJ_USER": own.user, "DJ_PASS": own.password}
    done = december("db", "status", cwd=tmp_path, DECEMBER_HOME=str(tmp_path / "home"), **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"database   127.0.0.1:{own.port}, user december\nsettings   DJ_HOST, DJ_USER, DJ_PASS\n" in done.stdout


@pytest.mark.slow(5)
@pytest.mark.database
def test_command_starts_and_stops_the_embedded_server(tmp_path: Path, december: Command) -> None:
    home = {"DECEMBER_HOME": str(tmp_path / "home")}
    assert december("db", "status", cwd=tmp_path, **home).returncode == 3
    try:
        done = december("db", "start", cwd=tmp_path, **home)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("The embedded database started: 127.0.0.1:")
        assert "was running already" in december("db", "start", cwd=tmp_path, **home).stdout
        done = december("db", "status", cwd=tmp_path, **home)
        assert done.returncode == 0
        credentials = tmp_path / "home" / "server" / "client.cnf"
        assert f"password   {credentials}\n" in done.stdout
    finally:
        done = december("db", "stop", cwd=tmp_path, **home)
    assert done.stdout == "The embedded database is stopped; its data are kept.\n"
    assert december("db", "stop", cwd=tmp_path, **home).stdout == "No embedded database is running.\n"
    assert december("db", "status", cwd=tmp_path, **home).returncode == 3


@pytest.mark.slow(4)
def test_nothing_is_logged_about_connections_unless_asked(
    server: EmbeddedServer, tmp_path: Path, december: Command
) -> None:
    quiet = december("db", "status", cwd=tmp_path)
    assert quiet.stderr == ""
    code = (
        "from december_plugin.database.connection import *; from december_plugin.importing.datajoint import *; "
        "quiet_connections(verbose={}); connect()"
    )
    noise = [
        warm.run(
            [sys.executable, "-c", code.format(verbose)], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stderr
        for verbose in (False, True)
    ]
    assert noise[0] == ""
    assert "connected to december@127.0.0.1" in noise[1]


# ---- sessions, forks, restarts


def test_session_stops_what_it_started(unconfigured: Any, tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "home")
    with database_session(home=server.home) as database:
        assert database.started
        assert server.status().running
        with database_session(home=server.home) as inner:
            assert not inner.started
        assert server.status().running
    assert not server.status().running


def test_session_leaves_a_server_that_others_use(unconfigured: Any, tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "home")
    try:
        with database_session(home=server.home):
            own = server.settings
            other = pymysql.connect(host=own.host, port=own.port, user=own.user, password=own.password)
        assert server.status().running
        other.close()
    finally:
        server.stop()


def test_session_whose_connection_fails_leaves_nothing_running(
    unconfigured: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ServerError("no connection")

    monkeypatch.setattr(connection_module, "_open", fail)
    with pytest.raises(ServerError, match="no connection"), database_session(home=tmp_path / "home"):
        pass
    assert not EmbeddedServer(tmp_path / "home").status().running


def test_embedded_server_restarted_on_another_port(unconfigured: Any, tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "home")
    try:
        first = connect(home=server.home).connection
        port = server.settings.port
        server.stop()
        text = server.credentials.read_text()
        server.credentials.write_text(text.replace(f"port={port}", f"port={port + 150}"))
        second = connect(home=server.home).connection
        assert second is not first
        assert second.is_connected
        assert second.conn_info["port"] == port + 150
    finally:
        server.stop()


def test_forked_child_gets_a_connection_of_its_own(unconfigured: Any) -> None:
    query = "SELECT CONNECTION_ID()"
    parent = connect().connection.query(query).fetchone()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, repr(connect().connection.query(query).fetchone()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    assert answer.startswith("(")
    assert answer != repr(parent)
    assert unconfigured.conn().query(query).fetchone() == parent
