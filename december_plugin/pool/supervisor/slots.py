"""The places in which a pool keeps a worker running: a GPU, a part of one, or the processor.

The GPUs are asked for with ``nvidia-smi`` and not through torch: a supervisor that initialises CUDA would hold memory
on every GPU for as long as the pool lives.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from december_plugin.errors import SettingsError

ASK_TIMEOUT = 60.0  # a GPU without persistence mode takes seconds to answer (s)
_GPU = re.compile(r"^GPU (?P<index>\d+): (?P<name>.+?) \(UUID: (?P<uuid>GPU-[^)]+)\)")
_PART = re.compile(r"^\s+MIG (?P<name>.+?)\s+Device\s+(?P<index>\d+): \(UUID: (?P<uuid>MIG-[^)]+)\)")
_BY_INDEX = "CUDA_DEVICE_ORDER", "PCI_BUS_ID"  # CUDA's own order is by speed, that of nvidia-smi by slot


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
        if self.gpu.device.isdigit() and self.gpu.name:  # an index of nvidia-smi, not of the user
            found[_BY_INDEX[0]] = _BY_INDEX[1]
        return found


@dataclass(frozen=True)
class VisibleGpus:
    """What GPUs there are for a pool, and in words where this is known from."""

    gpus: tuple[Gpu, ...]
    source: str
    is_broken: bool = False  # nvidia-smi is there, but fails

    @property
    def n_groups(self) -> int:
        """Whole GPUs."""
        return len({gpu.group for gpu in self.gpus})


def visible_gpus(environment: Mapping[str, str] | None = None) -> VisibleGpus:
    """Return the GPUs that a process may use: those of ``CUDA_VISIBLE_DEVICES``, else all that ``nvidia-smi`` lists.

    Parameters
    ----------
    environment
        By default that of this process. A scheduler such as Slurm sets ``CUDA_VISIBLE_DEVICES``; it is believed.
    """
    environment = os.environ if environment is None else environment
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        source = f"CUDA_VISIBLE_DEVICES={visible}"
        gpus = [Gpu(device, _short(device), group=number) for number, device in enumerate(_devices_of(visible))]
        return VisibleGpus(tuple(gpus), source)
    listing, source, failed = _ask_driver(environment)
    return VisibleGpus(tuple(parse_listing(listing)), source, is_broken=failed)


def parse_listing(listing: str) -> list[Gpu]:
    """Return the GPUs in the output of ``nvidia-smi -L``; one that is divided (MIG) counts by its parts."""
    found: list[Gpu] = []
    for line in listing.splitlines():
        if (whole := _GPU.match(line)) is not None:
            found.append(Gpu(whole["index"], whole["index"], whole["name"], group=int(whole["index"])))
        elif (part := _PART.match(line)) is not None and found:
            group = found[-1].group
            if found[-1].device.isdigit():  # CUDA shows the parts of a divided GPU, not the whole
                found.pop()
            found.append(Gpu(part["uuid"], f"{group}.{part['index']}", f"MIG {part['name']}", group=group))
    return found


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


def _ask_driver(environment: Mapping[str, str]) -> tuple[str, str, bool]:
    """Return what ``nvidia-smi -L`` prints, in words who said so, and whether it failed."""
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        return "", "nvidia-smi is not installed", False
    try:
        done = subprocess.run(
            [program, "-L"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"nvidia-smi did not answer within {ASK_TIMEOUT:.0f} s", True
    except OSError as error:
        return "", f"nvidia-smi cannot be started ({error.strerror or error})", True
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
        words = f"nvidia-smi says: {said[-1].strip()}" if said else f"nvidia-smi ended with code {done.returncode}"
        return "", words, True
    return done.stdout, "all GPUs that nvidia-smi lists", False
