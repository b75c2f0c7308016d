"""The table of trainings that are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import datajoint as dj


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
        datasets: Iterable[Mapping[str, Any]],
        models: Iterable[Mapping[str, Any]],
        trainers: Iterable[Mapping[str, Any]],
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
        rows = [
            {
                "dataset_fn": dataset["dataset_fn"],
                "dataset_hash": dataset["dataset_hash"],
                "model_fn": model["model_fn"],
                "model_hash": model["model_hash"],
                "trainer_fn": trainer["trainer_fn"],
                "trainer_hash": trainer["trainer_hash"],
                "seed": seed,
            }
            for dataset in list(datasets)
            for model in list(models)
            for trainer in list(trainers)
            for seed in seeds
        ]
        before = len(self)
        with self.connection.transaction:
            self.nnfabrik.Seed().insert([{"seed": seed} for seed in seeds], skip_duplicates=True)
            self.insert(rows, skip_duplicates=True)
        return len(self) - before
