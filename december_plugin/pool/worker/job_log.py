"""The log of one job: a separate file, which is created at the first line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from december_plugin.pool.liveness import SHORT
from december_plugin.pool.worker.job import job_logger
from december_plugin.security.redaction import RedactingFilter


def job_log_path(folder: Path, job_table: str, job_hash: str, worker_id: str) -> Path:
    """Return the file for the log of one worker's attempt at a job."""
    return folder / f"{job_table.strip('_#')}-{job_hash[:SHORT]}-{worker_id[:SHORT]}.log"


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Also write what is logged within the block to this file, without passwords."""
    handler = JobLog(path)
    handler.addFilter(RedactingFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = (logging.getLogger("december_plugin"), job_logger)
    for each in loggers:
        each.addHandler(handler)
    try:
        yield
    finally:
        for each in loggers:
            each.removeHandler(handler)
        handler.close()


class JobLog(logging.FileHandler):
    """The log of one job, created at its first line; a missing or full folder costs the line, not the job."""

    def __init__(self, path: Path):
        super().__init__(path, delay=True, encoding="utf-8")

    def _open(self) -> Any:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, if it can be written."""
        with suppress(OSError):  # on opening the file; the base class catches later errors
            super().emit(record)
