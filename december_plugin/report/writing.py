"""The file of a report: whether it may be replaced, and writing it whole or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

from december_plugin.errors import SettingsError
from december_plugin.storage.atomic import write_atomically

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
        raise SettingsError(f"{path} exists and is not a december report; name another file (-o), or add --force.")


def _beginning(path: Path) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(4096)
    return b""


def write_report(path: Path, html: str) -> int:
    """Write a report as a whole, in UTF-8; return its size in bytes.

    Raises
    ------
    SettingsError
        If it cannot be written; what was there before stays.
    """
    content = html.encode("utf-8")
    try:
        write_atomically(path, content)
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror or error}. Name a file in a folder that you may write to."
        ) from error
    return len(content)
