"""What it costs a worker to find its next job, and the cost of leases compared with DataJoint's plain reservations.

An embedded server with its own folder is started for the measurement and stopped afterwards. The plan has 25,000
combinations of dataset, model, trainer and seed; the table of trained models is filled step by step (rows without
weights). DataJoint's own way fetches all keys that are left before it takes the first one.

The jobs of the second part are as trivial as the tables allow (a summary of a model without weights), in turns: plain
``populate``, ``populate(reserve_jobs=True)``, one worker from its start to its end. They are measured with the machine
as it is, and again while every core is busy with something else.

    python benchmarks/pool.py
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from tables import embedded_database, timed

TARGET = 20.0  # ms per pick
MOST_MS, MOST_TIMES = 1.5, 1.5  # overhead of a worker per job: in ms, or as a multiple of that of reserve_jobs
DONE = (0, 12_500, 24_800)
NAMES = {
    "dataset": "december_plugin.datasets.static_loaders",
    "model": "december_plugin.models.stacked_core_gaussian_readout",
    "trainer": "december_plugin.trainers.baseline_trainer",
}


def open_tables() -> Any:
    """Return tables with 25,000 planned trainings."""
    from nnfabrik.main import my_nnfabrik

    from december_plugin.schemas import december_tables

    nnfabrik = my_nnfabrik("benchmark", use_common_fabrikant=False)
    tables = december_tables("benchmark", nnfabrik=nnfabrik)
    nnfabrik.Fabrikant.insert1({"fabrikant_name": "me", "email": "-", "affiliation": "-", "dj_username": "-"})
    keys = {}
    for (kind, name), number in zip(NAMES.items(), (10, 10, 25), strict=True):
        keys[kind] = [{f"{kind}_fn": name, f"{kind}_hash": f"{i:032d}"} for i in range(number)]
        rows = [{**key, f"{kind}_config": {}, f"{kind}_fabrikant": "me", f"{kind}_comment": ""} for key in keys[kind]]
        getattr(nnfabrik, kind.capitalize()).insert(rows)
    tables.TrainingPlan().add_entries(
        datasets=keys["dataset"], models=keys["model"], trainers=keys["trainer"], seeds=range(10)
    )
    return tables


def measure_picks(tables: Any, repeats: int) -> list[tuple[int, float, float, float]]:
    """Return, by number of models done, the times (ms) of a first pick, of a pick in a row of 200, of DataJoint's."""
    from december_plugin.pool.jobs.queue import TableQueue

    plan, table = tables.TrainingPlan.fetch("KEY"), tables.TrainedModel()
    results, n_stored = [], 0
    for n_done in DONE:
        rows = [{**key, "score": 0.5, "output": {}} for key in plan[n_stored:n_done]]
        table.insert(rows, allow_direct_insert=True)
        n_stored = n_done
        first = statistics.median(timed(lambda: TableQueue(table).next()) for _ in range(repeats))
        queue = TableQueue(table)
        mean = timed(lambda queue=queue: [queue.next() for _ in range(200)]) / 200
        whole = timed(lambda: (table._jobs_to_do({}) - table).fetch("KEY"))
        results.append((n_done, *(1000 * seconds for seconds in (first, mean, whole))))
    return results


def plan_summaries(tables: Any, n_jobs: int) -> None:
    """Keep this many trained models, each with a summary to compute."""
    (tables.TrainedModel & "seed > 0").delete_quick()
    keep = (tables.TrainedModel.fetch("KEY"))[:n_jobs]
    (tables.TrainedModel - keep).delete_quick()


@dataclass(frozen=True)
class PerJob:
    """The cost of a trivial job: wall and processor time of this process (ms), and statements."""

    wall: float
    cpu: float
    statements: float


