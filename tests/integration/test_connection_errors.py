"""The message for everything that can be wrong with the server or with the store."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest

from december_plugin.database.connection import connect, open_schema
from december_plugin.database.embedded import EmbeddedServer
from december_plugin.database.errors import explain_error, readable_errors
from december_plugin.errors import ServerError
from december_plugin.storage.opening import check_store
from december_plugin.storage.settings import DEFAULT_STORE

Command = Callable[..., subprocess.CompletedProcess[str]]
SECRET = "correct horse"  # of the fixture lab


# ---- the server cannot be used


def test_server_that_does_not_answer(lab: Any) -> None:
    lab.config["database.port"] = 1
    with pytest.raises(ServerError) as raised:
        connect()
    assert str(raised.value) == (
        "The database server 127.0.0.1:1 cannot be reached (Connection refused). Check that it runs and that host and "
        "port are right (settings from dj.config)."
    )


def test_host_that_does_not_exist(lab: Any) -> None:
    lab.config["database.host"] = "no-such-host.invalid"
    port = lab.config["database.port"]
    with pytest.raises(ServerError, match=rf"^The database server no-such-host\.invalid:{port} cannot be reached \("):
        connect()


def test_wrong_password(lab: Any) -> None:
    lab.config["database.password"] = "battery staple"
    port = lab.config["database.port"]
    with pytest.raises(ServerError) as raised:
        connect()
    assert str(raised.value) == (
        f"The database server 127.0.0.1:{port} refuses user 'student': wrong user name or password. Correct DJ_USER "
        "and DJ_PASS, or database.user and database.password in dj_local_conf.json (settings from dj.config)."
    )


def test_wrong_password_on_the_command_line(server: EmbeddedServer, tmp_path: Path, december: Command) -> None:
    variables = {"DJ_HOST": f"127.0.0.1:{server.settings.port}", "DJ_USER": "december", "DJ_PASS": "battery staple"}
    done = december("db", "status", cwd=tmp_path, **variables)
    assert done.returncode == 1
    assert done.stderr.startswith(f"december: error: The database server 127.0.0.1:{server.settings.port} refuses user")
    assert "Traceback" not in done.stderr
    assert "battery staple" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("variables", "missing", "remedy"),
    [
        ({}, "No user and no password is set", "Set DJ_USER and DJ_PASS in the environment, or database.user and"),
        ({"DJ_USER": "student"}, "No password is set", "Set DJ_PASS in the environment, or database.password in"),
        ({"DJ_PASS": "secret"}, "No user is set", "Set DJ_USER in the environment, or database.user in"),
    ],
)
def test_missing_credentials_ask_nothing(
    variables: dict[str, str], missing: str, remedy: str, server: EmbeddedServer, tmp_path: Path, december: Command
) -> None:
    done = december("db", "status", cwd=tmp_path, DJ_HOST="127.0.0.1:1", **variables)
    assert done.returncode == 1
    assert done.stderr.startswith(f"december: error: {missing} for the database server 127.0.0.1:1 (settings from ")
    assert remedy in done.stderr


def test_missing_credentials_are_asked_for_at_a_terminal(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.config.update({"database.user": None, "database.password": None})
    questions = []
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr("builtins.input", lambda question: questions.append(question) or "student")
    monkeypatch.setattr("getpass.getpass", lambda question: questions.append(question) or SECRET)
    assert connect().connection.is_connected
    server = f"for the database server 127.0.0.1:{lab.config['database.port']}: "
    assert questions == [f"User name {server}", f"Password {server}"]


def test_tls_that_the_server_has_not(lab: Any) -> None:
    lab.config["database.use_tls"] = True
    with pytest.raises(
        ServerError, match=r"^No encrypted connection to the database server 127\.0\.0\.1:.*use_tls to fal"
    ):
        connect()


def test_user_who_may_not_create_schemas(lab: Any, admin: Any, schema_name: str) -> None:
    connect()
    with pytest.raises(ServerError) as raised:
        open_schema(schema_name)
    escaped = schema_name.replace("_", r"\_")
    grant = f"GRANT ALL PRIVILEGES ON `{escaped}`.* TO 'student'@'127.0.0.1';"
    assert str(raised.value) == (
        f"User 'student'@'127.0.0.1' may not create or use the schema `{schema_name}` on the database server "
        f"127.0.0.1:{lab.config['database.port']}. Ask its administrator to run:\n    {grant}"
    )
    admin.execute(grant)
    assert open_schema(schema_name).exists


def test_user_who_may_only_read(lab: Any, admin: Any, schema_name: str) -> None:
    admin.execute(f"CREATE DATABASE `{schema_name}`")
    admin.execute(f"GRANT SELECT ON `{schema_name}`.* TO 'student'@'127.0.0.1'")
    schema = open_schema(schema_name)

    @schema
    class Neuron(lab.Manual):
        definition = "neuron: int  # number"

    escaped = schema_name.replace("_", r"\_")
    with pytest.raises(ServerError) as raised, readable_errors():
        len(Neuron())
    assert str(raised.value) == (
        f"The table `{schema_name}`.`neuron` does not exist on the database server "
        f"127.0.0.1:{lab.config['database.port']}. It is created when it is first used by a user who may "
        "create it; for 'student' to be one, ask the server's administrator to run:\n"
        f"    GRANT ALL PRIVILEGES ON `{escaped}`.* TO 'student'@'127.0.0.1';"
    )
    admin.execute(f"CREATE TABLE `{schema_name}`.`neuron` (neuron INT PRIMARY KEY)")
    assert len(Neuron()) == 0
    with pytest.raises(ServerError) as raised, readable_errors():
        Neuron.insert1((1,))
    assert str(raised.value) == (
        f"User 'student'@'127.0.0.1' may not INSERT in the table `{schema_name}`.`neuron` on the database server "
        f"127.0.0.1:{lab.config['database.port']}. What the roles admin, worker and reader may do is in "
        "docs/security.md; the server's administrator grants only this right with:\n"
        f"    GRANT INSERT ON `{schema_name}`.`neuron` TO 'student'@'127.0.0.1';"
    )


def test_user_who_may_not_use_the_common_schema(lab: Any, admin: Any) -> None:
    explained = explain_error(
        pymysql.err.OperationalError(1044, "Access denied for user 'student'@'%' to database 'nnfabrik_core'")
    )
    assert str(explained) == (
        f"User 'student'@'%' may not use nnfabrik's common schema `nnfabrik_core` on the database server "
        f"127.0.0.1:{lab.config['database.port']}, which nnfabrik opens whenever it is imported. Ask the server's "
        "administrator to run:\n    GRANT SELECT ON `nnfabrik\\_core`.* TO 'student'@'%';\n"
        "If that changes nothing, the schema does not exist yet: `december register`, run by a user with the admin "
        "role (docs/security.md), creates it."
    )


def test_lost_connection(lab: Any, admin: Any) -> None:
    connection = connect().connection
    lab.config["database.reconnect"] = False
    admin.execute(f"KILL {connection.connection_id}")
    with (
        pytest.raises(
            ServerError, match=r"^The connection to the database server 127\.0\.0\.1:\d+ was lost \(.*\)\. Check"
        ),
        readable_errors(),
    ):
        connection.query("SELECT 1")
    lab.config["database.reconnect"] = True
    assert connect().connection.query("SELECT 1").fetchone() == (1,)


def test_row_that_is_too_large(lab: Any, admin: Any) -> None:
    connection = connect().connection
    with (
        pytest.raises(
            ServerError, match=r"^A row is larger than the database server .* takes\. .* max_allowed_packet\.$"
        ),
        readable_errors(),
    ):
        raise pymysql.err.OperationalError(1153, "Got a packet bigger than 'max_allowed_packet' bytes")
    assert connection.is_connected


def test_other_errors_of_the_server_keep_its_words(lab: Any) -> None:
    address = f"127.0.0.1:{lab.config['database.port']}"
    explained = explain_error(pymysql.err.OperationalError(1040, "Too many connections"))
    assert str(explained) == f"The database server {address} answers: Too many connections (error 1040)."


def test_errors_of_other_kinds_stay_as_they_are(lab: Any) -> None:
    assert explain_error(ValueError("mine")) is None
    assert explain_error(pymysql.err.ProgrammingError(1064, "syntax")) is None
    with pytest.raises(KeyError), readable_errors():
        raise KeyError("mine")
    with pytest.raises(ServerError, match="once") as raised, readable_errors():
        raise ServerError("once")
    assert raised.value.__cause__ is None


# ---- the store


def test_missing_store_folder(lab: Any, tmp_path: Path) -> None:
    (tmp_path / "lab_store").rmdir()
    with pytest.raises(ServerError) as raised:
        connect()
    assert str(raised.value) == (
        f"The folder {tmp_path / 'lab_store'} of the store 'minio' does not exist. Create it, mount the disk that "
        "holds it, or correct dj.config['stores']['minio']['location']."
    )
    assert not hasattr(lab.conn, "connection")


def test_store_that_is_a_file(lab: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lab.config["stores"][DEFAULT_STORE]["location"] = str(tmp_path / "file")
    with pytest.raises(
        ServerError, match=r"file of the store 'minio' is not a folder\. Move the file away, or correct"
    ):
        check_store()


def test_store_that_is_not_writable(lab: Any) -> None:
    lab.config["stores"][DEFAULT_STORE]["location"] = "/proc/self"  # not even root can make a file there
    with pytest.raises(
        ServerError, match=rf"^The folder /proc/self of the store 'minio' is not writable for user id {os.geteuid()} \("
    ):
        check_store()


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"protocol": "ftp", "location": "/"}, "Missing or invalid protocol"),
        ({"protocol": "file"}, 'is missing "location"'),
        (None, "is requested but not configured"),
    ],
)
def test_store_with_wrong_settings(lab: Any, spec: dict[str, str] | None, reason: str) -> None:
    lab.config["stores"] = {} if spec is None else {DEFAULT_STORE: spec}
    with pytest.raises(
        ServerError, match=rf"^The store 'minio' cannot be used: .*{reason}.* Correct dj\.config\['stores'"
    ):
        check_store()


def test_bucket_that_cannot_be_reached(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"protocol": "s3", "endpoint": "127.0.0.1:1", "bucket": "models", "location": ""}
    lab.config["stores"] = {DEFAULT_STORE: {**spec, "access_key": "key", "secret_key": SECRET}}
    with pytest.raises(
        ServerError, match=r"^The store 'minio' \(the bucket 'models' at 127\.0\.0\.1:1\) cannot be used: no conn"
    ) as raised:
        check_store()
    assert SECRET not in str(raised.value)


def test_lab_without_a_store_is_warned(lab: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lab.config["stores"] = {}
    home = tmp_path / "home"
    connect(home=home)
    assert caplog.records == []  # a server on this machine
    lab.config["stores"] = {}
    lab.config["database.host"] = "no-such-host.invalid"
    lab.conn.connection.close()
    with caplog.at_level(logging.WARNING), pytest.raises(ServerError, match="cannot be reached"):
        connect(home=home)
    assert f"have no store 'minio': models are kept in {home / 'store'} on this machine, where other" in caplog.text


def test_default_store_that_cannot_be_made(unconfigured: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ServerError, match=r"file/store for the store 'minio' cannot be created \(Not a directory\)\. Conf"
    ):
        connect(home=tmp_path / "file")
