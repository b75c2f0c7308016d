"""Stretches of a session's movie with the responses to them, and the loaders that serve them in batches."""

from __future__ import annotations

import functools
import hashlib
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler

from december_plugin.datasets.common.arrays import update_digest
from december_plugin.datasets.common.columns import Column
from december_plugin.datasets.common.trials import TRAIN, data_point, mean_over_trials

FIELDS = ("videos", "responses")


@dataclass(frozen=True, eq=False)
class RetinaNeurons:
    """Identities of a session's neurons, in the order of the responses.

    Attributes
    ----------
    unit_ids
        (n,) int64, unique within the session: with the data key, a neuron's identity.
    cell_types
        (n,) int64 group of each neuron in the recording; None if it has none.
    type_confidences
        (n,) float64 confidence of the group, 0 to 1; None if there is none.
    """

    unit_ids: np.ndarray
    cell_types: np.ndarray | None = None
    type_confidences: np.ndarray | None = None


class Movie(ABC):
    """The frames that a session's neurons saw, read stretch by stretch."""

    shape: tuple[int, int, int]  # (channels, height, width)
    n_frames: int

    @abstractmethod
    def stretch(self, start: int, stop: int) -> Tensor:
        """Return the frames ``start`` to ``stop``, (channels, stop - start, height, width) float32."""

    @abstractmethod
    def update_digest(self, digest: Any) -> None:
        """Update a hashlib object with everything that determines the frames."""


class MovieInMemory(Movie):
    """A movie in memory, (channels, frames, height, width) float32; sessions may share it."""

    def __init__(self, frames: Tensor):
        self.frames = frames
        self.n_frames = frames.shape[1]
        self.shape = (frames.shape[0], frames.shape[2], frames.shape[3])

    @functools.cached_property
    def rows(self) -> Tensor:
        """The frames one after the other, (frames, channels, height, width); the same memory."""
        return self.frames.movedim(1, 0)

    def stretch(self, start: int, stop: int) -> Tensor:
        """Return a view."""
        return self.frames[:, start:stop]

    def update_digest(self, digest: Any) -> None:
        """Update a hashlib object with the frames."""
        update_digest(digest, "movie", self.frames.numpy())


