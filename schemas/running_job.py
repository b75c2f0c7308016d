"""What a table's ``make`` knows about the process in which it runs.

A plain ``populate()`` runs a job without a lease: :class:`RunningJob` then only waits for a server that is
away. A worker installs its own (:mod:`december_plugin.pool.worker.job`), which keeps finished results on disk
until they are stored, and lets only the holder of the lease insert.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

from december_plugin.database.outages import wait_for_server


class RunningJob:
    """A job of a plain ``populate()``."""

    def finished_result(self) -> tuple[Any, ...] | None:
        """Return what ``make_compute`` returned for this job earlier, if it was kept and is intact."""
        return None

    def is_worth_keeping(self, seconds: float) -> bool:
        """Return whether a result that took this long is kept until it can be stored, rather than computed again."""
        return True

    def keep_result(self, result: tuple[Any, ...]) -> None:
        """Keep what ``make_compute`` returned until it is stored."""

    def wait_until_storable(self, connection: Any, *, longest: float, what: str) -> None:
        """Return when the server, and what else is needed, can take the result."""
        wait_for_server(connection, longest=longest, what=what)

    def check_lease(self, connection: Any) -> None:
        """Raise unless this process may still store the job; this remains valid until the transaction ends."""


_current: ContextVar[RunningJob | None] = ContextVar("running_job", default=None)
_PLAIN = RunningJob()


def current_job() -> RunningJob:
    """Return the job that this thread runs."""
    return _current.get() or _PLAIN


@contextmanager
def use_job(job: RunningJob) -> Iterator[None]:
    """Make ``job`` the one that this thread runs, within the block."""
    token = _current.set(job)
    try:
        yield
    finally:
        _current.reset(token)


class LeasedTable:
    """Mixin of computed tables: only the holder of the job's lease inserts, and a finished result is kept until then.

    Attributes
    ----------
    server_patience
        How long the result of a plain ``populate()`` waits for a server that is away before it is given up (s).
    """

    server_patience: ClassVar[float] = 3600.0
    connection: Any

    def insert(self, *args: Any, **kwargs: Any) -> None:
        """Insert, unless the lease went to another worker."""
        current_job().check_lease(self.connection)
        super().insert(*args, **kwargs)  # type: ignore[misc]

    def make_compute(self, key: dict[str, Any], *fetched: Any) -> tuple[Any, ...]:
        """Compute, or take what an earlier attempt computed and could not store."""
        job = current_job()
        result = job.finished_result()
        if result is None:
            began = time.monotonic()
            result = super().make_compute(key, *fetched)  # type: ignore[misc]
            if not job.is_worth_keeping(time.monotonic() - began):
                return result
            job.keep_result(result)
        job.wait_until_storable(
            self.connection, longest=self.server_patience, what=f"a result for {type(self).__name__}"
        )
        return result
