"""A folder of pretrainings, shared by every run that needs the same one.

Runs that differ only in their clustering go through the same first epochs. The first of them computes these epochs and
stores the state at their end, named by the digest of everything it depends on (on the CPU the number of threads, too);
the others load it and end with the same bytes as if they had computed it themselves. Workers on one file system share
the folder; if two need the same pretraining at once, one computes it and the other waits. The one that computes reports
every epoch, and the other stops waiting when reports no longer come.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import platformdirs
import torch

from december_plugin.storage.atomic import DamagedError, verify_checksum, with_checksum, write_atomically

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "DECEMBER_PRETRAINING"
# Raise this number when a change of the training loop changes what a pretraining computes.
FORMAT = 3
_MAGIC = b"december-pretraining-1\n"
PATIENCE = 600.0
# An epoch of a large dataset may take longer than the patience.
PATIENCE_EPOCHS = 5


def pretraining_folder() -> Path:
    """Return the folder of shared pretrainings: ``$DECEMBER_PRETRAINING``, or one in the user's cache folder."""
    configured = os.environ.get(FOLDER_VARIABLE)
    return Path(configured).expanduser() if configured else platformdirs.user_cache_path("december") / "pretraining"


class PretrainingCache:
    """Content-addressed store of training states, one file each with a checksum, written atomically.

    Parameters
    ----------
    folder
        Shared by all workers; created if it does not exist. Files can be deleted at any time: they are computed again.
    patience
        How long to wait for another process that computes the same state and reports no progress (s), but at least five
        times the duration of one of its epochs.
    poll
        How often to look while waiting (s).
    """

    def __init__(self, folder: Path, *, patience: float = PATIENCE, poll: float = 1.0):
        self.folder, self.patience, self.poll = folder, patience, poll
        self._reporting: Path | None = None

    def get_or_compute(self, key: str, compute: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], bool]:
        """Return the state stored under ``key``, and whether it was there; ``compute`` and store it otherwise.

        While another process computes the same state, this one waits for it, as long as that one reports progress. The
        lock is released when the process that holds it ends, for whatever reason. If the folder cannot be written, the
        state is computed and not shared.
        """
        lock = filelock.FileLock(self.folder / f"{key}.lock", mode=0o666)
        state, usable = None, True
        try:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                state = self._wait(key, lock)
            except OSError as error:
                usable = False
                logger.warning(
                    "the pretraining is not shared with other runs: %s cannot be used (%s)", self.folder, error
                )
            if state is not None:
                return state, True
            if lock.is_locked:
                self._reporting = self.folder / f"{key}.progress"
                self.report_progress(0, 0.0)
            state = compute()
            if usable:
                self._store(key, state)
            return state, False
        finally:
            self._reporting = None
            if lock.is_locked:
                with contextlib.suppress(OSError):
                    (self.folder / f"{key}.progress").unlink()
                lock.release()

    def report_progress(self, epoch: int, seconds_per_epoch: float) -> None:
        """Tell waiting processes which epoch the computed state has reached."""
        if self._reporting is None:
            return
        try:
            write_atomically(self._reporting, f"{epoch} {seconds_per_epoch:.3f}\n".encode())
        except OSError as error:
            logger.warning("other runs may not wait for this pretraining: progress cannot be written (%s)", error)
            self._reporting = None

    def _wait(self, key: str, lock: filelock.BaseFileLock) -> dict[str, Any] | None:
        """Return the stored state; or None with the lock held, or without it if its holder makes no more progress."""
        state = self._load(key)
        if state is not None or self._acquired(lock):
            return state if state is not None else self._load(key)
        logger.info("waiting for another worker that computes the same pretraining (%s...)", key[:12])
        stored, progress, since = self._signature(key), self._progress(key), time.monotonic()
        while True:
            time.sleep(self.poll)
            # The holder may finish after all, although others stopped waiting for it; or another waiter may.
            if self._signature(key) != stored:
                stored = self._signature(key)
                state = self._load(key)
            if state is not None or self._acquired(lock):
                return state if state is not None else self._load(key)
            latest = self._progress(key)
            if latest != progress:
                # Only the change counts, timed here, because clocks of other hosts may be wrong.
                progress, since = latest, time.monotonic()
            if time.monotonic() - since > max(self.patience, PATIENCE_EPOCHS * latest[1]):
                logger.warning(
                    "the worker that computes the same pretraining (%s...) has not finished an epoch for %.0f s; this "
                    "one computes it too",
                    key[:12],
                    time.monotonic() - since,
                )
                return None

    @staticmethod
    def _acquired(lock: filelock.BaseFileLock) -> bool:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            return False
        return True

    def _signature(self, key: str) -> tuple[int, ...] | None:
        try:
            stat = self._path(key).stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _progress(self, key: str) -> tuple[str, float]:
        """Return what the computing process last wrote, and the duration of its epochs (s; 0 if unknown)."""
        try:
            written = (self.folder / f"{key}.progress").read_text()
            return written, float(written.split()[1])
        except (OSError, ValueError, IndexError):
            return "", 0.0

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.pt"

    def _load(self, key: str) -> dict[str, Any] | None:
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("%s cannot be read (%s); it is computed again", path, error)
            return None
        try:
            payload = verify_checksum(_MAGIC, content)
        except DamagedError as error:
            logger.warning("%s is damaged and is computed again (%s)", path, error)
            return None
        with contextlib.suppress(OSError):  # of another user, or in a folder that cannot be written
            os.utime(path)  # so that `december clean` sees that it is in use
        return torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")

    def _store(self, key: str, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        try:
            write_atomically(self._path(key), with_checksum(_MAGIC, buffer.getvalue()))
        except OSError as error:
            logger.warning("the pretraining is not shared with other runs: it cannot be stored (%s)", error)
