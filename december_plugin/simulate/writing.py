"""Folders of simulated recordings: written as a whole or not at all, and never in the place of anything else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from december_plugin.errors import RecordingError


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
    if not (target / "truth").is_dir():
        raise RecordingError(f"{target} is no simulated recording, so it is not replaced. Choose another folder.")
    return target


@contextmanager
def whole_recording(target: Path) -> Iterator[Path]:
    """Give a folder to write into, which becomes ``target`` at the end of the block; after an error it is removed.

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
