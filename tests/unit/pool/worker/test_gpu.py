"""The GPU of a worker: its share of the memory, and what failures of CUDA mean; with a stand-in for CUDA."""

from __future__ import annotations

import gc
import logging
import re
import traceback
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from december_plugin.pool.memory_share import OVERHEAD
from december_plugin.pool.worker import gpu as gpu_module
from december_plugin.pool.worker.gpu import (
    DeviceBrokenError,
    GpuMemoryError,
    MemoryUse,
    MpsLostError,
    WorkerGpu,
    is_lost_mps,
    is_out_of_memory,
)

GIBIBYTE = 1 << 30
UUID = "GPU-aaaaaaaa-0000-0000-0000-000000000000"
KEY = {"model_fn": "december_plugin.models.stacked", "model_hash": "0123456789abcdef", "seed": 1}


class Cuda:
    """A GPU of 80 GiB, as ``torch.cuda`` shows it."""

    def __init__(self, *, available: bool = True, free: float = 80.0, own: float = 0.0):
        self.available, self.free, self.own = available, free, own
        self.fraction: float | None = None
        self.emptied = 0

    def is_available(self) -> bool:
        return self.available

    def is_initialized(self) -> bool:
        return True

    def get_device_properties(self, device: int) -> SimpleNamespace:
        return SimpleNamespace(total_memory=80 * GIBIBYTE)

    def get_device_name(self, device: int) -> str:
        return "NVIDIA H100 80GB HBM3"

    def set_per_process_memory_fraction(self, fraction: float) -> None:
        self.fraction = fraction

    def mem_get_info(self) -> tuple[int, int]:
        return int(self.free * GIBIBYTE), 80 * GIBIBYTE

    def memory_reserved(self) -> int:
        return int(self.own * GIBIBYTE)

    def empty_cache(self) -> None:
        self.emptied += 1


def given(cuda: Any = None, **more: Any) -> WorkerGpu:
    settings = {"label": "0", "device": UUID, "name": "NVIDIA H100", "memory": 80 * GIBIBYTE, **more}
    return WorkerGpu(**settings, cuda=cuda or Cuda())


# ---- what it is given


def test_what_the_supervisor_has_set():
    environment = {
        "CUDA_VISIBLE_DEVICES": UUID,
        "DECEMBER_GPU": "3",
        "DECEMBER_GPU_NAME": "NVIDIA L4",
        "DECEMBER_GPU_MEMORY": "24",
        "DECEMBER_GPU_WORKERS": "2",
        "CUDA_MPS_PIPE_DIRECTORY": "/tmp/mps",
    }
    assert WorkerGpu.from_environment(environment) == WorkerGpu("3", UUID, "NVIDIA L4", 24, 2, uses_mps=True)
    assert WorkerGpu.from_environment({}) == WorkerGpu()


def test_a_worker_that_shares_its_gpu_takes_no_more_than_its_share():
    cuda = Cuda()
    shared = given(cuda, n_sharing=4)
    assert shared.prepare("Clustering") is shared  # an idle worker, or one without a training, takes no memory there
    assert cuda.fraction is None
    ready = shared.prepare("TrainedModel")
    assert cuda.fraction == pytest.approx((20 - 0.5) / 80)
    assert (ready.name, ready.memory) == ("NVIDIA H100 80GB HBM3", 80 * GIBIBYTE)
    cuda.fraction = None
    assert ready.prepare("TrainedModel") is ready
    assert cuda.fraction is None


def test_a_worker_alone_on_its_gpu_may_take_all_of_it():
    cuda = Cuda()
    assert given(cuda, name="").prepare("TestPerformance").name == "NVIDIA H100 80GB HBM3"
    assert cuda.fraction is None


