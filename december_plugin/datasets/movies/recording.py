"""A recording in the generic movie format: its arrays, left on disk, and their checks."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from december_plugin.datasets.common.arrays import channels_come_last, read_array
from december_plugin.datasets.common.copies import Recorded
from december_plugin.datasets.common.trials import TRAIN
from december_plugin.datasets.movies.header import MovieEntry, MovieHeader, Quantity, read_header
from december_plugin.embeddings.neuron_ids import repeated_ids, whole_numbers
from december_plugin.errors import RecordingError

BLOCK = 2**18  # values at a time, which fit into a processor's cache and are summed six times as fast


@dataclass(frozen=True, eq=False)
class RecordedMovie:
    """One movie and the responses to it, not in memory and without open files.

    Attributes
    ----------
    name
        Name in the header.
    entry
        Its files.
    n_frames, n_repeats
        Number of frames, and how often the movie was shown.
    """

    name: str
    entry: MovieEntry
    n_frames: int
    n_repeats: int

    # An open map needs a file descriptor, and a recording may have thousands of movies: they are opened for each use.
    def stimulus(self) -> np.ndarray:
        """Return (frames, channels, height, width), memory-mapped, in the file's dtype."""
        array = read_array(self.entry.stimulus, mapped=True)
        return array[:, None] if array.ndim == 3 else array

    def responses(self) -> np.ndarray:
        """Return (repeats, frames, n), memory-mapped, in the file's dtype."""
        array = read_array(self.entry.responses, mapped=True)
        return array[None] if self.entry.repeats is None else array

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of stimulus and responses."""
        digest = hashlib.sha256()
        for array in (self.stimulus(), self.responses()):
            digest.update(f"{array.dtype.str} {array.shape};".encode())
            for block in _blocks(array):
                digest.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        return digest.digest()


class MovieRecording:
    """A recording on disk. Opening it checks the header, the arrays' shapes and every value.

    Values are checked block by block, so that memory is bounded, however long the movies are.

    Parameters
    ----------
    folder
        The folder with ``recording.yaml``.

    Attributes
    ----------
    path : pathlib.Path
        The folder.
    header : MovieHeader
        The content of the header.
    unit_ids : numpy.ndarray
        (n,) int64, unique within the session.
    movies : dict
        Name to :class:`RecordedMovie`.
    shape : tuple
        (channels, height, width) of a frame.

    Raises
    ------
    RecordingError
        If something is missing, damaged, inconsistent, NaN, infinite or out of range.
    """

    def __init__(self, folder: Path):
        self.path = folder
        self.header: MovieHeader = read_header(folder)
        self.unit_ids = self._checked_unit_ids()
        self.movies = {name: self._open(name, entry) for name, entry in self.header.movies.items()}
        first = next(iter(self.movies.values()))
        self.shape: tuple[int, int, int] = first.stimulus().shape[1:]
        for movie in self.movies.values():
            stimulus = movie.stimulus()
            if stimulus.shape[1:] != self.shape:
                raise RecordingError(
                    f"{movie.entry.stimulus} has frames of (channels, height, width) {stimulus.shape[1:]}, but those "
                    f"of the movie {first.name!r} have {self.shape}. All movies of a recording need the same."
                )
            _check_values(movie.entry.stimulus, stimulus[None], self.header.stimulus, "stimulus")
            _check_values(movie.entry.responses, movie.responses(), self.header.responses, "responses")

    @property
    def data_key(self) -> str:
        """The session's name."""
        return self.header.data_key

    def of_tier(self, tier: str) -> list[RecordedMovie]:
        """Return the movies of a tier."""
        return [self.movies[name] for name in self.header.tiers[tier]]

    def recorded(self, neurons: np.ndarray) -> Recorded:
        """Return the responses of these neurons (positions), movie by movie and block by block."""

        def responses() -> Iterator[np.ndarray]:
            for movie in self.movies.values():
                for repeat in movie.responses():
                    for block in _blocks(repeat):
                        yield np.take(block, neurons, axis=1)

        return Recorded(str(self.path), responses)

    def stimulus_statistics(self) -> tuple[float, float]:
        """Return mean and standard deviation of all values of the training movies.

        Raises
        ------
        RecordingError
            If all values are equal.
        """
        count, total, squares = 0, 0.0, 0.0
        origin: float | None = None
        for movie in self.of_tier(TRAIN):
            for block in _blocks(movie.stimulus()):
                values = block.astype(np.float64).ravel()
                origin = float(values.mean()) if origin is None else origin
                values -= origin  # against cancellation if the mean is much larger than the deviation
                count, total, squares = (
                    count + values.size,
                    total + float(values.sum()),
                    squares + float(values @ values),
                )
        offset = total / count
        mean, std = (origin or 0.0) + offset, float(np.sqrt(max(squares / count - offset**2, 0.0)))
        if not std > 1e-6 * abs(mean):
            raise RecordingError(
                f"{self.path}: all values of the training movies are {mean:g}, so the stimulus cannot be normalised. "
                "Check the files, or pass normalize=False."
            )
        return float(mean), std

    def mean_responses(self) -> np.ndarray:
        """Return the mean response of each neuron over frames and repeats of the training movies, (n,) float32."""
        count, total = 0, np.zeros(len(self.unit_ids))
        for movie in self.of_tier(TRAIN):
            for repeat in movie.responses():
                for block in _blocks(repeat):
                    count, total = count + len(block), total + block.sum(axis=0, dtype=np.float64)
        return (total / count).astype(np.float32)

    def _open(self, name: str, entry: MovieEntry) -> RecordedMovie:
        stimulus = read_array(entry.stimulus, mapped=True)
        responses = read_array(entry.responses, mapped=True)
        for file, array in ((entry.stimulus, stimulus), (entry.responses, responses)):
            if array.dtype.kind not in "iufb":
                raise RecordingError(f"{file} has values of dtype {array.dtype}; numbers are expected.")
        if stimulus.ndim not in (3, 4) or 0 in stimulus.shape:
            raise RecordingError(
                f"{entry.stimulus} has shape {stimulus.shape}; (frames, height, width) or (frames, channels, height, "
                "width) is expected."
            )
        if stimulus.ndim == 4 and channels_come_last(stimulus.shape):
            raise RecordingError(
                f"{entry.stimulus} has shape {stimulus.shape}, which looks like (frames, height, width, channels); "
                "(frames, channels, height, width) is expected. Move the channels, e.g. with "
                "numpy.moveaxis(movie, -1, 1)."
            )
        n_frames, n_neurons = len(stimulus), len(self.unit_ids)
        expected = (n_frames, n_neurons) if entry.repeats is None else (entry.repeats, n_frames, n_neurons)
        if responses.shape != expected:
            axes = "(frames, neurons)" if entry.repeats is None else "(repeats, frames, neurons)"
            hint = ""
            if responses.ndim == 3 and entry.repeats is None:
                hint = f" For responses by repeat, add repeats: {len(responses)} to the movie in the header."
            raise RecordingError(
                f"{entry.responses} has shape {responses.shape}; {axes} of the movie {name!r} is {expected}: "
                f"{entry.stimulus.name} has {n_frames} frames and unit_ids names {n_neurons} neurons.{hint}"
            )
        return RecordedMovie(name, entry, n_frames, entry.repeats or 1)

    def _checked_unit_ids(self) -> np.ndarray:
        given = self.header.unit_ids
        where: Any = self.header.path if isinstance(given, tuple) else given
        unit_ids = np.array(given) if isinstance(given, tuple) else read_array(given)
        whole = whole_numbers(unit_ids)
        if unit_ids.ndim != 1 or not len(unit_ids) or whole is None:
            raise RecordingError(
                f"{where}: unit_ids have shape {unit_ids.shape} and dtype {unit_ids.dtype}; one whole number for each "
                "neuron is expected."
            )
        repeated = repeated_ids(unit_ids)
        if len(repeated):
            raise RecordingError(
                f"{where}: {len(repeated)} unit id(s) are named more than once, e.g. "
                f"{int(repeated[0])}. A unit id identifies a neuron within its session: make them unique."
            )
        return whole


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Cut an array along its first axis."""
    step = max(1, BLOCK // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), step):
        yield array[start : start + step]


def _check_values(file: Path, repeats: np.ndarray, quantity: Quantity, what: str) -> None:
    """Raise a RecordingError if a value of (repeats, frames, ...) is NaN, infinite, or out of the header's range."""
    for part in repeats:
        frame = 0
        for block in _blocks(part):
            finite = np.isfinite(block) if block.dtype.kind == "f" else np.True_
            if not finite.all():
                bad = frame + int(np.argmin(np.asarray(finite).reshape(len(block), -1).all(axis=1)))
                raise RecordingError(
                    f"{file} has NaN or infinite values, first in frame {bad}. Remove these movies or neurons from "
                    "the recording."
                )
            low, high = float(block.min()), float(block.max())
            below = quantity.minimum is not None and low < quantity.minimum
            if below or (quantity.maximum is not None and high > quantity.maximum):
                raise RecordingError(
                    f"{file} has the value {low if below else high:g}, but the header says that {what} "
                    f"({quantity.unit}) are {quantity}. Correct the file or its unit and range in the header."
                )
            frame += len(block)
