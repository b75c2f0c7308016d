"""Reads what a report and the figures show of clusters that compute the same thing, and of what they prefer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from december_plugin.evaluation.cluster_functions_settings import LINEAR
from december_plugin.evaluation.methods import with_count
from december_plugin.findings.cluster_functions import FunctionalBlocks
from december_plugin.results.cluster_functions import FunctionalConfusion, cluster_confusion
from december_plugin.results.queries import configuration_key
from december_plugin.schemas.declare import DecemberTables

Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class ShownAssignments:
    """Which assignments are shown first, where there is room for one.

    Attributes
    ----------
    tables
        The tables.
    agreement
        Rows of ``agreement_table`` of one dataset and model, with labels.
    chosen
        The row whose clusters are shown one by one.
    seed
        The seed whose numbers its clusters have; None if that is not known.
    """

    tables: DecemberTables
    agreement: pd.DataFrame
    chosen: Mapping[Any, Any]
    seed: int | None

    def first(self, found: Sequence[Found], key_of: Callable[[Found], Mapping[str, Any]]) -> Found:
        """Return of several results the one of the chosen configuration and seed, or the nearest to it.

        Next come those with nearly as many clusters, and of these small seeds.
        """

        def order(each: Found) -> tuple[Any, ...]:
            key = key_of(each)
            row = self.row_of(key)
            is_chosen = all(key[name] == self.chosen[name] for name in configuration_key(self.tables))
            apart = abs(int(row["n_clusters"]) - int(self.chosen["n_clusters"]))
            return (not is_chosen, key["seed"] != self.seed if is_chosen else False, apart, key["seed"])

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
    """Return which clusters of one model respond alike, and a row for every model for which that is known.

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
    return _shown_blocks(shown, shown.first(found, lambda each: each.key)), table.reset_index(drop=True)


def _shown_blocks(shown: ShownAssignments, found: FunctionalConfusion) -> FunctionalBlocks:
    return FunctionalBlocks(
        title=shown.title_of(found.key),
        responses=found.responses,
        n_orientations=found.n_orientations,
        n_images=found.n_images,
        clusters=found.clusters,
        sizes=found.sizes,
        correlations=found.correlations,
        blocks=found.blocks,
    )
