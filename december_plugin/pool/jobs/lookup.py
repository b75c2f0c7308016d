"""Finds jobs by the beginning of their hash, and everything that is known about one."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from december_plugin.errors import SettingsError, did_you_mean
from december_plugin.pool.jobs.leases import AGE, SHORT
from december_plugin.pool.status.overview import POOL_TABLES, STATES, existing_tables, hashed, missing_query, snapshot

TAIL_BYTES = 64 * 1024
HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class JobRef:
    """A job: an instance of its table, DataJoint's hash, its state, and its key if that is known."""

    table: Any = field(compare=False)
    job_hash: str
    state: str
    key: dict[str, Any] | None = field(default=None, compare=False)

    @property
    def table_name(self) -> str:
        """The table as users know it."""
        return type(self.table).__name__

    @property
    def id(self) -> str:
        """Short name."""
        return self.job_hash[:SHORT]

    def __str__(self) -> str:
        return f"{self.table_name} {self.id}"


@dataclass(frozen=True)
class JobDetails:
    """Everything that is known about one job; ages in seconds, times UTC on the database's clock."""

    ref: JobRef
    reason: str = ""
    stack: str = ""
    reserved_by: str = ""
    queue_age: float | None = None
    has_record: bool = False
    holder: str = ""
    n_starts: int = 0
    n_deaths: int = 0
    last_worker: str = ""
    last_words: str = ""
    log_file: str = ""
    begun: datetime | None = None
    ended: datetime | None = None
    worker: dict[str, Any] | None = None


