"""Monitors, and trainings that are interrupted by exceptions, signals and the end of their process."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import time

import pytest
import torch

import helpers
from december_plugin.training import snapshot
from december_plugin.training.monitor import Monitor, current_monitor, monitored
from december_plugin.training.pretraining import PretrainingCache, pretraining_folder
from helpers import interrupted_child
from helpers.interrupted import Interrupted, Recorder, train

SETTINGS = interrupted_child.SETTINGS


@pytest.fixture(autouse=True)
def _impatient(own_pretrainings, monkeypatch):
    # A lock that is not given back makes a test fail, and not wait for ten minutes.
    monkeypatch.setitem(PretrainingCache.__init__.__kwdefaults__, "patience", 2.0)


# --- monitors -------------------------------------------------------------------------------------------------


def test_a_monitor_is_that_of_its_block_and_thread():
    outer, inner, seen = Monitor(), Monitor(), []
    with monitored(outer):
        with monitored(inner):
            assert current_monitor() is inner
        assert current_monitor() is outer
        thread = threading.Thread(target=lambda: seen.append(current_monitor()))
        thread.start()
        thread.join()
    assert seen[0] is current_monitor()
    assert current_monitor() not in (outer, inner)
    assert current_monitor().load() is None


@pytest.mark.parametrize(
    ("settings", "n_epochs"),
    [(SETTINGS, 8), ({"max_iter": 4}, 4), ({"max_iter": 9, "pretrain_epochs": 2, "stop_after_pretraining": True}, 2)],
)
def test_progress_of_every_epoch(settings, n_epochs):
    recorder = Recorder(record=False)
    began = time.monotonic()
    score, output, _ = train(recorder, **settings)
    lasted = time.monotonic() - began
    curves = dict(dict(output)["curves"])
    scores = torch.frombuffer(bytearray(curves["validation_correlation"][2]), dtype=torch.float64).tolist()
    assert [progress.epoch for progress in recorder.progress] == list(range(1, len(scores) + 1))
    assert [progress.score for progress in recorder.progress] == scores
    assert {progress.n_epochs for progress in recorder.progress} == {n_epochs}
    last = recorder.progress[-1]
    assert 0 < last.seconds_per_epoch * last.epoch < lasted
    assert float.fromhex(score) in scores


def test_seconds_per_epoch_are_those_of_this_process():
    class Slow(Recorder):
        def after_epoch(self, progress, get_state):
            super().after_epoch(progress, get_state)
            time.sleep(0.3)  # what the monitor does is no part of the epoch

    recorder = Slow(stop=2)
    with pytest.raises(Interrupted):
        train(recorder, **SETTINGS)
    resumed = Slow(recorder.states[2], record=False)
    began = time.monotonic()
    train(resumed, **SETTINGS)
    lasted = time.monotonic() - began - 6 * 0.3
    assert resumed.progress[-1].epoch == 8
    assert 0 < resumed.progress[-1].seconds_per_epoch * 6 < lasted


def test_a_state_is_taken_only_on_demand_and_does_not_change_afterwards(monkeypatch):
    taken = []

    class Once(Monitor):
        def after_epoch(self, progress, get_state):
            if progress.epoch == 4:
                taken.extend([get_state(), get_state()])

    packed = []
    original = snapshot.pack
    monkeypatch.setattr(snapshot, "pack", lambda *arguments: packed.append(1) or original(*arguments))
    expected = train(Once(), **SETTINGS)
    assert len(packed) == 2
    assert taken[0] == taken[1]
    assert isinstance(taken[0], bytes)
    assert train(Recorder(taken[0]), **SETTINGS) == expected


# --- exceptions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [2, 3, 5])
@pytest.mark.parametrize("kind", [Interrupted, RuntimeError, OSError])
def test_what_a_monitor_raises_leaves_the_trainer_unchanged(kind, epoch, caplog):
    caplog.set_level("INFO")
    raised = kind("stop")

    class Stopping(Monitor):
        def after_epoch(self, progress, get_state):
            if progress.epoch == epoch:
                raise raised

    before = torch.get_rng_state()
    with pytest.raises(kind) as caught:
        train(Stopping(), **SETTINGS)
    assert caught.value is raised
    assert raised.__cause__ is None
    assert raised.__context__ is None
    assert torch.equal(torch.get_rng_state(), before)
    recorder = Recorder(record=False, stop=epoch)
    with pytest.raises(Interrupted):
        train(recorder, **SETTINGS)
    assert recorder.progress[0].epoch == (1 if epoch <= 3 else 4)
    # The lock of the pretraining was free, though the exception, and with it every frame, is still held.
    assert "waiting for another worker" not in caplog.text


def test_what_load_raises_leaves_the_trainer():
    class Unreachable(Monitor):
        def load(self):
            raise ConnectionError("store")

    with pytest.raises(ConnectionError, match=r"^store$"):
        train(Unreachable(), **SETTINGS)


# --- processes ------------------------------------------------------------------------------------------------


@pytest.fixture
def new_process(monkeypatch):
    """Start processes by a server that has imported what they need and computed nothing."""
    monkeypatch.setenv("PYTHONPATH", helpers.FOLDER)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.interrupted_child"])
    return context.Process


@pytest.mark.parametrize(("workers", "n_epochs"), [(0, 8), (1, 5)])
@pytest.mark.slow(4)
def test_a_signal_handler_may_raise_anywhere(workers, n_epochs, tmp_path, new_process):
    """The training is interrupted at random moments, again and again, until it ends.

    In a process of its own: what is raised within another library, such as in the middle of taking or giving back a
    lock of the logging module, may leave it unfit for the tests that follow.
    """
    done = tmp_path / "done"
    process = new_process(target=interrupted_child.train_while_interrupted, args=(done, tmp_path, workers, n_epochs))
    process.start()
    process.join(300)
    if process.is_alive():
        process.kill()
        process.join()
    assert process.exitcode == 0
    interruptions, result, expected = pickle.loads(done.read_bytes())
    # Every process but the first comes about one epoch further.
    assert interruptions >= 2
    assert result == expected


@pytest.mark.slow(4)
def test_processes_that_are_killed_or_told_to_stop_and_the_one_that_ends_the_work(tmp_path, new_process):
    """Killed in the pretraining, told to stop within an epoch of it, killed after it, told to stop again."""
    kill_at, term_within = interrupted_child.KillAt, interrupted_child.TermWithin
    steps = [(kill_at(1), -9), (term_within(2), 143), (kill_at(5), -9), (term_within(6), 143), (None, 0)]
    expected = train(**SETTINGS)
    for file in pretraining_folder().glob("*"):
        file.unlink()
    path, done = tmp_path / "state", tmp_path / "done"
    for position, (act, code) in enumerate(steps):
        process = new_process(target=interrupted_child.train_to_file, args=(path, done, act), daemon=True)
        process.start()
        process.join(120)
        assert process.exitcode == code, f"step {position}"
        assert done.exists() == (code == 0)
    assert done.read_text() == repr(expected)


@pytest.mark.gpu
def test_on_a_gpu_a_resumed_training_goes_on_as_well():
    """The gradient of grid_sample adds in any order there: curves before are the same bytes, those after are close."""
    settings = {**SETTINGS, "device": "cuda", "patience": 9, "share_pretraining": False}
    recorder = Recorder()
    _, expected, _ = train(recorder, **settings)
    for epoch in (1, 3, 5, 8):
        resumed = Recorder(recorder.states[epoch])
        _, output, _ = train(resumed, **settings)
        for name in ("train_loss", "validation_correlation"):
            first, second = (
                torch.frombuffer(bytearray(dict(dict(x)["curves"])[name][2]), dtype=torch.float64)
                for x in (expected, output)
            )
            assert torch.equal(first[:epoch], second[:epoch])
            torch.testing.assert_close(first, second, rtol=0.05, atol=0.05)
        assert [progress.epoch for progress in resumed.progress] == list(range(epoch + 1, 9))
