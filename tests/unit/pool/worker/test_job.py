"""What a worker keeps of a training: a copy in memory every second, a checkpoint every few epochs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pymysql
import pytest
import torch
from datajoint.errors import DataJointError, LostConnectionError

from december_plugin.database.outages import is_outage
from december_plugin.errors import ServerError, SettingsError
from december_plugin.pool.jobs.job import Lease
from december_plugin.pool.jobs.leases import LeaseLostError
from december_plugin.pool.worker import job as running
from december_plugin.pool.worker.heartbeat import WorkerState
from december_plugin.pool.worker.job import JobMonitor
from december_plugin.pool.worker.job_settings import JobWatch
from december_plugin.pool.worker.spooled_results import result_from_bytes, result_to_bytes
from december_plugin.storage.base import StoreUnavailableError
from december_plugin.storage.folder import FolderStore
from december_plugin.training.monitor import Progress

HASH = "0123456789abcdef0123456789abcdef"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(running, "time", clock)
    return clock


class Training:
    """Calls a monitor as a training does, and counts how often its state was copied."""

    def __init__(self, folder, *, every: int = 3, attempt: int = 1, clock: Clock | None = None):
        self.store, self.clock = FolderStore("minio", folder), clock
        self.lease = Lease("lab", "__trained_model", HASH, "a" * 32, attempt)
        self.state = WorkerState()
        self.heartbeat = SimpleNamespace(lost=set(), beat_soon=lambda: None)
        settings = SimpleNamespace(
            schema="lab",
            store=self.store,
            state=self.state,
            heartbeat=self.heartbeat,
            checkpoint_every=every,
            watch=JobWatch(),
        )
        self.monitor = JobMonitor(settings, self.lease)
        self.n_copies, self.epoch = 0, 0

    def run(self, epochs: int, *, seconds: float = 10.0) -> None:
        for _ in range(epochs):
            self.epoch += 1
            if self.clock is not None:
                self.clock.now += seconds
            self.monitor.after_epoch(Progress(self.epoch, 20, 0.25, seconds), self.copy)

    def copy(self) -> bytes:
        self.n_copies += 1
        return f"state of epoch {self.epoch}".encode()


def stored(folder, attempt: int = 1) -> bytes | None:
    lease = Lease("lab", "__trained_model", HASH, "b" * 32, attempt)
    return JobMonitor(Training(folder).monitor.settings, lease).load()


def test_a_checkpoint_every_few_epochs(tmp_path, clock):
    training = Training(tmp_path, every=3, clock=clock)
    training.run(2)
    assert stored(tmp_path) is None
    training.run(1)
    assert stored(tmp_path) == b"state of epoch 3"
    training.run(4)
    assert stored(tmp_path) == b"state of epoch 6"
    training.monitor.flush()
    assert stored(tmp_path) == b"state of epoch 7"
    assert (training.state.epoch, training.state.n_epochs, training.state.score) == (7, 20, 0.25)
    assert training.state.seconds_left == 130.0
    assert training.state.has_checkpoint


def test_short_epochs_are_not_copied_each(tmp_path, clock):
    training = Training(tmp_path, every=100, clock=clock)
    training.run(50, seconds=0.25)
    assert training.n_copies == 13
    training.monitor.flush()
    assert stored(tmp_path) == b"state of epoch 49"


def test_nothing_is_saved_twice(tmp_path, clock):
    training = Training(tmp_path, every=1, clock=clock)
    training.run(1)
    (file,) = list(training.store.list("december_checkpoints/lab/__trained_model"))
    training.store.remove(file.path)
    training.monitor.flush()
    assert stored(tmp_path) is None


def test_a_store_that_is_away_costs_no_epoch_and_is_tried_again(tmp_path, clock, caplog):
    training = Training(tmp_path, every=2, clock=clock)
    real = training.store.put

    def fails(path, payload):
        raise StoreUnavailableError("The store is full.")

    training.store.put = fails
    training.run(4)
    assert caplog.text.count("could not be saved: The store is full.") == 1
    training.store.put = real
    training.run(2)
    assert stored(tmp_path) == b"state of epoch 5"


def test_a_lost_lease_ends_the_training(tmp_path, clock):
    training = Training(tmp_path, every=1, clock=clock)
    training.run(1)
    training.heartbeat.lost.add(training.lease)
    with pytest.raises(LeaseLostError, match="went to another worker, so this result is discarded"):
        training.run(1)
    assert stored(tmp_path) == b"state of epoch 1"


def test_an_earlier_attempt_never_replaces_what_a_later_one_has_saved(tmp_path, clock):
    first = Training(tmp_path, every=1, clock=clock)
    first.run(1)
    second = Training(tmp_path, every=1, attempt=2, clock=clock)
    assert second.monitor.load() == b"state of epoch 1"
    second.run(5)
    first.run(1)  # it was suspended, and goes on for a moment
    assert stored(tmp_path) == b"state of epoch 5"
    second.monitor.remove()
    assert list(first.store.list("december_checkpoints")) == []


def test_a_damaged_checkpoint_gives_way_to_an_older_whole_one(tmp_path, clock):
    Training(tmp_path, every=1, clock=clock).run(2)
    second = Training(tmp_path, every=1, attempt=2, clock=clock)
    second.monitor.checkpoints._is_first = False  # the older one stays
    second.run(3)
    newest = max(tmp_path.rglob("*-00000002"))
    newest.write_bytes(newest.read_bytes()[:-1])
    assert stored(tmp_path) == b"state of epoch 2"


def test_results_keep_their_types():
    result = (
        {"seed": 1, "model_fn": "x"},
        {"score": 0.5, "output": {"curves": np.arange(3.0), "mixture": None, "flags": [True, 2, "three"]}},
        {"core.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3), "count": 3, "nested": {"t": torch.ones(1)}},
    )
    read = result_from_bytes(result_to_bytes(result))
    assert isinstance(read, tuple)
    assert read[0] == result[0]
    assert read[1]["output"]["flags"] == [True, 2, "three"]
    assert read[1]["output"]["mixture"] is None
    np.testing.assert_array_equal(read[1]["output"]["curves"], np.arange(3.0))
    assert read[1]["output"]["curves"].dtype == np.float64
    assert torch.equal(read[2]["core.weight"], result[2]["core.weight"])
    assert read[2]["core.weight"].dtype == torch.float32
    assert (read[2]["count"], read[2]["nested"]["t"].item()) == (3, 1.0)


def test_rows_of_sessions_survive(tmp_path):
    sessions = [{"data_key": "1-1", "labels": np.arange(4, dtype=np.int16), "confidences": np.ones(4, np.float32)}]
    _, rows = result_from_bytes(result_to_bytes(({"n_neurons": 4}, sessions)))
    assert rows[0]["labels"].dtype == np.int16
    assert rows[0]["confidences"].dtype == np.float32


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (LostConnectionError("Connection was lost during a transaction."), True),
        (pymysql.err.OperationalError(2003, "Can't connect"), True),
        (pymysql.err.OperationalError(2013, "Lost connection"), True),
        (pymysql.err.OperationalError(1213, "Deadlock found"), True),
        (pymysql.err.InterfaceError(0, ""), True),
        (StoreUnavailableError("away"), True),
        (ServerError("away"), True),
        (OSError(28, "No space left on device"), True),
        (pymysql.err.OperationalError(1153, "Got a packet bigger than max_allowed_packet"), False),
        (DataJointError("Referential integrity failed!"), False),
        (SettingsError("wrong"), False),
        (FileNotFoundError(2, "No such file or directory"), False),
        (ValueError("x"), False),
        (LeaseLostError("gone"), False),
    ],
)
def test_what_passes_and_what_is_the_jobs_own_failure(error, passes):
    assert is_outage(error) is passes


def test_what_is_kept_of_an_interrupted_job_is_said(tmp_path, clock):
    first = Training(tmp_path, every=100, clock=clock)
    assert first.monitor.load() is None
    assert first.monitor.what_is_kept == "nothing of it is saved, so the next worker starts it over"
    first.run(14)
    first.monitor.flush()
    assert first.monitor.what_is_kept == "saved after epoch 14, from which the next worker continues"
    second = Training(tmp_path, attempt=2, clock=clock)
    assert second.monitor.load() is not None
    assert second.monitor.what_is_kept == "the next worker continues from the checkpoint that this one started from"
