"""The cost of ``december report`` and ``december figures`` for a lab that has tried hundreds of configurations.

An embedded server with its own folder is started for the measurement and stopped afterwards. Models, their summaries,
test performances, assignments, agreements, criteria and nulls are inserted as rows, without training anything: by
default 1,000 assignments of 5,000 neurons in 200 configurations (100 runs of DECEMber, two K, five seeds). The commands
then run in separate processes, without the t-SNE, which ``benchmarks/tsne.py`` measures.

    python benchmarks/report.py --runs 100 --counts 4 8
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tables import made_up_assignment

from december_plugin.database.connection import connect
from december_plugin.database.embedded import EmbeddedServer
from december_plugin.importing.datajoint import quiet_datajoint

SEEDS = 5
DRAWS = 20
MOST_SECONDS, MOST_GIGABYTES = 180.0, 2.0
NAMES = {
    "dataset": "december_plugin.datasets.static_loaders",
    "model": "december_plugin.models.stacked_core_gaussian_readout",
    "trainer": "december_plugin.trainers.december_trainer",
}
SCHEMA = "benchmark"

COMMAND = """
import resource, sys, time
from december_plugin.cli import main
begun = time.perf_counter()
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print(f"measured {time.perf_counter() - begun:.1f} {used.ru_utime + used.ru_stime:.1f} {used.ru_maxrss / 2**20:.2f}")
sys.exit(code)
"""


def add(nnfabrik: Any, kind: str, config: dict[str, Any], comment: str) -> dict[str, str]:
    """Register an entry; return its key."""
    arguments = {"fn": NAMES[kind], "config": config, "comment": comment, "fabrikant": "me"}
    return getattr(nnfabrik, kind.capitalize())().add_entry(**{f"{kind}_{name}": v for name, v in arguments.items()})


def insert(table: Any, rows: list[dict[str, Any]]) -> None:
    table.insert(rows, allow_direct_insert=True)


def open_tables() -> tuple[Any, Any]:
    """Return nnfabrik's tables and ours, with the entries that all configurations share."""
    from nnfabrik.main import my_nnfabrik

    from december_plugin.schemas import december_tables

    nnfabrik = my_nnfabrik(SCHEMA, use_common_fabrikant=False)
    tables = december_tables(SCHEMA, nnfabrik=nnfabrik)
    nnfabrik.Fabrikant.insert1({"fabrikant_name": "me", "email": "-", "affiliation": "-", "dj_username": "-"})
    nnfabrik.Seed.insert([{"seed": seed} for seed in range(SEEDS)])
    return nnfabrik, tables


def fill(n_runs: int, counts: list[int], n_neurons: int) -> int:
    """Insert all rows that a finished sweep has in its tables; return the number of assignments."""
    nnfabrik, tables = open_tables()
    shared = add(nnfabrik, "dataset", {"made": "up"}, "recordings") | add(nnfabrik, "model", {"made": "up"}, "model")
    clustering = tables.Clustering().add_entry("december", skip_duplicates=True)
    surrogate = tables.Surrogate().add_entry("made up", n_draws=DRAWS)
    rng = np.random.default_rng(0)
    assignments = [made_up_assignment(n_neurons, seed) for seed in range(SEEDS)]
    types = {s["data_key"]: (s["unit_ids"], s["labels"] % 8) for s in assignments[0][1]}
    tables.KnownTypes().add_entry("planted", types)
    for run, count in itertools.product(range(n_runs), counts):
        config = {"n_clusters": count, "strength": 10.0 ** (run % 5), "lr_init": 0.001 * (run + 1)}
        trainer = add(nnfabrik, "trainer", config, f"DECEMber, run {run}")
        keys = [{**shared, **trainer, "seed": seed} for seed in range(SEEDS)]
        insert_trainings(tables, keys, count, 10.0 ** (run % 5), rng)
        insert_assignments(tables, [{**key, **clustering} for key in keys], assignments, count, rng)
    tables.Consensus.populate()
    insert_nulls(tables, surrogate, rng)
    return len(tables.ClusterAssignment())


def insert_trainings(tables: Any, keys: list[dict], count: int, strength: float, rng: np.random.Generator) -> None:
    curves = {name: np.linspace(0.0, 1.0, 100) for name in ("epoch", "phase", "validation_correlation", "loss")}
    mixture = {"means": rng.normal(size=(count, 64)), "covariances": rng.normal(size=(count, 64))}
    output = {"trainer": "december", "curves": curves, "mixture": mixture, "versions": {"torch": "2.6", "numpy": "2"}}
    insert(tables.TrainedModel, [{**key, "score": 0.5, "output": output} for key in keys])
    said = {"trainer_role": "december", "k_trained": count, "strength": strength, "strength_setting": f"{strength:g}"}
    said |= {"gradient_ratio": strength / 1e4, "locked_in": False, "pretrain_epochs": 20, "n_epochs": 100}
    insert(tables.TrainingSummary, [{**key, **said, "validation_correlation": rng.uniform(0.3, 0.4)} for key in keys])
    tested = {"single_trial_correlation": 0.4, "n_tested_neurons": 1000, "n_constant_neurons": 0}
    insert(tables.TestPerformance, [{**key, **tested} for key in keys])


