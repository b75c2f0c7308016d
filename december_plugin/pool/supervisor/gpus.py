"""The GPUs that a pool may use, by their UUIDs: those that the driver lists, or those of ``CUDA_VISIBLE_DEVICES``.

A number identifies a GPU only until the driver renumbers them, and only in CUDA's order; the UUID belongs to the card.
The driver is asked (NVML, through ``nvidia-ml-py``) and not torch: a supervisor that initialises CUDA would hold memory
on every GPU for as long as the pool lives.
"""

from __future__ import annotations

import enum
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, TypeVar

from december_plugin.pool.supervisor import cuda_order

DRIVER_TIMEOUT_SECONDS = 60.0  # a GPU without persistence mode takes seconds to answer
GIBIBYTE = 1 << 30

Answer = TypeVar("Answer")


class ComputeMode(enum.IntEnum):
    """How many processes may use a GPU at a time, as NVML numbers it (``nvidia-smi --compute-mode``)."""

    DEFAULT = 0
    PROHIBITED = 2
    EXCLUSIVE_PROCESS = 3


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a part of one (MIG), that is given to a worker.

    Attributes
    ----------
    device
        What ``CUDA_VISIBLE_DEVICES`` is set to: its UUID, if the driver or CUDA reports it.
    label
        Short name, as in messages and in the table of workers: its number in ``nvidia-smi``, with that of a MIG part.
    name
        Model, if it is known, with the profile of a MIG part.
    group
        Index of the whole GPU within what is visible, which ``--gpus`` counts.
    memory
        Bytes; 0 if unknown.
    mode
        How many processes may use it at a time.
    capability
        Of its architecture; None if unknown.
    """

    device: str
    label: str
    name: str = ""
    group: int = 0
    memory: int = 0
    mode: ComputeMode = ComputeMode.DEFAULT
    capability: tuple[int, int] | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether it is identified by its UUID, so that renumbering does not change which GPU it is."""
        return not self.device.isdigit()

    @property
    def description(self) -> str:
        """Model and memory, as far as known."""
        words = [self.name, f"{self.memory / GIBIBYTE:.0f} GiB" if self.memory else ""]
        return ", ".join(word for word in words if word)


@dataclass(frozen=True)
class VisibleGpus:
    """The GPUs that a pool may use, and the source of this information in words."""

    gpus: tuple[Gpu, ...]
    source: str
    is_broken: bool = False  # a driver is installed, but it fails

    @property
    def n_groups(self) -> int:
        """Whole GPUs."""
        return len({gpu.group for gpu in self.gpus})


def visible_gpus(environment: Mapping[str, str] | None = None) -> VisibleGpus:
    """Return the GPUs that a process may use: those of ``CUDA_VISIBLE_DEVICES``, else all that the driver lists.

    Parameters
    ----------
    environment
        By default that of this process. A scheduler such as Slurm sets ``CUDA_VISIBLE_DEVICES``; its value is trusted,
        and CUDA is asked which GPUs its numbers mean. Without a driver, they are taken as they are.
    """
    environment = os.environ if environment is None else environment
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return _gpus_of_driver()
    words = _devices_of(visible)
    known = _gpus_of_driver().gpus if words else ()
    devices = words
    if known and any(word.isdigit() for word in words):
        counted = _devices_as_cuda_counts(environment, known)
        devices = words if counted is None else counted
    gpus = [replace(_gpu_named(device, known), group=number) for number, device in enumerate(devices)]
    return VisibleGpus(tuple(gpus), f"CUDA_VISIBLE_DEVICES={visible}")


def _devices_of(visible: str) -> list[str]:
    """Return the devices in ``CUDA_VISIBLE_DEVICES`` as CUDA reads them: everything after an invalid one is ignored."""
    devices: list[str] = []
    for word in (word.strip() for word in visible.split(",")):
        if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", word) or word in devices:
            break
        devices.append(word)
    return devices


def _gpu_named(device: str, known: Sequence[Gpu]) -> Gpu:
    """Return the GPU with this UUID, whose beginning is enough for CUDA; an unknown one is taken as it is given."""
    found = [gpu for gpu in known if gpu.is_pinned and gpu.device.startswith(device)]
    return found[0] if len(found) == 1 else Gpu(device, device if device.isdigit() else device[:12])


# ---- CUDA's own order


