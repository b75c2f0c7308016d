"""The random state that a training depends on: seeding, saving and restoring it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from december_plugin.embeddings.batches import generators_of


def loader_generators(dataloaders: Mapping[str, Mapping[str, Any]]) -> list[torch.Generator]:
    """Return the generators that loaders or their samplers own, in the order of the loaders.

    Loaders without one draw from torch's global generator.
    """
    generators: list[torch.Generator] = []
    for loaders in dataloaders.values():
        for loader in loaders.values():
            generators += [
                generator for generator in generators_of(loader) if all(generator is not known for known in generators)
            ]
    return generators


def get_random_state(generators: list[torch.Generator], device: torch.device) -> dict[str, Any]:
    """Return the state of every random generator in a form that ``torch.load(weights_only=True)`` reads."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "loaders": [generator.get_state() for generator in generators],
    }


def set_random_state(state: Mapping[str, Any], generators: list[torch.Generator], device: torch.device) -> None:
    """Restore what :func:`get_random_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    for generator, generator_state in zip(generators, state["loaders"], strict=True):
        generator.set_state(generator_state)


def start_persistent_workers(
    dataloaders: Mapping[str, Mapping[str, Any]], generators: list[torch.Generator], device: torch.device
) -> None:
    """Start the persistent workers of the training's loaders without changing the random state.

    Their start draws a random number and happens once: the first epoch of a resumed training would draw one more than
    the same epoch of an uninterrupted one. A dataset that itself draws random numbers within persistent
    workers cannot be resumed exactly: their random state is out of reach.
    """
    every = [loader for tier in ("train", "validation") for loader in dataloaders[tier].values()]
    persistent = [loader for loader in every if getattr(loader, "persistent_workers", False)]
    if persistent:
        state = get_random_state(generators, device)
        for loader in persistent:
            iter(loader)
        set_random_state(state, generators, device)


@contextmanager
def seeded(seed: int, generators: list[torch.Generator], device: torch.device) -> Iterator[None]:
    """Seed Python, NumPy, torch and the loaders' own generators within the block, and restore all of them after it.

    cuDNN is made deterministic within the block. On the CPU the same seed gives the same bytes with the same number of
    threads (:func:`thread_count`); on CUDA some operations add in an undefined order, such as the gradient of
    ``grid_sample`` if a readout has no fused kernel, so results agree only up to rounding.
    """
    before = get_random_state(generators, device)
    cudnn_before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    for generator in generators:
        generator.manual_seed(seed)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        set_random_state(before, generators, device)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn_before


@contextmanager
def own_thread_count(device: torch.device) -> Iterator[None]:
    """Give torch back its number of threads after the block, in which a resumed training may have changed it."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        if device.type == "cpu":
            set_thread_count(before)


def thread_count(device: torch.device) -> int | None:
    """Return the number of threads that share torch's sums on the CPU; None on another device.

    Sums that are shared differently are rounded differently, so results on the CPU depend on this number, first in
    their last bits, and after some epochs in more.
    """
    return torch.get_num_threads() if device.type == "cpu" else None


def set_thread_count(number: int) -> None:
    """Set torch's number of threads, if it is another."""
    if number != torch.get_num_threads():
        torch.set_num_threads(number)
