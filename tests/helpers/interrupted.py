"""Monitors that interrupt trainings, and results as bytes to compare."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from december_plugin.storage.atomic import write_atomically
from december_plugin.trainers import baseline_trainer, december_trainer
from december_plugin.training.monitor import Monitor, monitored
from helpers.trainings import BATCH_SIZE, N_TRAIN, N_VALIDATION, Batch, Recording, make_loaders, make_model


class Interrupted(BaseException):
    """What a worker's signal handler may raise: nothing on the way may take it for an error of its own."""


class Recorder(Monitor):
    """Keeps the state after every epoch; goes on from ``state``; stops after epoch ``stop``."""

    def __init__(self, state: bytes | None = None, *, stop: int | None = None, record: bool = True):
        self.state, self.stop, self.record = state, stop, record
        self.states: dict[int, bytes] = {}
        self.progress = []

    def load(self):
        return self.state

    def after_epoch(self, progress, get_state):
        self.progress.append(progress)
        if self.record:
            self.states[progress.epoch] = get_state()
        if progress.epoch == self.stop:
            raise Interrupted


class InFile(Monitor):
    """Keeps the latest state in a file; calls ``act(epoch)`` afterwards."""

    def __init__(self, path: Path, act=lambda epoch: None):
        self.path, self.act = path, act

    def load(self):
        return self.path.read_bytes() if self.path.exists() else None

    def after_epoch(self, progress, get_state):
        write_atomically(self.path, get_state())
        self.act(progress.epoch)


def as_bytes(value):
    """Return nested tuples in which every number is its bytes, so that NaNs and signed zeros compare too."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, Mapping):
        return tuple((name, as_bytes(item)) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(as_bytes(item) for item in value)
    return value


def train(monitor: Monitor | None = None, *, loaders=None, model=None, seed=1, **settings):
    """Train a small model, DECEMber's way if ``n_clusters`` is given; return score, output and state dict as bytes."""
    trainer = december_trainer if "n_clusters" in settings else baseline_trainer
    settings = {"device": "cpu", "lr_init": 0.03, **settings}
    with monitored(monitor or Monitor()):
        result = trainer(model or make_model(), (loaders or make_loaders)(), seed, **settings)
    return as_bytes(result)


class Noisy(Recording):
    """Draws from all three global generators for every image."""

    def __getitem__(self, index: int) -> Batch:
        images, responses = super().__getitem__(index)
        return Batch(images + 0.1 * torch.randn(()) + 0.1 * np.random.rand() + 0.1 * random.random(), responses)


def loaders_of(kind: type = Recording, *, own_generators: bool = False, **settings):
    """Return loaders of two sessions of different lengths, shuffled by torch's ``RandomSampler``."""
    loaders: dict[str, dict[str, DataLoader]] = {"train": {}, "validation": {}}
    for position, (data_key, n_neurons) in enumerate({"one": 14, "two": 9}.items()):
        recording = kind(n_neurons, seed=position)
        trials = {"train": range(N_TRAIN - 13 * position), "validation": range(N_TRAIN, N_TRAIN + N_VALIDATION)}
        for tier, indices in trials.items():
            generator = torch.Generator() if own_generators else None
            # Workers take long to start; the training tier's are enough.
            chosen = {"shuffle": True, **settings} if tier == "train" else {}
            loaders[tier][data_key] = DataLoader(Subset(recording, indices), BATCH_SIZE, generator=generator, **chosen)
    return loaders
