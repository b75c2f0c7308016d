"""Types or a continuum: questions to the filled tables, answered as pandas data frames.

They stand beside those of :mod:`december_plugin.schemas.queries`, take the same restrictions, and speak of the same
configurations: data set, model, trainer and clustering, without the seed. ``docs/are-there-types.md`` says how to read
the answers, and what they cannot say.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.cluster_counts import FEWEST_COUNTS, Pick, pick_count
from december_plugin.naming import in_order
from december_plugin.schemas.consensus import consensus_of
from december_plugin.schemas.queries import (
    _assignments,
    _frame,
    _pair_summary,
    configuration_key,
    labelled_configurations,
    one_configuration,
)
from december_plugin.schemas.tables import DecemberTables
from december_plugin.surrogates import null_band

NULL_COLUMNS = ("null_mean", "null_sd", "null_low", "null_high", "n_draws", "n_pairs", "p_value")
CONFIGURATION = ("label", "method", "n_clusters", "trainer_role")
CRITERIA = ("heldout_log_likelihood", "bic", "silhouette")
CURVE = (
    *("dataset_fn", "dataset_hash", "model_fn", "model_hash", "trainer_fn", "trainer_role", "trainer_settings"),
    *("method", "clustering_settings"),
)
# Differences of the Bayesian information criterion below this are weak evidence (Kass and Raftery 1995).
BIC_TOLERANCE = 10.0
WORDS = {
    "agreement": "the agreement between seeds",
    "heldout_log_likelihood": "the held-out log likelihood",
    "bic": "the BIC",
    "silhouette": "the silhouette",
}


def null_table(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return the agreement between seeds of every configuration beside its null, where surrogates were drawn.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which assignments to take. Pairs count of which both models are selected, and whose labels are still those
        beside which the surrogates were drawn.

    Returns
    -------
    pandas.DataFrame
        One row per configuration and ``surrogate_name``: ``label``, ``method``, ``n_clusters``, ``trainer_role``, the
        observed mean adjusted Rand index over pairs ``seeds_mean``, of the draws' means over the same pairs
        ``null_mean``, ``null_sd`` (divisor n - 1), ``null_low`` and ``null_high`` (2.5 and 97.5 % quantiles),
        ``n_draws``, ``n_pairs``, the one-sided ``p_value``, and the configuration's key.
    """
    models = _assignments(tables, restriction)
    key = configuration_key(tables)
    names = dict(zip(*tables.Surrogate().fetch("surrogate_hash", "surrogate_name"), strict=True))
    current, observed = _current_labels(tables, models), _observed(tables)
    entries = tables.SurrogateAgreement() & models[key].drop_duplicates().to_dict("records")
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in entries.fetch("KEY", "seeds", "labels_md5s", "agreements", as_dict=True, order_by="n_seeds"):
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
                **_null_row(np.asarray(entry["agreements"])[:, used], [values[at] for at in used]),
                "surrogate_name": names[entry["surrogate_hash"]],
            }
    columns = [*key, "surrogate_name", "seeds_mean", *NULL_COLUMNS]
    frame = pd.DataFrame(list(best.values()), columns=columns).sort_values("surrogate_name")
    frame = in_order(frame.merge(labelled_configurations(tables, models), on=key, how="left"))
    return frame[[*CONFIGURATION, "surrogate_name", "seeds_mean", *NULL_COLUMNS, *key]]


