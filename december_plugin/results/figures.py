"""Draws every figure that the tables allow, and says why the others cannot be drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from december_plugin import plots
from december_plugin.errors import SettingsError
from december_plugin.evaluation.methods import Method, with_count
from december_plugin.findings.aligned_vectors import AlignedVectors
from december_plugin.findings.cluster_functions import FunctionalBlocks, PreferredImages
from december_plugin.findings.data import whose_clusters
from december_plugin.findings.selection import chosen_row, shown_clustering
from december_plugin.results import figure_frames
from december_plugin.results.agreement import agreement_table
from december_plugin.results.alignment import alignments
from december_plugin.results.cluster_counts import choose_cluster_count, cluster_count_table
from december_plugin.results.cluster_trees import cluster_tree_of
from december_plugin.results.configurations import configuration_table
from december_plugin.results.confusion import confusion_frame
from december_plugin.results.consensus import consensus_frame
from december_plugin.results.nulls import null_table
from december_plugin.results.queries import configuration_key, known_types_name
from december_plugin.results.report_analysis import known_types_of
from december_plugin.results.report_functions import (
    ShownAssignments,
    aligned_assignment,
    aligned_vectors,
    functional_blocks,
    preferred_assignment,
    preferred_images,
)

FORMATS = ("svg", "pdf", "png")
NOT_ALIGNED = "no clusters are of aligned vectors; a sweep asks for it with alignment in its clusterings"
MOST_CONTROLS = 2  # next to the data
NO_TABLE = "the toy experiment (Figure 2) needs no tables: python examples/toy_dec.py draws it"


@dataclass(frozen=True)
class Captioned:
    """A figure with sentences for a text file of the same name."""

    figure: Figure
    caption: str


class LeftOutError(Exception):
    """A figure cannot be drawn from what is in the tables."""


@dataclass(frozen=True)
class Analysis:
    """One dataset and one model, whose figures are drawn together.

    Attributes
    ----------
    tables
        The tables.
    key
        ``dataset_fn``, ``dataset_hash``, ``model_fn`` and ``model_hash``.
    table
        Its rows of ``agreement_table``, with labels.
    types_name
        Known types to compare with, or None.
    with_tsne
        Whether embeddings are wanted; they take minutes with thousands of neurons, and need the store.
    """

    tables: Any
    key: dict[str, str]
    table: pd.DataFrame
    types_name: str | None
    with_tsne: bool

    @property
    def agreement(self) -> pd.DataFrame:
        """The rows with an agreement between seeds."""
        known = self.table.dropna(subset="agreement_mean")
        if known.empty:
            raise LeftOutError("there is no pair of seeds yet")
        return known

    @property
    def december(self) -> pd.DataFrame:
        """The rows of DECEMber in the space with most trainings: settings are compared within one space."""
        rows = self.table[self.table["method"] == "december"]
        if rows.empty:
            raise LeftOutError("there is no model with a clustering loss")
        spaces = pd.Series([method.space.phrase for method in rows["identity"]], index=rows.index)
        return rows[spaces == _most_common(spaces)]

    def trainings_like(self, rows: pd.DataFrame) -> list[dict[str, str]]:
        """Return a restriction to the trainers of rows of DECEMber, and to all that train without clusters."""
        trainer = ["trainer_fn", "trainer_hash"]
        others = self.table[self.table["method"] != "december"]
        keys = pd.concat([rows[trainer], others[trainer]]).drop_duplicates().to_dict("records")
        return [{**self.key, **key} for key in keys]


def draw_all(
    lab: Any, folder: Path, *, types_name: str | None = None, with_tsne: bool = True
) -> Iterator[tuple[str, list[Path], str]]:
    """Draw the figures one by one; yield each one's name, its files, and why it was left out if there are none."""
    # Further random starts of a method have their own figure.
    starts = [{"clustering_hash": name} for name in figure_frames.first_starts(lab.tables)]
    table = agreement_table(lab.tables, starts, types_name=types_name)
    if table.empty:
        raise SettingsError(
            "there are no assignments yet, so there is nothing to draw. `december register` plans trainings, "
            "`december worker` computes them."
        )
    types_name = known_types_name(lab.tables, types_name)
    analyses = [
        Analysis(lab.tables, dict(zip(figure_frames.DATA, values, strict=True)), group, types_name, with_tsne)
        for values, group in table.groupby(list(figure_frames.DATA), sort=True)
    ]
    for analysis in analyses:
        ending = "" if len(analyses) == 1 else "-" + _short(analysis.key)
        for name, draw in ANALYSIS_FIGURES.items():
            yield _drawn(f"{name}{ending}", lambda draw=draw, analysis=analysis: draw(analysis), folder)  # type: ignore[misc]
    for name, draw_together in COMMON_FIGURES.items():
        yield _drawn(name, lambda draw=draw_together: draw(lab.tables, table), folder)  # type: ignore[misc]
    yield "toy", [], NO_TABLE


