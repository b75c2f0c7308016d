"""Finds jobs by the beginning of their hash, with everything that is known about each."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from december_plugin.errors import SettingsError, did_you_mean
from december_plugin.pool.jobs.job import Job
from december_plugin.pool.jobs.missing import hashed, missing_query
from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.liveness import SHORT
from december_plugin.pool.transactions import snapshot

TAIL_BYTES = 64 * 1024
HEX = frozenset("0123456789abcdef")


class JobLookup:
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
        self.records = PoolRecords(self.connection, self.schema)
        self.has_pool_tables, queues = self.records.existing({table.database for table in self.computed})
        self.databases = sorted(queues)

    def table(self, job: Job) -> Any:
        """Return an instance of a job's table."""
        (table,) = (table for table in self.computed if type(table).__name__ == job.table)
        return table

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

    def find(self, prefix: str, *, table: str | None = None) -> Job:
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
                f"{prefix!r} is not the name of a job, which is the beginning of its hash, such as 1a2b3c4d. `december "
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
            names = ", ".join(f"{job.table} {job.job_hash[:length]} ({job.state})" for job in found[:8])
            more = f" and {len(found) - 8} more" if len(found) > 8 else ""
            raise SettingsError(
                f"{prefix!r} is the beginning of {len(found)} jobs: {names}{more}. Give more characters, or the table "
                "with --table."
            )
        return found[0]

    def waiting(self, chosen: Sequence[Any]) -> list[Job]:
        """Return the jobs of some tables that could be begun now."""
        with snapshot(self.connection):
            known = {(job.table, job.job_hash) for job in self._queued("", chosen)}
            return [job for job in self._planned("", chosen) if (job.table, job.job_hash) not in known]

    def _queued(self, prefix: str, chosen: Sequence[Any]) -> list[Job]:
        from datajoint import blob

        by_name = {(table.database, table.table_name): type(table).__name__ for table in chosen}
        found = []
        for database in self.databases:
            for name, job_hash, state, key in self.records.queued_like(database, prefix):
                table = by_name.get((database, name))
                if table is not None:
                    found.append(Job(table, job_hash, state, None if key is None else blob.unpack(key)))
        return found

    def _planned(self, prefix: str, chosen: Sequence[Any]) -> list[Job]:
        """Find it among the waiting jobs; DataJoint's hash is not in the tables, so all keys are hashed."""
        found = []
        for table in chosen:
            sql, names = missing_query(table)
            rows = self.connection.query(sql).fetchall()
            found += self._with_prefix(prefix, table, names, rows, "waiting")
        return found

    def _done(self, prefix: str, chosen: Sequence[Any]) -> list[Job]:
        found = []
        for table in chosen:
            names = list(table.primary_key)
            columns = ", ".join(f"`{name}`" for name in names)
            rows = self.connection.query(f"SELECT {columns} FROM {table.full_table_name}").fetchall()
            found += self._with_prefix(prefix, table, names, rows, "done")
        return found

    @staticmethod
    def _with_prefix(prefix: str, table: Any, names: Sequence[str], rows: Any, state: str) -> list[Job]:
        by_hash = hashed(table, names, rows)
        chosen = sorted(job_hash for job_hash in by_hash if job_hash.startswith(prefix))
        return [Job(type(table).__name__, job_hash, state, by_hash[job_hash]) for job_hash in chosen]

    # --- one job --------------------------------------------------------------------------------------------------

    def details(self, job: Job) -> Job:
        """Return a job with everything that is known about it."""
        with snapshot(self.connection):
            known = {**self._reservation(job), **self._history(job)}
        known.pop("status", None)
        if known.pop("job_state", "") == "poisoned" and job.state == "failed":
            known["state"] = "poisoned"
        return replace(job, **known)

    def _reservation(self, job: Job) -> dict[str, Any]:
        table = self.table(job)
        if table.database not in self.databases:
            return {}
        found = self.records.reservation(table.database, table.table_name, job.job_hash)
        if found is None:
            return {}
        from datajoint import blob

        stack = found["stack"]
        return {**found, "stack": "" if stack is None else str(blob.unpack(stack) or ""), "key": job.key}

    def _history(self, job: Job) -> dict[str, Any]:
        found = self.records.history(self.table(job).table_name, job.job_hash) if self.has_pool_tables else None
        if found is None:
            return {}
        return {**found, "worker": self.records.worker(found["holder"] or found["last_worker"])}


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
        with Path(path).open("rb") as file:  # on this host, or in a shared folder
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
