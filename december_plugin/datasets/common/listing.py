"""Entries of a folder of recordings, without the files that operating systems leave there."""

from __future__ import annotations

import os
from pathlib import Path

# Windows and network disks; macOS's and Linux's own files (._0.npy, .DS_Store, .nfs0001) begin with a dot.
LEFT_BY_SYSTEMS = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "__macosx", "@eadir"}
)


def is_left_by_system(name: str) -> bool:
    """Return whether a file or folder of this name is an operating system's and no part of a recording.

    macOS writes ``._name`` next to every file on disks of other systems and into zip archives.
    """
    return name.startswith(".") or name.lower() in LEFT_BY_SYSTEMS


def entries_of(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the files and folders of a recording that lie in a folder, sorted by name."""
    return sorted(entry for entry in Path(folder).iterdir() if not is_left_by_system(entry.name))
