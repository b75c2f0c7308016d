"""The cost of registering a large sweep: 1,000 trainers x 5 seeds, the same again, and extended to 25 seeds.

An embedded server with its own folder is started for the measurement and stopped afterwards. For comparison, entries
are added the way nnfabrik's ``add_entry`` does it, one by one, and the plan row by row, for a part of the sweep; its
time is scaled up to the whole. Reading and checking the file is timed separately: it needs no database.

    python benchmarks/registration.py --trainers 1000 --seeds 5
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from december_plugin.database.embedded import EmbeddedServer
from december_plugin.importing.datajoint import quiet_datajoint
from december_plugin.sweeps.parse import Sweep, load_sweep

SWEEP = """\
seeds: {seeds}
datasets:
  - fn: december_plugin.datasets.static_loaders
    config: {{paths: [recording], batch_size: 32}}
models:
  - fn: december_plugin.models.stacked_core_gaussian_readout
trainers:
  - fn: december_plugin.trainers.december_trainer
    comment: DECEMber, K {{n_clusters}}
    config: {{pretrain_epochs: 10, max_iter: 60}}
    grid: {{n_clusters: {counts}, strength: {strengths}}}
clusterings:
  - {{method: gmm, n_clusters: [10, 20, 30]}}
"""
PART = 50  # trainers that are registered one by one, for comparison
TARGET = 5.0  # seconds


@contextmanager
def embedded_lab() -> Iterator[Any]:
    """Open the tables in our own server, whatever the settings of this machine."""
    from december_plugin.schemas.lab import open_lab

    dj = quiet_datajoint()
    dj.config.update({"database.host": "localhost", "database.port": 3306, "stores": {}, "safemode": False})
    dj.config.update({"database.user": None, "database.password": None})
    with tempfile.TemporaryDirectory(prefix="december_benchmark") as home:
        os.environ["DECEMBER_HOME"] = home
        try:
            yield open_lab(schema="benchmark", create=True)
        finally:
            EmbeddedServer(home).stop()


def made_up_sweep(folder: Path, *, trainers: int, seeds: int) -> Path:
    """Write a sweep with a grid of so many trainers."""
    counts = list(range(2, 2 + min(trainers, 20)))
    strengths = [round(0.01 * at, 2) for at in range(1, 1 + trainers // len(counts))]
    path = folder / f"sweep-{seeds}.yaml"
    path.write_text(SWEEP.format(seeds=list(range(seeds)), counts=counts, strengths=strengths))
    return path


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def one_by_one(sweep: Sweep, lab: Any) -> None:
    """Add the first trainers with nnfabrik's ``add_entry``, and plan them row by row."""
    from nnfabrik.utility.dj_helpers import make_hash

    table = lab.nnfabrik.Trainer()
    with table.connection.transaction, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for entry in sweep.trainers[:PART]:
            config = {**entry.config, "lr_init": 0.001}  # others than those of the sweep
            key = table.add_entry(entry.fn, config, entry.comment, "december", skip_duplicates=True)
            for seed in sweep.seeds:
                row = {**key, "seed": seed}
                for kind, each in (("dataset", sweep.datasets[0]), ("model", sweep.models[0])):
                    row |= {f"{kind}_fn": each.fn, f"{kind}_hash": make_hash(each.config)}
                lab.tables.TrainingPlan().insert1(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainers", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    from december_plugin.sweeps.register import register

    with tempfile.TemporaryDirectory(prefix="december_sweep") as folder, embedded_lab() as lab:
        tables = {"nnfabrik": lab.nnfabrik, "tables": lab.tables, "add_fabrikant": True}
        for what, seeds in (("new", args.seeds), ("again", args.seeds), ("extended", 5 * args.seeds)):
            path = made_up_sweep(Path(folder), trainers=args.trainers, seeds=seeds)
            reading, sweep = timed(lambda path=path: load_sweep(path))
            writing, written = timed(lambda sweep=sweep: register(sweep, **tables))
            total = reading + writing
            print(
                f"{what:<9} {sweep.n_trainings:>7,} planned, {written.new['TrainingPlan']:>7,} of them new: read "
                f"{reading:.2f} s, written {writing:.2f} s, {total / TARGET:.2f} of the {TARGET:g} s that are allowed"
            )
            if what == "new":
                alone, _ = timed(lambda sweep=sweep: one_by_one(sweep, lab))
                scaled = alone * len(sweep.trainers) / PART
                print(f"one by one {scaled:.1f} s, {scaled / writing:.0f} times as long as written at once")
    print(f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
