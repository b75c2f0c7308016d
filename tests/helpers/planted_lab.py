"""A lab's package as nnfabrik finds it: loaders, model and trainers with planted readout vectors.

Worker processes import it by name, so the tests put ``helpers.FOLDER`` on ``PYTHONPATH``.
"""

from __future__ import annotations

import os
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

Batch = namedtuple("Batch", ["images", "responses"])

SESSIONS = {"first": 40, "second": 30}
N_TYPES, WIDTH = 3, 6
CENTERS = 2.0 * np.eye(N_TYPES, WIDTH) + 0.5
N_TRIALS = 20


def unit_ids(data_key: str) -> np.ndarray:
    """Return unit ids that are not positions."""
    return np.arange(SESSIONS[data_key]) * 3 + 7


def types(data_key: str) -> np.ndarray:
    """Planted types, (n,)."""
    return np.arange(SESSIONS[data_key]) % N_TYPES


def planted_labels(seed: int, data_key: str, n_moved: int = 4) -> np.ndarray:
    """Types, but for ``n_moved`` neurons that this seed puts into the next cluster; without a renumbering."""
    labels = types(data_key).copy()
    moved = (np.arange(n_moved) + seed * n_moved) % len(labels)
    labels[moved] = (labels[moved] + 1) % N_TYPES
    return labels


def planted_vectors(seed: int, data_key: str, n_moved: int = 4) -> np.ndarray:
    """Readout vectors (n, WIDTH) that any sensible method clusters into ``planted_labels``."""
    noise = np.random.default_rng([seed, len(data_key)]).normal(scale=0.02, size=(SESSIONS[data_key], WIDTH))
    return CENTERS[planted_labels(seed, data_key, n_moved)] + noise


def responses(data_key: str, images: np.ndarray) -> np.ndarray:
    """Responses (trials, n): linear in the image with the type's weights; the last neuron never responds."""
    noise = np.random.default_rng(5).normal(scale=0.5, size=(len(images), SESSIONS[data_key]))
    clean = images.reshape(len(images), -1) @ CENTERS[types(data_key)].T + noise
    clean[:, -1] = 1.0
    return clean


class Recording(Dataset):
    def __init__(self, data_key: str, *, with_unit_ids: bool, n_images: int = N_TRIALS):
        shown = np.arange(N_TRIALS) % n_images
        self.images = np.random.default_rng(len(data_key)).normal(size=(n_images, 1, 2, 3))[shown]
        self.trial_info = SimpleNamespace(frame_image_id=shown + 100)
        self.responses = responses(data_key, self.images)
        if with_unit_ids:
            self.neurons = SimpleNamespace(unit_ids=unit_ids(data_key))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        as_tensor = {"dtype": torch.float32}
        return Batch(
            torch.as_tensor(self.images[index], **as_tensor), torch.as_tensor(self.responses[index], **as_tensor)
        )


def loaders(
    seed: int | None = None,
    *,
    with_unit_ids: bool = True,
    sessions: tuple[str, ...] = tuple(SESSIONS),
    tiers: tuple[str, ...] = ("train", "validation", "test"),
    n_images: int = N_TRIALS,
    untested: dict[str, str] | None = None,
) -> dict:
    """Return loaders; every tier serves the same trials, but for the test tier of sessions that are ``untested``."""
    recordings = {key: Recording(key, with_unit_ids=with_unit_ids, n_images=n_images) for key in sessions}
    found = {
        tier: {key: DataLoader(recording, batch_size=8) for key, recording in recordings.items()} for tier in tiers
    }
    for key, how in (untested or {}).items():
        recording = Recording(key, with_unit_ids=with_unit_ids, n_images=n_images)
        if how == "constant":
            recording.responses[:] = 0
        if how == "not finite":
            recording.responses[3, 0] = np.nan
        found["test"][key] = DataLoader(Subset(recording, range(1)) if how == "one trial" else recording, batch_size=8)
        if how == "no trials":
            del found["test"][key]
    return found


