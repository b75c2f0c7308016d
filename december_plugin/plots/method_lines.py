"""One panel of methods against the number of clusters K, shared by several figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
from matplotlib.axes import Axes

from december_plugin.plots.clusters_axis import ClustersAxis, draw_means, set_value_limits
from december_plugin.plots.shown import draw_others
from december_plugin.plots.style import MethodStyle

_CORRIDOR = 0.16


def minus_best(rows: pd.DataFrame, value: str, *, by: str = "label", best: str = "max") -> pd.Series:
    """Return values minus the best of their method, to be compared along a curve but never between curves.

    Likelihoods of different methods are densities of different readout vectors (other scales, other trainings), BIC
    follows them, and a silhouette depends on how far these vectors spread.

    Parameters
    ----------
    rows
        One row per method and K.
    value, by
        Columns of the values and of the methods.
    best
        "max" or "min", what is best; "" returns the values as they are.
    """
    if not best:
        return rows[value]
    return rows[value] - rows.groupby(by)[value].transform(best)


def draw_against_k(
    ax: Axes,
    rows: pd.DataFrame,
    styles: Mapping[str, MethodStyle],
    *,
    width: float,
    by: str = "label",
    mean: str = "agreement_mean",
    sd: str = "agreement_sd",
    ylabel: str = "adjusted Rand index",
    corridor: bool = False,
    others: Iterable[str] = (),
) -> dict[str, float]:
    """Draw means against K, a line for each method, and set both axes; return how far each is moved, in points.

    Parameters
    ----------
    ax
        The panel.
    rows
        One row per method and K.
    styles
        Styles by value of the column ``by``, in the order of the legend; the values label the lines.
    width
        Width of the panel, inches.
    by, mean, sd
        Columns: what distinguishes the lines, and what is drawn.
    ylabel
        Label of the vertical axis.
    corridor
        Whether the SD is a band instead of bars.
    others
        Values of ``by`` that are drawn as thin grey lines below the others.
    """
    known = rows[rows[mean].notna()]
    axis = ClustersAxis(rows["n_clusters"].to_numpy(), len(styles), width)
    axis.prepare(ax)
    draw_others(ax, known, others, mean, by=by)
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
    return {} if corridor else dict(zip(styles, axis.offsets(False), strict=True))
