"""`december status` on a real server: every state of a job, what blocks, accounts that may only read, outages."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from datajoint.errors import LostConnectionError

from december_plugin.cli import main
from december_plugin.pool.status import overview as overview_module
from december_plugin.pool.status.bottlenecks import find_bottlenecks
from december_plugin.pool.status.overview import read_overview
from helpers import warm
from helpers.fake_sweep import FakeSweep


@pytest.fixture
def status(sweep: FakeSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs `december status` on the sweep and returns what it prints."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main(["status", *words, "--schema", sweep.schema]) == code
        return capsys.readouterr().out

    return run


def blocks(sweep: FakeSweep) -> dict[str, Any]:
    return {block.kind: block for block in find_bottlenecks(read_overview(sweep.tables))}


# ---- what is counted


def test_every_state_is_counted(sweep: FakeSweep, status: Any) -> None:
    worker = sweep.worker(worker_gpu="1")
    sweep.run(0, worker)
    sweep.progress(worker, epoch=12, n_epochs=200, score=0.4123, left=4000)
    sweep.fail(1, "ValueError: seed 2 is not to my liking")
    sweep.poison(2)
    sweep.tables.schema.jobs.ignore(sweep.table.table_name, sweep.keys[3])
    content = json.loads(status("--json", code=3))
    trained = content["tables"][0]
    assert (trained["table"], trained["done"], trained["waiting"]) == ("TrainedModel", 0, 2)
    ids = {state: [job["hash"] for job in trained[state]] for state in ("running", "failed", "poisoned", "ignored")}
    assert ids == {
        "running": [sweep.hash(0)],
        "failed": [sweep.hash(1)],
        "poisoned": [sweep.hash(2)],
        "ignored": [sweep.hash(3)],
    }
    (running,) = trained["running"]
    assert running["key"] == sweep.keys[0]
    assert running["description"].endswith("seed 1")
    assert (running["worker"], running["gpu"], running["alive"]) == (worker, "1", True)
    assert (running["epoch"], running["n_epochs"], running["score"]) == (12, 200, 0.4123)
    assert running["seconds_left"] == 4000
    assert 1 <= running["heartbeat_age"] < 30
    assert (running["n_starts"], running["n_deaths"], running["lease"]) == (1, 0, 60)
    assert trained["failed"][0]["reason"] == "ValueError: seed 2 is not to my liking"
    assert content["planned"] == 6
    assert content["time"].endswith("Z")


def test_numbers_are_those_of_the_other_functions(empty_lab: Any) -> None:
    empty_lab.train("december", seeds=[1, 2, 3])
    empty_lab.plan("december", seeds=[4, 5])
    tables = empty_lab.tables
    tables.TrainingSummary.populate(max_calls=1)
    tables.ClusterAssignment.populate()
    tables.SeedAgreement.populate(max_calls=1)
    progress = {table.__name__: table.progress(display=False) for table in tables.computed}
    expected = {name: (total - remaining, remaining) for name, (remaining, total) in progress.items()}
    found = {counts.table: (counts.done, counts.waiting) for counts in read_overview(tables).tables}
    assert found == expected
    assert found["SeedAgreement"] == (1, 2)
    assert found["TrainingSummary"] == (1, 2)


def test_a_failure_that_is_done_or_no_longer_planned_does_not_count(empty_lab: Any) -> None:
    sweep = FakeSweep(empty_lab, seeds=3)
    sweep.fail(0, "ValueError: x")
    sweep.fail(1, "ValueError: x")
    sweep.table.populate(sweep.keys[0])
    (sweep.tables.TrainingPlan & sweep.keys[1]).delete_quick()
    counts = read_overview(sweep.tables).tables[0]
    assert (counts.done, counts.failed, counts.waiting) == (1, 0, 1)


def test_many_failures_cost_no_more_queries(empty_lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = FakeSweep(empty_lab, seeds=30)
    for number in range(20):
        sweep.fail(number, f"ValueError: {number} is odd")
    queries: list[str] = []
    query = sweep.connection.query
    monkeypatch.setattr(
        sweep.connection, "query", lambda *args, **more: queries.append(args[0]) or query(*args, **more)
    )
    read_overview(sweep.tables)  # DataJoint asks for the headings of tables once
    queries.clear()
    first = read_overview(sweep.tables)
    n_queries = len(queries)
    monkeypatch.setattr(overview_module, "MANY", 5)  # as with more than a hundred
    second = read_overview(sweep.tables)
    assert len(queries) - n_queries <= n_queries <= 10 + 3 * len(sweep.tables.computed)
    assert not [query for query in queries if query.startswith(("INSERT", "UPDATE", "CREATE", "DELETE"))]
    assert first.jobs == [
        job.__class__(**{**vars(job), "age": before.age, "elapsed": before.elapsed})
        for job, before in zip(second.jobs, first.jobs, strict=True)
    ]
    assert first.tables == second.tables
    (reason,) = second.reasons
    assert (reason.reason, reason.count) == ("ValueError: # is odd", 20)


def test_jobs_of_another_layout_in_the_queue(sweep: FakeSweep, status: Any) -> None:
    jobs = sweep.tables.schema.jobs
    row = {"table_name": sweep.table.table_name, "status": "error", "user": "u", "host": "h", "pid": 1}
    jobs.insert([{**row, "key_hash": "0" * 32, "key": {}}, {**row, "key_hash": "1" * 32, "key": None}])
    assert json.loads(status("--json"))["tables"][0]["failed"] == []


# ---- why, by reason


def test_failures_by_reason(sweep: FakeSweep, status: Any) -> None:
    for number, size in enumerate((20, 512, 1024)):
        sweep.fail(number, f"OutOfMemoryError: CUDA out of memory. Tried to allocate {size}.00 MiB\nmore")
    sweep.fail(3, "TrainingDivergedError: the loss became NaN in epoch 7")
    sweep.poison(4)
    text = status(code=3)
    assert "failed (5, 3 reasons)" in text
    assert "      3  TrainedModel\n         OutOfMemoryError: CUDA out of memory. Tried to allocate " in text
    assert "      1  TrainedModel, poisoned\n         poisoned: 1 workers died while they computed it" in text
    assert f"december jobs show {sweep.hash(3)[:8]}" in text
    failures = json.loads(status("--json", code=3))["failures"]
    assert [(row["count"], row["poisoned"]) for row in failures] == [(3, False), (1, False), (1, True)]
    assert failures[0]["reason"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate # MiB"


def test_ignored_jobs_are_no_failures(sweep: FakeSweep, status: Any) -> None:
    sweep.tables.schema.jobs.ignore(sweep.table.table_name, sweep.keys[3])
    assert "failed (" not in status(code=0)


def test_secrets_are_not_shown(sweep: FakeSweep, status: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_PASSWORD", "hunter2-of-the-lab")
    sweep.fail(0, "OperationalError: cannot log in with hunter2-of-the-lab")
    sweep.worker(worker_state="waiting", worker_detail="postgresql://anna:geheim99@db/x is away")
    for text in (status(code=3), status("--json", code=3)):
        assert "hunter2" not in text
        assert "geheim99" not in text
        assert "OperationalError: cannot log in with ***" in text
        assert "anna:***@db" in text


# ---- workers, pools, throughput


def test_workers_by_host_and_gpu(sweep: FakeSweep, status: Any) -> None:
    sweep.worker(worker_host="gpu3", worker_gpu="1", n_done=7)
    sweep.worker(worker_host="gpu3", worker_gpu="0", worker_state="idle")
    late = sweep.worker(worker_host="gpu2", worker_gpu="0", age=300)
    sweep.worker(worker_host="gpu4", worker_state="dead", worker_detail="ended by the signal SIGKILL", age=500)
    sweep.worker(worker_host="gpu5", worker_state="ended", age=500)
    text = status()
    assert "workers (2 alive, 1 overdue, 2 ended in the last day, 1 of them dead)" in text
    lines = [line.split() for line in text[text.index("workers (") :].splitlines()[2:6]]
    assert [line[:2] for line in lines] == [["gpu2", "0"], ["gpu3", "0"], ["gpu3", "1"], ["gpu4", "-"]]
    assert [line[3] for line in lines] == ["overdue", "idle", "working", "dead"]
    assert "ended by the signal SIGKILL" in " ".join(lines[3])
    content = json.loads(status("--json"))
    by_id = {worker["worker_id"]: worker for worker in content["workers"]}
    assert (by_id[late]["alive"], by_id[late]["overdue"], by_id[late]["lease"]) == (False, True, 60)
    assert 300 <= by_id[late]["heartbeat_age"] < 330


def test_ages_are_those_of_the_database_in_any_time_zone(sweep: FakeSweep) -> None:
    sweep.worker(age=20)
    sweep.reserve(0, age=900)
    sweep.connection.query("SET time_zone = '+05:00'")
    try:
        overview = read_overview(sweep.tables)
    finally:
        sweep.connection.query("SET time_zone = DEFAULT")
    assert 20 <= overview.workers[0].heartbeat_age < 50
    assert 900 <= overview.jobs[0].age < 930


def test_throughput_and_the_time_left(sweep: FakeSweep, status: Any) -> None:
    for number, age in enumerate((10, 20, 7200)):
        sweep.done(number, seconds=600, age=age)
    sweep.worker(), sweep.worker()
    throughput = json.loads(status("--json"))["throughput"]
    assert throughput["last_hour"] == {"TrainedModel": 2}
    assert throughput["last_day"] == {"TrainedModel": 3}
    assert throughput["seconds_per_job"]["TrainedModel"] == pytest.approx(600, abs=1)
    # The three "done" ones have no rows in this test, so six wait for two workers.
    assert throughput["seconds_left"] == pytest.approx(6 * 600 / 2, abs=5)
    text = status()
    assert "2 jobs done in the last hour, 3 in the last day" in text
    assert "about 30 min left for what can start now, until " in text


def test_no_estimate_without_a_finished_training(sweep: FakeSweep, status: Any) -> None:
    worker = sweep.worker()
    throughput = read_overview(sweep.tables).throughput
    assert (throughput.seconds_left, throughput.not_estimated) == (None, {"TrainedModel": 6})
    assert "time left: not estimated yet (6 trainings)" in status()
    sweep.run(0, worker)
    sweep.progress(worker, epoch=1, n_epochs=10, score=0.1, left=900)
    # One in work gives the duration: five that wait, and what is left of it.
    assert read_overview(sweep.tables).throughput.seconds_left == pytest.approx(6 * 900, rel=0.1)


def test_jobs_of_a_kind_that_has_not_run_yet_are_not_counted_as_nothing(sweep: FakeSweep, status: Any) -> None:
    sweep.done(0, seconds=600, age=3 * 86400)  # what ran before yesterday is known, too
    sweep.tables.TrainedModel.populate(sweep.keys[:2])
    sweep.worker()
    throughput = read_overview(sweep.tables).throughput
    assert throughput.not_estimated == {"TrainingSummary": 2, "TestPerformance": 2}
    assert throughput.seconds_left == pytest.approx(4 * 600, abs=5)
    assert (throughput.last_day, throughput.last_hour) == ({}, {})
    assert (
        "about 40 min left for what can start now and has run before, with 1 worker; not estimated yet: "
        "2 training summaries, 2 tests of models\n"
    ) in status()


def test_pools(sweep: FakeSweep, status: Any) -> None:
    pool = sweep.pool(pool_user="anna", n_workers=4)
    sweep.worker(pool_id=pool)
    assert f"{pool[:8]}  local  gpu3  anna   1 of 4" in status()
    (row,) = json.loads(status("--json"))["pools"]
    assert (row["pool_id"], row["kind"], row["stop_requested"], row["ended_age"]) == (pool, "local", False, None)


# ---- what blocks


def test_nobody_works(sweep: FakeSweep, status: Any) -> None:
    assert list(blocks(sweep)) == ["no_worker"]
    text = " ".join(status().split())
    assert "6 jobs could be begun, but no worker is alive. Start some: `december pool`" in text
    sweep.worker(age=100)
    assert "no_worker" in blocks(sweep)
    sweep.worker()
    assert blocks(sweep) == {}


def test_workers_wait_for_the_store(sweep: FakeSweep) -> None:
    for _ in range(2):
        sweep.worker(worker_state="waiting", worker_detail="the bucket is away.")
    assert blocks(sweep)["workers_wait"].message == "2 workers wait (gpu3): the bucket is away."


def test_a_dead_worker_holds_a_job(sweep: FakeSweep) -> None:
    sweep.run(0, sweep.worker(age=600))
    block = blocks(sweep)["workers_overdue"]
    assert block.message == "1 job held by workers without a heartbeat (gpu3), for up to 10 min: dead, or cut off."
    assert "so does `december jobs retry --stale`" in block.remedy
    sweep.worker()
    assert blocks(sweep)["workers_overdue"].remedy == "Live workers free these jobs within seconds."


def test_reservations_of_nobody(sweep: FakeSweep) -> None:
    sweep.worker()
    sweep.reserve(0, age=10)
    assert blocks(sweep) == {}
    sweep.reserve(1, age=7200)
    block = blocks(sweep)["reservations_without_worker"]
    assert block.count == 1
    assert block.message.startswith("1 job reserved by a plain populate(), the first 2.0 h ago")
    assert "`december jobs retry --stale TIME`" in block.remedy


def test_only_failures_are_left(empty_lab: Any) -> None:
    sweep = FakeSweep(empty_lab, seeds=2)
    sweep.worker(worker_state="idle")
    sweep.fail(0, "ValueError: x")
    assert list(blocks(sweep)) == ["workers_idle"]
    sweep.poison(1)
    assert list(blocks(sweep)) == ["all_depend_on_failed"]
    assert "2 jobs" in blocks(sweep)["all_depend_on_failed"].message


def test_a_pool_is_stopping(sweep: FakeSweep) -> None:
    pool = sweep.pool(stop_requested=1)
    sweep.worker(pool_id=pool)
    assert blocks(sweep)["stop_requested"].message.startswith(f"1 pool asked to stop: {pool[:8]}. ")


def test_idle_workers_while_jobs_wait(sweep: FakeSweep) -> None:
    sweep.worker(worker_state="idle")
    assert blocks(sweep)["workers_idle"].message == "1 worker alive and idle although jobs wait in TrainedModel."
    sweep.worker()
    assert blocks(sweep) == {}


# ---- old schemas, and accounts that may only read


@pytest.mark.slow(4)
def test_a_reader_of_an_old_schema(
    sweep: FakeSweep, server: Any, admin: Any, december: Any, tmp_path: Path, schema_name: str
) -> None:
    from helpers.lab_tables import open_lab

    open_lab(schema_name).plan("baseline", seeds=[1, 2])
    for name in ("~jobs", "pool", "pool_worker", "pool_job"):
        admin.execute(f"DROP TABLE IF EXISTS `{schema_name}`.`{name}`")
    admin.execute("CREATE OR REPLACE USER 'onlooker'@'127.0.0.1' IDENTIFIED BY 'may only read'")
    for readable in (schema_name, "nnfabrik_core"):
        admin.execute(f"GRANT SELECT ON `{readable}`.* TO 'onlooker'@'127.0.0.1'")
    account = {"DJ_HOST": f"127.0.0.1:{server.settings.port}", "DJ_USER": "onlooker", "DJ_PASS": "may only read"}
    account["DECEMBER_SCHEMA"] = schema_name
    try:
        shown = december("status", cwd=tmp_path, **account)
        assert shown.returncode == 0, shown.stderr
        assert ["TrainedModel", "0", "0", "2", "0", "0", "0"] in [
            line.split()[:7] for line in shown.stdout.splitlines()
        ]
        words = " ".join(shown.stdout.split())
        assert f"The schema {schema_name} has no tables of workers and pools" in words
        assert "creates them with `december register SWEEP`" in words
        listed = december("jobs", "show", cwd=tmp_path, **account)
        assert (listed.returncode, listed.stdout) == (0, "no such jobs\n"), listed.stderr
    finally:
        admin.execute("DROP USER 'onlooker'@'127.0.0.1'")
    admin.execute(f"SHOW TABLES IN `{schema_name}` WHERE Tables_in_{schema_name} IN ('~jobs', 'pool_job')")
    assert admin.fetchall() == ()


# ---- the live view


def test_live_without_a_terminal_prints_again(sweep: FakeSweep, status: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def interrupt(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("december_plugin.cli.commands.status.time.sleep", interrupt)
    text = status("--live", "2.5")
    assert text.count("6 trainings planned") == 2
    assert pauses[0] == 2.5


def test_live_survives_an_outage(sweep: FakeSweep, status: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [read_overview(sweep.tables), LostConnectionError("gone"), KeyboardInterrupt()]

    def read(tables: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(overview_module, "read_overview", read)
    monkeypatch.setattr("december_plugin.cli.commands.status.time.sleep", lambda seconds: None)
    text = status("--watch")
    assert "These numbers are out of date: The connection to the database server" in text
    assert text.count("6 trainings planned") == 2


def test_live_on_a_terminal_until_ctrl_c(sweep: FakeSweep, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = warm.Popen(
        [sys.executable, "-m", "december_plugin.cli", "status", "--live", "0.5", "--schema", sweep.schema],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"},
        start_new_session=True,
    )
    os.close(slave)
    printed, deadline, interrupted = b"", time.monotonic() + 60, False
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    printed += os.read(master, 65536)
                except OSError:  # the other end is closed
                    break
            if not interrupted and b"trainings planned" in printed:
                interrupted = True
                process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0, printed.decode()
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert printed.count(b"\x1b[?1049h") == printed.count(b"\x1b[?1049l") == 1  # its own screen, and back
    assert b"6 trainings planned" in printed[printed.index(b"\x1b[?1049l") :]  # what was last seen stays


@pytest.mark.parametrize("words", ["0", "-3", "soon", "100000"])
def test_wrong_interval(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", f"--live={words}"]) == 2
    assert f"'{words}' is not a number of seconds from 0.5 to 86400" in capsys.readouterr().err


@pytest.mark.slow(6)
def test_commands_that_only_read_load_nothing_heavy(empty_lab: Any, tmp_path: Path, december_home: Path) -> None:
    script = f"""
import sys
from december_plugin.cli import main
for words in (["status"], ["jobs", "show"], ["pool", "status"], ["ari"], ["types", "list"]):
    assert main([*words, "--schema", {empty_lab.tables.schema.database!r}]) == 0, words
heavy = ("torch.nn", "sklearn.base", "scipy.optimize", "matplotlib.pyplot", "plotly", "minio.api", "neuralpredictors")
assert not [name for name in heavy if name in sys.modules], [name for name in heavy if name in sys.modules]
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
