"""The state of a lab's jobs, workers and pools, read in few queries and without writing.

An account with read access suffices: if DataJoint's ``~jobs`` or the tables of the pool are missing, they are not
created. All ages are on the database's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from december_plugin.pool.jobs.description import describe_jobs
from december_plugin.pool.jobs.job import STATES, Job
from december_plugin.pool.jobs.missing import hashed, missing_query
from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.liveness import PoolStatus, WorkerStatus
from december_plugin.pool.status.failures import Reason, grouped
from december_plugin.pool.transactions import snapshot

MANY = 100  # jobs of a table from which all missing keys are fetched, instead of looking for each


@dataclass(frozen=True)
class TableCounts:
    """Numbers of entries of one table; those ``waiting`` could be begun now."""

    table: str
    done: int
    running: int
    waiting: int
    failed: int
    poisoned: int
    ignored: int

    @property
    def total(self) -> int:
        """All entries that are done or could be computed now."""
        return self.done + self.running + self.waiting + self.failed + self.poisoned + self.ignored


@dataclass(frozen=True)
class Throughput:
    """Jobs that workers have done, by table, and how long the rest will take.

    Attributes
    ----------
    last_hour, last_day
        Jobs done, by table.
    seconds_per_job
        Mean duration of those of the last day, or of all if there were none, by table (s).
    seconds_left
        Estimate for what can be begun now, with the workers that are alive, apart from ``not_estimated`` (s); None if
        no worker is alive or nothing can be estimated.
    not_estimated
        Jobs that can be begun now but whose table has had no finished job, by table; ``seconds_left`` excludes them.
    """

    last_hour: dict[str, int] = field(default_factory=dict)
    last_day: dict[str, int] = field(default_factory=dict)
    seconds_per_job: dict[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    not_estimated: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Overview:
    """The state of a lab at one moment: its tables, jobs, reasons of failures, workers, pools and throughput.

    See Also
    --------
    read_overview : Reads the overview of a lab.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.pool import read_overview
    >>> lab = open_lab(schema="retina")
    >>> lab.tables.SeedAgreement.delete_quick()
    >>> overview = read_overview(lab.tables)
    >>> [(table.table, table.waiting) for table in overview.tables if table.waiting]
    [('SeedAgreement', 12), ...]
    >>> len(overview.jobs_in("failed", "poisoned"))
    0
    """

    schema: str
    time: datetime
    planned: int
    tables: list[TableCounts]
    jobs: list[Job]
    reasons: list[Reason]
    workers: list[WorkerStatus]
    pools: list[PoolStatus]
    throughput: Throughput
    has_pool_tables: bool
    describe: Callable[[str, Mapping[str, Any]], str]

    def jobs_in(self, *states: str) -> list[Job]:
        """Return the jobs in these states."""
        return [job for job in self.jobs if job.state in states]

    @property
    def some_failed(self) -> bool:
        """Whether some jobs have failed or are poisoned."""
        return any(table.failed or table.poisoned for table in self.tables)


def read_overview(tables: Any) -> Overview:
    """Read the state of a lab.

    Parameters
    ----------
    tables
        What :func:`december_plugin.schemas.december_tables` returns.

    See Also
    --------
    describe_jobs : Puts jobs into words.
    Worker : Does the jobs that wait.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.pool import read_overview
    >>> lab = open_lab(schema="retina")
    >>> overview = read_overview(lab.tables)
    >>> overview.planned, overview.some_failed
    (6, False)
    >>> {table.table: table.done for table in overview.tables}["SeedAgreement"]
    12
    """
    schema, connection = tables.schema.database, tables.schema.connection
    computed = [table() for table in tables.computed]
    describe = describe_jobs(tables)
    databases = {table.database for table in computed}
    records = PoolRecords(connection, schema)
    has_pool_tables, queues = records.existing(databases)
    with snapshot(connection):
        now = records.now()
        workers = records.workers_of_the_day() if has_pool_tables else []
        attempts = records.attempts() if has_pool_tables else {}
        queue = {database: records.queued(database) if database in queues else {} for database in databases}
        by_id = {worker.worker_id: worker for worker in workers}
        counts, jobs = [], []
        for table in computed:
            counted, found = _table(table, queue[table.database].get(table.table_name, {}), attempts, by_id)
            counts.append(counted)
            jobs += found
        planned = _count(connection, tables.TrainingPlan().full_table_name)
        pools = records.pools_of_the_day() if has_pool_tables else []
        done = records.durations() if has_pool_tables else []
    names = {table.table_name: type(table).__name__ for table in computed}
    return Overview(
        schema=schema,
        time=now,
        planned=planned,
        tables=counts,
        jobs=jobs,
        reasons=grouped(
            (job.table, job.job_hash, job.reason, job.state == "poisoned")
            for job in jobs
            if job.state in ("failed", "poisoned")
        ),
        workers=workers,
        pools=pools,
        throughput=_throughput(done, names, counts, jobs, workers),
        has_pool_tables=has_pool_tables,
        describe=describe,
    )


def _count(connection: Any, source: str) -> int:
    return int(connection.query(f"SELECT COUNT(*) FROM {source}").fetchone()[0])


def _table(
    table: Any,
    queue: Mapping[str, Mapping[str, Any]],
    attempts: Mapping[tuple[str, str], Mapping[str, Any]],
    workers: Mapping[str, WorkerStatus],
) -> tuple[TableCounts, list[Job]]:
    """Count one table; a job in ``~jobs`` that is done or no longer wanted does not count."""
    name = type(table).__name__
    done = _count(table.connection, table.full_table_name)
    n_missing, keys = _missing(table, queue, done)
    jobs = []
    for job_hash, key in keys.items():
        known = {**queue[job_hash], **attempts.get((table.table_name, job_hash), {}), "key": key}
        status, job_state = known.pop("status"), known.pop("job_state", "")
        is_poisoned = status == "error" and job_state == "poisoned"
        holder = known.pop("holder", "")
        if status != "reserved":
            holder = ""
        state = "poisoned" if is_poisoned else STATES[status]
        jobs.append(Job(name, job_hash, state, holder=holder, worker=workers.get(holder), **known))
    n = {state: sum(job.state == state for job in jobs) for state in ("running", "failed", "poisoned", "ignored")}
    return TableCounts(table=name, done=done, waiting=n_missing - len(jobs), **n), jobs


def _missing(table: Any, queue: Mapping[str, Mapping[str, Any]], done: int) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return how many entries could be computed or are being computed, and the keys of those in ``queue``, by hash."""
    connection = table.connection
    sql, names = missing_query(table)
    if len(queue) > MANY:
        missing = hashed(table, names, connection.query(sql).fetchall())
        return len(missing), {job_hash: missing[job_hash] for job_hash in queue if job_hash in missing}
    n_missing = _count_missing(table, sql, done)
    if not queue or not n_missing:
        return n_missing, {}
    from datajoint import blob

    unpacked = [blob.unpack(row["key"]) for row in queue.values() if row["key"] is not None]
    keys = [key for key in unpacked if set(names) <= set(key)]  # not those of another layout of the table
    if not keys:
        return n_missing, {}
    condition = " AND ".join(f"`{name}` = %s" for name in names)
    found = connection.query(
        f"SELECT * FROM ({sql}) missing WHERE " + " OR ".join([f"({condition})"] * len(keys)),
        args=[_plain(key[name]) for key in keys for name in names],
    ).fetchall()
    by_hash = hashed(table, names, found)
    return n_missing, {job_hash: by_hash[job_hash] for job_hash in queue if job_hash in by_hash}


