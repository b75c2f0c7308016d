"""Tables of numbers next to the plots: text for every cell, escaped by the template."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.clustering.methods import filter_of_column
from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.evaluation.methods import NAMES
from december_plugin.evaluation.model_selection import CRITERIA, HELD_OUT, OF_ONE_MODEL, Criterion, format_n_clusters
from december_plugin.findings.cluster_functions import FunctionalBlocks, PreferredImages
from december_plugin.findings.data import Analysis, Confusion, SelectedConfiguration, whose_clusters
from december_plugin.findings.selection import space_in_words
from december_plugin.findings.verdict import REFERENCES
from december_plugin.findings.wording import Wording
from december_plugin.text.formatting import numbered

ABSENT = "–"
FEW_ROWS = 12  # a table of more is folded


@dataclass(frozen=True)
class Column:
    """A column: its heading, and where its text comes from.

    Attributes
    ----------
    head
        Heading.
    name
        Column of the frame; for ``kind`` "mean" the stem of ``_mean`` and ``_sd``.
    kind
        "text", "integer", "number" (3 decimals), "signed", "percent", "mean" or "small" (3 significant digits).
    """

    head: str
    name: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """A table as the page shows it.

    Attributes
    ----------
    caption
        What it is.
    heads
        Headings.
    rows
        Texts.
    numeric
        Which columns are numbers, aligned to the right.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]

    @property
    def is_short(self) -> bool:
        """Whether it is shown unfolded."""
        return len(self.rows) <= FEW_ROWS


def make_table(frame: pd.DataFrame, caption: str, columns: Sequence[Column]) -> Table:
    """Return the table of a frame; columns of which no row has a value are left out."""
    records = frame.to_dict("records")
    texts = [[_cell(record, column) for record in records] for column in columns]
    used = [i for i, cells in enumerate(texts) if i == 0 or any(cell != ABSENT for cell in cells)]
    return Table(
        caption=caption,
        heads=tuple(columns[i].head for i in used),
        rows=tuple(zip(*(texts[i] for i in used), strict=True)),
        numeric=tuple(columns[i].kind != "text" for i in used),
    )


def _cell(record: dict[str, Any], column: Column) -> str:
    if column.kind == "mean":
        return mean_sd(record.get(f"{column.name}_mean"), record.get(f"{column.name}_sd"))
    return as_text(record.get(column.name), column.kind)


def as_text(value: Any, kind: str = "text") -> str:
    """Return a value as text; what is missing is a dash."""
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return ABSENT
    if kind == "text":
        return str(value) or ABSENT
    number = float(value)
    if not math.isfinite(number):
        return ABSENT
    formats = {"integer": ",.0f", "number": ".3f", "signed": "+.3f", "percent": ".0%", "small": ".3g"}
    return format(number, formats[kind]).replace("-", "−")


def mean_sd(mean: Any, sd: Any) -> str:
    """Return "mean ± sd"; a single value has no standard deviation."""
    text = as_text(mean, "number")
    return text if text == ABSENT or sd is None or not np.isfinite(sd) else f"{text} ± {as_text(sd, 'number')}"


def agreement_table_of(analysis: Analysis) -> Table:
    """Return all methods and numbers of clusters with their agreement and correlation."""
    known = f"ARI to {analysis.types_name}" if analysis.types_name else "ARI to known types"
    columns = [
        Column("K", "n_clusters", "integer"),
        Column("method", "label"),
        Column(_between(analysis), "agreement", "mean"),
        Column("pairs", "n_pairs", "integer"),
        Column(known, "types_agreement", "mean"),
        Column("test correlation", "test_correlation", "mean"),
        Column("models", "n_models", "integer"),
    ]
    if (analysis.agreement["n_left_out"] > 0).any():
        columns.append(Column("neurons left out", "n_left_out", "integer"))
    return make_table(analysis.agreement, "Agreement by number of clusters and method (mean ± SD)", columns)


def similarity_table_of(analysis: Analysis) -> Table | None:
    """Return how similar the embeddings of models are; None if that is not known."""
    if analysis.similarity.empty:
        return None
    columns = [
        *(Column("model", "model_a"), Column("compared with", "model_b")),
        Column("correlation of cosines", "cosine_correlation", "number"),
        Column("correlation of distances", "distance_correlation", "number"),
        Column("linear CKA", "linear_cka", "number"),
    ]
    return make_table(analysis.similarity, "Similarity of the embeddings, before any clustering", columns)


