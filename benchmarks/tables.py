"""The cost of storing and fetching cluster assignments, and of filling the agreement of many pairs of seeds.

An embedded server with its own folder is started for the measurement and stopped afterwards. The assignments of a model
of the SENSORIUM 2022 mice (54,569 neurons in 7 sessions) are stored and fetched as the tables do it and, for
comparison, as one row per neuron keyed by nnfabrik's whole key, inserted in chunks with the driver's ``executemany``.
Times are medians. Labels and confidences are random, which compresses worse than real ones.

    python benchmarks/tables.py --pairs 1000
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from december_plugin.database.connection import connect
from december_plugin.database.embedded import EmbeddedServer
from december_plugin.importing.datajoint import quiet_datajoint

SESSIONS = 7
CLUSTERS = 50
CHUNK = 5000
TARGETS = {"store": 0.5, "fetch": 0.05, "pairs": 60.0}

CREATE_ROWS = """
CREATE TABLE `{schema}`.`row_per_neuron` (
  model_fn varchar(128) NOT NULL, model_hash varchar(64) NOT NULL, dataset_fn varchar(64) NOT NULL,
  dataset_hash varchar(64) NOT NULL, trainer_fn varchar(64) NOT NULL, trainer_hash varchar(64) NOT NULL,
  seed int NOT NULL, clustering_hash char(32) NOT NULL, data_key varchar(128) NOT NULL, unit_id bigint NOT NULL,
  label smallint NOT NULL, confidence float NOT NULL,
  PRIMARY KEY (model_fn, model_hash, dataset_fn, dataset_hash, trainer_fn, trainer_hash, seed, clustering_hash,
               data_key, unit_id))
"""


@contextmanager
def embedded_database() -> Iterator[str]:
    """Connect to our own server, whatever the settings of this machine; yield its folder."""
    dj = quiet_datajoint()
    dj.config.update({"database.host": "localhost", "database.port": 3306, "stores": {}, "safemode": False})
    dj.config.update({"database.user": None, "database.password": None})
    with tempfile.TemporaryDirectory(prefix="december_benchmark") as home:
        try:
            connect(home=home)
            yield home
        finally:
            EmbeddedServer(home).stop()


def open_tables(n_seeds: int) -> tuple[Any, list[dict[str, Any]]]:
    """Return the tables with ``n_seeds`` trained models without weights, and the keys of their assignments."""
    from nnfabrik.main import my_nnfabrik

    from december_plugin.schemas import december_tables

    nnfabrik = my_nnfabrik("benchmark", use_common_fabrikant=False)
    tables = december_tables("benchmark", nnfabrik=nnfabrik)
    user = {"fabrikant_name": "me", "email": "-", "affiliation": "-", "dj_username": "-"}
    nnfabrik.Fabrikant.insert1(user)
    names = {
        "dataset": "december_plugin.datasets.static_loaders",
        "model": "december_plugin.models.stacked_core_gaussian_readout",
        "trainer": "december_plugin.trainers.december_trainer",
    }
    key: dict[str, Any] = {}
    for kind, name in names.items():
        entry = getattr(nnfabrik, kind.capitalize())()
        key |= entry.add_entry(name, {"benchmark": True}, **{f"{kind}_fabrikant": "me"})
    nnfabrik.Seed.insert([{"seed": seed} for seed in range(n_seeds)])
    keys = [{**key, "seed": seed} for seed in range(n_seeds)]
    rows = [{**each, "score": 0.5, "output": {}} for each in keys]
    tables.TrainedModel.insert(rows, allow_direct_insert=True)
    clustering = tables.Clustering().add_entry("december", skip_duplicates=True)
    return tables, [{**each, **clustering} for each in keys]


def made_up_assignment(n: int, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return random labels, a third of which differs between seeds."""
    from december_plugin.clustering.result import ClusteringResult
    from december_plugin.schemas.clusters import assignment_rows
    from december_plugin.schemas.stored_models import SessionNeurons

    common, own = np.random.default_rng(0), np.random.default_rng(seed + 1)
    labels = common.integers(0, CLUSTERS, n)
    moved = own.random(n) < 1 / 3
    labels[moved] = own.integers(0, CLUSTERS, moved.sum())
    sizes = np.diff(np.linspace(0, n, SESSIONS + 1).astype(int))
    neurons = [
        SessionNeurons(f"static{20000 + at}-{at}-1-preproc0", np.sort(common.permutation(3 * size)[:size]), "recording")
        for at, size in enumerate(sizes)
    ]
    sure, margins = own.random(n), own.random(n)
    found = ClusteringResult(labels=labels, confidences=sure, margins=margins, n_clusters=CLUSTERS, log_likelihood=-1.0)
    return assignment_rows(found, neurons)