class LinearReadout(nn.Module):
    def __init__(self, n_neurons: int):
        super().__init__()
        self.features = nn.Parameter(torch.zeros(1, WIDTH, 1, n_neurons))  # as neuralpredictors' Gaussian readout

    def forward(self, received: torch.Tensor) -> torch.Tensor:
        return received @ self.features[0, :, 0]

    def embedding_features(self, received: torch.Tensor) -> torch.Tensor:
        return received[:, None].expand(-1, self.features.shape[-1], -1)


class LinearModel(nn.Module):
    def __init__(self, sessions: dict[str, int], n_dead: int = 0):
        super().__init__()
        self.n_dead = n_dead  # channels, the last ones
        self.readout = nn.ModuleDict({key: LinearReadout(n) for key, n in sessions.items()})

    def forward(self, images: torch.Tensor, data_key: str | None = None, **_: object) -> torch.Tensor:
        received = images.flatten(1) * (torch.arange(WIDTH) < WIDTH - self.n_dead)
        return self.readout[data_key](received)


def model(dataloaders: dict, seed: int, **config: object) -> LinearModel:
    config.pop("note", None)  # a function that edits its configuration must not edit the stored one
    return LinearModel({key: SESSIONS[key] for key in dataloaders["train"]})


def half_dead_model(dataloaders: dict, seed: int, **_: object) -> LinearModel:
    """Return a model whose types are told by the first half of its channels; the core never fills the other half."""
    return LinearModel({key: SESSIONS[key] for key in dataloaders["train"]}, n_dead=WIDTH - N_TYPES)


def _planted_state(net: LinearModel, seed: int, n_moved: int) -> dict[str, torch.Tensor]:
    state = net.state_dict()
    for key in net.readout:
        planted = planted_vectors(seed, key, n_moved)
        if net.n_dead:
            noise = np.random.default_rng([seed, len(key), 1]).normal(scale=8, size=(len(planted), net.n_dead))
            planted[:, -net.n_dead :] += noise
        vectors = torch.as_tensor(planted, dtype=torch.float32)
        state[f"readout.{key}.features"] = vectors.T[None, :, None].contiguous()
    return state


def _neurons(net: LinearModel) -> dict:
    return {key: {"unit_ids": unit_ids(key), "n_neurons": SESSIONS[key]} for key in net.readout}


def _curves() -> dict[str, np.ndarray]:
    return {
        "epoch": np.arange(1, 5),
        "phase": np.array([0, 0, 1, 1]),
        "validation_correlation": np.array([0.1, 0.2, 0.3, 0.25]),
    }


def december(model: LinearModel, dataloaders: dict, seed: int, *, uid=None, cb=None, n_moved: int = 4) -> tuple:
    """Store the planted vectors and their mixture, its clusters renumbered by the seed."""
    cb(uid=uid, epoch=1, model=model, info={})
    order = np.random.default_rng(seed).permutation(N_TYPES)
    output = {
        "format": 1,
        "trainer": "december",
        "settings": {"n_clusters": N_TYPES, "strength": "auto", "pretrain_epochs": 2},
        "score_name": "mean validation correlation",
        "neurons": _neurons(model),
        "curves": _curves(),
        "best_epoch": 3,
        "n_epochs": 4,
        "stopped_by": "patience",
        "mixture": {
            "centers": CENTERS[order],
            "scales": np.full((N_TYPES, WIDTH), 0.01),
            "mixing_weights": np.full(N_TYPES, 1 / N_TYPES),
            "dof": 2.1,
            "weights": "uniform",
        },
        "clustering": {
            "n_clusters": N_TYPES,
            "strength": 0.5 + seed,
            "strength_setting": "auto",
            "gradient_ratio": 0.01,
            "locked_in": False,
        },
        "versions": {},
    }
    return 0.3, output, _planted_state(model, seed, n_moved)


