"""Sessions in memory whose batches are rows of their columns, as the loaders of this package serve them."""

from __future__ import annotations

import numpy as np
import torch

from december_plugin.datasets.common.columns import Column
from december_plugin.datasets.common.trials import TrialSequence, by_tier, data_point, tier_loader
from helpers.trainings import N_NEURONS, N_TRAIN, N_VALIDATION, Recording

FIELDS = ("images", "responses")


class Session(Recording):
    """A recording of which some images are shown several times, in memory once."""

    def __init__(self, n_neurons: int, *, seed: int, n_train: int = N_TRAIN):
        super().__init__(n_neurons, seed=seed)
        self.rows = torch.arange(len(self.images)).flip(0) // 2
        last = N_TRAIN + N_VALIDATION
        self.tiers = {"train": np.arange(n_train), "validation": np.arange(N_TRAIN, last)}

    def __getitem__(self, trial):
        return data_point(FIELDS)(self.images[self.rows[trial]], self.responses[trial])

    def __getitems__(self, trials):
        return TrialSequence(self, trials)

    def batch(self, trials):
        index = torch.as_tensor(trials)
        return data_point(FIELDS)(self.images[self.rows[index]], self.responses[index])

    def columns(self):
        return {"images": Column(self.images, self.rows), "responses": Column(self.responses)}


def session_loaders(*, batch_size: int = 10, lengths=(N_TRAIN, N_TRAIN - 13), own_generators: bool = False):
    """Return loaders of two sessions of different lengths, whose last batches may be smaller."""
    loaders = {}
    for position, (data_key, n_neurons) in enumerate(N_NEURONS.items()):
        session = Session(n_neurons, seed=position, n_train=lengths[position])
        loaders[data_key] = {tier: tier_loader(session, tier, batch_size=batch_size) for tier in session.tiers}
        if own_generators:
            loaders[data_key]["train"].generator = torch.Generator().manual_seed(3)
            loaders[data_key]["train"].sampler.generator = torch.Generator().manual_seed(4)
    return by_tier(loaders)
