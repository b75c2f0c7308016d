"""Encryption of the connection: against servers with TLS, that insist on TLS, and without."""

from __future__ import annotations

import re
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from december_plugin.database import embedded as server_module
from december_plugin.database.connection import connect, second_connection
from december_plugin.database.embedded import EmbeddedServer
from december_plugin.database.errors import explain_error
from december_plugin.database.tls import cipher
from december_plugin.errors import ServerError, SettingsError
from december_plugin.storage.settings import DEFAULT_STORE

PASSWORD = "correct horse"
NO_TLS = (
    ": it answers without TLS, which database.use_tls requires. Ask its administrator for TLS, or set database.use_tls "
    "to false in dj_local_conf.json if all who can read the network may read everything."
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an authority, a server's certificate for 127.0.0.1 that it has signed, and another authority."""
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    new = "openssl req -newkey rsa:2048 -nodes -days 2"
    for command in (
        f"{new} -x509 -keyout ca.key -out ca.pem -subj /CN=authority",
        f"{new} -x509 -keyout other.key -out other.pem -subj /CN=other",
        f"{new} -keyout server.key -out server.csr -subj /CN=database",
        "openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out server.pem "
        "-extfile names",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def tls_server(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """Start a server that offers TLS."""
    files = {"ca": "ca.pem", "cert": "server.pem", "key": "server.key"}
    options = [option for option in server_module.OPTIONS if option != "--skip-ssl"]
    server = EmbeddedServer(tmp_path_factory.mktemp("tls_home"))
    with pytest.MonkeyPatch.context() as patch:
        options += [f"--ssl-{name}={certificates / file}" for name, file in files.items()]
        patch.setattr(server_module, "OPTIONS", tuple(options))
        server.start()
    yield server
    server.stop()


def administer(server: EmbeddedServer, *statements: str) -> None:
    own = server.settings
    connection = pymysql.connect(host=own.host, port=own.port, user=own.user, password=own.password, autocommit=True)
    with connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def tls_lab(unconfigured: Any, tls_server: EmbeddedServer, tmp_path: Path) -> Iterator[Any]:
    """Yield DataJoint with the settings of a lab whose server offers TLS."""
    administer(tls_server, f"CREATE OR REPLACE USER 'student'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
    dj = unconfigured
    dj.config.update({"database.host": "127.0.0.1", "database.port": tls_server.settings.port})
    dj.config.update({"database.user": "student", "database.password": PASSWORD})
    dj.config["stores"] = {DEFAULT_STORE: {"protocol": "file", "location": str(tmp_path)}}
    yield dj
    administer(tls_server, "SET GLOBAL require_secure_transport = OFF")


@pytest.fixture
def old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make PyMySQL go on unencrypted where the server has no TLS, whatever was required, as before its version 1.2."""
    ignored = property(lambda self: False, lambda self, value: None)
    monkeypatch.setattr(pymysql.connections.Connection, "_ssl_required", ignored, raising=False)


# ---- a server with TLS


@pytest.mark.parametrize("use_tls", [None, True])
def test_encrypted_where_the_server_offers_it(use_tls: bool | None, tls_lab: Any) -> None:
    tls_lab.config["database.use_tls"] = use_tls
    connection = connect().connection
    assert cipher(connection).startswith("TLS_")
    assert tls_lab.config["database.use_tls"] is use_tls
    connection.close()
    connection.connect()
    assert cipher(connection).startswith("TLS_")


def test_server_that_insists_on_tls(tls_lab: Any, tls_server: EmbeddedServer) -> None:
    administer(tls_server, "SET GLOBAL require_secure_transport = ON")
    assert cipher(connect().connection).startswith("TLS_")
    assert cipher(second_connection()).startswith("TLS_")


def test_second_connection_is_encrypted_and_separate(tls_lab: Any) -> None:
    first = connect().connection
    second = second_connection(timeout=2)
    assert cipher(second).startswith("TLS_")
    assert second.get_user() == first.get_user() == "student@127.0.0.1"
    identities = [each.query("SELECT CONNECTION_ID()").fetchone() for each in (first, second)]
    assert identities[0] != identities[1]
    with pytest.raises(tls_lab.errors.LostConnectionError, match="timed out"):
        second.query("SELECT SLEEP(20)", reconnect=False)
    assert tls_lab.conn() is first
    assert first.is_connected
    second.close()


def test_second_connection_leaves_the_filters_of_warnings_alone(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connect()
    second = second_connection()

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the filters of all threads were changed")

    monkeypatch.setattr(warnings, "catch_warnings", fail)
    assert second.query("SELECT 1").fetchone() == (1,)
    with pytest.raises(lab.errors.QuerySyntaxError):
        second.query("SELEC 1")


def test_second_connection_needs_a_first(unconfigured: Any) -> None:
    with pytest.raises(ServerError) as raised:
        second_connection()
    assert str(raised.value) == (
        "There is no connection to the database yet. Call december_plugin.database.connection.connect() first."
    )


def test_certificate_is_verified(tls_lab: Any, certificates: Path) -> None:
    tls_lab.config["database.use_tls"] = {"ca": str(certificates / "ca.pem")}
    assert cipher(connect().connection).startswith("TLS_")
    assert cipher(second_connection()).startswith("TLS_")


def test_certificate_of_another_authority(tls_lab: Any, certificates: Path) -> None:
    tls_lab.config["database.use_tls"] = {"ca": str(certificates / "other.pem")}
    with pytest.raises(ServerError) as raised:
        connect()
    assert re.fullmatch(
        rf"The certificate of the database server 127\.0\.0\.1:{tls_lab.config['database.port']} is refused "
        r"\(certificate verify failed: [a-z -]+\)\. database\.use_tls must name the authority that signed it, and "
        r"database\.host the name that it certifies; if both are right, another machine answers in the server's "
        r"place\.",
        str(raised.value),
    )
    assert not hasattr(tls_lab.conn, "connection")


def test_certificate_of_another_host(tls_lab: Any, tls_server: EmbeddedServer, certificates: Path) -> None:
    tls_lab.config["database.host"] = "localhost"
    tls_lab.config["database.use_tls"] = {"ca": str(certificates / "ca.pem")}
    with pytest.raises(ServerError, match=r"is refused \(certificate verify failed: Hostname mismatch, cert"):
        connect()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2003, "Can't connect to MySQL server on 'db' ([SSL: UNSUPPORTED_PROTOCOL] no good (_ssl.c:1006))"),
        (2013, "Lost connection to MySQL server during query ([SSL: TLSV1_ALERT_UNKNOWN_CA] no good (_ssl.c:2580))"),
    ],
)
def test_handshake_that_fails_for_another_reason(code: int, words: str) -> None:
    assert re.fullmatch(
        r"No encrypted connection to the database server \S+ \(no good\)\. The server must allow a version of TLS "
        r"that this Python supports, and trust the authority of the certificate that database\.use_tls may name "
        r"\(cert\)\.",
        str(explain_error(pymysql.err.OperationalError(code, words))),
    )


def test_variable_stands_for_a_missing_setting(
    tls_lab: Any, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECEMBER_USE_TLS", str(certificates / "other.pem"))
    with pytest.raises(ServerError, match="is refused"):
        connect()
    tls_lab.config["database.use_tls"] = None
    monkeypatch.setenv("DECEMBER_USE_TLS", "true")
    assert cipher(connect().connection).startswith("TLS_")
    assert tls_lab.config["database.use_tls"] is True


# ---- a server without TLS


def test_unencrypted_only_where_nothing_is_required(lab: Any) -> None:
    assert cipher(connect().connection) == ""
    assert cipher(second_connection()) == ""


@pytest.mark.parametrize("driver", ["new", "old"])
def test_required_tls_never_falls_back(driver: str, lab: Any, request: pytest.FixtureRequest) -> None:
    if driver == "old":
        request.getfixturevalue("old_driver")
    lab.config["database.use_tls"] = True
    with pytest.raises(ServerError) as raised:
        connect()
    address = f"127.0.0.1:{lab.config['database.port']}"
    assert str(raised.value) == f"No encrypted connection to the database server {address}{NO_TLS}"
    assert lab.config["database.use_tls"] is True
    assert not hasattr(lab.conn, "connection") or not lab.conn.connection.is_connected


def test_connection_that_was_opened_before_tls_was_required(lab: Any) -> None:
    lab.conn(use_tls=False)
    lab.config["database.use_tls"] = True
    with pytest.raises(ServerError, match=re.escape(NO_TLS)):
        connect()
    assert not lab.conn.connection.is_connected


@pytest.mark.parametrize("driver", ["new", "old"])
def test_reconnection_never_falls_back(
    driver: str, tls_lab: Any, server: EmbeddedServer, admin: Any, request: pytest.FixtureRequest
) -> None:
    if driver == "old":
        request.getfixturevalue("old_driver")
    tls_lab.config["database.use_tls"] = True
    first = connect().connection
    second = second_connection()
    admin.execute(f"CREATE OR REPLACE USER 'student'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
    for connection in (first, second):  # as if the server came back without TLS
        connection.conn_info["port"] = server.settings.port
        connection.close()
        with pytest.raises(pymysql.err.OperationalError, match="SSL is required"):
            connection.connect()
        assert not connection.is_connected
    with pytest.raises(pymysql.err.OperationalError, match="SSL is required"):
        second_connection()
    admin.execute("DROP USER 'student'@'127.0.0.1'")


def test_second_connection_without_a_demand_survives_the_loss_of_tls(
    tls_lab: Any, server: EmbeddedServer, admin: Any
) -> None:
    first = connect().connection
    assert first.conn_info["ssl_input"] is None
    admin.execute(f"CREATE OR REPLACE USER 'student'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
    first.conn_info["port"] = server.settings.port
    assert cipher(second_connection()) == ""
    admin.execute("DROP USER 'student'@'127.0.0.1'")


# ---- settings


@pytest.mark.parametrize(
    ("use_tls", "problem"),
    [
        (
            "true",
            'database.use_tls is \'true\'; it must be true, false, null or {"ca": "/path/to/ca.pem"}, without quotes '
            "around true and false.",
        ),
        (
            {"ca_file": "/ca.pem"},
            "database.use_tls has no option 'ca_file'. Allowed: ca, capath, cert, check_hostname, cipher, key, "
            "password, verify_mode.",
        ),
        (
            {"cipher": "AES"},
            'database.use_tls names no certificate authority (ca), so no certificate would be checked. Add "ca": '
            '"/path/to/ca.pem", or set database.use_tls to true for an encrypted connection to any server.',
        ),
        ({}, "database.use_tls names no certificate authority (ca), so no certificate would be checked. Add "),
        (
            {"ca": "/no/such.pem"},
            "the file /no/such.pem of database.use_tls (ca) does not exist. Correct the path, or ask the database's "
            "administrator for the file.",
        ),
        ({"ca": __file__}, f"the file {__file__} of database.use_tls (ca) holds no certificate in PEM form."),
    ],
)
def test_settings_that_would_be_ignored_are_errors(use_tls: Any, problem: str, tls_lab: Any) -> None:
    tls_lab.config["database.use_tls"] = use_tls
    with pytest.raises(SettingsError) as raised:
        connect()
    assert str(raised.value).startswith(problem)
    assert not hasattr(tls_lab.conn, "connection")


def test_client_certificate_without_its_key(tls_lab: Any, certificates: Path) -> None:
    files = {name: str(certificates / f"{file}") for name, file in (("ca", "ca.pem"), ("cert", "server.pem"))}
    tls_lab.config["database.use_tls"] = {**files, "key": str(certificates / "other.key")}
    with pytest.raises(
        SettingsError, match=r"server\.pem of database\.use_tls \(cert\) is not a certificate in PEM form"
    ):
        connect()
    tls_lab.config["database.use_tls"] = {**files, "key": str(certificates / "server.key")}
    assert cipher(connect().connection).startswith("TLS_")
