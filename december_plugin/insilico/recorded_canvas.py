"""The canvas of a recording: grey, contrast and behaviour of the stimuli on which a model was trained.

Pixels may be z-scored or not, there may be channels of behaviour next to the image, and clips may have any length: all
of that is read from some stimuli of the training tier, so that maximally exciting images of all recordings have
comparable contrasts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from december_plugin.embeddings.stimuli import loaders_of_a_tier, sampled_stimuli
from december_plugin.errors import StimulusError
from december_plugin.insilico.canvas import MOST_FRAMES, Canvas
from december_plugin.insilico.responses import frames_seen

N_STIMULI = 200  # of all sessions together
FEWEST_STIMULI = 10  # of a session
FLAT = 1e-6  # of the largest value: a channel of behaviour varies over pixels by no more than this, from rounding
MOVIE_DIMENSIONS = 5


class RecordedCanvas(NamedTuple):
    """The images that are allowed, and their norm.

    Attributes
    ----------
    canvas
        With the mean pixel of the recording as grey, and the mean behaviour; for movies, with as many frames as the
        model needs for one prediction.
    norm
        Half the norm of images whose pixels vary like those of the recording.
    """

    canvas: Canvas
    norm: float


def recorded_canvas(model: nn.Module, batches: Any, data_keys: Sequence[str], *, seed: int = 0) -> RecordedCanvas:
    """Return the canvas of the recording that a model was trained on.

    Parameters
    ----------
    model
        The model; a model of movies determines the number of frames.
    batches
        Data key to loader of one tier, or tier to data key to loader: then the training tier.
    data_keys
        Keys of the sessions.
    seed
        Seed of the sample of stimuli.

    Raises
    ------
    EmbeddingError
        If a session has no loader.
    StimulusError
        If sessions have stimuli of different shapes, all pixels of the sample are equal, or the model needs more than
        50 frames for one prediction.
    """
    sums: dict[str, _ChannelSums] = {}
    loaders: Mapping[str, Any] = loaders_of_a_tier(batches, list(data_keys))
    n_of_each = max(FEWEST_STIMULI, -(-N_STIMULI // len(loaders)))
    for index, (data_key, loader) in enumerate(loaders.items()):
        for inputs, _ in sampled_stimuli(loader, n_of_each, seed=(seed, index)):
            if data_key not in sums:
                sums[data_key] = _ChannelSums(tuple(inputs.shape[1:]))
            sums[data_key].add(inputs)
    shapes = {key: found.image_shape for key, found in sums.items()}
    if len(set(shapes.values())) != 1:
        named = ", ".join(f"{key!r} {' x '.join(map(str, shape))}" for key, shape in shapes.items())
        raise StimulusError(
            f"sessions have stimuli of different shapes ({named or 'there are none'}), so there is no canvas for all. "
            "Find exciting images of each session by maximally_exciting_images with its own canvas."
        )
    every = _ChannelSums.joined(list(sums.values()))
    n_images = every.n_image_channels
    grey, spread = every.pixels(n_images)
    if not spread > 0:
        raise StimulusError("all pixels of the recording's stimuli are equal; images of its contrast are empty.")
    channels, *size = shapes[data_keys[0]]
    given = {"grey": grey, "image_channels": n_images, "behavior": tuple(every.means[n_images:])}
    if every.is_movie:
        n_frames = max(frames_seen(model, key, (channels, MOST_FRAMES + 1, *size), grey, spread) for key in data_keys)
        if n_frames > MOST_FRAMES:
            raise StimulusError(
                f"{type(model).__name__} needs more than {MOST_FRAMES} frames for one prediction: maximally exciting "
                f"clips have at most {MOST_FRAMES}."
            )
        canvas = Canvas((channels, n_frames, *size), **given)  # type: ignore[arg-type]
    else:
        canvas = Canvas((channels, *size), **given)  # type: ignore[arg-type]
    return RecordedCanvas(canvas, 0.5 * spread * math.sqrt(math.prod(canvas.image_shape)))


class _ChannelSums:
    """Sums over stimuli of a session, channel by channel, and which channels are constant over each stimulus."""

    def __init__(self, shape: tuple[int, ...]):
        self.is_movie = len(shape) + 1 == MOVIE_DIMENSIONS
        self.image_shape = (shape[0], *shape[-2:])
        self.n_values = 0
        self.sums = torch.zeros(shape[0], dtype=torch.float64)
        self.squares = torch.zeros(shape[0], dtype=torch.float64)
        self.is_flat = torch.ones(shape[0], dtype=torch.bool)

    def add(self, inputs: Tensor) -> None:
        values = inputs.detach().cpu().double()
        values = values.transpose(1, 2).flatten(end_dim=1) if self.is_movie else values
        pixels = values.flatten(start_dim=2)  # (stimuli, channels, pixels)
        ranges = pixels.amax(dim=2) - pixels.amin(dim=2)
        self.is_flat &= (ranges <= FLAT * pixels.abs().amax(dim=2)).all(dim=0)
        self.n_values += len(pixels) * pixels.shape[2]
        self.sums += pixels.sum(dim=(0, 2))
        self.squares += pixels.square().sum(dim=(0, 2))

    @classmethod
    def joined(cls, parts: Sequence[_ChannelSums]) -> _ChannelSums:
        found = cls(parts[0].image_shape)
        found.is_movie = parts[0].is_movie
        found.n_values = sum(part.n_values for part in parts)
        found.sums = torch.stack([part.sums for part in parts]).sum(dim=0)
        found.squares = torch.stack([part.squares for part in parts]).sum(dim=0)
        found.is_flat = torch.stack([part.is_flat for part in parts]).all(dim=0)
        return found

    @property
    def means(self) -> list[float]:
        found: list[float] = (self.sums / self.n_values).tolist()
        return found

    @property
    def n_image_channels(self) -> int:
        """The channels, without the last ones that are constant over each stimulus, as behaviour is."""
        varying = torch.nonzero(~self.is_flat)[:, 0]
        return int(varying[-1]) + 1 if len(varying) else len(self.sums)

    def pixels(self, n_channels: int) -> tuple[float, float]:
        """Return mean and standard deviation of the pixels of the first channels."""
        n = self.n_values * n_channels
        mean = float(self.sums[:n_channels].sum()) / n
        variance = float(self.squares[:n_channels].sum()) / n - mean**2
        return mean, math.sqrt(max(variance, 0.0))
