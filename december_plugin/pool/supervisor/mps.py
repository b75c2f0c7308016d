"""NVIDIA's Multi-Process Service (MPS), through which the workers of one GPU compute at the same time.

Without it the kernels of different processes take turns on a GPU. A pool that has several workers on a GPU starts its
own control daemon for each of these GPUs, with separate folders, and ends it when the pool ends. There is one daemon
for each GPU and not one for all: after a fault on one GPU, a server takes no new worker until all of its workers have
ended, and a process sees at most one part of a divided GPU (MIG). The next pool ends what a killed one has left.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from december_plugin.errors import SettingsError
from december_plugin.pool.supervisor.gpus import ComputeMode, Gpu
from december_plugin.pool.supervisor.mps_daemon import (
    LOGS,
    PIPES,
    PROGRAM,
    MpsDaemon,
    MpsError,
    end_daemon,
    is_worker,
    noted_pid,
    users_of,
)
from december_plugin.pool.supervisor.mps_folders import is_left, made_base, own_name
from december_plugin.pool.supervisor.slots import Slot

AUTO, ON, OFF = MODES = ("auto", "on", "off")
USUAL_PIPES = "/tmp/nvidia-mps"  # where CUDA looks for a daemon by default
MAX_CLIENTS = 48  # of one server
FIRST_ARCHITECTURE = (7, 0)  # Volta: before it, workers share one address space and write into each other's memory

KILLED_POOL_PATIENCE = 20.0  # for workers that a killed pool has left, which save their state and end (s)
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # before a daemon is started again (s)
MAX_LOSSES, LOSS_WINDOW = 3, 600.0  # of each worker of a GPU, within this time (s): then it is no longer used
PAUSE = 0.05


@dataclass(frozen=True)
class MpsPlan:
    """How the workers of a pool share their GPUs.

    Attributes
    ----------
    gpus
        For which a control daemon is started.
    is_needed
        Whether the pool cannot work without it.
    words
        Message to the user; empty if no GPU is shared.
    """

    gpus: tuple[Gpu, ...] = ()
    is_needed: bool = False
    words: str = ""


def check_mps(mode: str, workers_per_gpu: int) -> None:
    """Raise a :class:`SettingsError` if MPS is requested although no GPU has several workers."""
    if mode == ON and workers_per_gpu < 2:
        raise SettingsError(
            "--mps on is for GPUs that several workers share. Add --workers-per-gpu 2 (or more), or leave --mps out."
        )


def plan_mps(mode: str, slots: Sequence[Slot], *, environment: Mapping[str, str] | None = None) -> MpsPlan:
    """Decide whether the workers in these places use MPS.

    Parameters
    ----------
    mode
        ``auto`` uses it where several workers share a GPU and it is available; ``on`` requires it; ``off`` never
        starts it.
    slots
        Places of the workers.
    environment
        By default that of this process.

    Raises
    ------
    SettingsError
        If it was requested but cannot be used, or if a GPU that takes one process at a time is given several workers.
    """
    environment = os.environ if environment is None else environment
    shared = list(dict.fromkeys(slot.gpu for slot in slots if slot.gpu is not None and slot.n_sharing > 1))
    if not shared:
        return MpsPlan()
    n_sharing = max(slot.n_sharing for slot in slots)
    exclusive = [gpu.label for gpu in shared if gpu.mode == ComputeMode.EXCLUSIVE_PROCESS]
    if mode != OFF and (running := running_daemon(environment)):
        return MpsPlan(words=f"MPS is running already ({running}): the workers of a GPU use it, and it is left running")
    obstacle = "--mps is off" if mode == OFF else _obstacle(shared, n_sharing, environment)
    if not obstacle:
        count = f"{len(shared)} control daemons" if len(shared) > 1 else "a control daemon"
        words = f"the workers of a GPU compute concurrently (MPS): {count} of this pool"
        return MpsPlan(tuple(shared), is_needed=mode == ON or bool(exclusive), words=words)
    if mode == ON:
        raise SettingsError(f"--mps is on, but {obstacle}. Use --mps auto to do without it, or --workers-per-gpu 1.")
    if exclusive:
        raise SettingsError(
            f"the GPU {exclusive[0]} takes one process at a time (its compute mode is Exclusive Process), so that "
            f"{n_sharing} workers need MPS, and {obstacle}. Use --workers-per-gpu 1, or let an administrator run "
            f"`nvidia-smi -i {exclusive[0].partition('.')[0]} -c DEFAULT`."
        )
    return MpsPlan(words=f"the workers of a GPU take turns, because {obstacle}")


def _obstacle(gpus: Sequence[Gpu], n_sharing: int, environment: Mapping[str, str]) -> str:
    """Return why MPS cannot be used; empty if it can."""
    if shutil.which(PROGRAM, path=environment.get("PATH")) is None:
        return f"{PROGRAM}, a part of NVIDIA's driver, is not on the path"
    if n_sharing > MAX_CLIENTS:
        return f"MPS takes at most {MAX_CLIENTS} workers on one GPU"
    for gpu in gpus:
        if not gpu.is_pinned:
            return f"the UUID of the GPU {gpu.label} is unknown"
        if gpu.capability is not None and gpu.capability < FIRST_ARCHITECTURE:
            return f"the GPU {gpu.label} ({gpu.name}) is older than Volta, and MPS does not isolate its workers"
    return ""


def running_daemon(environment: Mapping[str, str]) -> str:
    """Return the folder of the control daemon that processes with this environment use; empty if there is none."""
    folder = Path(environment.get(PIPES) or USUAL_PIPES)
    pid = noted_pid(folder)
    return str(folder) if pid and Path(f"/proc/{pid}").exists() else ""


class PoolMps:
    """The control daemons of a pool.

    Parameters
    ----------
    plan
        The plan.
    log_folder
        For the daemons' logs.
    environment
        Of this process; by default the real one.
    on_event
        Called with what the user should know.
    clock
        Replaced by tests.
    """

    def __init__(
        self,
        plan: MpsPlan,
        *,
        log_folder: Path,
        environment: Mapping[str, str] | None = None,
        on_event: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.plan, self.log_folder, self.on_event, self.clock = plan, log_folder, on_event, clock
        self._environment = dict(os.environ if environment is None else environment)
        self._daemons: dict[Gpu, MpsDaemon] = {}
        self._running: set[Gpu] = set()
        self._due: dict[Gpu, float] = {}
        self._delays: dict[Gpu, float] = {}
        self._losses: dict[Gpu, list[float]] = {}
        self._given_up: set[Gpu] = set()
        self._folder: Path | None = None

    def start(self) -> None:
        """Start the daemons, after ending those that a killed pool has left.

        Raises
        ------
        MpsError
            If the pool cannot work without them.
        """
        if not self.plan.gpus:
            return
        try:
            base = made_base()
            self._end_leftovers(base)
            self._folder = base / own_name()
            for number, gpu in enumerate(self.plan.gpus):
                logs = self.log_folder / f"mps-gpu-{re.sub(r'[^0-9A-Za-z.-]+', '-', gpu.label)}"
                self._daemons[gpu] = MpsDaemon(
                    gpu, pipes=self._folder / str(number), logs=logs, environment=self._environment
                )
            for gpu, daemon in self._daemons.items():
                daemon.start()
                self._running.add(gpu)
        except (MpsError, OSError) as error:
            if self.plan.is_needed:
                self.stop()
                raise MpsError(f"{error}. Use --workers-per-gpu 1, or --mps off where the GPUs allow it.") from None
            self.on_event(f"{error}; the workers of a GPU take turns")
            self.stop()

    def environment(self, slot: Slot) -> dict[str, str]:
        """Return what a worker in this place additionally finds in its environment."""
        if slot.gpu is None or slot.gpu not in self._running - self._given_up:
            return {}
        daemon = self._daemons[slot.gpu]
        return {PIPES: str(daemon.pipes), LOGS: str(daemon.logs)}

    def note_loss(self, slot: Slot) -> None:
        """Note that a worker has lost MPS; if this keeps happening, the next workers take turns."""
        if slot.gpu is None or slot.gpu not in self._daemons or slot.gpu in self._given_up:
            return
        now = self.clock()
        losses = [then for then in self._losses.get(slot.gpu, []) if now - then < LOSS_WINDOW] + [now]
        self._losses[slot.gpu] = losses
        if len(losses) >= MAX_LOSSES * slot.n_sharing and not self.plan.is_needed:
            self._given_up.add(slot.gpu)
            self.on_event(
                f"the workers of the GPU {slot.gpu.label} have lost MPS {len(losses)} times within "
                f"{LOSS_WINDOW / 60:.0f} min: from now on, they take turns"
            )

    def look_after(self) -> None:
        """Restart daemons that have died."""
        for gpu, daemon in self._daemons.items():
            if gpu in self._given_up:
                continue
            if gpu in self._running and not daemon.is_alive():
                self._running.discard(gpu)
                self._delays[gpu] = FIRST_DELAY
                self._due[gpu] = self.clock() + FIRST_DELAY
                self.on_event(
                    f"the MPS of the GPU {gpu.label} has died (its logs: {daemon.logs}); it is being restarted. "
                    "Workers that lose it give their jobs back, which does not count as a failure"
                )
            elif gpu not in self._running and self.clock() >= self._due.get(gpu, float("inf")):
                self._start_again(gpu, daemon)

    def _start_again(self, gpu: Gpu, daemon: MpsDaemon) -> None:
        try:
            daemon.start()
        except MpsError as error:
            self._delays[gpu] = min(2 * self._delays[gpu], LONGEST_DELAY)
            self._due[gpu] = self.clock() + self._delays[gpu]
            self.on_event(f"{error}; the next attempt is in {self._delays[gpu]:.0f} s")
            return
        del self._due[gpu]
        self._running.add(gpu)
        self.on_event(f"the MPS of the GPU {gpu.label} runs again")

    def stop(self) -> None:
        """End the daemons, after their workers have ended."""
        for daemon in self._daemons.values():
            daemon.stop()
        self._daemons.clear()
        self._running.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _end_leftovers(self, base: Path) -> None:
        for folder in [each for each in base.iterdir() if is_left(each)]:
            try:
                pipes = sorted(folder.iterdir())
            except FileNotFoundError:  # another pool that is starting, too, was quicker
                continue
            until = time.monotonic() + KILLED_POOL_PATIENCE
            while time.monotonic() < until and any(is_worker(pid) for each in pipes for pid in users_of(each)):
                time.sleep(PAUSE)
            for each in pipes:
                end_daemon(each, self._environment)
            shutil.rmtree(folder, ignore_errors=True)
            self.on_event("the MPS that a killed pool had left has been ended")
