"""What four criteria say about the number of clusters K, side by side."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from december_plugin.plots.frames import check_counts, check_known, check_once, checked_frame
from december_plugin.plots.method_lines import draw_against_k
from december_plugin.plots.panels import (
    PAGE_WIDTH,
    figure_page,
    legend_below,
    legend_height,
    letters,
    line_handles,
    title_panel,
)
from december_plugin.plots.style import INK, MethodStyle, figure_style, method_styles

# Stem of the columns of numbers, title, label of the axis, and whether more is better.
CRITERIA = (
    ("seeds", "Agreement between seeds", "adjusted Rand index", True),
    ("heldout_log_likelihood", "Held-out likelihood", "log likelihood (nats)", True),
    ("bic", "Bayesian information criterion", "BIC", False),
    ("silhouette", "Silhouette", "mean silhouette", True),
)
_ROW, _LINE, _CHARACTERS = 2.35, 0.145, 118
_LARGE = 1e4
_RING: dict[str, Any] = {
    "markersize": 10,
    "markerfacecolor": "none",
    "markeredgecolor": INK,
    "markeredgewidth": 0.9,
}
_WHAT = "the table"


def cluster_count_figure(table: pd.DataFrame, choices: pd.DataFrame | None = None) -> Figure:
    """Draw four criteria against K, with the K that each picks, if any, and what that amounts to in a sentence.

    Parameters
    ----------
    table
        One row per method and K: ``method`` (what the legend says), ``n_clusters``, ``seeds_mean``, ``seeds_sd``, and,
        as far as they are known, ``heldout_log_likelihood_mean``, ``bic_mean``, ``silhouette_mean`` with their ``_sd``.
        A criterion without any value has no panel.
    choices
        One row per method: ``method``, the K that a criterion picks or NaN in the columns ``agreement``,
        ``heldout_log_likelihood``, ``bic``, ``silhouette`` (as far as they are there), and ``statement``, printed below
        the panels. None: no marks.

    Returns
    -------
    Figure
        Up to four panels, two side by side.

    Raises
    ------
    SettingsError
        If the table is empty, lacks a column, a column holds no numbers, or there are two rows where one can be drawn.
    """
    table = _checked(table)
    panels = [panel for panel in CRITERIA if table[f"{panel[0]}_mean"].notna().any()]
    styles = method_styles(table["method"])
    statements = _statements(choices)
    n_columns = min(len(panels), 2)
    n_rows = -(-len(panels) // n_columns)
    width = PAGE_WIDTH if n_columns == 2 else 4.2
    handles = line_handles(styles)
    if choices is not None:
        handles.append(_ring())
    labels = [str(handle.get_label()) for handle in handles]
    text = "\n".join(textwrap.fill(statement, int(_CHARACTERS * width / PAGE_WIDTH)) for statement in statements)
    below = _LINE * (text.count("\n") + 1) + 0.05 if text else 0.0
    with figure_style():
        height = n_rows * _ROW + legend_height(labels, width=width)
        figure = figure_page(height + below, width=width)
        page, foot = _page_and_foot(figure, height, below)
        axes = list(page.subplots(n_rows, n_columns, squeeze=False).flat)
        for ax, name, (stem, title, ylabel, more) in zip(axes, letters(len(panels)), panels, strict=False):
            settings: dict[str, Any] = {"mean": f"{stem}_mean", "sd": f"{stem}_sd", "ylabel": ylabel}
            draw_against_k(ax, table, styles, width=width / n_columns, **settings)
            if table[f"{stem}_mean"].abs().max() >= _LARGE:
                ax.yaxis.set_major_formatter(EngFormatter(sep=""))
            if choices is not None:
                _mark(ax, table, choices, stem, styles)
            over = "pairs of seeds" if stem == "seeds" else "models"
            title_panel(ax, name, title, f"mean ± SD over {over}; {'more' if more else 'less'} is better")
        for ax in axes[len(panels) :]:
            ax.remove()
        legend_below(page, handles, width=width)
        if foot is not None:
            foot.text(0.02, 1, text, fontsize=7, va="top", color=INK)
    return figure


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    optional = [f"{stem}_{part}" for stem, *_ in CRITERIA[1:] for part in ("mean", "sd")]
    table = checked_frame(
        *(table, _WHAT),
        text=("method",),
        numbers=("n_clusters", "seeds_mean", "seeds_sd"),
        optional=optional,
        empty="no criterion has been computed yet that could be drawn.",
    )
    check_counts(table, _WHAT)
    known = table[[f"{stem}_mean" for stem, *_ in CRITERIA]].notna().any()
    if not known.any():
        check_known(table, _WHAT, "seeds_mean")
    check_once(table, _WHAT, ("method", "n_clusters"), "Draw one dataset and model at a time.")
    return table


def _statements(choices: pd.DataFrame | None) -> list[str]:
    if choices is None or "statement" not in choices:
        return []
    return [
        f"{row.method}: {row.statement}" if "method" in choices else str(row.statement) for row in choices.itertuples()
    ]


def _mark(ax: Axes, table: pd.DataFrame, choices: pd.DataFrame, stem: str, styles: dict[str, MethodStyle]) -> None:
    """Put a ring around the point of the K that a criterion picks."""
    column = "agreement" if stem == "seeds" else stem
    if column not in choices:
        return
    for label in styles:
        picked = choices.loc[choices["method"] == label, column].dropna()
        if picked.empty:
            continue
        at = (table["method"] == label) & (table["n_clusters"] == picked.iloc[0])
        values = table.loc[at, f"{stem}_mean"].dropna()
        if len(values):
            ax.plot(
                *([picked.iloc[0]], [values.iloc[0]], "o"),
                zorder=7,
                label=f"_picked by {stem}",
                **_RING,
            )


def _page_and_foot(figure: Figure, height: float, below: float) -> tuple[Any, Any]:
    """Return where the panels go and where the sentences go, if there are any."""
    if not below:
        return figure, None
    page, foot = np.asarray(figure.subfigures(2, 1, height_ratios=(height, below)))
    return page, foot


def _ring() -> Line2D:
    return Line2D([], [], linestyle="", marker="o", label="K that the criterion picks", **_RING)