def test_a_gpu_that_cuda_does_not_find_is_no_reason_to_train_on_the_processor(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(gpu_module, "_has_driver", lambda: True)
    cuda = Cuda(available=False)
    with pytest.raises(
        DeviceBrokenError, match=f"CUDA does not find the GPU 0 \\({UUID}\\), which this worker was given"
    ):
        given(cuda).prepare("TrainedModel")
    with pytest.raises(MpsLostError, match="the GPU 0 cannot be used: its MPS does not answer"):
        given(cuda, uses_mps=True).prepare("TrainedModel")
    # Nobody has seen the GPU of a number that only a scheduler has set, and none was given to the processor's workers.
    for found in (given(cuda, device="0").prepare("TrainedModel"), given(cuda, label="").prepare("TrainedModel")):
        assert (found.name, found.memory, found.n_sharing, found.is_ready) == ("", 0, 0, True)


@pytest.mark.parametrize(
    ("version", "has_driver", "why"),
    [
        (None, True, r"this torch \(.*\) was built without CUDA. Install a build with CUDA"),
        ("12.8", False, "libcuda.so.1 is missing. Install NVIDIA's driver, or make it available in the container"),
    ],
)
def test_a_machine_on_which_torch_can_use_no_gpu(monkeypatch, caplog, version, has_driver, why):
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(gpu_module, "_has_driver", lambda: has_driver)
    with caplog.at_level(logging.WARNING):
        assert given(Cuda(available=False)).prepare("TrainedModel").name == ""
    (record,) = caplog.records
    assert record.getMessage().startswith("trainings run on the processor and not on the GPU 0: ")
    assert re.search(why, record.getMessage())


# ---- failures


has_numbers = pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="torch before 2.8 gives no numbers")


def accelerator_error(code: int | None, words: str = "CUDA error: unspecified launch failure") -> RuntimeError:
    """Return the error of torch from version 2.8 on, which has CUDA's number; before, one that has the words alone."""
    error = getattr(torch, "AcceleratorError", RuntimeError)(words)
    if code is not None:
        error.error_code = code
    return error


@pytest.mark.parametrize(
    "error", [ValueError("CUDA is nice"), RuntimeError("shapes do not match"), torch.OutOfMemoryError("CUDA"), None]
)
def test_most_errors_are_the_jobs_own(error):
    assert given().failure(error) is None


