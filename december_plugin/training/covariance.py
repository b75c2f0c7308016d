"""The feature covariance of a model in training, from the same few stimuli each time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from december_plugin.embeddings.functional import feature_covariance
from december_plugin.embeddings.stimuli import sampled_stimuli
from december_plugin.training import random_state
from december_plugin.training.objective import n_training_stimuli

N_STIMULI = 400  # images, or clips, of all sessions together
LARGEST_SHARE = 4  # at most 1 / 4 of a session's training stimuli, but
FEWEST_STIMULI = 10  # at least this many, if there are
MAX_NEURONS = 2000


class CovarianceStimuli:
    """A few hundred stimuli of the training tier, drawn once from a seed, by which a model's features are measured.

    They stay in memory, so that measuring reads nothing and costs a small part of an epoch. Neither drawing nor
    measuring changes the random state of the training, the modes of the model's layers, or the statistics of its batch
    norms.

    Parameters
    ----------
    loaders
        Data key to loader of the training tier.
    generators
        The generators that the loaders own (:func:`~december_plugin.training.random_state.loader_generators`).
    device
        Device of the training.
    seed
        Seed of the draw: the same stimuli in every process, also in one that continues the training.
    """

    def __init__(
        self, loaders: Mapping[str, Any], generators: list[torch.Generator], device: torch.device, *, seed: int
    ):
        self.generators, self.device, self.seed = generators, device, seed
        with random_state.seeded(seed, generators, device):
            self.batches = {data_key: self._drawn(loader, len(loaders)) for data_key, loader in loaders.items()}

    def covariance_of(self, model: nn.Module) -> npt.NDArray[np.float64]:
        """Return the feature covariance of the model as it is now, (D, D), in evaluation mode."""
        with random_state.seeded(self.seed, self.generators, self.device):
            return feature_covariance(model, self.batches, n_images=None, max_neurons=MAX_NEURONS, seed=self.seed)

    def _drawn(self, loader: Any, n_sessions: int) -> list[dict[str, Any]]:
        """Return batches of stimuli of a session, without responses."""
        largest = max(FEWEST_STIMULI, n_training_stimuli(loader) // LARGEST_SHARE)
        n = min(largest, -(-N_STIMULI // n_sessions))
        return [
            {"inputs": inputs, "responses": None, **extras}
            for inputs, extras in sampled_stimuli(loader, n, seed=self.seed)
        ]
