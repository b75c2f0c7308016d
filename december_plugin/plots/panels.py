"""Rows of panels, their titles, and legends that cover no data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from december_plugin.plots.style import NOTE, MethodStyle

# Points that the titles of panels are moved to the left.
_TITLE_SHIFT = 24.0
# Inches: the width of a page of two columns, and of a character of a title.
PAGE_WIDTH = 7.2
_TITLE_CHARACTER = 0.083
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


def figure_page(height: float, *, width: float = PAGE_WIDTH) -> Figure:
    """Return a figure of this size in inches, laid out by matplotlib's constrained layout."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05)  # type: ignore[union-attr,call-arg]
    return figure


def legend_shape(labels: Iterable[str], *, width: float = PAGE_WIDTH) -> tuple[int, int]:
    """Return rows and columns of a legend of this width in inches, as even as possible."""
    labels = list(labels)
    entry = _CHARACTER * max(len(label) for label in labels) + _BESIDE
    fitting = min(max(1, int(width / entry)), len(labels))
    n_rows = -(-len(labels) // fitting)
    return n_rows, -(-len(labels) // n_rows)


def legend_height(labels: Iterable[str], *, width: float = PAGE_WIDTH) -> float:
    """Return the height of a legend in inches."""
    return _LEGEND_ROW * legend_shape(labels, width=width)[0] + 0.08


def legend_below(
    figure: Figure | SubFigure, handles: Sequence[Artist], *, width: float = PAGE_WIDTH, handle_length: float = 2.6
) -> None:
    """Put a legend below all panels."""
    _, n_columns = legend_shape([str(handle.get_label()) for handle in handles], width=width)
    figure.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=n_columns,
        handlelength=handle_length,
        columnspacing=1.6,
    )


def line_handles(styles: Mapping[str, MethodStyle]) -> list[Line2D]:
    """Return the entries of a legend of methods."""
    return [Line2D([], [], label=label, **style.line_settings()) for label, style in styles.items()]


def title_panel(ax: Axes, letter: str, title: str, note: str | None = None) -> None:
    """Write letter and title above a panel, and a note in small letters below the title.

    Both begin above the numbers of the vertical axis: that leaves room for them beside a neighbour.
    """
    shift = _TITLE_SHIFT if letter else 0.0
    text = ax.set_title(f"{letter}  {title}" if letter else title, fontsize=8.5)
    moved = ScaledTranslation(-shift / 72, 0, ax.figure.dpi_scale_trans)
    text.set_transform(text.get_transform() + moved)
    if note:
        settings: dict[str, Any] = {
            "xycoords": "axes fraction",
            "textcoords": "offset points",
            "fontsize": 7,
            "color": NOTE,
        }
        # A wide note must not push the neighbours away.
        ax.annotate(note, (0, 1), (-shift, 5), **settings).set_in_layout(False)


def shortened(title: str, width: float) -> str:
    """Return a title that somebody else wrote so that it fits above a panel of this width in inches.

    Beginning and end stay: names of one sweep often differ at their ends.
    """
    n = max(9, int(width / _TITLE_CHARACTER) - 4)
    if len(title) <= n:
        return title
    end = (n - 1) // 3
    return f"{title[: n - 1 - end].rstrip(' ,')}…{title[-end:].lstrip(' ,')}"


def settled(figure: Figure) -> Figure:
    """Lay a figure with square panels or long labels out a first time: margins are right from the second time on."""
    figure.draw_without_rendering()
    return figure


def letters(n: int, *, first: int = 0) -> list[str]:
    """Return the letters of so many panels."""
    return [chr(ord("A") + first + i) for i in range(n)]


def spread_note(counts: pd.Series, unit: str, units: str, *, has_sd: bool = True) -> str:
    """Return what means are taken over, e.g. "mean ± SD over 3 pairs of seeds"."""
    mean = "mean ± SD" if has_sd else "mean"
    known = counts[counts > 0].dropna() if len(counts) else counts
    if known.empty:
        return f"{mean} over {units}"
    low, high = int(known.min()), int(known.max())
    return f"{mean} over {low if low == high else f'{low} to {high}'} {unit if high == 1 else units}"
