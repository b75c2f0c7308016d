"""Trials of a session, and the loaders that slice batches of them, tier by tier."""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from neuralpredictors.data.samplers import SubsetSequentialSampler
from torch.utils.data import DataLoader, Sampler, SubsetRandomSampler

TRAIN = "train"


@functools.cache
def data_point(fields: tuple[str, ...]) -> Any:
    """Return the named tuple type of a trial or batch with these fields; the same type for the same fields."""
    return namedtuple("DataPoint", fields)


def mean_over_trials(responses: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis, summed in float64, as float32."""
    return responses.mean(axis=0, dtype=np.float64).astype(np.float32)


class TrialSequence(Sequence[Any]):
    """Some trials of a dataset, sliced only when needed: one by one, or all at once by :func:`stack_trials`."""

    def __init__(self, dataset: Any, trials: Sequence[int]):
        self.dataset = dataset
        self.trials = trials

    def __len__(self) -> int:
        return len(self.trials)

    def __getitem__(self, position: Any) -> Any:
        return self.dataset[self.trials[position]]

    def __iter__(self) -> Iterator[Any]:
        return (self.dataset[trial] for trial in self.trials)


def stack_trials(trials: Any) -> Any:
    """Return the batch of a :class:`TrialSequence`; the collate function of our loaders."""
    return trials.dataset.batch(trials.trials)


def tier_loader(dataset: Any, tier: str, *, batch_size: int) -> DataLoader:
    """Return a torch ``DataLoader`` over one tier.

    The training tier is shuffled by a ``SubsetRandomSampler``, which draws from torch's global generator, so that
    ``torch.manual_seed`` fixes the order, batch for batch as with neuralpredictors' file-tree path. Other tiers come
    in the order of the recording. Loading workers have no advantage, since a batch is a slice of memory; batches are
    on the CPU.

    Parameters
    ----------
    dataset
        The session: a torch ``Dataset`` with ``tiers``, tier name to the positions of its trials, whose
        ``__getitems__`` returns a :class:`TrialSequence`.
    tier
        Name of the tier.
    batch_size
        Trials in a batch; the last batch of an epoch may be smaller.
    """
    trials = dataset.tiers[tier]
    sampler: Sampler = SubsetRandomSampler(trials) if tier == TRAIN else SubsetSequentialSampler(trials)
    return DataLoader(dataset, sampler=sampler, batch_size=batch_size, collate_fn=stack_trials)


def by_tier(sessions: Mapping[str, Mapping[str, DataLoader]]) -> dict[str, dict[str, DataLoader]]:
    """Turn {data key: {tier: loader}} into {tier: {data key: loader}}."""
    loaders: dict[str, dict[str, DataLoader]] = {}
    for data_key, tiers in sessions.items():
        for tier, loader in tiers.items():
            loaders.setdefault(tier, {})[data_key] = loader
    return loaders
