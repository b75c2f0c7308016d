"""The table of agreement as text: DECEMber next to its controls, K by K."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from december_plugin.text.formatting import numbered

if TYPE_CHECKING:
    import pandas as pd

MEASURE_NAMES = {
    "adjusted_rand_index": "ARI",
    "fowlkes_mallows": "Fowlkes-Mallows",
    "homogeneity": "homogeneity",
    "completeness": "completeness",
    "v_measure": "V-measure",
}

HOW_TO_READ = """\
How to read it: the clustering loss has helped only if DECEMber, at the same K and an equal test correlation, exceeds
the t mixture (the same mixture, fitted afterwards) and "k-means, end of pretraining" (the kind of partition that it
starts from). Agreement between seeds alone is not evidence of cell types: it can be highest at a wrong K, and a strong
loss can raise it by freezing the partition that it started from.
"""
HOW_TO_READ_POST_HOC = """\
How to read it: the methods cluster the models as they are; compare rows of the same K. Agreement between seeds alone
is not evidence of cell types: it can be highest at a wrong K, and models of a continuum agree, too. Compare it with its
null, the agreement on surrogates without clusters.
"""


PERFORMANCE_WORDS = """\
Mean ± sd over models, of means over neurons. Single trials, average: correlation with single trials, and over images
after averaging their repeats. Ceiling: what a neuron's true mean response to each image would reach; a model that uses
behaviour may pass it. Normalized: average over its ceiling. FEVE: explained fraction of the explainable variance. The
last two are over neurons with an explainable variance of at least 0.15; all but the first need repeated images."""


BEST = "* the highest agreement at its K"
NULL = "null: agreement on surrogates without clusters, mean ± sd over draws; p: share of these that agree as well"
VALLEYS = """\
valleys: how far the density of neurons falls between clusters, 0 to 1 / the same on these surrogates; p: share of these
with valleys as deep. They are shallow between parts of a continuum, and between types that overlap"""
STABILITY = """\
stability: within each model, how well its clusters are found again in random parts of its neurons: mean Jaccard
similarity, weighted with neurons, mean ± sd over seeds; from 0.75 a cluster is stable, below 0.5 it dissolves. It needs
no second seed and says less than their agreement: slices of a continuum are found again, too"""
STABILITY_NULL = """\
p of stability: share of surrogates without clusters whose clusters are as stable within a model; of several seeds the
largest"""
NO_STABILITY = """\
With a single seed, there is nothing to compare. `stability: [{n_draws: 20}]` in the sweep or import file, registered or
imported again, lets workers compute how well its clusters are found again in random parts of its neurons; the report
of one model does so for those that it shows."""


def with_stability(table: pd.DataFrame, stability: pd.DataFrame) -> pd.DataFrame:
    """Return rows of ``agreement_table`` with the stability of ``stability_table``, over seeds.

    Returns
    -------
    pandas.DataFrame
        The rows with mean and standard deviation of the ``jaccard``, ``stability_mean`` and ``stability_sd``; of the
        null the mean, ``stability_null_mean``, and the largest p value, ``stability_p_value``, NaN where a seed has
        none.
    """
    import pandas as pd

    own = [name for name in table.columns if name.endswith(("_fn", "_hash"))]
    groups = stability.groupby(own)
    found = pd.DataFrame({"stability_mean": groups["jaccard"].mean(), "stability_sd": groups["jaccard"].std()})
    found["stability_null_mean"] = groups["null_mean"].agg(lambda values: values.mean(skipna=False))
    found["stability_p_value"] = groups["p_value"].agg(lambda values: values.max(skipna=False))
    return table.merge(found.reset_index(), on=own, how="left")


def how_to_read(table: pd.DataFrame) -> str:
    """Return how to read rows of ``agreement_table``; a clustering loss is mentioned only if one was trained with."""
    from december_plugin.clustering.methods import DECEMBER

    return HOW_TO_READ if (table["method"] == DECEMBER).any() else HOW_TO_READ_POST_HOC


def with_null(table: pd.DataFrame, nulls: pd.DataFrame) -> pd.DataFrame:
    """Return rows of ``agreement_table`` with their null from ``null_table``; the highest of several."""
    from december_plugin.findings.summaries import VALLEY_COLUMNS, highest_nulls

    own = [name for name in nulls.columns if name.endswith(("_fn", "_hash"))]
    nulls = highest_nulls(nulls, own)
    columns = [*own, "surrogate_name", "null_mean", "null_sd", "p_value", *VALLEY_COLUMNS]
    return table.merge(nulls[columns], on=own, how="left")


def agreement_text(table: pd.DataFrame, *, types_name: str | None = None, measure: str = "adjusted_rand_index") -> str:
    """Return rows of ``agreement_table`` as text; ``types_name`` and ``measure`` are in its header."""
    return "\n".join(line for line, _ in agreement_lines(table, types_name=types_name, measure=measure))


def agreement_lines(
    table: pd.DataFrame, *, types_name: str | None = None, measure: str = "adjusted_rand_index"
) -> list[tuple[str, bool]]:
    """Return the lines of the table, each with whether it is the best of its K, which a star marks, too.

    With columns ``null_mean``, ``null_sd`` and ``p_value`` the null follows the agreement between seeds; with
    ``valleys_mean``, ``null_valleys_mean`` and ``valleys_p_value`` the valleys between clusters do; with
    ``stability_mean`` and ``stability_sd`` the stability within each model, with ``stability_p_value`` its p value.
    """
    name = MEASURE_NAMES.get(measure, measure)
    width = max([len(label) for label in table["label"]] + [6])
    has_null = "p_value" in table and bool(table["p_value"].notna().any())
    has_valleys = has_null and "valleys_p_value" in table and bool(table["valleys_p_value"].notna().any())
    columns = [(f"{name} between seeds", "agreement"), ("test correlation", "test_correlation")]
    if table["types_agreement_mean"].notna().any():
        columns.insert(1, (f"{name} to {types_name or 'known types'}", "types_agreement"))
    has_stability = "stability_mean" in table and bool(table["stability_mean"].notna().any())
    has_stability_null = has_stability and "stability_p_value" in table and table["stability_p_value"].notna().any()
    if has_stability:
        columns.insert(1, ("stability", "stability"))
    widths = [max(len(head), len("0.000 ± 0.000")) + 3 for head, _ in columns]
    heads = [f"{head:>{size}}" for (head, _), size in zip(columns, widths, strict=True)]
    if has_stability_null:
        heads[1] += f"{'p':>9}"
    null_heads = f"{'null':>16}{'p':>9}" * has_null + f"{'valleys':>14}{'p':>9}" * has_valleys
    header = f"{'K':>4}  {'method':<{width}}{heads[0]} {'pairs':>7}{null_heads}{''.join(heads[1:])}"
    lines = [(header, False), ("-" * len(header), False)]
    best = _best_of_each_k(table)
    previous = None
    for at, row in enumerate(table.to_dict("records")):
        if previous is not None and row["n_clusters"] != previous:
            lines.append(("", False))
        previous = row["n_clusters"]
        cells = [
            f"{_mean_sd(row[f'{name}_mean'], row[f'{name}_sd']):>{size}}"
            for (_, name), size in zip(columns, widths, strict=True)
        ]
        if has_stability_null:
            cells[1] += f"{_number(row['stability_p_value']):>9}"
        null = f"{_mean_sd(row['null_mean'], row['null_sd']):>16}{_number(row['p_value']):>9}" if has_null else ""
        null += _valleys(row) if has_valleys else ""
        mark = "*" if at in best else " "
        line = f"{previous:>4}  {row['label']:<{width}}{cells[0]}{mark}{row['n_pairs']:>7}{null}{''.join(cells[1:])}"
        lines.append((line, at in best))
    notes = (
        [BEST] * bool(best)
        + [NULL] * has_null
        + VALLEYS.splitlines() * has_valleys
        + STABILITY.splitlines() * has_stability
    )
    notes += STABILITY_NULL.splitlines() * bool(has_stability_null)
    if not has_stability and "n_models" in table and (table["n_models"] == 1).any():
        notes += NO_STABILITY.splitlines()
    return lines + [(line, False) for line in ["", *notes] if notes]


def _valleys(row: dict[str, Any]) -> str:
    if not math.isfinite(row["valleys_p_value"]):
        return f"{'-':>14}{'-':>9}"
    depths = f"{row['valleys_mean']:.2f} / {row['null_valleys_mean']:.2f}"
    return f"{depths:>14}{_number(row['valleys_p_value']):>9}"


def _best_of_each_k(table: pd.DataFrame) -> set[int]:
    """Return the positions of the rows with the highest agreement at their K, if there are several."""
    best: set[int] = set()
    means = table["agreement_mean"].astype(float).round(3).reset_index(drop=True)  # as it is shown
    for _, own in means.groupby(table["n_clusters"].reset_index(drop=True)):
        known = own.dropna()
        if len(known) > 1 and known.min() < known.max():
            best |= set(known.index[known == known.max()])
    return best


def performance_text(labelled: pd.DataFrame, performance: pd.DataFrame) -> str:
    """Return how well the models behind a table predict, as text: a row for each trainer, whatever clustered them.

    Parameters
    ----------
    labelled
        As for :func:`agreement_text`.
    performance
        ``performance_table`` of the same dataset and model.
    """
    if performance.empty:
        return "No model is tested yet: `december worker` computes it (TestPerformance)."
    from december_plugin.results.performance import with_model_labels

    rows = with_model_labels(labelled, performance).to_dict("records")
    width = max([len(row["label"]) for row in rows] + [len("models")])
    heads = ("single trials", "ceiling", "average", "ceiling", "normalized", "FEVE")
    widths = (15, 9, 15, 9, 15, 15)
    header = f"{'models':<{width}}" + "".join(f"{head:>{size}}" for head, size in zip(heads, widths, strict=True))
    lines = [header, "-" * len(header)]
    for row in rows:
        cells = (
            _mean_sd(row["test_correlation_mean"], row["test_correlation_sd"]),
            _number(row["single_trial_ceiling"]),
            _mean_sd(row["correlation_to_average_mean"], row["correlation_to_average_sd"]),
            _number(row["average_ceiling"]),
            _mean_sd(row["normalized_correlation_mean"], row["normalized_correlation_sd"]),
            _mean_sd(row["feve_mean"], row["feve_sd"]),
        )
        lines.append(
            f"{row['label']:<{width}}" + "".join(f"{cell:>{size}}" for cell, size in zip(cells, widths, strict=True))
        )
    return "\n".join([*lines, "", PERFORMANCE_WORDS])


def performance_notes(performance: pd.DataFrame, untested: pd.DataFrame) -> str:
    """Return what the test correlations are means over, and which sessions were not tested; "" if unknown.

    Parameters
    ----------
    performance, untested
        ``performance_table`` and ``untested_sessions`` of one dataset and model.
    """
    known = performance.dropna(subset=["n_tested_sessions"])
    if known.empty:
        return ""
    row = known.iloc[0]
    n_tested, n_untested = int(row["n_tested_sessions"]), int(row["n_untested_sessions"])
    sessions = f"{n_tested} of {n_tested + n_untested} sessions" if n_untested else numbered(n_tested, "session")
    constant = int(known["n_constant_neurons"].max())
    lines = [
        f"Test correlations are means over {numbered(int(row['n_tested_neurons']), 'neuron')} in {sessions}"
        + (f"; up to {constant:,} with a constant response or prediction count as 0." if constant else ".")
    ]
    ceiling = row["single_trial_ceiling"]
    if ceiling == ceiling:
        lines[0] += f" Their noise ceiling is {ceiling:.3f} (`december ari --performance`)."
    lines += [f"Not tested: session {each.data_key}: {each.reason}." for each in untested.itertuples()]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


def _mean_sd(mean: float | None, sd: float | None) -> str:
    """Return "mean ± sd"; a single value has no sd, and what is not computed yet is a dash."""
    if mean is None or mean != mean:
        return "-"
    spread = f"± {sd:.3f}" if sd is not None and sd == sd else "       "
    return f"{mean:.3f} {spread}"