@pytest.mark.parametrize(
    "error",
    [
        accelerator_error(719),
        accelerator_error(None),
        RuntimeError("CUDA error: an illegal memory access"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
    ],
)
def test_after_an_error_of_cuda_the_process_has_no_gpu_any_more(error):
    failure = given().failure(error)
    assert type(failure) is DeviceBrokenError
    assert str(failure) == f"this process can no longer use the GPU: {error}"
    under_mps = given(uses_mps=True).failure(error)
    assert str(under_mps).endswith("a fault of one worker is reported to all that share the GPU: it may be another's.")


@pytest.mark.parametrize(
    "error",
    [
        *(pytest.param(accelerator_error(code), marks=has_numbers) for code in (805, 806, 807, 808, 809, 810)),
        RuntimeError("CUDA error: the remote procedural call between the MPS server and the MPS client failed"),
    ],
)
def test_an_end_of_mps_is_no_failure_of_the_job(error):
    failure = given(uses_mps=True).failure(error)
    assert isinstance(failure, MpsLostError)
    assert str(failure).startswith("MPS, through which this worker used the GPU 0, has ended: CUDA error: ")
    assert is_lost_mps(error)


def test_too_little_memory_is_known_by_the_kind_of_error_and_not_by_its_words():
    assert is_out_of_memory(torch.OutOfMemoryError("anything"))
    assert not is_out_of_memory(ValueError("CUDA out of memory"))


@has_numbers
def test_too_little_memory_is_known_by_its_number():
    assert is_out_of_memory(accelerator_error(2, "CUDA error: anything"))
    assert given().failure(accelerator_error(2)) is None


@pytest.mark.parametrize(
    "words",
    [
        "Triton Error [CUDA]: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_libraries_that_allocate_beside_torch_tell_of_too_little_memory_in_words(words):
    error = RuntimeError(words)
    assert is_out_of_memory(error)
    assert given().failure(error) is None
    assert not is_out_of_memory(ValueError(words))


# ---- memory


def test_who_has_the_memory():
    use = given(Cuda(free=10, own=25), n_sharing=2).memory_use()
    assert use is not None
    assert use.allowed == 40 * GIBIBYTE - OVERHEAD
    assert use.of_others == 45 * GIBIBYTE

    def fails() -> None:
        raise RuntimeError("CUDA error")

    broken = Cuda()
    broken.mem_get_info = fails
    assert given(broken).memory_use() is None


@pytest.mark.parametrize(
    ("n_sharing", "free", "own", "crowded"),
    [
        (1, 0.2, 79.3, False),  # the job alone has it all
        (1, 0.2, 50.0, True),  # somebody else has 30 GiB
        (2, 41.0, 38.5, False),  # at the end of its share, with a neighbour that has none
        (2, 1.0, 39.0, False),  # its neighbour has its own share
        (2, 0.1, 20.0, True),  # the others have more than one share
        (4, 0.1, 2.0, True),
    ],
)
def test_memory_that_others_have_taken_is_told_from_a_job_that_is_too_large(n_sharing, free, own, crowded):
    use = given(Cuda(free=free, own=own), n_sharing=n_sharing).memory_use()
    assert use.is_crowded == crowded


def test_a_job_that_is_too_large_is_told_with_the_model_and_what_to_do():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    use = MemoryUse(80 * GIBIBYTE, 0, 80 * GIBIBYTE, 79 * GIBIBYTE)
    alone = given().explained(error, use, KEY)
    assert isinstance(alone, GpuMemoryError)
    assert str(alone) == (
        "the GPU ran out of memory for a job of december_plugin.models.stacked (01234567): NVIDIA H100 has 80.0 GiB, "
        "and the job alone needs more. Lower the batch size of its dataset, use a smaller model, or a GPU with more "
        "memory; then `december jobs retry`."
    )
    use = MemoryUse(80 * GIBIBYTE, 0, 39 * GIBIBYTE, 39 * GIBIBYTE)
    assert str(given(n_sharing=2).explained(error, use, {})) == (
        "the GPU ran out of memory for a job: NVIDIA H100 has 80.0 GiB, and each of its 2 workers may use 39.0 GiB. "
        "Start the pool with fewer --workers-per-gpu, lower the batch size of the dataset, or use a smaller model; "
        "then `december jobs retry`."
    )
    use = MemoryUse(80 * GIBIBYTE, 0, 80 * GIBIBYTE, 20 * GIBIBYTE)
    assert str(given(name="").explained(error, use, {})) == (
        "the GPU ran out of memory for a job: the GPU has 80.0 GiB, of which processes outside this pool, or of "
        "another, use 60.0 GiB. `nvidia-smi` names them. End them or choose another GPU with --gpus, then `december "
        "jobs retry`."
    )
    assert "use a smaller model. CUDA out of memory. Tried to" in str(given().explained(error, None, {}))


def test_a_failed_job_gives_its_memory_back_and_keeps_its_traceback():
    class Large:
        pass

    seen: list[weakref.ref[Large]] = []

    def fails() -> None:
        large = Large()
        seen.append(weakref.ref(large))
        try:
            raise torch.OutOfMemoryError("first")
        except torch.OutOfMemoryError as error:
            raise RuntimeError("wrapped by a trainer") from error

    cuda = Cuda()
    try:
        fails()
    except RuntimeError as error:
        kept = error
    gc.collect()
    assert seen[0]() is not None
    given(cuda).release_memory(kept)
    assert seen[0]() is None
    assert cuda.emptied == 1
    assert "in fails" in "".join(traceback.format_exception(kept))
