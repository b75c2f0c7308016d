"""Agreement against K beside what readouts without clusters give: the null's band, its p values, and the baselines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from december_plugin.plots.clusters_axis import ClustersAxis, draw_means, set_value_limits
from december_plugin.plots.frames import check_counts, check_known, check_once, checked_frame
from december_plugin.plots.panels import (
    PAGE_WIDTH,
    figure_page,
    legend_below,
    legend_height,
    letters,
    line_handles,
    shortened,
    title_panel,
)
from december_plugin.plots.style import INK, MethodStyle, figure_style, method_styles

SIGNIFICANT = 0.05
_BAND, _NULL_LINE = "#DCDCDC", "#7A7A7A"
_ROW, _MAX_COLUMNS = 2.45, 3
_WHAT = "the table of nulls"


def null_figure(nulls: pd.DataFrame, agreement: pd.DataFrame | None = None) -> Figure:
    """Draw the agreement between seeds against K with the band of the null, a panel for each method.

    The null is the same pipeline on surrogate readouts, which have the real ones' mean, covariance and marginals but no
    clusters. An observed point is filled where its p value is below 0.05, and hollow elsewhere.

    Parameters
    ----------
    nulls
        One row per method, K and kind of surrogate: ``method`` (what the legend says), ``n_clusters``, ``seeds_mean``
        (observed), ``null_mean``, ``null_low`` and ``null_high`` (2.5 and 97.5 % of the draws), ``p_value``, and
        optionally ``n_draws`` and ``surrogate_name``.
    agreement
        Baselines and controls, drawn thinly in every panel: ``method``, ``n_clusters``, ``ari_mean``, ``ari_sd``. None:
        no baselines.

    Returns
    -------
    Figure
        Panels with one scale, at most three side by side.

    Raises
    ------
    SettingsError
        If a frame is empty, lacks a column, a column holds no numbers, or there are two rows where one can be drawn.
    """
    nulls = _checked_nulls(nulls)
    others = None if agreement is None or agreement.empty else _checked_baselines(agreement)
    panels = list(dict.fromkeys(zip(nulls["method"], nulls["surrogate_name"], strict=True)))
    labels = [*nulls["method"], *([] if others is None else others["method"])]
    styles = method_styles(labels)
    n_columns = min(len(panels), _MAX_COLUMNS)
    n_rows = -(-len(panels) // n_columns)
    width = min(PAGE_WIDTH, 3.9 * n_columns)
    handles = [*line_handles(styles), *_null_handles()]
    names = [str(handle.get_label()) for handle in handles]
    with figure_style():
        figure = figure_page(n_rows * _ROW + legend_height(names, width=width), width=width)
        axes = list(figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).flat)
        for ax, name, (method, surrogate) in zip(axes, letters(len(panels)), panels, strict=False):
            rows = nulls[(nulls["method"] == method) & (nulls["surrogate_name"] == surrogate)]
            _draw_panel(ax, rows.sort_values("n_clusters"), others, styles, method, width / n_columns)
            title = shortened(method, width / n_columns)
            title_panel(ax, name if len(panels) > 1 else "", title, _note(rows, surrogate))
        for i, ax in enumerate(axes):
            if i >= len(panels):
                ax.remove()
            elif i % n_columns:
                ax.set_ylabel("")
        _set_limits(axes[0], nulls, others)
        legend_below(figure, handles, width=width)
    return figure


def _checked_nulls(nulls: pd.DataFrame) -> pd.DataFrame:
    nulls = checked_frame(
        *(nulls, _WHAT),
        text=("method",),
        numbers=("n_clusters", "seeds_mean", "null_mean", "null_low", "null_high", "p_value"),
        optional=("n_draws",),
        empty="no null has been computed yet; the surrogates of a configuration make it.",
    )
    if "surrogate_name" not in nulls:
        nulls["surrogate_name"] = ""
    check_counts(nulls, _WHAT)
    check_known(nulls, _WHAT, "null_mean")
    check_once(nulls, _WHAT, ("method", "surrogate_name", "n_clusters"), "Draw one dataset and model at a time.")
    return nulls


def _checked_baselines(agreement: pd.DataFrame) -> pd.DataFrame:
    what = "the table of baselines"
    agreement = checked_frame(
        *(agreement, what),
        text=("method",),
        numbers=("n_clusters", "ari_mean", "ari_sd"),
        empty="there are no baselines to draw.",
    )
    check_counts(agreement, what)
    check_once(agreement, what, ("method", "n_clusters"), "Draw one dataset and model at a time.")
    return agreement[agreement["ari_mean"].notna()]


def _draw_panel(
    ax: Axes,
    rows: pd.DataFrame,
    others: pd.DataFrame | None,
    styles: dict[str, MethodStyle],
    method: str,
    width: float,
) -> None:
    counts = [*rows["n_clusters"], *([] if others is None else others["n_clusters"])]
    ClustersAxis(counts, 1, width).prepare(ax)
    baselines = _baselines(method, others)
    x = rows["n_clusters"]
    if len(rows) > 1:
        ax.fill_between(x, rows["null_low"], rows["null_high"], color=_BAND, linewidth=0, zorder=1, label="_band")
        ax.plot(x, rows["null_mean"], color=_NULL_LINE, linewidth=1.0, linestyle=":", zorder=1.5, label="null")
    else:
        spread = np.array([rows["null_mean"] - rows["null_low"], rows["null_high"] - rows["null_mean"]])
        ax.errorbar(x, rows["null_mean"], yerr=spread, color=_NULL_LINE, elinewidth=6, ecolor=_BAND, marker="_")
    for label, style in styles.items():
        if others is not None and label in baselines:
            line = others[others["method"] == label].sort_values("n_clusters")
            settings = style.line_settings() | {"linewidth": 0.9, "markersize": 3.2, "zorder": 2.5}
            ax.plot(line["n_clusters"], line["ari_mean"], label=label, **settings)
    style = styles[method]
    draw_means(ax, rows, "seeds_mean", "seeds_sd", method, style)
    hollow = rows[~(rows["p_value"] < SIGNIFICANT)]
    settings = style.line_settings() | {"linestyle": "none", "markerfacecolor": "white", "zorder": style.zorder + 1}
    settings |= {"markeredgecolor": style.color, "markeredgewidth": 1.2}
    ax.plot(hollow["n_clusters"], hollow["seeds_mean"], label="_not significant", **settings)
    ax.set_ylabel("adjusted Rand index")
    ax.grid(axis="y")


def _baselines(method: str, others: pd.DataFrame | None) -> set[str]:
    """Return what a method is compared with: DECEMber with all others; they are shown with their null alone."""
    if others is None or "december" not in method.lower():
        return set()
    return {label for label in others["method"] if "december" not in label.lower()}


def _set_limits(ax: Axes, nulls: pd.DataFrame, others: pd.DataFrame | None) -> None:
    values = [nulls[name] for name in ("seeds_mean", "null_low", "null_high")]
    if others is not None:
        values.append(others["ari_mean"])
    set_value_limits(ax, pd.concat(values).dropna())


def _note(rows: pd.DataFrame, surrogate: str) -> str:
    draws = rows["n_draws"].dropna()
    text = f"null: {int(draws.min()):,} draws" if len(draws) else "with the null"
    return f"{text}, {surrogate}" if surrogate else text


def _null_handles() -> list[Artist]:
    marker: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 5, "color": INK}
    return [
        Patch(facecolor=_BAND, label="null, 95 % of draws"),
        Line2D([], [], label=f"p < {SIGNIFICANT:g}", **marker),
        Line2D([], [], label=f"p ≥ {SIGNIFICANT:g}", markerfacecolor="white", **marker),
    ]
