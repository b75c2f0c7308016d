"""A worker within this process: jobs that end in odd ways, heartbeats of machines that slept, and retries at once."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import uuid
from types import SimpleNamespace

import pymysql
import pytest
import torch
from datajoint.errors import LostConnectionError

from december_plugin.cli import main
from december_plugin.embeddings.alignment_recipe import AlignmentRecipe
from december_plugin.errors import SettingsError
from december_plugin.pool import Worker, WorkerSettings
from december_plugin.pool.jobs.actions import clear_failures
from december_plugin.pool.jobs.description import describe_jobs
from december_plugin.pool.jobs.leases import Leases
from december_plugin.pool.worker import runner
from december_plugin.pool.worker.gpu import DeviceBrokenError, MemoryUse, MpsLostError, WorkerGpu
from december_plugin.pool.worker.heartbeat import Heartbeat, WorkerIdentity, WorkerState
from december_plugin.pool.worker.job_settings import JobWatch

SETTINGS = WorkerSettings(only=("TrainedModel",), lease=10.0)


@pytest.fixture
def lab(empty_lab):
    empty_lab.plan("baseline", seeds=[1, 2, 3])
    return empty_lab


@pytest.fixture
def table(lab):
    return lab.tables.TrainedModel()


@pytest.fixture
def keys(table):
    return table.key_source.fetch("KEY", order_by="seed")


@pytest.fixture
def leases(lab) -> Leases:
    return Leases(lab.tables.schema.database)


def column(lab, name: str) -> list:
    return list(lab.tables.PoolJob.fetch(name))


def test_forgetting_failures_leaves_alone_what_another_has_begun_meanwhile(lab, table, keys, leases, other):
    lease = leases.claim(table, keys[0], uuid.uuid4().hex)
    assert leases.fail(table, keys[0], lease, message="x", stack="x")
    connection, schema = table.connection, lab.tables.schema.database
    real = connection.query

    def query(sql, *args, **kwargs):
        if sql.startswith("DELETE") and "~jobs" in sql:
            other.query(f"UPDATE `{schema}`.`~jobs` SET status = 'reserved'")
        return real(sql, *args, **kwargs)

    connection.query = query
    try:
        clear_failures(table, schema)
    finally:
        del connection.query
    assert list(lab.tables.schema.jobs.fetch("status")) == ["reserved"]


def test_messages_fit_into_tables_older_than_utf8mb4(lab, table, keys, leases):
    connection, schema = table.connection, lab.tables.schema.database
    lease = leases.claim(table, keys[0], uuid.uuid4().hex)
    for name in ("pool_job", "~jobs"):
        connection.query(f"ALTER TABLE `{schema}`.`{name}` CONVERT TO CHARACTER SET latin1")
    try:
        assert leases.fail(table, keys[0], lease, message="Größe 3 → 4", stack="→")
        assert column(lab, "last_words") == ["Größe 3 \\u2192 4"]
        assert list(lab.tables.schema.jobs.fetch("error_message")) == ["Größe 3 \\u2192 4"]
    finally:
        for name in ("pool_job", "~jobs"):
            connection.query(f"ALTER TABLE `{schema}`.`{name}` CONVERT TO CHARACTER SET utf8mb4")


def test_a_lease_that_its_holder_has_ended_is_not_lost(table, keys, leases, other):
    worker = uuid.uuid4().hex
    lease = leases.claim(table, keys[0], worker)
    assert not leases.was_lost(other, lease)
    assert leases.finish(table.connection, lease)
    assert not leases.was_lost(other, lease)
    taken = leases.claim(table, keys[1], worker)
    assert [released.job_hash for released in leases.mark_dead(other, worker, "killed")] == [taken.job_hash]
    assert leases.was_lost(other, taken)
    leases.claim(table, keys[1], uuid.uuid4().hex)
    assert leases.was_lost(other, taken)


def test_a_lease_whose_row_changes_after_the_snapshot_is_taken_another_time(table, keys, leases, other):
    worker = uuid.uuid4().hex
    lease = leases.claim(table, keys[0], worker)
    try:
        other.query("SET SESSION innodb_snapshot_isolation = ON")  # the default from MariaDB 11.6 on
    except pymysql.err.Error:
        pytest.skip("this server has no innodb_snapshot_isolation")
    real = other.start_transaction

    def begin_and_be_late():
        real()
        other.query(f"SELECT COUNT(*) FROM `{leases.schema}`.`pool_job`")
        leases.finish(table.connection, lease)

    other.start_transaction = begin_and_be_late
    assert leases.mark_dead(other, worker, "killed") == []


class Clock:
    """Both clocks of a machine, which a test puts forward."""

    def __init__(self) -> None:
        self.awake = self.wall = 1000.0

    def monotonic(self) -> float:
        return self.awake

    def time(self) -> float:
        return self.wall

    def forward(self, seconds: float) -> None:
        self.awake += seconds
        self.wall += seconds


def test_a_worker_that_slept_gives_the_others_time_to_wake_up(lab, table, keys, leases, other, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("december_plugin.pool.worker.heartbeat.time", clock)
    sleeper = uuid.uuid4().hex
    beat = Heartbeat(
        WorkerIdentity(uuid.uuid4().hex), WorkerState(), leases, lease=1.0, connect=lambda: other, ask_to_stop=print
    )
    beat._beat()
    released = []
    monkeypatch.setattr(leases, "release_expired", lambda connection: released.append(connection) or [])
    leases.claim(table, keys[0], sleeper)
    beat._beat()
    assert len(released) == 1
    clock.forward(1.2)
    beat._beat()  # it was suspended, as the others may have been
    assert len(released) == 1
    clock.wall += 60  # the machine slept: its monotonic clock stood still
    beat._beat()
    assert len(released) == 1
    for _ in range(4):
        clock.forward(0.4)
        beat._beat()
    assert len(released) == 2


def test_a_job_whose_commit_was_not_answered_is_done(lab, leases, monkeypatch):
    real = Leases.claim_several

    def unanswered(self, *args, **kwargs):
        real(self, *args, **kwargs)
        monkeypatch.setattr(Leases, "claim_several", real)  # once
        return []

    monkeypatch.setattr(Leases, "claim_several", unanswered)
    report = Worker(lab.tables, SETTINGS).run()
    assert report.computed == {"TrainedModel": 3}
    assert column(lab, "job_state") == ["done"] * 3


def test_a_make_that_inserts_nothing_fails_its_job(lab, monkeypatch):
    monkeypatch.setattr(lab.tables.TrainedModel, "make_insert", lambda self, key, *result: None)
    report = Worker(lab.tables, WorkerSettings(only=("TrainedModel",), max_time=30)).run()
    assert (report.n_failed, report.ended_by) == (3, "nothing is left to do")
    (words,) = set(column(lab, "last_words"))
    assert words.startswith("DecemberError: TrainedModel.make() finished without inserting a row, so")


class BrokenWatch(JobWatch):
    """Fails at one of the jobs, and at the end of every one."""

    def begins(self, words: str) -> None:
        if "seed 2" in words:
            raise RuntimeError("the watch broke")

    def ends(self) -> None:
        raise RuntimeError("the watch broke at the end")


def break_fetch(worker, monkeypatch, error=RuntimeError) -> None:
    real = worker.tables.TrainedModel.make_fetch

    def make_fetch(self, key):
        if key["seed"] == 2:
            raise error("the fetch broke")
        return real(self, key)

    monkeypatch.setattr(worker.tables.TrainedModel, "make_fetch", make_fetch)


def cancel_fetch(worker, monkeypatch) -> None:
    break_fetch(worker, monkeypatch, asyncio.CancelledError)  # not an Exception


def break_words(worker, monkeypatch) -> None:
    real = worker.runner.describe

    def describe(table, key):
        if key["seed"] == 2:
            raise RuntimeError("the words broke")
        return real(table, key)

    monkeypatch.setattr(worker.runner, "describe", describe)


def break_watch(worker, monkeypatch) -> None:
    """Do nothing: its watch is broken."""


@pytest.mark.parametrize(
    ("break_it", "what"),
    [(break_fetch, "fetch"), (cancel_fetch, "fetch"), (break_words, "words"), (break_watch, "watch")],
)
def test_an_error_around_a_job_fails_this_job_and_the_worker_goes_on(lab, monkeypatch, caplog, break_it, what):
    worker = Worker(lab.tables, SETTINGS, watch=BrokenWatch() if break_it is break_watch else None)
    break_it(worker, monkeypatch)
    report = worker.run()
    assert (report.n_failed, report.computed) == (1, {"TrainedModel": 2})
    assert report.ended_by == "nothing is left to do"
    (row,) = lab.tables.schema.jobs.fetch(as_dict=True)
    assert (row["status"], row["key"]["seed"]) == ("error", 2)
    kind = "CancelledError" if break_it is cancel_fetch else "RuntimeError"
    assert row["error_message"] == f"{kind}: the {what} broke"
    assert "Traceback" in row["error_stack"]
    assert (
        f"in {'begins' if what == 'watch' else 'describe' if what == 'words' else 'make_fetch'}" in row["error_stack"]
    )
    (failed,) = [each.getMessage() for each in caplog.records if each.getMessage().startswith("failed: ")]
    assert failed.startswith("failed: TrainedModel: ")
    assert "seed 2" in failed
    assert ("the watch broke at the end" in caplog.text) == (what == "watch")


def test_a_job_whose_settings_are_not_valid_hides_no_others(lab):
    recipe = AlignmentRecipe()
    row = {**lab.tables.AlignmentSettings.row(recipe), "alignment_hash": "f" * 32, "alignment_power": 7}
    lab.tables.AlignmentSettings.insert1(row)  # of another version
    key = {"alignment_hash": "f" * 32, "seed": 1}
    assert describe_jobs(lab.tables)("Alignment", key) == f"Alignment: alignment_hash {'f' * 32}, seed 1"
    with pytest.raises(SettingsError, match="power"):
        describe_jobs(lab.tables, strict=True)("Alignment", key)


def test_a_job_that_went_to_another_does_not_count_as_failed(lab, leases, other, monkeypatch, caplog):
    worker, real, taken = Worker(lab.tables, SETTINGS), lab.tables.TrainedModel.make_compute, []

    def loses_its_lease_first(self, key, *fetched):
        if not taken:
            taken.extend(leases.mark_dead(other, worker.identity.worker_id, "cut off"))
            raise RuntimeError("wrapped by a trainer")
        return real(self, key, *fetched)

    monkeypatch.setattr(lab.tables.TrainedModel, "make_compute", loses_its_lease_first)
    report = worker.run()
    assert (report.n_failed, report.computed) == (0, {"TrainedModel": 3})
    assert "went to another worker, so this result is discarded" in caplog.text
    assert len(lab.tables.schema.jobs) == 0


def test_a_broken_gpu_fails_no_job(lab, monkeypatch):
    def breaks(self, key, *fetched):
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(lab.tables.TrainedModel, "make_compute", breaks)
    with pytest.raises(DeviceBrokenError, match="this process can no longer use the GPU: CUDA error"):
        Worker(lab.tables, SETTINGS).run()
    assert len(lab.tables.schema.jobs) == 0
    assert (column(lab, "job_state"), column(lab, "n_deaths")) == (["free"], [1])


def test_an_end_of_mps_counts_as_no_attempt(lab, monkeypatch):
    def breaks(self, key, *fetched):
        raise RuntimeError("CUDA error: MPS client terminated by server")

    monkeypatch.setattr(lab.tables.TrainedModel, "make_compute", breaks)
    with pytest.raises(MpsLostError, match="has ended: CUDA error: MPS client terminated by server"):
        Worker(lab.tables, SETTINGS).run()
    assert len(lab.tables.schema.jobs) == 0
    assert (column(lab, "job_state"), column(lab, "n_deaths")) == (["free"], [0])
    ((state, words),) = zip(*lab.tables.PoolWorker.fetch("worker_state", "worker_detail"), strict=True)
    assert (state, words[:40]) == ("ended", "MPS, through which this worker used the ")


@pytest.mark.parametrize(
    ("words", "code"), [("CUDA error: unspecified launch failure", 75), ("CUDA error: MPS client terminated", 76)]
)
def test_the_exit_code_says_what_of_the_gpu_failed(lab, monkeypatch, capsys, words, code):
    def breaks(self, key, *fetched):
        raise RuntimeError(words)

    monkeypatch.setattr(type(lab.tables.TrainedModel()), "make_compute", breaks)
    schema = lab.tables.schema.database
    monkeypatch.setattr("december_plugin.schemas.lab.open_lab", lambda **_: SimpleNamespace(tables=lab.tables))
    assert main(["worker", "--schema", schema, "--only", "TrainedModel", "--allow-modules", "helpers"]) == code
    assert words in capsys.readouterr().err


def test_memory_that_others_have_taken_is_waited_for_and_a_job_that_is_too_large_fails(lab, monkeypatch, caplog):
    real, tries = lab.tables.TrainedModel.make_compute, []
    of_others = iter([70, None, 60, 60, 60, 1])  # GiB at each try; None: the job has all that it needs

    def compute(self, key, *fetched):
        tries.append(next(of_others))
        if tries[-1] is not None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
        return real(self, key, *fetched)

    use = {70: MemoryUse(80 << 30, 0, 80 << 30, 10 << 30), 60: MemoryUse(80 << 30, 0, 80 << 30, 20 << 30)}
    use[1] = MemoryUse(80 << 30, 0, 80 << 30, 79 << 30)
    monkeypatch.setattr(WorkerGpu, "memory_use", lambda gpu: use[tries[-1]])
    monkeypatch.setattr(runner, "CROWDED_PAUSES", (0.01, 0.02))
    monkeypatch.setattr(lab.tables.TrainedModel, "make_compute", compute)
    with caplog.at_level(logging.WARNING):
        report = Worker(lab.tables, SETTINGS).run()
    assert (report.computed, report.n_failed) == ({"TrainedModel": 1}, 2)
    assert "use 70.0 GiB. `nvidia-smi` names them." in caplog.text
    assert caplog.text.count("it is tried again in 0.01 s") == 2
    assert caplog.text.count("it is tried again in 0.02 s") == 1
    crowded, too_large = sorted(lab.tables.schema.jobs.fetch("error_message"), key=lambda words: "alone" in words)
    assert crowded.startswith("GpuMemoryError: the GPU ran out of memory for a job of ")
    assert "of which processes outside this pool, or of another, use 60.0 GiB" in crowded
    assert "use a smaller model, or a GPU with more memory; then `december jobs retry`." in too_large
    for stack in lab.tables.schema.jobs.fetch("error_stack"):
        assert "in compute" in stack
        assert "OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB" in stack


def test_a_job_that_was_just_stored_is_not_called_lost(lab, leases, other, monkeypatch, caplog):
    worker = Worker(lab.tables, SETTINGS)
    watching = Heartbeat(worker.identity, worker.state, leases, lease=10.0, connect=lambda: other, ask_to_stop=print)
    watching._connection = other
    monkeypatch.setattr("december_plugin.pool.worker.job.WorkerJob.forget", lambda job: watching._look_at_lease())
    with caplog.at_level(logging.WARNING):
        assert worker.run().computed == {"TrainedModel": 3}
    assert "went to another worker" not in caplog.text
    assert watching.lost == set()


def test_a_worker_whose_errors_go_to_no_file_says_goodbye(lab, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert Worker(lab.tables, SETTINGS).run().computed == {"TrainedModel": 3}
    assert list(lab.tables.PoolWorker.fetch("worker_state")) == ["ended"]


def test_a_server_that_goes_away_while_a_worker_starts_does_not_end_its_pool(lab, monkeypatch):
    pauses = []

    def describe(tables, **options):
        if not pauses:
            raise LostConnectionError("Server connection lost")
        return describe_jobs(tables, **options)

    monkeypatch.setattr("december_plugin.pool.worker.loop.describe_jobs", describe)
    monkeypatch.setattr("december_plugin.database.outages.time", SimpleNamespace(sleep=pauses.append))
    monkeypatch.setenv("DECEMBER_POOL_ID", "a" * 32)
    assert main(["worker", "--schema", lab.tables.schema.database, "--only", "TrainingSummary", "--quiet"]) == 0
    assert pauses == [1.0]


QUICK = WorkerSettings(only=("TrainingSummary",), lease=10.0)


@pytest.fixture
def summaries(lab, table, monkeypatch):
    """Plan summaries of twelve models: jobs of a millisecond, also where this machine takes longer."""
    monkeypatch.setattr("december_plugin.pool.worker.claiming.QUICK_SECONDS", 60.0)
    (key,) = table.key_source.fetch("KEY", limit=1)
    lab.plan("baseline", seeds=range(1, 13))
    table.insert([{**key, "seed": seed, "score": 0.5, "output": {}} for seed in range(1, 13)], allow_direct_insert=True)
    return lab.tables.TrainingSummary()


def numbers_claimed(monkeypatch) -> list[int]:
    """Return a list to which the number of jobs of every claim is added."""
    found, real = [], Leases.claim_several

    def claim_several(self, *args, **kwargs):
        claimed = real(self, *args, **kwargs)
        found.append(len(claimed))
        return claimed

    monkeypatch.setattr(Leases, "claim_several", claim_several)
    return found


def test_quick_jobs_are_claimed_several_at_once_and_stored_one_by_one(lab, summaries, monkeypatch):
    claimed = numbers_claimed(monkeypatch)
    assert Worker(lab.tables, QUICK).run().computed == {"TrainingSummary": 12}
    assert claimed == [1, 2, 8, 1]
    assert (column(lab, "job_state"), column(lab, "n_starts")) == (["done"] * 12, [1] * 12)
    assert len(lab.tables.schema.jobs) == 0


def test_jobs_that_take_their_time_are_claimed_one_by_one(lab, summaries, monkeypatch):
    claimed = numbers_claimed(monkeypatch)
    monkeypatch.setattr("december_plugin.pool.worker.claiming.QUICK_SECONDS", 0.0)
    Worker(lab.tables, QUICK).run()
    assert claimed == [1] * 12


def test_a_job_that_fails_or_is_lost_does_not_take_the_others_with_it(lab, summaries, leases, other, monkeypatch):
    worker, real, n_made = Worker(lab.tables, QUICK), type(summaries).make, []

    def make(self, key):
        n_made.append(key["seed"])
        if len(n_made) == 5:
            raise ValueError("of this job")
        if len(n_made) == 9:  # all that it holds goes to others, who give it back
            leases.mark_dead(other, worker.identity.worker_id, "cut off")
        real(self, key)

    monkeypatch.setattr(type(summaries), "make", make)
    report = worker.run()
    assert (report.computed, report.n_failed) == ({"TrainingSummary": 11}, 1)
    assert sorted(column(lab, "job_state")) == ["done"] * 11 + ["failed"]
    assert sorted(column(lab, "n_deaths")) == [0] * 11 + [1]
    assert len(summaries) == len(set(n_made)) - 1 == 11


def lose_connection(*args) -> None:
    raise LostConnectionError("Server connection lost")


def test_what_waits_behind_a_job_that_takes_long_is_given_back(lab, table, leases, other, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("december_plugin.pool.worker.heartbeat.time", clock)
    state, identity = WorkerState(), WorkerIdentity(uuid.uuid4().hex)
    beat = Heartbeat(identity, state, leases, lease=60.0, connect=lambda: other, ask_to_stop=print)
    keys = table.key_source.fetch("KEY")
    (_, first), (_, second), _ = leases.claim_several(table, keys, identity.worker_id, log_file=lambda _: "")
    state.n_in_line, state.claimed_at = 2, clock.monotonic()
    state.begin(first)
    clock.forward(3)
    assert leases.finish(other, first)
    assert leases.begin(other, second, log_file="")
    state.n_in_line = 1
    state.begin(second)
    beat._beat()
    assert len(lab.tables.schema.jobs) == 2
    clock.forward(3)  # neither took five seconds, both together did
    assert state.holds_too_much
    with monkeypatch.context() as patched:
        patched.setattr(Leases, "release_not_begun", lose_connection)
        with pytest.raises(LostConnectionError):
            beat._beat()
    assert state.holds_too_much  # what could not be given back is not forgotten
    beat._beat()
    assert list(lab.tables.schema.jobs.fetch("key_hash")) == [second.job_hash]
    assert not state.holds_too_much


def test_results_that_took_no_time_are_not_kept_on_the_disk(lab, monkeypatch):
    lab.tables.Clustering().add_entry("kmeans", 3, skip_duplicates=True)
    kept = []
    monkeypatch.setattr("december_plugin.pool.worker.spool.Spool.put", lambda self, schema, *job: kept.append(job[0]))
    for quick, tables in ((60.0, ["__trained_model"]), (-1.0, ["__cluster_assignment", "__trained_model"])):
        monkeypatch.setattr("december_plugin.pool.worker.job.QUICK_SECONDS", quick)
        Worker(lab.tables, WorkerSettings(only=("TrainedModel", "ClusterAssignment"), lease=10.0)).run()
        assert sorted(kept) == [name for name in tables for _ in range(3)]
        (lab.tables.TrainedModel & "TRUE").delete()
        kept.clear()
