"""A row of panels with one legend that covers no data."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

_PANEL_HEIGHT = 2.9
_LEGEND_ROW = 0.19
# Widths in inches of a character of 8 points, and of the line and the gaps beside a text.
_CHARACTER, _BESIDE = 0.062, 0.62


def panel_width(n_panels: int) -> float:
    """Return the width of a panel in inches; fewer panels are wider."""
    return {1: 4.2, 2: 4.0}.get(n_panels, 3.25)


def panel_row(n_panels: int, handles: Sequence[Line2D], *, handle_length: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side and their legend: below, or to the right of a single panel.

    Parameters
    ----------
    n_panels
        At least 1.
    handles
        The entries of the legend, in reading order by columns; at least 1.
    handle_length
        Length of the lines in the legend, in units of the font size.
    """
    entry = _CHARACTER * max(len(str(handle.get_label())) for handle in handles) + _BESIDE
    width, height = panel_width(n_panels) * n_panels, _PANEL_HEIGHT
    beside = n_panels == 1
    if beside:
        n_columns, width, height = 1, width + entry, max(height, _LEGEND_ROW * len(handles) + 0.2)
    else:
        fitting = min(max(1, int(width / entry)), len(handles))
        n_rows = -(-len(handles) // fitting)
        n_columns, height = -(-len(handles) // n_rows), height + _LEGEND_ROW * n_rows
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)  # type: ignore[union-attr,call-arg]
    axes = list(figure.subplots(1, n_panels, squeeze=False)[0])
    figure.legend(
        handles=list(handles),
        loc="outside right center" if beside else "outside lower center",
        ncols=n_columns,
        handlelength=handle_length,
        columnspacing=1.6,
    )
    for ax in axes:
        ax.grid(axis="y")
    return figure, axes
