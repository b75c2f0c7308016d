"""DECEMber compared with the rotation-equivariant baseline (Figure 14)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from december_plugin.plots.frames import check_known, check_once, checked_agreement, checked_frame, methods_of
from december_plugin.plots.method_lines import draw_against_k
from december_plugin.plots.panels import (
    PAGE_WIDTH,
    figure_page,
    legend_below,
    legend_height,
    spread_note,
    title_panel,
)
from december_plugin.plots.shown import shown_methods
from december_plugin.plots.style import MethodStyle, figure_style, method_styles

_ROW = 2.45
_MOST_ROWS = 16


def equivariant_figure(agreement: pd.DataFrame, performance: pd.DataFrame) -> Figure:
    """Compare DECEMber with a model that has a rotation-equivariant core: agreement between seeds, test correlation.

    Parameters
    ----------
    agreement
        One row per method and K: ``label`` (e.g. "DECEMber, strength auto", "rotation-equivariant core, Gaussian
        mixture"), ``n_clusters``, ``agreement_mean``, ``agreement_sd``, ``n_pairs``.
    performance
        One row per method or model: ``label``, ``test_correlation_mean``, ``test_correlation_sd``.

    Returns
    -------
    Figure
        Two panels.

    Raises
    ------
    SettingsError
        If a frame is empty, lacks a column, a column is not numeric, or there are two rows where one can be drawn.

    See Also
    --------
    december_plugin.plots.agreement_figure : Draws the agreement of one model.
    december_plugin.plots.alignments_figure : Draws how well the readout vectors of such a model could be aligned.
    december_plugin.results.performance_frame : Returns the performance of a lab's models.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import equivariant_figure
    >>> methods = pd.DataFrame({"label": ["DECEMber", "rotation-equivariant core, Gaussian mixture"]})
    >>> agreement = methods.assign(n_clusters=20, agreement_mean=[0.32, 0.24], agreement_sd=0.01, n_pairs=3)
    >>> performance = methods.assign(test_correlation_mean=[0.37, 0.33], test_correlation_sd=[0.002, 0.004])
    >>> figure = equivariant_figure(agreement, performance)
    >>> [ax.get_xlabel() for ax in figure.axes]
    ['number of clusters K', 'test correlation']
    """
    agreement = checked_agreement(agreement, "Draw one dataset at a time, and name the model's core.")
    other = "the frame of performance"
    performance = checked_frame(
        *(performance, other),
        text=("label",),
        numbers=("test_correlation_mean", "test_correlation_sd"),
        empty="no model has been tested yet.",
    )
    check_known(performance, other, "test_correlation_mean")
    check_once(performance, other, ("label",), "Draw one dataset at a time, and name the model's core.")
    shown = shown_methods(agreement, "agreement_mean")
    performance = performance[~performance["label"].isin(shown.others)].head(_MOST_ROWS)
    methods = methods_of(agreement)
    styles = method_styles({label: methods[label] for label in shown.styles} | methods_of(performance))
    lines = {label: styles[label] for label in shown.styles}
    handles = replace(shown, styles=lines).handles()
    with figure_style():
        labels = [str(handle.get_label()) for handle in handles]
        figure = figure_page(max(_ROW, 0.28 * len(performance) + 1.1) + legend_height(labels))
        left, right = figure.subplots(1, 2, width_ratios=(1, 0.9))
        draw_against_k(left, agreement, lines, width=PAGE_WIDTH / 2, others=shown.others)
        note = spread_note(agreement["n_pairs"], "pair of seeds", "pairs of seeds")
        title_panel(left, "A", "Agreement between seeds", note)
        _draw_rows(right, performance.dropna(subset="test_correlation_mean"), styles)
        title_panel(right, "B", "Predictive performance", "mean ± SD over seeds")
        legend_below(figure, handles)
    return figure


def _draw_rows(ax: Axes, performance: pd.DataFrame, styles: dict[str, MethodStyle]) -> None:
    for position, row in enumerate(performance.itertuples()):
        settings = styles[str(row.label)].line_settings() | {"linestyle": "none"}
        sd = float(row.test_correlation_sd)
        spread = None if np.isnan(sd) else sd
        ax.errorbar(row.test_correlation_mean, position, xerr=spread, label=row.label, elinewidth=1.0, **settings)
    ax.set_yticks(range(len(performance)), [_two_lines(label) for label in performance["label"]])
    ax.set_ylim(len(performance) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.15)
    ax.set_xlabel("test correlation")
    ax.grid(axis="x")


def _two_lines(label: str) -> str:
    head, comma, tail = label.partition(", ")
    return f"{head},\n{tail}" if comma else label
