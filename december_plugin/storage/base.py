"""What every store can do: DataJoint's stores as places for our own files, and which errors are outages of a store.

DataJoint keeps attachments in a store; we keep checkpoints in the same place, and clean it. A store is a folder
(:mod:`december_plugin.storage.folder`) or a bucket of an S3 server (:mod:`december_plugin.storage.s3`). What goes wrong
with the place itself (unmounted, full, away, refusing) is a :class:`StoreUnavailableError` within about ten seconds, so
that a worker can wait for it and still be stopped.

A store has an identity, in the file :data:`MARK`. A place without the mark, or with another one, is not the store that
it was taken for: an empty folder where a disk should be mounted, or one created again after a store was moved away. See
:mod:`december_plugin.database.store_identity`.
"""

from __future__ import annotations

import errno
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from december_plugin.errors import ServerError, SettingsError

MARK = "december-store.txt"  # the file of a store that says which one it is
UNREADABLE = "unreadable"  # the identity of a store whose mark says none
_MARK_TEXT = """\
{identity}

This file tells december which store this is. Whoever moves the store, or copies it back from a backup, moves this file
with it. Without it december takes the place for another one and stores nothing here.
"""


class StoreUnavailableError(ServerError):
    """A store, or another place for files, cannot be used now."""


@dataclass(frozen=True)
class StoredObject:
    """A file in a store."""

    path: str  # below the store's location, with slashes
    size: int  # bytes
    modified: datetime  # aware


@dataclass(frozen=True)
class UnfinishedUpload:
    """A large file whose upload to an S3 server was begun and not completed; it takes room and is not listed."""

    path: str  # below the store's location, with slashes
    begun: datetime  # aware
    upload_id: str


class ObjectStore(ABC):
    """Files in a DataJoint store, by their paths below its location.

    Every method raises :class:`StoreUnavailableError` if the place cannot be used, and :class:`SettingsError` for a
    path that leads out of it. Use :func:`december_plugin.storage.open_store` to get one.
    """

    name: str
    identity = ""  # that the store must have, see :meth:`check_identity`; empty for any

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it is, for messages."""

    @abstractmethod
    def check(self) -> None:
        """Check that the place can be used."""

    @abstractmethod
    def put(self, path: str, payload: bytes) -> None:
        """Write a complete file; if this fails, its earlier content is unchanged."""

    @abstractmethod
    def get(self, path: str) -> bytes:
        """Return a file's content; raise FileNotFoundError if there is none."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""

    @abstractmethod
    def find(self, path: str) -> StoredObject | None:
        """Return size and time of a file, or None if there is none."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the files below a folder, in any order; none if there is no such folder."""

    def unfinished_uploads(self, prefix: str = "") -> Iterator[UnfinishedUpload]:
        """Yield uploads below a folder that were begun and never completed, and that :meth:`list` does not show."""
        return iter(())

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Remove what is left of an upload that was never completed."""
        raise SettingsError(f"The store {self.name!r} has no unfinished uploads.")

    def read_mark(self) -> str | None:
        """Return the identity of the store; None if it has no mark, and :data:`UNREADABLE` if the mark says nothing."""
        try:
            content = self.get(MARK)
        except FileNotFoundError:
            return None
        return _identity_in(content)

    def write_mark(self, identity: str) -> None:
        """Give the store an identity of 32 hexadecimal digits, which replaces any earlier one."""
        self.put(MARK, _MARK_TEXT.format(identity=identity).encode())

    def check_identity(self) -> None:
        """Check that this is the expected store; without an expected identity, any store passes.

        Raises
        ------
        StoreUnavailableError
            The mark is missing or gives another identity, or the place cannot be used.
        """
        if self.identity:
            try:
                mark = self.get(MARK)
            except FileNotFoundError:
                mark = None
            self.check_mark(mark)

    def check_mark(self, mark: bytes | None) -> None:
        """Check that the content of the file :data:`MARK`, or None if it is missing, has the expected identity.

        Raises
        ------
        StoreUnavailableError
            It does not.
        """
        if mark is None:
            raise self.unrecognised(f"its mark {MARK} is missing")
        if _identity_in(mark) != self.identity:
            raise self.unrecognised(f"its mark {MARK} is that of another store")

    def unrecognised(self, reason: str) -> StoreUnavailableError:
        """Return the error that says that this is not the store that was used before."""
        return StoreUnavailableError(
            f"The store {self.name!r} ({self.place}) is not the one that this database has used before: {reason}. "
            "Mount the disk or move the store back to this place, or correct "
            f"dj.config['stores'][{self.name!r}]; `december store accept` makes this place the store from now on."
        )

    def unavailable(self, reason: str) -> StoreUnavailableError:
        """Return the error that says why the store cannot be used."""
        return StoreUnavailableError(
            f"The store {self.name!r} ({self.place}) cannot be used: {reason}. Check that it runs, is mounted and has "
            f"room, and check dj.config['stores'][{self.name!r}]."
        )


def _identity_in(mark: bytes) -> str:
    words = mark.decode("ascii", errors="replace").split(maxsplit=1)
    return words[0] if words and re.fullmatch("[0-9a-f]{32}", words[0]) else UNREADABLE


def checked_path(path: str) -> PurePosixPath:
    """Return a path below a store's location.

    Raises
    ------
    SettingsError
        If it is empty, absolute, or leads out of the location.
    """
    parts = path.split("/")
    if path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise SettingsError(f"the path {path!r} in a store must be relative, without empty parts, '.' and '..'.")
    return PurePosixPath(path)


# What DataJoint and its libraries raise when a store is away.
_AWAY_NAMES = """
    ENOSPC EDQUOT EROFS EFBIG EIO EACCES EPERM ESTALE EKEYEXPIRED ENODEV ENXIO EREMOTEIO ENOTCONN ENOLINK ECOMM
    ETIMEDOUT EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ECONNREFUSED ECONNRESET ECONNABORTED EPIPE
