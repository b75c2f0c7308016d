"""The folder of shared pretrainings, with real processes and real damage."""

from __future__ import annotations

import functools
import multiprocessing
import os
import shutil
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from december_plugin.datasets import static_loaders
from december_plugin.training.fingerprint import content_digest, data_digest, structure_digest
from december_plugin.training.pretraining import PretrainingCache, pretraining_folder
from helpers.trainings import make_loaders, make_model


def state(value: float = 1.0) -> dict:
    return {"model": {"weight": torch.full((3,), value)}, "epoch": 3}


def never() -> dict:
    raise AssertionError("computed again")


def compute_and_count(folder, key, seconds, counts):
    def compute():
        with counts.get_lock():
            counts.value += 1
        time.sleep(seconds)
        return state()

    result, _ = PretrainingCache(folder).get_or_compute(key, compute)
    assert torch.equal(result["model"]["weight"], torch.ones(3))


def test_what_was_computed_is_found(tmp_path):
    cache = PretrainingCache(tmp_path / "new" / "folder")
    first, found = cache.get_or_compute("a", state)
    assert not found
    second, found = cache.get_or_compute("a", never)
    assert found
    assert torch.equal(first["model"]["weight"], second["model"]["weight"])
    assert not list((tmp_path / "new" / "folder").glob("*.writing"))


