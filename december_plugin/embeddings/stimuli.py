"""Stimuli of a session's loader: a seeded sample, in the order of the recording; the loader is left unchanged."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from december_plugin.embeddings.batches import generators_of, split_batch
from december_plugin.errors import EmbeddingError

VALUES_AT_ONCE = 1 << 16  # of the inputs that are shown together: 28 images of 36 x 64, or a clip
FEWEST_AT_ONCE = 2  # but not fewer, so that what differs between stimuli is seen in the first of them
TRAIN = "train"


def loaders_of_a_tier(batches: Any, data_keys: list[str]) -> dict[str, Any]:
    """Return the loader of every session, in the order of the sessions.

    Parameters
    ----------
    batches
        Data key to loader, or tier to data key to loader: then those of the training tier.
    data_keys
        Keys of the sessions that are needed.

    Raises
    ------
    EmbeddingError
        If a session has no loader, or there is no training tier.
    """
    if not isinstance(batches, Mapping):
        raise EmbeddingError(
            f"stimuli are read from loaders by data key, or by tier and data key, not from {type(batches).__name__}."
        )
    if (
        batches
        and all(isinstance(loaders, Mapping) for loaders in batches.values())
        and not set(data_keys) & set(batches)
    ):
        if TRAIN not in batches:
            raise EmbeddingError(f"the loaders have the tiers {', '.join(batches)}; {TRAIN!r} is needed.")
        batches = batches[TRAIN]
    missing = [data_key for data_key in data_keys if data_key not in batches]
    if missing:
        raise EmbeddingError(
            f"there is no loader for session {missing[0]!r} of the model; there are some for {', '.join(batches)}."
        )
    return {data_key: batches[data_key] for data_key in data_keys}


def sampled_stimuli(
    loader: Any, n: int | None, *, seed: int | Sequence[int]
) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """Yield some stimuli of a loader, a few at a time.

    The loader and its random states do not change: of a torch ``DataLoader``, items of its dataset are taken, whatever
    its order. Other iterables of batches, and loaders of an ``IterableDataset``, yield their first stimuli.

    Parameters
    ----------
    loader
        Batches as :func:`~december_plugin.embeddings.batches.split_batch` takes them.
    n
        How many images, or clips of movies; all of them if there are fewer, or for None.
    seed
        Seed of the sample.

    Yields
    ------
    inputs, extras
        Inputs (few, channels, height, width), or of clips (few, channels, frames, height, width), and everything else
        that the batch has by name, except responses.
    """
    has_items = all(hasattr(loader, name) for name in ("dataset", "batch_sampler", "collate_fn"))
    if has_items and not isinstance(loader.dataset, IterableDataset) and loader.batch_sampler:
        yield from _items(loader, n, seed)
    else:
        yield from _first(loader, n)


def _items(loader: Any, n: int | None, seed: int | Sequence[int]) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    with _undisturbed(loader):
        drawn = itertools.chain.from_iterable(loader.batch_sampler)
        # Clips of movies may be named by a movie and a first frame.
        items = sorted({item if isinstance(item, tuple) else int(item) for item in drawn})
    if n is not None and n < len(items):
        chosen = np.sort(np.random.default_rng(seed).choice(len(items), size=n, replace=False))
        items = [items[at] for at in chosen]
    size = FEWEST_AT_ONCE  # to see how large they are
    while items:
        taken, items = items[:size], items[size:]
        fetch = getattr(loader.dataset, "__getitems__", None)
        batch = loader.collate_fn(fetch(taken) if fetch else [loader.dataset[item] for item in taken])
        inputs, _, extras = split_batch(batch)
        size = max(1, VALUES_AT_ONCE // max(1, inputs[0].numel()))
        yield inputs, extras


def _first(loader: Any, n: int | None) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    left = math.inf if n is None else n
    with _undisturbed(loader):
        for batch in loader:
            inputs, _, extras = split_batch(batch)
            size = max(FEWEST_AT_ONCE, VALUES_AT_ONCE // max(1, inputs[0].numel()))
            stop = int(min(len(inputs), left))
            for start in range(0, stop, size):
                part = slice(start, min(start + size, stop))
                yield inputs[part], {name: _part(value, part, len(inputs)) for name, value in extras.items()}
            left -= stop
            if not left:
                break


def _part(value: Any, part: slice, length: int) -> Any:
    return value[part] if isinstance(value, Tensor) and value.ndim and len(value) == length else value


@contextmanager
def _undisturbed(loader: Any) -> Iterator[None]:
    """Let a loader draw within the block, always the same, without a trace on its random state."""
    generators = [(generator, generator.get_state()) for generator in generators_of(loader)]
    of_numpy, of_python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        for generator, _ in generators:
            generator.manual_seed(0)
        try:
            yield
        finally:
            np.random.set_state(of_numpy)
            random.setstate(of_python)
            for generator, state in generators:
                generator.set_state(state)
