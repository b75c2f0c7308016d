"""Reads and checks the files of Sridhar et al. 2026: responses, fixations and images of the natural movie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from december_plugin.datasets.common.chunks import Movie, update_digest
from december_plugin.datasets.common.files import is_left_by_system
from december_plugin.datasets.common.pickles import array_of, read_plain_pickle
from december_plugin.errors import RecordingError
from december_plugin.importing.openretina import openretina_module, undisturbed

SEE_SOURCE = "See docs/recordings.md for where to get it."


@dataclass(frozen=True)
class Geometry:
    """How a frame is cut out of an image; all sizes in pixels.

    Attributes
    ----------
    image
        (width, height) of the images in the files.
    window
        (width, height) of the window around a fixation.
    padding
        Margin around the images, so that a fixation near the edge has a window; coordinates do not include it.
    crop
        (top, bottom, left, right) cut off the window.
    """

    image: tuple[int, int]
    window: tuple[int, int]
    padding: int
    crop: tuple[int, int, int, int]

    @property
    def frame(self) -> tuple[int, int]:
        """(height, width) of a frame."""
        top, bottom, left, right = self.crop
        return self.window[1] - top - bottom, self.window[0] - left - right


class FixationMovie(Movie):
    """Images seen through eye movements: frame by frame an image, a place on it, and whether it is mirrored.

    The same as openretina's ``MarmosetMovieDataset``, computing only the pixels that are needed. (In release 1.1.1,
    that one may serve frames of another trial if two stretches with the same number follow each other.)

    Parameters
    ----------
    images
        (images, width, height) float16, 0 to 1.
    fixations
        (frames, 4) int64: image, x and y of the window's centre, and 1 if the image is as stored, 0 if mirrored.
    geometry
        How a frame is cut out.
    """

    def __init__(self, images: np.ndarray, fixations: np.ndarray, geometry: Geometry):
        self.images, self.fixations, self.geometry = images, fixations, geometry
        self.n_frames = len(fixations)
        self.shape = (1, *geometry.frame)
        half_width, half_height = geometry.window[0] // 2, geometry.window[1] // 2
        self._left = fixations[:, 1] + geometry.padding - half_width
        self._low = fixations[:, 2] + geometry.padding - half_height

    def stretch(self, start: int, stop: int) -> Tensor:
        """Return the frames (1, stop - start, height, width)."""
        width, height = self.geometry.window
        top, bottom, left, right = self.geometry.crop
        frames = np.empty((stop - start, *self.geometry.frame), dtype=np.float32)
        for position, line in enumerate(range(start, stop)):
            x, y = self._left[line], self._low[line]
            window = self.images[self.fixations[line, 0], x : x + width, y : y + height]
            if self.fixations[line, 3] == 0:
                window = window[:, ::-1]
            frames[position] = window.T[top : height - bottom, left : width - right]
        return torch.from_numpy(frames)[None]

    def update_digest(self, digest: Any) -> None:
        """Update a hashlib object with fixations, geometry and images."""
        digest.update(repr(self.geometry).encode())
        update_digest(digest, "fixations", self.fixations)
        update_digest(digest, "images", self.images)


def read_responses(folder: Path, file: str, retina: str, excluded: Sequence[int]) -> dict[str, Any]:
    """Return the responses of one retina, as openretina's ``load_responses`` does, after checking the file.

    Returns
    -------
    dict
        ``train_responses`` (cells, frames, trials), ``test_responses`` (cells, frames), which are means of
        ``test_responses_by_trial`` (cells, frames, trials), ``cell_indices``: positions of the cells in the file.
        Spikes per frame.
    """
    path = folder / file
    content = read_plain_pickle(path)
    train, test = (array_of(content, name, path) for name in ("train_responses", "test_responses"))
    if train.ndim != 3 or min(train.shape) == 0:
        raise RecordingError(
            f"the train_responses of {path} have shape {train.shape}; (cells, frames, trials) is expected."
        )
    if test.ndim != 3 or len(test) != len(train) or min(test.shape) == 0:
        raise RecordingError(
            f"the test_responses of {path} have shape {test.shape}; ({len(train)} cells, frames, trials) is expected, "
            "because the train_responses are those of as many cells."
        )
    out_of_range = [cell for cell in excluded if cell >= len(train)]
    if out_of_range:
        raise RecordingError(
            f"excluded_cells of retina {retina!r} has {out_of_range[0]}, but {path} has {len(train)} cells, counted "
            "from 0."
        )
    if len(set(excluded)) == len(train):
        raise RecordingError(f"excluded_cells of retina {retina!r} leaves none of the {len(train)} cells of {path}.")
    for name, values in (("train_responses", train), ("test_responses", test)):
        _check_counts(name, values, path, retina, excluded)
    reading = openretina_module("data_io.sridhar_2025.responses")
    with undisturbed():
        return reading.load_responses(folder, {retina: file}, excluded_cells={retina: list(excluded)})[retina]


def _check_counts(name: str, values: np.ndarray, path: Path, retina: str, excluded: Sequence[int]) -> None:
    rows = values.reshape(len(values), -1)
    finite = np.isfinite(rows).all(axis=1)
    wrong = ~finite | (rows < 0).any(axis=1)
    wrong[list(excluded)] = False
    if wrong.any():
        cell = int(np.flatnonzero(wrong)[0])
        raise RecordingError(
            f"the {name} of {path} have {'negative' if finite[cell] else 'NaN or infinite'} values for cell {cell}; "
            f"they are spikes per frame. Leave the cell out with excluded_cells={{{retina!r}: [{cell}]}}."
        )


def read_fixations(path: Path, *, n_lines: int, n_images: int, geometry: Geometry) -> np.ndarray:
    """Return the fixations, one line per frame, as :class:`FixationMovie` takes them, checked.

    Parameters
    ----------
    path
        The text file.
    n_lines
        Number of frames.
    n_images
        Number of images.
    geometry
        How frames are cut out.
    """
    if not path.is_file():
        raise RecordingError(f"{path} does not exist. {SEE_SOURCE}")
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        with undisturbed():
            parsed = openretina_module("data_io.sridhar_2025.stimuli").process_fixations(lines)
        fixations = np.array(
            [[line["img_index"], line["center_x"], line["center_y"], line["flip"]] for line in parsed], dtype=np.int64
        ).reshape(-1, 4)
    except (ValueError, IndexError) as error:
        raise RecordingError(
            f"{path} has a line that is not a fixation ({error}): image, two numbers, x and y of the centre, and the "
            "flip (0 or 1) are expected, separated by single blanks."
        ) from None
    if len(fixations) < n_lines:
        raise RecordingError(
            f"{path} has {len(fixations)} lines, but test and training movie together have {n_lines} frames, one line "
            "each: do fixations and responses belong together?"
        )
    fixations = fixations[:n_lines]
    images = fixations[:, 0]
    if images.min() < 0 or images.max() >= n_images:
        line = int(np.flatnonzero((images < 0) | (images >= n_images))[0])
        raise RecordingError(
            f"line {line + 1} of {path} names image {images[line]}, but there are {n_images} images, counted from 0."
        )
    for axis, name in enumerate(("x", "y")):
        low = fixations[:, 1 + axis] + geometry.padding - geometry.window[axis] // 2
        outside = (low < 0) | (low + geometry.window[axis] > geometry.image[axis])
        if outside.any():
            line = int(np.flatnonzero(outside)[0])
            raise RecordingError(
                f"line {line + 1} of {path} has {name}={fixations[line, 1 + axis]}, whose window of "
                f"{geometry.window[axis]} pixels is not within the {geometry.image[axis]} of the images: check "
                "image_size, window_size and padding, and that fixations and images have one resolution."
            )
    return fixations


def read_images(folder: Path, marker: str, size: tuple[int, int]) -> np.ndarray:
    """Return all images of a folder whose name contains ``marker``, sorted by name: (n, width, height) float16, 0 to 1.

    Raises
    ------
    RecordingError
        If there are none, one cannot be read or has another size, or their values are not 0 to 255.
    """
    named = [path for path in folder.iterdir() if marker in path.name] if folder.is_dir() else []
    left = sorted(path.name for path in named if is_left_by_system(path.name))
    if left:  # openretina reads all files of the folder
        raise RecordingError(
            f"{folder} has {len(left)} file(s) that an operating system left next to the images, e.g. {left[0]}; "
            "openretina would read them as images. Remove them."
        )
    files = sorted(named)
    if not files:
        raise RecordingError(f"{folder} has no images (files with {marker!r} in their name). {SEE_SOURCE}")
    largest = 0.0
    for path in files:
        try:
            image = np.load(path, allow_pickle=False, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise RecordingError(f"{path} cannot be read ({error}). Get the file again.") from error
        if image.shape != size or image.dtype.kind not in "iuf":
            raise RecordingError(
                f"{path} is {image.dtype} of shape {image.shape}; numbers of shape {size} (width, height) are expected."
                " Check image_size: the dataset comes in two resolutions."
            )
        largest = max(largest, float(image.max()))
        if not 0 <= float(image.min()) <= largest <= 255:  # NaN fails, too
            raise RecordingError(f"{path} has values outside 0 to 255, or NaN; grey levels are expected.")
    if largest <= 1:
        raise RecordingError(
            f"no image of {folder} is brighter than {largest:g}; grey levels of 0 to 255 are expected."
        )
    with undisturbed():
        stimuli = openretina_module("data_io.sridhar_2025.stimuli")
        return stimuli.load_frames(folder, marker, full_img_w=size[0], full_img_h=size[1])


def split_trials(train_responses: np.ndarray, fraction: float, seed: int | None) -> Mapping[str, np.ndarray]:
    """Return the trials for training and validation, as openretina draws them."""
    utilities = openretina_module("data_io.sridhar_2025.dataloader_utils")
    with undisturbed():
        train, validation = utilities.get_trial_wise_validation_split(train_responses, fraction, seed=seed)
    return {"train": np.sort(train), "validation": np.sort(validation)}
