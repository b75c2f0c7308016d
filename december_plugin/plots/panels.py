"""Rows of panels, their titles, and legends that cover no data."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from matplotlib.transforms import ScaledTranslation

from december_plugin.plots.style import NOTE, MethodStyle

# Points that the titles of panels are moved to the left.
_TITLE_SHIFT = 24.0
# Inches: two columns of a journal, and a character of a title.
PAGE_WIDTH = 7.1
_TITLE_CHARACTER = 0.083
# Inches: a line of a title of 8.5 points; lines of the longest title.
TITLE_LINE = 0.15
_MOST_LINES = 8
_PANEL_HEIGHT = 2.9
_LEGEND_ROW = 0.19
# Widths in inches of a character of 8 points, and of the line and the gaps next to a text.
_CHARACTER, _BESIDE = 0.062, 0.62
# A legend of more entries ends with how many more there are.
_MOST_ENTRIES = 24
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def panel_width(n_panels: int) -> float:
    """Return the width of a panel in inches; fewer panels are wider."""
    return 4.2 if n_panels == 1 else PAGE_WIDTH / n_panels


def panel_row(n_panels: int, handles: Sequence[Line2D], *, handle_length: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side and their legend: below, or to the right of a single panel.

    Parameters
    ----------
    n_panels
        At least 1.
    handles
        The entries of the legend, in reading order; at least 1.
    handle_length
        Length of the lines in the legend, in units of the font size.
    """
    labels = [str(handle.get_label()) for handle in handles]
    entry = _CHARACTER * max(map(len, labels)) + _BESIDE
    width, height = panel_width(n_panels) * n_panels, _PANEL_HEIGHT
    beside = n_panels == 1 and width + entry <= PAGE_WIDTH and len(handles) <= _MOST_ENTRIES
    if beside:
        figure = figure_page(max(height, _LEGEND_ROW * len(handles) + 0.2), width=width + entry)
        settings: dict[str, Any] = {"loc": "outside right center", "ncols": 1, "handlelength": handle_length}
        add_legend(figure, handles, labels, **settings)
    else:
        width = max(width, min(PAGE_WIDTH, entry))
        figure = figure_page(height + legend_height(labels, width=width), width=width)
        legend_below(figure, handles, width=width, handle_length=handle_length)
    axes = list(figure.subplots(1, n_panels, squeeze=False)[0])
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
    lengths = [len(label) for label in labels][:_MOST_ENTRIES]
    entry = _CHARACTER * max(lengths) + _BESIDE
    fitting = min(max(1, int(width / entry)), len(lengths))
    n_rows = -(-len(lengths) // fitting)
    return n_rows, -(-len(lengths) // n_rows)


def legend_height(labels: Iterable[str], *, width: float = PAGE_WIDTH) -> float:
    """Return the height of a legend in inches."""
    return _LEGEND_ROW * legend_shape(labels, width=width)[0] + 0.08


def legend_below(
    figure: Figure | SubFigure, handles: Sequence[Artist], *, width: float = PAGE_WIDTH, handle_length: float = 2.6
) -> None:
    """Put a legend below all panels, in reading order by rows; of more than 24 entries, the last says how many more."""
    _, n_columns = legend_shape([str(handle.get_label()) for handle in handles], width=width)
    if len(handles) > _MOST_ENTRIES:
        more = Line2D([], [], linestyle="", label=f"and {len(handles) - _MOST_ENTRIES + 1} more")
        handles = [*handles[: _MOST_ENTRIES - 1], more]
    # matplotlib fills a legend by columns.
    by_rows = [handle for column in range(n_columns) for handle in handles[column::n_columns]]
    room = max(9, int((width - _BESIDE) / _CHARACTER))
    labels = [_cut(str(handle.get_label()), room) for handle in by_rows]
    settings: dict[str, Any] = {"ncols": n_columns, "handlelength": handle_length, "columnspacing": 1.6}
    add_legend(figure, by_rows, labels, loc="outside lower center", **settings)


def add_legend(
    owner: Figure | SubFigure | Axes, handles: Sequence[Artist], labels: Sequence[str], **settings: Any
) -> None:
    """Put a legend into a figure or a panel, with labels that may begin with anything.

    matplotlib leaves out labels that begin with an underscore; here the texts are written afterwards.
    """
    legend = owner.legend(handles=list(handles), labels=["x"] * len(labels), **settings)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)


def decades(ax: Axes, which: str) -> None:
    """Write the numbers of a logarithmic axis ("x" or "y") as text, 0.01 or 10⁻⁵, not as formulas."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_formatter(lambda value, _: _decade(value))
    axis.set_minor_formatter(NullFormatter())


def _decade(value: float) -> str:
    exponent = math.log10(value) if value > 0 else 0.0
    if abs(exponent) <= 3 or not math.isclose(exponent, round(exponent), abs_tol=1e-9):
        return f"{value:g}"
    return f"10{str(round(exponent)).translate(_SUPERSCRIPTS)}"


def line_handles(styles: Mapping[str, MethodStyle]) -> list[Line2D]:
    """Return the entries of a legend of methods."""
    return [Line2D([], [], label=label, **style.line_settings()) for label, style in styles.items()]


def title_panel(ax: Axes, letter: str, title: str, note: str | None = None) -> None:
    """Write letter and title above a panel, and a note in small letters below the title.

    Both begin above the numbers of the vertical axis, which leaves them room next to a neighbour.
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
    """Return a title, shortened so that it fits above a panel of this width in inches.

    Beginning and end stay: names of one sweep often differ at their ends.
    """
    return _cut(title, max(9, int(width / _TITLE_CHARACTER) - 4))


def _cut(text: str, n: int) -> str:
    if len(text) <= n:
        return text
    end = (n - 1) // 3
    return f"{text[: n - 1 - end].rstrip(' ,')}…{text[-end:].lstrip(' ,')}"


def settled(figure: Figure) -> Figure:
    """Lay out a figure with square panels or long labels once: its margins are right from the second time on."""
    figure.draw_without_rendering()
    return figure


def letters(n: int) -> list[str]:
    """Return the letters of n panels: A to Z, then AA, AB, ..."""
    alphabet = [chr(ord("A") + i) for i in range(26)]
    return [(alphabet[i // 26 - 1] if i >= 26 else "") + alphabet[i % 26] for i in range(n)]


def wrapped(title: str, width: float) -> str:
    """Return a title in as many lines as it needs above a panel of this width in inches; a ninth line is cut.

    Names of methods include space and neurons, and comments may have any length.
    """
    lines = textwrap.wrap(title, max(9, int(width / _TITLE_CHARACTER) - 1)) or [title]
    return "\n".join([*lines[:_MOST_LINES], "…"] if len(lines) > _MOST_LINES else lines)


def extra_lines(title: str) -> float:
    """Return the height in inches of a wrapped title without its first line, for which figures have room."""
    return TITLE_LINE * title.count("\n")


def spread_note(counts: pd.Series, unit: str, units: str, *, has_sd: bool = True) -> str:
    """Return what means are taken over, e.g. "mean ± SD over 3 pairs of seeds"; one pair has no mean."""
    known = counts[counts > 0].dropna() if len(counts) else counts
    if len(known) and known.max() == 1:
        return f"one {unit}, no SD"
    mean = "mean ± SD" if has_sd else "mean"
    if known.empty:
        return f"{mean} over {units}"
    low, high = int(known.min()), int(known.max())
    return f"{mean} over {low if low == high else f'{low} to {high}'} {units}"