def _devices_as_cuda_counts(environment: Mapping[str, str], known: Sequence[Gpu]) -> list[str] | None:
    """Return the UUIDs of the GPUs that CUDA shows a process with this environment; None if it does not say."""
    try:
        done = _ask_cuda(environment)
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode != 0:
        return None
    by_digits = {gpu.device.partition("-")[2]: gpu.device for gpu in known}
    return [by_digits.get(digits, f"GPU-{digits}") for digits in done.stdout.split()]


def refusal_of_cuda(environment: Mapping[str, str]) -> str:
    """Return why a process with this environment could not use its GPUs; empty if it can, or if that is unknown."""
    try:
        done = _ask_cuda(environment)
    except subprocess.TimeoutExpired:
        return f"CUDA does not answer within {DRIVER_TIMEOUT_SECONDS:.0f} s"
    except OSError:
        return ""
    if done.returncode == cuda_order.NO_LIBRARY:
        return ""
    if done.returncode != 0:
        return done.stderr.strip() or f"CUDA ended with code {done.returncode}"
    return "" if done.stdout.strip() else "CUDA finds no GPU"


def _ask_cuda(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Let CUDA list the GPUs in another process, because it cannot be shut down once it is initialised."""
    return subprocess.run(
        [sys.executable, "-I", cuda_order.__file__],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DRIVER_TIMEOUT_SECONDS,
        check=False,
    )


# ---- the driver


def _gpus_of_driver() -> VisibleGpus:
    """Return all GPUs that the driver lists; one that is divided (MIG) counts by its parts."""
    import pynvml

    answers: list[VisibleGpus] = []
    # In a thread, so that the pool can report a driver that hangs.
    asking = threading.Thread(target=lambda: answers.append(_ask_driver(pynvml)), name="NVML", daemon=True)
    asking.start()
    asking.join(DRIVER_TIMEOUT_SECONDS)
    if not answers:
        said = f"the NVIDIA driver did not answer within {DRIVER_TIMEOUT_SECONDS:.0f} s"
        return VisibleGpus((), said, is_broken=True)
    return answers[0]


def _ask_driver(nvml: ModuleType) -> VisibleGpus:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError_LibraryNotFound:
        return VisibleGpus((), "no NVIDIA driver is installed")
    except nvml.NVMLError as error:
        return VisibleGpus((), f"the NVIDIA driver says: {error}", is_broken=True)
    try:
        found = [gpu for index in range(nvml.nvmlDeviceGetCount()) for gpu in _gpus_with_index(nvml, index)]
    except nvml.NVMLError as error:
        return VisibleGpus((), f"the NVIDIA driver says: {error}", is_broken=True)
    finally:
        nvml.nvmlShutdown()
    return VisibleGpus(tuple(found), "all GPUs that the NVIDIA driver lists")


def _gpus_with_index(nvml: ModuleType, index: int) -> list[Gpu]:
    """Return a GPU, or its parts if it is divided, of which CUDA does not show the whole; empty if it is not ours."""
    try:
        whole = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError_NoPermission:  # another job on the machine has it
        return []
    mode = _said(nvml, lambda: ComputeMode(nvml.nvmlDeviceGetComputeMode(whole)), ComputeMode.DEFAULT)
    capability = _said(nvml, lambda: tuple(nvml.nvmlDeviceGetCudaComputeCapability(whole)), None)

    def gpu(handle: Any, device: str, label: str) -> Gpu:
        memory = _said(nvml, lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total), 0)
        return Gpu(device, label, nvml.nvmlDeviceGetName(handle), index, memory, mode, capability)

    parts = [gpu(part, nvml.nvmlDeviceGetUUID(part), f"{index}.{number}") for number, part in _parts(nvml, whole)]
    return parts or [gpu(whole, nvml.nvmlDeviceGetUUID(whole), str(index))]


def _said(nvml: ModuleType, ask: Any, otherwise: Answer) -> Answer:
    """Return an answer of the driver, or a default where this GPU or this driver has none."""
    try:
        return ask()
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission, ValueError):
        return otherwise


def _parts(nvml: ModuleType, whole: Any) -> list[tuple[int, Any]]:
    """Return the numbers and handles of a GPU's MIG devices; none if it is not divided, or cannot be."""
    try:
        mode, _ = nvml.nvmlDeviceGetMigMode(whole)
        n_parts = nvml.nvmlDeviceGetMaxMigDeviceCount(whole) if mode == nvml.NVML_DEVICE_MIG_ENABLE else 0
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):  # the GPU or the driver is too old
        return []
    found = []
    for number in range(n_parts):
        try:
            found.append((number, nvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, number)))
        except nvml.NVMLError_NotFound:  # there may be fewer than at most
            continue
    return found
