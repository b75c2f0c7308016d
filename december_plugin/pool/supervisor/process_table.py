"""The processes of this machine, read from ``/proc``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

ZOMBIE = "Z"


def all_processes() -> list[int]:
    """Return the numbers of all visible processes."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    stated = _stated(pid)
    return bool(stated) and stated[0] != ZOMBIE


def start_of(pid: int) -> str:
    """Return when a process began, in the system's ticks since it was booted; empty if there is none."""
    stated = _stated(pid)
    return stated[19] if stated else ""


def children_of(parent: int) -> set[int]:
    """Return the processes that a process has started and is still the parent of."""
    return {pid for pid in all_processes() if _stated(pid)[1:2] == [str(parent)]}


def environment_of(pid: int) -> list[str]:
    """Return the variables that a process was started with, as ``NAME=value``; empty for another user's process."""
    with suppress(OSError):
        return [part.decode(errors="replace") for part in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]
    return []


def _stated(pid: int) -> list[str]:
    """Return the fields of a process from its state on; nothing if there is none."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return []
