"""The GPU of a worker: its share of the memory, and what a failure of CUDA means.

Workers that share a GPU each have a fixed share of its memory. Otherwise, whether a training runs would depend on what
its neighbour happens to train. With fixed shares, a training that is too large fails alone, with a message that says
so, and does not affect the others. A worker waits for memory that processes outside the pool have taken.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch

from december_plugin.errors import DecemberError
from december_plugin.pool.jobs.queue import GPU_TABLES
from december_plugin.pool.memory_share import OVERHEAD, memory_share

logger = logging.getLogger(__name__)

GIBIBYTE = 1 << 30
MPS_CODES = range(805, 811)  # cudaErrorMpsConnectionFailed to cudaErrorMpsClientTerminated
OUT_OF_MEMORY_CODE = 2  # cudaErrorMemoryAllocation
UNKNOWN_CODE = 999  # cudaErrorUnknown
TRITON_ERROR = "Triton Error [CUDA]"  # how its RuntimeErrors begin, which have no code
DRIVER = "libcuda.so.1"
MPS_PIPES = "CUDA_MPS_PIPE_DIRECTORY"


class DeviceBrokenError(Exception):
    """After a failure of CUDA, the process can no longer use the GPU."""


class MpsLostError(DeviceBrokenError):
    """MPS, through which the process used the GPU, has ended; this does not count as a failure of the job."""


class GpuMemoryError(DecemberError, RuntimeError):
    """A job needs more memory than is available to it on the GPU."""


@dataclass(frozen=True)
class MemoryUse:
    """Who uses the memory of a GPU at a moment, all in bytes.

    Attributes
    ----------
    total, free
        Of the GPU, or of the part that the process sees.
    allowed
        What torch may take in this process.
    own
        What torch has taken in this process.
    """

    total: int
    free: int
    allowed: int
    own: int

    @property
    def of_others(self) -> int:
        """What other processes use, plus what CUDA itself takes in this one."""
        return self.total - self.free - self.own

    @property
    def is_crowded(self) -> bool:
        """Whether others use more than is left for them: their own shares, and what CUDA itself takes."""
        return self.of_others > self.total - self.allowed + 2 * OVERHEAD


@dataclass(frozen=True)
class WorkerGpu:
    """The GPU that a worker has from its supervisor.

    Attributes
    ----------
    label
        Name in messages; empty without a supervisor, or on the processor.
    device
        The value of ``CUDA_VISIBLE_DEVICES``; the driver knows a UUID.
    name
        Model, as the driver calls it.
    memory
        Bytes; 0 if unknown.
    n_sharing
        Workers on it; 0 when this one has found out that it computes on the processor.
    uses_mps
        Whether they compute concurrently, through the pool's MPS.
    is_ready
        Whether this process has begun to use it, or has found that it cannot.
    cuda
        ``torch.cuda``; replaced by tests.
    """

    label: str = ""
    device: str = ""
    name: str = ""
    memory: int = 0
    n_sharing: int = 1
    uses_mps: bool = False
    is_ready: bool = False
    cuda: ModuleType | Any = torch.cuda

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> WorkerGpu:
        """Return what the supervisor has set; ``environment`` is by default that of this process."""
        environment = os.environ if environment is None else environment
        return cls(
            label=environment.get("DECEMBER_GPU", ""),
            device=environment.get("CUDA_VISIBLE_DEVICES", ""),
            name=environment.get("DECEMBER_GPU_NAME", ""),
            memory=int(environment.get("DECEMBER_GPU_MEMORY") or 0),
            n_sharing=int(environment.get("DECEMBER_GPU_WORKERS") or 1),
            uses_mps=bool(environment.get(MPS_PIPES)),
        )

    def prepare(self, table: str) -> WorkerGpu:
        """Prepare for a job of a table; return what is then known about the GPU.

        Nothing happens before the first job that uses the GPU: an idle worker takes no memory there.

        Raises
        ------
        DeviceBrokenError
            The supervisor gave a GPU to this worker, and CUDA does not find it. A training on the processor
            would take days instead.
        """
        if table not in GPU_TABLES or self.is_ready:
            return self
        if not self.cuda.is_available():
            return self._without_cuda()
        total = self.cuda.get_device_properties(0).total_memory
        if self.n_sharing > 1:
            self.cuda.set_per_process_memory_fraction(memory_share(total, self.n_sharing) / total)
        return replace(self, name=self.cuda.get_device_name(0), memory=int(total), is_ready=True)

    def _without_cuda(self) -> WorkerGpu:
        if not self.label or self.device.isdigit():  # no GPU was seen here: numbers may come only from a scheduler
            return replace(self, name="", memory=0, n_sharing=0, is_ready=True)
        if torch.version.cuda is None or not _has_driver():
            reason = f"this torch ({torch.__version__}) was built without CUDA. Install a build with CUDA"
            if torch.version.cuda is not None:
                reason = f"{DRIVER} is missing. Install NVIDIA's driver, or make it available in the container"
            logger.warning("trainings run on the processor and not on the GPU %s: %s", self.label, reason)
            return replace(self, name="", memory=0, n_sharing=0, is_ready=True)
        if self.uses_mps:
            raise MpsLostError(f"the GPU {self.label} cannot be used: its MPS does not answer")
        raise DeviceBrokenError(f"CUDA does not find the GPU {self.label} ({self.device}), which this worker was given")

    # ---- failures

    def failure(self, error: BaseException | None) -> DeviceBrokenError | None:
        """Return what an error of a job means if the process has lost its GPU; None for other errors."""
        if error is None or not is_broken_device(error):
            return None
        if is_lost_mps(error):
            return MpsLostError(f"MPS, through which this worker used the GPU {self.label}, has ended: {error}")
        words = f"this process can no longer use the GPU: {error}"
        if self.uses_mps:
            words += "\nUnder MPS, a fault of one worker is reported to all that share the GPU: it may be another's."
        return DeviceBrokenError(words)

    def memory_use(self) -> MemoryUse | None:
        """Return who uses the GPU's memory; None if that is unknown."""
        try:
            free, total = self.cuda.mem_get_info()
            own = self.cuda.memory_reserved()
        except Exception:  # without a GPU, or if it has failed meanwhile
            return None
        return MemoryUse(int(total), int(free), memory_share(int(total), self.n_sharing), int(own))

    def release_memory(self, error: BaseException) -> None:
        """Give the memory of a failed job back to the GPU, with what the frames of its traceback hold."""
        each: BaseException | None = error
        while each is not None:
            traceback.clear_frames(each.__traceback__)
            each = each.__cause__ or each.__context__
        gc.collect()
        if self.cuda.is_initialized():
            self.cuda.empty_cache()

    def explained(self, error: BaseException, use: MemoryUse | None, key: Mapping[str, Any]) -> GpuMemoryError:
        """Return an error that says what ran out of memory, how much there is, and what to do.

        Parameters
        ----------
        error
            Of torch.
        use
            What :meth:`memory_use` returned when it was raised.
        key
            Of the job.
        """
        model = f" of {key['model_fn']} ({str(key['model_hash'])[:8]})" if "model_fn" in key else ""
        what = f"the GPU ran out of memory for a job{model}"
        if use is None:
            return GpuMemoryError(f"{what}. Lower the batch size of its dataset, or use a smaller model. {error}")
        there = f"{self.name or 'the GPU'} has {_gib(use.total)}"
        if use.is_crowded:
            return GpuMemoryError(
                f"{what}: {there}, of which processes outside this pool, or of another, use {_gib(use.of_others)}. "
                "`nvidia-smi` names them. End them or choose another GPU with --gpus, then `december jobs retry`."
            )
        if self.n_sharing > 1:
            return GpuMemoryError(
                f"{what}: {there}, and each of its {self.n_sharing} workers may use {_gib(use.allowed)}. Start the "
                "pool with fewer --workers-per-gpu, lower the batch size of the dataset, or use a smaller model; then "
                "`december jobs retry`."
            )
        return GpuMemoryError(
            f"{what}: {there}, and the job alone needs more. Lower the batch size of its dataset, use a smaller model, "
            "or a GPU with more memory; then `december jobs retry`."
        )


