"""A result in the tables: some configurations with all their seeds, numbered as an export numbers them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from december_plugin.embeddings.readout_vectors import ReadoutEmbeddings
from december_plugin.findings.data import ExportTable
from december_plugin.findings.packages import installed_packages, source_commit
from december_plugin.results.export import export_tables
from december_plugin.results.queries import configuration_key
from december_plugin.results.report import ReportSettings, read_entries, training_versions
from december_plugin.schemas.declare import DecemberTables
from december_plugin.schemas.feature_covariance import stored_covariance
from december_plugin.schemas.stored_models import (
    build_loaders,
    full_config,
    session_neurons,
    stored_embeddings,
    stored_neurons,
)

if TYPE_CHECKING:
    from anndata import AnnData

TYPES = ["types_name", "data_key", "unit_id", "type"]


class Result:
    """Reads a result, for a bundle or for AnnData.

    Parameters
    ----------
    tables
        The tables.
    settings
        ``types_name``, ``n_clusters``, ``dataset`` and ``model`` choose the configurations.
    restriction
        Which of their assignments to take, a restriction of DataJoint by key, ``method`` or ``n_clusters``. All seeds
        of a configuration are part of the result.

    Raises
    ------
    SettingsError
        If there are no assignments, or none is selected.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results.report import ReportSettings
    >>> from december_plugin.sharing import Result
    >>> lab = open_lab(schema="retina")
    >>> result = Result(lab.tables, ReportSettings(), {"method": "kmeans", "n_clusters": 3})
    >>> result.configurations[["configuration", "label", "n_clusters"]]
       configuration    label  n_clusters
    0              1  k-means           3
    >>> result.trainings["training"].tolist()
    [1, 2, 3]
    >>> result.readouts(1).vectors.shape, result.covariance(1).shape
    ((70, 6), (6, 6))
    """

    def __init__(self, tables: DecemberTables, settings: ReportSettings, restriction: Any = True):
        self.tables, self.settings = tables, settings
        self.exported = {
            table.name: table for table in export_tables(tables, settings=settings, restriction=restriction)
        }
        types = ExportTable("types", lambda: iter([self._types()]))
        self.exported[types.name] = types

    @functools.cached_property
    def configurations(self) -> pd.DataFrame:
        """One row per configuration, with its number and key."""
        return self.frame("agreement")

    @functools.cached_property
    def trainings(self) -> pd.DataFrame:
        """One row per trained model, with its number and key."""
        return self.frame("trainings")

    def frame(self, name: str) -> pd.DataFrame:
        """Return a table of the export, or the known types as "types"."""
        parts = list(self.exported[name].parts())
        return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)

    def key_of(self, training: int) -> dict[str, Any]:
        """Return the key of a trained model, by its number."""
        (row,) = self.trainings[self.trainings["training"] == training].to_dict("records")
        return {name: row[name] for name in self.tables.TrainedModel.primary_key}

    def configuration_keys(self) -> list[dict[str, Any]]:
        """Return the keys of the configurations."""
        return self.configurations[configuration_key(self.tables)].to_dict("records")

    def readouts(self, training: int) -> ReadoutEmbeddings:
        """Return the readout vectors of a trained model; positions replace missing unit ids."""
        key = self.key_of(training)
        config = full_config(self.tables.nnfabrik, key, trainer=False)
        embeddings = stored_embeddings(self.tables.TrainedModel, config, key)
        stored = (
            self.tables.ClusterAssignment.Session & key & (self.tables.ClusterAssignment & {"n_left_out": 0})
        ).fetch("data_key", "unit_ids")
        known = dict(zip(map(str, stored[0]), stored[1], strict=True))
        if not known.keys() >= embeddings.sessions.keys():
            neurons = stored_neurons(self.tables.TrainedModel, key)
            found = session_neurons(embeddings.data_keys, neurons, lambda: build_loaders(config, key))
            known = {session.data_key: session.unit_ids for session in found}
        unit_ids = np.concatenate([np.asarray(known[data_key]) for data_key in embeddings.sessions])
        return replace(embeddings, unit_ids=unit_ids.astype(np.int64))

    def covariance(self, training: int) -> np.ndarray | None:
        """Return the feature covariance of a trained model (D, D); None if it was not computed."""
        key = self.key_of(training)
        if self.tables.FeatureCovariance & key:
            return stored_covariance(self.tables.FeatureCovariance, key)
        output = (self.tables.TrainedModel & key).fetch1("output")
        mixture = output.get("mixture") if isinstance(output, Mapping) else None
        found = mixture.get("covariance") if isinstance(mixture, Mapping) else None
        return None if found is None else np.asarray(found)

    def provenance(self) -> dict[str, Any]:
        """Return where the numbers come from: time, command, versions, commit, and the settings of all entries."""
        entries = read_entries(self.tables, self.configurations)
        return {
            "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": self.settings.command,
            "schema": str(self.tables.schema.database),
            "commit": source_commit(),
            "packages": installed_packages(),
            "trained_with": training_versions(self.tables, self.trainings).to_dict("records"),
            "entries": [{**row, "config": json.loads(row["config"])} for row in entries.to_dict("records")],
        }

    def annotated(self) -> dict[str, AnnData]:
        """Return the neurons of each dataset, see :func:`~december_plugin.bundles.annotated_neurons`."""
        from december_plugin.bundles.annotated import annotated_neurons

        return annotated_neurons(
            self.frame, readouts=self.readouts, covariance=self.covariance, provenance=self.provenance()
        )

    def types_names(self) -> list[str]:
        """Return the sets of known types that clusters of the result were compared with."""
        if self.settings.types_name is not None:
            return [self.settings.types_name]
        found: set[str] = set()
        for key in self.configuration_keys():
            found |= set(map(str, (self.tables.LabelAgreement & key).fetch("types_name")))
        return sorted(found)

    def _types(self) -> pd.DataFrame:
        frames = [pd.DataFrame({name: pd.Series(dtype="int64" if name == "unit_id" else "str") for name in TYPES})]
        for name in self.types_names():
            frames.append(self.tables.KnownTypes().frame(name).assign(types_name=name)[TYPES])
        return pd.concat(frames, ignore_index=True)
