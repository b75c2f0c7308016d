"""SIGSTOP for longer than the lease, then SIGCONT: a worker that was away must not store what is another's by now."""

from __future__ import annotations

import re
import signal
import time

from chaoslab.figures import Figures
from chaoslab.laboratory import QUICK, Bench, Laboratory, Worker, wait_for
from chaoslab.stored import Reference, check_stored_once
from chaoslab.watching import Hold, Watch, deaths

SAYS_STALE = re.compile(r"the lease of \S+ \S+ went to another worker[^\n]*")
OPTIONS = ("--poll", "0.3", "--idle-exit", "8")


def suspended(laboratory: Laboratory, *, epochs: int = 40, pause: float = 0.15) -> Figures:
    """Suspend a worker until another has begun its job, and one until another has stored it.

    The two happen side by side, on two benches: most of the time is spent waiting.
    """
    figures = Figures("SIGSTOP, SIGCONT", "suspended for longer than the lease, twice")
    config = {**QUICK, "max_iter": epochs, "patience": epochs, "pause": pause}
    trainer = {"fn": "chaoslab.workloads.baseline", "comment": "baseline", "config": config}
    benches = {}
    for until in ("begun", "stored"):
        bench = laboratory.bench(f"suspended_until_{until}", lease=2.0)
        bench.trainings([trainer], seeds=[1])
        benches[until] = (bench, Reference(bench), Watch(bench))
    suspensions = {until: _suspend(bench, watch) for until, (bench, _, watch) in benches.items()}
    for until, (bench, reference, watch) in benches.items():
        first, hold, stopped, other = suspensions[until]
        watch.wait(lambda hold=hold: hold.free, "the release of the suspended worker's job")
        figures.note(f"job of the suspended worker free after, until {until}", f"{hold.free - stopped:.2f} s")
        _resume(figures, bench, watch, until, first, hold, other)
        figures.equal(f"attempts counted as deaths, until {until}", deaths(bench), 1)
        check_stored_once(figures, bench, 1, reference, where=f", until {until}")
    return figures.finish()


def _suspend(bench: Bench, watch: Watch) -> tuple[Worker, Hold, float, Worker]:
    """Start a worker, suspend it after its second checkpoint, and start another."""
    first = bench.start_worker(*OPTIONS)
    hold = watch.wait(lambda: watch.held_by(first.worker_id), "a job of the first worker")
    last = 2 * bench.checkpoint_every + 1
    wait_for(lambda: _epochs(bench, hold.job, first) >= last, "two checkpoints", pause=0.05)
    first.signal(signal.SIGSTOP)
    return first, hold, time.time(), bench.start_worker(*OPTIONS)


def _epochs(bench: Bench, job: str, worker: Worker) -> int:
    of_worker = [attempt for attempt in bench.journal.of(job) if attempt.pid == worker.pid]
    return max((len(attempt.epochs) for attempt in of_worker), default=0)


def _resume(figures: Figures, bench: Bench, watch: Watch, until: str, first: Worker, hold: Hold, other: Worker) -> None:
    """Let the suspended worker go on once the other one has begun, or stored, its job."""
    if until == "begun":
        wait_for(lambda: _epochs(bench, hold.job, other) >= 1, "an epoch of the other worker")
    else:
        wait_for(lambda: bench.count("__trained_model") == 1, "the other worker's result")
    first.signal(signal.SIGCONT)
    wait_for(lambda: SAYS_STALE.search(first.said()), "the words of the stale worker", seconds=30)
    words = SAYS_STALE.search(first.said())
    figures.check(f"the stale worker says so, until {until}", words is not None, words[0] if words else "")
    codes = {worker.process.wait(timeout=60) for worker in (first, other)}
    figures.equal(f"exit codes, until {until}", codes, {0})
    stale = [attempt for attempt in bench.journal.of(hold.job) if attempt.pid == first.pid]
    wasted = sum(t > watch.holds[hold.job, hold.start].free for attempt in stale for t in attempt.epochs.values())
    figures.note(f"epochs computed by the stale worker after its lease, until {until}", wasted)
    again = [attempt for attempt in bench.journal.of(hold.job) if attempt.pid == other.pid]
    resumed = [min(attempt.epochs) for attempt in again if attempt.epochs]
    figures.check(f"the other worker went on from a checkpoint, until {until}", min(resumed, default=0) > 1, resumed)
