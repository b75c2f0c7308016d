"""Folders of simulated recordings: written completely or not at all, and never over anything else.

The planted truth is in the subfolder ``truth``, by which a simulated recording is recognised. A folder's name
determines the ids of the session and, if none is given, the seed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from december_plugin.datasets.common.arrays import read_array
from december_plugin.errors import RecordingError
from december_plugin.validation.checks import check_integer

T = TypeVar("T")
TRUTH = "truth"
# Names as SENSORIUM has them: animal, session, scan.
SCAN = re.compile(r"static(\d{1,9})-(\d{1,9})-(\d{1,9})(?!\d)", re.ASCII)


def checked_target(folder: str | os.PathLike[str], overwrite: bool) -> Path:
    """Return the absolute path of the folder to write; an earlier simulated recording may be replaced, nothing else.

    Raises
    ------
    RecordingError
        If the folder exists already and is not to be replaced, or is not a simulated recording.
    """
    target = Path(os.path.abspath(Path(folder).expanduser()))
    if not target.exists():
        return target
    if not overwrite:
        raise RecordingError(f"{target} exists already. Choose another folder, or pass overwrite=True to replace it.")
    if not (target / TRUTH).is_dir():
        raise RecordingError(f"{target} is not a simulated recording, so it is not replaced. Choose another folder.")
    return target


@contextmanager
def whole_recording(target: Path) -> Iterator[Path]:
    """Yield a folder to write into, which becomes ``target`` at the end of the block; after an error it is removed.

    It is next to the target and is moved into place, so that half a recording is never read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield draft
        if target.exists():
            shutil.rmtree(target)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def save_array(file: Path, array: np.ndarray) -> None:
    """Write an array as ``.npy``, and the folder that it belongs in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, array, allow_pickle=False)


def save_truth(folder: Path, truth: Any) -> None:
    """Write what was planted, a dataclass of arrays, into the subfolder for it, one file for each field but None."""
    for field in fields(truth):
        if getattr(truth, field.name) is not None:
            save_array(folder / TRUTH / f"{field.name}.npy", getattr(truth, field.name))


def truth_folder(folder: str | os.PathLike[str], *, writer: str) -> Path:
    """Return the subfolder with what was planted.

    Parameters
    ----------
    folder
        A simulated recording.
    writer
        Name of the function that writes such recordings, for the error.

    Raises
    ------
    RecordingError
        If there is no such subfolder.
    """
    truth = Path(folder) / TRUTH
    if not truth.is_dir():
        raise RecordingError(f"{truth} is missing: {folder} is not a simulated recording. Write one with {writer}.")
    return truth


def truth_of(kind: type[T], folder: str | os.PathLike[str], *, writer: str) -> T:
    """Read what :func:`save_truth` wrote, a dataclass of this kind; otherwise as :func:`truth_folder`.

    Fields with a default may be missing.
    """
    truth = truth_folder(folder, writer=writer)
    files = {
        field.name: truth / f"{field.name}.npy"
        for field in fields(kind)  # type: ignore[arg-type]
        if field.default is MISSING or (truth / f"{field.name}.npy").exists()
    }
    return kind(**{name: read_array(file) for name, file in files.items()})


def checked_seed(seed: int | None, folder: str | os.PathLike[str]) -> int:
    """Return the seed of a recording: the one given, or one that is determined by the folder's name.

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
    """Return animal, session and scan: those of a name like ``static1-2-3-...``, or an animal that the name determines.

    Other packages build the session's name from them: two recordings with the same ids would be one session.
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