def _short(key: dict[str, str]) -> str:
    return f"{key['dataset_hash'][:6]}-{key['model_hash'][:6]}"


def _drawn(name: str, draw: Callable[[], Figure | Captioned], folder: Path) -> tuple[str, list[Path], str]:
    try:
        drawn = draw()
    except (LeftOutError, SettingsError) as reason:
        return name, [], str(reason)
    if isinstance(drawn, Figure):
        return name, plots.save_figure(drawn, folder, name, FORMATS), ""
    paths = plots.save_figure(drawn.figure, folder, name, FORMATS)
    caption = folder / f"{name}.txt"
    try:
        caption.write_text(drawn.caption, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"the caption of the figure {name} cannot be written to {folder}: {error.strerror or error}. Choose a "
            "folder that you may write to."
        ) from error
    return name, [*paths, caption], ""


# --- one dataset and model --------------------------------------------------------------------------------------


def agreement(analysis: Analysis) -> Figure:
    """Draw agreement, and performance, against K (Figure 4H)."""
    n_types = _n_types(analysis)
    return plots.agreement_figure(analysis.agreement, n_types=n_types)


def known_types(analysis: Analysis) -> Figure:
    """Draw agreement with known types, and a confusion matrix (Figures 3, 8 and 16)."""
    if analysis.types_name is None:
        raise LeftOutError("there are no known types; see KnownTypes")
    table = analysis.table.dropna(subset="types_agreement_mean")
    if table.empty:
        raise LeftOutError(f"no assignment has been compared with the known types {analysis.types_name!r}")
    row = _chosen(analysis)
    key = {name: row[name] for name in configuration_key(analysis.tables)}
    confusion = confusion_frame(analysis.tables, key, types_name=analysis.types_name)
    title = f"{_title(row)}, {whose_clusters(confusion.attrs)}"
    return plots.known_types_figure(table, confusion, n_types=_n_types(analysis), title=title)


def strength(analysis: Analysis) -> Figure:
    """Draw what the strength of the clustering loss does (Figure 4)."""
    rows = _one_training(analysis.december, "strength_setting")
    if rows["strength_setting"].nunique() < 2:
        raise LeftOutError("there is one strength of the clustering loss only")
    chosen = rows.assign(label=["DECEMber, strength " + setting for setting in rows["strength_setting"]])
    others = analysis.table[analysis.table["trainer_role"] == "baseline"]
    table = pd.concat([chosen, others]).dropna(subset="agreement_mean")
    performance = figure_frames.performance_frame(analysis.tables, analysis.trainings_like(analysis.december))
    clustered = performance[performance["trainer_role"] == "december"]
    clustered = clustered[clustered["pretrain_epochs"] == rows["pretrain_epochs"].iloc[0]]
    clustered = one_rate_each(clustered)
    baseline = performance[performance["trainer_role"] == "baseline"].head(1)
    performance = pd.concat([baseline.assign(strength=0.0), clustered])
    settings = [str(text) for text in performance["strength_setting"]]
    performance = performance.assign(
        label=["DECEMber, strength " + text if text else "baseline" for text in settings],
        identity=[Method("december", "december", strength=text) if text else Method("baseline") for text in settings],
    )
    coordinates = _coordinates(analysis, chosen) if analysis.with_tsne else None
    return plots.strength_figure(performance, table, coordinates)


