"""A small core-readout model and loaders as another package would build them: nothing of ours in them."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import torch
from neuralpredictors.layers.cores.conv2d import Stacked2dCore
from neuralpredictors.layers.encoders import FiringRateEncoder
from neuralpredictors.layers.readouts import FullGaussian2d, MultiReadoutBase
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler

Batch = namedtuple("Batch", ["images", "responses"])
N_NEURONS = {"one": 14, "two": 9}
N_TRAIN, N_VALIDATION, BATCH_SIZE = 40, 20, 10


class Recording(Dataset):
    """Responses are a rectified linear function of the image, in two types of neurons."""

    def __init__(self, n_neurons: int, *, seed: int, unit_ids: bool = True):
        generator = np.random.default_rng(seed)
        n = N_TRAIN + N_VALIDATION
        self.images = torch.as_tensor(generator.normal(size=(n, 1, 8, 8)), dtype=torch.float32)
        filters = np.random.default_rng(0).normal(size=(2, 64)) / 8
        types = np.arange(n_neurons) % 2
        drive = self.images.reshape(n, 64).numpy() @ filters[types].T
        rates = np.exp(np.clip(drive, -3, 2))
        self.responses = torch.as_tensor(generator.poisson(rates), dtype=torch.float32)
        if unit_ids:
            self.neurons = SimpleNamespace(unit_ids=np.arange(n_neurons) + 100)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        return Batch(self.images[index], self.responses[index])


def make_loaders(*, data_seed: int = 1, unit_ids: bool = True):
    """Return loaders of two sessions, tiers train and validation."""
    loaders: dict[str, dict[str, DataLoader]] = {"train": {}, "validation": {}}
    for position, (data_key, n_neurons) in enumerate(N_NEURONS.items()):
        recording = Recording(n_neurons, seed=data_seed + position, unit_ids=unit_ids)
        for tier, indices in (("train", range(N_TRAIN)), ("validation", range(N_TRAIN, N_TRAIN + N_VALIDATION))):
            loaders[tier][data_key] = DataLoader(
                recording, batch_size=BATCH_SIZE, sampler=SubsetRandomSampler(list(indices))
            )
    return loaders


def make_model(*, seed: int = 0, gamma_readout: float = 0.01) -> FiringRateEncoder:
    """Return a stacked core of one layer and a Gaussian readout per session."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        core = Stacked2dCore(
            input_channels=1, hidden_channels=6, input_kern=3, hidden_kern=3, layers=2, gamma_input=0.1, stack=-1
        )
        readout = MultiReadoutBase(
            in_shape_dict=dict.fromkeys(N_NEURONS, (6, 8, 8)),
            n_neurons_dict=N_NEURONS,
            base_readout=FullGaussian2d,
            bias=True,
            init_mu_range=0.3,
            init_sigma=0.1,
            gauss_type="isotropic",
            feature_reg_weight=gamma_readout,
        )
        return FiringRateEncoder(core, readout)
