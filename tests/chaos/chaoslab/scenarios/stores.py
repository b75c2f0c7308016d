"""The store fails: it cannot be written, its disk is full while checkpoints are saved, it answers 503 for a minute."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chaoslab.faults import S3, SmallDisk, folder_gone
from chaoslab.figures import Figures
from chaoslab.laboratory import QUICK, Bench, Laboratory, Worker, wait_for
from chaoslab.stored import Reference, check_stored_once, unreferenced_files
from chaoslab.watching import Watch, deaths

WAITS = re.compile(r"waiting: [^\n]*store[^\n]*")
OPTIONS = ("--poll", "0.3", "--idle-exit", "3")


def _trainer(epochs: int, pause: float, **settings: Any) -> dict[str, Any]:
    config = {**QUICK, "max_iter": epochs, "patience": epochs, "pause": pause, **settings}
    return {"fn": "chaoslab.workloads.baseline", "comment": "baseline", "config": config}


def _epochs(bench: Bench, worker: Worker) -> int:
    return sum(len(attempt.epochs) for attempt in bench.journal.attempts() if attempt.pid == worker.pid)


def _ended(bench: Bench) -> bool:
    return any(attempt.ended for attempt in bench.journal.attempts())


# ---- a folder that cannot be written


def store_unwritable(laboratory: Laboratory, *, epochs: int = 15, pause: float = 0.15) -> Figures:
    """Take a store away in the middle of a training until after its end; make another one read-only."""
    figures = Figures("store unwritable", "the folder is gone, or read-only, when a training ends")
    benches = {"gone": laboratory.bench("store_gone"), "read-only": laboratory.bench("store_read_only")}
    disk = SmallDisk(benches["read-only"].store_folder, 4_000_000)
    problem = disk.mount()
    if problem:
        figures.note("read-only", f"left out, because a file system cannot be mounted here ({problem})")
        del benches["read-only"]
    try:
        for bench in benches.values():
            bench.trainings([_trainer(epochs, pause)], seeds=[1])
        references = {fault: Reference(bench) for fault, bench in benches.items()}
        _end_without_store(figures, benches, disk)
        for fault, bench in benches.items():
            where = f", store {fault}"
            check_stored_once(figures, bench, 1, references[fault], where=where)
            figures.equal("attempts counted as deaths" + where, deaths(bench), 0)
            ends = sum(bool(attempt.ended) for attempt in bench.journal.attempts())
            figures.equal("trainings computed to the end" + where, ends, 1)
            figures.equal("files in the store that no row refers to" + where, unreferenced_files(bench), [])
    finally:
        disk.unmount()
    return figures.finish()


@contextlib.contextmanager
def _read_only(disk: SmallDisk) -> Iterator[None]:
    disk.read_only(True)
    try:
        yield
    finally:
        disk.read_only(False)


def _end_without_store(figures: Figures, benches: dict[str, Bench], disk: SmallDisk) -> None:
    """Let one training on each bench end while its store is away, and wait for its result once the store is back."""
    workers = {fault: bench.start_worker(*OPTIONS) for fault, bench in benches.items()}
    for fault, bench in benches.items():
        wait_for(lambda bench=bench: checkpoints(bench), f"a checkpoint ({fault})", pause=0.05)
    with contextlib.ExitStack() as faults:
        for fault, bench in benches.items():
            faults.enter_context(_read_only(disk) if fault == "read-only" else folder_gone(bench.store_folder))
        for fault, bench in benches.items():
            worker = workers[fault]
            wait_for(lambda bench=bench: _ended(bench), "the end of the training")
            wait_for(lambda worker=worker: worker.code is not None or _complaint(worker), "a complaint about the store")
        time.sleep(1.5)
        for fault, bench in benches.items():
            figures.equal(f"stored while the store is {fault}", bench.count("__trained_model"), 0)
            figures.equal(f"exit code of the worker while the store is {fault}", workers[fault].code, None)
    for fault, bench in benches.items():
        words = _complaint(workers[fault])
        figures.check(f"the worker says why it waits, store {fault}", words, words)
        wait_for(lambda bench=bench: bench.count("__trained_model") == 1, "the result, once the store is back")
        workers[fault].process.wait(timeout=60)


def _complaint(worker: Worker) -> str:
    found = WAITS.search(worker.said())
    return found[0] if found else ""


# ---- a disk that is full while checkpoints are saved


def disk_full(laboratory: Laboratory, *, epochs: int = 40, pause: float = 0.15) -> Figures:
    """Fill the store's disk during a training, kill the worker, make room: it goes on from the old checkpoint."""
    figures = Figures("disk full", "while checkpointing; the worker killed; then room again")
    bench = laboratory.bench("disk_full", lease=2.0)
    disk = SmallDisk(bench.store_folder, 1_000_000)
    problem = disk.mount()
    if problem:
        figures.left_out = f"a file system cannot be mounted here ({problem})"
        return figures.finish()
    try:
        bench.trainings([_trainer(epochs, pause)], seeds=[1])
        _fill_and_kill(figures, bench, disk)
    finally:
        disk.unmount()
    return figures.finish()


