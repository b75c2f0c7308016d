"""A session whose images are in memory once for all sessions that show them."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from december_plugin.datasets.common.arrays import update_digest
from december_plugin.datasets.common.columns import Column
from december_plugin.datasets.common.images import StimulusImages
from december_plugin.datasets.common.trials import TRAIN, TrialSequence, data_point, mean_over_trials

FIELDS = ("images", "responses")


class SharedImagesDataset(Dataset):
    """All trials of one session; an image that many trials or sessions show is in memory once.

    Parameters
    ----------
    data_key
        The session's name.
    images
        The images of all sessions.
    image_ids
        Image of each trial, (trials,) int64.
    responses
        (trials, n) float32.
    tiers
        Tier name to the positions of its trials.
    neurons
        What is known about each neuron, each (n,), including ``unit_ids``.
    response_unit
        Unit of the responses, in words.

    Attributes
    ----------
    neurons
        ``neurons.unit_ids`` and so on.
    trial_info
        ``trial_info.frame_image_id`` and ``trial_info.tiers``, each (trials,).
    """

    def __init__(
        self,
        data_key: str,
        *,
        images: StimulusImages,
        image_ids: np.ndarray,
        responses: Tensor,
        tiers: Mapping[str, np.ndarray],
        neurons: Mapping[str, np.ndarray],
        response_unit: str,
    ):
        self.data_key = data_key
        self.images = images
        self.image_ids = image_ids
        self.responses = responses
        self.tiers = dict(tiers)
        self.neurons = SimpleNamespace(**neurons)
        self.response_unit = response_unit
        names = np.empty(len(image_ids), dtype=f"U{max(map(len, tiers))}")
        for tier, trials in self.tiers.items():
            names[trials] = tier
        self.trial_info = SimpleNamespace(frame_image_id=image_ids, tiers=names)
        self._shown = torch.from_numpy(images.positions(image_ids))
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.responses)

    def __getitem__(self, trial: int) -> Any:
        trial = range(len(self))[operator.index(trial)]
        return data_point(FIELDS)(self.images.values[self._shown[trial]], self.responses[trial])

    def __getitems__(self, trials: Sequence[int]) -> TrialSequence:
        return TrialSequence(self, trials)

    def batch(self, trials: Sequence[int]) -> Any:
        """Return several trials as ``images`` (batch, channels, height, width) and ``responses`` (batch, n)."""
        index = torch.as_tensor(np.asarray(trials, dtype=np.int64))
        return data_point(FIELDS)(self.images.select(self._shown[index]), self.responses.index_select(0, index))

    def columns(self) -> dict[str, Column]:
        """Return the fields of :meth:`batch` by name; sessions share the images."""
        return {"images": Column(self.images.values, self._shown), "responses": Column(self.responses)}

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return self.responses.shape[1]

    @property
    def unit_ids(self) -> np.ndarray:
        """(n,) int64 unit ids, in the order of the responses."""
        return self.neurons.unit_ids

    def data_info(self) -> dict[str, Any]:
        """Return nnfabrik's ``data_info`` of this session, with the entries that sessions of mouse V1 have, too."""
        return {
            "input_dimensions": [1, *self.images.shape],
            "input_channels": self.images.shape[0],
            "output_dimension": self.n_neurons,
            "img_mean": self.images.mean,
            "img_std": self.images.std,
            "mean_responses": mean_over_trials(self.responses[torch.as_tensor(self.tiers[TRAIN])].numpy()),
            "unit_ids": self.unit_ids,
            "cell_motor_coordinates": None,
            "pupil_channels": None,
            "response_unit": self.response_unit,
        }

    def fingerprint(self) -> str:
        """Return a SHA-256 (hex) over everything that is served: images, responses, unit ids and tiers."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            digests = self.images.digests()
            for position in self._shown.tolist():
                digest.update(digests[position])
            update_digest(digest, "responses", self.responses.numpy())
            update_digest(digest, "unit_ids", self.unit_ids)
            for tier in sorted(self.tiers):
                update_digest(digest, f"tier {tier}", self.tiers[tier].astype(np.int64))
            self._fingerprint = digest.hexdigest()
        return self._fingerprint
