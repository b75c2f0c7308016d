"""Files that are either complete or absent: atomic writing, and a checksum in front of the content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from december_plugin.errors import DecemberError

UNFINISHED = ".writing"  # end of the name of a file that is being written, or was when its writer died
_DIGEST_BYTES = 32


class DamagedError(DecemberError, ValueError):
    """A file is not what was written: cut short, altered, or of another kind."""


def with_checksum(magic: bytes, payload: bytes) -> bytes:
    """Return the payload with its kind and its SHA-256 digest in front, for :func:`verify_checksum`.

    Parameters
    ----------
    magic
        What the content is, e.g. ``b"december-checkpoint-1 "``; raise its number when the format changes.
    payload
        The content.
    """
    return b"".join((magic, hashlib.sha256(payload).digest(), payload))


def verify_checksum(magic: bytes, content: bytes) -> bytes:
    """Return the payload that :func:`with_checksum` was given.

    Raises
    ------
    DamagedError
        The content is cut short, altered, or of another kind (``magic``).
    """
    if content[: len(magic)] != magic:
        kind = "is empty" if not content else "is of another kind, or its beginning is damaged"
        raise DamagedError(f"the content {kind} ({len(content)} bytes)")
    end = len(magic) + _DIGEST_BYTES
    payload = content[end:]
    if content[len(magic) : end] != hashlib.sha256(payload).digest():
        raise DamagedError(f"the checksum does not fit the content ({len(content)} bytes): it was cut short or altered")
    return payload


def write_atomically(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that ``path`` always has either its complete old or its complete new content, even after a crash.

    Two processes that write the same file at once leave the content of one of them. A crash leaves at most a file whose
    name ends in ``.writing``, next to ``path``.

    Parameters
    ----------
    path
        The file; its folder exists.
    content
        The new content.
    mode
        Permissions of the file, minus the process's umask.

    Raises
    ------
    OSError
        The disk is full, the folder cannot be written, and so on; the old content is unchanged.
    """
    with writing_atomically(path, mode=mode) as file:
        file.write(content)


@contextlib.contextmanager
def writing_atomically(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield a file to write, which replaces ``path`` when the with block ends without an error.

    As :func:`write_atomically`, for content that is too large for memory. The file can be read back in the block.
    """
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        with open(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
