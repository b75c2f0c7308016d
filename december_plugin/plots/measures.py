"""The other measures of agreement between seeds (Figure 13)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from december_plugin.plots.frames import check_counts, check_known, check_once, checked_frame
from december_plugin.plots.method_lines import draw_against_k
from december_plugin.plots.panels import (
    PAGE_WIDTH,
    figure_page,
    legend_below,
    legend_height,
    letters,
    spread_note,
    title_panel,
)
from december_plugin.plots.shown import shown_methods
from december_plugin.plots.style import figure_style

MEASURE_TITLES = {
    "adjusted_rand_index": "Adjusted Rand index",
    "fowlkes_mallows": "Fowlkes-Mallows index",
    "homogeneity": "Homogeneity",
    "completeness": "Completeness",
    "v_measure": "V-measure",
}
_ROW, _MAX_COLUMNS = 2.45, 3


def measures_figure(table: pd.DataFrame) -> Figure:
    """Draw several measures of the agreement between seeds against K, a panel for each.

    Parameters
    ----------
    table
        One row per measure, method and K: ``measure`` (a column of ``SeedAgreement``, e.g. "fowlkes_mallows"),
        ``label``, ``n_clusters``, ``agreement_mean``, ``agreement_sd``, ``n_pairs``.

    Returns
    -------
    Figure
        Panels, three side by side, and one legend.

    Raises
    ------
    SettingsError
        If the table is empty, lacks a column, a column is not numeric, or there are two rows where one can be drawn.

    See Also
    --------
    december_plugin.plots.agreement_figure : Draws the adjusted Rand index alone.
    december_plugin.results.measures_frame : Returns the table of a lab.
    december_plugin.compare_partitions : Computes the measures.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import measures_figure
    >>> table = pd.DataFrame({"measure": ["adjusted_rand_index", "v_measure"], "label": "k-means", "n_clusters": 5})
    >>> table = table.assign(agreement_mean=[0.62, 0.74], agreement_sd=[0.04, 0.03], n_pairs=3)
    >>> [ax.get_title(loc="left") for ax in measures_figure(table).axes]
    ['A  Adjusted Rand index', 'B  V-measure']
    """
    what = "the table"
    table = checked_frame(
        *(table, what),
        text=("measure", "label"),
        numbers=("n_clusters", "agreement_mean", "agreement_sd", "n_pairs"),
        empty="no agreement that could be drawn has been computed yet.",
    )
    check_counts(table, what)
    check_known(table, what, "agreement_mean")
    check_once(table, what, ("measure", "label", "n_clusters"), "Draw one dataset and model at a time.")
    measures = list(dict.fromkeys(table["measure"]))
    shown = shown_methods(table[table["measure"] == measures[0]], "agreement_mean")
    handles = shown.handles()
    n_columns = min(len(measures), _MAX_COLUMNS)
    n_rows = -(-len(measures) // n_columns)
    width = min(PAGE_WIDTH, 3.6 * n_columns)
    with figure_style():
        labels = [str(handle.get_label()) for handle in handles]
        figure = figure_page(n_rows * _ROW + legend_height(labels, width=width), width=width)
        axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
        note = spread_note(table["n_pairs"], "pair of seeds", "pairs of seeds")
        for ax, name, measure in zip(axes, letters(len(measures)), measures, strict=False):
            rows = table[table["measure"] == measure]
            settings: dict[str, Any] = {"others": shown.others, "ylabel": "agreement between seeds"}
            draw_against_k(ax, rows, shown.styles, width=width / n_columns, **settings)
            title_panel(ax, name, MEASURE_TITLES.get(measure, measure), note)
        for ax in axes[len(measures) :]:
            ax.remove()
        legend_below(figure, handles, width=width)
    return figure
