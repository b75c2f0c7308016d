"""Agreement against K compared with readouts without clusters: a panel, a null and p values for each method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from december_plugin.evaluation.agreement import SIGNIFICANT
from december_plugin.plots.clusters_axis import ClustersAxis, draw_means, set_value_limits
from december_plugin.plots.frames import check_counts, check_known, check_once, checked_frame
from december_plugin.plots.panels import PAGE_WIDTH, legend_below, legend_height, letters, wrapped
from december_plugin.plots.shown import shown_methods
from december_plugin.plots.style import INK, NOTE, MethodStyle, figure_style

BAND_COLOR, NULL_COLOR = "#DCDCDC", "#7A7A7A"
# A marker that no method has: its style says which method a point is, the asterisk above it that p is small.
_ASTERISK: dict[str, Any] = {"marker": (6, 2, 0), "markersize": 4.5, "markeredgewidth": 0.9, "color": INK}
_ASTERISK_SHIFT = 5.0  # points above the point and its bar
_MAX_COLUMNS = 4
# Inches: margins, panels, lines of titles and of notes, numbers and name of the horizontal axis.
_LEFT, _RIGHT, _GAP, _PANEL_HEIGHT = 0.62, 0.08, 0.2, 1.35
_LINE, _NOTE_LINE, _NUMBERS, _AXIS_NAME = 0.14, 0.118, 0.24, 0.2
_WHAT = "the table of nulls"


def null_figure(nulls: pd.DataFrame) -> Figure:
    """Draw the agreement between seeds against K, every method next to its own null, in small panels.

    The null is the same pipeline on surrogate readouts, which have the real ones' mean, covariance and marginals but no
    clusters. Each panel shows the band of its own method. An asterisk above a point means that its p value is at most
    0.05; a sentence below the title says at how many K that is so.

    Parameters
    ----------
    nulls
        One row per method, K and kind of surrogate: ``label`` (what the panel is called), ``n_clusters``,
        ``agreement_mean`` (observed), ``null_mean``, ``null_low`` and ``null_high`` (2.5 and 97.5 % of the draws),
        ``p_value``, and optionally ``agreement_sd``, ``n_draws`` and ``surrogate_name``.

    Returns
    -------
    Figure
        Panels with one scale, at most four side by side; if there are more than 12 methods, those of the best few of
        each kind (:func:`~december_plugin.plots.shown_methods`), as the legend then says.

    Raises
    ------
    SettingsError
        If the frame is empty, lacks a column, a column is not numeric, or there are two rows where one can be drawn.

    See Also
    --------
    with_spread : Adds the standard deviations, which are drawn as bars.
    december_plugin.plots.agreement_figure : Draws all methods in one panel.
    december_plugin.results.null_table : Returns the nulls of a lab.
    december_plugin.evaluation.null.null_agreement : Draws surrogates and clusters them.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import null_figure
    >>> nulls = pd.DataFrame({"label": "k-means", "n_clusters": [5, 10], "agreement_mean": [0.64, 0.41]})
    >>> nulls = nulls.assign(null_mean=[0.35, 0.39], null_low=[0.30, 0.35], null_high=[0.41, 0.44])
    >>> nulls["p_value"] = [0.01, 0.22]
    >>> figure = null_figure(nulls)
    >>> figure.axes[0].get_title(loc="left")
    'k-means'
    >>> print(figure.axes[0].texts[0].get_text())
    above its null at 1 of 2 K
    smallest p = 0.01
    """
    nulls = _checked(nulls)
    shown = shown_methods(nulls, "agreement_mean")
    panels = null_panels(nulls, shown.styles)
    common = _common_surrogate(nulls)
    grid = _Grid.of([method for method, _ in panels], n_note_lines=2 if common else 3)
    handles = _handles(common, len(shown.others))
    below = legend_height([str(handle.get_label()) for handle in handles], width=grid.width)
    with figure_style():
        # Everything has its place in inches: titles of several lines must not squeeze the panels.
        figure = Figure(figsize=(grid.width, grid.height + below))
        axes = grid.add_axes(figure, below)
        axis = ClustersAxis(nulls["n_clusters"].to_numpy(), 1, grid.panel_width / 0.8)
        for ax, letter, title, (method, rows) in zip(axes, letters(len(panels)), grid.titles, panels, strict=True):
            axis.prepare(ax)
            ax.set_xlabel("")
            _draw_panel(ax, rows, method, shown.styles[method])
            note = null_in_words(rows, separator="\n") + ("" if common else "\n" + surrogate_words(rows))
            _write_title(ax, f"{letter}  {title}" if len(panels) > 1 else title, note)
        set_value_limits(axes[0], *_values(nulls[nulls["label"].isin(shown.styles)]))
        legend_below(figure, handles, width=grid.width)
    return figure


def null_panels(nulls: pd.DataFrame, methods: Iterable[str]) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each panel, by K: one for every method and kind of surrogate, in the order of the methods."""
    panels = []
    for method in methods:
        own = nulls[nulls["label"] == method]
        panels += [(method, rows.sort_values("n_clusters")) for _, rows in own.groupby("surrogate_name", sort=True)]
    return panels