def test_two_processes_that_want_the_same_compute_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    counts = context.Value("i", 0)
    processes = [
        context.Process(target=compute_and_count, args=(tmp_path, "a", 0.5, counts), daemon=True) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert counts.value == 1


def test_a_killed_process_leaves_the_work_to_the_next(tmp_path):
    context = multiprocessing.get_context("fork")
    counts = context.Value("i", 0)
    process = context.Process(target=compute_and_count, args=(tmp_path, "a", 60, counts), daemon=True)
    process.start()
    deadline = time.monotonic() + 20
    while counts.value == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    _, found = PretrainingCache(tmp_path).get_or_compute("a", state)
    assert not found
    PretrainingCache(tmp_path).get_or_compute("a", never)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_file_is_computed_again(tmp_path, caplog, damage):
    cache = PretrainingCache(tmp_path)
    cache.get_or_compute("a", state)
    content = (tmp_path / "a.pt").read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    (tmp_path / "a.pt").write_bytes({"truncated": content[:-10], "flipped": flipped, "empty": b""}[damage])
    result, found = cache.get_or_compute("a", lambda: state(2.0))
    assert not found
    assert result["model"]["weight"][0] == 2
    assert "a.pt is damaged and is computed again" in caplog.text
    cache.get_or_compute("a", never)


def test_without_a_usable_folder_nothing_is_shared_and_nothing_is_lost(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    result, found = PretrainingCache(tmp_path / "file").get_or_compute("a", state)
    assert not found
    assert result["epoch"] == 3
    assert "the pretraining is not shared with other runs" in caplog.text


def test_a_folder_that_vanishes_meanwhile_costs_nothing(tmp_path, caplog):
    cache = PretrainingCache(tmp_path / "folder")

    def compute() -> dict:
        cache.report_progress(1, 0.1)
        shutil.rmtree(tmp_path / "folder")
        cache.report_progress(2, 0.1)
        return state()

    computed, found = cache.get_or_compute("a", compute)
    assert not found
    assert torch.equal(computed["model"]["weight"], torch.ones(3))
    assert "the pretraining is not shared with other runs: it cannot be stored (" in caplog.text
    assert cache.get_or_compute("a", state)[1] is False  # the next one makes the folder anew


def test_the_folder_can_be_set(monkeypatch, tmp_path):
    monkeypatch.setenv("DECEMBER_PRETRAINING", str(tmp_path))
    assert pretraining_folder() == tmp_path
    monkeypatch.delenv("DECEMBER_PRETRAINING")
    assert pretraining_folder().name == "pretraining"


def test_digests_depend_on_content_only():
    assert structure_digest(make_model()) == structure_digest(make_model(seed=1))
    assert structure_digest(make_model()) != structure_digest(make_model(gamma_readout=0.5))
    assert content_digest(make_model().state_dict()) == content_digest(make_model().state_dict())
    assert content_digest(make_model().state_dict()) != content_digest(make_model(seed=1).state_dict())


def test_digest_of_foreign_loaders_reads_them_without_disturbing_the_random_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = data_digest(make_loaders(), ("train", "validation"))
    assert torch.equal(torch.rand(3), expected)
    assert first == data_digest(make_loaders(), ("train", "validation"))
    assert first != data_digest(make_loaders(data_seed=3), ("train", "validation"))


def test_digest_tells_trials_and_batches_apart(recording_folders):
    def digest(**settings):
        loaders = static_loaders(recording_folders, **{"batch_size": 16, **settings})
        return data_digest(loaders, ("train", "validation"))

    assert digest() == digest()
    digests = [digest(), digest(batch_size=8), digest(neuron_n=10, neuron_base_seed=1)]
    digests += [digest(image_n=20, image_base_seed=seed) for seed in (1, 2)]
    assert len(set(digests)) == len(digests)


def frozen_core():
    model = make_model()
    model.core.requires_grad_(False)
    return model


def with_attribute(value):
    model = make_model()
    model.core.extra = value
    return model


def scaled_by(factor):
    return lambda x: factor * x


def with_hook():
    model = make_model()
    model.core.register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


def test_models_that_train_differently_have_different_digests():
    models = [make_model(), frozen_core(), with_hook()]
    models += [with_attribute(functools.partial(torch.nn.functional.elu, alpha=alpha)) for alpha in (1, 5)]
    models += [with_attribute(SimpleNamespace(gamma=gamma)) for gamma in (1, 100)]
    models += [with_attribute(scaled_by(factor)) for factor in (1, 2)]
    models += [with_attribute(lambda x: x + 1), with_attribute(lambda x: x - 1)]
    digests = [structure_digest(model) for model in models]
    assert len(set(digests)) == len(digests)
    assert structure_digest(with_attribute(scaled_by(2))) == digests[-3]


def test_a_file_of_another_user_that_cannot_be_read_is_computed_again(tmp_path, monkeypatch, caplog):
    cache = PretrainingCache(tmp_path)
    cache.get_or_compute("a", state)
    assert (tmp_path / "a.pt").stat().st_mode & 0o044  # others may read it, as the umask says

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "read_bytes", refuse)
    assert not cache.get_or_compute("a", state)[1]
    assert "cannot be read" in caplog.text


# --- holders of the lock that hang -----------------------------------------------------------------------------


def hold(folder, started, finished, seconds, epochs=0):
    cache = PretrainingCache(folder)

    def compute():
        started.set()
        for epoch in range(epochs):
            time.sleep(seconds / epochs)
            cache.report_progress(epoch + 1, seconds / epochs)
        if not epochs:
            finished.wait(seconds)
        return state()

    cache.get_or_compute("a", compute)


@pytest.fixture
def holder(tmp_path):
    """Start a process that computes ``a``: for so many seconds, reporting so many epochs."""
    context = multiprocessing.get_context("fork")
    processes = []

    def start(seconds, epochs=0):
        started, finished = context.Event(), context.Event()
        process = context.Process(target=hold, args=(tmp_path, started, finished, seconds, epochs), daemon=True)
        process.start()
        processes.append(process)
        assert started.wait(30)
        return process, finished

    yield start
    for process in processes:
        process.kill()
        process.join(10)


def test_nobody_waits_for_a_suspended_process(tmp_path, holder, caplog):
    process, finished = holder(60)
    os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    result, found = PretrainingCache(tmp_path, patience=0.4, poll=0.02).get_or_compute("a", lambda: state(2.0))
    assert 0.4 < time.monotonic() - began < 30
    assert not found
    assert result["model"]["weight"][0] == 2
    assert "the worker that computes the same pretraining (a...) has not finished an epoch for " in caplog.text
    assert "this one computes it too" in caplog.text
    # The others need not wait again.
    began = time.monotonic()
    assert PretrainingCache(tmp_path, patience=60).get_or_compute("a", never)[1]
    assert time.monotonic() - began < 10
    os.kill(process.pid, signal.SIGCONT)
    finished.set()
    process.join(30)
    assert process.exitcode == 0
    assert PretrainingCache(tmp_path).get_or_compute("a", never)[1]
    assert not (tmp_path / "a.progress").exists()


def test_a_slow_process_that_gets_on_is_waited_for(tmp_path, holder):
    holder(2.0, epochs=8)
    # Far less than the two seconds, more than an epoch.
    result, found = PretrainingCache(tmp_path, patience=1.0, poll=0.02).get_or_compute("a", never)
    assert found
    assert result["epoch"] == 3


def test_long_epochs_are_waited_for(tmp_path, holder):
    """The patience is less than an epoch, but five times what the holder says that its epochs take is more."""
    process, finished = holder(60)
    (tmp_path / "a.progress").write_text("1 0.4\n")
    began = time.monotonic()
    assert not PretrainingCache(tmp_path, patience=0.1, poll=0.02).get_or_compute("a", state)[1]
    assert time.monotonic() - began > 2.0
    finished.set()
    process.join(30)


def test_who_waits_takes_what_another_waiter_has_computed(tmp_path, holder):
    process, _ = holder(60)
    os.kill(process.pid, signal.SIGSTOP)
    impatient = threading.Thread(
        target=PretrainingCache(tmp_path, patience=0.3, poll=0.02).get_or_compute, args=("a", state)
    )
    impatient.start()
    assert PretrainingCache(tmp_path, patience=60, poll=0.02).get_or_compute("a", never)[1]
    impatient.join()
    os.kill(process.pid, signal.SIGCONT)


def test_an_unreadable_progress_is_no_progress(tmp_path, holder):
    holder(60)
    (tmp_path / "a.progress").write_bytes(b"\xff\xfe no number")
    assert not PretrainingCache(tmp_path, patience=0.2, poll=0.02).get_or_compute("a", state)[1]


def test_progress_that_cannot_be_written_costs_nothing(tmp_path, caplog):
    cache = PretrainingCache(tmp_path)

    def compute():
        (tmp_path / "a.progress").unlink()
        (tmp_path / "a.progress").mkdir()
        cache.report_progress(1, 2.0)
        cache.report_progress(2, 2.0)
        return state()

    assert not cache.get_or_compute("a", compute)[1]
    assert caplog.text.count("other runs may not wait for this pretraining: progress cannot be written") == 1
    cache.get_or_compute("a", never)


def test_a_failed_computation_gives_the_lock_back_while_its_error_is_still_held(tmp_path, caplog):
    caplog.set_level("INFO")

    def fail():
        raise KeyError("no")

    with pytest.raises(KeyError) as caught:
        PretrainingCache(tmp_path).get_or_compute("a", fail)
    assert not PretrainingCache(tmp_path, patience=2).get_or_compute("a", state)[1]
    assert caught.value.__context__ is None
    assert "waiting for another worker" not in caplog.text