def cluster_count_table(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return the criteria for the number of clusters of every configuration, side by side.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which assignments to take.

    Returns
    -------
    pandas.DataFrame
        One row per configuration: ``label``, ``method``, ``n_clusters``, ``trainer_role``; ``trainer_settings`` and
        ``clustering_settings``, without the number of clusters, in words: rows that differ in K alone have the same;
        ``n_models``;
        agreement between seeds ``seeds_mean``, ``seeds_sd``, ``n_pairs``; means and standard deviations over models of
        the held-out log likelihood (nat per neuron), the Bayesian information criterion and the silhouette;
        ``heldout_log_likelihood_se``, the mean over models of the standard error over splits; and the configuration's
        key. What is not computed yet, or has no value, is NaN.
    """
    models = _assignments(tables, restriction)
    key = configuration_key(tables)
    wanted = [*CRITERIA, "heldout_log_likelihood_se"]
    quality = _frame(tables.ClusterQuality.proj(*wanted))
    models = models.merge(quality, on=[*key, "seed"], how="left")
    models[wanted] = models[wanted].astype(float)
    groups = models.groupby(key, sort=False, dropna=False)
    frame = groups.size().to_frame("n_models")
    for name in CRITERIA:
        frame[f"{name}_mean"], frame[f"{name}_sd"] = groups[name].mean(), groups[name].std()
    frame["heldout_log_likelihood_se"] = groups["heldout_log_likelihood_se"].mean()
    frame = frame.reset_index().merge(_pair_summary(tables, models, "adjusted_rand_index"), on=key, how="left")
    frame["n_pairs"] = frame["n_pairs"].fillna(0).astype(int)
    settings = {
        (row["trainer_fn"], row["trainer_hash"]): _settings_in_words(row["trainer_config"])
        for row in tables.nnfabrik.Trainer().fetch("trainer_fn", "trainer_hash", "trainer_config", as_dict=True)
    }
    clusterings = dict(zip(*tables.Clustering().fetch("clustering_hash", "settings"), strict=True))
    frame["trainer_settings"] = [
        settings.get(pair, "") for pair in zip(frame["trainer_fn"], frame["trainer_hash"], strict=True)
    ]
    frame["clustering_settings"] = [_settings_in_words(clusterings[name]) for name in frame["clustering_hash"]]
    criteria = [f"{name}_{part}" for name in CRITERIA for part in ("mean", "sd")]
    first = [*CONFIGURATION, "trainer_settings", "clustering_settings", "n_models"]
    order = [*first, "seeds_mean", "seeds_sd", "n_pairs", *criteria, "heldout_log_likelihood_se", *key]
    return in_order(frame.merge(labelled_configurations(tables, models), on=key, how="left"))[order]


def choose_cluster_count(frame: pd.DataFrame) -> pd.DataFrame:
    """Say which number of clusters each criterion picks, and in plain words whether they pick any.

    The uncertainty of a mean over models is its standard error; of the held-out log likelihood also that over splits,
    if it is larger; of the BIC at least 10; of the agreement between seeds, whose pairs share seeds, the standard
    deviation divided by the square root of half the number of seeds. A criterion picks the smallest K that is as good
    as the best one within this, and the agreement the best K itself. It picks none if what is as good reaches the
    smallest or the largest K that was tried, or if fewer than three were: see
    :func:`december_plugin.cluster_counts.pick_count`.

    Parameters
    ----------
    frame
        From :func:`cluster_count_table`.

    Returns
    -------
    pandas.DataFrame
        One row per data set, model, trainer (but for its number of clusters) and method: ``smallest``, ``largest`` and
        ``n_counts`` of the K that were tried; ``agreement``, ``heldout_log_likelihood``, ``bic`` and ``silhouette``,
        the K that each picks, NaN for none; ``statement``, a sentence.
    """
    by = list(CURVE)
    columns = ["label", *by, "smallest", "largest", "n_counts", *WORDS, "statement"]
    rows = []
    for values, curve in frame.groupby(by, sort=True, dropna=False):
        curve = curve.sort_values("n_clusters").drop_duplicates("n_clusters")
        picks = _picks(curve)
        counts = [int(count) for count in curve["n_clusters"]]
        rows.append(
            {
                "label": " / ".join(dict.fromkeys(curve["label"])),
                **dict(zip(by, values, strict=True)),
                "smallest": counts[0],
                "largest": counts[-1],
                "n_counts": len(counts),
                **{name: float(pick.count) if pick.count is not None else math.nan for name, pick in picks.items()},
                "statement": _statement(picks, counts),
            }
        )
    return pd.DataFrame(rows, columns=columns)


def consensus_table(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return how much the seeds of every configuration share, from the table ``Consensus``.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which assignments to take; a configuration is left out unless ``Consensus`` has an entry of exactly the seeds
        that are selected, with the labels that they have now.

    Returns
    -------
    pandas.DataFrame
        One row per configuration: ``label``, ``method``, ``n_clusters``, ``trainer_role``, ``n_seeds``, ``n_neurons``
        (that all seeds have), ``n_clusters_found``, ``mean_stability``, ``core_fraction`` (share of neurons that all
        seeds put into the same consensus cluster), and the configuration's key.
    """
    models = _assignments(tables, restriction)
    key = configuration_key(tables)
    selected: dict[tuple[Any, ...], dict[int, str]] = {}
    for (*names, seed), digest in _current_labels(tables, models).items():
        selected.setdefault(tuple(names), {})[int(seed)] = digest
    described = {
        tuple(row[name] for name in key): {name: row[name] for name in (*CONFIGURATION, "gradient_ratio")}
        for row in labelled_configurations(tables, models).to_dict("records")
    }
    columns = {"n_consensus_neurons": "n_neurons", "n_consensus_clusters": "n_clusters_found"}
    found = ["n_seeds", "n_neurons", "n_clusters_found", "mean_stability", "core_fraction"]
    rows = []
    for entry in tables.Consensus().fetch(as_dict=True):
        configuration = tuple(entry[name] for name in key)
        seeds = dict(zip((int(seed) for seed in entry["seeds"]), entry["labels_md5s"], strict=True))
        if selected.get(configuration) == seeds:
            renamed = {columns.get(name, name): value for name, value in entry.items()}
            rows.append({**{name: renamed[name] for name in (*key, *found)}, **described[configuration]})
    order = [*CONFIGURATION, *found, *key]
    return in_order(pd.DataFrame(rows, columns=[*order, "gradient_ratio"]))[order]


def consensus_frame(tables: DecemberTables, restriction: Any) -> pd.DataFrame:
    """Return the consensus cluster of every neuron of one configuration, from the labels of its seeds as they are now.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Leaves at least two seeds of one configuration.

    Returns
    -------
    pandas.DataFrame
        ``data_key``, ``unit_id``, ``cluster`` (numbered as in the reference seed), ``stability`` (the share of seeds
        that put the neuron there, 1 = all), ``n_seeds``, and means over seeds of ``confidence`` and ``margin`` (the
        largest minus the second largest responsibility; NaN if a seed's were not stored), for the neurons that all
        seeds have. ``attrs`` has the ``reference_seed``.

    Raises
    ------
    SettingsError
        If the restriction leaves several configurations or fewer than two seeds.
    """
    keys = one_configuration(tables, restriction)
    found = consensus_of(tables.ClusterAssignment, keys)
    frame = pd.DataFrame(
        {
            "data_key": found.neurons.ids.data_keys,
            "unit_id": found.neurons.ids.unit_ids,
            "cluster": found.partition.clusters,
            "stability": found.partition.stability,
            "n_seeds": len(keys),
            "confidence": found.confidences,
            "margin": found.margins,
        }
    )
    frame.attrs["reference_seed"] = int(keys[found.partition.reference]["seed"])
    return frame


# --- parts of the above ------------------------------------------------------------------------------------------


def _current_labels(tables: DecemberTables, models: pd.DataFrame) -> dict[tuple[Any, ...], str]:
    """Return the digests of the labels that the selected assignments have now, by configuration and seed."""
    names = [*configuration_key(tables), "seed"]
    digests = models[names].merge(_frame(tables.ClusterAssignment.proj("labels_md5")), on=names)
    return {tuple(row): digest for *row, digest in digests[[*names, "labels_md5"]].itertuples(index=False)}


def _observed(tables: DecemberTables) -> dict[tuple[Any, ...], float]:
    """Return the adjusted Rand index of every pair, by configuration and the two seeds."""
    names = [*configuration_key(tables), "seed_a", "seed_b"]
    pairs = _frame(tables.SeedAgreement.proj("adjusted_rand_index"))
    return {tuple(row): value for *row, value in pairs[[*names, "adjusted_rand_index"]].itertuples(index=False)}


def _null_row(agreements: np.ndarray, observed: list[float]) -> dict[str, Any]:
    """Return the columns of the null for agreements (draws, pairs) and the observed ones of the same pairs."""
    mean = float(np.mean(observed))
    band = null_band(agreements.mean(axis=1), mean)
    return {
        "seeds_mean": mean,
        "null_mean": band.mean,
        "null_sd": band.sd,
        "null_low": band.low,
        "null_high": band.high,
        "n_draws": len(agreements),
        "n_pairs": len(observed),
        "p_value": band.p_value,
    }


def _picks(curve: pd.DataFrame) -> dict[str, Pick]:
    counts = curve["n_clusters"].astype(int).tolist()
    n_models = curve["n_models"].to_numpy(dtype=float)

    def pick(name: str, errors: np.ndarray, **settings: Any) -> Pick:
        values = curve[name].to_numpy(dtype=float)
        return pick_count(counts, values.tolist(), np.nan_to_num(errors).tolist(), **settings)

    def standard_error(name: str) -> np.ndarray:
        return np.asarray(np.nan_to_num(curve[f"{name}_sd"].to_numpy(dtype=float)) / np.sqrt(n_models))

    over_splits = np.nan_to_num(curve["heldout_log_likelihood_se"].to_numpy(dtype=float))
    seeds_error = curve["seeds_sd"].to_numpy(dtype=float) / np.sqrt(np.maximum(n_models / 2, 1))
    held_out_error = np.maximum(standard_error("heldout_log_likelihood"), over_splits)
    return {
        "agreement": pick("seeds_mean", seeds_error, smallest_as_good=False),
        "heldout_log_likelihood": pick("heldout_log_likelihood_mean", held_out_error),
        "bic": pick("bic_mean", np.maximum(standard_error("bic"), BIC_TOLERANCE), better="smaller"),
        "silhouette": pick("silhouette_mean", standard_error("silhouette")),
    }


def _statement(picks: Mapping[str, Pick], counts: list[int]) -> str:
    if len(counts) < FEWEST_COUNTS:
        tried = " and ".join(map(str, counts))
        return f"Only K = {tried} was tried; choosing a number of clusters takes at least three."
    tried = f"between K = {counts[0]} and {counts[-1]}"
    chosen = {name: pick for name, pick in picks.items() if pick.count is not None}
    others = "; ".join(f"{WORDS[name]} {pick.why_not}" for name, pick in picks.items() if pick.count is None)
    if not chosen:
        return f"No criterion picks a number of clusters {tried}: {others}."
    said = ", ".join(f"{WORDS[name]} picks K = {pick.count}{_range(pick)}" for name, pick in chosen.items())
    said = said[0].upper() + said[1:]
    numbers = {pick.count for pick in chosen.values()}
    if not others:
        agree = "all criteria agree" if len(numbers) == 1 else "the criteria do not agree"
        return f"{said}: {agree}."
    agree = "" if len(numbers) == 1 else ", and they do not agree"
    return f"{said}{agree}; no choice by the others ({others})."


def _range(pick: Pick) -> str:
    if len(pick.as_good) < 2:
        return ""
    return f" (as good within the error: {', '.join(map(str, pick.as_good))})"


def _settings_in_words(config: Any) -> str:
    if not isinstance(config, Mapping):
        return ""
    return ", ".join(f"{name}={config[name]}" for name in sorted(config) if name != "n_clusters")