def _has_driver() -> bool:
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


def _gib(size: int) -> str:
    return f"{size / GIBIBYTE:.1f} GiB"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a GPU had too little memory for a job."""
    if isinstance(error, torch.OutOfMemoryError) or _code(error) == OUT_OF_MEMORY_CODE:
        return True
    # Triton, cuBLAS and cuDNN allocate memory outside torch.
    words = str(error)
    return isinstance(error, RuntimeError) and (
        words.startswith(f"{TRITON_ERROR}: out of memory")
        or "CUBLAS_STATUS_ALLOC_FAILED" in words
        or "CUDNN_STATUS_ALLOC_FAILED" in words
    )


def is_broken_device(error: BaseException) -> bool:
    """Return whether the process has lost its GPU, as it has after every error of CUDA but one."""
    if is_out_of_memory(error):
        return False
    # Before version 2.8, torch raised a RuntimeError, which only its text distinguishes from others.
    words = str(error)
    of_triton = isinstance(error, RuntimeError) and words.startswith(TRITON_ERROR)
    return _code(error) is not None or of_triton or ("CUDA error" in words and "out of memory" not in words)


def is_lost_mps(error: BaseException) -> bool:
    """Return whether an error of CUDA says that MPS, and not a job, has failed."""
    code = _code(error)
    return code in MPS_CODES if code is not None else "MPS client" in str(error) or "MPS server" in str(error)


def _code(error: BaseException) -> int | None:
    """Return CUDA's number of an error, if torch reports it."""
    accelerator_error = getattr(torch, "AcceleratorError", None)
    if accelerator_error is None or not isinstance(error, accelerator_error):
        return None
    return getattr(error, "error_code", UNKNOWN_CODE)
