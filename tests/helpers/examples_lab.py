"""The labs of the examples that need a database, and the way back to them after an example has changed something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from december_plugin import trainers
from helpers import lab_tables, planted_lab, rotated_lab

SEEDS = [1, 2, 3]
COVARIANCE = [[float(1 + i % 3) if i == j else 0.0 for j in range(planted_lab.WIDTH)] for i in range(planted_lab.WIDTH)]
ALIGNMENT = {"n_restarts": 1, "n_means": 1}
COPY = "as_filled"  # ends the name of the schema that a lab's rows are copied to


def fill_retina() -> lab_tables.Lab:
    """Fill the schema ``retina``: DECEMber and a baseline, with everything that is computed from them."""
    lab = lab_tables.open_lab("retina")
    tables = lab.tables
    with planted_trainings():
        tables.TrainingPlan().add_entries(
            datasets=[lab.add("dataset", "helpers.planted_lab.loaders", comment="two sessions")],
            models=[lab.add("model", "helpers.planted_lab.model", comment="small")],
            trainers=[
                lab.add("trainer", "december_plugin.trainers.december_trainer", comment="DECEMber", n_clusters=3),
                lab.add("trainer", "december_plugin.trainers.baseline_trainer", comment="baseline"),
            ],
            seeds=SEEDS,
        )
        tables.TrainedModel.populate()
    for count in (2, 3, 4):
        tables.Clustering().add_entry("kmeans", count, n_init=1)
    tables.KnownTypes().add_entry("planted", lab_tables.truth(), source="by hand")
    tables.Surrogate().add_entry(name="quick", n_draws=3)
    tables.Resampling().add_entry(n_draws=2, clusterings=["kmeans"])
    tables.ClusterConfusionSettings().add_entry(clusterings=["kmeans"])
    tables.MeiSettings().add_entry(
        per_cluster=2, n_starts=1, max_steps=60, least_correlation=0.5, clusterings=["kmeans"]
    )
    three = tables.Clustering & {"method": "kmeans", "n_clusters": 3}
    for table in tables.computed:
        table.populate(three.proj() if table.__name__ in ("Mei", "MeiConfusion") else True)
    return lab


def fill_cortex() -> lab_tables.Lab:
    """Fill the schema ``cortex``: a rotation-equivariant model, clustered aligned, and one with an untested session."""
    lab = lab_tables.open_lab("cortex")
    turned = [
        lab.add("dataset", "helpers.rotated_lab.loaders", comment="two sessions"),
        lab.add("model", rotated_lab.OURS, comment="equivariant", **rotated_lab.SMALL),
        lab.add("trainer", "helpers.rotated_lab.planted", comment="baseline"),
    ]
    short = [
        lab.add("dataset", "helpers.planted_lab.loaders", comment="short session", untested={"second": "one trial"}),
        lab.add("model", "helpers.planted_lab.model", comment="small"),
        lab.add("trainer", "helpers.planted_lab.baseline", comment="linear"),
    ]
    for (dataset, model, trainer), seeds in ((turned, SEEDS[:2]), (short, SEEDS[:1])):
        lab.tables.TrainingPlan().add_entries(datasets=[dataset], models=[model], trainers=[trainer], seeds=seeds)
    lab.tables.Clustering().add_entry("kmeans", 3, n_init=1, normalize="l2", alignment=ALIGNMENT)
    for table in lab.tables.computed:
        table.populate()
    return lab


@contextmanager
def planted_trainings() -> Iterator[None]:
    """Let december's trainers store planted readout vectors at once, whatever their settings."""

    def december(model: Any, dataloaders: dict, seed: int, *, uid: Any = None, cb: Any = None, **_: Any) -> tuple:
        return planted_lab.december(model, dataloaders, seed, uid=uid, cb=cb, n_moved=2)

    def baseline(model: Any, dataloaders: dict, seed: int, *, uid: Any = None, cb: Any = None, **_: Any) -> tuple:
        return planted_lab.baseline(model, dataloaders, seed, uid=uid, cb=cb, covariance=COVARIANCE)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainers, "december_trainer", december)
        patch.setattr(trainers, "baseline_trainer", baseline)
        yield


class Filled:
    """The rows of labs as they are now, and all other schemas as not there.

    Parameters
    ----------
    connection
        DataJoint's, to the server.
    schemas
        The names of the labs' schemas; each is copied to one with the same name and ``COPY``.
    """

    def __init__(self, connection: Any, schemas: list[str]):
        self.connection, self.schemas = connection, schemas
        for schema in schemas:
            connection.query(f"CREATE DATABASE `{schema}_{COPY}`")
            for table in self._tables(schema):
                connection.query(f"CREATE TABLE `{schema}_{COPY}`.`{table}` AS SELECT * FROM `{schema}`.`{table}`")
        self._known = self._databases()
        self._sums = {schema: self._checksums(schema) for schema in schemas}

    def restore(self) -> None:
        """Put back what has changed, and drop what is new."""
        query = self.connection.query
        query("SET FOREIGN_KEY_CHECKS = 0")
        for name in self._databases() - self._known:
            query(f"DROP DATABASE `{name}`")
            self.connection.schemas.pop(name, None)
        for schema in self.schemas:
            for table, now in self._checksums(schema).items():
                before = self._sums[schema].get(table)
                if now != before:
                    query(f"DELETE FROM `{schema}`.`{table}`")
                if now != before and before is not None:
                    query(f"INSERT INTO `{schema}`.`{table}` SELECT * FROM `{schema}_{COPY}`.`{table}`")
        query("SET FOREIGN_KEY_CHECKS = 1")
        self.connection.dependencies.clear()

    def drop(self) -> None:
        """Drop the labs and their copies."""
        self._known -= {*self.schemas, *(f"{schema}_{COPY}" for schema in self.schemas)}
        self.schemas = []
        self.restore()

    def _databases(self) -> set[str]:
        return {name for (name,) in self.connection.query("SHOW DATABASES").fetchall()}

    def _tables(self, schema: str) -> list[str]:
        return [name for (name,) in self.connection.query(f"SHOW TABLES IN `{schema}`").fetchall() if name != "~log"]

    def _checksums(self, schema: str) -> dict[str, int]:
        names = ", ".join(f"`{schema}`.`{table}`" for table in self._tables(schema))
        found = self.connection.query(f"CHECKSUM TABLE {names}").fetchall()
        return {name.removeprefix(f"{schema}."): checksum for name, checksum in found}
