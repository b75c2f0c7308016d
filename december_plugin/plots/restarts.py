"""How much k-means and the Gaussian mixture depend on their own random starts (Figures 10 and 11)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from december_plugin.plots.clusters_axis import ClustersAxis, draw_means, set_value_limits
from december_plugin.plots.frames import check_counts, check_known, checked_frame
from december_plugin.plots.panels import (
    figure_page,
    legend_below,
    legend_height,
    letters,
    line_handles,
    title_panel,
)
from december_plugin.plots.shown import shown_methods
from december_plugin.plots.style import MethodStyle, figure_style

_PANEL = 3.6
_JITTER = 3.0


def restarts_figure(pairs: pd.DataFrame, types: pd.DataFrame | None = None) -> Figure:
    """Draw the agreement of clusterings of one model that differ only in their random start.

    Every pair of starts is a pale point; mean and SD are drawn over them. With one K, methods are side by side; with
    several, K is the horizontal axis. If there are more than 12 methods, the best few of each kind are drawn.

    Parameters
    ----------
    pairs
        One row per pair of starts: ``label``, ``n_clusters``, ``ari``.
    types
        One row per start: ``label``, ``n_clusters``, ``ari`` with known types; None: no such panel.

    Returns
    -------
    Figure
        One or two panels.

    Raises
    ------
    SettingsError
        If a frame is empty, lacks a column, or a column is not numeric.

    See Also
    --------
    december_plugin.plots.agreement_figure : Draws the agreement between seeds of the training.
    december_plugin.results.restarts_frame : Returns the pairs of a lab.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import restarts_figure
    >>> pairs = pd.DataFrame({"label": "k-means", "n_clusters": 5, "ari": [0.71, 0.65, 0.80]})
    >>> types = pd.DataFrame({"label": "k-means", "n_clusters": 5, "ari": [0.52, 0.61, 0.55]})
    >>> [ax.get_title(loc="left") for ax in restarts_figure(pairs, types).axes]
    ['A  Between random starts', 'B  With known types']
    """
    frames = [_checked(pairs, "the frame of pairs")]
    if types is not None:
        frames.append(_checked(types, "the frame of agreement with types"))
    shown = shown_methods(pd.concat(frames), "ari")
    styles = {label: replace(style, filled=True) for label, style in shown.styles.items()}
    frames = [frame[frame["label"].isin(styles)] for frame in frames]
    titles = [("Between random starts", "pairs of starts"), ("With known types", "starts")]
    width = _PANEL * len(frames)
    one_count = pd.concat(frames)["n_clusters"].nunique() == 1
    with figure_style():
        figure = figure_page(2.6 + (0.0 if one_count else legend_height(styles, width=width)), width=width)
        axes = list(figure.subplots(1, len(frames), squeeze=False)[0])
        names = letters(len(frames)) if len(frames) > 1 else [""]
        for ax, frame, name, (title, over) in zip(axes, frames, names, titles, strict=False):
            _draw(ax, frame, styles, by_method=one_count)
            title_panel(ax, name, title, f"points: {over}; mean ± SD{_count_note(frame, one_count)}")
        if not one_count:
            legend_below(figure, line_handles(styles), width=width)
    return figure


def _checked(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    frame = checked_frame(
        *(frame, what),
        text=("label",),
        numbers=("n_clusters", "ari"),
        empty="no model has been clustered with several random starts.",
    )
    check_counts(frame, what)
    check_known(frame, what, "ari")
    return frame.dropna(subset="ari")


def _count_note(frame: pd.DataFrame, one_count: bool) -> str:
    return f"; K = {frame['n_clusters'].iloc[0]:g}" if one_count else ""


def _summary(frame: pd.DataFrame) -> pd.DataFrame:
    groups = frame.groupby(["label", "n_clusters"])["ari"]
    return pd.DataFrame({"mean": groups.mean(), "sd": groups.std()}).reset_index()


def _draw(ax: Axes, frame: pd.DataFrame, styles: dict[str, MethodStyle], *, by_method: bool) -> None:
    summary = _summary(frame)
    if by_method:
        positions = {label: i for i, label in enumerate(styles)}
        frame, summary = (part.assign(at=part["label"].map(positions)) for part in (frame, summary))
        ax.set_xticks(range(len(styles)), [label.replace(", ", ",\n", 1) for label in styles])
        ax.set_xlim(-0.6, len(styles) - 0.4)
        offsets = [0.0] * len(styles)
    else:
        frame, summary = (part.assign(at=part["n_clusters"]) for part in (frame, summary))
        axis = ClustersAxis(frame["n_clusters"].to_numpy(), len(styles), _PANEL)
        axis.prepare(ax)
        offsets = list(2 * axis.offsets(True)) if len(styles) > 1 else [0.0]
    for (label, style), offset in zip(styles.items(), offsets, strict=True):
        _draw_points(ax, frame[frame["label"] == label], style, offset)
        rows = summary[summary["label"] == label].sort_values("at")
        draw_means(ax, rows, "mean", "sd", label, style, x="at", offset=offset, joined=not by_method)
    set_value_limits(ax, frame["ari"])
    ax.set_ylabel("adjusted Rand index")
    ax.grid(axis="y")


def _draw_points(ax: Axes, rows: pd.DataFrame, style: MethodStyle, offset: float) -> None:
    # Next to each other on the page, by a jitter that is the same every time.
    jitter = np.random.default_rng(0).uniform(-_JITTER, _JITTER, len(rows))
    for shift in np.array_split(np.argsort(jitter), min(5, len(rows))):
        moved = ScaledTranslation((offset + float(jitter[shift].mean())) / 72, 0, ax.figure.dpi_scale_trans)
        part = rows.iloc[shift]
        settings: dict[str, Any] = {
            "color": style.color,
            "markersize": 2.6,
            "alpha": 0.45,
            "markeredgewidth": 0,
            "label": "_pairs",
        }
        ax.plot(part["at"], part["ari"], "o", transform=ax.transData + moved, zorder=2, **settings)
