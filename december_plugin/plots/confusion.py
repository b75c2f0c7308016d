"""Clusters and known types: confusion matrix and every method's agreement (Figures 3, 8, 16)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import SettingsError
from december_plugin.plots.clusters_axis import ClustersAxis, draw_means, set_value_limits
from december_plugin.plots.frames import check_counts, check_known, check_once, checked_frame
from december_plugin.plots.panels import (
    PAGE_WIDTH,
    extra_lines,
    figure_page,
    legend_below,
    legend_height,
    settled,
    title_panel,
    wrapped,
)
from december_plugin.plots.shown import draw_others, shown_methods
from december_plugin.plots.style import INK, NOTE, MethodStyle, figure_style

# White to the blue of DECEMber and beyond: the order is visible in grey and to colour-blind readers.
SHARES = LinearSegmentedColormap.from_list("shares", ["#FFFFFF", "#BBD9EE", "#56A4D6", "#0072B2", "#053F66"])
_MAX_NUMBERED = 16
_MAX_TICKS = 40
_UPRIGHT_FROM = 17
_CELL, _MIN_SIDE, _MAX_SIDE = 0.3, 1.7, 4.6


def confusion_figure(confusion: pd.DataFrame, *, title: str = "Clusters and known types") -> Figure:
    """Draw the confusion matrix of clusters and known types.

    The colour of a cell is the share of the type's neurons that are in the cluster, so that a type of five neurons can
    be read as well as one of five hundred; the numbers are counts (for at most 16 clusters and types).

    Parameters
    ----------
    confusion
        Numbers of neurons with a known type: a row per cluster, a column per type, both in the matched order (the
        diagonal holds the pairs); neurons without a cluster are the row -1. Neurons without a known type are not
        counted; clusters that hold only such neurons have rows of zeros.
    title
        Title of the figure.

    Returns
    -------
    Figure
        One panel and its colour bar.

    Raises
    ------
    SettingsError
        If it is not a frame, is empty, or holds anything but counts.

    See Also
    --------
    known_types_figure : Draws the matrix next to every method's agreement with the types.
    december_plugin.results.confusion_frame : Returns the matrix of a lab.
    december_plugin.evaluation.confusion_matrix : Counts clusters and types.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import confusion_figure
    >>> counts = pd.DataFrame([[20, 1], [2, 17]], index=pd.Index([0, 1], name="cluster"), columns=["OFF", "ON"])
    >>> figure = confusion_figure(counts)
    >>> [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    ['OFF (22)', 'ON (18)']
    >>> figure.axes[0].texts[-1].get_text()  # below the title
    '37 of 40 typed neurons on the diagonal'
    """
    confusion = _checked_confusion(confusion)
    width, height = _panel_size(confusion)
    figure_width = max(width + 1.5, 3.5)
    title = wrapped(title, figure_width - 0.6)
    with figure_style():
        figure = figure_page(height + 1.0 + extra_lines(title), width=figure_width)
        ax = figure.add_subplot()
        _draw_confusion(ax, confusion)
        title_panel(ax, "", title, _confusion_note(confusion))
    return figure


def known_types_figure(
    agreement: pd.DataFrame, confusion: pd.DataFrame, *, n_types: int | None = None, title: str | None = None
) -> Figure:
    """Draw every method's agreement with known types next to the confusion matrix of one of them.

    With one K, as in the paper's Figures 3 and 8: a row per method, agreement with the types and between seeds. With
    several, as in Figure 16: agreement with the types against K.

    Parameters
    ----------
    agreement
        One row per method and K: ``label``, ``n_clusters``, ``types_agreement_mean`` and ``types_agreement_sd``, and
        optionally ``agreement_mean`` and ``agreement_sd`` (between seeds). NaN: not known.
    confusion
        As for :func:`confusion_figure`.
    n_types
        Number of known types, marked on the axis of K; None: that of the matrix.
    title
        Title of the matrix, e.g. its method.

    Returns
    -------
    Figure
        Two panels.

    Raises
    ------
    SettingsError
        If a frame is empty, lacks a column, or a column is not numeric, or two rows have the same method and K.

    See Also
    --------
    confusion_figure : Draws the matrix alone.
    december_plugin.plots.agreement_figure : Draws agreement between seeds and with known types against K.
    december_plugin.results.confusion_frame : Returns the matrix of a lab.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import known_types_figure
    >>> agreement = pd.DataFrame({"label": ["DECEMber", "k-means"], "n_clusters": 2})
    >>> agreement = agreement.assign(types_agreement_mean=[0.92, 0.71], types_agreement_sd=[0.03, 0.08])
    >>> counts = pd.DataFrame([[20, 1], [2, 17]], index=pd.Index([0, 1], name="cluster"), columns=["OFF", "ON"])
    >>> figure = known_types_figure(agreement, counts, title="DECEMber")
    >>> [ax.get_title(loc="left") for ax in figure.axes[:2]]
    ['A  Agreement', 'B  DECEMber']
    >>> [tick.get_text() for tick in figure.axes[1].get_xticklabels()]
    ['OFF (22)', 'ON (18)']
    """
    what = "the table"
    agreement = checked_frame(
        *(agreement, what),
        text=("label",),
        numbers=("n_clusters", "types_agreement_mean", "types_agreement_sd"),
        optional=("agreement_mean", "agreement_sd"),
        empty="no agreement with known types that could be drawn has been computed yet.",
    )
    check_counts(agreement, what)
    check_known(agreement, what, "types_agreement_mean")
    check_once(agreement, what, ("label", "n_clusters"), "Draw one dataset and model at a time.")
    confusion = _checked_confusion(confusion)
    shown = shown_methods(agreement, "types_agreement_mean")
    styles, handles = shown.styles, shown.handles()
    one_count = agreement["n_clusters"].nunique() == 1
    matrix_width, matrix_height = _panel_size(confusion)
    rows = 0.3 * len(styles) + 0.9
    legend = (
        0.3 if one_count else legend_height([str(handle.get_label()) for handle in handles], width=0.9 * PAGE_WIDTH)
    )
    right = min(matrix_width + 1.2, 0.6 * PAGE_WIDTH)
    with figure_style():
        matrix_title = wrapped(title or "Clusters and known types", right - 0.6)
        height = max(matrix_height + 0.9, rows if one_count else 2.6)
        figure = figure_page(height + legend + extra_lines(matrix_title))
        left_ax, right_ax = figure.subplots(1, 2, width_ratios=(PAGE_WIDTH - right, right))
        if one_count:
            _draw_method_rows(left_ax, agreement, styles, len(shown.others))
            legend_below(figure, _row_handles(agreement))
        else:
            draw_others(left_ax, agreement, shown.others, "types_agreement_mean")
            _draw_against_count(left_ax, agreement, styles, PAGE_WIDTH - right, n_types or confusion.shape[1])
            legend_below(figure, handles, width=0.9 * PAGE_WIDTH)
        _draw_confusion(right_ax, confusion)
        title_panel(right_ax, "B", matrix_title, _confusion_note(confusion))
        settled(figure)
    return figure


def _checked_confusion(confusion: Any) -> pd.DataFrame:
    if not isinstance(confusion, pd.DataFrame):
        raise SettingsError(
            f"the confusion matrix is {type(confusion).__name__}; it must be a pandas.DataFrame of counts, index "
            "clusters, columns types."
        )
    if confusion.empty:
        raise SettingsError("the confusion matrix is empty: no neuron has both a cluster and a known type.")
    try:
        counts = confusion.astype("float64")
    except (TypeError, ValueError):
        raise SettingsError("the confusion matrix holds values that are not counts.") from None
    values = counts.to_numpy()
    if not (np.isfinite(values).all() and (values >= 0).all() and (values == np.round(values)).all()):
        raise SettingsError("the confusion matrix holds values that are not counts.")
    return counts.astype(int)


def _panel_size(confusion: pd.DataFrame) -> tuple[float, float]:
    """Return width and height of the matrix in inches; cells are square as long as they fit."""
    n_rows, n_columns = confusion.shape
    height, width = (float(np.clip(_CELL * n, _MIN_SIDE, _MAX_SIDE)) for n in (n_rows, n_columns))
    return width, height


def _confusion_note(confusion: pd.DataFrame) -> str:
    n = int(confusion.to_numpy().sum())
    # The row of neurons without a cluster has no partner, even where it meets the diagonal.
    is_cluster = np.array([name != NO_CLUSTER for name in confusion.index])
    hits = int(np.trace(confusion.to_numpy() * is_cluster[:, None]))
    return f"{hits:,} of {n:,} typed neurons on the diagonal"


def _draw_confusion(ax: Axes, confusion: pd.DataFrame) -> None:
    counts = confusion.to_numpy()
    totals = counts.sum(axis=0)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    n_rows, n_columns = counts.shape
    # Cells are patches, because some viewers of vector graphics blur images.
    mesh = ax.pcolormesh(
        np.arange(n_columns + 1) - 0.5,
        np.arange(n_rows + 1) - 0.5,
        shares,
        cmap=SHARES,
        vmin=0,
        vmax=1,
        edgecolors="#E6E6E6",
        linewidth=0.4,
    )
    ax.set(xlim=(-0.5, n_columns - 0.5), ylim=(n_rows - 0.5, -0.5))
    ax.spines[:].set(visible=True, linewidth=0.6)
    if n_rows <= _MAX_NUMBERED and n_columns <= _MAX_NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.55 else INK
            text = f"{counts[row, column]:,}"
            ax.text(column, row, text, ha="center", va="center", color=color, fontsize=7 if len(text) < 4 else 6)
    _name_cells(ax, confusion, totals)
    bar = ax.figure.colorbar(mesh, ax=ax, fraction=0.05, pad=0.03, aspect=25)
    bar.outline.set_linewidth(0.6)
    bar.set_label("share of the type's neurons", fontsize=7.5)
    bar.set_ticks([0, 0.5, 1])


def _name_cells(ax: Axes, confusion: pd.DataFrame, totals: np.ndarray) -> None:
    n_rows, n_columns = confusion.shape
    step_x, step_y = -(-n_columns // _MAX_TICKS), -(-n_rows // _MAX_TICKS)
    names = [f"{name} ({total:,})" for name, total in zip(confusion.columns, totals, strict=True)]
    is_long = max(map(len, names)) > 5 or n_columns > 8
    ax.set_xticks(range(0, n_columns, step_x), names[::step_x])
    upright = n_columns >= _UPRIGHT_FROM
    ax.tick_params(
        axis="x", rotation=90 if upright else 40 if is_long else 0, length=2, labelsize=6.5 if upright else 7
    )
    if is_long and not upright:
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    ax.set_yticks(range(0, n_rows, step_y), [str(name) for name in confusion.index[::step_y]])
    ax.tick_params(axis="y", length=2, labelsize=7)
    ax.set_xlabel("known type (number of neurons)")
    ax.set_ylabel("cluster")


def _draw_method_rows(ax: Axes, agreement: pd.DataFrame, styles: dict[str, MethodStyle], n_others: int) -> None:
    by_method = agreement.set_index("label")
    both = bool(agreement["agreement_mean"].notna().any())
    for position, (label, style) in enumerate(styles.items()):
        row = by_method.loc[label]
        for column, marker, shift in (("types_agreement", "o", -0.12), ("agreement", "D", 0.12)):
            if np.isnan(row[f"{column}_mean"]):
                continue
            ax.errorbar(
                row[f"{column}_mean"],
                position + (shift if both else 0.0),
                xerr=None if np.isnan(row[f"{column}_sd"]) else row[f"{column}_sd"],
                label=f"{label}: {column}",
                color=style.color,
                marker=marker,
                markersize=5 if column == "types_agreement" else 4,
                markerfacecolor=style.color if column == "types_agreement" else "white",
                elinewidth=1.0,
                linestyle="none",
                zorder=style.zorder,
            )
    ax.set_yticks(range(len(styles)), [label.replace(", ", ",\n", 1) for label in styles])
    ax.set_ylim(len(styles) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    low = min(0.0, float((agreement["types_agreement_mean"] - agreement["types_agreement_sd"].fillna(0)).min()))
    ax.set_xlim(low - 0.02, 1.03)
    ax.set_xlabel("adjusted Rand index")
    ax.grid(axis="x")
    best = f"; the best of {len(styles) + n_others} methods" if n_others else ""
    title_panel(ax, "A", "Agreement", f"mean ± SD over seeds, K = {agreement['n_clusters'].iloc[0]:g}{best}")


def _row_handles(agreement: pd.DataFrame) -> list[Line2D]:
    settings: dict[str, Any] = {"linestyle": "", "color": INK}
    handles = [Line2D([], [], marker="o", markersize=5, label="with known types", **settings)]
    if agreement["agreement_mean"].notna().any():
        label = "between seeds"
        handles.append(Line2D([], [], marker="D", markersize=4, markerfacecolor="white", label=label, **settings))
    return handles


def _draw_against_count(
    ax: Axes, agreement: pd.DataFrame, styles: dict[str, MethodStyle], width: float, n_types: int
) -> None:
    axis = ClustersAxis(agreement["n_clusters"].to_numpy(), len(styles), width)
    axis.prepare(ax)
    for (label, style), offset in zip(styles.items(), axis.offsets(False), strict=True):
        rows = agreement[(agreement["label"] == label) & agreement["types_agreement_mean"].notna()]
        draw_means(
            *(ax, rows.sort_values("n_clusters"), "types_agreement_mean", "types_agreement_sd", label, style),
            offset=offset,
        )
    set_value_limits(ax, agreement["types_agreement_mean"], agreement["types_agreement_sd"])
    ax.set_ylabel("adjusted Rand index")
    ax.grid(axis="y")
    low, high = ax.get_xlim()
    if low <= n_types <= high:
        ax.axvline(n_types, color=NOTE, linewidth=0.8, linestyle=":", zorder=1, label="_types")
        ax.annotate(
            f"{n_types} types",
            (n_types, 0),
            (3, 4),
            xycoords=ax.get_xaxis_transform(),
            textcoords="offset points",
            fontsize=7,
        )
    title_panel(ax, "A", "Agreement with known types", "mean ± SD over seeds")