def pretraining(analysis: Analysis) -> Figure:
    """Draw learning rate and length of the pretraining (Figure 5)."""
    performance, rows = _pretrainings(analysis)
    chosen = performance.loc[performance.groupby("pretrain_epochs")["validation_correlation_mean"].idxmax()]
    rates = dict(zip(chosen["pretrain_epochs"], chosen["learning_rate"], strict=True))
    kept = [row.learning_rate == rates.get(row.pretrain_epochs) for row in rows.itertuples()]
    others = analysis.table[analysis.table["trainer_role"] == "baseline"].assign(pretrain_epochs=float("nan"))
    table = pd.concat([rows[kept], others]).dropna(subset="agreement_mean")
    return plots.pretraining_figure(performance, table)


def learning_rates(analysis: Analysis) -> Figure:
    """Draw validation and test correlation against the learning rate (Figures 5 and 6)."""
    performance = figure_frames.performance_frame(analysis.tables, analysis.trainings_like(analysis.december))
    performance = performance[performance["trainer_role"] == "december"]
    if performance["learning_rate"].nunique() < 2:
        raise LeftOutError("there is one learning rate only")
    # Strengths that were tried with one learning rate only say nothing about it.
    several = performance.groupby("strength_setting")["learning_rate"].transform("nunique") > 1
    if not several.any():
        raise LeftOutError("no strength of the clustering loss was tried with several learning rates")
    performance = performance[several]
    fixed = pd.to_numeric(performance["strength_setting"], errors="coerce")
    if fixed.isna().all():
        return plots.learning_rate_figure(performance.drop(columns="strength"))
    return plots.learning_rate_figure(performance.assign(strength=fixed).dropna(subset="strength"))


def restarts(analysis: Analysis) -> Figure:
    """Draw the stability over random starts on one model (Figures 10 and 11)."""
    pairs = figure_frames.restarts_frame(analysis.tables, analysis.key)
    if pairs.empty:
        raise LeftOutError("no method has clustered a model from several random starts (Clustering with other seeds)")
    first = pairs["seed"].min()
    model = pairs[(pairs["seed"] == first) & (pairs["trainer_hash"] == pairs["trainer_hash"].iloc[0])]
    return plots.restarts_figure(model)


def measures(analysis: Analysis) -> Figure:
    """Draw the other measures of agreement (Figure 13)."""
    if not analysis.agreement["agreement_mean"].notna().any():
        raise LeftOutError("there is no pair of seeds yet")
    frame = figure_frames.measures_frame(analysis.tables, analysis.key)
    return plots.measures_figure(_labelled(frame.dropna(subset="agreement_mean"), analysis))


def null(analysis: Analysis) -> Figure:
    """Draw the agreement of every method and that of surrogates without clusters."""
    nulls = null_table(analysis.tables, analysis.key)
    nulls = nulls[nulls["clustering_hash"].isin(analysis.table["clustering_hash"])].reset_index(drop=True)
    if nulls.empty:
        raise LeftOutError("no surrogates have been drawn; a sweep asks for them in its section surrogates")
    return plots.null_figure(plots.with_spread(_labelled(nulls, analysis), analysis.table))


def cluster_count(analysis: Analysis) -> Captioned:
    """Draw what four criteria say about the number of clusters; the caption says what they pick."""
    table = cluster_count_table(analysis.tables, analysis.key)
    table = table[table["clustering_hash"].isin(analysis.table["clustering_hash"])].reset_index(drop=True)
    labelled = _labelled(table, analysis)
    choices = choose_cluster_count(labelled)
    return Captioned(plots.cluster_count_figure(labelled, choices), plots.cluster_count_caption(choices))


def cluster_tree(analysis: Analysis) -> Figure:
    """Draw how the clusters of the method that the report shows split as their number grows."""
    row = _chosen(analysis)
    rows = analysis.table[analysis.table["label"] == row["label"]]
    if rows["n_clusters"].nunique() < 2:
        raise LeftOutError(f"there is one number of clusters of {row['label']} only")
    tree = cluster_tree_of(analysis.tables, rows)
    return plots.cluster_tree_figure(tree.nodes, tree.edges, title=str(row["label"]))


