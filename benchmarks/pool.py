"""What it costs a worker to find its next job, and what leases cost beside DataJoint's plain reservations.

An embedded server with its own folder is started for the measurement and stopped afterwards. The plan has 25,000
combinations of dataset, model, trainer and seed; the table of trained models is filled step by step (rows without
weights). DataJoint's own way fetches all keys that are left before it takes the first one.

The jobs of the second part are as trivial as the tables allow (a summary of a model without weights), in turns: plain
``populate``, ``populate(reserve_jobs=True)``, one worker from its start to its end. They are measured as the machine
is, and again while every core is busy with something else.

    python benchmarks/pool.py
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Leave so many trained models, each with a summary to compute."""
    (tables.TrainedModel & "seed > 0").delete_quick()
    keep = (tables.TrainedModel.fetch("KEY"))[:n_jobs]
    (tables.TrainedModel - keep).delete_quick()


def measure_overhead(tables: Any, n_jobs: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Return the time (ms) and the statements of a trivial job: plain, with DataJoint's reservation, by a worker."""
    from december_plugin.pool import Worker, WorkerSettings

    table = tables.TrainingSummary()
    ways = {
        "populate()": lambda: table.populate(),
        "populate(reserve_jobs=True)": lambda: table.populate(reserve_jobs=True),
        "a worker": lambda: Worker(tables, WorkerSettings(only=("TrainingSummary",))).run(),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    statements: Counter[str] = Counter()
    for _, (name, way) in itertools.product(range(repeats), ways.items()):
        with counted_statements(table.connection) as counts:
            times[name].append(1000 * timed(way) / n_jobs)
        statements[name] += counts["statements"]
        assert len(table) == n_jobs
        table.delete_quick()
    return {name: (statistics.median(times[name]), statements[name] / n_jobs / repeats) for name in ways}


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


def print_overhead(times: dict[str, tuple[float, float]]) -> None:
    (plain, _), (reserved, _) = times["populate()"], times["populate(reserve_jobs=True)"]
    for name, (time_per_job, statements) in times.items():
        overhead = f", overhead {time_per_job - plain:5.2f} ms" if name != "populate()" else ""
        ratio = (
            f", {(time_per_job - plain) / (reserved - plain):.1f} times that of reserve_jobs"
            if name == "a worker"
            else ""
        )
        print(f"{name:<30}{time_per_job:>7.2f} ms per job,{statements:>5.1f} statements{overhead}{ratio}")


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
