"""Pools that cannot answer, as `december pool status` shows and `december pool stop` closes them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import uuid

import pytest

from december_plugin.cli import main
from december_plugin.pool import stopping
from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.slurm import array as slurm
from december_plugin.pool.slurm.array import ArrayStatus, SlurmError
from december_plugin.pool.stopping import choose_pools
from december_plugin.schemas.lab import open_lab
from december_plugin.text.formatting import format_age

pytestmark = pytest.mark.slow(3)


class Tables:
    """A schema with pools that nobody runs."""

    def __init__(self, schema: str, capsys: pytest.CaptureFixture[str]):
        self.schema, self.capsys = schema, capsys
        self.connection = open_lab(schema=schema, nnfabrik=schema, create=True).tables.schema.connection
        self.records = PoolRecords(self.connection, schema)

    def add_pool(self, *, kind: str = "local", slurm_job: str = "", **columns: object) -> str:
        pool_id = uuid.uuid4().hex
        self.records.add_pool(pool_id, kind=kind, n_workers=2, slurm_job=slurm_job)
        for name, value in columns.items():
            self.query(f"UPDATE `{{}}`.pool SET {name} = %s WHERE pool_id = %s", value, pool_id)
        return pool_id

    def add_worker(self, pool_id: str, *, age: int, state: str = "idle", **columns: object) -> None:
        row = {"worker_id": uuid.uuid4().hex, "pool_id": pool_id, "worker_host": "gpu9", "worker_pid": 7}
        row.update(worker_state=state, lease=60.0, **columns)
        self.query(
            f"INSERT INTO `{{}}`.pool_worker ({', '.join(row)}, heartbeat, worker_started) VALUES "
            f"({', '.join(['%s'] * len(row))}, UTC_TIMESTAMP(6) - INTERVAL %s SECOND, UTC_TIMESTAMP(6))",
            *row.values(),
            age,
        )

    def query(self, sql: str, *args: object) -> list[tuple]:
        return list(self.connection.query(sql.format(self.schema), args=args).fetchall())

    def run(self, *words: str) -> str:
        self.capsys.readouterr()
        assert main([*words, "--schema", self.schema]) == 0
        printed = self.capsys.readouterr()
        return printed.out + printed.err

    def ended(self) -> set[str]:
        return {pool_id for (pool_id,) in self.query("SELECT pool_id FROM `{}`.pool WHERE pool_ended IS NOT NULL")}


@pytest.fixture
def tables(database, schema_name, capsys, monkeypatch) -> Tables:
    monkeypatch.setattr(stopping, "PAUSE", 0.05)
    monkeypatch.setattr(stopping, "PAUSE_SLURM", 0.05)
    return Tables(schema_name, capsys)


def a_process_that_has_ended() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_pool_of_this_host_whose_supervisor_is_gone_is_closed_at_once(tables):
    pool_id = tables.add_pool(pool_pid=a_process_that_has_ended())
    tables.add_worker(pool_id, age=300, state="working")
    tables.add_worker(pool_id, age=3, state="ended", worker_detail="SIGTERM")
    (pool,) = tables.records.pools()
    assert pool.supervisor_is_gone
    assert [worker.activity for worker in pool.workers] == ["no sign of life for 5 min 0 s", "ended: SIGTERM"]
    assert "its supervisor is gone; `december pool stop` ends what is left" in tables.run("pool", "status")
    said = tables.run("pool", "stop")
    assert f"pool {pool_id[:8]} is closed: its supervisor has ended, and no worker is left" in said
    assert tables.ended() == {pool_id}
    assert tables.query("SELECT stop_requested FROM `{}`.pool") == [(1,)]


def test_a_pool_of_another_host_gets_time_to_answer(tables, monkeypatch):
    monkeypatch.setattr(stopping, "SILENCE", 0.3)
    pool_id = tables.add_pool(pool_host="gpu9", pool_pid=a_process_that_has_ended())
    (pool,) = tables.records.pools()
    assert not pool.supervisor_is_gone  # cannot be known from here
    said = tables.run("pool", "stop", "--now")
    assert f"pool {pool_id[:8]} is closed: it gives no sign of life" in said
    assert tables.query("SELECT stop_requested FROM `{}`.pool") == [(2,)]


def test_a_pool_that_runs_is_seen_to_run(tables):
    pool_id = tables.add_pool(pool_pid=os.getpid())
    job = {"job_table": "__trained_model", "job_hash": "a" * 32}
    tables.add_worker(pool_id, age=2, state="working", job_epoch=3, job_n_epochs=10, job_seconds_left=4000, **job)
    (pool,) = tables.records.pools()
    assert not pool.supervisor_is_gone
    (worker,) = pool.alive
    assert worker.activity == "working: trained_model aaaaaaaa, epoch 3 of 10, 1 h 6 min left"
    assert worker.name.endswith(" (processor, process 7 on gpu9)")
    assert f"process {os.getpid()} on {platform.node()}, of " in tables.run("pool", "status")
    assert choose_pools([pool], pool_id[:5].upper()) == [pool]


def test_an_array_that_slurm_has_ended(tables, monkeypatch):
    over, other, waits = (tables.add_pool(kind="slurm", slurm_job=job) for job in ("11", "12", "13"))
    tables.query("UPDATE `{}`.pool SET pool_user = 'somebody else' WHERE pool_id = %s", other)
    states = {over: ArrayStatus(), other: ArrayStatus(), waits: ArrayStatus(pending=1, reasons=("Priority",))}
    cancelled = []

    def cancel(slurm_job: str) -> bool:
        cancelled.append(slurm_job)
        states[{"11": over, "12": other, "13": waits}[slurm_job]] = ArrayStatus()
        return True

    monkeypatch.setattr(slurm, "slurm_status", lambda pools: {pool.pool_id: states[pool.pool_id] for pool in pools})
    monkeypatch.setattr(slurm, "cancel_pending", cancel)
    said = tables.run("pool", "status")
    assert "Slurm job 13" in said
    assert "Slurm: 1 pending (Priority)" in said
    assert tables.ended() == {over}  # of one's own jobs Slurm knows for certain
    stopped = tables.run("pool", "stop", "--pool", waits)
    assert f"pool {waits[:8]} has ended" in stopped
    assert cancelled == ["13"]
    assert tables.ended() == {over, waits}


def test_slurm_that_cannot_be_asked(tables, monkeypatch):
    def refuse(asked):
        raise SlurmError("squeue cannot be found here; ask on a machine from which Slurm jobs can be submitted.")

    monkeypatch.setattr(slurm, "slurm_status", refuse)
    monkeypatch.setattr(slurm, "cancel_pending", refuse)
    monkeypatch.setattr(stopping, "SILENCE", 0.3)
    pool_id = tables.add_pool(kind="slurm", slurm_job="11")
    assert "Slurm: squeue cannot be found here; ask on a machine" in tables.run("pool", "status")
    assert tables.ended() == set()
    said = tables.run("pool", "stop")
    assert said.count("Tasks that start later find the request, and end.") == 1
    assert f"pool {pool_id[:8]} is closed: it gives no sign of life" in said


def test_durations():
    assert [format_age(seconds) for seconds in (-1, 59.6, 3599, 3600, 90_000)] == [
        "0 s",
        "1 min 0 s",
        "59 min 59 s",
        "1 h 0 min",
        "1 d 1 h",
    ]