def consensus(analysis: Analysis) -> Figure:
    """Draw stability and confidence of the clusters that the report shows one by one."""
    row = _chosen(analysis)
    key = {name: row[name] for name in configuration_key(analysis.tables)}
    if row["n_models"] < 2:
        raise LeftOutError(f"there is one seed of {_title(row)} only")
    frame = consensus_frame(analysis.tables, key)
    return plots.consensus_figure(frame, title=_title(row))


def cluster_confusion(analysis: Analysis) -> Figure:
    """Draw which clusters respond alike (Figure 7 of rotation-invariant clustering)."""
    found = _functions(analysis)
    return plots.cluster_confusion_figure(
        found.correlations, threshold=found.blocks.threshold, names=found.clusters.tolist(), title=found.title
    )


def block_changes(analysis: Analysis) -> Figure:
    """Draw the blocks of clusters near the threshold (Figures C1 and C2 of rotation-invariant clustering)."""
    found = _functions(analysis)
    return plots.block_changes_figure(
        found.correlations, threshold=found.blocks.threshold, names=found.clusters.tolist()
    )


def alignment(analysis: Analysis) -> Figure:
    """Draw how well alignments went, compared with controls."""
    found = alignments(analysis.tables, analysis.key)
    if found.empty:
        raise LeftOutError("nothing is aligned; a sweep asks for it with alignment in its clusterings")
    return plots.alignments_figure(found)


def aligned_readouts(analysis: Analysis) -> Figure:
    """Draw readout vectors before and after their alignment (Figures 1 and 2 of rotation-invariant clustering)."""
    found = _aligned(analysis)
    vectors = found.readouts, found.angles, found.clusters
    return plots.aligned_readouts_figure(*vectors, n_orientations=found.n_orientations, title=found.title)


def cluster_centres(analysis: Analysis) -> Figure:
    """Draw t-SNE of aligned vectors, and of permuted ones, with their clusters (Figures 6 and A3)."""
    if not analysis.with_tsne:
        raise LeftOutError("embeddings are not wanted")
    shown = _shown(analysis)
    key = aligned_assignment(shown)
    if key is None:
        raise LeftOutError(NOT_ALIGNED)
    names = configuration_key(analysis.tables)
    keys = {str(shown.row_of(key)["label"]): key}
    table = analysis.table[analysis.table["n_clusters"] == shown.row_of(key)["n_clusters"]]
    controls = table[[method.is_permuted for method in table["identity"]]]
    for row in controls.head(MOST_CONTROLS).to_dict("records"):
        assignments = analysis.tables.ClusterAssignment & {name: row[name] for name in names} & {"seed": key["seed"]}
        keys |= {str(row["label"]): each for each in assignments.fetch("KEY", limit=1)}
    return plots.cluster_centres_figure(figure_frames.embeddings_frame(analysis.tables, keys))


def exciting_images(analysis: Analysis) -> Figure:
    """Draw the maximally exciting images of every cluster next to its island (Figure 6 of the same paper)."""
    found = _preferred(analysis, with_islands=True)
    return plots.exciting_images_figure(
        found.images,
        found.neurons["cluster"].to_numpy(),
        found.neurons["test_correlation"].to_numpy(),
        grey=found.grey,
        sizes=found.sizes,
        blocks=found.blocks or None,
        islands=found.islands if len(found.islands) else None,
        title=found.title,
    )


def mei_confusion(analysis: Analysis) -> Figure:
    """Draw how neurons respond to each other's maximally exciting images (Figure 7 of the same paper)."""
    found = _preferred(analysis)
    if not len(found.compared):
        raise LeftOutError(found.outcome or "no neurons have been shown each other's images yet")
    clusters, blocks = found.compared["cluster"].to_numpy(), found.blocks or None
    return plots.mei_confusion_figure(found.responses, clusters, blocks=blocks, title=found.title)


def _aligned(analysis: Analysis) -> AlignedVectors:
    shown = _shown(analysis)
    key = aligned_assignment(shown)
    if key is None:
        raise LeftOutError(NOT_ALIGNED)
    return aligned_vectors(shown, key, None)


