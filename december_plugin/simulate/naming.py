"""What a simulated recording takes from its folder's name: a seed, where none is given, and the ids of its session."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from december_plugin.validation.checks import check_integer

# Names as SENSORIUM has them: animal, session, scan.
SCAN = re.compile(r"static(\d{1,9})-(\d{1,9})-(\d{1,9})(?!\d)", re.ASCII)


def checked_seed(seed: int | None, folder: str | os.PathLike[str]) -> int:
    """Return the seed of a recording: the one given, else one that the folder's name alone decides.

    Parameters
    ----------
    seed
        None or an integer of at least 0.
    folder
        Where the recording is written.

    Raises
    ------
    SettingsError
        If the seed is neither.
    """
    return _number_of(_name(folder)) if seed is None else check_integer("seed", seed, minimum=0)


def session_ids(folder: Path) -> tuple[int, int, int]:
    """Return animal, session and scan: those of a name like ``static1-2-3-...``, else an animal that the name decides.

    Other packages make the session's name of them: two recordings with the same ones would be one session.
    """
    named = SCAN.match(folder.name)
    if named:
        animal, session, scan = (int(part) for part in named.groups())
        return animal, session, scan
    return _number_of(folder.name), 1, 1


def _name(folder: str | os.PathLike[str]) -> str:
    return Path(os.path.abspath(Path(folder).expanduser())).name


def _number_of(name: str) -> int:
    """Return a number from 0 to 2**32 - 1, the same on every machine."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:4], "big")
