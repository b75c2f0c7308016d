"""Reads which clusters compute the same thing, and what they prefer, for the report and the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.evaluation.cluster_functions_settings import LINEAR
from december_plugin.evaluation.methods import with_count
from december_plugin.findings.aligned_vectors import AlignedVectors
from december_plugin.findings.cluster_functions import FunctionalBlocks, PreferredImages
from december_plugin.results.assignments import assignment_frame
from december_plugin.results.cluster_functions import cluster_confusion
from december_plugin.results.exciting_images import exciting_images, mei_confusion
from december_plugin.results.queries import configuration_key
from december_plugin.schemas.declare import DecemberTables
from december_plugin.schemas.stored_models import full_config, stored_embeddings

Found = TypeVar("Found")

NEURON = ["data_key", "unit_id"]


@dataclass(frozen=True, eq=False)
class ShownAssignments:
    """Chooses the assignment to show where there is room for only one.

    Attributes
    ----------
    tables
        The tables.
    agreement
        Rows of ``agreement_table`` of one dataset and model, with labels.
    chosen
        The row whose clusters are shown one by one.
    seed
        The seed whose numbers its clusters have; None if unknown.
    """

    tables: DecemberTables
    agreement: pd.DataFrame
    chosen: Mapping[Any, Any]
    seed: int | None

    def first(self, found: Sequence[Found], key_of: Callable[[Found], Mapping[str, Any]]) -> Found:
        """Return the result of the chosen configuration and seed, or the one closest to it.

        After that, results of aligned vectors come first, then those with a similar number of clusters, then small
        seeds.
        """

        def order(each: Found) -> tuple[Any, ...]:
            key = key_of(each)
            row = self.row_of(key)
            is_chosen = all(key[name] == self.chosen[name] for name in configuration_key(self.tables))
            apart = abs(int(row["n_clusters"]) - int(self.chosen["n_clusters"]))
            is_other = key["seed"] != self.seed if is_chosen else row["identity"].alignment is None
            return (not is_chosen, row["identity"].is_permuted, is_other, apart, key["seed"])

        return min(found, key=order)

    def row_of(self, key: Mapping[str, Any]) -> pd.Series:
        """Return the row of the configuration of an assignment."""
        names = configuration_key(self.tables)
        rows = self.agreement
        for name in names:
            rows = rows[rows[name] == key[name]]
        return rows.iloc[0]

    def has(self, key: Mapping[str, Any]) -> bool:
        """Return whether an assignment is of one of the configurations."""
        names = configuration_key(self.tables)
        return tuple(key[name] for name in names) in set(self.agreement[names].itertuples(index=False, name=None))

    def title_of(self, key: Mapping[str, Any]) -> str:
        """Return method, number of clusters and seed of an assignment."""
        row = self.row_of(key)
        is_found = row["identity"].finds_count
        named = with_count(str(row["label"]), int(row["n_clusters"]), is_found=is_found, n_models=1)
        return f"{named}, seed {key['seed']}"


def functional_blocks(
    shown: ShownAssignments, group: Mapping[str, Any]
) -> tuple[FunctionalBlocks | None, pd.DataFrame]:
    """Return which clusters of one model respond alike, and a row for every model where this is known.

    Parameters
    ----------
    shown
        What is shown first.
    group
        Restriction to the dataset and model.

    Returns
    -------
    (FunctionalBlocks or None, pandas.DataFrame)
        Of the frame, ``label``, ``n_clusters``, ``seed``, ``responses``, ``threshold``, ``n_orientations``,
        ``n_found`` (clusters with neurons) and ``n_blocks``, by configuration.
    """
    found = [each for each in cluster_confusion(shown.tables, group) if shown.has(each.key)]
    if not found:
        return None, pd.DataFrame()
    rows = [
        {
            "label": str(shown.row_of(each.key)["label"]),
            "n_clusters": each.n_clusters,
            "seed": each.seed,
            "responses": each.responses,
            "threshold": each.blocks.threshold,
            "n_orientations": each.n_orientations,
            "n_found": len(each.clusters),
            "n_blocks": each.blocks.n_blocks,
        }
        for each in found
    ]
    # What the model predicts comes before what it would predict without its output nonlinearity.
    found = sorted(found, key=lambda each: each.responses == LINEAR)
    table = pd.DataFrame(rows).sort_values(["label", "n_clusters", "responses", "threshold", "seed"], kind="stable")
    first = shown.first(found, lambda each: each.key)
    return replace(first, title=shown.title_of(first.key)), table.reset_index(drop=True)


def aligned_assignment(shown: ShownAssignments) -> dict[str, Any] | None:
    """Return the key of the assignment whose vectors are drawn before and after their alignment; None without one."""
    is_aligned = [method.alignment is not None and not method.is_permuted for method in shown.agreement["identity"]]
    names = configuration_key(shown.tables)
    configurations = shown.agreement.loc[is_aligned, names].to_dict("records")
    keys = (shown.tables.ClusterAssignment & configurations).fetch("KEY", order_by="seed") if configurations else []
    return shown.first(keys, lambda key: key) if keys else None


def aligned_vectors(shown: ShownAssignments, key: Mapping[str, Any], points: pd.DataFrame | None) -> AlignedVectors:
    """Return the readout vectors of an assignment before their alignment, their angles and clusters.

    Parameters
    ----------
    shown
        Whose labels are used.
    key
        Of the assignment, of aligned vectors.
    points
        t-SNE of its vectors: ``data_key``, ``unit_id``, ``x`` and ``y``; None without one.

    Raises
    ------
    EmbeddingError
        If vectors or angles cannot be read.
    """
    tables = shown.tables
    embeddings = stored_embeddings(tables.TrainedModel, full_config(tables.nnfabrik, dict(key), trainer=False), key)
    stored, kept = tables.vectors.angles_of(key, embeddings), tables.vectors.kept(key, embeddings)
    assigned = assignment_frame(tables, key)
    # Sessions in the model's order, neurons in the session's, as the vectors are.
    order = dict.fromkeys(embeddings.data_keys[kept].astype(str))
    clusters = [assigned.loc[assigned["data_key"] == data_key, "cluster"].to_numpy() for data_key in order]
    return AlignedVectors(
        title=shown.title_of(key),
        readouts=np.asarray(embeddings.vectors, dtype=np.float64)[kept],
        angles=np.nan_to_num(stored.angles, nan=0.0)[kept],
        n_orientations=stored.n_orientations,
        clusters=np.concatenate(clusters),
        coordinates=pd.DataFrame() if points is None else _islands(assigned, points, "group"),
    )


def _islands(assigned: pd.DataFrame, points: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the coordinates of a t-SNE with the clusters of an assignment of the same neurons."""
    found = points.merge(assigned[[*NEURON, "cluster"]], on=NEURON, how="left")
    found["cluster"] = found["cluster"].fillna(-1).astype(np.int64)
    return found.rename(columns={"cluster": name})[["x", "y", name]]