def checkpoints(bench: Bench) -> list[Path]:
    """Return the files of checkpoints in a store that is a folder."""
    return sorted((bench.store_folder / "december_checkpoints").glob("*/*/[0-9a-f]*"))


def _fill_and_kill(figures: Figures, bench: Bench, disk: SmallDisk) -> None:
    reference, watch = Reference(bench), Watch(bench)
    worker = bench.start_worker(*OPTIONS)
    wait_for(lambda: checkpoints(bench), "a checkpoint", pause=0.05)
    disk.fill()
    wait_for(lambda: "could not be saved" in worker.said(), "a checkpoint that fails")
    before = _digests(bench)
    count = _epochs(bench, worker)
    wait_for(lambda: _epochs(bench, worker) > count + 2 * bench.checkpoint_every, "more epochs")
    figures.equal("checkpoint while the disk is full", _digests(bench), before)
    said = re.search(r"[^\n]*could not be saved[^\n]*", worker.said())
    figures.check("the worker says so and goes on", worker.code is None, said[0] if said else "")
    worker.process.kill()
    worker.process.wait()
    disk.free()
    other = bench.start_worker(*OPTIONS)
    watch.wait(lambda: bench.count("__trained_model") == 1, "the result")
    other.process.wait(timeout=60)
    again = [min(attempt.epochs) for attempt in bench.journal.attempts() if attempt.pid == other.pid]
    figures.check("the next worker goes on from the checkpoint", again and again[0] > 1, f"epoch {again}")
    check_stored_once(figures, bench, 1, reference)
    figures.equal("files in the store that no row refers to", unreferenced_files(bench), [])


def _digests(bench: Bench) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in checkpoints(bench)}


# ---- S3


def s3_unavailable(laboratory: Laboratory, *, seconds: float, epochs: int = 30, pause: float = 0.2) -> Figures:
    """Let an S3 store answer 503 while trainings checkpoint and end."""
    figures = Figures("store answers 503", f"for {seconds:.0f} s, while trainings checkpoint and end")
    folder = laboratory.folder / "s3"
    folder.mkdir()
    endpoint = S3(laboratory, folder)
    try:
        bench = laboratory.bench("s3", store=endpoint.store)
        bench.trainings([_trainer(epochs, pause)], seeds=[1, 2, 3])
        _answer_503(figures, bench, endpoint, seconds)
    finally:
        endpoint.close()
    return figures.finish()


def _answer_503(figures: Figures, bench: Bench, endpoint: S3, seconds: float) -> None:
    reference, watch = Reference(bench), Watch(bench)
    workers = [bench.start_worker(*OPTIONS) for _ in range(2)]
    wait_for(lambda: _saved(endpoint), "a checkpoint", pause=0.1)
    began = time.time()
    endpoint.proxy.fail(True)
    wait_for(lambda: _ended(bench), "the end of a training while the store is away", seconds=120)
    while time.time() - began < seconds:
        watch.look()
        time.sleep(0.1)
    stored = bench.count("__trained_model")
    endpoint.proxy.fail(False)
    back = time.time()
    figures.note("answers of 503", endpoint.proxy.n_refused)
    figures.check("requests were refused", endpoint.proxy.n_refused > 0)
    ends = [attempt.ended for attempt in bench.journal.attempts() if attempt.ended and attempt.ended > began]
    figures.equal("stored during the outage", stored, 0)
    watch.wait(lambda: bench.count("__trained_model") == 3, "all results", seconds=180)
    figures.note("trainings that were through during the outage", sum(t < back for t in ends))
    words = WAITS.search(bench.said())
    figures.check("the workers say what they wait for", words is not None, words[0] if words else "")
    codes = {worker.process.wait(timeout=90) for worker in workers}
    figures.equal("exit codes", codes, {0})
    figures.equal("attempts counted as deaths", deaths(bench), 0)
    figures.equal("trainings computed to the end", sum(bool(a.ended) for a in bench.journal.attempts()), 3)
    check_stored_once(figures, bench, 3, reference)
    left = [name for name in endpoint.objects() if "december_checkpoints" in name]
    figures.equal("checkpoints left", left, [])


def _saved(endpoint: S3) -> bool:
    return any("december_checkpoints" in name for name in endpoint.objects())