def null_table_of(analysis: Analysis) -> Table:
    """Return the null bands."""
    frame = analysis.nulls.assign(
        band=[f"{as_text(a, 'number')} to {as_text(b, 'number')}" for a, b in _pairs(analysis.nulls)]
    )
    columns = [
        Column("K", "n_clusters", "integer"),
        Column("method", "label"),
        Column(_between(analysis), "agreement_mean", "number"),
        Column("null, mean", "null_mean", "number"),
        Column("null, 95 % of draws", "band"),
        Column("p", "p_value", "small"),
        Column("valleys", "valleys_mean", "number"),
        Column("valleys, null", "null_valleys_mean", "number"),
        Column("p, valleys", "valleys_p_value", "small"),
        Column("draws", "n_draws", "integer"),
        Column("pairs", "n_pairs", "integer"),
        Column("surrogate", "surrogate_name"),
    ]
    return make_table(frame, f"{analysis.wording.between} compared with surrogates without clusters", columns)


def _pairs(nulls: pd.DataFrame) -> list[tuple[float, float]]:
    return list(zip(nulls["null_low"], nulls["null_high"], strict=True))


def counts_table_of(analysis: Analysis) -> Table:
    """Return the criteria for the number of clusters."""
    columns = [
        Column("K", "n_clusters", "integer"),
        Column("method", "label"),
        Column(_between(analysis), "agreement", "mean"),
        Column("above the null", "above_null_mean", "signed"),
        *(Column(_head(criterion), criterion.curve, "mean") for criterion in OF_ONE_MODEL),
    ]
    caption = f"Criteria for the number of clusters (mean ± SD over {analysis.wording.many})"
    return make_table(analysis.counts, caption, columns)


def _between(analysis: Analysis) -> str:
    return f"ARI between {analysis.wording.many}"


def _head(criterion: Criterion) -> str:
    return f"held-out log likelihood ({criterion.value})" if criterion is HELD_OUT else criterion.short


def choices_table_of(choices: pd.DataFrame) -> Table:
    """Return which K each criterion picks, or cannot distinguish, and what they agree on."""
    columns = [
        Column("method", "label"),
        Column("tried", "tried"),
        *(Column(criterion.short, f"{criterion.name}_says") for criterion in CRITERIA),
        Column("two or more agree on", "agreed"),
    ]
    tried = [f"{a} to {b}" for a, b in zip(choices["smallest"], choices["largest"], strict=True)]
    agreed = [
        format_n_clusters(*values) if values[0] == values[0] else "none"
        for values in zip(choices["count"], choices["count_low"], choices["count_high"], strict=True)
    ]
    caption = "The number of clusters that each criterion picks; a range is what it cannot distinguish"
    return make_table(choices.assign(tried=tried, agreed=agreed), caption, columns)


def strength_table_of(agreement: pd.DataFrame) -> Table:
    """Return DECEMber's configurations and the baseline by strength."""
    rows = agreement[(agreement["method"] == "december")]
    columns = [
        Column("K", "n_clusters", "integer"),
        Column("method", "label"),
        Column("strength", "strength", "small"),
        Column("setting", "strength_setting"),
        Column("gradient ratio", "gradient_ratio", "small"),
        Column("epochs of pretraining", "pretrain_epochs", "integer"),
        Column("test correlation", "test_correlation", "mean"),
        Column("ARI between seeds", "agreement", "mean"),
    ]
    return make_table(rows, "Performance and agreement by strength (mean ± SD)", columns)


def comparisons_table_of(comparisons: pd.DataFrame) -> Table:
    """Return DECEMber compared with its references."""
    words = {"more": "more", "less": "less", "equal": "equally", "unknown": "too few pairs", "none": ABSENT}
    absent = {kind: f"no {REFERENCES[kind]}" for kind in REFERENCES}
    columns = [
        Column("K", "n_clusters", "integer"),
        Column("DECEMber", "december"),
        Column("compared with", "reference"),
        Column("ARI, DECEMber", "december_mean", "number"),
        Column("ARI, the other", "reference_mean", "number"),
        Column("difference", "difference", "signed"),
        Column("spread", "spread", "number"),
        Column("seeds agree", "words"),
        Column("pairs", "n_pairs", "integer"),
        Column("Δ test correlation", "test_difference", "signed"),
    ]
    reference = comparisons["reference"].where(comparisons["reference"].notna(), comparisons["kind"].map(absent))
    frame = comparisons.assign(words=comparisons["result"].map(words), reference=reference)
    return make_table(frame, "What the clustering loss has added: agreement between seeds at the same K", columns)


