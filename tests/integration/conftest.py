"""A real MariaDB for the tests: one embedded server for the session, on a private folder and a loopback port."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from chaoslab.laboratory import choose_port
from december_plugin.database import connection as connection_module
from december_plugin.database import lab_settings
from december_plugin.database.connection import Database, connect, second_connection
from december_plugin.database.embedded import EmbeddedServer
from december_plugin.importing.datajoint import ENVIRONMENT, quiet_datajoint
from december_plugin.pool.supervisor import worker_slot
from december_plugin.simulate import write_recording
from december_plugin.storage.settings import DEFAULT_STORE
from helpers import lab_tables, warm
from helpers.fake_sweep import FakeSweep
from helpers.pool_lab import PoolLab

LAB_PASSWORD = "correct horse"
SETTINGS = ("host", "port", "user", "password")


@pytest.fixture(scope="session", autouse=True)
def _warm_workers() -> Iterator[None]:
    """Let pools in this process fork their workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_slot, "subprocess", warm)
        yield


@pytest.fixture(scope="session")
def december_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Set the folder of the tests' server and store, for this process and those it starts; no lab settings hold."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("december_home")
        patch.setenv("DECEMBER_HOME", str(folder))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("user_home")))  # no ~/.datajoint_config.json
        for name in (*ENVIRONMENT, "DECEMBER_SCHEMA", "DECEMBER_NNFABRIK"):
            patch.delenv(name, raising=False)
        yield folder


@pytest.fixture(scope="session")
def server(december_home: Path) -> Iterator[EmbeddedServer]:
    """Start the server; it is stopped at the end, which is checked."""
    server = EmbeddedServer(december_home)
    choose_port(server)
    server.start()
    pid = server.status().pid
    assert pid is not None
    yield server
    server.stop()
    assert not os.path.exists(f"/proc/{pid}"), f"mariadbd {pid} was left running"


@pytest.fixture(scope="session")
def database(server: EmbeddedServer) -> Iterator[Database]:
    """Connect DataJoint in this process to the server, with the store ``minio`` in its folder."""
    dj = quiet_datajoint()
    before = {f"database.{name}": dj.config[f"database.{name}"] for name in SETTINGS}
    stores = dj.config.get("stores")
    dj.config.update({"database.host": "localhost", "database.port": 3306})
    dj.config.update({"database.user": None, "database.password": None, "stores": {}})
    dj.config["safemode"] = False  # no questions before a delete or drop
    database = connect()
    yield database
    database.connection.close()
    dj.config.update({**before, "stores": stores or {}, "safemode": True})


@pytest.fixture(scope="session")
def store_folder(database: Database) -> Path:
    """Return the folder in which the store ``minio`` keeps its files."""
    return Path(quiet_datajoint().config["stores"]["minio"]["location"])


@pytest.fixture(scope="session")
def new_schema_name(database: Database) -> Iterator[Callable[[], str]]:
    """Make names of fresh schemas, for fixtures of a wider scope than one test; all are dropped at the end."""
    names: list[str] = []

    def new() -> str:
        names.append(f"december_test_{uuid.uuid4().hex[:12]}")
        return names[-1]

    yield new
    for name in names:
        drop_schemas(database, name)


@pytest.fixture
def schema_name(database: Database) -> Iterator[str]:
    """Yield the name of a fresh schema; it, and all whose names begin with it, are dropped after the test."""
    name = f"december_test_{uuid.uuid4().hex[:12]}"
    yield name
    drop_schemas(database, name)


def drop_schemas(database: Database, beginning: str) -> None:
    """Drop all schemas whose names begin like this, and make DataJoint forget them."""
    connection = database.connection
    found = connection.query("SELECT schema_name FROM information_schema.schemata").fetchall()
    connection.query("SET FOREIGN_KEY_CHECKS = 0")
    for (name,) in found:
        if name.startswith(beginning):
            connection.query(f"DROP DATABASE `{name}`")
            connection.schemas.pop(name, None)
    connection.query("SET FOREIGN_KEY_CHECKS = 1")
    connection.dependencies.clear()