@dataclass(eq=False)
class ChunkedMovie(Dataset):
    """One tier of one session: ``dataset[start]`` is the stretch that begins with frame ``start``.

    Attributes
    ----------
    data_key
        The session's name.
    movie
        The movie that was shown.
    responses
        (frames of the movie, n) float32, in ``response_unit`` per frame.
    chunk
        Length of a stretch in frames.
    starts
        First frames of the stretches of this tier, (stretches,) int64.
    frame_rate
        Rate of movie and responses (Hz).
    neurons
        Identities of the neurons.
    response_unit
        Unit of the responses, in words.
    mean_responses
        (n,) float32 over the training tier, in every tier.
    jitter
        In training, every stretch is moved by 0 to ``jitter - 1`` frames; see :class:`ShuffledStretches`.
    responses_by_repeat
        (repeats, frames, n) float32 if ``responses`` is their mean; None otherwise.
    """

    data_key: str
    movie: Movie
    responses: Tensor
    chunk: int
    starts: np.ndarray
    frame_rate: float
    neurons: RetinaNeurons
    response_unit: str
    mean_responses: np.ndarray
    jitter: int = 1
    responses_by_repeat: Tensor | None = None
    _fingerprint: str | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, start: int) -> Any:
        start = operator.index(start)
        if not 0 <= start <= self.movie.n_frames - self.chunk:
            raise IndexError(f"no {self.chunk} frames of {self.movie.n_frames} begin with frame {start}")
        stop = start + self.chunk
        return data_point(FIELDS)(self.movie.stretch(start, stop), self.responses[start:stop])

    def columns(self) -> dict[str, Column] | None:
        """Return the fields of a batch by name; None if the movie is not in memory as a whole."""
        if not isinstance(self.movie, MovieInMemory):
            return None
        videos = Column(self.movie.rows, length=self.chunk, channels_first=True)
        return dict(zip(FIELDS, (videos, Column(self.responses, length=self.chunk)), strict=True))

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return self.responses.shape[1]

    @property
    def unit_ids(self) -> np.ndarray:
        """(n,) int64 unit ids, in the order of the responses."""
        return self.neurons.unit_ids

    def data_info(self) -> dict[str, Any]:
        """Return nnfabrik's ``data_info`` of this session, with the entries that movies add.

        Returns
        -------
        dict
            ``input_dimensions`` [1, channels, frames, height, width], ``input_channels``, ``output_dimension``
            (neurons), ``mean_responses`` (n,) float32 over the training tier, ``unit_ids`` (n,) int64, ``frame_rate``
            (Hz), ``response_unit``; ``img_mean`` and ``img_std`` are None: movies are served as recorded.
        """
        channels, height, width = self.movie.shape
        return {
            "input_dimensions": [1, channels, self.chunk, height, width],
            "input_channels": channels,
            "output_dimension": self.n_neurons,
            "img_mean": None,
            "img_std": None,
            "mean_responses": self.mean_responses,
            "unit_ids": self.unit_ids,
            "frame_rate": self.frame_rate,
            "response_unit": self.response_unit,
        }

    def fingerprint(self) -> str:
        """Return a SHA-256 (hex) over everything that is served: movie, responses, stretches and unit ids."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            self.movie.update_digest(digest)
            update_digest(digest, "responses", self.responses.numpy())
            update_digest(digest, "starts", self.starts)
            update_digest(digest, "unit_ids", self.unit_ids)
            digest.update(f"{self.chunk} {self.jitter} {self.frame_rate}".encode())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


class ShuffledStretches(Sampler[int]):
    """The stretches of a training tier in random order, each moved by a random number of frames.

    All random numbers come from torch's global generator, so that ``torch.manual_seed`` fixes them.

    Parameters
    ----------
    starts
        First frames of the stretches.
    jitter
        Every start moves by 0 to ``jitter - 1`` frames, drawn in every epoch; 1 does not move it.
    last_start
        The last frame with which a stretch may begin.
    """

    def __init__(self, starts: Sequence[int] | np.ndarray, *, jitter: int, last_start: int):
        self.starts = torch.as_tensor(np.asarray(starts, dtype=np.int64))
        self.jitter = jitter
        self.last_start = last_start

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[int]:
        moved = self.starts
        if self.jitter > 1:
            moved = (moved + torch.randint(self.jitter, moved.shape)).clamp_max(self.last_start)
        return iter(moved[torch.randperm(len(moved))].tolist())


class OrderedStretches(SequentialSampler):
    """The stretches of a tier one after the other."""

    data_source: ChunkedMovie

    def __iter__(self) -> Iterator[int]:
        return iter(self.data_source.starts.tolist())


def stack_stretches(stretches: Sequence[Any]) -> Any:
    """Return the batch of some stretches: ``videos`` (batch, channels, frames, height, width) and ``responses``."""
    return data_point(FIELDS)(*(torch.stack(values) for values in zip(*stretches, strict=True)))


def chunk_loader(dataset: ChunkedMovie, tier: str, *, batch_size: int) -> DataLoader:
    """Return a torch ``DataLoader`` over one tier, shuffled if it is the training tier; see ShuffledStretches."""
    sampler: Sampler = OrderedStretches(dataset)
    if tier == TRAIN:
        last = dataset.movie.n_frames - dataset.chunk
        sampler = ShuffledStretches(dataset.starts, jitter=dataset.jitter, last_start=last)
    return DataLoader(dataset, sampler=sampler, batch_size=batch_size, collate_fn=stack_stretches)


def mean_over_frames(responses: Tensor) -> np.ndarray:
    """Return the mean of responses (frames, n) over the frames, (n,) float32."""
    return mean_over_trials(responses.numpy())
