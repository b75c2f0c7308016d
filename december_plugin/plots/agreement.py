"""Agreement against the number of clusters, between seeds and with known types, and the test correlation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from december_plugin.errors import SettingsError
from december_plugin.plots.clusters_axis import ClustersAxis, draw_means, set_value_limits
from december_plugin.plots.frames import check_counts, check_known, checked_frame
from december_plugin.plots.panels import letters, panel_row, panel_width, spread_note, title_panel
from december_plugin.plots.shown import draw_others, shown_methods
from december_plugin.plots.style import INK, MethodStyle, figure_style

COLUMNS = ("label", "n_clusters", "agreement_mean", "agreement_sd", "n_pairs")
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
    _Panel("agreement_mean", "agreement_sd", "Agreement between {many}", "adjusted Rand index", "pairs of {many}"),
    _Panel("types_agreement_mean", "types_agreement_sd", "Agreement with known types", "adjusted Rand index", "{many}"),
    _Panel(
        *("test_correlation_mean", "test_correlation_sd", "Predictive performance", "test correlation", "{many}"),
        shared_lines=True,
    ),
)


def agreement_figure(table: pd.DataFrame, *, n_types: int | None = None, many: str = "seeds") -> Figure:
    """Draw the agreement of every method against the number of clusters K.

    Side by side: agreement between seeds; agreement with known types and test correlation, if the table has them.
    Points are means and bars standard deviations (none where the SD is NaN, as it is for a single pair). At one K,
    methods are drawn side by side so that bars do not hide each other. The axis of K is logarithmic if the largest K is
    at least 8 times the smallest. Methods that cluster the same trained models have the same test correlations: their
    markers share one grey line and its bars. If there are more than 12 methods, the best few of each kind are in
    colour, the others thin and grey (:func:`~december_plugin.plots.shown_methods`).

    Parameters
    ----------
    table
        One row per method and K, with the columns ``label`` (what the legend says), ``n_clusters``, ``agreement_mean``,
        ``agreement_sd`` and ``n_pairs`` (number of pairs of seeds), and optionally ``types_agreement_mean``,
        ``types_agreement_sd``, ``test_correlation_mean`` and ``test_correlation_sd``. NaN: not known.
    n_types
        Number of known types, marked on the axis of K in the panel of the agreement with them; None: no mark.
    many
        What is compared: "seeds", or "models" if they differ in more than the seed.

    Returns
    -------
    Figure
        One to three panels, and one legend.

    Raises
    ------
    SettingsError
        If the table is empty, lacks a column, has two rows for a method and K, or a column is not numeric.

    See Also
    --------
    december_plugin.plots.null_figure : Draws every method next to its own null.
    december_plugin.plots.measures_figure : Draws other measures of agreement.
    december_plugin.plots.datasets_figure : Draws several datasets and their weighted mean.
    december_plugin.results.agreement_table : Returns the table of a lab.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import agreement_figure
    >>> table = pd.DataFrame({"label": ["DECEMber", "DECEMber", "k-means", "k-means"], "n_clusters": [5, 10, 5, 10]})
    >>> table = table.assign(agreement_mean=[0.81, 0.72, 0.64, 0.58], agreement_sd=0.04, n_pairs=3)
    >>> table = table.assign(test_correlation_mean=[0.37, 0.37, 0.36, 0.36])
    >>> figure = agreement_figure(table)
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['A  Agreement between seeds', 'B  Predictive performance']
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['DECEMber', 'k-means']
    """
    table = _checked(table)
    shown = shown_methods(table, "agreement_mean")
    styles = shown.styles
    panels = [panel for panel in _PANELS if panel.mean in table and table[panel.mean].notna().any()]
    with figure_style():
        figure, axes = panel_row(len(panels), shown.handles(), handle_length=3.2)
        clusters_axis = ClustersAxis(table["n_clusters"].to_numpy(), len(styles), panel_width(len(panels)))
        for ax, panel, letter in zip(axes, panels, letters(len(panels)), strict=True):
            clusters_axis.prepare(ax)
            draw_others(ax, table, shown.others, panel.mean)
            _draw_panel(ax, table, panel, styles, clusters_axis.offsets(panel.shared_lines))
            _label(ax, table, panel, letter if len(panels) > 1 else "", many)
            if n_types is not None and panel.mean == "types_agreement_mean":
                _mark_types(ax, n_types)
    return figure


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    what = "the table"
    optional = [name for panel in _PANELS[1:] for name in (panel.mean, panel.sd)]
    table = checked_frame(
        *(table, what),
        text=COLUMNS[:1],
        numbers=COLUMNS[1:],
        optional=optional,
        empty="no agreement that could be drawn has been computed yet.",
    )
    check_counts(table, what)
    twice = table[table.duplicated(["label", "n_clusters"])]
    if len(twice):
        raise SettingsError(
            f"the table has more than one row for {twice['label'].iloc[0]!r} with K = "
            f"{twice['n_clusters'].iloc[0]:g}; one row per method and K can be drawn. "
            "Draw one dataset and model at a time."
        )
    check_known(table, what, "agreement_mean")
    return table


def _draw_panel(
    ax: Axes, table: pd.DataFrame, panel: _Panel, styles: Mapping[str, MethodStyle], offsets: np.ndarray
) -> None:
    known = table[table[panel.mean].notna()].sort_values("n_clusters")
    lines = {label: known[known["label"] == label] for label in styles}
    shared = _same_values(lines, panel) if panel.shared_lines else []
    for labels in shared:
        rows = lines[labels[0]]
        at, means = rows["n_clusters"], rows[panel.mean]
        ax.plot(at, means, color=_SHARED_LINE, linewidth=1.0, zorder=2, label="_shared")
        if panel.sd in rows:
            ax.vlines(at, means - rows[panel.sd], means + rows[panel.sd], color=_SHARED_LINE, linewidth=1.0, zorder=2)
    for (label, style), offset in zip(styles.items(), offsets, strict=True):
        if lines[label].empty:
            continue
        is_shared = any(label in labels for labels in shared)
        # The bar of the shared line is that of all its methods.
        rows = lines[label].drop(columns=panel.sd, errors="ignore") if is_shared else lines[label]
        draw_means(ax, rows, panel.mean, panel.sd, label, style, offset=offset, joined=not is_shared)
    set_value_limits(ax, known[panel.mean], known.get(panel.sd))


def _same_values(lines: Mapping[str, pd.DataFrame], panel: _Panel) -> list[list[str]]:
    """Return the groups of methods whose means are the same at the same values of K."""
    groups: dict[tuple[tuple[float, ...], ...], list[str]] = {}
    for label, rows in lines.items():
        if len(rows):
            key = tuple(rows["n_clusters"]), tuple(rows[panel.mean])
            groups.setdefault(key, []).append(label)
    return [labels for labels in groups.values() if len(labels) > 1]


def _label(ax: Axes, rows: pd.DataFrame, panel: _Panel, letter: str, many: str) -> None:
    ax.set_ylabel(panel.ylabel)
    has_sd = panel.sd in rows and bool(rows[panel.sd].notna().any())
    if panel.mean == "agreement_mean":
        note = spread_note(rows["n_pairs"], f"pair of {many}", f"pairs of {many}", has_sd=has_sd)
    else:
        note = f"{'mean ± SD' if has_sd else 'mean'} over {panel.over.format(many=many)}"
    title_panel(ax, letter, panel.title.format(many=many), note)


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
