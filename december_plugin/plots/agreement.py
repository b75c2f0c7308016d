"""Agreement against the number of clusters: between seeds, with known types, beside the test correlation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from december_plugin.errors import SettingsError
from december_plugin.plots.panels import panel_row, panel_width
from december_plugin.plots.style import INK, MethodStyle, check_text, figure_style, method_styles

COLUMNS = ("method", "n_clusters", "ari_mean", "ari_sd", "n_pairs")
# From this ratio of the largest to the smallest K on, K has a logarithmic axis.
_LOG_RATIO = 8.0
# Distances of methods at one K, in points; the wider one for markers on a shared line.
_OFFSET_STEP, _WIDE_OFFSET_STEP, _SINGLE_OFFSET_STEP = 3.0, 5.0, 18.0
_DIGIT_POINTS = 4.8
_SHARED_LINE = "#8A8A8A"


@dataclass(frozen=True)
class _Panel:
    mean: str
    sd: str
    title: str
    ylabel: str
    over: str
    shared_lines: bool = False


_PANELS = (
    _Panel("ari_mean", "ari_sd", "Agreement between seeds", "adjusted Rand index", "pairs of seeds"),
    _Panel("types_ari_mean", "types_ari_sd", "Agreement with known types", "adjusted Rand index", "seeds"),
    _Panel(
        *("test_correlation_mean", "test_correlation_sd", "Predictive performance", "test correlation", "seeds"),
        shared_lines=True,
    ),
)


def agreement_figure(table: pd.DataFrame, *, n_types: int | None = None) -> Figure:
    """Draw the agreement of every method against the number of clusters K.

    Side by side: agreement between seeds; agreement with known types and test correlation, where the table has them.
    Points are means and bars standard deviations (none where the SD is NaN, as it is for a single pair). At one K,
    methods are moved apart on paper, so that bars do not hide each other. K is logarithmic if the largest is at least 8
    times the smallest. Methods that cluster the same trained models have the same test correlations: their markers
    share one grey line.

    Parameters
    ----------
    table
        One row per method and K, with the columns ``method`` (what the legend says), ``n_clusters``, ``ari_mean``,
        ``ari_sd`` and ``n_pairs`` (number of pairs of seeds), and optionally ``types_ari_mean``, ``types_ari_sd``,
        ``test_correlation_mean`` and ``test_correlation_sd``. NaN: not known. Methods are listed in the table's order.
    n_types
        Number of known types, marked on the axis of K in the panel of the agreement with them; None: no mark.

    Returns
    -------
    Figure
        One to three panels, and one legend.

    Raises
    ------
    SettingsError
        If the table is empty, lacks a column, has two rows for a method and K, or a column holds no numbers.
    """
    table = _checked(table)
    styles = method_styles(table["method"])
    panels = [panel for panel in _PANELS if panel.mean in table and table[panel.mean].notna().any()]
    with figure_style():
        handles = [Line2D([], [], label=label, **style.line_settings()) for label, style in styles.items()]
        figure, axes = panel_row(len(panels), handles, handle_length=3.2)
        clusters_axis = _ClustersAxis(table["n_clusters"].to_numpy(), len(styles), panel_width(len(panels)))
        for ax, panel in zip(axes, panels, strict=True):
            clusters_axis.prepare(ax)
            _draw_panel(ax, table, panel, styles, clusters_axis.offsets(panel.shared_lines))
            _label(ax, table, panel)
            if n_types is not None and panel.mean == "types_ari_mean":
                _mark_types(ax, n_types)
    return figure


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    if not isinstance(table, pd.DataFrame):
        raise SettingsError(
            f"the table is {type(table).__name__}; it must be a pandas.DataFrame with the columns {', '.join(COLUMNS)}."
        )
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise SettingsError(
            f"the table has no column {missing[0]!r}. Needed: {', '.join(COLUMNS)}. "
            f"It has: {', '.join(map(str, table.columns)) or 'none'}."
        )
    if table.empty:
        raise SettingsError("the table has no rows: no agreement has been computed yet that could be drawn.")
    table = table.copy()
    for label in table["method"]:
        check_text(label, "a method of the table")
    numbers = [*COLUMNS[1:], *(name for panel in _PANELS[1:] for name in (panel.mean, panel.sd) if name in table)]
    for name in numbers:
        try:
            values = pd.to_numeric(table[name]).astype("float64")
        except (TypeError, ValueError):
            raise SettingsError(f"the column {name!r} of the table holds values that are no numbers.") from None
        table[name] = values.where(np.isfinite(values))
        if name.endswith("_sd") and (values < 0).any():
            raise SettingsError(f"the column {name!r} of the table holds a negative standard deviation.")
    if not (table["n_clusters"] >= 1).all():
        raise SettingsError("the column 'n_clusters' of the table must hold integers of at least 1.")
    twice = table[table.duplicated(["method", "n_clusters"])]
    if len(twice):
        raise SettingsError(
            f"the table has more than one row for {twice['method'].iloc[0]!r} with K = "
            f"{twice['n_clusters'].iloc[0]:g}; one row per method and K can be drawn. "
            "Draw one dataset and model at a time."
        )
    if not table["ari_mean"].notna().any():
        raise SettingsError("the column 'ari_mean' of the table holds no finite value.")
    return table


class _ClustersAxis:
    """The axis of K, the same in all panels."""

    def __init__(self, n_clusters: np.ndarray, n_methods: int, width: float):
        self.counts, self.n_methods = np.unique(n_clusters), n_methods
        # In points: four fifths of a panel, the rest are numbers and label of the other axis.
        self.length = 0.8 * 72 * width
        low, high = self.counts[0], self.counts[-1]
        self.logarithmic = bool(high / low >= _LOG_RATIO)
        positions = np.log(self.counts) if self.logarithmic else self.counts
        # Room for the methods that are moved to the sides.
        span = float(np.ptp(positions)) or 1.0
        margin = span * (0.05 + 0.5 * _WIDE_OFFSET_STEP * n_methods / self.length)
        limits = np.array([positions[0] - margin, positions[-1] + margin])
        self.limits = np.exp(limits) if self.logarithmic else limits
        #: Smallest distance between two values of K, as a fraction of the axis.
        self.gap = float(np.diff(positions).min() / np.ptp(limits)) if len(self.counts) > 1 else 1.0

    def prepare(self, ax: Axes) -> None:
        if self.logarithmic:
            ax.set_xscale("log")
        ax.set_xlim(*self.limits)
        ax.xaxis.set_major_locator(FixedLocator(self._ticks()))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set_xlabel("number of clusters K")

    def _ticks(self) -> list[float]:
        """Return the values of K, without those that have no room for their numbers."""
        scale = np.log if self.logarithmic else np.asarray
        axis = float(np.ptp(scale(self.limits)))
        ticks: list[float] = []
        for count in self.counts:
            room = (_DIGIT_POINTS * len(f"{count:g}") + _DIGIT_POINTS) / self.length * axis
            if not ticks or scale(count) - scale(ticks[-1]) >= room:
                ticks.append(float(count))
        return ticks

    def offsets(self, wide: bool) -> np.ndarray:
        """Return how far each method is moved, in points: together at most 70 % of the way to the next K."""
        n = self.n_methods
        step = _WIDE_OFFSET_STEP if wide else _OFFSET_STEP
        if len(self.counts) == 1:
            step = _SINGLE_OFFSET_STEP
        step = min(step, 0.7 * self.gap * self.length / max(n - 1, 1))
        return step * (np.arange(n) - (n - 1) / 2)


def _draw_panel(
    ax: Axes, table: pd.DataFrame, panel: _Panel, styles: Mapping[str, MethodStyle], offsets: np.ndarray
) -> None:
    known = table[table[panel.mean].notna()].sort_values("n_clusters")
    lines = {label: known[known["method"] == label] for label in styles}
    shared = _same_values(lines, panel) if panel.shared_lines else []
    for labels in shared:
        rows = lines[labels[0]]
        ax.plot(rows["n_clusters"], rows[panel.mean], color=_SHARED_LINE, linewidth=1.0, zorder=2, label="_shared")
    for (label, style), offset in zip(styles.items(), offsets, strict=True):
        if lines[label].empty:
            continue
        is_shared = any(label in labels for labels in shared)
        _draw_method(ax, lines[label], panel, label, style, offset, joined=not is_shared)
    _set_limits(ax, known, panel)


def _draw_method(
    ax: Axes, rows: pd.DataFrame, panel: _Panel, label: str, style: MethodStyle, offset: float, *, joined: bool
) -> None:
    settings = style.line_settings()
    if not joined:
        settings["linestyle"] = "none"
    sd = rows[panel.sd] if panel.sd in rows else pd.Series(np.nan, index=rows.index)
    # Moved on paper, not in K: the data of the lines are what was measured.
    moved = ScaledTranslation(offset / 72, 0, ax.figure.dpi_scale_trans)
    ax.errorbar(
        rows["n_clusters"].to_numpy(),
        rows[panel.mean].to_numpy(),
        yerr=sd.to_numpy(),
        label=label,
        ecolor=style.color,
        elinewidth=0.5 * style.linewidth + 0.2,
        transform=ax.transData + moved,
        **settings,
    )


def _same_values(lines: Mapping[str, pd.DataFrame], panel: _Panel) -> list[list[str]]:
    """Return the groups of methods whose means are the same at the same values of K."""
    groups: dict[tuple[tuple[float, ...], ...], list[str]] = {}
    for label, rows in lines.items():
        if len(rows):
            key = tuple(rows["n_clusters"]), tuple(rows[panel.mean])
            groups.setdefault(key, []).append(label)
    return [labels for labels in groups.values() if len(labels) > 1]


def _set_limits(ax: Axes, rows: pd.DataFrame, panel: _Panel) -> None:
    sd = rows[panel.sd].fillna(0.0) if panel.sd in rows else 0.0
    low, high = float((rows[panel.mean] - sd).min()), float((rows[panel.mean] + sd).max())
    # Down to chance where that costs little of the height.
    if 0 < low < 0.35 * high:
        low = 0.0
    margin = 0.06 * (high - low) or 0.05
    ax.set_ylim(low - (margin if low != 0 else 0.0), high + margin)
    if low < 0 < high:
        ax.axhline(0, color=INK, linewidth=0.8, zorder=1)


def _label(ax: Axes, rows: pd.DataFrame, panel: _Panel) -> None:
    ax.set_ylabel(panel.ylabel)
    ax.set_title(panel.title)
    over = panel.over
    if panel.mean == "ari_mean":
        low, high = int(rows["n_pairs"].min()), int(rows["n_pairs"].max())
        over = f"{low if low == high else f'{low} to {high}'} {'pair' if high == 1 else 'pairs'} of seeds"
    note = f"mean ± SD over {over}" if panel.sd in rows and rows[panel.sd].notna().any() else f"mean over {over}"
    ax.annotate(note, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontsize=7, color="#777777")


def _mark_types(ax: Axes, n_types: int) -> None:
    ax.axvline(n_types, color=INK, linewidth=0.8, linestyle=":", zorder=1)
    ax.annotate(
        f"{n_types} types",
        (n_types, 0),
        (3, 4),
        xycoords=ax.get_xaxis_transform(),
        textcoords="offset points",
        fontsize=7,
    )
