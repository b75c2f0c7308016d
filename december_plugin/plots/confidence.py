"""How certain clusters are: stability across seeds, the mixture's confidence, and whether it is calibrated."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import SettingsError
from december_plugin.evaluation.methods import Method
from december_plugin.plots.frames import check_known, checked_frame, methods_of
from december_plugin.plots.panels import (
    PAGE_WIDTH,
    extra_lines,
    figure_page,
    legend_below,
    legend_height,
    line_handles,
    title_panel,
    wrapped,
)
from december_plugin.plots.style import NOTE, figure_style, method_style, method_styles

_BLUE, _SKY = method_style(Method("december")).color, "#9CCBEA"
_ROW = 2.5
_MAX_NAMED = 30


def consensus_figure(frame: pd.DataFrame, *, title: str = "", many: str = "seeds") -> Figure:
    """Draw how stable the consensus clusters of several seeds are, neuron by neuron and cluster by cluster.

    Parameters
    ----------
    frame
        One row per neuron: ``cluster`` (of the consensus; -1 for none, which is left out), ``stability`` (share of
        seeds that put the neuron there, 0 to 1), ``n_seeds`` and ``confidence`` (mean over seeds of the largest
        posterior; NaN where there is none).
    title
        Whose clusters they are, e.g. "DECEMber, K = 6".
    many
        What votes: "seeds", or "models" if they differ in more than the seed.

    Returns
    -------
    Figure
        Three panels: share of neurons by stability; stability of every cluster, the most stable first, with its size;
        confidence by stability.

    Raises
    ------
    SettingsError
        If the frame is empty, lacks a column, a column is not numeric, a stability is not between 0 and 1, or no
        neuron has a cluster.

    See Also
    --------
    calibration_figure : Draws whether the confidences are right, if the truth is known.
    december_plugin.results.consensus_frame : Returns the frame of a lab.
    december_plugin.evaluation.consensus_partition : Finds the consensus.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import consensus_figure
    >>> frame = pd.DataFrame({"cluster": [0, 0, 0, 1, 1, -1], "n_seeds": 5})  # -1: no cluster
    >>> frame["stability"] = [1.0, 1.0, 0.8, 0.6, 1.0, 0.4]
    >>> frame["confidence"] = [0.99, 0.98, 0.91, 0.72, 0.97, 0.55]
    >>> figure = consensus_figure(frame, title="DECEMber, K = 2")
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['A  Stability of neurons', 'B  Stability of clusters', 'C  Confidence']
    >>> [tick.get_text() for tick in figure.axes[1].get_yticklabels()]  # cluster (neurons)
    ['0 (3)', '1 (2)']
    """
    what = "the frame of the consensus"
    frame = checked_frame(
        *(frame, what),
        numbers=("stability", "n_seeds", "confidence"),
        empty="there is no consensus of at least two seeds yet.",
    )
    if "cluster" not in frame:
        raise SettingsError(f"{what} has no column 'cluster'. It has: {', '.join(map(str, frame.columns))}.")
    check_known(frame, what, "stability")
    frame = frame[frame["cluster"] != NO_CLUSTER].dropna(subset="stability")
    if frame.empty:
        raise SettingsError(f"most {many} leave every neuron without a cluster, so there is no consensus to draw.")
    if not frame["stability"].between(0, 1).all():
        raise SettingsError(f"the column 'stability' of {what} must hold shares between 0 and 1.")
    has_confidence = bool(frame["confidence"].notna().any())
    n_clusters = frame["cluster"].nunique()
    title = wrapped(title, 0.93 * PAGE_WIDTH) if title else title  # its letters are larger than those of panels
    with figure_style():
        head = 0.3 + extra_lines(title) if title else 0.0
        figure = figure_page(max(_ROW, min(0.13 * n_clusters, 3.4) + 0.9) + head)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=9, weight="bold")
        ratios = (1, 1.25, 1) if has_confidence else (1, 1.25)
        axes = list(figure.subplots(1, len(ratios), width_ratios=ratios))
        n_seeds = int(frame["n_seeds"].max())
        _draw_stability(axes[0], frame["stability"], n_seeds, many)
        title_panel(axes[0], "A", "Stability of neurons", f"{len(frame):,} neurons, {n_seeds} {many}")
        _draw_clusters(axes[1], frame, many)
        title_panel(axes[1], "B", "Stability of clusters", f"bar: mean; dark: share that all {many} keep")
        if has_confidence:
            _draw_confidence(axes[2], frame)
            title_panel(axes[2], "C", "Confidence", "median and quartiles of neurons")
    return figure


def _levels(stability: pd.Series) -> np.ndarray:
    return np.unique(stability.round(6))


def _draw_stability(ax: Axes, stability: pd.Series, n_seeds: int, many: str) -> None:
    levels = np.arange(1, n_seeds + 1) / n_seeds
    nearest = np.abs(stability.to_numpy()[:, None] - levels).argmin(axis=1)
    shares = np.bincount(nearest, minlength=n_seeds) / len(stability)
    ax.bar(levels, shares, width=0.75 / n_seeds, color=_SKY, edgecolor=_BLUE, linewidth=0.8)
    ax.set_ylim(0, 1.1 * float(shares.max()))
    ax.set_xlim(0.5 / n_seeds, 1 + 0.5 / n_seeds)
    if n_seeds <= 6:
        ax.set_xticks(levels, [f"{i + 1}/{n_seeds}" for i in range(n_seeds)])
    ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    ax.set_xlabel(f"{many} that agree on the cluster")
    ax.set_ylabel("share of neurons")
    ax.grid(axis="y")


def _draw_clusters(ax: Axes, frame: pd.DataFrame, many: str) -> None:
    groups = frame.groupby("cluster")["stability"]
    clusters = pd.DataFrame({"mean": groups.mean(), "n": groups.size(), "core": groups.apply(_core)})
    clusters = clusters.sort_values("mean", ascending=False)
    positions = np.arange(len(clusters))
    ax.barh(positions, clusters["mean"], height=0.78, color=_SKY, label="mean stability")
    ax.barh(positions, clusters["core"], height=0.78, color=_BLUE, label=f"kept by all {many}")
    if len(clusters) <= _MAX_NAMED:
        names = [f"{cluster} ({n:,})" for cluster, n in zip(clusters.index, clusters["n"], strict=True)]
        ax.set_yticks(positions, names)
        ax.tick_params(axis="y", length=0, labelsize=7 if len(clusters) <= 16 else 5.5)
        ax.set_ylabel("consensus cluster (neurons)")
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{len(clusters)} consensus clusters")
    ax.set_ylim(len(clusters) - 0.4, -0.6)
    ax.set_xlim(0, 1)
    ax.set_xlabel("stability")
    ax.grid(axis="x")


def _core(stability: pd.Series) -> float:
    return float(np.isclose(stability, 1.0).mean())


def _draw_confidence(ax: Axes, frame: pd.DataFrame) -> None:
    known = frame.dropna(subset="confidence")
    levels = _levels(known["stability"])
    quartiles = np.array(
        [np.percentile(known.loc[np.isclose(known["stability"], at), "confidence"], (25, 50, 75)) for at in levels]
    )
    spread = np.abs(quartiles[:, [0, 2]] - quartiles[:, [1]]).T
    ax.errorbar(levels, quartiles[:, 1], yerr=spread, color=_BLUE, marker="o", elinewidth=1.0, markeredgecolor="white")
    ax.set_ylim(max(0.0, float(quartiles.min()) - 0.08), 1.02)
    ax.set_xlim(0, 1.05)
    ax.set_xlabel("stability")
    ax.set_ylabel("confidence (largest posterior)")
    ax.grid(axis="y")


def calibration_figure(table: pd.DataFrame) -> Figure:
    """Draw how often a neuron's cluster is right against the mixture's confidence, if the truth is known.

    Parameters
    ----------
    table
        One row per method and bin of confidence: ``label``, ``confidence`` (mean of the bin's neurons), ``accuracy``
        (share whose cluster is matched with their true type) and ``n_neurons``. Bins without neurons are left out.

    Returns
    -------
    Figure
        Accuracy against confidence with the diagonal, above the number of neurons per bin.

    Raises
    ------
    SettingsError
        If the table is empty, lacks a column, a column is not numeric, or a share is not between 0 and 1.

    See Also
    --------
    consensus_figure : Draws confidence and stability without knowing the truth.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import calibration_figure
    >>> bins = pd.DataFrame({"confidence": [0.6, 0.75, 0.95], "accuracy": [0.52, 0.71, 0.96], "n_neurons": [4, 9, 87]})
    >>> figure = calibration_figure(bins.assign(label="DECEMber"))
    >>> [ax.get_ylabel() for ax in figure.axes], figure.axes[-1].get_xlabel()
    (['share in the matched cluster', 'neurons'], 'confidence (largest posterior)')
    """
    what = "the table of calibration"
    table = checked_frame(
        *(table, what),
        text=("label",),
        numbers=("confidence", "accuracy", "n_neurons"),
        empty="no clusters have been compared with a known truth yet.",
    )
    table = table[table["n_neurons"] > 0].dropna(subset=["confidence", "accuracy"])
    if table.empty:
        raise SettingsError(f"{what} has no bin with neurons.")
    for name in ("confidence", "accuracy"):
        if not table[name].between(0, 1).all():
            raise SettingsError(f"the column {name!r} of {what} must hold shares between 0 and 1.")
    styles = method_styles(methods_of(table))
    with figure_style():
        width = 3.6
        figure = figure_page(4.1 + legend_height(styles, width=width), width=width)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=NOTE, linewidth=0.9, linestyle=":", zorder=1, label="_calibrated")
        for label, style in styles.items():
            rows = table[table["label"] == label].sort_values("confidence")
            upper.plot(rows["confidence"], rows["accuracy"], label=label, **style.line_settings())
            settings = style.line_settings() | {"linewidth": 1.0, "markersize": 3.5}
            lower.plot(rows["confidence"], rows["n_neurons"], label=label, **settings)
        upper.set(xlim=(0, 1.02), ylim=(0, 1.02), ylabel="share in the matched cluster")
        title_panel(upper, "", "Calibration", "dotted: perfect calibration")
        lower.set_ylabel("neurons")
        lower.set_ylim(bottom=0)
        lower.set_xlabel("confidence (largest posterior)")
        for ax in (upper, lower):
            ax.grid(axis="both")
        legend_below(figure, line_handles(styles), width=width)
    return figure