def insert_assignments(
    tables: Any, keys: list[dict], assignments: list[tuple], count: int, rng: np.random.Generator
) -> None:
    for key, (row, sessions) in zip(keys, assignments, strict=True):
        insert(tables.ClusterAssignment, [{**key, **row, "n_clusters_used": count}])
        insert(tables.ClusterAssignment.Session, [{**key, **session} for session in sessions])
    measures = ("adjusted_rand_index", "fowlkes_mallows", "homogeneity", "completeness", "v_measure")
    pairs = []
    for first, second in itertools.combinations(keys, 2):
        shared = {name: value for name, value in first.items() if name != "seed"}
        pair = {**shared, "seed_a": first["seed"], "seed_b": second["seed"]}
        pairs.append({**pair, **dict.fromkeys(measures, rng.uniform(0.3, 0.9)), "n_neurons": 1000})
    insert(tables.SeedAgreement, pairs)
    likelihood = {"heldout_log_likelihood": rng.normal(), "heldout_log_likelihood_se": 0.1, "n_splits": 5}
    criteria = {**likelihood, "bic": rng.normal(1e5, 1e3), "silhouette": rng.uniform()}
    insert(tables.ClusterQuality, [{**key, **criteria} for key in keys])
    found = {"types_name": "planted", **dict.fromkeys(measures, rng.uniform(0.3, 0.9)), "n_labelled": 1000}
    insert(tables.LabelAgreement, [{**key, **found} for key in keys])


def insert_nulls(tables: Any, surrogate: dict[str, str], rng: np.random.Generator) -> None:
    rows = []
    for entry in tables.Consensus.fetch("KEY", "seeds", "labels_md5s", as_dict=True):
        agreements = rng.uniform(0.2, 0.5, (DRAWS, SEEDS * (SEEDS - 1) // 2))
        null = {"observed_mean": 0.6, "null_mean": 0.35, "null_low": 0.3, "null_high": 0.4, "p_value": 1 / 21}
        null |= {"n_null_pairs": agreements.shape[1], "n_null_neurons": 1000, "correlation_error": 0.01}
        rows.append({**entry, **surrogate, **null, "largest_correlation_error": 0.02, "agreements": agreements})
    insert(tables.SurrogateAgreement, rows)


def measured(home: str, *words: str) -> tuple[float, float, float]:
    """Run a command in its own process; return its wall and processor seconds, and its peak memory in GiB."""
    command = [sys.executable, "-c", COMMAND, *words, "--schema", SCHEMA, "--nnfabrik", SCHEMA]
    done = subprocess.run(
        command, env=os.environ | {"DECEMBER_HOME": home}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    seconds, processor, gigabytes = map(float, done.stdout.rsplit("measured ", 1)[1].split())
    return seconds, processor, gigabytes


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=5000, help="neurons (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=100, help="runs of DECEMber (default: %(default)s)")
    parser.add_argument("--counts", type=int, nargs="+", default=[4, 8], help="numbers of clusters (default: 4 8)")
    arguments = parser.parse_args(argv)
    dj = quiet_datajoint()
    dj.config.update({"database.host": "localhost", "database.port": 3306, "stores": {}, "safemode": False})
    dj.config.update({"database.user": None, "database.password": None})
    with tempfile.TemporaryDirectory(prefix="december_benchmark") as home:
        try:
            connect(home=home)
            begun = time.perf_counter()
            n = fill(arguments.runs, arguments.counts, arguments.n)
            n_configurations = arguments.runs * len(arguments.counts)
            print(f"{n} assignments of {arguments.n} neurons in {n_configurations} configurations")
            print(f"inserted in {time.perf_counter() - begun:.0f} s\n", flush=True)
            page, figures = str(Path(home) / "report.html"), str(Path(home) / "figures")
            for name, words in {
                "december report --no-tsne": ("report", "-o", page, "--no-tsne"),
                "december figures --no-tsne": ("figures", figures, "--no-tsne"),
            }.items():
                seconds, processor, gigabytes = measured(home, *words)
                print(
                    f"{name:<28}{seconds:>8.1f} s, {seconds / MOST_SECONDS:.2f} of the target of {MOST_SECONDS:g} s "
                    f"({processor:.1f} s of a processor);{gigabytes:>6.2f} GiB, {gigabytes / MOST_GIGABYTES:.2f} of "
                    f"{MOST_GIGABYTES:g} GiB",
                    flush=True,
                )
            print(f"{'size of the page':<28}{Path(page).stat().st_size / 1e6:>8.1f} MB")
        finally:
            EmbeddedServer(home).stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
