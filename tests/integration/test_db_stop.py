"""`december db stop` while workers are alive."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import pytest

from december_plugin.cli import main
from december_plugin.database.embedded import EmbeddedServer
from helpers.fake_sweep import FakeSweep

NO_PROCESS = 2**22 + 1  # above the largest process id


@pytest.fixture
def stops(empty_lab: Any, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Record that the server would be stopped; workers of tests in other schemas do not count."""
    connection = empty_lab.tables.schema.connection
    places = "SELECT table_schema FROM information_schema.tables WHERE table_name = 'pool_worker'"
    for (schema,) in connection.query(places).fetchall():
        connection.query(f"DELETE FROM `{schema}`.pool_worker")
    done: list[bool] = []
    monkeypatch.setattr(EmbeddedServer, "stop", lambda self: done.append(True) or True)
    return done


def live_worker(lab: Any, **values: Any) -> str:
    values = {"worker_host": platform.node(), "worker_pid": os.getpid(), "worker_gpu": "0", **values}
    return FakeSweep(lab).worker(**values)


def test_living_workers_are_named_and_the_server_stays(
    empty_lab: Any, stops: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    worker = live_worker(empty_lab)
    live_worker(empty_lab, worker_state="ended")
    live_worker(empty_lab, age=100.0, lease=60.0)
    live_worker(empty_lab, worker_pid=NO_PROCESS)  # killed a moment ago
    assert main(["db", "stop"]) == 1
    said = capsys.readouterr().err
    place = f"GPU 0, process {os.getpid()} on {platform.node()}"
    assert "december: error: 1 worker works with the embedded database:\n" in said
    assert f"\n  {worker[:8]} ({place}) in the schema {empty_lab.tables.schema.database}: working\n" in said
    assert (
        "End them first (`december pool stop`, or Ctrl-C where they run), or add --force: they wait until the database "
        "runs again, and lose nothing."
    ) in said
    assert stops == []
    assert main(["db", "stop", "--force"]) == 0
    assert "The embedded database is stopped; its data are kept." in capsys.readouterr().out
    assert stops == [True]


def test_on_a_terminal_it_asks(
    empty_lab: Any, stops: list[bool], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        live_worker(empty_lab, worker_gpu=str(number))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "")
    assert main(["db", "stop"]) == 1
    said = capsys.readouterr()
    assert "2 workers work with the embedded database:\n" in said.out
    assert "If it is stopped now, they wait until it runs again, and lose nothing." in said.out
    assert "The embedded database was not stopped." in said.err
    assert stops == []
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert main(["db", "stop"]) == 0
    assert stops == [True]


def test_without_living_workers_nothing_is_asked(empty_lab: Any, stops: list[bool]) -> None:
    live_worker(empty_lab, worker_pid=NO_PROCESS)
    assert main(["db", "stop"]) == 0
    assert stops == [True]
