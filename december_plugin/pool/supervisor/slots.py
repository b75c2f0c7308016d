"""The places in which a pool keeps a worker running: a GPU, a share of one, or the processor."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from december_plugin.errors import SettingsError
from december_plugin.pool.supervisor.gpus import ComputeMode, Gpu, VisibleGpus

_BY_INDEX = "CUDA_DEVICE_ORDER", "PCI_BUS_ID"  # CUDA's default order is by speed, that of the driver by slot


@dataclass(frozen=True)
class Slot:
    """A place for one worker.

    Attributes
    ----------
    name
        As in messages: ``gpu 0``, ``gpu 0b`` for the second worker of a GPU, ``cpu 1``.
    gpu
        The GPU; None means the processor.
    n_sharing
        Workers on this GPU, this one included.
    """

    name: str
    gpu: Gpu | None = None
    n_sharing: int = 1

    @property
    def file_name(self) -> str:
        """Beginning of the names of its files."""
        return re.sub(r"[^\w.-]+", "-", self.name)

    def environment(self) -> dict[str, str]:
        """Return what a worker in this place finds in its environment."""
        gpu = self.gpu or Gpu("", "")
        found = {
            "CUDA_VISIBLE_DEVICES": gpu.device,
            "DECEMBER_GPU": gpu.label,
            "DECEMBER_GPU_NAME": gpu.name,
            "DECEMBER_GPU_MEMORY": str(gpu.memory),
            "DECEMBER_GPU_WORKERS": str(self.n_sharing),
        }
        if gpu.device.isdigit() and gpu.name:  # an index of the driver, not of the user
            found[_BY_INDEX[0]] = _BY_INDEX[1]
        return found


def choose_slots(
    visible: VisibleGpus,
    *,
    gpus: Sequence[int | str] | None = None,
    workers_per_gpu: int = 1,
    cpu: int | None = None,
) -> tuple[Slot, ...]:
    """Return the places of a pool's workers.

    Parameters
    ----------
    visible
        What :func:`december_plugin.pool.supervisor.gpus.visible_gpus` found.
    gpus
        Which GPUs, counted from 0 within what is visible, or by the beginning of a UUID. None takes all, unless ``cpu``
        is given; empty takes none.
    workers_per_gpu
        Workers on each GPU.
    cpu
        Workers that compute on the processor. None means 0 if there are GPUs, else 1.

    Raises
    ------
    SettingsError
        If a GPU does not exist or lets no process compute, the driver does not answer, or no place for a worker
        remains.
    """
    if workers_per_gpu < 1:
        raise SettingsError(f"--workers-per-gpu is {workers_per_gpu}; it must be at least 1.")
    if cpu is not None and cpu < 0:
        raise SettingsError(f"--cpu is {cpu}; it must be at least 0.")
    if visible.is_broken and not cpu:
        raise SettingsError(
            f"the GPUs of this machine cannot be determined: {visible.source}. Fix the driver, set "
            "CUDA_VISIBLE_DEVICES, or use --cpu N for workers that compute on the processor."
        )
    if gpus is None:
        chosen = list(visible.gpus) if not cpu else []
    else:
        chosen = list(dict.fromkeys(gpu for name in gpus for gpu in _gpus_called(visible, name)))
    for gpu in chosen:
        if gpu.mode == ComputeMode.PROHIBITED:
            raise SettingsError(
                f"the GPU {gpu.label} lets no process compute (its compute mode is Prohibited). Leave it out of "
                f"--gpus, or let an administrator run `nvidia-smi -i {gpu.label.partition('.')[0]} -c DEFAULT`."
            )
    slots = [
        Slot(f"gpu {gpu.label}" + (_letter(number) if number else ""), gpu, workers_per_gpu)
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
    """Return how many threads each worker on the processor gets, so that together they use each core once."""
    n_cpu = sum(slot.gpu is None for slot in slots)
    return max(1, (n_cores or available_cores()) // max(1, n_cpu))


def available_cores() -> int:
    """Return the number of cores that this process may use; a scheduler may have given it only some of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus_called(visible: VisibleGpus, name: int | str) -> list[Gpu]:
    """Return the GPU, with all its parts, that has this number or a UUID that begins with it."""
    groups = sorted({gpu.group for gpu in visible.gpus})
    if isinstance(name, str):
        found = [gpu for gpu in visible.gpus if gpu.device.startswith(name)]
        if len(found) == 1:
            return found
    elif 0 <= name < len(groups):
        return [gpu for gpu in visible.gpus if gpu.group == groups[name]]
    if not groups:
        raise SettingsError(
            f"there is no GPU {name} here: {_words(visible)}. Leave --gpus out and use --cpu N for workers that "
            "compute on the processor."
        )
    if isinstance(name, str):
        which = "more than one" if found else "no"
        there = ", ".join(gpu.device for gpu in visible.gpus)
        raise SettingsError(
            f"there is {which} GPU whose UUID begins with {name}. UUIDs within {visible.source}: {there}. A GPU that "
            "is divided (MIG) has only those of its parts."
        )
    there = ", ".join(
        f"{number} ({_description([gpu for gpu in visible.gpus if gpu.group == group])})"
        for number, group in enumerate(groups)
    )
    raise SettingsError(f"there is no GPU {name} here. --gpus counts from 0 within {visible.source}: {there}.")


def _description(parts: Sequence[Gpu]) -> str:
    """Return the model of a GPU; for a divided one, how many of each part it has."""
    counts = Counter(gpu.name or f"device {gpu.device}" for gpu in parts)
    return ", ".join(f"{number} x {name}" if len(parts) > 1 else name for name, number in counts.items())


def _words(visible: VisibleGpus) -> str:
    return f"{visible.n_groups or 'no'} GPU{'s' * (visible.n_groups > 1)} visible, {visible.source}"


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"-{number + 1}"