# ---- DataJoint without settings, or with a lab's


@pytest.fixture
def unconfigured(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Yield DataJoint as it is in a new process without any settings; everything is put back afterwards."""
    dj = quiet_datajoint()
    before = dict(dj.config.items())
    opened = getattr(dj.conn, "connection", None)
    monkeypatch.setattr(lab_settings, "_applied", None)
    monkeypatch.setattr(connection_module, "_connected_in", None)
    monkeypatch.chdir(tmp_path)
    defaults = {"host": "localhost", "port": 3306, "user": None, "password": None, "use_tls": None, "reconnect": True}
    dj.config.update({f"database.{name}": value for name, value in defaults.items()})
    dj.config["stores"] = {}
    if opened is not None:
        del dj.conn.connection
    yield dj
    if hasattr(dj.conn, "connection"):
        with contextlib.suppress(pymysql.err.Error):
            dj.conn.connection.close()
        del dj.conn.connection
    if opened is not None:
        dj.conn.connection = opened
    dj.config.update({"stores": {}, **before})


@pytest.fixture
def admin(server: EmbeddedServer) -> Iterator[Any]:
    """Yield a cursor of the server's administrator."""
    own = server.settings
    connection = pymysql.connect(host=own.host, port=own.port, user=own.user, password=own.password, autocommit=True)
    with connection.cursor() as cursor:
        yield cursor
    connection.close()


@pytest.fixture
def lab(unconfigured: Any, server: EmbeddedServer, admin: Any, tmp_path: Path) -> Iterator[Any]:
    """Yield DataJoint with the settings of a lab: a user without rights on the tests' server, and a store."""
    dj = unconfigured
    admin.execute(f"CREATE OR REPLACE USER 'student'@'127.0.0.1' IDENTIFIED BY '{LAB_PASSWORD}'")
    dj.config.update({"database.host": "127.0.0.1", "database.port": server.settings.port})
    dj.config.update({"database.user": "student", "database.password": LAB_PASSWORD})
    (tmp_path / "lab_store").mkdir()
    dj.config["stores"] = {DEFAULT_STORE: {"protocol": "file", "location": str(tmp_path / "lab_store")}}
    yield dj
    admin.execute("DROP USER 'student'@'127.0.0.1'")


@pytest.fixture(scope="session")
def december(december_home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the command as a user does who cannot answer questions."""

    def run(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return warm.run(
            [sys.executable, "-m", "december_plugin.cli", *words],
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def declared(new_schema_name: Callable[[], str]) -> lab_tables.Lab:
    """Declare the tables on a lab's nnfabrik module, once for a file of tests."""
    return lab_tables.open_lab(new_schema_name())


@pytest.fixture
def empty_lab(declared: lab_tables.Lab) -> lab_tables.Lab:
    """Return a lab without entries."""
    return lab_tables.emptied(declared)


# ---- sweeps: made up, or for real workers


@pytest.fixture
def sweep(empty_lab: lab_tables.Lab) -> FakeSweep:
    """Return a sweep of planned trainings in a lab without other entries."""
    return FakeSweep(empty_lab)


@pytest.fixture
def other(database: Database) -> Iterator[Any]:
    """Yield a second connection, as another worker has it."""
    connection = second_connection()
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the folders of two small recordings."""
    folder = tmp_path_factory.mktemp("recordings")
    sizes = {"n_neurons": 12, "n_train": 40, "n_validation": 10, "n_test": 4, "n_repeats": 3}
    return [str(write_recording(folder / f"static{i}-1-1-simulated", seed=i, **sizes)) for i in (1, 2)]


@pytest.fixture
def pool(
    database: Database,
    schema_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recordings: list[str],
) -> Iterator[PoolLab]:
    """Yield a fresh schema for pools, all of which have ended afterwards."""
    monkeypatch.setenv("DECEMBER_PRETRAINING", str(tmp_path / "pretraining"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    pool = PoolLab(schema_name, tmp_path, recordings, capsys)
    yield pool
    pool.end_all()