def _preferred(analysis: Analysis, *, with_islands: bool = False) -> PreferredImages:
    shown = _shown(analysis)
    key = preferred_assignment(shown, analysis.key)
    if key is None:
        raise LeftOutError("there are no exciting images; a sweep asks for them in its section exciting_images")
    functions, _ = functional_blocks(shown, analysis.key)
    points = None
    if with_islands and analysis.with_tsne:
        assignment = {name: key[name] for name in analysis.tables.ClusterAssignment.primary_key}
        points = figure_frames.embeddings_frame(analysis.tables, {"islands": assignment})
    return preferred_images(shown, key, functions, points)


def _functions(analysis: Analysis) -> FunctionalBlocks:
    found, _ = functional_blocks(_shown(analysis), analysis.key)
    if found is None:
        raise LeftOutError("no clusters have been compared; a sweep asks for it in its section cluster_confusion")
    return found


def _shown(analysis: Analysis) -> ShownAssignments:
    return ShownAssignments(analysis.tables, analysis.table, _chosen(analysis), None)


def _title(row: pd.Series) -> str:
    """Return method and number of clusters of a configuration for a title."""
    is_found = row["identity"].finds_count
    return with_count(str(row["label"]), int(row["n_clusters"]), is_found=is_found, n_models=int(row["n_models"]))


# --- several datasets or models ---------------------------------------------------------------------------------


def datasets(tables: Any, table: pd.DataFrame) -> Figure:
    """Draw several datasets and their weighted mean (Figures 7 and 15)."""
    if table["dataset_hash"].nunique() < 2:
        raise LeftOutError("there is one dataset only")
    starts = [{"clustering_hash": name} for name in set(table["clustering_hash"])]
    frame = figure_frames.datasets_frame(tables, starts)
    frame = frame[frame["model_hash"] == _most_common(frame["model_hash"])].dropna(subset="agreement_mean")
    if frame["dataset"].nunique() < 2:
        raise LeftOutError("there is no model whose seeds can be compared on several datasets")
    return plots.datasets_figure(frame.sort_values("dataset", kind="stable"))


def equivariant(table: pd.DataFrame) -> Figure:
    """Draw DECEMber next to a rotation-equivariant model (Figure 14)."""
    is_equivariant = table["model_fn"].str.contains("equivariant")
    shared = set(table.loc[is_equivariant, "dataset_hash"]) & set(table.loc[~is_equivariant, "dataset_hash"])
    if not shared:
        raise LeftOutError("there is no dataset with both a rotation-equivariant model and another one")
    rows = table[table["dataset_hash"] == sorted(shared)[0]]
    kept = rows.groupby("model_fn")["model_hash"].agg(_most_common)
    rows = rows[rows["model_hash"].isin(kept)]
    parts = []
    for function, group in rows.groupby("model_fn", sort=False):
        core = "rotation-equivariant" if "equivariant" in str(function) else ""
        named = [f"{core} core, {label}" if core else str(label) for label in group["label"]]
        identities = [replace(method, core=core) for method in group["identity"]]
        parts.append(group.assign(label=named, identity=identities))
    frame = pd.concat(parts).dropna(subset="agreement_mean")
    if frame.empty:
        raise LeftOutError("there is no pair of seeds yet")
    scores = ["test_correlation_mean", "test_correlation_sd"]
    performance = frame.groupby("label", sort=False).agg({"identity": "first", **dict.fromkeys(scores, "mean")})
    return plots.equivariant_figure(frame, performance.reset_index())


def configurations(tables: Any) -> Figure:
    """Draw agreement and similarity across configurations, for the clustering that compares most of them."""
    rows, title = shown_clustering(configuration_table(tables))
    return plots.configurations_figure(rows, title=title)


# --- parts of the above ------------------------------------------------------------------------------------------


def _n_types(analysis: Analysis) -> int | None:
    if analysis.types_name is None or not analysis.table["types_agreement_mean"].notna().any():
        return None
    return int(known_types_of(analysis.tables, analysis.key, analysis.types_name)["type"].nunique())


def _chosen(analysis: Analysis) -> pd.Series:
    """Return the configuration whose clusters the report shows."""
    choices = choose_cluster_count(cluster_count_table(analysis.tables, analysis.key))
    return chosen_row(analysis.table, n_clusters=None, n_types=_n_types(analysis), choices=choices)