"""
_AWAY = {getattr(errno, name) for name in _AWAY_NAMES.split() if hasattr(errno, name)}
# A server that refuses with these refuses every job until the settings are corrected, so a worker waits.
_REFUSING = {
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "NoSuchBucket",
    "QuotaExceeded",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "SignatureDoesNotMatch",
    "SlowDown",
}


def is_store_outage(error: BaseException) -> bool:
    """Return whether an error means that a store cannot be used now, so that waiting for it makes sense.

    Parameters
    ----------
    error
        What was raised while a file was written to or read from a store, by DataJoint or by this module: the server
        is away, hangs or refuses all requests, the disk is full, read-only or gone. A missing file is not an outage.
    """
    if isinstance(error, StoreUnavailableError):
        return True
    if isinstance(error, OSError):
        # DataJoint says so, without a number, when the folder of a store is gone.
        return error.errno in _AWAY or str(error).startswith("Inaccessible local directory")
    if isinstance(error, RuntimeError) and "file write failed" in str(error):  # torch.save on a full disk
        return True
    return _is_s3_outage(error)


def status_of(error: Any) -> int:
    """Return the HTTP status that a ``minio.error.InvalidResponseError`` tells of; minio has no public name for it."""
    return int(error._code)  # noqa: SLF001


def _is_s3_outage(error: BaseException) -> bool:
    import urllib3
    from datajoint.errors import BucketInaccessible
    from minio import error as minio_errors

    if isinstance(error, (urllib3.exceptions.HTTPError, BucketInaccessible)):
        return True
    if isinstance(error, minio_errors.S3Error):
        return error.code in _REFUSING or (getattr(error.response, "status", 0) or 0) >= 500
    if isinstance(error, minio_errors.InvalidResponseError):  # a proxy in between answers in HTML
        return status_of(error) >= 500
    return isinstance(error, minio_errors.ServerError)
