"""Writes files that are either there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from december_plugin.errors import SettingsError

MARK = b'<meta name="generator" content="december_plugin'


def check_replaceable(path: Path, *, force: bool) -> None:
    """Raise a :class:`SettingsError` if a report cannot or must not be written there.

    A report of an earlier run is replaced; any other file only with ``force``.
    """
    if path.is_dir():
        raise SettingsError(f"{path} is a folder; name a file, e.g. {path / 'report.html'}.")
    if not path.parent.is_dir():
        raise SettingsError(f"the folder {path.parent} does not exist; make it, or name another file (-o).")
    if path.exists() and not force and MARK not in _beginning(path):
        raise SettingsError(f"{path} exists and is no report of december; name another file (-o), or add --force.")


def _beginning(path: Path) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(4096)
    return b""


def write_text(path: Path, text: str) -> int:
    """Write a text file as a whole; return its size in bytes."""
    content = text.encode("utf-8")
    write_file(path, lambda file: file.write(content))
    return len(content)


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` write a file beside ``path``, and put it into its place when it is complete.

    Raises
    ------
    SettingsError
        If it cannot be written; what was there before stays.
    """
    partial: str | None = None
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with open(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o666 & ~_umask())
        os.replace(partial, path)
        partial = None
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror or error}. Name a file in a folder that you may write to."
        ) from error
    finally:
        if partial is not None:
            with contextlib.suppress(OSError):
                os.unlink(partial)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
