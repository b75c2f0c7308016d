"""What a worker does with results and progress that are not as they should be, without a database."""

from __future__ import annotations

from types import SimpleNamespace

import pymysql
import pytest
from datajoint.errors import LostConnectionError

from december_plugin.database.outages import is_outage
from december_plugin.pool.jobs.job import Lease
from december_plugin.pool.jobs.records import storable
from december_plugin.pool.worker import job as running
from december_plugin.pool.worker.heartbeat import WorkerState
from december_plugin.pool.worker.job import JobMonitor, WorkerJob
from december_plugin.pool.worker.job_settings import JobWatch
from december_plugin.pool.worker.spool import Spool
from december_plugin.pool.worker.spooled_results import result_to_bytes
from december_plugin.storage.base import StoreUnavailableError
from december_plugin.storage.folder import FolderStore
from december_plugin.training.monitor import Progress

LEASE = Lease("lab", "__trained_model", "0123456789abcdef0123456789abcdef", "a" * 32, 1)
PLACE = ("lab", *LEASE.job)


class OfTheLab:
    """Something that a blob cannot hold."""


@pytest.fixture
def settings(tmp_path) -> SimpleNamespace:
    return SimpleNamespace(
        schema="lab",
        spool=Spool(tmp_path / "spool"),
        store=FolderStore("minio", tmp_path),
        state=WorkerState(),
        heartbeat=SimpleNamespace(lost=set()),
        watch=JobWatch(),
        checkpoint_every=5,
    )


def job(settings) -> WorkerJob:
    return WorkerJob(settings, LEASE, {"seed": 1}, uses_store=False)


def test_a_result_of_a_kind_that_cannot_be_kept_is_stored_all_the_same(settings, caplog):
    job(settings).keep_result(({"score": 0.5}, OfTheLab()))
    assert "the result could not be kept on this machine until it is stored" in caplog.text
    assert settings.spool.entries("lab") == []


def test_a_result_that_cannot_be_read_is_computed_again(settings, caplog):
    settings.spool.put(*PLACE, b"of another release")
    assert job(settings).finished_result() is None
    assert "it cannot be read (" in caplog.text
    assert settings.spool.entries("lab") == []
    assert len(list((settings.spool.folder / "damaged").iterdir())) == 1


def test_a_kept_result_that_cannot_be_stored_is_computed_again(settings, caplog):
    settings.spool.put(*PLACE, result_to_bytes(({"seed": 1}, {"score": 0.5})))
    first = job(settings)
    first.give_result_up()  # computed in this attempt: what was refused may be accepted another time
    assert first.finished_result() == ({"score": 0.5},)
    first.give_result_up()
    assert "it could not be stored" in caplog.text
    assert job(settings).finished_result() is None


def test_a_spool_that_became_read_only_does_not_end_the_worker(settings, caplog, monkeypatch):
    def fails(*_):
        raise StoreUnavailableError("The folder cannot be used.")

    monkeypatch.setattr(settings.spool, "remove", fails)
    job(settings).forget()
    assert "could not be removed from the spool: The folder cannot be used." in caplog.text


def test_nothing_is_inserted_after_the_transaction_was_lost(settings):
    with pytest.raises(LostConnectionError, match="The transaction in which the result was to be stored was lost"):
        job(settings).check_lease(SimpleNamespace(_in_transaction=False))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None])
def test_a_score_that_the_server_refuses_is_no_score(settings, score):
    JobMonitor(settings, LEASE).after_epoch(Progress(1, 20, score, 1.0), lambda: b"state")
    assert (settings.state.epoch, settings.state.score) == (1, None)


def test_slow_copies_of_the_state_are_rare(settings, monkeypatch):
    clock, copies = SimpleNamespace(now=1000.0), []
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=lambda: clock.now))
    settings.checkpoint_every = 1000
    monitor = JobMonitor(settings, LEASE)

    def copy() -> bytes:
        clock.now += 2.0
        copies.append(clock.now)
        return b"state"

    for epoch in range(1, 101):
        clock.now += 1.0
        monitor.after_epoch(Progress(epoch, 200, 0.5, 1.0), copy)
    assert len(copies) == 3  # every 40 s


@pytest.mark.parametrize("code", [1020, 1047, 1203, 1226, 1836, 4031])
def test_a_server_that_refuses_for_now_is_waited_for(code):
    assert is_outage(pymysql.err.OperationalError(code, "later"))


def test_words_for_tables_of_any_character_set():
    assert storable("naïve → \udcff") == "naïve \\u2192 \\udcff"
    assert storable("abcdef", 3) == "abc"


def test_a_spool_that_cannot_be_used_costs_the_safety_and_not_the_job(settings, tmp_path, caplog):
    settings.spool.folder.write_text("a file in the folder's place")
    assert job(settings).finished_result() is None
    assert "so the result is computed even if it was before: The folder" in caplog.text
    job(settings).keep_result(({"score": 0.5},))
    assert "the result could not be kept on this machine until it is stored" in caplog.text
