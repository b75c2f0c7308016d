"""The toy experiment of the paper's Figure 2: what a clustering loss does to the weights of linear neurons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from december_plugin.errors import SettingsError
from december_plugin.evaluation.methods import Method
from december_plugin.plots.frames import check_known, checked_frame, methods_of
from december_plugin.plots.panels import (
    PAGE_WIDTH,
    decades,
    figure_page,
    legend_below,
    legend_height,
    letters,
    settled,
    title_panel,
)
from december_plugin.plots.style import GROUP_COLORS, INK, MethodStyle, figure_style, lighter, method_style

_KINDS = ("neuron", "center")
_MAX_STAGES = 4


def toy_figure(weights: pd.DataFrame, distances: pd.DataFrame, *, planted: float | None = None) -> Figure:
    """Draw where losses move the weights of neurons, and the distance between the two centres over the steps.

    Parameters
    ----------
    weights
        One row per neuron and stage, and per centre: ``stage`` (the title of its panel, e.g. "after DEC"), ``kind``
        ("neuron" or "center"), ``weight_1``, ``weight_2`` and ``group`` (a number, ignored for centres). The larger
        group has the same colour in every panel, whatever its number.
    distances
        ``label``, ``target`` (what the gradient does at the target, e.g. "gradient flows" or "constant"), ``step`` and
        ``distance`` between the two centres.
    planted
        Distance between the true centres, drawn as a dotted line; None: no line.

    Returns
    -------
    Figure
        A panel per stage, at most four, and the distances below on a logarithmic axis.

    Raises
    ------
    SettingsError
        If a frame is empty, lacks a column, a column is not numeric, there are more than four stages, or a kind is
        unknown.

    See Also
    --------
    december_plugin.plots.training_curves_figure : Draws how trainings of models went.
    december_plugin.clustering.DECEMber : The clustering loss.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import toy_figure
    >>> neurons = pd.DataFrame({"weight_1": [-1.0, -0.9, 1.0], "weight_2": [-1.1, -1.0, 0.9], "group": [0, 0, 1]})
    >>> centres = pd.DataFrame({"weight_1": [-0.95, 1.0], "weight_2": [-1.05, 0.9], "group": [0, 1]})
    >>> weights = pd.concat([neurons.assign(kind="neuron"), centres.assign(kind="center")])
    >>> distances = pd.DataFrame({"label": "DECEMber", "target": "constant", "step": [0, 1], "distance": [2.7, 2.8]})
    >>> figure = toy_figure(weights.assign(stage="after DECEMber"), distances)
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['A  after DECEMber', 'B  Distance between the two centres']
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['DECEMber, constant target', 'centre']
    """
    weights = _checked_weights(weights)
    distances = checked_frame(
        *(distances, "the frame of distances"),
        text=("label", "target"),
        numbers=("step", "distance"),
        empty="there are no steps that could be drawn.",
    )
    check_known(distances, "the frame of distances", "distance")
    methods = methods_of(distances)
    pairs = dict.fromkeys(zip(distances["label"], distances["target"], strict=True))
    styles = {(label, target): _style(methods[label], target) for label, target in pairs}
    labels = {pair: f"{pair[0]}, {_named(pair[1])}" for pair in styles}
    stages = list(dict.fromkeys(weights["stage"]))
    top = PAGE_WIDTH / len(stages) if len(stages) > 2 else PAGE_WIDTH / 3
    with figure_style():
        figure = figure_page(top + 0.35 + 2.1 + legend_height(labels.values()))
        grid = figure.add_gridspec(2, len(stages), height_ratios=(top + 0.3, 2.1))
        names = letters(len(stages) + 1)
        limit = _limit(weights)
        for i, stage in enumerate(stages):
            ax = figure.add_subplot(grid[0, i])
            _draw_weights(ax, weights[weights["stage"] == stage], limit)
            title_panel(ax, names[i], stage)
            ax.set_ylabel("weight 2" if i == 0 else "")
        ax = figure.add_subplot(grid[1, :])
        _draw_distances(ax, distances, styles, labels, planted)
        title_panel(ax, names[-1], "Distance between the two centres")
        handles = [_line(styles[pair], labels[pair]) for pair in styles]
        handles.append(Line2D([], [], linestyle="", marker="X", color=INK, markeredgecolor="white", label="centre"))
        legend_below(figure, handles)
        settled(figure)
    return figure


def _checked_weights(weights: pd.DataFrame) -> pd.DataFrame:
    what = "the frame of weights"
    weights = checked_frame(
        *(weights, what),
        text=("stage", "kind"),
        numbers=("weight_1", "weight_2", "group"),
        empty="there are no neurons that could be drawn.",
    )
    for kind in weights["kind"].unique():
        if kind not in _KINDS:
            raise SettingsError(f"a kind of {what} is {kind!r}; allowed: {', '.join(_KINDS)}.")
    n_stages = weights["stage"].nunique()
    if n_stages > _MAX_STAGES:
        raise SettingsError(f"{what} has {n_stages} stages; at most {_MAX_STAGES} fit side by side.")
    return weights


def _named(target: str) -> str:
    """Return what the legend says about a target."""
    return {"gradient flows": "gradient through the target", "constant": "constant target"}.get(target, target)


def _style(method: Method | str, target: str) -> MethodStyle:
    style = method_style(method)
    if target != "constant":
        return style
    # Paler and above, so that both targets are visible where they end alike.
    return replace(style, linestyle="--", color=lighter(style.color), linewidth=1.3, zorder=style.zorder + 1)


def _line(style: MethodStyle, label: str) -> Line2D:
    return Line2D([], [], **(style.line_settings() | {"marker": "none", "label": label}))


def _limit(weights: pd.DataFrame) -> float:
    neurons = weights[weights["kind"] == "neuron"]
    return 1.05 * float(np.nanmax(np.abs(neurons[["weight_1", "weight_2"]].to_numpy())))


def _draw_weights(ax: Axes, rows: pd.DataFrame, limit: float) -> None:
    neurons = rows[(rows["kind"] == "neuron") & rows["group"].notna()]
    # The larger group is drawn in the same colour whatever its number.
    order = neurons["group"].value_counts().index
    for i, group in enumerate(order):
        members = neurons[neurons["group"] == group]
        ax.plot(
            members["weight_1"],
            members["weight_2"],
            marker=".",
            linestyle="",
            color=GROUP_COLORS[i % len(GROUP_COLORS)],
            markersize=2.2,
            markeredgewidth=0,
            alpha=0.6,
            rasterized=True,
            label=f"group {i + 1}",
        )
    centers = rows[rows["kind"] == "center"]
    ax.plot(
        *(centers["weight_1"], centers["weight_2"], "X"),
        color=INK,
        markersize=8,
        markeredgecolor="white",
        markeredgewidth=1.0,
        label="centre",
    )
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="weight 1")
    ax.locator_params(nbins=5)


def _draw_distances(
    ax: Axes,
    distances: pd.DataFrame,
    styles: dict[tuple[str, str], MethodStyle],
    labels: dict[tuple[str, str], str],
    planted: float | None,
) -> None:
    for (method, target), style in styles.items():
        rows = distances[(distances["label"] == method) & (distances["target"] == target)].sort_values("step")
        settings = style.line_settings() | {"marker": "none", "label": labels[method, target]}
        ax.plot(rows["step"], rows["distance"], **settings)
    if planted is not None:
        ax.axhline(planted, color=INK, linewidth=0.8, linestyle=":", zorder=1, label="_planted")
        ax.annotate(
            f"planted, {planted:.3f}",
            (1, planted),
            (-2, -9),
            xycoords=ax.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            fontsize=7,
        )
    ax.set_yscale("log", nonpositive="mask")
    decades(ax, "y")
    ax.set(xlabel="step", ylabel="distance", xlim=(distances["step"].min(), distances["step"].max()))
    ax.grid(axis="y")
