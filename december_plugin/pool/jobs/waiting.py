"""What is done, running, failed and waiting, read from the tables and from DataJoint's job reservations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from datajoint.hash import key_hash

from december_plugin.pool.jobs.leases import transaction

BATCH = 200  # failures that are forgotten in one transaction

# What one job, and several jobs, of our tables are called; a table of a lab's own goes by its name.
KINDS = {
    "TrainedModel": ("training", "trainings"),
    "TrainingSummary": ("training summary", "training summaries"),
    "TestPerformance": ("test of a model", "tests of models"),
    "ClusterAssignment": ("clustering", "clusterings"),
    "SeedAgreement": ("comparison of seeds", "comparisons of seeds"),
    "LabelAgreement": ("comparison with known types", "comparisons with known types"),
    "Consensus": ("consensus", "consensus partitions"),
    "ClusterQuality": ("check of a number of clusters", "checks of numbers of clusters"),
    "SurrogateAgreement": ("null job", "null jobs"),
}


@dataclass(frozen=True)
class Job:
    """A reservation or a failure: the key, and for a failure the reason."""

    key: dict[str, Any]
    host: str
    pid: int
    reason: str = ""


@dataclass(frozen=True)
class TableStatus:
    """The state of one table: numbers of entries, and the jobs that run or failed."""

    name: str
    done: int
    waiting: int
    running: list[Job] = field(default_factory=list)
    failed: list[Job] = field(default_factory=list)  # the poisoned ones among them
    ignored: list[Job] = field(default_factory=list)


def counted(table: str, count: int) -> str:
    """Return a number of jobs of a table in words: ``1 training``, ``2,000 null jobs``."""
    one, several = KINDS.get(table, (f"{table} job", f"{table} jobs"))
    return f"{count:,} {one if count == 1 else several}"


def jobs_table(table: Any) -> Any:
    """Return DataJoint's table of reservations (``~jobs``) of the schema that ``table`` is in."""
    return table.connection.schemas[table.database].jobs


def jobs_of(table: Any) -> Any:
    """Return the reservations and failures of one table, a DataJoint query."""
    return jobs_table(table) & {"table_name": table.table_name}


def missing_keys(table: Any) -> list[dict[str, Any]]:
    """Return the keys that ``populate`` would compute, whether reserved or not."""
    return (table.key_source.proj() - table.proj()).fetch("KEY")


def table_statuses(tables: Any) -> list[TableStatus]:
    """Return the state of each computed table; a failed or running job that is done by now does not count."""
    statuses = []
    for table in (table_class() for table_class in tables.computed):
        missing = missing_keys(table)
        known = {frozenset(key.items()) for key in missing}
        jobs: dict[str, list[Job]] = {"reserved": [], "error": [], "ignore": []}
        for row in jobs_of(table).fetch("status", "key", "host", "pid", "error_message", as_dict=True):
            if frozenset(row["key"].items()) not in known:
                continue
            jobs[row["status"]].append(Job(row["key"], row["host"], int(row["pid"]), row["error_message"]))
        n_waiting = len(missing) - sum(len(found) for found in jobs.values())
        statuses.append(TableStatus(type(table).__name__, len(table), n_waiting, *jobs.values()))
    return statuses


def describe_jobs(tables: Any) -> Callable[[str, Mapping[str, Any]], str]:
    """Return a function that puts a job, given as a table's name and a key, into words."""
    # A hash is that of the configuration alone: two functions may share it.
    trainers = _Words(tables.nnfabrik.Trainer, ("trainer_fn", "trainer_hash"), ("trainer_comment", "trainer_config"))
    clusterings = _Words(tables.Clustering, ("clustering_hash",), ("method", "n_clusters"))

    def describe(table: str, key: Mapping[str, Any]) -> str:
        comment, config = trainers.of(key) or ("", {})
        parts = [comment or str(key.get("trainer_fn", "")).split(".")[-1]]
        if isinstance(config, Mapping) and "n_clusters" in config:
            parts.append(f"K {config['n_clusters']}")
        if "clustering_hash" in key:
            method, n_clusters = clusterings.of(key) or ("", 0)
            parts.append(f"{method}, K {n_clusters}" if n_clusters else method)
        parts += [f"{name} {key[name]}" for name in ("seed", "seed_a", "seed_b") if name in key]
        return f"{table}: {', '.join(part for part in parts if part)}"

    return describe


class _Words:
    """Columns of a table's rows by their keys, read at once, and again for a row that came later."""

    def __init__(self, table: Any, key: tuple[str, ...], columns: tuple[str, ...]):
        self.table, self.key, self.columns = table, key, columns
        self._rows = self._read()

    def of(self, key: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the columns of the row that a job's key refers to, or None."""
        found = tuple(key.get(name) for name in self.key)
        if found not in self._rows and None not in found:
            self._rows[found] = None  # asked once, also if the server is away
            with suppress(Exception):
                self._rows |= self._read(dict(zip(self.key, found, strict=True)))
        return self._rows.get(found)

    def _read(self, restriction: Any = True) -> dict[tuple[Any, ...], tuple[Any, ...] | None]:
        rows = (self.table() & restriction).fetch(*self.key, *self.columns, as_dict=True)
        return {tuple(row[name] for name in self.key): tuple(row[column] for column in self.columns) for row in rows}


def clear_failures(table: Any, schema: str) -> int:
    """Forget the failures of what a worker would compute, so that it is tried again; return how many.

    Parameters
    ----------
    table
        An instance of a computed table.
    schema
        Name of the schema with ``PoolJob``, where jobs that were given up are begun anew.
    """
    wanted = {key_hash(table._job_key(key)) for key in missing_keys(table)}
    failed = [str(found) for found in (jobs_of(table) & {"status": "error"}).fetch("key_hash") if found in wanted]
    for start in range(0, len(failed), BATCH):
        hashes = failed[start : start + BATCH]
        places = ", ".join(["%s"] * len(hashes))
        with transaction(table.connection):
            table.connection.query(
                f"UPDATE `{schema}`.`pool_job` SET n_deaths = 0, n_fruitless = 0, job_state = 'free' "
                f"WHERE job_table = %s AND worker_id = '' AND job_state <> 'done' AND job_hash IN ({places})",
                args=(table.table_name, *hashes),
            )
            # Another worker may have done the same a moment ago, and a third have begun such a job.
            table.connection.query(
                f"DELETE FROM `{table.database}`.`~jobs` WHERE table_name = %s AND status = 'error' "
                f"AND key_hash IN ({places})",
                args=(table.table_name, *hashes),
            )
    return len(failed)
