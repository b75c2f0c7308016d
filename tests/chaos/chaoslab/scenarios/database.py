"""The database server is killed with -9 and started again, again and again, once for longer than a whole training."""

from __future__ import annotations

import statistics
import time
from typing import Any

from chaoslab.crew import Crew
from chaoslab.faults import pause, server_away
from chaoslab.figures import Figures
from chaoslab.laboratory import QUICK, Bench, Laboratory, wait_for
from chaoslab.stored import Reference, check_stored_once
from chaoslab.watching import Watch, deaths


def database_killed(
    laboratory: Laboratory,
    *,
    n_kills: int,
    n_seeds: int,
    epochs: int = 40,
    epoch_pause: float = 0.2,
    n_workers: int = 3,
    longest: float = 4.0,
) -> Figures:
    """Kill the server; every other time at the moment at which a training is through and about to be stored."""
    figures = Figures("database kill -9", f"{n_kills} kills, one longer than a whole training")
    bench = laboratory.bench("database")
    settings = {**QUICK, "max_iter": epochs, "patience": epochs, "pause": epoch_pause}
    trainers: list[dict[str, Any]] = [
        {"fn": "chaoslab.workloads.baseline", "comment": "baseline", "config": settings},
        {
            "fn": "chaoslab.workloads.december",
            "comment": "K 2",
            "config": {**settings, "pretrain_epochs": epochs // 2, "n_clusters": 2},
        },
    ]
    expected = len(trainers) * n_seeds
    bench.trainings(trainers, seeds=range(1, n_seeds + 1))
    reference, watch, crew = Reference(bench), Watch(bench), Crew(bench, n_workers)
    crew.tend()
    outages = []
    for number in range(n_kills):
        _until_hit(bench, watch, crew, expected, at_the_end=number % 2 == 1)
        whole = number == n_kills // 2 // 2 * 2  # an even one: it begins in the middle of a training
        outages.append(_outage(bench, longest, whole_training=epochs if whole else 0))
        laboratory.say(f"database: {number + 1}/{n_kills} kills, {bench.count('__trained_model')}/{expected} stored")
    _finish(bench, watch, crew, expected)
    figures.equal("kills of the server", len(outages), n_kills)
    figures.spread("outages", [end - begin for begin, end in outages])
    _what_went_on(figures, bench, outages)
    figures.equal("epochs computed twice", bench.journal.epochs_computed_twice(), 0)
    ends = sum(attempt.ended is not None for attempt in bench.journal.attempts())
    figures.equal("trainings computed to the end", ends, expected)
    figures.equal("attempts counted as deaths", deaths(bench), 0)
    figures.equal("workers that ended before the end", dict(crew.codes), {143: n_workers})
    check_stored_once(figures, bench, expected, reference)
    return figures.finish()


def _until_hit(bench: Bench, watch: Watch, crew: Crew, expected: int, *, at_the_end: bool) -> None:
    """Return at a random moment while jobs are held, or at the moment at which the next training is through."""

    def look() -> bool:
        crew.tend()
        watch.look()
        return any(hold.free is None for hold in watch.holds.values()) or bench.count("__trained_model") == expected

    def ended() -> int:
        return sum(attempt.ended is not None for attempt in bench.journal.attempts())

    wait_for(look, "a job that is held", seconds=120)
    wait_for(lambda: bench.count("pool_worker") >= crew.size, "the start of all workers")
    if at_the_end:
        before = ended()
        wait_for(lambda: ended() > before or before == expected, "the end of a training", seconds=120, pause=0.01)
    else:
        wait_for(lambda: _in_work(bench) or bench.count("__trained_model") == expected, "a training in work")
        pause(bench.random, 0.1, 1.0)


def _outage(bench: Bench, longest: float, *, whole_training: int) -> tuple[float, float]:
    """Keep the server away for a random time, or for a whole training of so many epochs; return begin and end."""
    began = time.time()
    with server_away(bench.laboratory):
        pause(bench.random, 0.2, longest)
        if whole_training:
            wait_for(lambda: _all_wait(bench), "the end of all trainings in work", seconds=180)
            paces = [attempt.seconds_per_epoch() or 0.0 for attempt in bench.journal.attempts()]
            time.sleep(max(1.5 * bench.lease, began + 1.5 * max(paces) * whole_training - time.time()))
    return began, time.time()


def _in_work(bench: Bench) -> bool:
    return any(attempt.epochs and not attempt.ended for attempt in bench.journal.attempts())


def _all_wait(bench: Bench) -> bool:
    """Return whether every training that was in work when the server went away is through."""
    last: dict[int, Any] = {}
    for attempt in bench.journal.attempts():
        last[attempt.pid] = attempt
    return all(attempt.ended is not None for attempt in last.values())


def _finish(bench: Bench, watch: Watch, crew: Crew, expected: int) -> None:
    def over() -> bool:
        crew.tend()
        watch.look()
        return bench.count("__trained_model") == expected and all(hold.free for hold in watch.holds.values())

    wait_for(over, "the end of the sweep", seconds=300)
    crew.stop()


def _what_went_on(figures: Figures, bench: Bench, outages: list[tuple[float, float]]) -> None:
    """Note what was computed while the server was away, and how soon the workers were back."""
    attempts = bench.journal.attempts()
    epochs = [t for attempt in attempts for t in attempt.epochs.values()]
    whole = [attempt.ended - attempt.began for attempt in attempts if attempt.ended]
    figures.spread("a whole training", whole)
    longest = max(end - begin for begin, end in outages)
    figures.check("the longest outage was longer than a whole training", longest > statistics.median(whole))
    during = sum(begin < t < end for begin, end in outages for t in epochs)
    figures.note("epochs computed while the server was away", during)
    figures.check("trainings went on meanwhile", during > 0)
    waiting = [attempt.ended for attempt in attempts if attempt.ended]
    ends = sum(begin < t < end for begin, end in outages for t in waiting)
    figures.note("trainings that were through while the server was away", ends)
    figures.check("results waited for the server", ends > 0)
    begins = sorted(attempt.began for attempt in attempts)
    back = [min((t - end for t in begins if t > end), default=None) for _, end in outages]
    figures.spread("from the server's return to the next job begun", [t for t in back if t is not None])
