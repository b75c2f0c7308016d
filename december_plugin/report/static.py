"""The same charts as still pictures, for paper and for browsers that run no scripts."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from december_plugin.errors import SettingsError
from december_plugin.evaluation.methods import Method
from december_plugin.findings.aligned_vectors import AlignedVectors
from december_plugin.findings.cluster_functions import FunctionalBlocks, PreferredImages
from december_plugin.findings.data import Analysis

# Letters as outlines: inside of a page the file's own fonts are not there.
_RC: Any = {"svg.hashsalt": "december_plugin", "svg.fonttype": "path"}
_MAX_SVG = 400_000  # bytes; above, a bitmap is smaller
_DPI = 150


@dataclass(frozen=True)
class Picture:
    """A picture that is part of the page: its address holds its bytes."""

    source: Markup
    alt: str


def picture(draw: Callable[[], Figure], alt: str) -> Picture | None:
    """Return a figure as a picture; None if the frames have nothing that could be drawn."""
    try:
        figure = draw()
    except SettingsError:  # the table below the place of the figure says the same
        return None
    with matplotlib.rc_context(_RC):
        content = _saved(figure, "svg", metadata={"Date": None})
        kind = "svg+xml"
        if len(content) > _MAX_SVG:
            content, kind = _saved(figure, "png", dpi=_DPI), "png"
    return Picture(Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}"), alt)


def _saved(figure: Figure, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **settings)
    return buffer.getvalue()


def agreement_picture(analysis: Analysis) -> Picture | None:
    """Return agreement and correlation against K."""
    from december_plugin.plots import agreement_figure

    wording = analysis.wording
    alt = f"{wording.between}, agreement with known types and test correlation against the number of clusters."
    return picture(lambda: agreement_figure(analysis.agreement, n_types=analysis.n_types, many=wording.many), alt)


def counts_picture(analysis: Analysis) -> Picture | None:
    """Return the criteria for K."""
    if analysis.counts.empty:
        return None
    from december_plugin.plots.model_selection import cluster_count_figure

    many = analysis.wording.many
    alt = "Criteria for the number of clusters against K."
    return picture(lambda: cluster_count_figure(analysis.counts, many=many), alt)


def strength_picture(analysis: Analysis) -> Picture | None:
    """Return what the strength does, at the number of clusters that is shown."""
    from december_plugin.plots.strength import strength_figure

    table = analysis.agreement
    december = table[table["method"] == "december"]
    count = analysis.chosen.n_clusters if analysis.chosen is not None else None
    at_k = december[december["n_clusters"] == count] if count is not None else december
    baseline = analysis.agreement[analysis.agreement["trainer_role"] == "baseline"].head(1)
    columns = ["label", "identity", "strength", "test_correlation_mean", "test_correlation_sd", "gradient_ratio"]
    rows = [at_k[columns].drop_duplicates("label")]
    if len(baseline):
        rows.append(baseline.assign(label="baseline", identity=Method("baseline"), strength=0.0)[columns])
    performance = pd.concat([row.astype({"strength": float}) for row in rows], ignore_index=True)
    alt = f"Test correlation, gradient ratio (K = {count}) and agreement between seeds by strength of the loss."
    return picture(lambda: strength_figure(performance, december), alt)


def embedding_picture(analysis: Analysis) -> Picture | None:
    """Return the t-SNE by cluster, session and, where known, type."""
    chosen, embedding = analysis.chosen, analysis.embedding
    if chosen is None or embedding is None:
        return None
    from december_plugin.plots import embedding_figure

    neurons = embedding.neurons.merge(chosen.neurons, on=["data_key", "unit_id"], how="left")
    clusters = neurons["cluster"]
    groupings: dict[str, Any] = {chosen.title: clusters.fillna(-1).astype(int).to_numpy()}
    if "type" in neurons and neurons["type"].notna().any():
        groupings["known type"] = neurons["type"].where(neurons["type"].notna(), None).to_numpy(dtype=object)
    groupings["session"] = neurons["data_key"].to_numpy(dtype=object)
    points = neurons[["x", "y"]].to_numpy()
    return picture(
        lambda: embedding_figure(
            points, groupings, coordinates=points, reference=next(iter(groupings)), what=embedding.vectors
        ),
        f"t-SNE of {embedding.vectors}, coloured by cluster, by known type where there are some, and by session.",
    )


def confusion_picture(frame: pd.DataFrame, title: str) -> Picture | None:
    """Return a confusion matrix."""
    from december_plugin.plots.confusion import confusion_figure

    return picture(lambda: confusion_figure(frame, title=title), f"{title}: confusion of clusters and known types.")


def tree_picture(analysis: Analysis) -> Picture | None:
    """Return how the clusters of the method that is shown split as their number grows."""
    if analysis.tree is None or analysis.chosen is None:
        return None
    from december_plugin.plots.cluster_tree import cluster_tree_figure

    tree, title = analysis.tree, analysis.chosen.label
    alt = "Clusters for every number of clusters, and which of them their neurons come from."
    return picture(lambda: cluster_tree_figure(tree.nodes, tree.edges, title=title), alt)


def consensus_picture(analysis: Analysis) -> Picture | None:
    """Return stability and confidence by cluster."""
    chosen = analysis.chosen
    if chosen is None or chosen.n_seeds < 2:
        return None
    from december_plugin.plots.confidence import consensus_figure

    title = chosen.title
    many = analysis.wording.many
    alt = "Stability and confidence of the neurons by cluster."
    return picture(lambda: consensus_figure(chosen.neurons, title=title, many=many), alt)


def configurations_picture(pairs: pd.DataFrame, title: str) -> Picture | None:
    """Return the matrices of agreement and similarity across configurations."""
    from december_plugin.plots import configurations_figure

    alt = f"Agreement of clusters and similarity of embeddings between all models, as matrices: {title}."
    return picture(lambda: configurations_figure(pairs, title=title), alt)


def cluster_confusion_picture(functions: FunctionalBlocks) -> Picture | None:
    """Return how alike clusters respond, in blocks."""
    from december_plugin.plots import cluster_confusion_figure

    names = functions.clusters.tolist()
    settings: dict[str, Any] = {"threshold": functions.blocks.threshold, "names": names, "title": functions.title}
    alt = (
        f"Correlations between the responses of clusters, in blocks, and the tree that makes these: {functions.title}."
    )
    return picture(lambda: cluster_confusion_figure(functions.correlations, **settings), alt)


def block_changes_picture(functions: FunctionalBlocks) -> Picture | None:
    """Return the next merges of blocks, and the last ones undone."""
    from december_plugin.plots import block_changes_figure

    settings: dict[str, Any] = {"threshold": functions.blocks.threshold, "names": functions.clusters.tolist()}
    alt = "The next merges of blocks below the threshold, and the last ones above it undone."
    return picture(lambda: block_changes_figure(functions.correlations, **settings), alt)


def mei_confusion_picture(preferred: PreferredImages) -> Picture | None:
    """Return how strongly neurons respond to each other's maximally exciting images."""
    from december_plugin.plots import mei_confusion_figure

    clusters = preferred.compared["cluster"].to_numpy()
    blocks, title = preferred.blocks or None, preferred.title
    alt = f"Responses of neurons to each other's maximally exciting images, ordered by cluster: {title}."
    return picture(lambda: mei_confusion_figure(preferred.responses, clusters, blocks=blocks, title=title), alt)


def alignments_picture(alignments: pd.DataFrame) -> Picture | None:
    """Return how well alignments went."""
    from december_plugin.plots import alignments_figure

    alt = "Distances between vectors before and after each alignment, the temperature reached, and ambiguous angles."
    return picture(lambda: alignments_figure(alignments), alt)


def aligned_readouts_picture(aligned: AlignedVectors) -> Picture | None:
    """Return readout vectors as they are and aligned."""
    from december_plugin.plots import aligned_readouts_figure

    settings: dict[str, Any] = {"n_orientations": aligned.n_orientations, "title": aligned.title}
    alt = f"Readout vectors by cluster and angle, as they are and aligned: {aligned.title}."
    return picture(lambda: aligned_readouts_figure(aligned.readouts, aligned.angles, aligned.clusters, **settings), alt)


def cluster_centres_picture(aligned: AlignedVectors) -> Picture | None:
    """Return the t-SNE of aligned vectors with the centres of their clusters."""
    from december_plugin.plots import cluster_centres_figure

    alt = f"t-SNE of aligned readout vectors, the centres of their clusters numbered: {aligned.title}."
    return picture(lambda: cluster_centres_figure(aligned.coordinates.assign(label=aligned.title)), alt)
