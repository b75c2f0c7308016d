"""Entries that the tests of the tables register, in a schema of their own."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from helpers import planted_lab

LAB_TRAINERS = (
    "december_plugin.*december_trainer",
    "helpers.planted_lab.december",
    "helpers.planted_lab.without_mixture",
)


@dataclass
class Lab:
    """A lab's nnfabrik module and the tables on it."""

    nnfabrik: Any
    tables: Any

    def add(self, kind: str, function: str, *, comment: str | None = None, **config: Any) -> dict[str, Any]:
        """Register an entry and return its key."""
        table = getattr(self.nnfabrik, kind.capitalize())()
        comment = comment or f"{function} {config}"[:256]
        arguments = {f"{kind}_fn": function, f"{kind}_config": config, f"{kind}_comment": comment}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return table.add_entry(**arguments, **{f"{kind}_fabrikant": "tester"}, skip_duplicates=True)

    def plan(
        self, trainer: str, seeds: list[int], *, dataset: dict | None = None, model: str = "model", **config: Any
    ) -> dict[str, Any]:
        """Plan trainings with this trainer of the lab's package; return the trainer's key."""
        key = self.add("trainer", f"helpers.planted_lab.{trainer}", **config)
        self.tables.TrainingPlan().add_entries(
            datasets=[self.add("dataset", "helpers.planted_lab.loaders", **(dataset or {}))],
            models=[self.add("model", f"helpers.planted_lab.{model}", note="kept")],
            trainers=[key],
            seeds=seeds,
        )
        return key

    def train(self, trainer: str, seeds: list[int], **settings: Any) -> dict[str, Any]:
        """Plan and train; return the trainer's key."""
        key = self.plan(trainer, seeds, **settings)
        self.tables.TrainedModel.populate(key)
        return key


def open_lab(name: str, **settings: Any) -> Lab:
    """Declare nnfabrik's tables and ours in the schema ``name``, or find them there."""
    from nnfabrik.main import my_nnfabrik

    from december_plugin.schemas import december_tables

    nnfabrik = my_nnfabrik(name, use_common_fabrikant=False)
    settings = {"december_trainers": LAB_TRAINERS, **settings}
    tables = december_tables(settings.pop("schema", name), nnfabrik=nnfabrik, **settings)
    if not len(nnfabrik.Fabrikant & {"fabrikant_name": "tester"}):
        user = nnfabrik.Fabrikant.connection.get_user().split("@")[0]
        nnfabrik.Fabrikant.insert1(
            {"fabrikant_name": "tester", "email": "t@lab.org", "affiliation": "lab", "dj_username": user}
        )
    return Lab(nnfabrik, tables)


def emptied(lab: Lab) -> Lab:
    """Return the lab with all rows deleted, which is much faster than declaring its tables anew."""
    connection, schema = lab.tables.schema.connection, lab.tables.schema.database
    tables = [name for (name,) in connection.query(f"SHOW TABLES IN `{schema}`").fetchall()]
    connection.query("SET FOREIGN_KEY_CHECKS = 0")
    for name in tables:
        connection.query(f"DELETE FROM `{schema}`.`{name}`")
    connection.query("SET FOREIGN_KEY_CHECKS = 1")
    return open_lab(schema)


def truth() -> dict[str, tuple[Any, Any]]:
    """Planted types of all sessions, as ``KnownTypes.add_entry`` takes them."""
    return {key: (planted_lab.unit_ids(key), planted_lab.types(key)) for key in planted_lab.SESSIONS}
