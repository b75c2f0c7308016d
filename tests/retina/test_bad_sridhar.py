"""Bad input for the marmoset retina movies: each is answered with what is wrong and what to do."""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from december_plugin.datasets import sridhar_2025_loaders
from december_plugin.errors import RecordingError, SettingsError
from helpers.retina_files import GEOMETRY, response_file


@pytest.fixture
def copy(sridhar: Path, tmp_path: Path) -> Path:
    """Return a copy of the recording that may be damaged."""
    return Path(shutil.copytree(sridhar, tmp_path / "copy"))


def load(folder: Path, **settings: Any) -> dict:
    given = {"retinas": "01", "chunk_frames": 10, "lead_frames": 5, **GEOMETRY, **settings}
    return sridhar_2025_loaders(folder, 4, **given)


def with_responses(change: Callable[[dict], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = pickle.loads(response_file(folder, "01").read_bytes())
        change(content)
        response_file(folder, "01").write_bytes(pickle.dumps(content))

    return damage


def with_fixation(number: int, line: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "fixations" / "complete_fixations_seed_2022and2023_s4_fixed.txt"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines[:number], line, *lines[number + 1 :]]))

    return damage


def fewer_fixations(folder: Path) -> None:
    path = folder / "fixations" / "complete_fixations_seed_2022and2023_s4_fixed.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def image(folder: Path) -> Path:
    return folder / "stimuli_padded_4" / "natural_img_003.npy"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def set_response(name: str, cell: int, value: float) -> Callable[[Path], None]:
    return with_responses(lambda content: content[name].__setitem__((cell, 3, 1), value))