def configurations_table_of(pairs: pd.DataFrame) -> Table:
    """Return every pair of configurations, with every clustering."""
    columns = [
        Column("K", "n_clusters", "integer"),
        Column("method", "method_name"),
        Column("space", "space_name"),
        Column("first", "name_a"),
        Column("second", "name_b"),
        Column("ARI", "adjusted_rand_index", "number"),
        Column("V-measure", "v_measure", "number"),
        Column("correlation of distances", "distance_correlation", "number"),
        Column("correlation of cosines", "cosine_correlation", "number"),
        Column("linear CKA", "linear_cka", "number"),
        Column("neurons", "n_common_neurons", "integer"),
        Column("pairs of seeds", "n_seed_pairs", "integer"),
    ]
    neurons = [filter_of_column(least).phrase for least in pairs["minimum_test_correlation"]]
    spaces = [
        ", ".join(filter(None, (space_in_words(row.space, row.normalize), row.alignment, phrase)))
        for row, phrase in zip(pairs.itertuples(index=False), neurons, strict=True)
    ]
    named = pairs.assign(method_name=[NAMES.get(each, each) for each in pairs["method"]], space_name=spaces)
    return make_table(named, "Every pair of models, with every clustering (means over pairs of seeds)", columns)


def sessions_table_of(analysis: Analysis) -> Table:
    """Return the sessions."""
    columns = [
        Column("session", "data_key"),
        Column("neurons", "n_neurons", "integer"),
        Column("unit ids from", "unit_ids_from"),
        Column("test trials", "n_test_trials", "integer"),
        Column("mean test correlation", "test_correlation", "number"),
        Column("its noise ceiling", "single_trial_ceiling", "number"),
        Column("correlation to the average", "correlation_to_average", "number"),
        Column("its noise ceiling", "average_ceiling", "number"),
        Column("FEVE", "feve", "number"),
        Column("not tested", "untested"),
    ]
    return make_table(analysis.sessions, "Sessions", columns)


def performance_table_of(analysis: Analysis) -> Table | None:
    """Return how well the models predict, a row for each trainer's; None if none was tested."""
    if analysis.performance.empty:
        return None
    columns = [
        Column("models of", "label"),
        Column("single-trial correlation", "test_correlation", "mean"),
        Column("its noise ceiling", "single_trial_ceiling", "number"),
        Column("correlation to the average", "correlation_to_average", "mean"),
        Column("its noise ceiling", "average_ceiling", "number"),
        Column("normalized", "normalized_correlation", "mean"),
        Column("FEVE", "feve", "mean"),
        Column("neurons", "n_tested_neurons", "integer"),
        Column("constant", "n_constant_neurons", "integer"),
        Column("explainable", "explainable"),
    ]
    counts = zip(analysis.performance["n_explainable_neurons"], analysis.performance["n_repeated_neurons"], strict=True)
    explainable = ["" if not total > 0 else f"{count:,.0f} of {total:,.0f}" for count, total in counts]
    return make_table(
        analysis.performance.assign(explainable=explainable),
        "Performance on the test tier (mean ± SD over models)",
        columns,
    )


def tested_words(analysis: Analysis) -> str:
    """Return over which sessions the test correlations are means; "" if that is not known."""
    known = analysis.performance
    if known.empty or known["n_tested_sessions"].isna().all():
        return ""
    row = known.dropna(subset=["n_tested_sessions"]).iloc[0]
    n_tested, n_untested = int(row["n_tested_sessions"]), int(row["n_untested_sessions"])
    words = f"Means are over {as_text(row['n_tested_neurons'], 'integer')} neurons in {n_tested} of "
    words += numbered(n_tested + n_untested, "session")
    return f"{words}; the others could not be tested (see the table above)." if n_untested else f"{words}."


def nesting_table_of(nesting: pd.DataFrame) -> Table:
    """Return how much of the clusters for every K is within one cluster for the next smaller K."""
    columns = [
        Column("K", "n_clusters", "integer"),
        Column("neurons that follow one cluster of the next smaller K", "nested", "percent"),
    ]
    return make_table(nesting, "How close the clusters are to a tree", columns)