def timed(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def store(tables: Any, key: dict[str, Any], row: dict[str, Any], sessions: list[dict[str, Any]]) -> None:
    """Insert one assignment the way populate does."""
    table = tables.ClusterAssignment
    table._allow_insert = True
    with tables.schema.connection.transaction:
        table().make_insert(key, row, sessions)
    table._allow_insert = False


def store_rows(connection: Any, key: dict[str, Any], sessions: list[dict[str, Any]]) -> None:
    """Insert one row per neuron in chunks."""
    names = [*key, "data_key", "unit_id", "label", "confidence"]
    statement = f"INSERT INTO benchmark.row_per_neuron ({','.join(names)}) VALUES ({','.join(['%s'] * len(names))})"
    own = tuple(key.values())
    rows = [
        (*own, session["data_key"], *neuron)
        for session in sessions
        for neuron in zip(
            session["unit_ids"].tolist(), session["labels"].tolist(), session["confidences"].tolist(), strict=True
        )
    ]
    cursor = connection._conn.cursor()
    with connection.transaction:
        for start in range(0, len(rows), CHUNK):
            cursor.executemany(statement, rows[start : start + CHUNK])


def fetch(tables: Any, key: dict[str, Any]) -> int:
    arrays = (tables.ClusterAssignment.Session & key).fetch(
        "data_key", "unit_ids", "labels", "confidences", as_dict=True
    )
    return sum(len(session["labels"]) for session in arrays)


def fetch_rows(connection: Any, key: dict[str, Any]) -> int:
    query = "SELECT data_key, unit_id, label, confidence FROM benchmark.row_per_neuron WHERE seed = %s"
    return len(connection.query(query, args=(key["seed"],)).fetchall())


def measure(n: int, pairs: int, repeats: int) -> dict[str, SimpleNamespace]:
    """Return the seconds of the tables' way and of one row per neuron, by measurement."""
    n_seeds = max(repeats + 1, math.ceil((1 + math.sqrt(1 + 8 * pairs)) / 2))
    results = {}
    with embedded_database():
        connection = quiet_datajoint().conn()
        tables, keys = open_tables(n_seeds)
        made = [made_up_assignment(n, seed) for seed in range(n_seeds)]
        times = [
            timed(lambda key=key, rows=rows: store(tables, key, *rows)) for key, rows in zip(keys, made, strict=True)
        ]
        connection.query(CREATE_ROWS.format(schema="benchmark"))
        rows = [timed(lambda i=i: store_rows(connection, keys[i], made[i][1])) for i in range(repeats)]
        results["store"] = SimpleNamespace(ours=statistics.median(times), rows=statistics.median(rows))
        assert fetch(tables, keys[0]) == fetch_rows(connection, keys[0]) == n
        times = [timed(lambda i=i: fetch(tables, keys[i])) for i in range(repeats)]
        rows = [timed(lambda i=i: fetch_rows(connection, keys[i])) for i in range(repeats)]
        results["fetch"] = SimpleNamespace(ours=statistics.median(times), rows=statistics.median(rows))
        filled = [timed(lambda i=i: tables.NeuronCluster().fill(keys[i])) for i in range(repeats)]
        results["fill"] = SimpleNamespace(ours=statistics.median(filled), rows=results["store"].rows)
        seconds = timed(lambda: tables.SeedAgreement.populate(max_calls=pairs, reserve_jobs=True))
        results["pairs"] = SimpleNamespace(ours=seconds, rows=math.nan)
        assert len(tables.SeedAgreement()) == pairs
    return results


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=54_569, help="neurons (default: SENSORIUM 2022, %(default)s)")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of seeds (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="measurements of what is repeated (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    results = measure(arguments.n, arguments.pairs, arguments.repeats)
    what = {
        "store": "store one assignment (arrays per session)",
        "fetch": "fetch one assignment",
        "fill": "write it as narrow rows on demand",
        "pairs": f"agreement of {arguments.pairs} pairs of seeds, reserved",
    }
    print(f"{arguments.n} neurons in {SESSIONS} sessions, K = {CLUSTERS}\n")
    print(f"{'':<46}{'tables':>10}{'row/neuron':>12}{'ratio':>8}  target")
    for name, result in results.items():
        naive = "-" if math.isnan(result.rows) else f"{result.rows:.2f} s"
        ratio = "-" if math.isnan(result.rows) else f"{result.rows / result.ours:.0f} x"
        target = f"at most {TARGETS[name]:g} s" if name in TARGETS else ""
        print(f"{what[name]:<46}{result.ours:>8.3f} s{naive:>12}{ratio:>8}  {target}".rstrip())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
