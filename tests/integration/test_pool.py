"""`december pool` with real workers on a real server: killed, interrupted, stopped, poisoned."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from december_plugin.cli import main
from december_plugin.cli.commands import pool as pool_command
from december_plugin.database.connection import second_connection
from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.supervisor.database import SupervisorDatabase, failed_jobs
from helpers.driver import gpu, write_driver
from helpers.pool_lab import FATAL
from helpers.waiting import wait_until

pytestmark = pytest.mark.slow(10)

QUICKLY = ("--lease", "10", "--checkpoint-every", "1")


def test_a_sweep_while_its_workers_are_killed(pool):
    pool.register(seeds=(1, 2, 3), max_iter=200, patience=200)
    process = pool.start("--cpu", "2", "--idle-exit", "3", "--tensorboard", str(pool.folder / "runs"), *QUICKLY)
    for epochs in (2, 5):
        os.kill(pool.worker_in_training(epochs=epochs), signal.SIGKILL)
        wait_until(
            lambda: pool.query("SELECT 1 FROM `{}`.pool_worker WHERE worker_state = 'dead'"), "the report of a death"
        )
    assert pool.ended(process) == 0, pool.output
    assert pool.query("SELECT COUNT(*) FROM `{}`.__trained_model") == [(3,)]
    assert pool.reservations() == []
    states = dict(pool.query("SELECT job_state, COUNT(*) FROM `{}`.pool_job GROUP BY job_state"))
    assert list(states) == ["done"]
    deaths = pool.query("SELECT worker_detail FROM `{}`.pool_worker WHERE worker_state = 'dead'")
    assert 1 <= len(deaths) <= 2
    assert {detail.splitlines()[0] for (detail,) in deaths} == {"killed by signal 9 (SIGKILL)"}
    assert pool.output.count("killed by signal 9 (SIGKILL); the next one starts in 1 s") == 2
    assert "is free again; 1 of 3 attempts ended this way" in pool.output
    assert "[pool] ends: nothing to do for 3 s" in pool.output
    ((ended, stop, workers, kind),) = pool.query(
        "SELECT pool_ended IS NOT NULL, stop_requested, n_workers, pool_kind FROM `{}`.pool"
    )
    assert (ended, stop, workers, kind) == (1, 0, 2, "local")
    logs = [(pool.folder / "logs" / f"cpu-{number}.log").read_text() for number in (1, 2)]
    assert sum(len(re.findall("TrainedModel: trainer, seed .*: done", log)) for log in logs) == 3
    assert pool.worker_processes() == []
    runs = sorted((pool.folder / "runs").iterdir())
    assert [run.name.rpartition("-")[0] for run in runs] == [f"trainer-seed-{seed}" for seed in (1, 2, 3)]
    for run in runs:  # also of the trainings that were killed and continued
        steps = curve_steps(run)
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) > 5


def curve_steps(folder: Path) -> list[int]:
    """Return the epochs of the validation correlation in all event files of a folder, in their order."""
    events = (event for path in sorted(folder.iterdir()) for event in EventFileLoader(str(path)).Load())
    return [event.step for event in events for value in event.summary.value if value.tag == "correlation/validation"]


def test_ctrl_c_once_saves_and_frees_and_stop_now_kills(pool):
    pool.register_endless()
    process = pool.start("--cpu", "1", *QUICKLY)
    pool.worker_in_training(epochs=3)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert pool.ended(process) == 130, pool.output
    assert time.monotonic() - began < 30
    assert pool.reservations() == []
    assert pool.query("SELECT job_state, n_deaths, n_starts FROM `{}`.pool_job") == [("free", 0, 1)]
    assert pool.query("SELECT worker_state FROM `{}`.pool_worker") == [("ended",)]
    assert pool.query("SELECT pool_ended IS NOT NULL FROM `{}`.pool") == [(1,)]
    assert "[pool] ends: Ctrl-C" in pool.output
    assert "has ended, as requested" in pool.output
    assert "ended with code" not in pool.output
    assert pool.worker_processes() == []
    # The next one goes on from where it was.
    again = pool.start("--cpu", "1", *QUICKLY)
    wait_until(
        lambda: pool.query("SELECT 1 FROM `{}`.pool_job WHERE n_starts = 2 AND job_state = 'running'"), "a second start"
    )
    os.kill(pool.worker_in_training(epochs=4), signal.SIGSTOP)  # it cannot answer
    assert "has ended" in pool.run("pool", "stop", "--now")
    assert pool.ended(again) == 0, pool.output
    assert pool.query("SELECT job_state, n_deaths FROM `{}`.pool_job") == [("free", 0)]


def test_ctrl_c_twice_kills_and_costs_no_attempt(pool):
    pool.register_endless()
    process = pool.start("--cpu", "1", *QUICKLY)
    os.kill(pool.worker_in_training(), signal.SIGSTOP)  # it cannot answer
    process.send_signal(signal.SIGINT)
    wait_until(lambda: "once more kills them" in pool.output, "an answer to the first Ctrl-C")
    time.sleep(1)  # it goes on waiting for its worker
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert pool.ended(process) == 130, pool.output
    assert "[pool] Ctrl-C again: killing cpu 1 (process " in pool.output
    assert pool.reservations() == []
    assert pool.query("SELECT job_state, n_deaths, worker_id FROM `{}`.pool_job") == [("free", 0, "")]
    assert pool.query("SELECT worker_state FROM `{}`.pool_worker") == [("dead",)]
    assert pool.worker_processes() == []


def test_status_and_stop_from_elsewhere(pool):
    pool.register_endless()
    process = pool.start("--cpu", "1", *QUICKLY)
    pool.worker_in_training()
    status = pool.run("pool", "status")
    assert f"(process {process.pid} on " not in status
    assert f"process {process.pid} on " in status
    assert "1 of 1 workers alive" in status
    assert "working: trained_model " in status
    (row,) = json.loads(pool.run("pool", "status", "--json"))
    assert [worker["alive"] for worker in row["workers"]] == [True]
    beginning = row["pool_id"][:6]
    wrong = pool.run("pool", "stop", "--pool", "x", code=1)
    assert f"no pool whose id begins with 'x' is running. Running: {row['pool_id'][:8]}." in wrong
    stopped = pool.run("pool", "stop", "--pool", beginning)
    assert f"pool {row['pool_id'][:8]} has ended" in stopped
    assert pool.ended(process) == 0, pool.output
    assert "[pool] ends: `december pool stop`" in pool.output
    assert pool.query("SELECT job_state, n_deaths FROM `{}`.pool_job") == [("free", 0)]
    assert "No pool is running in the schema" in pool.run("pool", "status")
    assert "No pool is running in the schema" in pool.run("pool", "stop")


def test_a_pool_whose_supervisor_was_killed(pool):
    pool.register_endless()
    process = pool.start("--cpu", "1", *QUICKLY)
    pool.worker_in_training()
    process.kill()
    process.wait()
    wait_until(lambda: not pool.worker_processes(), "the end of the worker", seconds=30)
    assert pool.query("SELECT job_state, n_deaths FROM `{}`.pool_job") == [("free", 0)]
    assert "its supervisor is gone" in pool.run("pool", "status")
    stopped = pool.run("pool", "stop")
    assert "is closed: its supervisor has ended, and no worker is left" in stopped
    assert pool.query("SELECT pool_ended IS NOT NULL FROM `{}`.pool") == [(1,)]


def test_a_poisoned_job_is_given_up_and_the_others_complete(pool, monkeypatch):
    module = pool.folder / "fatal_lab.py"
    module.write_text(FATAL)
    monkeypatch.syspath_prepend(str(pool.folder))
    monkeypatch.setenv("PYTHONPATH", str(pool.folder))
    pool.register(seeds=(1, 2, 3), trainer="fatal_lab.fatal_trainer", max_iter=2, fatal_seed=2)
    options = ["--cpu", "2", "--idle-exit", "3", "--max-attempts", "2", "--allow-modules", "fatal_lab", *QUICKLY]
    assert pool.ended(pool.start(*options)) == 3, pool.output
    assert pool.query("SELECT seed FROM `{}`.__trained_model ORDER BY seed") == [(1,), (3,)]
    assert pool.query("SELECT n_deaths, n_starts FROM `{}`.pool_job WHERE job_state = 'poisoned'") == [(2, 2)]
    ((words,),) = pool.query("SELECT last_words FROM `{}`.pool_job WHERE job_state = 'poisoned'")
    assert words.startswith("ended with code 9\n")
    assert words.endswith("out of luck")
    assert (
        "is poisoned: 2 workers died with it. It will not be started again; `december status` shows it" in pool.output
    )
    assert "1 job poisoned; `december status` says why" in pool.output
    assert [status for _, _, status in pool.reservations()] == ["error"]


@pytest.fixture
def driver(pool, monkeypatch):
    """Return a function that lists the GPUs of a driver for this process."""

    def make(gpus: Sequence[Any] = (), **error: str) -> None:
        (pool.folder / "driver").mkdir(exist_ok=True)
        write_driver(pool.folder / "driver", gpus, **error)
        monkeypatch.syspath_prepend(pool.folder / "driver")
        monkeypatch.delitem(sys.modules, "pynvml", raising=False)

    return make


def test_a_dry_run_shows_the_gpus_and_how_they_are_shared(pool, driver, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(pool.folder / "driver"))  # without MPS
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(pool.folder))
    pool.register(seeds=(1,), max_iter=2)
    part = {1: ("3g.20gb", "MIG-dddddddd-0000-0000-0000-000000000000")}
    driver([gpu("NVIDIA L4", memory=24 << 30), gpu("NVIDIA A100", parts=part, memory=40 << 30)])
    printed = pool.run("pool", "--dry-run", "--workers-per-gpu", "2")
    assert (
        "4 workers; each worker may use its share of the memory of its GPU, 11.5 GiB, 9.5 GiB; the workers of a GPU "
        "take turns, because nvidia-cuda-mps-control, a part of NVIDIA's driver, is not on the path\n"
    ) in printed
    rows = [line.split("  log ")[0].strip() for line in printed.splitlines() if line.startswith("  gpu")]
    assert rows[1:3] == [
        "gpu 0b    NVIDIA L4, 24 GiB                CUDA_VISIBLE_DEVICES=GPU-00000000-0000-0000-0000-000000000000",
        "gpu 1.1   NVIDIA A100 MIG 3g.20gb, 20 GiB  CUDA_VISIBLE_DEVICES=MIG-dddddddd-0000-0000-0000-000000000000",
    ]
    for words, message in (
        (("--mps", "on"), "--mps on is for GPUs that several workers share. Add --workers-per-gpu 2 (or more)"),
        (("--mps", "on", "--workers-per-gpu", "2"), "--mps is on, but nvidia-cuda-mps-control, a part of NVIDIA's"),
    ):
        assert message in pool.run("pool", *words, "--dry-run", code=1)
        assert message in pool.run("pool", *words, code=1)
    assert pool.query("SELECT COUNT(*) FROM `{}`.pool") == [(0,)]


def test_a_dry_run_starts_and_writes_nothing(pool, driver, monkeypatch):
    driver(error="NVMLError_LibraryNotFound")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    pool.register(seeds=(1, 2), max_iter=2)
    printed = pool.run("pool", "--dry-run", "--gpus", "1", "--cpu", "1", "--skip", "LabelAgreement")
    assert "2 trainings planned" in printed
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line[:1].isupper()}
    assert rows["TrainedModel"] == ["2", "0", "0", "0"]
    assert "left out: LabelAgreement" in printed
    lines = [line.split() for line in printed.splitlines() if line.startswith("  ")]
    assert [line[:3] for line in lines] == [
        ["gpu", "5", "CUDA_VISIBLE_DEVICES=5"],
        ["cpu", "1", "CUDA_VISIBLE_DEVICES="],
    ]
    assert lines[0][-1].endswith("gpu-5.log")
    assert not Path(lines[0][-1]).parent.exists()
    assert "Nothing was started." in printed
    assert pool.query("SELECT COUNT(*) FROM `{}`.pool") == [(0,)]
    for words, message in (
        (("--gpus", "2"), "there is no GPU 2 here. --gpus counts from 0 within CUDA_VISIBLE_DEVICES=3,5"),
        (("--allow-modules", "1lab"), "1lab"),
        (("--only", "TrainedModle"), "there is no table 'TrainedModle'. Did you mean 'TrainedModel'?"),
    ):
        assert message in pool.run("pool", *words, "--dry-run", code=1)
        assert message in pool.run("pool", *words, code=1)
    assert pool.query("SELECT COUNT(*) FROM `{}`.pool") == [(0,)]


def test_a_password_that_was_typed_reaches_the_workers(unconfigured, monkeypatch):
    """Nobody can type it again there: they get it through their environment, as with ``DJ_PASS``."""
    args = argparse.Namespace(schema="lab", nnfabrik=None)

    def answer(is_embedded: bool):
        def open_lab_of(_: argparse.Namespace, *, create: bool) -> SimpleNamespace:
            unconfigured.config.update({"database.user": "ada", "database.password": "typed"})
            return SimpleNamespace(is_embedded=is_embedded)

        return open_lab_of

    for is_embedded, expected in ((False, ("ada", "typed")), (True, (None, None))):
        unconfigured.config.update({"database.user": None, "database.password": None})
        monkeypatch.setattr(pool_command, "open_lab_of", answer(is_embedded))
        environment, _ = pool_command.open_for_workers(args)
        assert (environment.get("DJ_USER"), environment.get("DJ_PASS")) == expected


def test_a_log_folder_that_cannot_be_made(pool):
    pool.register(seeds=(1,), max_iter=2)
    (pool.folder / "file").write_text("")
    said = pool.run("pool", "--cpu", "1", "--log-folder", str(pool.folder / "file" / "logs"), code=1)
    assert f"the folder {pool.folder}/file/logs for the workers' logs cannot be created (Not a directory)." in said
    assert "Name another one with --log-folder." in said
    assert pool.query("SELECT COUNT(*) FROM `{}`.pool") == [(0,)]


def test_options_of_another_action_are_refused(capsys):
    for words, message in (
        (["pool", "--now"], "--now is for `december pool stop`; leave it out of 'start'."),
        (["pool", "stop", "--dry-run"], "--dry-run is for `december pool start`; leave it out of 'stop'."),
        (["pool", "--partition", "gpu"], "--partition is an option for Slurm. Add --slurm"),
    ):
        assert main(words) == 1
        assert message in capsys.readouterr().err
    for words, message in (
        (["pool", "--gpus", "0,x"], "'x' is neither the number of a GPU nor a UUID. Give numbers such as 0,2, UUIDs"),
        (["pool", "--gpus", ","], "the list is empty. Give numbers such as 0,2, or all"),
        (["pool", "--cpu", "-1"], "'-1' is not a whole number of at least 0"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_what_the_server_could_not_be_told_is_delivered_when_it_answers(pool):
    """The supervisor's thread, with a server that is away for the first three attempts."""
    pool.register(seeds=(1,), max_iter=2)
    connection = pool.lab.tables.schema.connection
    PoolRecords(connection, pool.schema).add_pool("a" * 32, kind="local", n_workers=1)
    pool.query(
        "INSERT INTO `{}`.pool_job (job_table, job_hash, job_schema, worker_id, job_state, n_starts, begun) "
        "VALUES ('__trained_model', %s, %s, %s, 'running', 1, UTC_TIMESTAMP(6))",
        *("b" * 32, pool.schema, "c" * 32),
    )
    attempts, told = [], []

    def connect():
        attempts.append(1)
        if len(attempts) <= 3:
            raise ConnectionRefusedError(111, "Connection refused")
        return second_connection(timeout=10)

    database = SupervisorDatabase(pool.schema, "a" * 32, connect=connect, max_attempts=1, log=told.append)
    database.start()
    database.mark_dead("c" * 32, "killed by signal 9 (SIGKILL)")
    assert database.idle_for() == 0
    assert not database.has_answered
    wait_until(lambda: database.has_answered, "an answer", seconds=60)
    assert database.finish(timeout=30)
    assert told == [
        "the database server does not answer (Connection refused); the workers continue, and wait for it",
        f"the job {'b' * 8} of __trained_model is poisoned: 1 workers died with it. It will not be started again; "
        "`december status` shows it",
        "the database server answers again",
    ]
    assert pool.query("SELECT job_state, n_deaths, last_words FROM `{}`.pool_job") == [
        ("poisoned", 1, "killed by signal 9 (SIGKILL)")
    ]
    assert pool.query("SELECT pool_ended IS NOT NULL FROM `{}`.pool") == [(1,)]
    # Nothing failed that is still in DataJoint's table.
    assert database.failures == failed_jobs(connection, pool.schema) == {"failed": 0, "poisoned": 0}