def measure_overhead(tables: Any, n_jobs: int, repeats: int) -> dict[str, PerJob]:
    """Return the costs of a trivial job: plain, with DataJoint's reservation, by a worker."""
    from december_plugin.pool import Worker, WorkerSettings

    table = tables.TrainingSummary()
    ways = {
        "populate()": lambda: table.populate(),
        "populate(reserve_jobs=True)": lambda: table.populate(reserve_jobs=True),
        "a worker": lambda: Worker(tables, WorkerSettings(only=("TrainingSummary",))).run(),
    }
    found: dict[str, list[PerJob]] = {name: [] for name in ways}
    for _, (name, way) in itertools.product(range(repeats), ways.items()):
        with counted_statements(table.connection) as counts:
            cpu = time.process_time()
            wall = 1000 * timed(way) / n_jobs
            cpu = 1000 * (time.process_time() - cpu) / n_jobs
        found[name].append(PerJob(wall, cpu, counts["statements"] / n_jobs))
        assert len(table) == n_jobs
        table.delete_quick()
    return {name: _median(each) for name, each in found.items()}


def _median(found: list[PerJob]) -> PerJob:
    return PerJob(*(statistics.median(getattr(each, field.name) for each in found) for field in fields(PerJob)))


@contextmanager
def counted_statements(connection: Any) -> Iterator[Counter[str]]:
    """Count what is sent to the server on a connection within the block."""
    counts: Counter[str] = Counter()
    query = connection.query

    def counting(*args: Any, **kwargs: Any) -> Any:
        counts["statements"] += 1
        return query(*args, **kwargs)

    connection.query = counting
    try:
        yield counts
    finally:
        del connection.query


@contextmanager
def busy_cores() -> Iterator[None]:
    """Keep every core busy with another process within the block."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def print_overhead(costs: dict[str, PerJob]) -> None:
    plain, reserved = costs["populate()"], costs["populate(reserve_jobs=True)"]
    print(f"{'per job':<30}{'time':>12}{'overhead':>12}{'processor':>12}{'overhead':>12}{'statements':>12}")
    for name, cost in costs.items():
        line = f"{name:<30}{cost.wall:>9.2f} ms{cost.wall - plain.wall:>9.2f} ms"
        print(f"{line}{cost.cpu:>9.2f} ms{cost.cpu - plain.cpu:>9.2f} ms{cost.statements:>12.1f}")
    worker = costs["a worker"]
    ratios = [
        (getattr(worker, name) - getattr(plain, name)) / (getattr(reserved, name) - getattr(plain, name))
        for name in ("wall", "cpu")
    ]
    print(f"overhead of a worker, times that of reserve_jobs: {ratios[0]:.1f}, in processor time {ratios[1]:.1f}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200, help="trivial jobs (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements (default: %(default)s)")
    arguments = parser.parse_args(argv)
    with embedded_database():
        tables = open_tables()
        picks = measure_picks(tables, arguments.repeats)
        plan_summaries(tables, arguments.jobs)
        overheads = {"the machine as it is": measure_overhead(tables, arguments.jobs, arguments.repeats)}
        with busy_cores():
            overheads["every core busy"] = measure_overhead(tables, arguments.jobs, arguments.repeats)
    print("25,000 planned trainings: time to find the next one\n")
    print(f"{'done':>8}{'first pick':>14}{'in a row':>12}{'all keys left, as DataJoint':>30}{'ratio':>8}")
    for n_done, first, mean, whole in picks:
        print(f"{n_done:>8}{first:>11.1f} ms{mean:>9.2f} ms{whole:>27.0f} ms{whole / mean:>6.0f} x")
    print(f"target: at most {TARGET:g} ms\n\n{arguments.jobs} trivial jobs, one process")
    for load, times in overheads.items():
        print(f"\n{load} (load average {os.getloadavg()[0]:.1f} at the end)")
        print_overhead(times)
    print(f"target: overhead of a worker at most {MOST_MS:g} ms, or {MOST_TIMES:g} times that of reserve_jobs")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