def confusion_table_of(confusion: Confusion, wording: Wording) -> Table:
    """Return the counts of a confusion matrix."""
    frame = confusion.frame
    names = [str(name) for name in frame.index]
    rows = [
        (name, *(f"{value:,}" for value in counts))
        for name, counts in zip(names, frame.to_numpy().tolist(), strict=True)
    ]
    heads = ("cluster", *(str(name) for name in frame.columns))
    numeric = (False, *([True] * len(frame.columns)))
    whose = whose_clusters(confusion.frame.attrs, wording)
    return Table(f"Neurons by cluster and type, {confusion.label}, {whose}", heads, tuple(rows), numeric)


def alignments_table_of(alignments: pd.DataFrame) -> Table:
    """Return what was reached by every alignment."""
    is_said = all(phrase in label for label, phrase in zip(alignments["label"], alignments["phrase"], strict=True))
    columns = [
        *(
            Column("models", "label"),
            Column("seed", "seed", "integer"),
            *([] if is_said else [Column("how", "phrase")]),
        ),
        *(Column("neurons", "n_neurons", "integer"), Column("orientations", "n_orientations", "integer")),
        Column("equivariance error", "equivariance_error", "small"),
        Column("temperature T", "temperature", "small"),
        *(Column("distance before", "loss_before", "number"), Column("after", "alignment_loss", "number")),
        Column("ambiguous angles", "ambiguous_share", "percent"),
        Column("zero vectors", "zeros", "integer"),
    ]
    zeros = alignments["n_zero"].where(alignments["n_zero"] > 0)
    return make_table(alignments.assign(zeros=zeros), "Alignments (distances between vectors of length 1)", columns)


def alignment_comparisons_table_of(comparisons: pd.DataFrame, analysis: Analysis) -> Table:
    """Return clusterings of aligned vectors compared with those without alignment, and with permuted features."""
    words = {"more": "more", "less": "less", "equal": "equally", "unknown": "too few pairs"}
    known = f"ARI to {analysis.types_name}" if analysis.types_name else "ARI to known types"
    columns = [
        *(Column("K", "n_clusters", "integer"), Column("aligned", "aligned"), Column("compared with", "other")),
        *(Column("ARI, aligned", "aligned_mean", "number"), Column("ARI, the other", "other_mean", "number")),
        *(Column("difference", "difference", "signed"), Column("spread", "spread", "number")),
        Column(f"{analysis.wording.many} agree", "words"),
        Column(f"{known}, aligned", "aligned_types_mean", "number"),
        Column(f"{known}, the other", "other_types_mean", "number"),
    ]
    frame = comparisons.assign(words=comparisons["result"].map(words))
    return make_table(frame, "Clusters of aligned vectors and others of the same models, at the same K", columns)


def blocks_table_of(functions: FunctionalBlocks) -> Table:
    """Return the blocks of clusters that respond alike."""
    within = [functions.correlations[np.ix_(own, own)] for own in _positions(functions)]
    means = [(values.sum() - np.trace(values)) / max(values.size - len(values), 1) for values in within]
    members, sizes = functions.members, dict(zip(functions.clusters.tolist(), functions.sizes.tolist(), strict=True))
    frame = pd.DataFrame(
        {
            "block": range(len(members)),
            "clusters": [", ".join(map(str, own)) for own in members],
            "neurons": [sum(sizes[name] for name in own) for own in members],
            "correlation": [mean if len(own) > 1 else np.nan for mean, own in zip(means, members, strict=True)],
        }
    )
    columns = [
        Column("block", "block", "integer"),
        Column("clusters", "clusters"),
        Column("neurons", "neurons", "integer"),
        Column("mean correlation within", "correlation", "number"),
    ]
    return make_table(frame, f"Blocks of clusters that respond alike, {functions.title}", columns)


def _positions(functions: FunctionalBlocks) -> list[Any]:
    return [np.flatnonzero(functions.blocks.labels == block) for block in range(functions.blocks.n_blocks)]


def preferred_table_of(preferred: PreferredImages) -> Table:
    """Return, for each cluster, how well the neurons are predicted whose images are shown."""
    rows = []
    for name in preferred.shown_clusters:
        _, neurons = preferred.of(name)
        correlations = neurons["test_correlation"].astype(float)
        rows.append(
            {
                "cluster": name,
                "block": preferred.blocks.get(name),
                "size": preferred.sizes.get(name),
                "n_images": len(neurons),
                "test_correlation_mean": correlations.mean(),
                "test_correlation_sd": correlations.std(),
                "converged": (neurons["ending"] == "converged").mean(),
            }
        )
    columns = [
        Column("cluster", "cluster", "integer"),
        Column("block", "block", "integer"),
        Column("neurons", "size", "integer"),
        Column("images", "n_images", "integer"),
        Column("test correlation of their neurons", "test_correlation", "mean"),
        Column("converged", "converged", "percent"),
    ]
    return make_table(pd.DataFrame(rows), f"Maximally exciting images, {preferred.title}", columns)


