"""Trainings per hour of several processes that train on one device, as the workers of a pool do.

Every process trains the same model on its own data with ``baseline_trainer``, and no database. All processes of a run
start at the beginning; those that are not measured wait at the end of an epoch. An epoch's duration is the time between
two ends of epochs, so that starts, loading and recording do not count: trainings per hour are those of a pool whose
workers always have a training.

    python -m benchmarks.gpu.workers                     # the demo's and the paper's model, 1, 2 and 4 at a time
    python -m benchmarks.gpu.workers --size demo --processes 1 8
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.training import LEARNING_RATE, SIZES, Size, SlicedSession, draw_sessions, our_loaders, our_model
from december_plugin.pool.memory_share import memory_share
from december_plugin.pool.supervisor.gpus import visible_gpus
from december_plugin.pool.supervisor.mps import PoolMps, plan_mps, running_daemon
from december_plugin.pool.supervisor.slots import Slot
from december_plugin.trainers import baseline_trainer
from december_plugin.training.monitor import Monitor, Progress, monitored

PROCESSES = (1, 2, 4)
PATIENCE = 90.0  # for all that is measured in one way of sharing (s)
WAITS = None  # sent by a process that waits
GO_ON, PAUSE, END = 10**9, 0, -1  # epochs, as sent to a process


@dataclass(frozen=True)
class Work:
    """The model that is trained, and what counts as one training.

    Attributes
    ----------
    size
        Of data and model; the epochs that are measured may be shorter than a training's.
    share
        Of a training's epoch that one of these epochs is.
    epochs
        Of a training.
    seconds
        For which epochs are measured, at least.
    n_warm_up
        Epochs at the beginning that are not measured: in them memory is claimed, and launches are recorded.
    n_measured
        Epochs of every process that are measured, at least.
    """

    size: Size
    share: float
    epochs: int
    seconds: float
    n_warm_up: int = 3
    n_measured: int = 3

    @property
    def trainings(self) -> float:
        """Return the part of a training that one epoch is."""
        return self.share / self.epochs


def _part_of(size: Size, n_train: int) -> Size:
    return dataclasses.replace(size, n_train=n_train, n_validation=n_train * size.n_validation // size.n_train)


WORKS = {
    "tiny": Work(SIZES["tiny"], 1.0, 30, 0.0, n_warm_up=1, n_measured=1),
    "demo": Work(SIZES["demo"], 1.0, 30, 1.0),
    # 384 images are three batches of each session: epochs that are short enough to be measured.
    "paper": Work(_part_of(SIZES["paper"], 384), 384 / SIZES["paper"].n_train, 100, 2.5),
}


class _EndedError(Exception):
    """The training has been measured."""


class _Turnstile(Monitor):
    """Sends the time of every epoch's end, and lets the training continue for as many epochs as it is told."""

    def __init__(self, pipe: Connection, n_warm_up: int):
        self.pipe, self.n_left = pipe, n_warm_up

    def after_epoch(self, progress: Progress, get_state: Callable[[], bytes]) -> None:
        self.pipe.send(time.perf_counter())
        self.n_left -= 1
        while self.n_left <= 0 or self.pipe.poll():
            if self.n_left <= 0:
                self.pipe.send(WAITS)
            self.n_left = self.pipe.recv()
            if self.n_left == END:
                raise _EndedError


def _train(pipe: Connection, device: str, n_processes: int, names: Sequence[str]) -> None:
    """Train one size after another, each until told otherwise; send times, and how it ended."""
    torch.set_num_threads(1)
    if device == "cuda" and n_processes > 1:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(memory_share(total, n_processes) / total)
    for name in names:
        size = WORKS[name].size
        drawn = draw_sessions(size, device)
        sessions = {key: SlicedSession(*values, size.n_train) for key, values in drawn.items()}
        settings = {"lr_init": LEARNING_RATE, "patience": 10**6, "max_iter": 10**6, "share_pretraining": False}
        try:
            with monitored(_Turnstile(pipe, WORKS[name].n_warm_up)):
                baseline_trainer(
                    our_model(sessions, size), our_loaders(sessions, size), 1, device=device, verbose=False, **settings
                )
        except _EndedError:
            pass
        if device == "cuda":
            torch.cuda.empty_cache()


