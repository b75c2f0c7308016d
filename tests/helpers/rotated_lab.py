"""A lab with rotation-equivariant models, whose planted readout vectors are types at random orientations.

Worker processes import it by name, as :mod:`helpers.planted_lab`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from december_plugin.rotation.shifts import shifted
from helpers.planted_lab import Batch

SESSIONS = {"first": 40, "second": 32}
N_TYPES, ORIENTATIONS, FEATURES = 3, 4, 3
OURS = "december_plugin.models.equivariant_core_gaussian_readout"
SMALL = {"features": FEATURES, "orientations": ORIENTATIONS, "input_kern": 5, "layers": 1}
N_TRIALS, SIDE = 12, 12


def unit_ids(data_key: str) -> np.ndarray:
    """Return unit ids that are not positions."""
    return np.arange(SESSIONS[data_key]) * 2 + 5


def types(data_key: str) -> np.ndarray:
    """Return the planted types (n,)."""
    return np.arange(SESSIONS[data_key]) % N_TYPES


def planted_vectors(seed: int, data_key: str, *, dead: int = 0) -> np.ndarray:
    """Return readout vectors (n, O * F): every type at random angles, the first ``dead`` neurons zero."""
    rng = np.random.default_rng([seed, len(data_key)])
    tuning = np.array([3.0, 1.0, 0.0, 1.0])
    # Types differ in nothing but how far their features are turned relative to each other.
    of_types = np.stack([np.stack([np.roll(tuning, k * f) for f in range(FEATURES)], axis=1) for k in range(N_TYPES)])
    own = of_types[types(data_key)].reshape(SESSIONS[data_key], -1)
    own = own * rng.uniform(0.7, 1.4, (len(own), 1)) + rng.normal(scale=0.05, size=own.shape)
    vectors = shifted(own, rng.uniform(0, 2 * np.pi, len(own)), ORIENTATIONS)
    vectors[:dead] = 0
    return vectors


class Recording(Dataset):
    """A few random images, and responses to nothing."""

    def __init__(self, data_key: str):
        rng = np.random.default_rng(len(data_key))
        self.images = rng.normal(size=(N_TRIALS, 1, SIDE, SIDE)).astype(np.float32)
        self.responses = rng.normal(size=(N_TRIALS, SESSIONS[data_key])).astype(np.float32)
        self.neurons = SimpleNamespace(unit_ids=unit_ids(data_key))
        self.trial_info = SimpleNamespace(frame_image_id=np.arange(N_TRIALS))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        return Batch(torch.from_numpy(self.images[index]), torch.from_numpy(self.responses[index]))


def loaders(seed: int | None = None, **_: Any) -> dict:
    """Return loaders; every tier serves the same trials."""
    return {
        tier: {key: DataLoader(Recording(key), batch_size=6) for key in SESSIONS}
        for tier in ("train", "validation", "test")
    }


class OwnCore(nn.Module):
    """A core of a lab's own: one filter at all orientations, or, not equivariant, as many filters as it likes."""

    def __init__(self, *, is_equivariant: bool):
        super().__init__()
        filters = torch.randn(FEATURES, 3, 3, generator=torch.Generator().manual_seed(0))
        turned = torch.stack([filters.rot90(o, (1, 2)) for o in range(ORIENTATIONS)])
        if not is_equivariant:
            turned = torch.randn(turned.shape, generator=torch.Generator().manual_seed(1))
        self.register_buffer("filters", turned.flatten(0, 1)[:, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(nn.functional.conv2d(images, self.filters, padding=1))


class OwnReadout(nn.Module):
    def __init__(self, n_neurons: int):
        super().__init__()
        self.features = nn.Parameter(torch.zeros(1, ORIENTATIONS * FEATURES, 1, n_neurons))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.mean(dim=(2, 3)) @ self.features[0, :, 0]

    def embedding_features(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.mean(dim=(2, 3))[:, None].expand(-1, self.features.shape[-1], -1)


class OwnModel(nn.Module):
    def __init__(self, core: nn.Module | None, n_neurons: dict[str, int]):
        super().__init__()
        if core is not None:
            self.core = core
        self.readout = nn.ModuleDict({key: OwnReadout(n) for key, n in n_neurons.items()})

    def forward(self, images: torch.Tensor, data_key: str | None = None, **_: object) -> torch.Tensor:
        return self.readout[data_key](self.core(images))


def own_model(dataloaders: dict, seed: int, *, is_equivariant: bool = True, says: bool = True, **_: Any) -> OwnModel:
    """Return a model of the lab's own, whose core says its number of orientations or not."""
    core = OwnCore(is_equivariant=is_equivariant)
    if says:
        core.n_orientations = ORIENTATIONS
    return OwnModel(core, {key: SESSIONS[key] for key in dataloaders["train"]})


def coreless_model(dataloaders: dict, seed: int, **_: Any) -> OwnModel:
    return OwnModel(None, {key: SESSIONS[key] for key in dataloaders["train"]})


def planted(model: nn.Module, dataloaders: dict, seed: int, *, uid=None, cb=None, dead: int = 0) -> tuple:
    """Store the planted vectors."""
    state = model.state_dict()
    for key in model.readout:
        vectors = torch.as_tensor(planted_vectors(seed, key, dead=dead), dtype=torch.float32)
        state[f"readout.{key}.{_name(state, key)}"] = vectors.T[None, :, None].contiguous()
    neurons = {key: {"unit_ids": unit_ids(key), "n_neurons": SESSIONS[key]} for key in model.readout}
    return 0.3, {"format": 1, "trainer": "baseline", "settings": {}, "neurons": neurons, "mixture": None}, state


def _name(state: dict, data_key: str) -> str:
    return next(name for name in ("_features", "features") if f"readout.{data_key}.{name}" in state)


def add_models(lab: Any, seeds: list[int], *, model: str = OURS, dead: int = 0, **config: Any) -> dict[str, Any]:
    """Train planted models in the tables of a :class:`helpers.lab_tables.Lab`; return the key of the model's entry."""
    entry = lab.add("model", model, **{**(SMALL if model == OURS else {}), **config})
    trainer = lab.add("trainer", "helpers.rotated_lab.planted", dead=dead)
    dataset = lab.add("dataset", "helpers.rotated_lab.loaders")
    lab.tables.TrainingPlan().add_entries(datasets=[dataset], models=[entry], trainers=[trainer], seeds=seeds)
    lab.tables.TrainedModel.populate({**entry, **trainer})
    return entry
