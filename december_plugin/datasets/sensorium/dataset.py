"""A session held in memory, as its loaders serve it."""

from __future__ import annotations

import functools
import hashlib
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from december_plugin.datasets.common.arrays import ArrayFolder, update_digest
from december_plugin.datasets.common.columns import Column
from december_plugin.datasets.common.trials import TRAIN, TrialSequence, data_point, mean_over_trials
from december_plugin.datasets.sensorium.layout import RecordingFolder


class InMemoryDataset(Dataset):
    """All trials of one session, read and transformed once, as float32 tensors.

    For models, trainers and evaluations it behaves like neuralpredictors' ``FileTreeDataset``: ``dataset[i]`` is a
    named tuple of one trial; ``neurons``, ``trial_info`` and ``statistics`` contain the recording's meta data,
    restricted to the selected neurons. The tensors are shared by the loaders of all tiers; do not write into them.

    Parameters
    ----------
    recording
        Where the trials came from.
    values
        Item name to tensor with one row for each trial: images (trials, channels, height, width), responses
        (trials, neurons), and, if asked for, behavior (trials, variables), pupil_center (trials, 2). float32,
        contiguous.
    neurons
        (selected neurons,) positions of the selected neurons in the recording.
    tiers
        Tier name to the positions of its trials.
    """

    def __init__(
        self,
        recording: RecordingFolder,
        values: Mapping[str, Tensor],
        *,
        neurons: np.ndarray,
        tiers: Mapping[str, np.ndarray],
        image_statistics: tuple[Any, Any] = (None, None),
    ):
        self.image_statistics = image_statistics
        self.recording = recording
        self.values = dict(values)
        self.data_keys = tuple(values)
        self.neuron_positions = neurons
        self.tiers = dict(tiers)
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return self.recording.n_trials

    def __getitem__(self, trial: int) -> Any:
        trial = range(len(self))[operator.index(trial)]
        return data_point(self.data_keys)(*(values[trial] for values in self.values.values()))

    def __getitems__(self, trials: Sequence[int]) -> TrialSequence:
        return TrialSequence(self, trials)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.data_key!r}: {len(self)} trials, {self.n_neurons} neurons, images "
            f"{' x '.join(map(str, self.img_shape[1:]))}; {', '.join(self.data_keys)})"
        )

    def batch(self, trials: Sequence[int]) -> Any:
        """Return several trials as one named tuple of tensors whose first axis is the trial."""
        index = torch.as_tensor(np.asarray(trials, dtype=np.int64))
        return data_point(self.data_keys)(*(values.index_select(0, index) for values in self.values.values()))

    def columns(self) -> dict[str, Column]:
        """Return the fields of :meth:`batch` by name."""
        return {name: Column(values) for name, values in self.values.items()}

    @property
    def data_key(self) -> str:
        """The session's name."""
        return self.recording.data_key

    @property
    def n_neurons(self) -> int:
        """Number of selected neurons."""
        return len(self.neuron_positions)

    @property
    def img_shape(self) -> tuple[int, ...]:
        """(1, channels, height, width) of the model's input."""
        return (1, *self.values["images"].shape[1:])

    @functools.cached_property
    def neurons(self) -> ArrayFolder:
        """What ``meta/neurons`` says about the selected neurons, e.g. ``neurons.unit_ids``."""
        return self.recording.neurons.restricted_to(self.neuron_positions)

    @property
    def unit_ids(self) -> np.ndarray:
        """(neurons,) int64 unit ids of the selected neurons, in the order of the responses."""
        return self.recording.unit_ids[self.neuron_positions]

    @property
    def trial_info(self) -> ArrayFolder:
        """What ``meta/trials`` says about all trials, e.g. ``trial_info.tiers``."""
        return self.recording.trials

    @property
    def image_ids(self) -> np.ndarray | None:
        """(trials,) id of the image shown, None if the recording does not say; equal ids are repeats."""
        return self.recording.image_ids

    @property
    def statistics(self) -> ArrayFolder:
        """The recording's statistics as stored, of all its neurons."""
        return self.recording.statistics

    def data_info(self) -> dict[str, Any]:
        """Return nnfabrik's ``data_info`` of this session, see :func:`describe_session`."""
        pupil = self.values["pupil_center"].shape[1] if "pupil_center" in self.values else None
        return describe_session(
            self.recording,
            self.neuron_positions,
            image_shape=self.img_shape[1:],
            image_statistics=self.image_statistics,
            mean_responses=self.mean_responses(),
            pupil_channels=pupil,
        )

    def mean_responses(self) -> np.ndarray:
        """Return the mean response of each neuron over the training tier, (neurons,) float32."""
        return mean_over_trials(self.values["responses"][torch.as_tensor(self.tiers[TRAIN])].numpy())

    def fingerprint(self) -> str:
        """Return a SHA-256 (hex) over everything that is served.

        It covers the transformed values of every item, the unit ids, the cortical positions and which trials belong
        to which tier, but not the batch size or the place of the recording. Equal fingerprints mean equal data for a
        model and a trainer. Computed once.
        """
        if self._fingerprint is None:
            digest = hashlib.sha256()
            coordinates = self.recording.coordinates
            parts: list[tuple[str, np.ndarray]] = [(name, values.numpy()) for name, values in self.values.items()]
            parts.append(("unit_ids", self.unit_ids))
            parts.extend((f"tier {tier}", self.tiers[tier].astype(np.int64)) for tier in sorted(self.tiers))
            if coordinates is not None:
                parts.append(("coordinates", coordinates[self.neuron_positions].astype(np.float64)))
            for name, array in parts:
                update_digest(digest, name, array)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


def describe_session(
    recording: RecordingFolder,
    neurons: np.ndarray,
    *,
    image_shape: Sequence[int],
    image_statistics: tuple[Any, Any],
    mean_responses: np.ndarray,
    pupil_channels: int | None,
) -> dict[str, Any]:
    """Return what a model must know about a session to be built without its data: nnfabrik's ``data_info`` of one key.

    Returns
    -------
    dict
        nnfabrik's entries: ``input_dimensions`` [1, channels, height, width], ``input_channels``,
        ``output_dimension`` (neurons), ``img_mean``, ``img_std`` (None if images are not normalised). Ours:
        ``mean_responses`` (neurons,) float32 over the training tier, ``unit_ids`` (neurons,) int64,
        ``cell_motor_coordinates`` (neurons, 2 or 3) or None, ``pupil_channels`` (None without pupil positions).
    """
    mean, std = (float(value) if np.ndim(value) == 0 and value is not None else value for value in image_statistics)
    return {
        "input_dimensions": [1, *(int(size) for size in image_shape)],
        "input_channels": int(image_shape[0]),
        "output_dimension": len(neurons),
        "img_mean": mean,
        "img_std": std,
        "mean_responses": mean_responses,
        "unit_ids": recording.unit_ids[neurons],
        "cell_motor_coordinates": None if recording.coordinates is None else np.array(recording.coordinates[neurons]),
        "pupil_channels": pupil_channels,
    }
