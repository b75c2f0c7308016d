"""What the strength of the clustering loss does (Figure 4): embeddings, performance, gradient ratio, agreement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from december_plugin.errors import SettingsError
from december_plugin.evaluation.methods import Method
from december_plugin.plots.embedding_panels import embedding_panels
from december_plugin.plots.frames import check_known, check_once, checked_agreement, checked_frame, methods_of
from december_plugin.plots.method_lines import draw_against_k
from december_plugin.plots.panels import (
    PAGE_WIDTH,
    decades,
    figure_page,
    legend_below,
    legend_height,
    letters,
    settled,
    spread_note,
    title_panel,
)
from december_plugin.plots.shown import shown_methods
from december_plugin.plots.style import INK, NOTE, MethodStyle, figure_style, method_style, method_styles

# The ratio at strength "auto", and the one from which the trainer warns.
GENTLE_RATIO, LOCK_IN_RATIO = 0.01, 0.1
_ROW = 2.55
_MAX_EMBEDDINGS = 5


def strength_figure(
    performance: pd.DataFrame, agreement: pd.DataFrame, coordinates: pd.DataFrame | None = None
) -> Figure:
    """Draw the embeddings for each strength above test correlation, gradient ratio and agreement.

    Parameters
    ----------
    performance
        One row per strength: ``label`` (as in ``agreement``), ``strength`` (the factor that was used; 0 or NaN: no
        clustering loss, drawn as a horizontal band), ``test_correlation_mean``, ``test_correlation_sd`` and
        ``gradient_ratio`` (gradient norm of the clustering loss over that of the model loss when the clustering began).
    agreement
        One row per method and K: ``label``, ``n_clusters``, ``agreement_mean``, ``agreement_sd``, ``n_pairs``.
    coordinates
        What :func:`~december_plugin.plots.tsne_frame` returns for at most five methods; None: no embeddings.

    Returns
    -------
    Figure
        A row of embeddings, if there are any, and a row of three panels.

    Raises
    ------
    SettingsError
        If a frame is empty, lacks a column, a column is not numeric, or there are two rows where one can be drawn.

    See Also
    --------
    december_plugin.plots.tsne_frame : Makes the coordinates.
    december_plugin.plots.learning_rate_figure : Draws learning rates by strength.
    december_plugin.results.performance_frame : Returns the performance of a lab's models.
    december_plugin.results.agreement_table : Returns the agreement of a lab.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import strength_figure
    >>> labels = ["no clustering loss", "strength 1", "strength 100"]
    >>> performance = pd.DataFrame({"label": labels, "strength": [0, 1, 100], "gradient_ratio": [None, 0.002, 0.4]})
    >>> performance = performance.assign(test_correlation_mean=[0.375, 0.376, 0.318], test_correlation_sd=0.003)
    >>> agreement = pd.DataFrame({"label": labels[1:], "n_clusters": 20, "agreement_mean": [0.25, 0.31]})
    >>> agreement = agreement.assign(agreement_sd=0.01, n_pairs=3)
    >>> figure = strength_figure(performance, agreement)
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['test correlation', 'ratio of gradient norms', 'adjusted Rand index']
    """
    performance = _checked_performance(performance)
    agreement = checked_agreement(agreement, "Draw one dataset and model at a time.")
    embeddings = None if coordinates is None else embedding_panels(coordinates)
    n_embeddings = 0 if embeddings is None else len(embeddings.methods)
    if n_embeddings > _MAX_EMBEDDINGS:
        raise SettingsError(
            f"the frame of coordinates has {n_embeddings} methods; at most {_MAX_EMBEDDINGS} fit above the other "
            "panels. embedding_panels_figure draws any number."
        )
    clustered = performance[performance["strength"] > 0]
    shown = shown_methods(agreement, "agreement_mean")
    methods = methods_of(agreement)
    styles = method_styles(methods_of(clustered) | {label: methods[label] for label in shown.styles})
    handles = replace(shown, styles=styles).handles()
    names = letters(n_embeddings + 3)
    top = min(PAGE_WIDTH / n_embeddings, _ROW) + 0.45 if n_embeddings else 0.0
    with figure_style():
        figure = figure_page(top + _ROW + legend_height(str(handle.get_label()) for handle in handles))
        lower: Any = figure
        if embeddings is not None:
            upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=(top, _ROW)))
            embeddings.draw(list(upper.subplots(1, n_embeddings, squeeze=False)[0]), names[:n_embeddings])
            upper.supxlabel(embeddings.note, fontsize=7, color=NOTE)
        axes = list(lower.subplots(1, 3))
        _draw_performance(axes[0], performance, styles)
        title_panel(axes[0], names[-3], "Performance", "mean ± SD over seeds")
        _draw_ratio(axes[1], clustered, styles)
        title_panel(axes[1], names[-2], "Gradient ratio", "clustering over model loss, when it begins")
        lines = {label: styles[label] for label in shown.styles}
        draw_against_k(axes[2], agreement, lines, width=PAGE_WIDTH / 3, others=shown.others)
        title_panel(
            axes[2],
            names[-1],
            "Agreement between seeds",
            spread_note(agreement["n_pairs"], "pair of seeds", "pairs of seeds"),
        )
        legend_below(figure, handles)
        settled(figure)
    return figure


def _checked_performance(performance: pd.DataFrame) -> pd.DataFrame:
    what = "the frame of performance"
    performance = checked_frame(
        *(performance, what),
        text=("label",),
        numbers=("strength", "test_correlation_mean", "test_correlation_sd", "gradient_ratio"),
        empty="no model has been tested yet.",
    )
    check_known(performance, what, "test_correlation_mean")
    check_once(performance, what, ("label",), "Draw one dataset and model at a time.")
    if not (performance["strength"] > 0).any():
        raise SettingsError(f"{what} has no strength above 0: there is no model with a clustering loss.")
    return performance.sort_values("strength", kind="stable", ignore_index=True)


def _draw_performance(ax: Axes, performance: pd.DataFrame, styles: dict[str, MethodStyle]) -> None:
    without = performance[~(performance["strength"] > 0)]
    for row in without.itertuples():
        color = method_style(Method("baseline")).color
        ax.axhline(row.test_correlation_mean, color=color, linewidth=1.0, linestyle="--", zorder=1, label=row.label)
        if np.isfinite(row.test_correlation_sd):
            ax.axhspan(
                row.test_correlation_mean - row.test_correlation_sd,
                row.test_correlation_mean + row.test_correlation_sd,
                color=color,
                alpha=0.12,
                linewidth=0,
            )
    if len(without):
        at = float(without["test_correlation_mean"].iloc[0])
        settings: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7, "color": NOTE}
        # On the right, where strong losses predict worse, there is room.
        ax.annotate("no clustering loss", (1, at), (-2, 2.5), xycoords=ax.get_yaxis_transform(), ha="right", **settings)
    clustered = performance[performance["strength"] > 0]
    ax.plot(
        clustered["strength"],
        clustered["test_correlation_mean"],
        color="#8A8A8A",
        linewidth=1.0,
        zorder=2,
        label="_line",
    )
    for row in clustered.itertuples():
        settings = styles[row.label].line_settings() | {"linestyle": "none"}
        sd = row.test_correlation_sd if np.isfinite(row.test_correlation_sd) else None
        ax.errorbar(row.strength, row.test_correlation_mean, yerr=sd, label=row.label, elinewidth=1.0, **settings)
    ax.set_ylabel("test correlation")
    _strength_axis(ax, clustered["strength"])


def _draw_ratio(ax: Axes, clustered: pd.DataFrame, styles: dict[str, MethodStyle]) -> None:
    known = clustered[clustered["gradient_ratio"] > 0]
    for ratio, text in ((LOCK_IN_RATIO, "locks in from here"), (GENTLE_RATIO, "strength auto")):
        ax.axhline(ratio, color=INK, linewidth=0.8, linestyle=":", zorder=1, label=f"_{text}")
        ax.annotate(
            text, (0.02, ratio), (0, 2), xycoords=ax.get_yaxis_transform(), textcoords="offset points", fontsize=6.5
        )
    ax.plot(known["strength"], known["gradient_ratio"], color="#8A8A8A", linewidth=1.0, zorder=2, label="_line")
    for row in known.itertuples():
        settings = styles[row.label].line_settings() | {"linestyle": "none"}
        ax.plot([row.strength], [row.gradient_ratio], label=row.label, **settings)
    ax.set_yscale("log")
    decades(ax, "y")
    values = [*known["gradient_ratio"], GENTLE_RATIO, LOCK_IN_RATIO]
    ax.set_ylim(min(values) / 2, max(values) * 2.5)
    ax.set_ylabel("ratio of gradient norms")
    _strength_axis(ax, clustered["strength"])


def _strength_axis(ax: Axes, strengths: pd.Series) -> None:
    low, high = float(strengths.min()), float(strengths.max())
    factor = (high / low) ** 0.08 if high > low else 2.0
    ax.set_xscale("log")
    decades(ax, "x")
    ax.set_xlim(low / factor, high * factor)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("strength of the clustering loss")
    ax.grid(axis="y")
