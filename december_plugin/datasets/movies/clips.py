"""Clips of movies on disk, and the loaders that serve them."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler

from december_plugin.datasets.common.arrays import update_digest
from december_plugin.datasets.common.chunks import FIELDS, stack_stretches
from december_plugin.datasets.common.trials import TRAIN, data_point
from december_plugin.datasets.movies.recording import MovieRecording, RecordedMovie


@dataclass(frozen=True)
class Cutting:
    """How movies are cut: ``chunk`` frames for training, else ``lead + evaluation`` frames or whole movies (None)."""

    chunk: int
    evaluation: int | None
    lead: int


@dataclass(frozen=True, eq=False)
class Served:
    """The part of a recording that is served, in all its tiers.

    Attributes
    ----------
    recording
        The recording.
    neurons
        Positions of the neurons to keep, in this order.
    statistics
        Mean to subtract from the stimulus, and standard deviation to divide by; None leaves it unchanged.
    mean_responses
        (n,) float32 over the training tier.
    """

    recording: MovieRecording
    neurons: np.ndarray
    statistics: tuple[float, float] | None
    mean_responses: np.ndarray


class MovieClips(Dataset):
    """One tier of one session.

    ``dataset[i]`` is the i-th clip, cut at regular places; ``dataset[take, frame]`` the clip that begins with this
    frame of this take, with which :class:`DrawnClips` draws other training clips in every epoch. A take is one showing
    of a movie: each repeat of a movie is a separate take.

    Attributes
    ----------
    data_key
        The session's name.
    tier
        Name of the tier.
    frame_rate
        Frames per second (Hz).
    neurons
        ``neurons.unit_ids`` (n,).
    takes
        The movie and the repeat of each take.
    trial_info
        For each item: ``movie_id`` (equal if the same frames are shown), ``movie`` (its name), ``repeat``,
        ``start_frame`` and ``n_frames``, each (items,).
    """

    def __init__(self, served: Served, tier: str, cutting: Cutting):
        self.served = served
        self.tier = tier
        self.cutting = cutting
        self.neurons = SimpleNamespace(unit_ids=served.recording.unit_ids[served.neurons])
        self.takes: list[tuple[RecordedMovie, int]] = [
            (movie, repeat) for movie in served.recording.of_tier(tier) for repeat in range(movie.n_repeats)
        ]
        cuts = [(take, *cut) for take, (movie, _) in enumerate(self.takes) for cut in self._cuts(movie.n_frames)]
        self._take, self._start, self._length = np.array(cuts, dtype=np.int64).T
        names = np.array([movie.name for movie, _ in self.takes])
        pairs = np.stack([np.unique(names, return_inverse=True)[1][self._take], self._start], axis=1)
        self.trial_info = SimpleNamespace(
            movie_id=np.unique(pairs, axis=0, return_inverse=True)[1].ravel().astype(np.int64),
            movie=names[self._take],
            repeat=np.array([repeat for _, repeat in self.takes], dtype=np.int64)[self._take],
            start_frame=self._start,
            n_frames=self._length,
        )
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self._start)

    def __getitem__(self, item: int | tuple[int, int]) -> Any:
        if isinstance(item, tuple):
            return self._clip(*item, self.cutting.chunk)
        number = range(len(self))[operator.index(item)]
        return self._clip(int(self._take[number]), int(self._start[number]), int(self._length[number]))

    @property
    def data_key(self) -> str:
        """The session's name."""
        return self.served.recording.data_key

    @property
    def frame_rate(self) -> float:
        """In Hz, of movies and responses."""
        return self.served.recording.header.frame_rate

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return len(self.served.neurons)

    @property
    def unit_ids(self) -> np.ndarray:
        """(n,) int64 unit ids, in the order of the responses."""
        return self.neurons.unit_ids

    @property
    def lengths(self) -> np.ndarray:
        """(items,) frames of each item."""
        return self._length

    def data_info(self) -> dict[str, Any]:
        """Return nnfabrik's ``data_info`` of this session.

        Returns
        -------
        dict
            ``input_dimensions`` [1, channels, frames of a training clip, height, width], ``input_channels``,
            ``output_dimension`` (neurons), ``img_mean``, ``img_std`` (None if movies are not normalised),
            ``mean_responses`` (n,) float32 over the training tier, ``unit_ids`` (n,) int64, ``frame_rate`` (Hz),
            ``response_unit``.
        """
        channels, height, width = self.served.recording.shape
        mean, std = self.served.statistics or (None, None)
        return {
            "input_dimensions": [1, channels, self.cutting.chunk, height, width],
            "input_channels": channels,
            "output_dimension": self.n_neurons,
            "img_mean": mean,
            "img_std": std,
            "mean_responses": self.served.mean_responses,
            "unit_ids": self.unit_ids,
            "frame_rate": self.frame_rate,
            "response_unit": self.served.recording.header.responses.unit,
        }

    def fingerprint(self) -> str:
        """Return a SHA-256 (hex) over everything that is served: movies, responses, neurons, and how they are cut."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for movie, repeat in self.takes:
                digest.update(movie.digest + str(repeat).encode())
            digest.update(repr((self.tier, self.cutting, self.served.statistics, self.frame_rate)).encode())
            update_digest(digest, "unit_ids", self.unit_ids)
            update_digest(digest, "neurons", self.served.neurons.astype(np.int64))
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _cuts(self, n_frames: int) -> list[tuple[int, int]]:
        """Return first frame and length of each clip of a movie."""
        step, lead = self.cutting.chunk, 0
        if self.tier != TRAIN:
            if self.cutting.evaluation is None:
                return [(0, n_frames)]
            step, lead = self.cutting.evaluation, self.cutting.lead
        return [(start, lead + step) for start in range(0, n_frames - lead - step + 1, step)]

    def _clip(self, take: int, start: int, length: int) -> Any:
        movie, repeat = self.takes[take]
        stop = start + length
        if not 0 <= start < stop <= movie.n_frames:
            raise IndexError(f"frames {start} to {stop} are not all in the movie {movie.name!r} of {movie.n_frames}")
        frames = movie.stimulus()[start:stop].astype(np.float32)
        if self.served.statistics is not None:
            mean, std = self.served.statistics
            frames -= np.float32(mean)
            frames /= np.float32(std)
        responses = np.take(movie.responses()[repeat, start:stop], self.served.neurons, axis=1).astype(np.float32)
        videos = torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, 0, 1)))
        return data_point(FIELDS)(videos, torch.from_numpy(responses))


class DrawnClips(Sampler[tuple[int, int]]):
    """The training clips of an epoch in random order, each beginning with a random frame of its part of the movie.

    A movie of F frames gives ``n = F // chunk`` clips. Its ``F - chunk + 1`` possible first frames are cut into n equal
    parts, and one is drawn from each, so that an epoch covers the movie evenly. All random numbers come from torch's
    global generator: ``torch.manual_seed`` fixes them.

    Parameters
    ----------
    n_frames
        Frames of each take.
    chunk
        Frames of a clip.
    """

    def __init__(self, n_frames: Sequence[int], chunk: int):
        takes, firsts, widths, lasts = [], [], [], []
        for take, frames in enumerate(n_frames):
            count = frames // chunk
            width = (frames - chunk + 1) / count
            takes += [take] * count
            firsts += [number * width for number in range(count)]
            widths += [width] * count
            lasts += [frames - chunk] * count
        self._takes = torch.tensor(takes)
        self._firsts = torch.tensor(firsts, dtype=torch.float64)
        self._widths = torch.tensor(widths, dtype=torch.float64)
        self._lasts = torch.tensor(lasts)

    def __len__(self) -> int:
        return len(self._takes)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        drawn = torch.rand(len(self), dtype=torch.float64)
        starts = torch.minimum((self._firsts + drawn * self._widths).long(), self._lasts)  # against rounding up
        order = torch.randperm(len(self))
        return iter(list(zip(self._takes[order].tolist(), starts[order].tolist(), strict=True)))


def movie_loader(dataset: MovieClips, *, batch_size: int) -> DataLoader:
    """Return a torch ``DataLoader`` over a tier: drawn clips in training, otherwise all items in order.

    A batch of validation or test has about as many frames as one of training; items of different lengths come alone.
    """
    sampler: Sampler = SequentialSampler(dataset)
    size = batch_size
    if dataset.tier == TRAIN:
        sampler = DrawnClips([movie.n_frames for movie, _ in dataset.takes], dataset.cutting.chunk)
    else:
        longest = int(dataset.lengths.max())
        equal = longest == int(dataset.lengths.min())
        size = max(1, min(batch_size, batch_size * dataset.cutting.chunk // longest)) if equal else 1
    return DataLoader(dataset, sampler=sampler, batch_size=size, collate_fn=stack_stretches)
