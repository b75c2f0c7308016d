"""The table of trainings that are wanted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import datajoint as dj

Keys = Iterable[Mapping[str, Any]]


def combinations(*, datasets: Keys, models: Keys, trainers: Keys, seeds: Iterable[int]) -> list[dict[str, Any]]:
    """Return the key of every combination of these entries."""
    parts = [
        [{name: key[name] for name in (f"{kind}_fn", f"{kind}_hash")} for key in keys]
        for kind, keys in (("dataset", datasets), ("model", models), ("trainer", trainers))
    ]
    parts.append([{"seed": int(seed)} for seed in seeds])
    return [{name: value for part in chosen for name, value in part.items()} for chosen in itertools.product(*parts)]


class TrainingPlan(dj.Manual):
    """What was registered for training, and nothing else.

    nnfabrik's ``TrainedModel`` takes the full cross product of all data sets, models, trainers and seeds for its work;
    here a combination is trained only if it is in this table.
    """

    nnfabrik: ClassVar[Any]

    definition = """
    # Trainings that are wanted; workers take up these combinations and no others
    -> Dataset
    -> Model
    -> Trainer
    -> Seed
    ---
    plan_ts=CURRENT_TIMESTAMP: timestamp  # time of registration (server's clock)
    """

    def add_entries(
        self,
        *,
        datasets: Keys,
        models: Keys,
        trainers: Keys,
        seeds: Iterable[int],
    ) -> int:
        """Register every combination of the given entries; what is registered already stays as it is.

        Parameters
        ----------
        datasets, models, trainers
            Keys of entries in nnfabrik's tables, as their ``add_entry`` returns them.
        seeds
            Model seeds; entries in nnfabrik's ``Seed`` are made where they are missing.

        Returns
        -------
        int
            The number of combinations that were not registered before.
        """
        seeds = [int(seed) for seed in seeds]
        rows = combinations(datasets=datasets, models=models, trainers=trainers, seeds=seeds)
        before = len(self)
        with self.connection.transaction:
            self.nnfabrik.Seed().insert([{"seed": seed} for seed in seeds], skip_duplicates=True)
            self.insert(rows, skip_duplicates=True)
        return len(self) - before
