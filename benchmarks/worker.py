"""Trainings per hour of one worker on the demonstration's recordings, with and without what saves it work.

An embedded server with its own folder is started for the measurement and stopped afterwards. One worker in this process
trains and tests the same models several times, in turns: with recordings that stay in memory between jobs, and reading
them again for every job, each with its own pretrainings. Everything between the first job and the last counts: reading,
database, training, storing. The cost of starting a worker's process is printed, too.

    python benchmarks/worker.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tables import embedded_database

WAYS = {"recordings in memory": None, "read for every job": 0.0}  # --data-cache
SCHEMA = "benchmark"
IMPORTS = "import december_plugin.pool.worker.loop, december_plugin.pool.worker.runner, december_plugin.trainers"
SETTLE_SECONDS = 2.5  # recordings that were written a moment ago are not kept


@dataclass(frozen=True)
class Measurement:
    """The seconds that a worker took for its jobs."""

    wall: float
    cpu: float


def plan_trainings(folder: Path, n_seeds: int) -> Any:
    """Register the demonstration's sweep with few epochs and return the tables."""
    from december_plugin.demo.demonstration import DemoSettings, demo_sweep, simulated_recordings
    from december_plugin.schemas.lab import open_lab
    from december_plugin.sweeps.parse import parse_sweep
    from december_plugin.sweeps.register import register

    settings = DemoSettings(
        folder=folder, seeds=tuple(range(1, n_seeds + 1)), n_clusters=(3, 6), max_iter=6, pretrain_epochs=4, n_draws=0
    )
    sweep = parse_sweep(demo_sweep(settings, simulated_recordings(folder)))
    lab = open_lab(schema=SCHEMA, nnfabrik=SCHEMA, create=True)
    register(sweep, nnfabrik=lab.nnfabrik, tables=lab.tables, add_fabrikant=True)
    return lab.tables


def measure(tables: Any, folder: Path, data_cache: float | None) -> Measurement:
    """Let a worker train and test all models, which are deleted afterwards."""
    from december_plugin.pool import Worker, WorkerSettings

    with tempfile.TemporaryDirectory(dir=folder) as pretraining:
        os.environ["DECEMBER_PRETRAINING"] = pretraining
        wall, cpu = time.perf_counter(), time.process_time()
        report = Worker(tables, WorkerSettings(only=("gpu",), data_cache=data_cache)).run()
        taken = Measurement(time.perf_counter() - wall, time.process_time() - cpu)
    assert report.n_failed == 0
    (tables.TrainedModel & "TRUE").delete()
    return taken


def seconds_to_import() -> float:
    """Return the processor time of a process that imports what a worker needs, and nothing else (s)."""
    before = os.times()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="seeds, of 8 trainings each (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="measurements of each way (default: %(default)s)")
    arguments = parser.parse_args(argv)
    with embedded_database() as home, tempfile.TemporaryDirectory(dir=home) as name:
        folder = Path(name)
        tables = plan_trainings(folder, arguments.seeds)
        n_trainings = len(tables.TrainingPlan())
        time.sleep(SETTLE_SECONDS)
        taken: dict[str, list[Measurement]] = {way: [] for way in WAYS}
        for number in range(arguments.repeats):
            for way in list(WAYS)[:: 1 if number % 2 else -1]:  # in turns, including who is first
                taken[way].append(measure(tables, folder, WAYS[way]))
    importing = statistics.median(seconds_to_import() for _ in range(arguments.repeats))
    print(f"{n_trainings} trainings of 6 epochs, 4 of them shared, and their tests; one worker\n")
    print(f"{'':<24}{'trainings per hour':>20}{'processor time of one':>24}{'ratio':>8}")
    cpu = {way: statistics.median(each.cpu for each in runs) / n_trainings for way, runs in taken.items()}
    slowest = max(cpu.values())
    for way, runs in taken.items():
        per_hour = 3600 * n_trainings / statistics.median(each.wall for each in runs)
        print(f"{way:<24}{per_hour:>20.0f}{1000 * cpu[way]:>21.0f} ms{slowest / cpu[way]:>7.2f}x")
    print(f"\nimports of a worker's process: {importing:.1f} s of processor time, as much as ", end="")
    print(f"{importing / min(cpu.values()):.0f} of these trainings")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