def with_spread(nulls: pd.DataFrame, agreement: pd.DataFrame) -> pd.DataFrame:
    """Return the nulls with ``agreement_sd`` of the same method, K and number of pairs.

    Parameters
    ----------
    nulls
        One row per method, K and kind of surrogate, with ``label``, ``n_clusters`` and ``n_pairs``.
    agreement
        One row per method and K, with the same columns and ``agreement_sd``.

    Returns
    -------
    pandas.DataFrame
        The rows of ``nulls``; ``agreement_sd`` is NaN where ``agreement`` has no such row.

    See Also
    --------
    null_figure : Draws the nulls with these bars.
    december_plugin.results.agreement_table : Returns the agreement of a lab.
    december_plugin.results.null_table : Returns the nulls of a lab.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import with_spread
    >>> nulls = pd.DataFrame({"label": ["k-means"], "n_clusters": [5], "n_pairs": [3], "null_mean": [0.35]})
    >>> agreement = pd.DataFrame({"label": ["k-means"], "n_clusters": [5], "n_pairs": [3], "agreement_sd": [0.04]})
    >>> with_spread(nulls, agreement)
         label  n_clusters  n_pairs  null_mean  agreement_sd
    0  k-means           5        3       0.35          0.04
    """
    by = ["label", "n_clusters", "n_pairs"]
    spread = agreement[[*by, "agreement_sd"]].drop_duplicates(by)
    return nulls.drop(columns="agreement_sd", errors="ignore").merge(spread, on=by, how="left")


def null_in_words(rows: pd.DataFrame, *, separator: str = "; ") -> str:
    """Return at how many K of one panel the agreement is above its null, and the smallest p value."""
    known = rows["p_value"].dropna()
    if known.empty:
        return "no p value"
    n, n_above = len(known), int((known <= SIGNIFICANT).sum())
    smallest = f"p = {known.min():.2g}"
    draws = rows["n_draws"].dropna() if "n_draws" in rows else pd.Series(dtype=float)
    least = 1 / (draws.max() + 1) if len(draws) else 0.0
    if least > SIGNIFICANT:
        return f"too few draws{separator}p cannot be below {least:.2g}"
    if n == 1:
        return f"{'above' if n_above else 'not above'} its null{separator}{smallest}"
    where = f"at all {n} K" if n_above == n else f"at {n_above} of {n} K" if n_above else "at any K"
    return f"{'above' if n_above else 'not above'} its null {where}{separator}smallest {smallest}"


def surrogate_words(rows: pd.DataFrame) -> str:
    """Return the kind of surrogate and the number of its draws, each once."""
    name = str(rows["surrogate_name"].iloc[0])
    draws = rows["n_draws"].dropna() if "n_draws" in rows else pd.Series(dtype=float)
    if draws.empty:
        return name
    said = f"{int(draws.min()):,} draws"
    # A surrogate without its own name is called by its settings.
    return said if not name else name if "draws" in name else f"{name}, {said}"


def _checked(nulls: pd.DataFrame) -> pd.DataFrame:
    nulls = checked_frame(
        *(nulls, _WHAT),
        text=("label",),
        numbers=("n_clusters", "agreement_mean", "null_mean", "null_low", "null_high", "p_value"),
        optional=("n_draws", "agreement_sd"),
        empty="no null has been computed yet; it needs surrogates of a configuration.",
    )
    if "surrogate_name" not in nulls:
        nulls["surrogate_name"] = ""
    check_counts(nulls, _WHAT)
    check_known(nulls, _WHAT, "null_mean")
    check_once(nulls, _WHAT, ("label", "surrogate_name", "n_clusters"), "Draw one dataset and model at a time.")
    return nulls


