"""The numbers of a report and, neuron by neuron, those behind them, as data frames for files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.evaluation.model_selection import OF_ONE_MODEL
from december_plugin.findings.data import ExportTable
from december_plugin.findings.summaries import ABOVE_NULL, VALLEY_COLUMNS
from december_plugin.results.alignment import alignments
from december_plugin.results.assignments import assignment_frame
from december_plugin.results.cluster_counts import choose_cluster_count, cluster_count_table
from december_plugin.results.cluster_functions import PAIR, cluster_pairs
from december_plugin.results.consensus import consensus_frame, consensus_table
from december_plugin.results.exciting_images import exciting_neurons
from december_plugin.results.nulls import null_table
from december_plugin.results.performance import stored_columns
from december_plugin.results.queries import configuration_key, frame_of
from december_plugin.results.report import ReportSettings, read_trainings, selected_agreement
from december_plugin.results.stability import STORED, stability_table
from december_plugin.schemas.declare import DecemberTables

SUMMARY = ["configuration", "label", "method", "n_clusters", "trainer_role"]
NULL = ["surrogate_name", "agreement_mean", "null_mean", "null_sd", "null_low", "null_high", "p_value", "n_draws"]
NULLS = [*NULL, *VALLEY_COLUMNS]
NEURON = ["data_key", "unit_id"]
ALIGNMENT = {"phrase": "alignment", "n_neurons": "n_aligned_neurons", "n_zero": "n_zero_neurons"}
ALIGNED = [*ALIGNMENT.values(), "n_orientations", "equivariance_error", "temperature", "beta"]
ALIGNED += ["loss_before", "alignment_loss", "ambiguous_share"]


def export_tables(
    tables: DecemberTables,
    *,
    settings: ReportSettings,
    restriction: Any = True,
) -> list[ExportTable]:
    """Return the tables that an export writes.

    Parameters
    ----------
    tables
        The tables.
    settings
        ``types_name``, ``n_clusters``, ``dataset`` and ``model`` choose the configurations.
    restriction
        Which assignments to take of these.

    Returns
    -------
    list of ExportTable
        Large ones return their rows part by part, so that they need not fit into memory.

    Raises
    ------
    SettingsError
        If there is no assignment, or the settings leave none.

    See Also
    --------
    collect_report : Everything that the report says.
    december_plugin.sharing.write_bundle : Writes these tables, the models and the report into one file.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import export_tables
    >>> from december_plugin.results.report import ReportSettings
    >>> lab = open_lab(schema="retina")
    >>> tables = export_tables(lab.tables, settings=ReportSettings(n_clusters=3))
    >>> [table.name for table in tables][:5]
    ['agreement', 'null', 'cluster_counts', 'cluster_count_choices', 'consensus']
    >>> sum(len(rows) for rows in tables[-2].parts())  # assignments: one row per neuron and model
    420
    """
    agreement = selected_agreement(tables, settings, restriction)
    if settings.n_clusters is not None:
        agreement = agreement[agreement["n_clusters"] == settings.n_clusters].reset_index(drop=True)
    agreement.insert(0, "configuration", np.arange(1, len(agreement) + 1))
    trainings = read_trainings(tables, agreement)
    trainings.insert(0, "training", np.arange(1, len(trainings) + 1))
    reader = _Reader(tables, agreement, trainings)
    return [
        ExportTable("agreement", lambda: iter([agreement.drop(columns="identity")])),
        ExportTable("null", lambda: iter([reader.nulls()])),
        ExportTable("cluster_counts", lambda: iter([reader.counts()])),
        ExportTable("cluster_count_choices", lambda: iter([reader.choices()])),
        ExportTable("consensus", lambda: iter([reader.consensus()])),
        ExportTable("stability", lambda: iter([reader.stability()])),
        ExportTable("alignments", lambda: iter([reader.alignments()])),
        ExportTable("cluster_confusion", lambda: iter([reader.cluster_confusion()])),
        ExportTable("exciting_images", lambda: iter([reader.exciting_images()])),
        ExportTable("trainings", lambda: iter([trainings])),
        ExportTable("consensus_neurons", reader.consensus_neurons),
        ExportTable("assignments", reader.assignments),
        ExportTable("performance_neurons", reader.performance),
    ]


@dataclass(eq=False)
class _Reader:
    """Reads what belongs to the selected configurations, with their numbers in place of their keys."""

    tables: DecemberTables
    agreement: pd.DataFrame
    trainings: pd.DataFrame

    def __post_init__(self) -> None:
        self.key = configuration_key(self.tables)

    def _numbered(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Keep the rows of the selected configurations, and add their numbers and labels."""
        numbers = self.agreement[[*self.key, "configuration", "label"]]
        return frame.drop(columns="label").merge(numbers, on=self.key)

    def _keys(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        configuration = {name: row[name] for name in self.key}
        return (self.tables.ClusterAssignment & configuration).fetch("KEY", order_by="seed")

    def nulls(self) -> pd.DataFrame:
        return self._numbered(null_table(self.tables))[[*SUMMARY, *NULLS, "n_pairs"]]

    def _counts(self) -> pd.DataFrame:
        return self._numbered(cluster_count_table(self.tables))

    def counts(self) -> pd.DataFrame:
        criteria = [f"{criterion.curve}_{part}" for criterion in OF_ONE_MODEL for part in ("mean", "sd")]
        settings = ["trainer_settings", "clustering_settings"]
        agreement = ["n_models", "agreement_mean", "agreement_sd", "n_pairs", *ABOVE_NULL]
        return self._counts()[[*SUMMARY, *settings, *agreement, *criteria, "heldout_log_likelihood_se"]]

    def choices(self) -> pd.DataFrame:
        return choose_cluster_count(self._counts())

    def consensus(self) -> pd.DataFrame:
        found = ["n_seeds", "n_neurons", "n_clusters_found", "mean_stability", "core_fraction"]
        return self._numbered(consensus_table(self.tables))[[*SUMMARY, *found]]

    def stability(self) -> pd.DataFrame:
        """Return the stability of every model's clusters, as workers have computed it."""
        found = stability_table(self.tables).merge(self.agreement[[*self.key, *SUMMARY]], on=self.key)
        return found.rename(columns=STORED)[[*SUMMARY, "seed", *STORED.values()]]

    def alignments(self) -> pd.DataFrame:
        """Return how well the vectors that a configuration clusters could be aligned, in every model."""
        clusterings = frame_of(self.tables.Clustering.proj("alignment_hash"), "clustering_hash", "alignment_hash")
        own = self.agreement[[*self.key, *SUMMARY]].merge(clusterings, on="clustering_hash")
        own = own.dropna(subset="alignment_hash").astype({"alignment_hash": "str"})
        found = alignments(self.tables).rename(columns=ALIGNMENT).drop(columns="label")
        of_model = [name for name in self.key if name != "clustering_hash"]
        found = found.merge(own, on=[*of_model, "alignment_hash"])
        return found[[*SUMMARY, "seed", *ALIGNED]].sort_values(["configuration", "seed"], ignore_index=True)

    def cluster_confusion(self) -> pd.DataFrame:
        """Return every pair of clusters of every model, as far as workers have compared them."""
        found = cluster_pairs(self.tables).rename(columns={"responses": "confusion_responses"})
        found = found.rename(columns={"threshold": "confusion_threshold"})
        found = found.merge(self.agreement[[*self.key, *SUMMARY]], on=self.key)
        found = found.astype({"is_one_block": int})
        return found[[*SUMMARY, "seed", "confusion_responses", "confusion_threshold", *PAIR]]

    def exciting_images(self) -> pd.DataFrame:
        """Return the neurons whose maximally exciting images workers have found, without the images."""
        columns = ["mei_hash", "mei_models", *NEURON, "cluster", "rank", "test_correlation", "response", "ending"]
        found = exciting_neurons(self.tables).merge(self.agreement[[*self.key, *SUMMARY]], on=self.key)
        return found[[*SUMMARY, "seed", *columns]]

    def consensus_neurons(self) -> Iterator[pd.DataFrame]:
        columns = ["configuration", *NEURON, "cluster", "stability", "n_seeds", "confidence", "margin"]
        types = {"configuration": "int64", "unit_id": "int64", "cluster": "int64", "n_seeds": "int64"}
        yield _empty(columns, {**types, "stability": "float64", "confidence": "float64", "margin": "float64"})
        for row in self.agreement.to_dict("records"):
            keys = self._keys(row)
            if len(keys) > 1:
                frame = consensus_frame(self.tables, keys)
                yield frame.assign(configuration=row["configuration"])[columns]

    def assignments(self) -> Iterator[pd.DataFrame]:
        columns = ["configuration", "seed", *NEURON, "cluster", "confidence"]
        types = {"configuration": "int64", "seed": "int64", "unit_id": "int64", "cluster": "int64"}
        yield _empty(columns, {**types, "confidence": "float64"})
        for row in self.agreement.to_dict("records"):
            for key in self._keys(row):
                frame = assignment_frame(self.tables, key)
                yield frame.assign(configuration=row["configuration"], seed=int(key["seed"]))[columns]

    def performance(self) -> Iterator[pd.DataFrame]:
        scores = {
            "test_correlation": "single_trial_correlations",
            "correlation_to_average": "correlations_to_average",
            "explainable_variance": "explainable_variances",
            "average_ceiling": "ceilings_to_average",
            "normalized_correlation": "normalized_correlations",
            "feve": "feves",
        }
        columns = ["training", *NEURON, *scores]
        yield _empty(columns, {"training": "int64", "unit_id": "int64", **dict.fromkeys(scores, "float64")})
        key = [name for name in self.tables.TrainedModel.primary_key if name in self.trainings]
        for row in self.trainings.to_dict("records"):
            tested = self.tables.TestPerformance.Session & {name: row[name] for name in key}
            sessions = stored_columns(tested, ["data_key", "tested_unit_ids", *scores.values()])
            for session in sessions.sort_values("data_key").to_dict("records"):
                values = {name: session[column] for name, column in scores.items()}
                frame = pd.DataFrame({"unit_id": session["tested_unit_ids"]})
                for name, value in values.items():
                    frame[name] = value.astype(float) if isinstance(value, np.ndarray) else np.nan
                yield frame.assign(training=row["training"], data_key=session["data_key"])[columns]


def _empty(columns: list[str], types: dict[str, str]) -> pd.DataFrame:
    """Return a frame without rows, so that an empty file has its columns, too."""
    return pd.DataFrame({name: pd.Series(dtype=types.get(name, "str")) for name in columns})
