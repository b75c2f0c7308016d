"""Files of a recording, without those of the operating system, and JSON without repeated names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

# Windows and network disks; macOS's and Linux's own files (._0.npy, .DS_Store, .nfs0001) begin with a dot.
LEFT_BY_SYSTEMS = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "__macosx", "@eadir"}
)


def is_left_by_system(name: str) -> bool:
    """Return whether a file or folder of this name belongs to an operating system, not to a recording.

    macOS writes ``._name`` next to every file on disks of other systems and into zip archives.
    """
    return name.startswith(".") or name.lower() in LEFT_BY_SYSTEMS


def entries_of(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the files and folders of a recording in a folder, sorted by name."""
    return sorted(entry for entry in Path(folder).iterdir() if not is_left_by_system(entry.name))


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not JSON in UTF-8, or an object has a name twice, in which case other readers take the last one.
    """
    return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {doubled!r} appears twice; keep one of them")
    return content
