"""`december jobs` on a real server: what it shows, and that it never takes anything from a live worker."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pymysql
import pytest

from december_plugin.cli import main
from december_plugin.pool.jobs import actions as job_actions
from december_plugin.pool.jobs.actions import JobActions
from december_plugin.pool.jobs.job import Job
from december_plugin.pool.jobs.lookup import JobLookup
from december_plugin.pool.jobs.queue import JobQueue
from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.transactions import transaction
from helpers.fake_sweep import HERE, FakeSweep
from helpers.waiting import wait_until, waits_for_lock


@pytest.fixture
def jobs(sweep: FakeSweep, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs `december jobs` on the sweep and returns what it prints, stderr last."""

    def run(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        returned = main(["jobs", *words, "--schema", sweep.schema])
        printed = capsys.readouterr()
        assert returned == code, printed.out + printed.err
        return printed.out + printed.err

    return run


@pytest.fixture
def started_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server be up for long: before a lease has passed, nobody's heartbeat is too old."""
    begin = JobActions.__init__

    def begun(self: JobActions, *args: Any, **settings: Any) -> None:
        begin(self, *args, **settings)
        self._uptime = 1e6

    monkeypatch.setattr(JobActions, "__init__", begun)


def next_keys(sweep: FakeSweep) -> list[int]:
    """Return the seeds of the trainings that a worker would take up."""
    queue = JobQueue([sweep.tables.TrainedModel]).tables[0]
    found = []
    while not found or queue._keys:
        key = queue.next()
        if key is None:
            break
        found.append(key["seed"])
    return sorted(found)


# ---- show


def test_list(sweep: FakeSweep, jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    worker = sweep.worker(worker_gpu="2")
    sweep.run(0, worker)
    sweep.progress(worker, epoch=3, n_epochs=9, score=0.25, left=30)
    sweep.fail(1, "ValueError: not to my liking")
    sweep.poison(2)
    lines = jobs("show").splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [
        [sweep.hash(0)[:8], "running"],
        [sweep.hash(2)[:8], "poisoned"],
        [sweep.hash(1)[:8], "failed"],
    ]
    assert "epoch 3 of 9, score 0.250, 30 s left, gpu3 GPU 2" in lines[1]
    assert "ValueError: not to my liking" in lines[3]
    assert jobs("show", "--state", "ignored") == "no such jobs\n"
    (failed,) = json.loads(jobs("show", "--reason", "MY LIKING", "--json"))
    assert (failed["hash"], failed["state"], failed["n_starts"]) == (sweep.hash(1), "failed", 1)
    assert len(json.loads(jobs("show", "--state", "waiting", "--json"))) == 3
    assert sweep.hash(4)[:8] in jobs("show", "--state", "waiting")
    assert jobs("show", "--table", "SeedAgreement") == "no such jobs\n"


def test_list_is_cut(sweep: FakeSweep, jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("december_plugin.cli.views.jobs.MOST", 2)
    for number in range(3):
        sweep.fail(number, "ValueError: x")
    assert "... and 1 more (--all)" in jobs("show")
    assert "more (--all)" not in jobs("show", "--all")


def test_one_that_failed(sweep: FakeSweep, jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_PASSWORD", "hunter2-of-the-lab")
    log = tmp_path / "job.log"
    log.write_text("".join(f"line {number} hunter2-of-the-lab\n" for number in range(100)))
    stack = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: no hunter2-of-the-lab\n'
    worker = sweep.worker()
    sweep.fail(0, "ValueError: no", stack=stack, log_file=f"{HERE}:{log}", worker_id=worker)
    text = jobs("show", sweep.hash(0)[:6])
    assert f"job          {sweep.hash(0)}\n" in text
    assert "state        failed\n" in text
    assert "attempts     1 attempt\n" in text
    assert "  seed: 1\n" in text
    assert "\nmessage\nValueError: no\n" in text
    assert 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: no ***\n' in text
    words = " ".join(text.split())
    assert f"last worker worker {worker[:8]} on gpu3 (no GPU, process 4711), working, last heartbeat" in words
    assert text.endswith("line 98 ***\nline 99 ***\n")
    assert "line 80" in text
    assert "line 79" not in text
    assert "line 97" not in jobs("show", sweep.hash(0), "--lines", "2")
    content = json.loads(jobs("show", sweep.hash(0), "--json", "--lines", "1"))
    assert content["log"] == "line 99 ***"
    assert content["error_stack"] == stack.replace("hunter2-of-the-lab", "***")
    assert (content["state"], content["table"], content["key"]) == ("failed", "TrainedModel", sweep.keys[0])
    assert (content["n_starts"], content["n_deaths"], content["begun"][-1]) == (1, 0, "Z")


@pytest.mark.parametrize(
    ("host", "words"),
    [("elsewhere", "log: /no/such.log on the host elsewhere\n"), (HERE, "log: /no/such.log, which does not exist")],
)
def test_a_log_that_cannot_be_read(sweep: FakeSweep, jobs: Any, host: str, words: str) -> None:
    sweep.fail(0, "ValueError: no", log_file=f"{host}:/no/such.log")
    assert words in jobs("show", sweep.hash(0))


def test_what_is_copied_is_not_wrapped(sweep: FakeSweep, jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    reason, log = "ValueError: " + " ".join(["word"] * 40), f"{HERE}:/{'folder/' * 20}job.log"
    sweep.fail(0, reason, log_file=log)
    shown = jobs("show", sweep.hash(0)).splitlines()
    assert reason in shown
    assert any(f"/{'folder/' * 20}job.log" in line for line in shown)


def test_one_in_work(sweep: FakeSweep, jobs: Any) -> None:
    worker = sweep.worker(worker_gpu="5", worker_slurm_job="812_3", age=5)
    sweep.run(0, worker)
    sweep.progress(worker, epoch=30, n_epochs=90, score=0.5, left=7200)
    text = " ".join(jobs("show", sweep.hash(0)).split())
    assert (
        f"held by worker {worker[:8]} on gpu3 (GPU 5, process 4711, Slurm job 812_3), working, last heartbeat" in text
    )
    assert "progress epoch 30 of 90, score 0.500, 2.0 h left" in text
    sweep.execute("UPDATE POOL_worker` SET heartbeat = UTC_TIMESTAMP(6) - INTERVAL 10 MINUTE")
    text = " ".join(jobs("show", sweep.hash(0)).split())
    assert "state running, but its worker shows no heartbeat" in text


def test_one_that_is_poisoned_reserved_waits_or_is_done(sweep: FakeSweep, jobs: Any) -> None:
    sweep.poison(0)
    sweep.reserve(1)
    sweep.table.populate(sweep.keys[3])
    poisoned = " ".join(jobs("show", sweep.hash(0)).split())
    assert "state poisoned (given up, because it kept killing its workers)" in poisoned
    assert "attempts 1 attempt, 1 of them ended with the death of the worker" in poisoned
    assert "last words ended by the signal SIGSEGV" in poisoned
    assert "state reserved by a process without a heartbeat" in " ".join(jobs("show", sweep.hash(1)).split())
    assert "state  waiting\n" in jobs("show", sweep.hash(2), "--table", "TrainedModel")
    assert "state  done\n" in jobs("show", sweep.hash(3), "--table", "TrainedModel")


# ---- names


def test_names(sweep: FakeSweep, jobs: Any) -> None:
    sweep.fail(0, "ValueError: x")
    summary = sweep.tables.TrainingSummary()
    sweep.table.populate(sweep.keys[1])
    sweep.fail(1, "ValueError: y", table=summary)
    sweep.fail(1, "ValueError: z", table=sweep.tables.TestPerformance())
    same = sweep.hash(1)  # the same key in two tables
    message = jobs("show", same[:8], code=1)
    names = sorted(re.findall(r"(\w+) (\w{12}) \(failed\)", message))
    assert names == [("TestPerformance", same[:12]), ("TrainingSummary", same[:12])]
    assert f"{same[:8]!r} is the beginning of 2 jobs: " in message
    assert "(failed). Give more characters, or the table with --table." in message
    assert "message\nValueError: y" in jobs("show", same[:8], "--table", "TrainingSummary")
    assert "no job has a name that begins with 'ffffffffffff'. `december jobs show` lists" in jobs(
        "show", "ffffffffffff", code=1
    )
    assert "no job of SeedAgreement has a name that begins with" in jobs(
        "show", same, "--table", "SeedAgreement", code=1
    )
    assert "'seed 3' is not the name of a job, which is the beginning of its hash, such as 1a2b3c4d." in jobs(
        "show", "seed 3", code=1
    )
    assert "there is no table 'TrainedModels'. Did you mean 'TrainedModel'? Allowed: " in jobs(
        "show", "--table", "TrainedModels", code=1
    )


# ---- retry


def test_retry_by_name(sweep: FakeSweep, jobs: Any) -> None:
    sweep.fail(0, "ValueError: x")
    sweep.fail(1, "ValueError: x")
    name = sweep.hash(0)[:8]
    assert jobs("retry", name) == f"TrainedModel: 1 job will be started again: {name}\n"
    assert sweep.queue() == {sweep.hash(1): "error"}
    assert sweep.record(0)["job_state"] == "free"
    assert sweep.record(0)["n_starts"] == 1  # with the holder the lease's token: it never goes back
    assert next_keys(sweep) == [1, 3, 4, 5, 6]
    assert f"TrainedModel {name} is not failed, ignored or reserved (any more)" in jobs("retry", name, code=1)


def test_retry_gives_a_poisoned_job_new_attempts(sweep: FakeSweep, jobs: Any) -> None:
    sweep.poison(0)
    assert sweep.record(0)["n_deaths"] == 1
    jobs("retry", sweep.hash(0))
    assert (sweep.record(0)["n_deaths"], sweep.record(0)["job_state"], sweep.queue()) == (0, "free", {})


@pytest.mark.parametrize(
    ("words", "seeds"),
    [
        (["--all"], [1, 2, 3]),
        (["--failed"], [1, 2]),
        (["--poisoned"], [3]),
        (["--failed", "--poisoned"], [1, 2, 3]),
        (["--ignored"], [4]),
        (["--reason", "OUT OF MEMORY"], [2]),
        (["--table", "TrainedModel"], [1, 2, 3]),
        (["--table", "TrainedModel", "--failed", "--reason", "liking"], [1]),
        (["--table", "SeedAgreement"], []),
    ],
)
def test_retry_of_many(sweep: FakeSweep, jobs: Any, words: list[str], seeds: list[int]) -> None:
    sweep.fail(0, "ValueError: not to my liking")
    sweep.fail(1, "OutOfMemoryError: CUDA out of memory")
    sweep.poison(2)
    sweep.tables.schema.jobs.ignore(sweep.table.table_name, sweep.keys[3])
    before = set(sweep.queue())
    text = jobs("retry", *words)
    assert before - set(sweep.queue()) == {sweep.hash(seed - 1) for seed in seeds}
    assert ("There is nothing to start again." in text) == (not seeds)


def test_retry_in_batches(sweep: FakeSweep, jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_actions, "BATCH", 2)
    for number in range(5):
        sweep.fail(number, "ValueError: x")
    assert "TrainedModel: 5 jobs will be started again: " in jobs("retry", "--all")
    assert sweep.queue() == {}


def test_retry_needs_a_choice(jobs: Any) -> None:
    assert "which jobs? Give their names, or --all, --failed, --poisoned, --ignored, --table NAME" in jobs(
        "retry", code=1
    )
    said = jobs("retry", "1a2b", "--all", code=1)
    assert "both names of jobs (1a2b) and --all are given. Give only one of the two." in said


@pytest.mark.usefixtures("started_long_ago")
def test_a_live_worker_keeps_its_job(sweep: FakeSweep, jobs: Any) -> None:
    worker = sweep.worker(age=20)
    lease = sweep.run(0, worker)
    for words in (["retry", sweep.hash(0)], ["retry", sweep.hash(0), "--stale", "1"], ["ignore", sweep.hash(0)]):
        text = jobs(*words, code=1)
        assert (
            f"TrainedModel {sweep.hash(0)[:8]} is being computed by the worker {worker[:8]} on gpu3, which is alive"
            in text
        )
        assert "stop that worker first" in text
    assert jobs("retry", "--stale", "0.1") == "There is nothing to start again.\n"
    assert sweep.leases.is_held(sweep.connection, lease)
    assert sweep.queue() == {sweep.hash(0): "reserved"}


@pytest.mark.usefixtures("started_long_ago")
@pytest.mark.parametrize("words", [["retry", "JOB"], ["retry", "--stale"], ["ignore", "JOB"]])
def test_a_dead_worker_loses_its_job_and_cannot_store(sweep: FakeSweep, jobs: Any, words: list[str]) -> None:
    lease = sweep.run(0, sweep.worker(age=120))
    jobs(*(sweep.hash(0) if word == "JOB" else word for word in words))
    assert sweep.queue() == ({sweep.hash(0): "ignore"} if words[0] == "ignore" else {})
    assert not sweep.leases.is_held(sweep.connection, lease)
    assert not sweep.leases.finish(sweep.connection, lease)
    record = sweep.record(0)
    assert (record["worker_id"], record["job_state"]) == ("", "free")
    assert record["last_words"] == "taken away by hand from a worker without a heartbeat"


def test_a_server_that_was_just_started_cannot_tell(sweep: FakeSweep) -> None:
    lease = sweep.run(0, sweep.worker(age=120))
    lookup = JobLookup(sweep.tables)
    actions = JobActions(lookup)
    actions._uptime = 30.0
    ((_, reason),) = actions.retry([lookup.find(sweep.hash(0))]).refused
    assert (
        "and the database was started only 30 s ago: it takes 60 s after the start to tell whether the worker is alive"
        in reason
    )
    assert sweep.leases.is_held(sweep.connection, lease)


def test_reservations_without_a_worker(sweep: FakeSweep, jobs: Any) -> None:
    old, young = sweep.reserve(0, age=7200), sweep.reserve(1, age=600)
    text = jobs("retry", old, code=1)
    assert "has been reserved for 2.0 h by process " in text
    assert "a plain populate(). If that process is gone, add --stale" in text
    assert "for 2.0 h, which is less than --stale 24 h" in jobs("retry", old, "--stale", code=1)
    assert jobs("retry", "--stale") == "There is nothing to start again.\n"
    assert jobs("retry", "--stale", "1:00:00") == f"TrainedModel: 1 job will be started again: {old[:8]}\n"
    assert sweep.queue() == {young: "reserved"}
    jobs("retry", young, "--stale", "300")
    assert sweep.queue() == {}


# ---- ignore


def test_ignore_and_take_it_back(sweep: FakeSweep, jobs: Any) -> None:
    sweep.fail(0, "ValueError: x")
    waiting = sweep.hash(1)
    text = jobs("ignore", sweep.hash(0)[:8], waiting[:8], "--table", "TrainedModel")
    assert "TrainedModel: 2 jobs ignored from now on; `december jobs retry` undoes this: " in text
    assert sweep.queue() == {sweep.hash(0): "ignore", waiting: "ignore"}
    assert next_keys(sweep) == [3, 4, 5, 6]
    sweep.table.populate(reserve_jobs=True)
    assert sorted(sweep.table.fetch("seed")) == [3, 4, 5, 6]
    jobs("retry", waiting[:8])
    jobs("retry", "--ignored")
    assert sweep.queue() == {}
    assert next_keys(sweep) == [1, 2]


def test_ignoring_what_is_done(sweep: FakeSweep, jobs: Any) -> None:
    sweep.table.populate(sweep.keys[0])
    sweep.tables.TrainingSummary.populate(), sweep.tables.TestPerformance.populate()
    text = jobs("ignore", sweep.hash(0), "--table", "TrainedModel", code=1)
    assert f"december: TrainedModel {sweep.hash(0)[:8]} is done already" in text
    assert sweep.queue() == {}


# ---- at the same time as workers


class InThread:
    """Gives a job back in a thread and on a connection of its own, as the process of the command does."""

    def __init__(self, sweep: FakeSweep, connection: Any):
        actions = JobActions(JobLookup(sweep.tables))
        actions._uptime, actions.records = 1e6, PoolRecords(connection, sweep.schema)
        jobs = [Job("TrainedModel", sweep.hash(0), "running", sweep.keys[0])]
        self._connection = sweep.connection
        self.outcome: Any = None
        self._thread = threading.Thread(target=lambda: setattr(self, "outcome", actions.retry(jobs)))

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: waits_for_lock(self._connection), "it waits for the lock")
        assert self._thread.is_alive()

    def join(self) -> Any:
        self._thread.join(20)
        return self.outcome


def test_a_worker_that_wakes_up_and_stores_first(sweep: FakeSweep, other: Any) -> None:
    lease = sweep.run(0, sweep.worker(age=120))
    retry = InThread(sweep, other)
    with transaction(sweep.connection):
        assert sweep.leases.end(sweep.connection, lease)  # as in the transaction that stores the result
        retry.start()
    ((_, reason),) = retry.join().refused
    assert reason == "is not failed, ignored or reserved (any more)"
    assert sweep.record(0)["job_state"] == "done"


def test_a_heartbeat_in_the_last_moment(sweep: FakeSweep, other: Any) -> None:
    worker = sweep.worker(age=120)
    lease = sweep.run(0, worker)
    retry = InThread(sweep, other)
    with transaction(sweep.connection):
        sweep.execute("UPDATE POOL_worker` SET heartbeat = UTC_TIMESTAMP(6) WHERE worker_id = %s", worker)
        retry.start()
    ((_, reason),) = retry.join().refused
    assert reason.startswith(f"is being computed by the worker {worker[:8]} on gpu3, which is alive")
    assert sweep.leases.is_held(sweep.connection, lease)


def test_collisions_with_workers_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_actions.time, "sleep", lambda seconds: None)
    results: list[Any] = [pymysql.err.OperationalError(1213, "Deadlock found"), "done"]

    def step() -> Any:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    assert JobActions._again(step) == "done"
    results += [pymysql.err.OperationalError(1142, "denied")]
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        JobActions._again(step)
    results += [pymysql.err.OperationalError(1205, "Lock wait timeout")] * job_actions.TRIES
    with pytest.raises(pymysql.err.OperationalError, match="Lock wait timeout"):
        JobActions._again(step)


# ---- december clean


@pytest.mark.slow(10)
def test_old_rows_of_pools_go_and_those_that_are_needed_stay(empty_lab, capsys):
    sweep = FakeSweep(empty_lab, seeds=4)
    old, young = sweep.pool(), sweep.pool()
    sweep.execute("UPDATE POOL` SET pool_started = UTC_TIMESTAMP(6) - INTERVAL 50 DAY WHERE pool_id = %s", old)
    queued = sweep.pool(pool_kind="slurm")  # for two months in Slurm's queue
    sweep.execute("UPDATE POOL` SET pool_started = UTC_TIMESTAMP(6) - INTERVAL 60 DAY WHERE pool_id = %s", queued)
    sweep.worker(pool_id=old, age=40 * 86400.0, worker_state="ended")
    holder = sweep.worker(age=40 * 86400.0)  # dead, and nobody has noticed yet
    sweep.worker(pool_id=young, worker_state="ended")
    sweep.run(0, holder)
    sweep.done(1, age=40 * 86400.0)
    sweep.done(2)
    sweep.fail(3, "no luck")
    sweep.execute("UPDATE POOL_job` SET ended = UTC_TIMESTAMP(6) - INTERVAL 50 DAY WHERE job_state = 'failed'")

    def clean(*words: str) -> str:
        capsys.readouterr()
        assert main(["clean", "--only", "pools", "--schema", sweep.schema, *words]) == 0
        return capsys.readouterr().out

    counts = {"pool_job": 1, "pool_worker": 1, "pool": 1}
    assert json.loads(clean("--json"))["rows"] == counts
    assert "       3  rows of pools and workers that have ended, and of jobs that are done\n" in clean()
    assert len(sweep.tables.PoolJob()) == 4
    assert "3 removed, 0 B." in clean("--delete")
    assert set(sweep.tables.Pool().fetch("pool_id")) == {young, queued}
    assert holder in sweep.tables.PoolWorker().fetch("worker_id")
    assert sorted(sweep.tables.PoolJob().fetch("job_state")) == ["done", "failed", "running"]
    assert json.loads(clean("--json"))["rows"] == dict.fromkeys(counts, 0)