def functions_table_of(functions_table: pd.DataFrame) -> Table:
    """Return the number of blocks of every configuration, over its models."""
    keys = ["label", "n_clusters", "responses", "threshold", "n_orientations"]
    groups = functions_table.groupby(keys, sort=False)
    frame = groups[["n_found", "n_blocks"]].mean().reset_index()
    spread = groups["n_blocks"].agg(["min", "max", "size"]).reset_index(drop=True)
    blocks = [
        f"{low}" if low == high else f"{low} to {high}" for low, high in zip(spread["min"], spread["max"], strict=True)
    ]
    responses = frame["responses"].map({"linear": "linear", "images": "predicted for training stimuli"})
    frame = frame.assign(blocks=blocks, n_models=spread["size"], responses=responses)
    columns = [
        Column("K", "n_clusters", "integer"),
        Column("method", "label"),
        Column("clusters with neurons", "n_found", "small"),
        Column("blocks", "blocks"),
        Column("threshold", "threshold", "small"),
        Column("responses", "responses"),
        Column("orientations", "n_orientations", "integer"),
        Column("models", "n_models", "integer"),
    ]
    return make_table(frame, "Blocks of clusters that respond alike, for every clustering", columns)


def cluster_frame(chosen: SelectedConfiguration, colors: Sequence[str]) -> pd.DataFrame:
    """Return one row per cluster: its number ``cluster`` and ``code``, ``color``, ``size``, ``core`` and means."""
    neurons = chosen.neurons[chosen.neurons["cluster"] != NO_CLUSTER]
    neurons = neurons.assign(is_core=neurons["stability"] >= 1)
    groups = neurons.groupby("cluster", sort=True)
    frame = pd.DataFrame({"size": groups.size(), "core": groups["is_core"].sum()})
    for name in ("stability", "confidence", "margin", "test_correlation"):
        if name in neurons:
            frame[f"{name}_mean"], frame[f"{name}_sd"] = groups[name].mean(), groups[name].std()
    frame = frame.reset_index(names="code")
    if len(chosen.resampled):
        found = chosen.resampled.set_index("cluster")
        for part in ("mean", "sd"):
            frame[f"jaccard_{part}"] = frame["code"].map(found[f"jaccard_{part}"])
    frame["cluster"] = frame["code"]
    frame["color"] = [colors[code] for code in frame["code"]]
    frame["core_share"] = frame["core"] / frame["size"] if chosen.n_seeds > 1 else np.nan
    return frame


def clusters_table_of(clusters: pd.DataFrame, wording: Wording) -> Table:
    """Return sizes, stability and confidence by cluster."""
    columns = [
        Column("cluster", "cluster", "integer"),
        Column("neurons", "size", "integer"),
        Column(f"in all {wording.many}", "core_share", "percent"),
        Column("stability", "stability", "mean"),
        *([Column("Jaccard in half of the neurons", "jaccard", "mean")] if "jaccard_mean" in clusters else []),
        Column("confidence", "confidence", "mean"),
        Column("margin", "margin", "mean"),
        Column("test correlation", "test_correlation", "mean"),
    ]
    return make_table(clusters, "Clusters (mean ± SD over neurons)", columns)


def cluster_counts_by(chosen: SelectedConfiguration, code: int, column: str, head: str, caption: str) -> Table:
    """Return how the neurons of one cluster spread over sessions or known types, compared with all neurons."""
    neurons = chosen.neurons[chosen.neurons[column].notna()]
    everyone = neurons[column].astype(str).value_counts(sort=False)
    here = neurons.loc[neurons["cluster"] == code, column].astype(str).value_counts(sort=False)
    frame = pd.DataFrame({"name": everyone.index, "all": everyone.to_numpy()})
    frame["here"] = [int(here.get(name, 0)) for name in frame["name"]]
    frame["share"] = frame["here"] / frame["all"]
    columns = [
        Column(head, "name"),
        Column("neurons in this cluster", "here", "integer"),
        Column(f"all neurons of the {head}", "all", "integer"),
        Column("share", "share", "percent"),
    ]
    return make_table(frame.sort_values("name", key=lambda names: names.map(_natural)), caption, columns)


def _natural(name: str) -> tuple[Any, ...]:
    from december_plugin.plots.style import natural_order

    return natural_order(name)
