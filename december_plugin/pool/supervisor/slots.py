"""The places in which a pool keeps a worker running: a GPU, a part of one, or the processor.

The driver is asked for the GPUs (NVML, through ``nvidia-ml-py``) and not torch: a supervisor that initialises CUDA
would hold memory on every GPU for as long as the pool lives.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from december_plugin.errors import SettingsError

DRIVER_TIMEOUT_SECONDS = 60.0  # a GPU without persistence mode takes seconds to answer
_BY_INDEX = "CUDA_DEVICE_ORDER", "PCI_BUS_ID"  # CUDA's own order is by speed, that of the driver by slot


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a part of one (MIG), as it is given to a worker."""

    device: str  # what CUDA_VISIBLE_DEVICES is set to
    label: str  # short, as in messages and in the table of workers
    name: str = ""  # model, if it is known
    group: int = 0  # index of the whole GPU within what is visible, which --gpus counts


@dataclass(frozen=True)
class Slot:
    """A place for one worker.

    Attributes
    ----------
    name
        As in messages: ``gpu 0``, ``gpu 0b`` for the second worker of a GPU, ``cpu 1``.
    gpu
        The GPU; None computes on the processor.
    """

    name: str
    gpu: Gpu | None = None

    @property
    def file_name(self) -> str:
        """Beginning of the names of its files."""
        return re.sub(r"[^\w.-]+", "-", self.name)

    def environment(self) -> dict[str, str]:
        """Return what a worker in this place finds in its environment."""
        if self.gpu is None:
            return {"CUDA_VISIBLE_DEVICES": "", "DECEMBER_GPU": ""}
        found = {"CUDA_VISIBLE_DEVICES": self.gpu.device, "DECEMBER_GPU": self.gpu.label}
        if self.gpu.device.isdigit() and self.gpu.name:  # an index of the driver, not of the user
            found[_BY_INDEX[0]] = _BY_INDEX[1]
        return found


@dataclass(frozen=True)
class VisibleGpus:
    """What GPUs there are for a pool, and in words where this is known from."""

    gpus: tuple[Gpu, ...]
    source: str
    is_broken: bool = False  # there is a driver, but it fails

    @property
    def n_groups(self) -> int:
        """Whole GPUs."""
        return len({gpu.group for gpu in self.gpus})


def visible_gpus(environment: Mapping[str, str] | None = None) -> VisibleGpus:
    """Return the GPUs that a process may use: those of ``CUDA_VISIBLE_DEVICES``, else all that the driver lists.

    Parameters
    ----------
    environment
        By default that of this process. A scheduler such as Slurm sets ``CUDA_VISIBLE_DEVICES``; its value is trusted.
    """
    environment = os.environ if environment is None else environment
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        source = f"CUDA_VISIBLE_DEVICES={visible}"
        gpus = [Gpu(device, _short(device), group=number) for number, device in enumerate(_devices_of(visible))]
        return VisibleGpus(tuple(gpus), source)
    return _gpus_of_driver()