def _count_missing(table: Any, sql: str, done: int) -> int:
    if "seed_a" in table.primary_key and "seed_b" in table.primary_key:
        # All pairs within a configuration: counting them from the number of seeds is ten times faster than a join.
        assignments = table.cluster_assignment_table()
        shared = ", ".join(f"`{name}`" for name in assignments.primary_key if name != "seed")
        (pairs,) = table.connection.query(
            f"SELECT SUM(n * (n - 1) DIV 2) FROM (SELECT COUNT(*) AS n FROM {assignments.full_table_name} "
            f"GROUP BY {shared}) configurations"
        ).fetchone()
        return int(pairs or 0) - done
    return _count(table.connection, f"({sql}) missing")


def _plain(value: Any) -> Any:
    """Return an integer as such: keys may contain subclasses with their own way of hashing."""
    return int(value) if isinstance(value, int) else value


def _throughput(
    done: Sequence[tuple[str, int, int, float]],
    names: Mapping[str, str],
    counts: Sequence[TableCounts],
    jobs: Sequence[Job],
    workers: Sequence[WorkerStatus],
) -> Throughput:
    known = [(names[table], hour, day, mean) for table, hour, day, mean in done if table in names]
    seconds = {table: mean for table, _, _, mean in known}
    seconds_left, not_estimated = _time_left(seconds, counts, [job for job in jobs if job.is_alive], workers)
    return Throughput(
        last_hour={table: hour for table, hour, day, _ in known if day},
        last_day={table: day for table, _, day, _ in known if day},
        seconds_per_job=seconds,
        seconds_left=seconds_left,
        not_estimated=not_estimated,
    )


def _time_left(
    seconds: Mapping[str, float],
    counts: Sequence[TableCounts],
    running: Sequence[Job],
    workers: Sequence[WorkerStatus],
) -> tuple[float | None, dict[str, int]]:
    """Return how long the living workers need for the work that can be begun now, and which jobs are not included."""
    # If no job of a kind is done yet, its jobs are assumed to last as long as those that are running.
    expected = dict(seconds)
    for job in running:
        left = job.worker.seconds_left if job.worker else None
        if job.table not in seconds and left is not None and job.elapsed is not None:
            expected[job.table] = max(expected.get(job.table, 0.0), job.elapsed + left)
    waiting = {table.table: table.waiting for table in counts if table.waiting}
    unknown = {table: number for table, number in waiting.items() if table not in expected}
    work = [number * expected[table] for table, number in waiting.items() if table in expected]
    for job in running:
        left = job.worker.seconds_left if job.worker else None
        if left is not None:
            work.append(left)
        elif job.table in expected:
            work.append(max(0.0, expected[job.table] - (job.elapsed or 0.0)))
        else:
            unknown[job.table] = unknown.get(job.table, 0) + 1
    n_workers = sum(worker.alive and worker.state != "draining" for worker in workers)
    return sum(work) / n_workers if n_workers and work else None, unknown