def preferred_assignment(shown: ShownAssignments, group: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the key of the maximally exciting images that are shown; None where none are computed.

    Parameters
    ----------
    shown
        What is shown first.
    group
        Restriction to the dataset and model.
    """
    keys = [key for key in (shown.tables.Mei & group).fetch("KEY") if shown.has(key)]
    return shown.first(keys, lambda key: key) if keys else None


def preferred_images(
    shown: ShownAssignments, key: Mapping[str, Any], functions: FunctionalBlocks | None, points: pd.DataFrame | None
) -> PreferredImages:
    """Return maximally exciting images of neurons of the clusters of one model.

    Parameters
    ----------
    shown
        Whose labels are used.
    key
        Of the images.
    functions
        Which clusters respond alike: where they are those of the same assignment, their blocks are taken.
    points
        t-SNE of the neurons: ``data_key``, ``unit_id``, ``x`` and ``y``; None without one.
    """
    tables = shown.tables
    found, title = exciting_images(tables, key), shown.title_of(key)
    assigned = assignment_frame(tables, {name: key[name] for name in tables.ClusterAssignment.primary_key})
    sizes = assigned["cluster"].value_counts()
    compared = mei_confusion(tables, key) if tables.MeiConfusion & key else None
    is_compared = compared is not None and len(compared.frame) > 0
    return PreferredImages(
        title=title,
        neurons=found.frame,
        images=found.images,
        grey=found.grey,
        norm=found.norm,
        n_models=len(found.seeds),
        sizes={int(cluster): int(n) for cluster, n in sizes.items() if cluster != NO_CLUSTER},
        islands=pd.DataFrame() if points is None else _islands(assigned, points, "cluster"),
        blocks=functions.block_of if functions is not None and functions.title == title else {},
        compared=compared.frame if compared is not None and is_compared else pd.DataFrame(),
        responses=np.asarray(compared.values, dtype=np.float64) if compared is not None else np.empty((0, 0)),
        outcome="" if compared is None or is_compared else compared.outcome,
    )
