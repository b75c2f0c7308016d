"""How stable the clusters of one stored model are when its neurons are resampled, as data frames."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from december_plugin.evaluation.stability import DEFAULT_RESAMPLINGS, DEFAULT_SHARE
from december_plugin.findings.summaries import stability_summary
from december_plugin.results.queries import configuration_key, frame_of, one_assignment, selected_assignments
from december_plugin.schemas.declare import DecemberTables

NO_NULL = {"null_mean": math.nan, "p_value": math.nan, "n_surrogates": 0}
STORED = {
    **{name: name for name in ("jaccard", "n_stable_clusters", "n_resampled_clusters")},
    "n_draws": "n_resamplings",
    "share": "resampled_share",
    "null_mean": "stability_null_mean",
    "p_value": "stability_p_value",
    "n_surrogates": "n_resampled_surrogates",
}


def stability_frame(
    tables: DecemberTables,
    restriction: Any,
    *,
    n_draws: int = DEFAULT_RESAMPLINGS,
    share: float = DEFAULT_SHARE,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how well the clusters of one assignment are found again in random parts of its neurons.

    Results of workers are read from ``WithinModelStability``; with other settings, it is computed now, which needs the
    store, and clusters ``n_draws`` times. For DECEMber, as in the null, only the clustering is repeated: the mixture,
    started by k-means, on the vectors at the end of the training.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Leaves one assignment.
    n_draws, share, seed
        See :func:`~december_plugin.evaluation.stability.cluster_stability`.

    Returns
    -------
    pandas.DataFrame
        One row per cluster: ``cluster``, ``n_neurons``, ``jaccard_mean`` and ``jaccard_sd`` over draws: from 0.75 on a
        cluster is stable, below 0.5 it dissolves (Hennig 2007). ``attrs`` has ``jaccard``, their mean weighted with
        neurons, ``agreement``, the mean adjusted Rand index between the clusters and those of the parts, ``n_draws``
        and ``share``; ``null_mean``, ``p_value`` and ``n_surrogates`` if workers have drawn surrogates, else NaN and 0.

    Raises
    ------
    SettingsError
        If the restriction leaves none or several assignments, a setting is not allowed, or a part has fewer neurons
        than there are clusters.

    See Also
    --------
    stability_table : What workers have computed, for all assignments.
    december_plugin.evaluation.cluster_stability : The same for any vectors.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import stability_frame
    >>> lab = open_lab(schema="retina")
    >>> frame = stability_frame(lab.tables, {"method": "kmeans", "n_clusters": 4, "seed": 1}, n_draws=5)
    >>> frame.round(1)  # the cluster of two neurons dissolves
       cluster  n_neurons  jaccard_mean  jaccard_sd
    0        0          2           0.1         0.0
    1        1         24           0.9         0.2
    2        2         25           0.9         0.1
    3        3         19           0.8         0.1
    >>> round(frame.attrs["jaccard"], 1)
    0.8
    """
    key = one_assignment(tables, restriction)
    settings = {"n_draws": n_draws, "share": share, "seed": seed}
    stored = tables.WithinModelStability().stored(key, **settings)
    found, null = stored or (tables.WithinModelStability().computed(key, **settings), NO_NULL)
    frame = stability_summary(found, n_draws=n_draws, share=share)
    frame.attrs |= null
    return frame


def stored_resampling(tables: DecemberTables, key: dict[str, Any]) -> dict[str, Any] | None:
    """Return the settings, for :func:`stability_frame`, of the most draws that are stored of an assignment, or None."""
    stored = tables.WithinModelStability * tables.Resampling & key
    columns = {"n_draws": "n_resamplings", "share": "resampled_share", "seed": "resampling_seed"}
    rows = stored.fetch(*columns.values(), as_dict=True, order_by="n_resamplings DESC, resampling_hash", limit=1)
    return {name: rows[0][column] for name, column in columns.items()} if rows else None


def stability_table(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return the stability of every assignment for which workers have computed it; the one with most draws.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which assignments to take.

    Returns
    -------
    pandas.DataFrame
        One row per assignment: its key, ``jaccard``, ``n_stable_clusters``, ``n_resampled_clusters``, ``n_draws``,
        ``share``, and ``null_mean``, ``p_value`` and ``n_surrogates``, NaN and 0 without a null.

    See Also
    --------
    stability_frame : One assignment, cluster by cluster.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import stability_table
    >>> lab = open_lab(schema="retina")
    >>> table = stability_table(lab.tables, {"method": "kmeans", "n_clusters": 3})
    >>> table[["seed", "jaccard", "n_stable_clusters", "n_draws", "share"]].round(2)
       seed  jaccard  n_stable_clusters  n_draws  share
    0     1      1.0                  3        2    0.5
    1     2      1.0                  3        2    0.5
    2     3      1.0                  3        2    0.5
    """
    key = [*configuration_key(tables), "seed"]
    found = tables.WithinModelStability * tables.Resampling & selected_assignments(tables, restriction).proj()
    frame = frame_of(found.proj(**STORED), *key, *STORED)
    frame = frame.astype({"null_mean": float, "p_value": float, "jaccard": float})
    frame = frame.sort_values(["n_draws", "n_surrogates"], ascending=False, kind="stable")
    return frame.drop_duplicates(key).sort_values(key, ignore_index=True)
