"""What a model function must know about the sessions it is built for, from loaders or from a stored description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from december_plugin.datasets.memory import InMemoryDataset, mean_over_trials
from december_plugin.errors import SettingsError

TRAIN = "train"


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
    """

    image_shape: tuple[int, int, int]
    n_neurons: int
    mean_responses: np.ndarray | None
    coordinates: np.ndarray | None
    pupil_channels: int | None


def sessions_of(dataloaders: Mapping[str, Any] | None, data_info: Mapping[str, Any] | None) -> dict[str, SessionShape]:
    """Describe every session, from ``data_info`` if it is given and from the training loaders otherwise.

    Parameters
    ----------
    dataloaders
        Tier name to data key to loader, or data key to loader. Loaders of other packages work if a batch is a named
        tuple or dict whose first two entries are images and responses.
    data_info
        nnfabrik's description: data key to a dict with ``input_dimensions`` [batch, channels, height, width] and
        ``output_dimension``; the other entries of :meth:`december_plugin.datasets.session.Session.info` if known.

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
    # Reading a shuffled loader draws random numbers: the global state is left alone, and sums have a fixed order.
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        return {data_key: _from_loader(loader) for data_key, loader in loaders.items()}


def _from_info(info: Mapping[str, Any]) -> SessionShape:
    channels, height, width = (int(size) for size in info["input_dimensions"][-3:])
    return SessionShape(
        image_shape=(channels, height, width),
        n_neurons=int(np.ravel(info["output_dimension"])[-1]),
        mean_responses=info.get("mean_responses"),
        coordinates=info.get("cell_motor_coordinates"),
        pupil_channels=info.get("pupil_channels"),
    )


def _from_loader(loader: Any) -> SessionShape:
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, InMemoryDataset):
        return _from_info(dataset.data_info())
    batches = (batch if isinstance(batch, Mapping) else batch._asdict() for batch in loader)
    first = next(batches)
    image_name, response_name = list(first)[:2]
    responses = [first[response_name], *(batch[response_name] for batch in batches)]
    channels, height, width = first[image_name].shape[-3:]
    pupil = first.get("pupil_center")
    coordinates = getattr(getattr(dataset, "neurons", None), "cell_motor_coordinates", None)
    return SessionShape(
        image_shape=(channels, height, width),
        n_neurons=responses[0].shape[1],
        mean_responses=mean_over_trials(torch.cat(responses).cpu().numpy()),
        coordinates=coordinates,
        pupil_channels=None if pupil is None else pupil.shape[1],
    )
