"""One panel of methods against the number of clusters K, as several figures have it."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from december_plugin.plots.clusters_axis import ClustersAxis, draw_means, set_value_limits
from december_plugin.plots.style import MethodStyle

_CORRIDOR = 0.16


def draw_against_k(
    ax: Axes,
    rows: pd.DataFrame,
    styles: Mapping[str, MethodStyle],
    *,
    width: float,
    by: str = "method",
    mean: str = "ari_mean",
    sd: str = "ari_sd",
    ylabel: str = "adjusted Rand index",
    corridor: bool = False,
) -> None:
    """Draw means against K, a line for each method, and set both axes.

    Parameters
    ----------
    ax
        The panel.
    rows
        One row per method and K.
    styles
        Looks of the values of the column ``by``, in the order of the legend; they are the lines' labels, too.
    width
        Width of the panel, inches.
    by, mean, sd
        Columns: what tells the lines apart, and what is drawn.
    ylabel
        Of the vertical axis.
    corridor
        Whether the SD is a band instead of bars.
    """
    known = rows[rows[mean].notna()]
    axis = ClustersAxis(rows["n_clusters"].to_numpy(), len(styles), width)
    axis.prepare(ax)
    for (key, style), offset in zip(styles.items(), axis.offsets(False), strict=True):
        line = known[known[by] == key].sort_values("n_clusters")
        if line.empty:
            continue
        if corridor:
            low, high = line[mean] - line[sd], line[mean] + line[sd]
            ax.fill_between(line["n_clusters"], low, high, color=style.color, alpha=_CORRIDOR, linewidth=0, zorder=1.5)
            ax.plot(line["n_clusters"], line[mean], label=str(key), **style.line_settings())
        else:
            draw_means(ax, line, mean, sd, str(key), style, offset=offset)
    if len(known):
        set_value_limits(ax, known[mean], known[sd])
    ax.set_ylabel(ylabel)
    ax.grid(axis="y")
