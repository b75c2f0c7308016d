"""How well alignments went: distances before and after, the temperature, and ambiguous angles."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, PercentFormatter

from december_plugin.plots.frames import check_known, checked_frame
from december_plugin.plots.panels import PAGE_WIDTH, figure_page, legend_below, legend_height, title_panel, wrapped
from december_plugin.plots.style import INK, NOTE, PALE, figure_style, natural_order

_NUMBERS = ("loss_before", "alignment_loss", "temperature", "ambiguous_share")
_ROW, _LINE = 0.16, 0.13  # inches
_NAME_WIDTH = 3.2
_TEMPERATURES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_MOST_ROWS = 40
_DATA, _CONTROL = "#0072B2", "#4D4D4D"


def alignments_figure(alignments: pd.DataFrame) -> Figure:
    """Draw the diagnostics of alignments, a row for each.

    Parameters
    ----------
    alignments
        One row per alignment: ``label`` (what the row is called), the mean distances between vectors of length 1 before
        and after, ``loss_before`` and ``alignment_loss``, the ``temperature`` that was reached, and the
        ``ambiguous_share`` of neurons whose angle is ambiguous (0 to 1). ``control``, "none" unless features were
        permuted, is optional. Rows with the same label, such as seeds, are drawn on one line. At most 40 labels are
        drawn.

    Returns
    -------
    Figure
        Three panels: the mean distance before and after; the temperature, with a line at 5, above which the relaxed
        shift is close to the linear one; and the share of ambiguous angles. Controls are hollow.

    Raises
    ------
    SettingsError
        If the table is empty, lacks a column, or a column is not numeric.

    See Also
    --------
    december_plugin.plots.aligned_readouts_figure : Draws the vectors before and after their alignment.
    december_plugin.plots.synthetic_alignment_figure : Draws how well alignment works where the truth is known.
    december_plugin.rotation.RotationAlignment : Aligns readout vectors.
    december_plugin.results.alignments : Returns the table of a lab.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import alignments_figure
    >>> alignments = pd.DataFrame({"label": ["recorded", "permuted features"], "control": ["none", "features"]})
    >>> alignments = alignments.assign(loss_before=[1.21, 1.20], alignment_loss=[0.64, 1.02])
    >>> alignments = alignments.assign(temperature=[12.0, 7.5], ambiguous_share=[0.08, 0.41])
    >>> figure = alignments_figure(alignments)
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['Distances', 'Temperature', 'Ambiguous angles']
    >>> [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    ['recorded', 'permuted features']
    """
    from december_plugin.rotation.alignment import LEAST_TEMPERATURE

    what = "the table of alignments"
    table = checked_frame(alignments, what, text=("label",), numbers=_NUMBERS, empty="no readouts were aligned yet.")
    check_known(table, what, "alignment_loss")
    control = table["control"] if "control" in table else pd.Series("none", index=table.index)
    table = table.assign(is_control=control.fillna("none") != "none")
    firsts = table.drop_duplicates("label")
    order = sorted(
        zip(firsts["is_control"], firsts["label"], strict=True), key=lambda row: (row[0], natural_order(row[1]))
    )
    labels = [label for _, label in order][:_MOST_ROWS]
    row_of = {label: row for row, label in enumerate(labels)}
    table = table[table["label"].isin(row_of)]
    handles = _handles(bool(table["is_control"].any()))
    names = [wrapped(label, _NAME_WIDTH) for label in labels]
    n_lines = max(name.count("\n") + 1 for name in names)
    with figure_style():
        legend = legend_height([str(handle.get_label()) for handle in handles])
        figure = figure_page((_ROW + _LINE * n_lines) * len(labels) + 0.85 + legend)
        axes = figure.subplots(1, 3, sharey=True, width_ratios=(1.5, 1, 1))
        for row in table.itertuples(index=False):
            _draw_row(axes, row, row_of[row.label])
        axes[0].set_yticks(range(len(labels)), names)
        axes[0].set_ylim(len(labels) - 0.5, -0.5)
        axes[0].set_xlim(0, 1.06 * float(table[["loss_before", "alignment_loss"]].max().max()))
        axes[0].set_xlabel("mean distance between vectors")
        axes[1].set_xscale("log")
        axes[1].axvline(LEAST_TEMPERATURE, color=NOTE, linewidth=0.8, linestyle="--")
        low, high = float(table["temperature"].min()), float(table["temperature"].max())
        low, high = min(0.8 * low, 0.8 * LEAST_TEMPERATURE), max(1.25 * high, 2.2 * LEAST_TEMPERATURE)
        ticks = [value for value in _TEMPERATURES if low <= value <= high]
        axes[1].set_xlim(low, high)
        axes[1].set_xticks(ticks, [f"{value:g}" for value in ticks])
        axes[1].xaxis.set_minor_locator(NullLocator())
        axes[1].set_xlabel("temperature T")
        axes[2].set_xlim(-0.03, 1.03)
        axes[2].xaxis.set_major_formatter(PercentFormatter(1.0))
        axes[2].set_xlabel("neurons")
        for ax, title in zip(axes, ("Distances", "Temperature", "Ambiguous angles"), strict=True):
            ax.grid(axis="x")
            ax.tick_params(axis="y", length=0)
            title_panel(ax, "", title)
        legend_below(figure, handles, width=PAGE_WIDTH)
    return figure


def _draw_row(axes: Any, row: Any, at: int) -> None:
    color = _CONTROL if row.is_control else _DATA
    face = "white" if row.is_control else color
    settings: dict[str, Any] = {"markeredgecolor": color, "markerfacecolor": face, "markersize": 5, "zorder": 3}
    axes[0].plot([row.loss_before, row.alignment_loss], [at, at], color=PALE, linewidth=1.2, zorder=1)
    axes[0].plot(row.loss_before, at, "|", color=INK, markersize=7, markeredgewidth=1.2, zorder=2)
    for ax, value in zip(axes, (row.alignment_loss, row.temperature, row.ambiguous_share), strict=True):
        ax.plot(value, at, "o", **settings)


def _handles(has_controls: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], linestyle="", marker="|", color=INK, markersize=7, markeredgewidth=1.2, label="before"),
        Line2D([], [], linestyle="", marker="o", color=_DATA, markersize=5, label="aligned"),
    ]
    if has_controls:
        hollow: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": _CONTROL, "markersize": 5}
        handles.append(Line2D([], [], linestyle="", marker="o", label="aligned control (permuted features)", **hollow))
    return handles