def baseline(
    model: LinearModel,
    dataloaders: dict,
    seed: int,
    *,
    uid=None,
    cb=None,
    n_moved: int = 4,
    control: bool = False,
    covariance: list | None = None,
) -> tuple:
    """Store the planted vectors without a mixture, and a covariance of probe stimuli if there is one."""
    settings = {"pretrain_epochs": 2, "stop_after_pretraining": control}
    output = {"format": 1, "trainer": "baseline", "settings": settings, "neurons": _neurons(model)}
    output |= {"curves": _curves(), "best_epoch": 3, "n_epochs": 4, "stopped_by": "max_iter", "mixture": None}
    output |= {"score_name": "mean validation correlation", "clustering": None}
    if covariance is not None:
        output |= {"feature_covariance": np.array(covariance), "feature_covariance_from": "probes"}
    return 0.3, output, _planted_state(model, seed, n_moved)


def foreign(
    model: LinearModel, dataloaders: dict, seed: int, *, uid=None, cb=None, counts_in_state: bool = False
) -> tuple:
    """Return what other packages' trainers return: NumPy scalars, tensors, tuples, an object."""
    cb()
    output = {
        "loss": np.float32(1.5),
        "history": [np.float64(2.5), torch.tensor(3.5)],
        np.str_("flags"): (np.bool_(True), None),
        "half": np.ones(2, dtype=np.float16),
        "names": np.array(["a", "b"]),
        "device": torch.device("cpu"),
    }
    state = dict(_planted_state(model, seed, 4), **({"count": np.int64(3)} if counts_in_state else {}))
    return np.float32(0.25), output, state


class CustomReadout(nn.Module):
    """A readout that stores its vectors in a way that only it knows."""

    def __init__(self, n_neurons: int):
        super().__init__()
        self.halves = nn.Parameter(torch.zeros(2, n_neurons, WIDTH // 2))

    def embedding_vectors(self) -> torch.Tensor:
        return torch.cat(list(self.halves), dim=1)

    def forward(self, received: torch.Tensor) -> torch.Tensor:
        return received.flatten(1) @ self.embedding_vectors().T


class CustomModel(nn.Module):
    def __init__(self, sessions: dict[str, int]):
        super().__init__()
        self.readout = nn.ModuleDict({key: CustomReadout(n) for key, n in sessions.items()})

    def forward(self, images: torch.Tensor, data_key: str | None = None, **_: object) -> torch.Tensor:
        return self.readout[data_key](images)


def custom_model(dataloaders: dict, seed: int, **_: object) -> CustomModel:
    return CustomModel({key: SESSIONS[key] for key in dataloaders["train"]})


def custom_readout(model: CustomModel, dataloaders: dict, seed: int, *, uid=None, cb=None) -> tuple:
    state = model.state_dict()
    for key in model.readout:
        vectors = torch.as_tensor(planted_vectors(seed, key), dtype=torch.float32)
        state[f"readout.{key}.halves"] = torch.stack(vectors.chunk(2, dim=1))
    return 0.3, {}, state


def without_mixture(model: LinearModel, dataloaders: dict, seed: int, *, uid=None, cb=None) -> tuple:
    """Store no mixture."""
    return baseline(model, dataloaders, seed)


def diverges(model: LinearModel, dataloaders: dict, seed: int, *, uid=None, cb=None) -> tuple:
    return float("nan"), {}, model.state_dict()


def returns_two(model: LinearModel, dataloaders: dict, seed: int, *, uid=None, cb=None) -> tuple:
    return 0.5, model.state_dict()


def fails_for_seed(model: LinearModel, dataloaders: dict, seed: int, *, uid=None, cb=None, bad_seed: int = 2) -> tuple:
    if seed == bad_seed:
        raise ValueError(f"seed {seed} is not to my liking")
    return baseline(model, dataloaders, seed)


def writes_down(model: LinearModel, dataloaders: dict, seed: int, *, uid=None, cb=None, folder: str = "") -> tuple:
    """Leave a file per training, named by seed and process."""
    Path(folder, f"{seed}-{os.getpid()}").touch()
    time.sleep(0.2)
    return baseline(model, dataloaders, seed)


class _SlowToGo:
    def __del__(self) -> None:
        time.sleep(0.4)  # Python drops what a signal handler raises in here


def never_listens(model: LinearModel, dataloaders: dict, seed: int, *, uid=None, cb=None) -> tuple:
    """Spend nearly all its time in finalizers."""
    while True:
        _SlowToGo()