def scaled_images(folder: Path) -> None:
    for path in (folder / "stimuli_padded_4").iterdir():
        np.save(path, np.load(path) / 255)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "is not a folder. See docs/recordings.md for where to get the recordings."),
        (lambda folder: response_file(folder, "01").unlink(), "_01_fixation_movie.pkl does not exist. See docs"),
        (lambda folder: cut(response_file(folder, "01")), "_01_fixation_movie.pkl is not a complete pickle (Unpickl"),
        (
            with_responses(lambda content: content.pop("test_responses")),
            "_01_fixation_movie.pkl has no entry 'test_responses'; it has seeds, train_responses, trial_separation.",
        ),
        (
            with_responses(lambda content: content.update(train_responses=np.zeros((5, 60)))),
            "have shape (5, 60); (cells, frames, trials) is expected.",
        ),
        (
            with_responses(lambda content: content.update(test_responses=np.zeros((4, 80, 12)))),
            "have shape (4, 80, 12); (5 cells, frames, trials) is expected, because the train_responses are",
        ),
        (
            with_responses(lambda content: content.update(test_responses=np.zeros((5, 5101, 12)))),
            "the test responses of retina '01' have 5101 frames; the test movie has 5100.",
        ),
        (
            with_responses(lambda content: content.update(train_responses=np.zeros((5, 60, 1)))),
            "retina '01' has 1 training trial(s), of which train_fraction=0.8 leaves none for train; choose another",
        ),
        (
            set_response("train_responses", 3, np.nan),
            "have NaN or infinite values for cell 3; they are spikes per frame. Leave the cell out with "
            "excluded_cells={'01': [3]}.",
        ),
        (set_response("test_responses", 1, -1.0), "have negative values for cell 1; they are spikes per frame."),
        (fewer_fixations, "has 5339 lines, but test and training movie together have 5340 frames, one line each"),
        (
            with_fixation(40, "7.0 0 0 8.0 6.0 1\n"),
            "line 41 of ",
        ),
        (with_fixation(40, "7.0 0 0 8.0 6.0 1\n"), " names image 7, but there are 7 images, counted from 0."),
        (
            with_fixation(5200, "2.0 0 0 900.0 6.0 1\n"),
            "has x=900, whose window of 12 pixels is not within the 20 of the images: check image_size",
        ),
        (with_fixation(0, "a fixation\n"), "has a line that is not a fixation ("),
        (
            lambda folder: (folder / "fixations" / "complete_fixations_seed_2022and2023_s4_fixed.txt").unlink(),
            "fixed.txt d",
        ),
        (
            lambda folder: shutil.rmtree(folder / "stimuli_padded_4"),
            "stimuli_padded_4 has no images (files with '_img_'",
        ),
        (
            lambda folder: image(folder).with_name(f"._{image(folder).name}").write_bytes(b"Mac OS X"),
            "stimuli_padded_4 has 1 file(s) that an operating system left next to the images, e.g. "
            "._natural_img_003.npy; openretina would read them as images. Remove them.",
        ),
        (lambda folder: cut(image(folder)), "natural_img_003.npy cannot be read ("),
        (
            lambda folder: np.save(image(folder), np.zeros((40, 32), dtype=np.uint8)),
            "natural_img_003.npy is uint8 of shape (40, 32); numbers of shape (20, 16) (width, height) are expected.",
        ),
        (
            lambda folder: np.save(image(folder), np.full((20, 16), np.nan)),
            "natural_img_003.npy has values outside 0 to 255, or NaN; grey levels are expected.",
        ),
        (scaled_images, "is brighter than 1; grey levels of 0 to 255 are expected."),
    ],
)
def test_bad_files_are_refused(copy: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(copy)
    with pytest.raises(RecordingError, match=re.escape(message)):
        load(copy)


def test_bad_cells_may_be_left_out(copy: Path) -> None:
    set_response("train_responses", 3, np.nan)(copy)
    assert load(copy, excluded_cells={"01": [3]})["train"]["retina_01"].dataset.n_neurons == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"retina": "01"}, "sridhar_2025_loaders has no setting 'retina'. Did you mean 'retinas'?"),
        ({"retinas": "1"}, "retinas has '1'. Did you mean '01'?"),
        ({"retinas": []}, "retinas is []; a list of retinas is expected, e.g. ['01'], each once."),
        ({"retinas": ["01", "01"]}, "each once."),
        ({"excluded_cells": [1]}, "excluded_cells is [1]; a dict of retina to a list of cells is expected."),
        ({"excluded_cells": {"1": [1]}}, "excluded_cells has the retina '1'. Did you mean '01'?"),
        ({"excluded_cells": {"01": [-1]}}, "excluded_cells of '01' is -1; it must be at least 0."),
        ({"train_fraction": 1}, "train_fraction is 1; it must be below 1, so that validation has trials."),
        ({"chunk_frames": 70}, "lead_frames + chunk_frames is 75, but the training trials of retina_01 has 60 frames."),
        ({"window_size": [11, 10]}, "window_size is [11, 10] and crop [1, 2, 2, 1]: the window must have even sides"),
        ({"crop": [5, 5, 0, 0]}, "and something must remain of it."),
        ({"crop": 5}, "crop is 5; 4 numbers of pixels are expected."),
        ({"padding": 0}, "padding is 0; it must be at least 1."),
    ],
)
def test_a_setting_that_cannot_be_is_refused(sridhar: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        load(sridhar, **settings)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([5], "excluded_cells of retina '01' has 5, but "),
        ([0, 1, 2, 3, 4], "excluded_cells of retina '01' leaves none of the 5 cells of "),
    ],
)
def test_excluded_cells_must_exist_and_leave_some(sridhar: Path, cells: list[int], message: str) -> None:
    with pytest.raises(RecordingError, match=re.escape(message)):
        load(sridhar, excluded_cells={"01": cells})


def test_one_retina_under_two_names_is_refused(copy: Path) -> None:
    first, other = response_file(copy, "01"), response_file(copy, "03")
    shutil.copy(first, other)
    message = f"{first} and {other} have the same responses: one recording under two names, whose neurons would count"
    with pytest.raises(RecordingError, match=re.escape(message)):
        load(copy, retinas=["01", "03"])