class Processes:
    """Processes that train, of which some are measured at a time.

    Parameters
    ----------
    number
        Number of processes.
    device
        ``"cuda"`` or ``"cpu"``.
    names
        Of the works, in the order in which they are trained.
    environment
        Additional variables of their environment.
    until
        Value of ``time.monotonic()`` at which waiting ends.
    """

    def __init__(self, number: int, device: str, names: Sequence[str], environment: dict[str, str], *, until: float):
        self.until = until
        # Forked, with torch imported, unless this process uses CUDA itself, which a forked one then cannot.
        context = multiprocessing.get_context("spawn" if torch.cuda.is_initialized() else "fork")
        self.pipes: list[Any] = []
        self.processes = []
        for _ in range(number):
            ours, theirs = context.Pipe()
            process = context.Process(target=_train, args=(theirs, device, number, names), daemon=True)
            with _in_environment(environment):
                process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def until_all_wait(self) -> None:
        """Read what all of them send until they wait: after the first epochs of a work, or when they were told to."""
        for pipe in self.pipes:
            while self._said(pipe) is not WAITS:
                pass

    def epochs_per_second(self, number: int, work: Work) -> float:
        """Return how many epochs the first ``number`` processes finish in a second while the others wait."""
        used = self.pipes[:number]
        for pipe in used:
            pipe.send(GO_ON)
        ends: list[list[float]] = [[] for _ in used]
        began = time.perf_counter()
        while time.perf_counter() - began < work.seconds or min(map(len, ends)) <= work.n_measured:
            for pipe, found in zip(used, ends, strict=True):
                found.append(self._said(pipe))
                while pipe.poll():
                    found.append(self._said(pipe))
        for pipe in used:
            pipe.send(PAUSE)
            while self._said(pipe) is not WAITS:
                pass
        last = min(found[-1] for found in ends)  # until then all of them were working
        within = [[end for end in found if end <= last] for found in ends]
        return sum((len(found) - 1) / (found[-1] - found[0]) for found in within if len(found) > 1)

    def next_work(self) -> None:
        """Let all of them begin the next work, or finish after the last."""
        for pipe in self.pipes:
            pipe.send(END)

    def close(self) -> None:
        """End all of them."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join()

    def _said(self, pipe: Any) -> Any:
        """Return what a process sends next; EOFError: it has failed, and its traceback is on stderr."""
        if not pipe.poll(max(0.0, self.until - time.monotonic())):
            raise TimeoutError("the time is over, and a process has not ended its epoch")
        return pipe.recv()


@contextmanager
def _in_environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass(frozen=True)
class Throughput:
    """The throughput of processes on one device.

    Attributes
    ----------
    name, number
        Of the work, of the processes.
    way
        How they share the device, in words; empty on a CPU.
    per_hour
        Trainings.
    """

    name: str
    number: int
    way: str
    per_hour: float


def measure(
    device: str,
    *,
    names: Sequence[str] = ("demo", "paper"),
    processes: Sequence[int] = PROCESSES,
    until: float | None = None,
) -> Iterator[Throughput]:
    """Yield the trainings per hour of every number of processes, for each work; on a GPU in turns and through MPS.

    Parameters
    ----------
    device
        ``"cuda"``, which takes the first GPU, or ``"cpu"``.
    names
        Of :data:`WORKS`.
    processes
        Numbers of processes that train at the same time.
    until
        Value of ``time.monotonic()`` at which it ends with a TimeoutError, together with everything that it has
        started. None: 90 s for each way of sharing.
    """
    with closing(ways(device, max(processes))) as found:  # MPS ends even after an error
        for position, (way, environment) in enumerate(found):
            # A single process does not share the device: once is enough.
            numbers = [number for number in processes if number > 1 or position == 0]
            limit = time.monotonic() + PATIENCE if until is None else until
            running = Processes(max(processes), device, names, environment, until=limit)
            try:
                for name in names:
                    running.until_all_wait()
                    for number in numbers:
                        rate = running.epochs_per_second(number, WORKS[name])
                        yield Throughput(name, number, way, 3600 * rate * WORKS[name].trainings)
                    running.next_work()
            finally:
                running.close()


def ways(device: str, number: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield how processes share the device, in words, and the variables of their environment for it."""
    if device != "cuda":
        yield "", {}
        return
    gpu = visible_gpus().gpus[0]
    pinned = {"CUDA_VISIBLE_DEVICES": gpu.device}
    slots = [Slot(f"gpu {gpu.label}", gpu, max(2, number))]
    plan = plan_mps("auto", slots)
    yield ("through the MPS that runs already" if running_daemon(os.environ) else "in turns"), pinned
    if plan.gpus:
        with tempfile.TemporaryDirectory() as folder:
            said: list[str] = []
            mps = PoolMps(plan, log_folder=Path(folder), on_event=said.append)
            try:
                mps.start()
                if shared := mps.environment(slots[0]):
                    yield "through MPS", {**pinned, **shared}
            finally:
                mps.stop()
            for words in said:
                print(words)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--size", choices=WORKS, nargs="+", default=["demo", "paper"], help="default: demo paper")
    parser.add_argument("--processes", type=int, nargs="+", default=list(PROCESSES), metavar="N", help="default: 1 2 4")
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not visible_gpus().gpus:
        print(f"No GPU: {visible_gpus().source}.")
        return 3
    print(f"{'model':<8}{'processes':>10}{'trainings/h':>14}{'of one':>9}  how they share the device")
    ones: dict[str, float] = {}
    for found in measure(arguments.device, names=arguments.size, processes=arguments.processes):
        one = ones.setdefault(found.name, found.per_hour)
        times = found.per_hour / one
        print(f"{found.name:<8}{found.number:>10}{found.per_hour:>14,.1f}{times:>8.2f}x  {found.way}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
