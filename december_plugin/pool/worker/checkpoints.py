"""Keeps the state of unfinished trainings in the store that holds the models.

Each attempt at a job has its own file, so that a worker that has lost its job without knowing it yet never replaces
what its successor has saved.
"""

from __future__ import annotations

import contextlib
import logging
from functools import partial

from december_plugin.storage.atomic import DamagedError, verify_checksum, with_checksum
from december_plugin.storage.base import ObjectStore, StoreUnavailableError, checked_path

logger = logging.getLogger(__name__)

CHECKPOINTS = "december_checkpoints"  # the folder in the store
_MAGIC = "december-checkpoint-1"


class CheckpointFile:
    """One checkpoint.

    Parameters
    ----------
    store
        Where it is kept; every worker that may take up the job must be able to reach it.
    schema, table_name, name
        The job: schema of the pool's tables, the table's name on the server, and :func:`attempt_name`.

    Raises
    ------
    SettingsError
        If one of these is not a name.
    """

    def __init__(self, store: ObjectStore, schema: str, table_name: str, name: str):
        self.store = store
        self.path = f"{CHECKPOINTS}/{schema}/{table_name}/{name}"
        checked_path(self.path)
        # A checkpoint that was copied to another job's place is not a checkpoint of that job.
        self._magic = f"{_MAGIC} {schema} {table_name} {name}\n".encode()

    def save(self, payload: bytes) -> None:
        """Replace the checkpoint.

        Raises
        ------
        StoreUnavailableError
            The store is away, full or read-only; the earlier checkpoint is unchanged.
        """
        self.store.put(self.path, with_checksum(self._magic, payload))

    def load(self) -> bytes | None:
        """Return what was saved last, or None if nothing was, or if it is damaged (logged as a warning).

        Raises
        ------
        StoreUnavailableError
            The store is away, so it is unknown whether there is a checkpoint.
        """
        try:
            content = self.store.get(self.path)
        except FileNotFoundError:
            return None
        try:
            return verify_checksum(self._magic, content)
        except DamagedError as error:
            logger.warning(
                "the checkpoint %s in %s is damaged and is not used: %s.",
                self.path,
                self.store.place,
                error,
            )
            return None

    def remove(self) -> None:
        """Remove the checkpoint; nothing happens if there is none.

        Raises
        ------
        StoreUnavailableError
            The store is away.
        """
        self.store.remove(self.path)


class JobCheckpoints:
    """The checkpoints of all attempts at one job, each in its own file.

    A worker that was suspended, and continues for a moment after another has taken its job, never replaces what the
    other one has saved.

    Parameters
    ----------
    store, schema, table_name
        As for :class:`CheckpointFile`.
    key_hash
        DataJoint's hash of the job's key.
    attempt
        Number of this attempt, greater than those of all earlier ones.
    """

    def __init__(self, store: ObjectStore, schema: str, table_name: str, key_hash: str, *, attempt: int):
        self._file = partial(CheckpointFile, store, schema, table_name)
        self._store, self._folder, self._hash = store, f"{CHECKPOINTS}/{schema}/{table_name}", key_hash
        self._name = attempt_name(key_hash, attempt)
        self._is_first = True

    def save(self, payload: bytes) -> None:
        """Save this attempt's state, then remove those of earlier attempts.

        Errors are those of :meth:`CheckpointFile.save`.
        """
        self._file(self._name).save(payload)
        if self._is_first:
            with contextlib.suppress(StoreUnavailableError):  # this one is saved; removing can wait
                for name in self._names():
                    if name < self._name:
                        self._file(name).remove()
                self._is_first = False

    def load(self) -> bytes | None:
        """Return the state of the latest attempt that left an intact one; errors as for :meth:`CheckpointFile.load`."""
        for name in reversed(self._names()):
            payload = self._file(name).load()
            if payload is not None:
                return payload
        return None

    def remove(self) -> None:
        """Remove the checkpoints of all attempts."""
        for name in self._names():
            self._file(name).remove()

    def _names(self) -> list[str]:
        names = (stored.path.rsplit("/", 1)[-1] for stored in self._store.list(self._folder))
        return sorted(name for name in names if key_hash_of(name) == self._hash)


def attempt_name(key_hash: str, attempt: int) -> str:
    """Return the name of the file of one attempt; names sort as attempts do."""
    return f"{key_hash}-{attempt:08d}"


def key_hash_of(name: str) -> str:
    """Return the hash of the job that a checkpoint of this name belongs to."""
    return name.split("-")[0]
