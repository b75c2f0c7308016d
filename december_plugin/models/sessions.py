"""Shapes and statistics of sessions that model functions need, from loaders or from a stored description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from december_plugin.datasets.common.arrays import channels_come_last
from december_plugin.datasets.common.trials import mean_over_trials
from december_plugin.errors import MisfitError, SettingsError

TRAIN = "train"
MOVIE_DIMENSIONS = 5  # (batch, channels, frames, height, width)


@dataclass(frozen=True)
class SessionShape:
    """Shapes and statistics of one session.

    Attributes
    ----------
    image_shape
        (channels, height, width) of the model's input.
    n_neurons
        Number of neurons.
    mean_responses
        (neurons,) float32, over the training tier; None if unknown.
    coordinates
        (neurons, 2 or 3) cortical positions; None if unknown.
    pupil_channels
        Length of the pupil position; None if it is not served.
    frames
        Number of frames of a clip of the training tier, for movies; None for images.
    """

    image_shape: tuple[int, int, int]
    n_neurons: int
    mean_responses: np.ndarray | None
    coordinates: np.ndarray | None
    pupil_channels: int | None
    frames: int | None = None


def sessions_of(dataloaders: Mapping[str, Any] | None, data_info: Mapping[str, Any] | None) -> dict[str, SessionShape]:
    """Describe every session, from ``data_info`` if it is given and from the training loaders otherwise.

    Parameters
    ----------
    dataloaders
        Tier name to data key to loader, or data key to loader. Loaders of other packages work if a batch is a named
        tuple or dict whose first two entries are images and responses.
    data_info
        nnfabrik's description: data key to a dict with ``input_dimensions`` [batch, channels, height, width], or
        [batch, channels, frames, height, width] for movies, and ``output_dimension``; the other entries of
        :meth:`december_plugin.datasets.sensorium.session.Session.info` if known.

    Raises
    ------
    SettingsError
        If both are missing or empty.
    """
    if data_info:
        return {data_key: _from_info(info) for data_key, info in data_info.items()}
    loaders = dataloaders.get(TRAIN, dataloaders) if dataloaders else None
    if not loaders:
        raise SettingsError("A model needs dataloaders or data_info to know its sessions; both are missing or empty.")
    # Reading a shuffled loader draws random numbers: the global state is restored, and sums have a fixed order.
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        return {data_key: _from_loader(loader) for data_key, loader in loaders.items()}


def _from_info(info: Mapping[str, Any]) -> SessionShape:
    image_shape, frames = _input_shape(info["input_dimensions"])
    return SessionShape(
        image_shape=image_shape,
        n_neurons=int(np.ravel(info["output_dimension"])[-1]),
        mean_responses=info.get("mean_responses"),
        coordinates=info.get("cell_motor_coordinates"),
        pupil_channels=info.get("pupil_channels"),
        frames=frames,
    )


def _input_shape(dimensions: Sequence[int]) -> tuple[tuple[int, int, int], int | None]:
    """Return (channels, height, width) and the number of frames, None for images."""
    *_, channels, height, width = (int(size) for size in dimensions)
    if len(dimensions) < MOVIE_DIMENSIONS:
        return (channels, height, width), None
    return (int(dimensions[-4]), height, width), channels


def _from_loader(loader: Any) -> SessionShape:
    dataset = getattr(loader, "dataset", None)
    if callable(getattr(dataset, "data_info", None)):
        return _from_info(dataset.data_info())  # type: ignore[union-attr]
    batches = (batch if isinstance(batch, Mapping) else batch._asdict() for batch in loader)
    first = next(batches)
    image_name, response_name = list(first)[:2]
    responses = [first[response_name], *(batch[response_name] for batch in batches)]
    image_shape, frames = _input_shape(first[image_name].shape)
    if frames is not None:
        responses = [values.flatten(0, 1) for values in responses]
    pupil = first.get("pupil_center")
    coordinates = getattr(getattr(dataset, "neurons", None), "cell_motor_coordinates", None)
    return SessionShape(
        image_shape=image_shape,
        n_neurons=responses[0].shape[1],
        mean_responses=mean_over_trials(torch.cat(responses).cpu().numpy()),
        coordinates=coordinates,
        pupil_channels=None if pupil is None else pupil.shape[1],
        frames=frames,
    )


def check_images(sessions: Mapping[str, SessionShape]) -> None:
    """Raise a :class:`SettingsError` if a session has movies."""
    for data_key, session in sessions.items():
        if session.frames is not None:
            raise MisfitError(
                f"session {data_key!r} has movies of {session.frames} frames, but this model is for images. Use "
                "movie_core_gaussian_readout for movies."
            )


def check_movies(sessions: Mapping[str, SessionShape]) -> None:
    """Raise a :class:`SettingsError` if a session has images."""
    for data_key, session in sessions.items():
        if session.frames is None:
            raise MisfitError(
                f"session {data_key!r} has images, {' x '.join(map(str, session.image_shape))}, but this model is for "
                "movies, (batch, channels, frames, height, width). Use stacked_core_gaussian_readout for images."
            )


def shared_channels(sessions: Mapping[str, SessionShape], what: str = "images") -> int:
    """Return the number of input channels that all sessions share.

    Raises
    ------
    SettingsError
        If they differ, or if a session's stimuli look as if their channels came last.
    """
    for data_key, session in sessions.items():
        if channels_come_last(session.image_shape):
            raise MisfitError(
                f"session {data_key!r} serves {what} of shape {session.image_shape}, which looks like (height, width, "
                "channels); (channels, height, width) is expected. Let its loader move the channels to the front."
            )
    channels = {data_key: session.image_shape[0] for data_key, session in sessions.items()}
    if len(set(channels.values())) > 1:
        raise MisfitError(
            f"The sessions' {what} have different numbers of channels ({listed(channels)}), but they share a core. "
            "Load them with the same behaviour and channel settings."
        )
    return next(iter(channels.values()))


def listed(values: Mapping[str, Any]) -> str:
    """Return values by session in words, for messages."""
    return ", ".join(f"{data_key}: {value}" for data_key, value in values.items())
