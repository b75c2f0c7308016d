"""Agreement across configurations, as a pandas data frame: which models of the same neurons agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from december_plugin.clustering.methods import alignment_recipe
from december_plugin.evaluation.agreement import MEASURES
from december_plugin.evaluation.similarity import SIMILARITIES
from december_plugin.results.labels import labelled_configurations, names_of
from december_plugin.results.queries import assignments_of, configuration_key, frame_of, seed_agreement_of
from december_plugin.schemas.configurations import DIFFERS
from december_plugin.schemas.declare import DecemberTables

SPACE = ("space", "normalize")
KINDS = ("model", "trainer", "dataset")
NUMBERS = ("n_common_neurons", "n_seed_pairs", *MEASURES, "adjusted_rand_index_sd", *SIMILARITIES)


def configuration_table(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return agreement of clusters and similarity of embeddings of every pair of configurations, and of their seeds.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which assignments to take, see :mod:`december_plugin.results.queries`.

    Returns
    -------
    pandas.DataFrame
        One row for each clustering and pair of configurations that have neurons in common, and one for each
        configuration of several seeds with itself, ``name_a`` = ``name_b``, with the agreement over all its pairs of
        seeds that are selected. ``name_a``, ``name_b``: model, trainer and dataset, as far as they differ;
        ``method``, ``n_clusters``, ``space`` and ``normalize``, None where DECEMber's mixtures are of different ones;
        ``minimum_test_correlation`` (NaN: all neurons); ``alignment``, how vectors are aligned first, in words ("":
        they are not); ``n_common_neurons``, ``n_seed_pairs``, the measures of
        :mod:`december_plugin.evaluation.agreement` and of :mod:`december_plugin.evaluation.similarity`, means over
        pairs of seeds (similarity: of at most 10); ``clustering_hash``. Pairs with a new seed are missing until they
        are computed again; the similarity of a configuration to itself is NaN where it is not computed.

    See Also
    --------
    agreement_table : Agreement and performance of each configuration.
    december_plugin.plots.configurations_figure : Draws the table.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import configuration_table
    >>> lab = open_lab(schema="retina")
    >>> table = configuration_table(lab.tables, {"method": "kmeans"})
    >>> table[["n_clusters", "n_seed_pairs", "adjusted_rand_index", "v_measure", "linear_cka"]].round(2)
       n_clusters  n_seed_pairs  adjusted_rand_index  v_measure  linear_cka
    0           2             3                 0.47       0.35        0.44
    1           3             3                 0.42       0.38        0.44
    2           4             3                 0.36       0.35        0.44
    """
    models = assignments_of(tables, restriction)
    key = configuration_key(tables)
    configurations = labelled_configurations(tables, models)
    spaces = {name: [getattr(method.space, name) for method in configurations["identity"]] for name in SPACE}
    configurations = configurations[[*key, "method", "n_clusters"]].assign(
        name=_names(tables, configurations), **spaces
    )
    query = tables.ConfigurationAgreement & tables.ConfigurationAgreement().key_source
    found = frame_of(query.proj(*NUMBERS) * tables.ConfigurationPair)
    first = configurations.rename(columns={"name": "name_a"})
    renamed = {name: f"{name}_b" for name in ("name", *SPACE, *DIFFERS)}
    second = configurations[[*key, "name", *SPACE]].rename(columns=renamed)
    pairs = found.merge(first, on=key).merge(second, on=[f"{name}_b" if name in DIFFERS else name for name in key])
    pairs = pairs[pairs["n_common_neurons"] > 0].copy()
    is_own = np.all([pairs[name] == pairs[f"{name}_b"] for name in DIFFERS], axis=0)
    own, pairs = pairs[is_own], pairs[~is_own].copy()
    differ = np.any([pairs[name] != pairs[f"{name}_b"] for name in SPACE], axis=0)
    pairs.loc[differ, list(SPACE)] = None
    within = _agreement_within(tables, models).merge(configurations, on=key)
    within = within.assign(name_a=within["name"], name_b=within["name"])
    within = within.merge(own[[*key, "n_common_neurons", *SIMILARITIES]], on=key, how="left")
    columns = ["name_a", "name_b", "method", "n_clusters", *NUMBERS, "clustering_hash", *SPACE]
    table = pd.concat(
        [each.reindex(columns=columns) for each in (within, pairs) if len(each)] or [within.reindex(columns=columns)]
    )
    numbers = {name: "float64" for name in NUMBERS if not name.startswith("n_")}
    table = table.astype(numbers).sort_values(["method", "n_clusters", "clustering_hash", "name_a", "name_b"])
    filters = frame_of(tables.Clustering.proj("minimum_test_correlation", "settings"))
    recipes = [alignment_recipe(settings) for settings in filters.pop("settings")]
    filters = filters.astype({"minimum_test_correlation": float})
    filters = filters.assign(alignment=[recipe.phrase if recipe else "" for recipe in recipes])
    return table.merge(filters, on="clustering_hash", how="left").reset_index(drop=True)


def _agreement_within(tables: DecemberTables, models: pd.DataFrame) -> pd.DataFrame:
    """Return the agreement between the seeds of every configuration, by all measures."""
    key = configuration_key(tables)
    first, *others = MEASURES
    columns = {"agreement_mean": first, "agreement_sd": f"{first}_sd", "n_pairs": "n_seed_pairs"}
    found = seed_agreement_of(tables, models, first).rename(columns=columns)
    for measure in others:
        means = seed_agreement_of(tables, models, measure).rename(columns={"agreement_mean": measure})
        found = found.merge(means[[*key, measure]], on=key)
    return found


def _names(tables: DecemberTables, configurations: pd.DataFrame) -> pd.Series:
    """Return what each configuration is called: its model, trainer and dataset, as far as there are several."""
    parts = []
    for kind in KINDS:
        columns = [f"{kind}_fn", f"{kind}_hash"]
        if len(configurations[columns].drop_duplicates()) > 1:
            names = names_of(tables, kind, configurations)
            parts.append([names[row] for row in configurations[columns].itertuples(index=False, name=None)])
    if not parts:
        return pd.Series("", index=configurations.index, dtype=object)
    return pd.Series([", ".join(each) for each in zip(*parts, strict=True)], index=configurations.index, dtype=object)
