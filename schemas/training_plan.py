"""The table of trainings that are wanted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import datajoint as dj
from pymysql.converters import escape_string

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
        with self.connection.transaction:
            self.nnfabrik.Seed().insert([{"seed": seed} for seed in seeds], skip_duplicates=True)
            return self.insert_product(datasets=datasets, models=models, trainers=trainers, seeds=seeds)

    def insert_product(self, *, datasets: Keys, models: Keys, trainers: Keys, seeds: Iterable[int]) -> int:
        """Insert every combination of entries and seeds that are in nnfabrik's tables; return how many are new.

        The server makes the combinations: sent one by one, 25,000 take half a minute.
        """
        product = self.nnfabrik.Seed.proj() & f"seed IN ({', '.join(str(int(seed)) for seed in seeds) or 'NULL'})"
        for kind, keys in (("trainer", trainers), ("model", models), ("dataset", datasets)):
            table = getattr(self.nnfabrik, kind.capitalize())
            product = (table.proj() & _restriction(kind, keys)) * product
        before = len(self)
        self.insert(product, skip_duplicates=True)
        return len(self) - before


def _restriction(kind: str, keys: Keys) -> str:
    """Return a condition for these keys: the hashes of each function in one list."""
    hashes: dict[str, list[str]] = {}
    for key in keys:
        hashes.setdefault(key[f"{kind}_fn"], []).append(key[f"{kind}_hash"])
    parts = [
        f"({kind}_fn = {_quoted(fn)} AND {kind}_hash IN ({', '.join(map(_quoted, found))}))"
        for fn, found in hashes.items()
    ]
    return " OR ".join(parts) or "FALSE"


def _quoted(text: str) -> str:
    # DataJoint passes conditions on as they are, and its driver takes a lone % for a placeholder.
    return "'" + escape_string(str(text)).replace("%", "%%") + "'"
