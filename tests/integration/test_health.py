"""``december health``: heartbeats against leases, on the database's clock."""

from __future__ import annotations

import os
import platform
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from december_plugin.cli import main
from december_plugin.database import lab_settings
from december_plugin.database.embedded import EmbeddedServer

HERE = platform.node()


@pytest.fixture
def lab(empty_lab: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a lab without workers, for whose connection the database's clock stands still."""
    monkeypatch.setenv("DECEMBER_SCHEMA", empty_lab.tables.TrainingPlan.database)
    empty_lab.tables.PoolWorker().delete_quick()
    connection = empty_lab.tables.PoolWorker.connection
    connection.query("SET SESSION timestamp = UNIX_TIMESTAMP(NOW(6))")
    yield empty_lab
    connection.query("SET SESSION timestamp = DEFAULT")


@pytest.fixture
def add_worker(lab: Any) -> Callable[..., str]:
    """Return a function that writes a worker's row, whose last heartbeat was ``age`` seconds ago."""

    def add(
        *, age: float, state: str = "working", host: str = HERE, pid: int | None = None, gpu: str = "0", **row: str
    ):
        worker_id, pool_id = row.get("worker_id", uuid.uuid4().hex), row.get("pool_id", "")
        lab.tables.PoolWorker.connection.query(
            f"INSERT INTO `{lab.tables.PoolWorker.database}`.pool_worker "
            "(worker_id, pool_id, worker_host, worker_pid, worker_gpu, worker_state, lease, heartbeat, worker_started) "
            "VALUES (%s, %s, %s, %s, %s, %s, 60, UTC_TIMESTAMP(6) - INTERVAL %s SECOND, UTC_TIMESTAMP(6))",
            args=(worker_id, pool_id, host, os.getpid() if pid is None else pid, gpu, state, age),
        )
        return worker_id

    return add


@pytest.fixture
def gone_pid() -> int:
    """Return the id of a process that has just ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.slow(4)
def test_fresh_heartbeats_are_healthy(add_worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = add_worker(age=3), add_worker(age=59, state="waiting", gpu="")
    assert main(["health"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"worker {second[:8]} (no GPU, process {os.getpid()}, waiting): alive, last heartbeat 59 s ago, lease 60 s",
        f"worker {first[:8]} (GPU 0, process {os.getpid()}, working): alive, last heartbeat 3 s ago, lease 60 s",
    ]


def test_one_overdue_worker_is_unhealthy(add_worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    add_worker(age=3)
    overdue = add_worker(age=75, gpu="1")
    assert main(["health"]) == 1
    printed = capsys.readouterr().out
    assert f"worker {overdue[:8]} (GPU 1, process {os.getpid()}, working): overdue, last heartbeat 75 s ago" in printed
    assert main(["health", "--worker", overdue]) == 1


def test_successor_of_a_worker_that_is_gone_counts(add_worker: Any, gone_pid: int, capsys: Any) -> None:
    add_worker(age=500, pid=gone_pid)
    assert main(["health"]) == 1
    printed = capsys.readouterr()
    assert "working): gone, last heartbeat 500 s ago" in printed.out
    assert printed.err == f"december: no worker of host {HERE} is alive\n"
    add_worker(age=1)
    assert main(["health"]) == 0


def test_number_of_a_process_that_is_used_again(add_worker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """As in a restarted container: same host, same process ids, other workers."""
    mine, pool_id = uuid.uuid4().hex, uuid.uuid4().hex
    environment = {**os.environ, "DECEMBER_WORKER_ID": mine}
    with subprocess.Popen(["sleep", "60"], env=environment) as process:
        try:
            add_worker(age=500, pid=process.pid, pool_id=pool_id)  # an earlier worker of this number
            add_worker(age=1, pid=process.pid, pool_id=pool_id, worker_id=uuid.uuid4().hex)
            assert main(["health"]) == 0
            assert ": gone, last heartbeat 500 s ago" in capsys.readouterr().out
            add_worker(age=500, pid=process.pid, pool_id=pool_id, worker_id=mine)  # it hangs
            assert main(["health"]) == 1
            assert f"worker {mine[:8]} (GPU 0, process {process.pid}, working): overdue" in capsys.readouterr().out
        finally:
            process.kill()


@pytest.mark.parametrize("state", ["ended", "dead"])
def test_ended_workers_do_not_count(add_worker: Any, state: str, capsys: pytest.CaptureFixture[str]) -> None:
    worker = add_worker(age=1, state=state)
    assert main(["health"]) == 1
    assert capsys.readouterr() == ("", f"december: no worker of host {HERE} is alive\n")
    assert main(["health", "--worker", worker]) == 1
    assert capsys.readouterr().err == f"december: no worker {worker} is alive\n"


def test_hosts_are_told_apart(add_worker: Any) -> None:
    add_worker(age=1, host="another")
    assert main(["health"]) == 1
    assert main(["health", "--host", "another"]) == 0
    add_worker(age=500, host="another", pid=2**22 - 1)  # a process of another host: whether it exists is not known here
    assert main(["health", "--host", "another"]) == 1


def test_server_that_is_away(lab: Any, unconfigured: Any, tmp_path: Path, capsys: Any) -> None:
    unconfigured.config.update({"database.host": "127.0.0.1", "database.port": 9, "database.user": "december"})
    unconfigured.config.update({"database.password": "x", "stores": {"minio": _store(tmp_path)}})
    assert main(["health"]) == 1
    assert "The database server 127.0.0.1:9 cannot be reached" in capsys.readouterr().err
    assert main(["health", "--outage-ok"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("december: cannot tell, which counts as healthy (--outage-ok): The database server")
    assert printed.out == ""


def test_no_database_is_started_for_a_check(
    unconfigured: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DECEMBER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(lab_settings, "_applied", None)
    assert main(["health"]) == 1
    assert capsys.readouterr().err == (
        "december: error: The embedded database is not running, so the state is unknown. If a pool is running, it "
        "waits for the database: `december db start`. Otherwise `december pool` starts both.\n"
    )
    assert not (tmp_path / "home").exists()


def test_schema_without_tables(
    database: Any, schema_name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DECEMBER_SCHEMA", schema_name)
    assert main(["health"]) == 1
    assert f"there are no december tables in the schema {schema_name!r} yet." in capsys.readouterr().err


def _store(folder: Path) -> dict[str, str]:
    return {"protocol": "file", "location": str(folder)}


def test_reader_without_a_store_may_ask(
    add_worker: Any, lab: Any, unconfigured: Any, server: EmbeddedServer, admin: Any
) -> None:
    add_worker(age=1)
    admin.execute("CREATE OR REPLACE USER 'onlooker'@'127.0.0.1' IDENTIFIED BY 'of the onlooker'")
    try:
        admin.execute(f"GRANT SELECT ON `{lab.tables.PoolWorker.database}`.* TO 'onlooker'@'127.0.0.1'")
        unconfigured.config.update({"database.host": "127.0.0.1", "database.port": server.settings.port})
        unconfigured.config.update({"database.user": "onlooker", "database.password": "of the onlooker"})
        unconfigured.config["stores"] = {"minio": _store(Path("/nowhere"))}
        assert main(["health"]) == 0
    finally:
        admin.execute("DROP USER 'onlooker'@'127.0.0.1'")
