"""What a lab's work leaves behind and no longer needs after a while: old logs, pretrainings, and rows of ended pools.

Logs and pretrainings are files of one machine, or of those that share a folder. The rows belong to the schema, see
:meth:`december_plugin.pool.jobs.records.PoolRecords.count_old`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from december_plugin.pool.worker.spool import DAMAGED, Spool
from december_plugin.storage.atomic import UNFINISHED
from december_plugin.storage.home import december_home
from december_plugin.training.pretraining import pretraining_folder

LOGS, PRETRAININGS, POOLS = "logs", "pretrainings", "pools"
KINDS = {
    LOGS: "logs of workers and jobs, error reports, and damaged results",
    PRETRAININGS: "pretrainings, which are computed again if they are needed",
    POOLS: "rows of pools and workers that have ended, and of jobs that are done",
}
# Named by the digest of what was computed; half-written files begin with a dot and end with an id.
_PRETRAINING = re.compile(
    rf"[0-9a-f]{{64}}\.(pt|progress|lock)|\.[0-9a-f]{{64}}\.\w+\.[0-9a-f]{{32}}{re.escape(UNFINISHED)}"
)


@dataclass(frozen=True)
class OldFile:
    """A file that has not been written or used for a long time."""

    kind: str  # LOGS or PRETRAININGS
    path: Path
    size: int  # bytes


def old_files(kind: str, seconds: float) -> list[OldFile]:
    """Return the files of a kind that are older than this (s), in the folders of this machine.

    Parameters
    ----------
    kind
        ``logs`` or ``pretrainings``.
    seconds
        Time since a file was last written; a pretraining counts as written when it is used.
    """
    cutoff, found = time.time() - seconds, []
    for path in _LISTED[kind]():
        try:
            status = path.lstat()
        except OSError:  # removed meanwhile
            continue
        if status.st_mtime < cutoff:
            found.append(OldFile(kind, path, status.st_size))
    return sorted(found, key=lambda file: file.path)


def remove(file: OldFile, seconds: float) -> bool:
    """Remove a file unless it was written meanwhile, and its folder if it was the last one; return whether it is gone.

    Raises
    ------
    OSError
        It cannot be removed.
    """
    try:
        if file.path.lstat().st_mtime >= time.time() - seconds:
            return False
    except FileNotFoundError:
        return False
    file.path.unlink(missing_ok=True)
    if file.kind == LOGS:
        _remove_empty(file.path.parent)
    return True


def _remove_empty(folder: Path) -> None:
    top = december_home()
    while folder != top and top in folder.parents:
        try:
            folder.rmdir()
        except OSError:  # not empty
            return
        folder = folder.parent


def _logs() -> Iterator[Path]:
    home = december_home()
    for folder in (home / "logs", home / "errors", Spool().folder / DAMAGED):
        for place, _, names in os.walk(folder):
            yield from (Path(place, name) for name in names)


def _pretrainings() -> Iterator[Path]:
    # If a user has set the folder, it may contain other files.
    yield from (path for path in pretraining_folder().glob("*") if _PRETRAINING.fullmatch(path.name))


_LISTED = {LOGS: _logs, PRETRAININGS: _pretrainings}
