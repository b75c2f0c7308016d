"""Functions whose launches are recorded, with a recorder of CPU operations in the place of CUDA graphs."""

from __future__ import annotations

import pytest
import torch

from december_plugin.training.launches import CudaRecorder, Launches
from helpers.tape import TapeRecorder


@pytest.fixture
def recorder():
    return TapeRecorder()


def test_a_replay_reads_and_writes_the_same_memory_as_the_function(recorder):
    torch.manual_seed(0)
    given, total = torch.ones(3), torch.zeros(3)
    calls = []

    def add():
        calls.append(None)
        noisy = given * 2 + torch.randn(3)
        total.add_(noisy)

    recorded = Launches(recorder, lambda: [[total]]).recorded(add, "a sum")
    for step in range(6):
        given.fill_(step)
        recorded()
    assert (recorder.recorded, recorder.replays, len(calls)) == (1, 4, 4)  # 2 to warm up, 1 recorded, 1 compared
    torch.manual_seed(0)
    torch.testing.assert_close(total, sum(2.0 * step + torch.randn(3) for step in range(6)))


def test_a_function_that_waits_for_the_device_is_called_as_it_is(recorder, caplog):
    total, calls = torch.zeros(()), []

    def add():
        calls.append(None)
        total.add_(1 if total.item() < 10 else 0)

    recorded = Launches(recorder, lambda: [[total]]).recorded(add, "a sum")
    for _ in range(5):
        recorded()
    assert (total.item(), len(calls), recorder.recorded) == (5, 5, 0)
    text = (
        "a sum is launched kernel by kernel, not as one CUDA graph, and the training may be slower (it waits for the "
        "device (_local_scalar_dense))"
    )
    assert [record.getMessage() for record in caplog.records] == [text]


def test_what_happens_only_at_the_first_call_may_wait(recorder):
    total, chosen = torch.zeros(()), []

    def add():
        if not chosen:
            chosen.append(total.item() + 1)
        total.add_(chosen[0])

    recorded = Launches(recorder, lambda: [[total]]).recorded(add, "a sum")
    for _ in range(5):
        recorded()
    assert (total.item(), recorder.recorded) == (5, 1)


def test_a_function_that_counts_in_python_is_found_out(recorder, caplog):
    total, counter = torch.zeros(()), iter(range(100))

    def add():
        total.add_(next(counter))

    recorded = Launches(recorder, lambda: [[total]]).recorded(add, "a sum")
    for _ in range(4):
        recorded()
    assert recorder.recorded == 1
    assert total.item() == 0 + 1 + 3 + 4  # the recording itself took the 2
    assert "a sum is launched kernel by kernel, not as one CUDA graph" in caplog.text
    assert "(a replay does not do the same as the call itself)" in caplog.text


@pytest.mark.parametrize(("noise", "kinds", "replays"), [(1e-5, 1, 2), (1e-5, 2, 0), (1e-2, 1, 0)])
def test_what_is_rounding_of_larger_tensors_of_its_kind_may_differ(noise, kinds, replays):
    large, small = torch.zeros(3), torch.zeros(3)  # such as the gradients of a kernel, and of a bias that has none

    def add():
        large.add_(100)
        small.normal_(std=noise)

    class Recorder(TapeRecorder):
        def record(self, function):
            function()  # the order of sums, hence the rounding, is another one at each call
            return super().record(function)

        def set_random_state(self, state):
            pass

    recorder = Recorder()
    state = [[large, small]] if kinds == 1 else [[large], [small]]
    recorded = Launches(recorder, lambda: state).recorded(add, "a sum")
    for _ in range(4):
        recorded()
    assert recorder.replays == max(1, replays)


def test_after_a_recording_that_failed_nothing_is_replayed(recorder, caplog):
    total, other = torch.zeros(()), torch.zeros(())
    launches = Launches(recorder, lambda: [[total], [other]])
    waits = []

    def add():
        other.add_(1 if not waits else int(other.item()) * 0 + 1)

    good = launches.recorded(lambda: total.add_(1), "a sum")
    bad = launches.recorded(add, "another sum")
    for step in range(6):
        good()
        if step == 2:
            waits.append(None)  # only now, so that warming up has not shown it
        bad()
    assert (total.item(), other.item()) == (6, 6)
    assert (recorder.recorded, recorder.replays) == (1, 1)
    assert "another sum is launched kernel by kernel" in caplog.text
    assert "(RuntimeError: operation not permitted when stream is capturing)" in caplog.text


def test_all_trainings_of_a_process_record_on_one_stream_of_each_gpu(monkeypatch):
    made = []
    monkeypatch.setattr(torch.cuda, "Stream", made.append)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 90)
    for device in ("cuda", "cuda:90", "cuda:91", "cuda", "cuda:91"):
        CudaRecorder(torch.device(device))
    assert made == [90, 91]
