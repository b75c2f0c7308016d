"""Types or a continuum: the agreement between seeds compared with its null, as pandas data frames.

Restrictions and configurations (dataset, model, trainer and clustering, without the seed) are those of
:mod:`december_plugin.results.agreement`. ``docs/are-there-types.md`` explains how to read them, and their limits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.findings.summaries import NULL_COLUMNS, above_null_columns, null_columns
from december_plugin.results.labels import CONFIGURATION, in_order, labelled_configurations
from december_plugin.results.queries import (
    assignments_of,
    configuration_key,
    current_labels,
    frame_of,
)
from december_plugin.schemas.declare import DecemberTables


def null_table(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return the agreement between seeds of every configuration with its null, where surrogates were drawn.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which assignments to take. A pair counts if both models are selected, and their labels are still those that
        they had when the surrogates were drawn.

    Returns
    -------
    pandas.DataFrame
        One row per configuration and ``surrogate_name``: ``label``, ``identity``, ``method``, ``n_clusters``,
        ``trainer_role``, the observed mean adjusted Rand index over pairs ``agreement_mean``, of the draws' means over
        the same pairs ``null_mean``, ``null_sd`` (divisor n - 1), ``null_low`` and ``null_high`` (2.5 and 97.5 %
        quantiles), ``n_draws``, ``n_pairs``, the one-sided ``p_value``; valleys between clusters, mean over the seeds,
        ``valleys_mean``, of surrogates ``null_valleys_mean``, and their ``valleys_p_value``, NaN where they were not
        computed; and the configuration's key.

    See Also
    --------
    agreement_table : The agreement of all configurations.
    december_plugin.plots.null_figure : Draws the table.
    december_plugin.evaluation.null_agreement : Computes a null without a database.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import null_table
    >>> lab = open_lab(schema="retina")
    >>> table = null_table(lab.tables, {"n_clusters": 3})
    >>> table[["label", "surrogate_name", "agreement_mean", "null_mean", "n_draws", "p_value"]].round(2)
          label surrogate_name  agreement_mean  null_mean  n_draws  p_value
    0  DECEMber          quick            0.68       0.23        3     0.25
    1   k-means          quick            0.42       0.09        3     0.25
    """
    models = assignments_of(tables, restriction)
    key = configuration_key(tables)
    names = dict(zip(*tables.Surrogate().fetch("surrogate_hash", "surrogate_name"), strict=True))
    current, observed = current_labels(tables, models), _observed(tables)
    entries = tables.SurrogateAgreement() & models[key].drop_duplicates().to_dict("records")
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    stored = ("seeds", "labels_md5s", "agreements", "valleys", "null_valleys")
    for entry in entries.fetch("KEY", *stored, as_dict=True, order_by="n_seeds"):
        configuration = tuple(entry[name] for name in key)
        seeds = [int(seed) for seed in entry["seeds"]]
        valid = {
            seed
            for seed, digest in zip(seeds, entry["labels_md5s"], strict=True)
            if current.get((*configuration, seed)) == digest
        }
        pairs = list(itertools.combinations(seeds, 2))
        values = [observed.get((*configuration, *pair), math.nan) for pair in pairs]
        used = [at for at, pair in enumerate(pairs) if valid.issuperset(pair) and math.isfinite(values[at])]
        kind = (*configuration, entry["surrogate_hash"])
        if used and len(used) >= best.get(kind, {"n_pairs": 0})["n_pairs"]:
            best[kind] = {
                **dict(zip(key, configuration, strict=True)),
                **null_columns(
                    np.asarray(entry["agreements"])[:, used],
                    [values[at] for at in used],
                    *_valleys(entry, sorted({seeds.index(seed) for at in used for seed in pairs[at]})),
                ),
                "surrogate_name": names[entry["surrogate_hash"]],
            }
    columns = [*key, "surrogate_name", "agreement_mean", *NULL_COLUMNS]
    frame = pd.DataFrame(list(best.values()), columns=columns).sort_values("surrogate_name")
    frame = in_order(frame.merge(labelled_configurations(tables, models), on=key, how="left"))
    return frame[[*CONFIGURATION, "surrogate_name", "agreement_mean", *NULL_COLUMNS, *key]]


def _valleys(entry: Mapping[str, Any], used: list[int]) -> tuple[np.ndarray | None, list[float]]:
    """Return valleys of surrogates and real ones, of the seeds at these places; None and [] if not computed."""
    if entry["null_valleys"] is None:
        return None, []
    return np.asarray(entry["null_valleys"])[:, used], np.asarray(entry["valleys"])[used].tolist()


def _observed(tables: DecemberTables) -> dict[tuple[Any, ...], float]:
    """Return the adjusted Rand index of every pair, by configuration and the two seeds."""
    names = [*configuration_key(tables), "seed_a", "seed_b"]
    pairs = frame_of(tables.SeedAgreement.proj("adjusted_rand_index"))
    return {tuple(row): value for *row, value in pairs[[*names, "adjusted_rand_index"]].itertuples(index=False)}


def above_null(tables: DecemberTables, restriction: Any, key: list[str]) -> pd.DataFrame:
    """Return how far each configuration's agreement between seeds is above its null."""
    return above_null_columns(null_table(tables, restriction), key)
