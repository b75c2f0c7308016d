"""t-SNE of vectors with the centres of their clusters, numbered.

After Figures 6 and A3 of Ustyuzhaninov et al. 2020.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from december_plugin.errors import SettingsError
from december_plugin.plots.embedding import densest_point
from december_plugin.plots.frames import checked_frame
from december_plugin.plots.groups import Grouping, as_groupings
from december_plugin.plots.panels import PAGE_WIDTH, TITLE_LINE, figure_page, letters, settled, wrapped
from december_plugin.plots.style import INK, NOTE, PALE, figure_style

_MAX_COLUMNS = 3
_ALONE = 5.0  # inches, of a single panel
_MAX_VECTOR_POINTS = 1500


def cluster_centres_figure(coordinates: pd.DataFrame, *, what: str = "aligned readout vectors") -> Figure:
    """Draw t-SNE of vectors in the colours of their clusters, with a numbered star where each cluster is densest.

    Parameters
    ----------
    coordinates
        One row per neuron and panel: ``label`` (the title of the panel), ``x``, ``y`` and ``group`` (its cluster; None,
        "", -1 and NaN mean none), as :func:`~december_plugin.plots.tsne_frame` makes it. Every label has its own panel,
        with its own colours; for example, data next to controls.
    what
        What was embedded.

    Returns
    -------
    Figure
        A panel for each label, at most three side by side.

    Raises
    ------
    SettingsError
        If the frame is empty or lacks a column.

    See Also
    --------
    december_plugin.plots.tsne_frame : Makes the coordinates.
    december_plugin.plots.embedding_panels_figure : Gives groups of different panels that share neurons one colour.
    december_plugin.plots.aligned_readouts_figure : Draws the vectors themselves.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from december_plugin.plots import cluster_centres_figure
    >>> clusters = np.repeat([0, 1], 20)
    >>> points = np.random.default_rng(0).normal(size=(40, 2)) + 8 * clusters[:, None]
    >>> coordinates = pd.DataFrame({"label": "aligned", "x": points[:, 0], "y": points[:, 1], "group": clusters})
    >>> figure = cluster_centres_figure(coordinates)
    >>> figure.get_supxlabel()
    't-SNE of 40 aligned readout vectors; stars: centres of clusters'
    >>> [number.get_text() for number in figure.axes[0].texts]
    ['0', '1']
    """
    frame = checked_frame(
        *(coordinates, "the frame of coordinates"),
        text=("label",),
        numbers=("x", "y"),
        empty="there are no neurons that could be drawn.",
    )
    if "group" not in frame:
        raise SettingsError(f"the frame of coordinates has no column 'group'. It has: {', '.join(map(str, frame))}.")
    frame = frame.dropna(subset=["x", "y"])
    panels = [(str(label), rows) for label, rows in frame.groupby("label", sort=False)]
    n_columns = min(len(panels), _MAX_COLUMNS)
    n_rows = -(-len(panels) // n_columns)
    side = _ALONE if len(panels) == 1 else PAGE_WIDTH / n_columns
    titles = [wrapped(label, side - 0.3) for label, _ in panels]
    head = TITLE_LINE * (1 + max(title.count("\n") for title in titles))
    with figure_style():
        figure = figure_page(n_rows * (side + head - 0.1) + 0.25, width=side * n_columns)
        axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
        names = letters(len(panels)) if len(panels) > 1 else [""]
        for ax, name, title, (label, rows) in zip(axes, names, titles, panels, strict=False):
            points = rows[["x", "y"]].to_numpy()
            (grouping,) = as_groupings({label: rows["group"].tolist()}, len(rows))
            draw_islands(ax, points, grouping)
            _draw_centres(ax, points, grouping, font=7.0 if side > 3 else 5.5)
            ax.set_title(f"{name}  {title}" if name else title, pad=5, fontsize=8.5)
        for ax in axes[len(panels) :]:
            ax.remove()
        figure.supxlabel(f"t-SNE of {len(panels[0][1]):,} {what}; stars: centres of clusters", fontsize=7, color=NOTE)
        settled(figure)
    return figure


def draw_islands(ax: Axes, points: np.ndarray, grouping: Grouping, *, only: int | None = None) -> None:
    """Draw points (N, 2) in the colours of their groups into a square panel; with ``only``, of one group."""
    size = float(np.clip(5000 / len(points), 1.0, 12.0))
    colored = grouping.codes >= 0 if only is None else grouping.codes == only
    order = np.random.default_rng(0).permutation(np.flatnonzero(colored))
    dense = len(points) > _MAX_VECTOR_POINTS
    x, y = points.T
    ax.scatter(x[~colored], y[~colored], s=0.7 * size, c=PALE, linewidths=0, rasterized=dense)
    if len(order):
        colors = np.array(grouping.colors)[grouping.codes[order]]
        ax.scatter(x[order], y[order], s=size, c=colors, linewidths=0, alpha=0.85, rasterized=dense)
    center = (points.min(axis=0) + points.max(axis=0)) / 2
    half = max(float(np.ptp(points, axis=0).max()) / 2 * 1.06, 1e-9)
    ax.set(xlim=(center[0] - half, center[0] + half), ylim=(center[1] - half, center[1] + half))
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set(visible=True, color="#BBBBBB", linewidth=0.6)


def _draw_centres(ax: Axes, points: np.ndarray, grouping: Grouping, *, font: float) -> None:
    for code, name in enumerate(grouping.names):
        x, y = densest_point(points[grouping.codes == code])
        ax.plot(x, y, "*", color="black", markersize=font, markeredgecolor="white", markeredgewidth=0.5, zorder=4)
        text = ax.annotate(
            *(name, (x, y)),
            xytext=(0, 0.45 * font),
            textcoords="offset points",
            fontsize=font,
            weight="bold",
            color=INK,
            ha="center",
            va="bottom",
            zorder=5,
        )
        text.set_path_effects([withStroke(linewidth=1.8, foreground="white", alpha=0.9)])
