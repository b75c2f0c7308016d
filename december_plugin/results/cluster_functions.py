"""Which clusters of stored models compute the same thing: their confusion, and blocks of clusters for any threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.evaluation.cluster_functions import cluster_blocks
from december_plugin.findings.cluster_functions import FunctionalBlocks
from december_plugin.results.queries import configuration_key, selected_assignments
from december_plugin.schemas.declare import DecemberTables
from december_plugin.schemas.restrictions import restricted

PAIR = ["first", "second", "first_neurons", "second_neurons", "correlation", "is_one_block"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FunctionalConfusion(FunctionalBlocks):
    """How similarly the clusters of one trained model respond.

    Attributes
    ----------
    key
        Of the row in ``ClusterConfusion``.
    method, n_clusters, seed
        Of the assignment.
    responses, n_orientations, n_images, clusters, sizes, correlations, blocks, title
        Of :class:`~december_plugin.findings.cluster_functions.FunctionalBlocks`.
    """

    key: dict[str, Any]
    method: str
    n_clusters: int
    seed: int

    @property
    def pairs(self) -> pd.DataFrame:
        """One row per pair: ``first``, ``second``, their neurons, ``correlation``, and ``is_one_block``."""
        first, second = np.triu_indices(len(self.clusters), 1)
        labels = self.blocks.labels
        columns = (
            *(self.clusters[first], self.clusters[second], self.sizes[first], self.sizes[second]),
            *(self.correlations[first, second], labels[first] == labels[second]),
        )
        return pd.DataFrame(dict(zip(PAIR, columns, strict=True)))


def cluster_confusion(
    tables: DecemberTables, restriction: Any = True, *, threshold: float | None = None
) -> list[FunctionalConfusion]:
    """Return which clusters compute the same thing, of every assignment for which workers have compared them.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which assignments and comparisons: it may name the key, ``method``, ``n_clusters``, and ``confusion_threshold``
        and ``confusion_responses`` ("linear" or "images") of ``ClusterConfusionSettings``.
    threshold
        Mean correlation down to which clusters are merged into blocks, -1 to 1; None: the stored one.

    Returns
    -------
    list of FunctionalConfusion
        By key.

    Raises
    ------
    SettingsError
        If the threshold is not a correlation.

    See Also
    --------
    cluster_pairs : The same as a data frame.
    december_plugin.plots.cluster_confusion_figure : Draws one of them.
    mei_confusion : Compares single neurons by their preferred images.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import cluster_confusion
    >>> lab = open_lab(schema="retina")
    >>> (found,) = cluster_confusion(lab.tables, {"method": "kmeans", "n_clusters": 3, "seed": 1})
    >>> found.clusters, found.sizes
    (array([0, 1, 2]), array([21, 24, 25]))
    >>> found.correlations.round(1)
    array([[1. , 0.5, 0.5],
           [0.5, 1. , 0.5],
           [0.5, 0.5, 1. ]])
    >>> found.blocks.labels  # by the threshold that was asked for
    array([1, 1, 0])
    """
    stored = tables.ClusterConfusion * tables.ClusterConfusionSettings.proj(
        "confusion_threshold", "confusion_responses"
    )
    names = tables.ClusterConfusion.primary_key
    rows = restricted(stored * selected_assignments(tables, True), restriction).fetch(as_dict=True, order_by=names)
    return [
        FunctionalConfusion(
            key={name: row[name] for name in names},
            method=str(row["method"]),
            n_clusters=int(row["n_clusters"]),
            seed=int(row["seed"]),
            responses=str(row["confusion_responses"]),
            n_orientations=int(row["n_orientations"]),
            n_images=None if row["n_confusion_images"] is None else int(row["n_confusion_images"]),
            clusters=row["confusion_clusters"],
            sizes=row["confusion_sizes"],
            correlations=row["correlations"],
            blocks=cluster_blocks(
                row["correlations"], threshold=float(row["confusion_threshold"]) if threshold is None else threshold
            ),
        )
        for row in rows
    ]


def cluster_pairs(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return all pairs of clusters that workers have compared, one row each.

    Parameters
    ----------
    tables, restriction
        As for :func:`cluster_confusion`.

    Returns
    -------
    pandas.DataFrame
        The key of the configuration, ``seed``, ``responses``, ``threshold`` and the columns of
        :attr:`FunctionalConfusion.pairs`.

    See Also
    --------
    cluster_confusion : The same with the blocks that clusters form.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import cluster_pairs
    >>> lab = open_lab(schema="retina")
    >>> pairs = cluster_pairs(lab.tables, {"method": "kmeans", "n_clusters": 3, "seed": 1})
    >>> pairs[["first", "second", "first_neurons", "second_neurons", "correlation"]].round(1)
       first  second  first_neurons  second_neurons  correlation
    0      0       1             21              24          0.5
    1      0       2             21              25          0.5
    2      1       2             24              25          0.5
    """
    key = [*configuration_key(tables), "seed"]
    frames = [
        found.pairs.assign(
            **{name: found.key[name] for name in key}, responses=found.responses, threshold=found.blocks.threshold
        )
        for found in cluster_confusion(tables, restriction)
    ]
    columns = [*key, "responses", "threshold", *PAIR]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