def choose_slots(
    visible: VisibleGpus,
    *,
    gpus: Sequence[int] | None = None,
    workers_per_gpu: int = 1,
    cpu: int | None = None,
) -> tuple[Slot, ...]:
    """Return the places of a pool's workers.

    Parameters
    ----------
    visible
        What :func:`visible_gpus` found.
    gpus
        Which GPUs, counted from 0 within what is visible. None takes all, unless ``cpu`` is given; empty takes none.
    workers_per_gpu
        Workers on each GPU.
    cpu
        Workers that compute on the processor. None means none if there are GPUs, else one.

    Raises
    ------
    SettingsError
        If a GPU does not exist, the driver does not answer, or no place for a worker is left.
    """
    if workers_per_gpu < 1:
        raise SettingsError(f"--workers-per-gpu is {workers_per_gpu}; it must be at least 1.")
    if cpu is not None and cpu < 0:
        raise SettingsError(f"--cpu is {cpu}; it must be at least 0.")
    if visible.is_broken and not cpu:
        raise SettingsError(
            f"which GPUs there are cannot be found out: {visible.source}. Mend the driver, set CUDA_VISIBLE_DEVICES, "
            "or use --cpu N for workers that compute on the processor."
        )
    if gpus is None:
        chosen = list(visible.gpus) if not cpu else []
    else:
        chosen = [gpu for index in dict.fromkeys(gpus) for gpu in _gpus_at(visible, index)]
    slots = [
        Slot(f"gpu {gpu.label}" + (_letter(number) if number else ""), gpu)
        for gpu in chosen
        for number in range(workers_per_gpu)
    ]
    n_cpu = cpu if cpu is not None else 0 if slots or gpus is not None else 1
    slots += [Slot(f"cpu {number}") for number in range(1, n_cpu + 1)]
    if not slots:
        raise SettingsError(
            f"the pool would have no worker: no GPU is chosen ({_words(visible)}), and --cpu is 0. "
            "Name GPUs with --gpus, or use --cpu N."
        )
    return tuple(slots)


def threads_per_worker(slots: Sequence[Slot], n_cores: int | None = None) -> int:
    """Return how many threads each worker on the processor gets, so that together they use the cores once."""
    n_cpu = sum(slot.gpu is None for slot in slots)
    return max(1, (n_cores or available_cores()) // max(1, n_cpu))


def available_cores() -> int:
    """Return the cores that this process may use; a scheduler may have given it a part of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus_at(visible: VisibleGpus, index: int) -> list[Gpu]:
    groups = sorted({gpu.group for gpu in visible.gpus})
    if 0 <= index < len(groups):
        return [gpu for gpu in visible.gpus if gpu.group == groups[index]]
    if not groups:
        raise SettingsError(
            f"there is no GPU {index} here: {_words(visible)}. Leave --gpus out and use --cpu N for workers that "
            "compute on the processor."
        )
    there = ", ".join(
        f"{number} ({_description(next(gpu for gpu in visible.gpus if gpu.group == group))})"
        for number, group in enumerate(groups)
    )
    raise SettingsError(f"there is no GPU {index} here. --gpus counts from 0 within {visible.source}: {there}.")


def _description(gpu: Gpu) -> str:
    return gpu.name or f"device {gpu.device}"


def _words(visible: VisibleGpus) -> str:
    return f"{visible.n_groups or 'no'} GPU{'s' * (visible.n_groups > 1)} visible, {visible.source}"


def _devices_of(visible: str) -> list[str]:
    """Return the devices in ``CUDA_VISIBLE_DEVICES`` as CUDA reads it: what follows an invalid one does not count."""
    devices: list[str] = []
    for word in (word.strip() for word in visible.split(",")):
        if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", word) or word in devices:
            break
        devices.append(word)
    return devices


def _short(device: str) -> str:
    return device if device.isdigit() else device[:12]


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"-{number + 1}"


def _gpus_of_driver() -> VisibleGpus:
    """Return all GPUs that the driver lists; one that is divided (MIG) counts by its parts."""
    import pynvml

    answers: list[VisibleGpus] = []
    # In a thread: a driver that hangs must not keep the pool from saying so.
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
    """Return a GPU, or its parts if it is divided: CUDA shows those and not the whole; nothing if it is not ours."""
    try:
        whole = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError_NoPermission:  # another job of the machine has it
        return []
    name = nvml.nvmlDeviceGetName(whole)
    parts = [
        Gpu(
            nvml.nvmlDeviceGetUUID(part),
            f"{index}.{number}",
            nvml.nvmlDeviceGetName(part).removeprefix(name).strip(),  # MIG 3g.20gb
            group=index,
        )
        for number, part in _parts(nvml, whole)
    ]
    return parts or [Gpu(str(index), str(index), name, group=index)]


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
