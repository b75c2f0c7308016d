"""How clusters split as their number grows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from december_plugin.errors import SettingsError
from december_plugin.evaluation.cluster_tree import EDGE_COLUMNS, NODE_COLUMNS
from december_plugin.plots.panels import PAGE_WIDTH, extra_lines, figure_page, title_panel, wrapped
from december_plugin.plots.style import figure_style, group_colors

_LEVEL = 0.62  # inches between two numbers of clusters
_LARGEST = 330.0  # points squared, of the largest cluster
_LEAST_SHARE = 0.02  # smallest share of a cluster that is drawn as a line
_MOST_NAMED = 16  # clusters of one K whose numbers can be read


def cluster_tree_figure(nodes: pd.DataFrame, edges: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw how the clusters of a small K split into those of a larger one.

    Parameters
    ----------
    nodes, edges
        Frames of a :class:`~december_plugin.evaluation.cluster_tree.ClusterTree`.
    title
        Title of the figure, e.g. the method.

    Returns
    -------
    Figure
        A row of clusters for every K, their areas proportional to their numbers of neurons, in the colour of the
        cluster of the smallest K that they come from. A line is wider the larger the share of the lower cluster that
        comes from the upper one; shares below 2 % are not drawn.

    Raises
    ------
    SettingsError
        If a column is missing, or there are fewer than two values of K.

    See Also
    --------
    december_plugin.plots.cluster_count_figure : Draws what criteria say about the number of clusters.
    december_plugin.results.cluster_tree_of : Makes them of a lab's clusterings.

    Examples
    --------
    >>> from december_plugin.evaluation.cluster_tree import cluster_tree
    >>> from december_plugin.plots import cluster_tree_figure
    >>> tree = cluster_tree({2: [0, 0, 0, 1, 1, 1], 3: [0, 0, 2, 1, 1, 1], 4: [0, 0, 2, 1, 3, 3]})
    >>> figure = cluster_tree_figure(tree.nodes, tree.edges, title="k-means")
    >>> [tick.get_text() for tick in figure.axes[0].get_yticklabels()]  # a row for every K
    ['2', '3', '4']
    >>> len(figure.axes[0].collections[0].get_segments())  # lines from clusters to those of the next K
    7
    """
    for frame, columns, what in ((nodes, NODE_COLUMNS, "nodes"), (edges, EDGE_COLUMNS, "edges")):
        if missing := [name for name in columns if name not in frame]:
            raise SettingsError(f"the frame of {what} has no column {missing[0]!r}; it has: {', '.join(frame)}.")
    counts = sorted(set(nodes["n_clusters"]))
    if len(counts) < 2:
        raise SettingsError("a cluster tree needs at least two numbers of clusters of one method.")
    places = _places(nodes)
    roots = nodes.loc[nodes["n_clusters"] == counts[0]].sort_values("position")["cluster"].tolist()
    colors = dict(zip(roots, group_colors(len(roots)), strict=True))
    color_of = {(row.n_clusters, row.cluster): colors.get(row.root, "#9A9A9A") for row in nodes.itertuples(index=False)}
    head = wrapped(title or "How clusters split", PAGE_WIDTH - 0.6)
    with figure_style():
        figure = figure_page(max(2.2, _LEVEL * len(counts) + 0.9) + extra_lines(head), width=PAGE_WIDTH)
        ax = figure.subplots()
        shown = edges[edges["share_of_child"] >= _LEAST_SHARE].sort_values("share_of_child", kind="stable")
        rows = list(shown.itertuples(index=False))
        starts = [(places[row.n_clusters_from, row.cluster_from], counts.index(row.n_clusters_from)) for row in rows]
        ends = [(places[row.n_clusters_to, row.cluster_to], counts.index(row.n_clusters_to)) for row in rows]
        lines = LineCollection(
            [list(pair) for pair in zip(starts, ends, strict=True)],
            colors=[color_of[row.n_clusters_from, row.cluster_from] for row in rows],
            linewidths=[0.4 + 3.6 * row.share_of_child for row in rows],
            alpha=[0.25 + 0.6 * row.share_of_child for row in rows],
            zorder=1,
        )
        ax.add_collection(lines)
        largest = nodes["n_neurons"].max()
        x = [places[row.n_clusters, row.cluster] for row in nodes.itertuples(index=False)]
        y = [counts.index(row.n_clusters) for row in nodes.itertuples(index=False)]
        sizes = np.maximum(_LARGEST * nodes["n_neurons"] / largest, 12.0)
        own = [color_of[row.n_clusters, row.cluster] for row in nodes.itertuples(index=False)]
        ax.scatter(x, y, s=sizes, c=own, edgecolors="white", linewidths=0.8, zorder=2)
        for place, level, row in zip(x, y, nodes.itertuples(index=False), strict=True):
            if counts[-1] <= _MOST_NAMED:
                above: dict[str, Any] = {"xytext": (0, 10), "textcoords": "offset points", "ha": "center"}
                ax.annotate(f"{row.cluster}", (place, level), fontsize=6, **above)
        ax.set_ylim(len(counts) - 0.5, -0.6)
        ax.set_xlim(-0.04, 1.04)
        ax.set_yticks(range(len(counts)), [f"{count}" for count in counts])
        ax.set_ylabel("number of clusters K")
        ax.set_xticks([])
        for side in ("top", "right", "bottom"):
            ax.spines[side].set_visible(False)
        title_panel(ax, "", head, "area: neurons; line: share of the lower cluster")
    return figure


def _places(nodes: pd.DataFrame) -> dict[tuple[int, int], float]:
    """Return the place of every cluster, 0 to 1: those of one K are side by side, wider the more neurons they have."""
    places: dict[tuple[int, int], float] = {}
    for count, level in nodes.sort_values("position").groupby("n_clusters"):
        # Half of the width is shared equally, so that small clusters do not touch.
        widths = 0.5 * level["n_neurons"] / level["n_neurons"].sum() + 0.5 / len(level)
        middles = widths.cumsum() - widths / 2
        for cluster, middle in zip(level["cluster"], middles, strict=True):
            places[int(count), int(cluster)] = float(middle)
    return places
