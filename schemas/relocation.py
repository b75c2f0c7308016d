"""Recordings that have moved: where the paths of dataset entries now lead.

The hash of a dataset entry is that of its settings, the recordings' paths among them. When a folder moves, the entry
stays unchanged, so that hashes and results stay valid, and this table says where its paths lead.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import datajoint as dj
from datajoint.errors import AccessError, DataJointError

LONGEST_PATH = 4000  # characters


class Relocation(dj.Manual):
    """Where the paths of recordings now lead."""

    definition = """
    # Recordings that have moved
    old_path_md5: char(32)              # md5 of old_path
    ---
    old_path: varchar(4000)             # file or folder, as in the entries of datasets, or a folder above it
    new_path: varchar(4000)             # where it is now
    relocated_checked: varchar(255)     # what the content was compared with
    relocated_ts=CURRENT_TIMESTAMP: timestamp  # time of the change (server's clock)
    """

    def paths(self) -> dict[str, str]:
        """Return old paths and where they lead; empty if the table does not exist and may not be created."""
        try:
            return dict(zip(*self.fetch("old_path", "new_path"), strict=True))
        except (DataJointError, AccessError):
            if self.is_declared:
                raise
            return {}

    def set(self, old: str, new: str, *, checked: str) -> None:
        """Let a path lead to another one, or back to itself; for several at once, use a transaction."""
        others = {known: where for known, where in self.paths().items() if known != old}
        key = {"old_path_md5": hashlib.md5(old.encode(), usedforsecurity=False).hexdigest()}
        with contextlib.nullcontext() if self.connection.in_transaction else self.connection.transaction:
            (self & key).delete_quick()
            if new != new_path(old, others, even_if_missing=True):
                self.insert1({**key, "old_path": old, "new_path": new, "relocated_checked": checked})


def is_below(path: str, folder: str) -> bool:
    """Return whether a path is a folder or in it, by their names."""
    folder = folder.rstrip("/")
    return path.rstrip("/") == folder or path.startswith(f"{folder}/")


def paths_in(config: Any) -> Iterator[str]:
    """Yield every absolute path among the values of a configuration."""
    if isinstance(config, str):
        if os.path.isabs(config):
            yield config
    elif isinstance(config, Mapping):
        for value in config.values():
            yield from paths_in(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from paths_in(value)


def relocated(config: Mapping[str, Any], moved: Mapping[str, str]) -> dict[str, Any]:
    """Return a copy of a dataset's configuration with the current paths of the recordings.

    Parameters
    ----------
    config
        As in the entry.
    moved
        Old paths, of recordings or folders above them, and where they lead. If a path is below several,
        the longest counts. If the new path does not exist on this machine while the old one does, the old one is kept,
        because not every machine has moved its recordings.
    """
    return {name: _relocated(value, moved) for name, value in copy.deepcopy(dict(config)).items()}


def _relocated(value: Any, moved: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return new_path(value, moved) if os.path.isabs(value) else value
    if isinstance(value, Mapping):
        return {name: _relocated(each, moved) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_relocated(each, moved) for each in value]
    return value


def rules_for(config: Any, moved: Mapping[str, str]) -> dict[str, str]:
    """Return the old paths above paths of a configuration, and where they lead."""
    paths = list(paths_in(config))
    return {old: new for old, new in moved.items() if any(is_below(path, old) for path in paths)}


def new_path(path: str, moved: Mapping[str, str], *, even_if_missing: bool = False) -> str:
    """Return where a path now leads; see :func:`relocated`."""
    above = [old for old in moved if is_below(path, old)]
    if not above:
        return path
    old = max(above, key=len)
    found = moved[old].rstrip("/") + path.rstrip("/")[len(old.rstrip("/")) :]
    return path if not even_if_missing and not os.path.exists(found) and os.path.exists(path) else found