def one_rate_each(performance: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one learning rate for each strength.

    It is the one with which most strengths were tried, for those that have it; of the others, which may each have their
    own as in the paper, the one with the best validation correlation.
    """
    rates = performance["learning_rate"].fillna(0.0)  # other packages' trainers may not say
    kept = []
    for _, rows in performance.groupby("strength_setting", sort=False):
        own = rates[rows.index]
        common = own == _most_common(rates)
        known = rows["validation_correlation_mean"].fillna(-math.inf)
        kept.append(rows[common if common.any() else own == own[known.idxmax()]])
    return pd.concat(kept) if kept else performance


def _most_common(values: pd.Series) -> Any:
    return values.value_counts().sort_index(kind="stable").idxmax()


def _one_training(rows: pd.DataFrame, varied: str) -> pd.DataFrame:
    """Return the rows of the pretraining with which most values were tried, one row per value and K."""
    tried = rows.groupby("pretrain_epochs", dropna=False)[varied].nunique()
    rows = rows[rows["pretrain_epochs"] == tried.idxmax()]
    return rows.drop_duplicates([varied, "n_clusters"])


def _pretrainings(analysis: Analysis) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return performance and agreement of the strength with which most lengths of the pretraining were tried."""
    rows = analysis.december
    tried = rows.groupby("strength_setting")["pretrain_epochs"].nunique()
    if tried.max() < 2:
        raise LeftOutError("there is one length of the pretraining only")
    rows = rows[rows["strength_setting"] == tried.idxmax()]
    rates = figure_frames.learning_rates(analysis.tables)
    rows = rows.merge(rates, on=["trainer_fn", "trainer_hash"])
    rows = rows.drop_duplicates(["pretrain_epochs", "learning_rate", "n_clusters"])
    performance = figure_frames.performance_frame(analysis.tables, analysis.trainings_like(analysis.december))
    performance = performance[
        (performance["trainer_role"] == "december") & (performance["strength_setting"] == tried.idxmax())
    ]
    performance = performance.dropna(subset=["validation_correlation_mean", "learning_rate"])
    if performance.empty:
        raise LeftOutError("no training says its learning rate and validation correlation")
    return performance, rows


def _labelled(table: pd.DataFrame, analysis: Analysis) -> pd.DataFrame:
    """Return the rows of the analysis' configurations, with their names in the analysis."""
    key = configuration_key(analysis.tables)
    return table.drop(columns=["label", "identity"]).merge(analysis.table[[*key, "label", "identity"]], on=key)


def _coordinates(analysis: Analysis, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the t-SNE of the first seed of at most five strengths, of the middle K, from gentle to strong."""
    counts = sorted(set(rows["n_clusters"]))
    rows = rows[rows["n_clusters"] == counts[len(counts) // 2]].sort_values("strength")
    rows = rows.iloc[sorted({round(i * (len(rows) - 1) / 4) for i in range(5)})]
    names = configuration_key(analysis.tables)
    keys = {}
    for row in rows.to_dict("records"):
        assignments = analysis.tables.ClusterAssignment & {name: row[name] for name in names}
        keys[row["label"]] = assignments.fetch("KEY", order_by="seed", limit=1)[0]
    return figure_frames.embeddings_frame(analysis.tables, keys)


ANALYSIS_FIGURES: dict[str, Callable[[Analysis], Figure | Captioned]] = {
    "agreement": agreement,
    "known-types": known_types,
    "strength": strength,
    "pretraining": pretraining,
    "learning-rates": learning_rates,
    "restarts": restarts,
    "measures": measures,
    "null": null,
    "cluster-count": cluster_count,
    "cluster-tree": cluster_tree,
    "consensus": consensus,
    "alignments": alignment,
    "aligned-readouts": aligned_readouts,
    "cluster-centres": cluster_centres,
    "cluster-confusion": cluster_confusion,
    "block-changes": block_changes,
    "exciting-images": exciting_images,
    "mei-confusion": mei_confusion,
}
COMMON_FIGURES: dict[str, Callable[[Any, pd.DataFrame], Figure]] = {
    "datasets": datasets,
    "equivariant": lambda tables, table: equivariant(table),
    "configurations": lambda tables, table: configurations(tables),
}
