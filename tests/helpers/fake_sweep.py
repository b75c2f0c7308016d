"""A sweep in every state that a job can be in, made with the workers' own code where they have it."""

from __future__ import annotations

import platform
import uuid
from typing import Any

from december_plugin.pool.jobs.job import Lease
from december_plugin.pool.jobs.leases import Leases


class FakeSweep:
    """Planned trainings of a lab without entries, and workers that never were.

    Parameters
    ----------
    lab
        What the fixture ``empty_lab`` returns.
    seeds
        How many trainings are planned.
    """

    def __init__(self, lab: Any, *, seeds: int = 6):
        lab.plan("baseline", seeds=list(range(1, seeds + 1)))
        self.lab, self.tables = lab, lab.tables
        self.connection, self.schema = lab.tables.schema.connection, lab.tables.schema.database
        self.table = lab.tables.TrainedModel()
        self.keys = self.table.key_source.fetch("KEY", order_by="seed")
        self.leases = Leases(self.schema, max_attempts=1)

    def execute(self, statement: str, *values: Any) -> None:
        self.connection.query(statement.replace("POOL", f"`{self.schema}`.`pool"), args=values)

    def worker(self, *, age: float = 1.0, lease: float = 60.0, **values: Any) -> str:
        """Enter a worker whose last heartbeat was ``age`` seconds ago."""
        row = {"worker_id": uuid.uuid4().hex, "worker_host": "gpu3", "worker_pid": 4711, "worker_state": "working"}
        row |= {"lease": lease, "worker_version": "0.2.0", **values}
        self.execute(
            f"INSERT INTO POOL_worker` ({', '.join(row)}, heartbeat, worker_started) VALUES "
            f"({', '.join(['%s'] * len(row))}, UTC_TIMESTAMP(6) - INTERVAL %s MICROSECOND, UTC_TIMESTAMP(6))",
            *row.values(),
            int(age * 1e6),
        )
        return row["worker_id"]

    def pool(self, **values: Any) -> str:
        row = {"pool_id": uuid.uuid4().hex, "pool_kind": "local", "pool_host": "gpu3", "n_workers": 8, **values}
        self.execute(
            f"INSERT INTO POOL` ({', '.join(row)}, pool_started) VALUES ({', '.join(['%s'] * len(row))}, "
            "UTC_TIMESTAMP(6))",
            *row.values(),
        )
        return row["pool_id"]

    def run(self, number: int, worker_id: str, *, log_file: str = "", table: Any = None) -> Lease:
        """Let a worker take up the job of a key."""
        table = self.table if table is None else table  # an empty table is false
        lease = self.leases.claim(table, self.keys[number], worker_id, log_file=log_file)
        assert lease is not None
        self.execute(
            "UPDATE POOL_worker` SET job_table = %s, job_hash = %s WHERE worker_id = %s", *lease.job, worker_id
        )
        return lease

    def progress(self, worker_id: str, *, epoch: int, n_epochs: int, score: float, left: float) -> None:
        self.execute(
            "UPDATE POOL_worker` SET job_epoch = %s, job_n_epochs = %s, job_score = %s, job_seconds_left = %s "
            "WHERE worker_id = %s",
            *(epoch, n_epochs, score, left, worker_id),
        )

    def fail(self, number: int, words: str, *, stack: str = "Traceback: here", table: Any = None, **more: Any) -> Lease:
        table = self.table if table is None else table
        lease = self.run(number, more.pop("worker_id", "f" * 32), table=table, **more)
        assert self.leases.fail(table, self.keys[number], lease, message=words, stack=stack)
        return lease

    def poison(self, number: int, words: str = "ended by the signal SIGSEGV") -> Lease:
        worker_id = self.worker()
        lease = self.run(number, worker_id)
        (released,) = self.leases.mark_dead(self.connection, worker_id, words)
        assert released.poisoned
        return lease

    def reserve(self, number: int, *, age: float = 0.0) -> str:
        """Reserve as a plain ``populate(reserve_jobs=True)`` does; return the hash."""
        jobs = self.tables.schema.jobs
        assert jobs.reserve(self.table.table_name, self.keys[number])
        self.execute(
            f"UPDATE `{self.schema}`.`~jobs` SET `timestamp` = CURRENT_TIMESTAMP - INTERVAL %s SECOND "
            "WHERE key_hash = %s",
            *(age, self.hash(number)),
        )
        return self.hash(number)

    def done(self, number: int, *, seconds: float = 60.0, age: float = 10.0) -> None:
        """Note a job as done by a worker, without its row in the table."""
        lease = self.run(number, "e" * 32)
        assert self.leases.finish(self.connection, lease)
        self.execute(
            "UPDATE POOL_job` SET ended = UTC_TIMESTAMP(6) - INTERVAL %s SECOND, "
            "begun = UTC_TIMESTAMP(6) - INTERVAL %s SECOND WHERE job_hash = %s",
            *(age, age + seconds, lease.job_hash),
        )

    def hash(self, number: int) -> str:
        from datajoint.hash import key_hash

        return key_hash(self.table._job_key(self.keys[number]))

    def queue(self) -> dict[str, str]:
        """Return the status of all jobs in ``~jobs``, by hash."""
        rows = self.connection.query(f"SELECT key_hash, status FROM `{self.schema}`.`~jobs`").fetchall()
        return dict(rows)

    def record(self, number: int) -> dict[str, Any]:
        return (self.tables.PoolJob & {"job_hash": self.hash(number)}).fetch1()


HERE = platform.node()
