"""Many workers on a thousand trivial jobs: what the book-keeping costs, against plain ``populate``."""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict

from chaoslab.figures import Figures
from chaoslab.journal import Attempt
from chaoslab.laboratory import Bench, Laboratory
from chaoslab.stored import check_stored_once
from chaoslab.watching import job_states

LIMIT = 1.5  # times the overhead of plain populate(reserve_jobs=True)


def trivial_jobs(
    laboratory: Laboratory, *, n_workers: int, n_jobs: int, n_blocks: int, seconds: float = 0.05, limit: float = LIMIT
) -> Figures:
    """Let workers, and processes with plain ``populate``, do trivial jobs in turns.

    Overhead per job is the time of a process from its first job's begin to its last job's end, less the time within
    the jobs, by the number of jobs in between.
    """
    figures = Figures(f"{n_jobs} trivial jobs", f"{n_workers} workers against plain populate(reserve_jobs=True)")
    share = n_jobs // n_blocks
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    for block in range(n_blocks):
        order = ("plain", "pool") if block % 2 == 0 else ("pool", "plain")
        for kind in order:
            bench = laboratory.bench(f"trivial_{kind}_{block}", lease=60.0)
            bench.trivial_jobs("trivial", seeds=range(1, share + 1), seconds=seconds)
            _run(bench, kind, n_workers)
            attempts[kind] += bench.journal.attempts()
            check_stored_once(figures, bench, share, where=f", {kind} {block + 1}")
            begun = {attempt.job for attempt in bench.journal.attempts()}
            figures.equal(
                f"jobs computed once, {kind} {block + 1}", len(bench.journal.attempts()) == len(begun) == share, True
            )
            if kind == "pool":
                figures.equal("states of the jobs", job_states(bench), {"done": share})
            laboratory.say(f"trivial jobs: block {block + 1}/{n_blocks}, {kind}: {_words(bench.journal.attempts())}")
    for kind in ("plain", "pool"):
        figures.note(kind, _words(attempts[kind]))
    ratio = _overhead(attempts["pool"])[0] / _overhead(attempts["plain"])[0]
    figures.check(f"no more than {limit:g} times the overhead of plain populate", ratio <= limit, f"{ratio:.2f} times")
    return figures.finish()


def _run(bench: Bench, kind: str, n_workers: int) -> None:
    """Start all processes, and wait until the last one has ended."""
    if kind == "pool":
        processes = [bench.start_worker("--quiet").process for _ in range(n_workers)]
    else:
        words = [sys.executable, "-m", "chaoslab.plain", bench.schema]
        processes = [
            bench.laboratory.start(
                words, log=bench.logs / f"plain-{number}.log", cwd=bench.desk, env=bench.environment()
            )
            for number in range(n_workers)
        ]
    deadline = time.monotonic() + 600
    for process in processes:
        code = process.wait(timeout=max(1.0, deadline - time.monotonic()))
        if code != 0:
            raise RuntimeError(f"a process ended with {code}: {bench.said()[-2000:]}")


def _overhead(attempts: list[Attempt]) -> tuple[float, float]:
    """Return the overhead per job (s), and the share of time that was spent within jobs."""
    span = busy = 0.0
    n_jobs = 0
    by_process: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_process[attempt.pid].append(attempt)
    for own in by_process.values():
        if len(own) > 1:
            span += max(attempt.last for attempt in own) - min(attempt.began for attempt in own)
            busy += sum(attempt.busy for attempt in own)
            n_jobs += len(own) - 1
    return (span - busy) / n_jobs, busy / span


def _words(attempts: list[Attempt]) -> str:
    overhead, utilisation = _overhead(attempts)
    wall = max(attempt.last for attempt in attempts) - min(attempt.began for attempt in attempts)
    load = os.getloadavg()[0]
    return (
        f"overhead {1000 * overhead:.1f} ms per job, utilisation {100 * utilisation:.0f} %, {len(attempts)} jobs, "
        f"{wall:.1f} s from the first begin to the last end; load {load:.1f}"
    )
