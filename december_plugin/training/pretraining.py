"""A folder of pretrainings, shared by every run that needs the same one.

Runs that differ only in their clustering go through the same first epochs. The first of them computes these epochs and
stores the state at their end, named by the digest of everything it depends on; the others load it and end with the
same bytes as if they had computed it themselves. Workers on one file system share the folder; two that want the same
pretraining at once compute it once.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import platformdirs
import torch

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "DECEMBER_PRETRAINING"
# Raise this number when a change of the training loop changes what a pretraining computes.
FORMAT = 1
_MAGIC = b"december-pretraining-1\n"


def pretraining_folder() -> Path:
    """Return the folder of shared pretrainings: ``$DECEMBER_PRETRAINING``, or else one in the user's cache folder."""
    configured = os.environ.get(FOLDER_VARIABLE)
    return Path(configured).expanduser() if configured else platformdirs.user_cache_path("december") / "pretraining"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class PretrainingCache:
    """Content-addressed store of training states, one file each with a checksum, written atomically.

    Parameters
    ----------
    folder
        Shared by all workers; made if it does not exist. A file can be deleted at any time: it is computed again.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def get_or_compute(self, key: str, compute: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], bool]:
        """Return the state stored under ``key``, and whether it was there; ``compute`` and store it otherwise.

        While another process computes the same state, this one waits for it. The lock goes with the process that
        holds it, however that ends. If the folder cannot be written, the state is computed and not shared.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / f"{key}.lock", mode=0o666)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                logger.info("waiting for another worker that computes the same pretraining (%s...)", key[:12])
                lock.acquire()
        except OSError as error:
            logger.warning("the pretraining is not shared with other runs: %s cannot be used (%s)", self.folder, error)
            return compute(), False
        with lock:
            state = self._load(key)
            if state is not None:
                return state, True
            state = compute()
            self._store(key, state)
            return state, False

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
        header = len(_MAGIC) + 32
        payload = content[header:]
        if content[:header] != _MAGIC + hashlib.sha256(payload).digest():
            logger.warning("%s is damaged and is computed again", path)
            return None
        return torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")

    def _store(self, key: str, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getvalue()
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".writing-", delete=False) as file:
                try:
                    file.write(_MAGIC + hashlib.sha256(payload).digest() + payload)
                    file.flush()
                    os.fsync(file.fileno())
                    os.chmod(file.name, 0o666 & ~_umask())  # temporary files are the user's alone
                    os.replace(file.name, self._path(key))
                except BaseException:
                    os.unlink(file.name)
                    raise
        except OSError as error:
            logger.warning("the pretraining is not shared with other runs: it cannot be stored (%s)", error)
