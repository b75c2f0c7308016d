"""Finished results on the local disk, from the end of a computation until the database has them."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from december_plugin.storage.atomic import UNFINISHED, DamagedError, verify_checksum, with_checksum, write_atomically
from december_plugin.storage.base import StoreUnavailableError, checked_path
from december_plugin.storage.home import december_home

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "DECEMBER_SPOOL"
DAMAGED = "damaged"
_MAGIC = "december-result-1"


def spool_folder() -> Path:
    """Return the folder of results: ``$DECEMBER_SPOOL``, or else ``spool`` in december's folder."""
    configured = os.environ.get(FOLDER_VARIABLE)
    return Path(configured).expanduser() if configured else december_home() / "spool"


class Spool:
    """Results of jobs, one file each, readable only by the user.

    Parameters
    ----------
    folder
        Where they are kept; created when needed. By default :func:`spool_folder`.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = Path(folder) if folder is not None else spool_folder()

    def put(self, schema: str, table_name: str, key_hash: str, payload: bytes) -> None:
        """Keep the result of a job, replacing an earlier one.

        Raises
        ------
        StoreUnavailableError
            The folder cannot be written: full, read-only, not allowed. An earlier result is unchanged.
        """
        path = self._path(schema, table_name, key_hash)
        with self._errors():
            for folder in (self.folder, path.parents[1], path.parent):
                self._make(folder)
            write_atomically(path, with_checksum(_magic(schema, table_name, key_hash), payload), mode=0o600)

    def get(self, schema: str, table_name: str, key_hash: str) -> bytes | None:
        """Return the result of a job, or None if there is none.

        A damaged one is moved to the folder ``damaged``, with a warning, and None is returned.

        Raises
        ------
        StoreUnavailableError
            The folder cannot be read.
        """
        path = self._path(schema, table_name, key_hash)
        with self._errors():
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return None
            try:
                return verify_checksum(_magic(schema, table_name, key_hash), content)
            except DamagedError as error:
                aside = self._move_aside(path)
                logger.warning(
                    "the finished result %s is damaged and is not used: %s. It is now %s; its job is computed again.",
                    path,
                    error,
                    aside,
                )
                return None

    def set_aside(self, schema: str, table_name: str, key_hash: str) -> Path:
        """Move an unusable result to the folder ``damaged``; return its path.

        Raises
        ------
        StoreUnavailableError
            The folder cannot be written, or there is no such result.
        """
        with self._errors():
            return self._move_aside(self._path(schema, table_name, key_hash))

    def remove(self, schema: str, table_name: str, key_hash: str) -> None:
        """Forget the result of a job; nothing happens if there is none.

        Raises
        ------
        StoreUnavailableError
            The folder cannot be written.
        """
        with self._errors():
            self._path(schema, table_name, key_hash).unlink(missing_ok=True)

    def entries(self, schema: str) -> list[tuple[str, str]]:
        """Return the jobs with a result, as table name and key hash, the oldest first.

        Raises
        ------
        StoreUnavailableError
            The folder cannot be read.
        """
        checked_path(schema)
        with self._errors():
            found = []
            for path in self.folder.glob(f"{schema}/*/*"):
                with contextlib.suppress(FileNotFoundError):  # delivered meanwhile
                    if not path.name.startswith("."):
                        found.append((path.stat().st_mtime, path.parent.name, path.name))
            return [(table_name, key_hash) for _, table_name, key_hash in sorted(found)]

    def waiting(self) -> list[Path]:
        """Return the files of all results, in any schema."""
        return [path for path in self.folder.glob("[!.]*/*/*") if not path.name.startswith(".")]

    def unfinished(self) -> Iterator[Path]:
        """Yield incomplete files; they may still be being written."""
        yield from self.folder.glob(f"*/*/.*{UNFINISHED}")

    def _path(self, schema: str, table_name: str, key_hash: str) -> Path:
        path = checked_path(f"{schema}/{table_name}/{key_hash}")
        return self.folder / path

    def _make(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _move_aside(self, path: Path) -> Path:
        folder = self.folder / DAMAGED
        self._make(folder)
        schema, table_name, key_hash = path.relative_to(self.folder).parts
        aside = folder / f"{schema}.{table_name}.{key_hash}.{time.time_ns()}"
        path.replace(aside)
        return aside

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailableError(
                f"The folder {self.folder} for finished results cannot be used: {error.strerror or error}. Make room "
                f"or allow writing there, or set {FOLDER_VARIABLE} to another folder on a local disk."
            ) from error


def _magic(schema: str, table_name: str, key_hash: str) -> bytes:
    # A result that was copied to another job's place is not a result of that job.
    return f"{_MAGIC} {schema} {table_name} {key_hash}\n".encode()
