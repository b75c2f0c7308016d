"""Tiny movies in memory with planted types, as another package would load them: nothing of ours in them."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler

Batch = namedtuple("Batch", ["videos", "responses"])
N_NEURONS = {"one": 12, "two": 8}
SIZE, LAG = (10, 11), 2
# A quick model for them: the first 4 frames of a clip are not predicted.
MODEL = {
    "hidden_channels": [3, 4],
    "temporal_kernels": [3, 3],
    "spatial_kernels": [5, 3],
    "gamma_input": 0.1,
    "gamma_temporal": 0.1,
    "gamma_readout": 0.01,
    "momentum": 0.1,
}


class Clips(Dataset):
    """Responses follow, some frames later, the middle of the movie: brighter in one type, darker in the other."""

    def __init__(self, n_neurons: int, *, movies: int, repeats: int = 1, frames: int = 12, seed: int = 0):
        generator = np.random.default_rng(seed)
        shown = generator.normal(size=(movies, 1, frames, *SIZE)).astype(np.float32)
        drive = shown[:, 0, :, 3:7, 3:7].mean(axis=(2, 3)) * 4
        drive = np.concatenate([np.zeros((movies, LAG)), drive[:, :-LAG]], axis=1)
        sign = np.where(np.arange(n_neurons) % 2, -1.0, 1.0)
        rates = np.exp(np.clip(drive[..., None] * sign, -3, 1.5))
        self.videos = torch.as_tensor(np.repeat(shown, repeats, axis=0))
        responses = generator.poisson(np.repeat(rates, repeats, axis=0))
        self.responses = torch.as_tensor(responses, dtype=torch.float32)
        self.neurons = SimpleNamespace(unit_ids=np.arange(n_neurons) + 100)
        self.trial_info = SimpleNamespace(movie_id=np.repeat(np.arange(movies), repeats))

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Batch:
        return Batch(self.videos[index], self.responses[index])


def movie_loaders_in_memory(*, own_generator: bool = False):
    """Return loaders of two sessions; clips of the training tier are drawn at random."""
    loaders: dict[str, dict[str, DataLoader]] = {"train": {}, "validation": {}, "test": {}}
    for position, (data_key, n_neurons) in enumerate(N_NEURONS.items()):
        train = Clips(n_neurons, movies=24, seed=position)
        generator = torch.Generator() if own_generator else None
        sampler = RandomSampler(train, generator=generator)
        loaders["train"][data_key] = DataLoader(train, batch_size=8, sampler=sampler)
        loaders["validation"][data_key] = DataLoader(Clips(n_neurons, movies=8, seed=position + 10), batch_size=4)
        test = Clips(n_neurons, movies=2, repeats=4, frames=20, seed=position + 20)
        loaders["test"][data_key] = DataLoader(test, batch_size=1)
    return loaders
