"""The loop of one worker process: populate the tables in order until nothing is left."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from datajoint.hash import key_hash

from december_plugin.pool.jobs import clear_failures, describe_jobs, jobs_table, missing_keys, release_dead_reservations

logger = logging.getLogger(__name__)


@dataclass
class WorkerReport:
    """What a worker did: entries computed per table. Failures are recorded by DataJoint."""

    computed: dict[str, int] = field(default_factory=dict)

    @property
    def n_computed(self) -> int:
        """Entries computed in all tables."""
        return sum(self.computed.values())


class Worker:
    """Fill the tables, one reserved job at a time.

    Parameters
    ----------
    tables
        What :func:`december_plugin.schemas.december_tables` returns.
    retry
        Forget earlier failures first.
    """

    def __init__(self, tables: Any, *, retry: bool = False):
        self.tables = tables
        self.retry = retry
        self.report = WorkerReport()
        self.describe = describe_jobs(tables)

    def run(self, *, poll: float | None = None) -> WorkerReport:
        """Populate until a whole round finds nothing to do; with ``poll``, sleep that many seconds and go on.

        Must be called in the main thread (DataJoint installs a signal handler while it populates).
        """
        for table in (table_class() for table_class in self.tables.computed):
            name = type(table).__name__
            if self.retry and (cleared := clear_failures(table)):
                logger.info("%s: %d failed jobs are tried again", name, cleared)
        while True:
            before = self.report.n_computed
            for table_class in self.tables.computed:
                if released := release_dead_reservations(table_class()):
                    name = table_class.__name__
                    logger.warning("%s: released %d reservations of processes that no longer exist", name, released)
                for key in missing_keys(table_class()):
                    self._make(table_class(), key)
            if self.report.n_computed > before:
                continue
            if poll is None:
                return self.report
            time.sleep(poll)

    def _make(self, table: Any, key: dict[str, Any]) -> None:
        name, start = type(table).__name__, time.monotonic()
        try:
            result = table.populate(keys=[key], reserve_jobs=True, suppress_errors=True, return_exception_objects=True)
        except (SystemExit, KeyboardInterrupt):
            self._free(table, key)
            raise
        for _, error in result["error_list"]:
            # DataJoint suppresses Ctrl-C like any error and would go on with the next job.
            if isinstance(error, KeyboardInterrupt):
                self._free(table, key)
                raise error
            reason = f"{type(error).__name__}: {error}"
            logger.error("failed: %s: %s", self.describe(name, key), reason)
        if result["success_count"]:
            self.report.computed[name] = self.report.computed.get(name, 0) + 1
            logger.info("%s: done in %.1f s", self.describe(name, key), time.monotonic() - start)

    @staticmethod
    def _free(table: Any, key: dict[str, Any]) -> None:
        """Make an interrupted job neither running nor failed, so that anybody may take it again."""
        (jobs_table(table) & {"table_name": table.table_name, "key_hash": key_hash(table._job_key(key))}).delete_quick()
