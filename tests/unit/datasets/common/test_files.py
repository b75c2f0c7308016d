"""Files that operating systems leave among recordings are no part of them, in every format."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from december_plugin.datasets import macaque_v4_loaders, movie_loaders, static_loaders
from december_plugin.datasets.common.arrays import ArrayFolder
from december_plugin.datasets.common.files import entries_of
from december_plugin.errors import RecordingError
from december_plugin.simulate import write_recording
from december_plugin.simulate.macaque_v4 import read_macaque_v4_truth, write_macaque_v4_recording
from december_plugin.simulate.movies import write_movie_recording
from helpers.movie_recordings import SMALL as MOVIES

SHADOW = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "  # how a file of macOS begins
IMAGES = {"n_neurons": 4, "n_train": 8, "n_validation": 2, "n_test": 2, "n_repeats": 2, "image_shape": (12, 12)}
SESSIONS = {"n_sessions": 2, "n_neurons": 2, "n_images": 30, "n_shown": 30, "n_test": 2, "image_shape": (8, 8)}


def litter(folder: Path) -> None:
    """Put beside every file and folder what macOS puts there, and into every folder what else is found in such."""
    for entry in list(folder.rglob("*")):
        (entry.parent / f"._{entry.name}").write_bytes(SHADOW)
    for inside in [folder, *(entry for entry in folder.rglob("*") if entry.is_dir())]:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (inside / name).write_bytes(SHADOW)
        (inside / "__MACOSX").mkdir()


def images(folder: Path, **settings: Any) -> Any:
    return static_loaders([folder], 4, include_behavior=True, areas=["V1"], **settings)


def movies(folder: Path) -> Any:
    return movie_loaders([folder], 4, chunk_frames=15)


def pickles(folder: Path) -> Any:
    return macaque_v4_loaders([folder / "sessions"], 4, images_path=folder / "images")


def public(folder: Path) -> Any:
    return macaque_v4_loaders([folder], 4)


FORMATS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "images": (lambda folder: write_recording(folder, behavior=True, **IMAGES), images),
    "movies": (lambda folder: write_movie_recording(folder, **MOVIES), movies),
    "session pickles": (lambda folder: write_macaque_v4_recording(folder, **SESSIONS), pickles),
    "public layout": (lambda folder: write_macaque_v4_recording(folder, layout="public", **SESSIONS), public),
}


@pytest.mark.parametrize(("write", "load"), FORMATS.values(), ids=FORMATS.keys())
def test_they_are_no_part_of_a_recording(tmp_path, write, load):
    folder = write(tmp_path / "recording")
    before = {key: loader.dataset.fingerprint() for key, loader in load(folder)["train"].items()}
    litter(folder)
    assert {key: loader.dataset.fingerprint() for key, loader in load(folder)["train"].items()} == before
    if (folder / "truth/3631896544452").is_dir():
        assert read_macaque_v4_truth(folder).keys() == before.keys()


def test_they_are_no_names_of_arrays(recording_folders, tmp_path):
    folder = Path(shutil.copytree(recording_folders[0] / "meta/neurons", tmp_path / "neurons"))
    names = ArrayFolder(folder).keys()
    litter(folder)
    assert ArrayFolder(folder).keys() == names
    assert [entry.stem for entry in entries_of(folder)] == names


def test_one_that_is_named_as_a_session(tmp_path):
    file = tmp_path / "._monkey.pickle"
    file.write_bytes(SHADOW)
    message = f"{file} was left by an operating system and is not a session. Remove it from the paths."
    with pytest.raises(RecordingError, match=re.escape(message)):
        macaque_v4_loaders([file], 4, images_path=tmp_path)


def test_other_files_among_the_trials_are_named(recording_folders, tmp_path):
    folder = Path(shutil.copytree(recording_folders[0], tmp_path / "mouse"))
    for name in ("0 copy.npy", "mean.npy", "007.npy"):
        np.save(folder / "data/images" / name, np.zeros(3))
    message = (
        f"{folder}/data/images has 3 file(s) that are not trials, e.g. 0 copy.npy; 0.npy, 1.npy, and so on are "
        "expected. Move them elsewhere."
    )
    with pytest.raises(RecordingError, match=re.escape(message)):
        static_loaders([folder], 8)