@dataclass(frozen=True)
class _Grid:
    """Where panels are, in inches: at most four side by side, rows as even as possible."""

    titles: tuple[str, ...]
    n_columns: int
    n_note_lines: int

    @classmethod
    def of(cls, methods: list[str], *, n_note_lines: int) -> _Grid:
        n_rows = -(-len(methods) // _MAX_COLUMNS)
        n_columns = -(-len(methods) // n_rows)
        panel = cls((), n_columns, n_note_lines).panel_width
        return cls(tuple(wrapped(method, panel) for method in methods), n_columns, n_note_lines)

    @property
    def panel_width(self) -> float:
        return min(2.6, (PAGE_WIDTH - _LEFT - _RIGHT - _GAP * (self.n_columns - 1)) / self.n_columns)

    @property
    def width(self) -> float:
        width = _LEFT + _RIGHT + self.n_columns * (self.panel_width + _GAP) - _GAP
        return max(width, 3.6)  # room for the legend

    @property
    def rows(self) -> list[tuple[str, ...]]:
        return [self.titles[i : i + self.n_columns] for i in range(0, len(self.titles), self.n_columns)]

    def _head(self, titles: Iterable[str]) -> float:
        n_lines = max(title.count("\n") + 1 for title in titles)
        return _LINE * n_lines + _NOTE_LINE * self.n_note_lines + 0.14

    @property
    def height(self) -> float:
        return sum(self._head(titles) + _PANEL_HEIGHT + _NUMBERS for titles in self.rows) + _AXIS_NAME

    def add_axes(self, figure: Figure, below: float) -> list[Axes]:
        """Add the panels, and the names of the axes once."""
        width, height = (float(size) for size in figure.get_size_inches())
        axes: list[Axes] = []
        top = height
        for titles in self.rows:
            bottom = top - self._head(titles) - _PANEL_HEIGHT
            for column in range(len(titles)):
                left = _LEFT + column * (self.panel_width + _GAP)
                box = (left / width, bottom / height, self.panel_width / width, _PANEL_HEIGHT / height)
                shared: dict[str, Any] = {"sharex": axes[0], "sharey": axes[0]} if axes else {}
                axes.append(figure.add_axes(box, **shared))
                is_lowest = len(axes) + self.n_columns > len(self.titles)
                axes[-1].tick_params(labelleft=column == 0, labelbottom=is_lowest)
            top = bottom - _NUMBERS
        middle = (_LEFT + (self.n_columns * (self.panel_width + _GAP) - _GAP) / 2) / width
        figure.text(middle, (below + 0.05) / height, "number of clusters K", ha="center", va="bottom", fontsize=8)
        settings: dict[str, Any] = {"rotation": "vertical", "ha": "left", "va": "center", "fontsize": 8}
        words = "agreement between seeds" + (" (adjusted Rand index)" if len(self.rows) > 1 else "\n(ARI)")
        figure.text(0.06 / width, (below + _AXIS_NAME + height) / 2 / height, words, **settings)
        return axes


def _common_surrogate(nulls: pd.DataFrame) -> str:
    """Return what the surrogates of all panels are, or nothing if they differ."""
    alike = nulls["surrogate_name"].nunique() == 1 and nulls["n_draws"].nunique() <= 1
    return (surrogate_words(nulls) or "surrogates") if alike else ""


def _draw_panel(ax: Axes, rows: pd.DataFrame, method: str, style: MethodStyle) -> None:
    x = rows["n_clusters"]
    if len(rows) > 1:
        ax.fill_between(x, rows["null_low"], rows["null_high"], color=BAND_COLOR, linewidth=0, zorder=1, label="_band")
        ax.plot(x, rows["null_mean"], color=NULL_COLOR, linewidth=1.0, linestyle=":", zorder=1.5, label="_null")
    else:
        ax.vlines(x, rows["null_low"], rows["null_high"], color=BAND_COLOR, linewidth=12, zorder=1, label="_band")
        ax.plot(x, rows["null_mean"], color=NULL_COLOR, marker="_", markersize=12, zorder=1.5, label="_null")
    draw_means(ax, rows, "agreement_mean", "agreement_sd", method, style)
    above = rows[rows["p_value"] <= SIGNIFICANT]
    moved = ax.transData + ScaledTranslation(0, _ASTERISK_SHIFT / 72, ax.figure.dpi_scale_trans)
    tops = above["agreement_mean"] + above["agreement_sd"].fillna(0.0)
    settings = {"linestyle": "none", "zorder": style.zorder + 1, "clip_on": False, **_ASTERISK}
    ax.plot(above["n_clusters"], tops, transform=moved, label="_p small", **settings)
    ax.grid(axis="y")


def _write_title(ax: Axes, title: str, note: str) -> None:
    lines = note.count("\n") + 1
    ax.set_title(title, fontsize=8, pad=5.0 + 72 * _NOTE_LINE * lines)
    settings: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "color": NOTE}
    ax.annotate(note, (0, 1), (0, 5), fontsize=6.5, linespacing=1.15, **settings).set_in_layout(False)


def _values(nulls: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return all values and half lengths of bars that the vertical axis has to hold."""
    spread = nulls["agreement_sd"].fillna(0.0)
    values = pd.concat([nulls["agreement_mean"], nulls["null_low"], nulls["null_high"]], ignore_index=True)
    sds = pd.concat([spread, 0.0 * spread, 0.0 * spread], ignore_index=True)
    known = values.notna()
    return values[known], sds[known]


def _handles(common: str, n_others: int) -> list[Artist]:
    observed: dict[str, Any] = {
        "color": INK,
        "marker": "o",
        "markersize": 4.5,
        "markeredgecolor": "white",
        "linewidth": 1.3,
    }
    handles: list[Artist] = [
        Line2D([], [], label="between seeds, mean ± SD over pairs", **observed),
        Patch(facecolor=BAND_COLOR, label=f"its null, 95 % of draws{f' ({common})' if common else ''}"),
        Line2D([], [], linestyle="", label=f"p ≤ {SIGNIFICANT:g}", **_ASTERISK),
    ]
    if n_others:
        text = f"the best of each kind; {n_others} other methods are in the table"
        handles.append(Line2D([], [], linestyle="", label=text))
    return handles