class JobBook:
    """The jobs of a lab.

    Parameters
    ----------
    tables
        What :func:`december_plugin.schemas.december_tables` returns.
    """

    def __init__(self, tables: Any):
        self.tables = tables
        self.schema, self.connection = tables.schema.database, tables.schema.connection
        self.computed = [table() for table in tables.computed]
        existing = existing_tables(self.connection, self.schema, {table.database for table in self.computed})
        self.has_pool_tables = all((self.schema, name) in existing for name in POOL_TABLES)
        self.databases = sorted({database for database, name in existing if name == "~jobs"})

    def chosen_tables(self, name: str | None) -> list[Any]:
        """Return the tables with this name: all of them for None.

        Raises
        ------
        SettingsError
            If there is none.
        """
        found = [table for table in self.computed if name is None or type(table).__name__ == name]
        if not found:
            names = [type(table).__name__ for table in self.computed]
            raise SettingsError(f"there is no table {name!r}. {did_you_mean(str(name), names)}")
        return found

    # --- by the beginning of a hash -------------------------------------------------------------------------------

    def find(self, prefix: str, *, table: str | None = None) -> JobRef:
        """Return the job whose hash begins like this.

        Jobs that are running, failed or ignored come before those that are done or wait: the same key in several tables
        has the same hash.

        Parameters
        ----------
        prefix
            The beginning of the hash, as `december jobs show` prints it.
        table
            Look in this table only.

        Raises
        ------
        SettingsError
            If there is no such job, or more than one.
        """
        prefix = prefix.lower()
        if not prefix or not set(prefix) <= HEX or len(prefix) > 32:
            raise SettingsError(
                f"{prefix!r} is not the name of a job: that is the beginning of its hash, such as 1a2b3c4d. `december "
                "jobs show` lists jobs with their names."
            )
        chosen = self.chosen_tables(table)
        with snapshot(self.connection):
            found = self._queued(prefix, chosen) or self._planned(prefix, chosen) or self._done(prefix, chosen)
        if not found:
            where = f" of {table}" if table else ""
            raise SettingsError(
                f"no job{where} has a name that begins with {prefix!r}. `december jobs show` lists what is running, "
                "failed, poisoned or ignored."
            )
        if len(found) > 1:
            length = max(SHORT, len(prefix) + 4)
            names = ", ".join(f"{ref.table_name} {ref.job_hash[:length]} ({ref.state})" for ref in found[:8])
            more = f" and {len(found) - 8} more" if len(found) > 8 else ""
            raise SettingsError(
                f"{prefix!r} is the beginning of {len(found)} jobs: {names}{more}. Give more characters, or the table "
                "with --table."
            )
        return found[0]

    def waiting(self, chosen: Sequence[Any]) -> list[JobRef]:
        """Return the jobs of some tables that could be begun now."""
        with snapshot(self.connection):
            known = {(ref.table_name, ref.job_hash) for ref in self._queued("", chosen)}
            return [ref for ref in self._planned("", chosen) if (ref.table_name, ref.job_hash) not in known]

    def _queued(self, prefix: str, chosen: Sequence[Any]) -> list[JobRef]:
        from datajoint import blob

        by_name = {(table.database, table.table_name): table for table in chosen}
        found = []
        for database in self.databases:
            rows = self.connection.query(
                f"SELECT table_name, key_hash, status, `key` FROM `{database}`.`~jobs` WHERE key_hash LIKE %s "
                "ORDER BY key_hash, table_name",
                args=(prefix + "%",),
            ).fetchall()
            for name, job_hash, status, key in rows:
                table = by_name.get((database, name))
                if table is not None:
                    unpacked = None if key is None else blob.unpack(key)
                    found.append(JobRef(table, job_hash, STATES[status], unpacked))
        return found

    def _planned(self, prefix: str, chosen: Sequence[Any]) -> list[JobRef]:
        """Find it among what waits; DataJoint's hash is not in the tables, so all keys are hashed."""
        found = []
        for table in chosen:
            sql, names = missing_query(table)
            rows = self.connection.query(sql).fetchall()
            found += self._with_prefix(prefix, table, names, rows, "waiting")
        return found

    def _done(self, prefix: str, chosen: Sequence[Any]) -> list[JobRef]:
        found = []
        for table in chosen:
            names = list(table.primary_key)
            columns = ", ".join(f"`{name}`" for name in names)
            rows = self.connection.query(f"SELECT {columns} FROM {table.full_table_name}").fetchall()
            found += self._with_prefix(prefix, table, names, rows, "done")
        return found

    @staticmethod
    def _with_prefix(prefix: str, table: Any, names: Sequence[str], rows: Any, state: str) -> list[JobRef]:
        by_hash = hashed(table, names, rows)
        chosen = sorted(job_hash for job_hash in by_hash if job_hash.startswith(prefix))
        return [JobRef(table, job_hash, state, by_hash[job_hash]) for job_hash in chosen]

    # --- one job --------------------------------------------------------------------------------------------------

    def details(self, ref: JobRef) -> JobDetails:
        """Return everything that is known about a job."""
        with snapshot(self.connection):
            known = {**self._queue_row(ref), **self._record(ref)}
        if ref.state == "failed" and known.pop("job_state", "") == "poisoned":
            ref = JobRef(ref.table, ref.job_hash, "poisoned", ref.key)
        known.pop("job_state", None)
        return JobDetails(ref, **known)

    def _queue_row(self, ref: JobRef) -> dict[str, Any]:
        if ref.table.database not in self.databases:
            return {}
        row = self.connection.query(
            "SELECT error_message, error_stack, user, host, pid, TIMESTAMPDIFF(SECOND, `timestamp`, CURRENT_TIMESTAMP) "
            f"FROM `{ref.table.database}`.`~jobs` WHERE table_name = %s AND key_hash = %s",
            args=(ref.table.table_name, ref.job_hash),
        ).fetchone()
        if row is None:
            return {}
        from datajoint import blob

        reason, stack, user, host, pid, age = row
        return {
            "reason": reason,
            "stack": "" if stack is None else str(blob.unpack(stack) or ""),
            "reserved_by": f"process {pid} on {host} (database user {user})",
            "queue_age": float(age),
        }

    def _record(self, ref: JobRef) -> dict[str, Any]:
        if not self.has_pool_tables:
            return {}
        row = self.connection.query(
            "SELECT worker_id, job_state, n_starts, n_deaths, last_worker, last_words, log_file, begun, ended "
            f"FROM `{self.schema}`.`pool_job` WHERE job_table = %s AND job_hash = %s",
            args=(ref.table.table_name, ref.job_hash),
        ).fetchone()
        if row is None:
            return {}
        names = ("holder", "job_state", "n_starts", "n_deaths", "last_worker", "last_words", "log_file")
        record = dict(zip((*names, "begun", "ended"), row, strict=True))
        return {**record, "has_record": True, "worker": self._worker(record["holder"] or record["last_worker"])}

    def _worker(self, worker_id: str) -> dict[str, Any] | None:
        names = ("worker_id", "host", "pid", "gpu", "slurm_job", "state", "detail", "lease")
        progress = ("epoch", "n_epochs", "score", "seconds_left", "job_hash")
        row = self.connection.query(
            "SELECT worker_id, worker_host, worker_pid, worker_gpu, worker_slurm_job, worker_state, worker_detail, "
            f"lease, job_epoch, job_n_epochs, job_score, job_seconds_left, job_hash, {AGE.format('heartbeat')} "
            f"FROM `{self.schema}`.`pool_worker` WHERE worker_id = %s",
            args=(worker_id,),
        ).fetchone()
        if row is None:
            return None
        found = dict(zip((*names, *progress, "heartbeat_age"), row, strict=True))
        found["heartbeat_age"] = float(found["heartbeat_age"])
        found["alive"] = found["state"] not in ("ended", "dead") and found["heartbeat_age"] <= found["lease"]
        return found


def log_tail(log_file: str, lines: int) -> tuple[str, list[str] | None]:
    """Return where a job's log is, in words, and its last lines if it can be read from here.

    Parameters
    ----------
    log_file
        ``host:path``, as in ``PoolJob``.
    lines
        How many at most.
    """
    host, _, path = log_file.partition(":")
    if not path:
        return "", None
    try:
        with Path(path).open("rb") as file:  # this host, or a folder that both can see
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            content = file.read().decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        here = host == platform.node()
        return (f"{path}, which does not exist (any more, or yet)" if here else f"{path} on the host {host}"), None
    except OSError as error:
        return f"{path} on the host {host}, which cannot be read here ({error.strerror or error})", None
    if size > TAIL_BYTES:
        content = content[1:]  # cut in the middle
    return path, content[-lines:] if lines else []
