"""What noise does to the alignment of synthetic readout vectors, for which orientations and types are known.

After Figures 4 and B1 of Ustyuzhaninov et al. 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from december_plugin.errors import SettingsError
from december_plugin.evaluation.tsne import tsne_coordinates
from december_plugin.plots.aligned_readouts import WEIGHTS
from december_plugin.plots.frames import check_known, checked_frame
from december_plugin.plots.groups import as_groupings
from december_plugin.plots.panels import PAGE_WIDTH, figure_page, legend_below, legend_height, title_panel
from december_plugin.plots.style import INK, NOTE, PALE, figure_style

RANDOM = 90.0  # degrees: the median error of random angles
COLUMNS = ("noise", "raw", "aligned", "noise_alone", "angle_error_degrees")
_LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "raw": ("as they are", {"color": "#8C564B", "marker": "o", "linestyle": "-"}),
    "aligned": ("aligned", {"color": "#0072B2", "marker": "s", "linestyle": "-"}),
    "noise_alone": ("expected of noise alone", {"color": INK, "marker": "", "linestyle": "--"}),
}
_SHOWN = 16  # vectors of an example, as in the paper
_MOST_EXAMPLES = 8


def synthetic_alignment_figure(table: pd.DataFrame) -> Figure:
    """Draw how well alignment works at every level of noise: distances within types, and errors of angles.

    Parameters
    ----------
    table
        One row per level of noise, simulation and type: ``noise`` (standard deviation); the mean distances between
        vectors of one type before and after alignment, ``raw`` and ``aligned``, and between vectors that differ only by
        noise, ``noise_alone``; and the median error of the angles, ``angle_error_degrees``.

    Returns
    -------
    Figure
        Two panels: distances against noise, with those that noise alone gives (if aligned vectors are closer to each
        other than that, their noise has been aligned), and errors of angles, with those of random angles. Points are
        means over simulations and types, bands their standard deviations.

    Raises
    ------
    SettingsError
        If the table is empty, lacks a column, or a column is not numeric.

    See Also
    --------
    synthetic_readouts_figure : Draws examples of the vectors.
    december_plugin.plots.alignments_figure : Draws diagnostics of alignments of recorded neurons.
    december_plugin.rotation.RotationAlignment : Aligns the vectors.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import synthetic_alignment_figure
    >>> table = pd.DataFrame({"noise": [0.0, 0.2, 0.5], "raw": [1.1, 1.2, 1.3], "aligned": [0.02, 0.31, 0.74]})
    >>> table = table.assign(noise_alone=[0.0, 0.29, 0.7], angle_error_degrees=[0.5, 4.0, 21.0])
    >>> figure = synthetic_alignment_figure(table)
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['A  Distances between vectors of a type', 'B  Errors of the angles']
    >>> [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    ['0', '0.2', '0.5']
    """
    what = "the table of distances"
    table = checked_frame(table, what, text=(), numbers=COLUMNS, empty="no synthetic readouts have been aligned yet.")
    check_known(table, what, "noise")
    groups = table.groupby("noise")
    mean, spread = groups.mean(numeric_only=True), groups.std(numeric_only=True).fillna(0)
    n = int(groups.size().max())
    handles = [Line2D([], [], label=label, markersize=5, **style) for label, style in _LINES.values()]
    with figure_style():
        figure = figure_page(2.5 + legend_height([label for label, _ in _LINES.values()]))
        left, right = figure.subplots(1, 2)
        # Equally spaced: the levels of noise of such a study are zero, small and large.
        places = np.arange(len(mean))
        for name, (_, style) in _LINES.items():
            _draw_band(left, places, mean[name], spread[name] if name != "noise_alone" else None, style)
        _draw_band(right, places, mean["angle_error_degrees"], spread["angle_error_degrees"], _LINES["aligned"][1])
        right.axhline(RANDOM, color=NOTE, linewidth=0.8, linestyle=":")
        right.annotate("random angles", (1, RANDOM), (-2, 3), textcoords="offset points", fontsize=7, ha="right",
                       xycoords=right.get_yaxis_transform())  # fmt: skip
        for ax in (left, right):
            ax.set_xticks(places, [f"{noise:g}" for noise in mean.index])
            ax.set_xlabel("noise (standard deviation)")
            ax.grid(axis="y")
        left.set_ylim(bottom=0)
        right.set_ylim(0, 1.12 * max(RANDOM, float(mean["angle_error_degrees"].max())))
        left.set_ylabel("mean distance within types")
        right.set_ylabel("median error (degrees)")
        over = f"mean ± SD over {n} simulated types" if n > 1 else "one simulated type"
        title_panel(left, "A", "Distances between vectors of a type", over)
        title_panel(right, "B", "Errors of the angles", over)
        legend_below(figure, handles)
    return figure


def synthetic_readouts_figure(
    examples: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike, Any]], *, seed: int = 0
) -> Figure:
    """Draw examples of readout vectors, as they are and aligned, as rows of weights and as t-SNE.

    Parameters
    ----------
    examples
        By title, such as "noise 0.2": the vectors as they are (N, D), aligned (N, D), and their types or clusters (N,);
        at most 8.
    seed
        Seed of t-SNE.

    Returns
    -------
    Figure
        A column for each example: 16 of its vectors sorted by group, as they are and aligned, and t-SNE of all vectors
        as they are and aligned, in the colours of the groups.

    Raises
    ------
    SettingsError
        If there is no example, there are more than 8, or vectors and groups differ in length.

    See Also
    --------
    synthetic_alignment_figure : Draws how well alignment works at every noise.
    december_plugin.plots.aligned_readouts_figure : Draws recorded neurons in this way.

    Examples
    --------
    >>> from december_plugin.plots import synthetic_readouts_figure
    >>> from december_plugin.rotation import shifted
    >>> from december_plugin.rotation.simulation import simulated_readouts
    >>> simulated = simulated_readouts(20, n_types=2, n_features=4, seed=0)
    >>> aligned = shifted(simulated.readouts, -simulated.angles, 8)
    >>> figure = synthetic_readouts_figure({"no noise": (simulated.readouts, aligned, simulated.types)})
    >>> figure.axes[0].get_title(loc="center"), [ax.get_ylabel() for ax in figure.axes[:2]]
    ('no noise', ['as they are', 'aligned'])
    """
    if not 1 <= len(examples) <= _MOST_EXAMPLES:
        raise SettingsError(f"there are {len(examples)} examples; 1 to {_MOST_EXAMPLES} can be drawn side by side.")
    side = min(1.4, (PAGE_WIDTH - 0.3) / len(examples))
    names = ("as they are", "aligned", "t-SNE,\nas they are", "t-SNE,\naligned")
    with figure_style():
        figure = figure_page(4 * side + 0.6, width=side * len(examples) + 0.4)
        grid = figure.subplots(4, len(examples), squeeze=False)
        for column, (title, (readouts, aligned, groups)) in enumerate(examples.items()):
            raw, turned = np.asarray(readouts, dtype=np.float64), np.asarray(aligned, dtype=np.float64)
            if raw.ndim != 2 or turned.shape != raw.shape:
                raise SettingsError(
                    f"{title!r}: vectors have the shapes {raw.shape} and, aligned, {turned.shape}; they must be (N, D)."
                )
            (grouping,) = as_groupings({title: groups}, len(raw))
            _draw_rows(grid[:2, column], raw, turned, grouping.codes)
            for ax, vectors in zip(grid[2:, column], (raw, turned), strict=True):
                points = tsne_coordinates(vectors, seed=seed)
                colors = [grouping.colors[code] if code >= 0 else PALE for code in grouping.codes]
                ax.scatter(*points.T, s=5, c=colors, linewidths=0, alpha=0.85)
            for ax in grid[:, column]:
                ax.set(xticks=[], yticks=[], box_aspect=1)
                ax.spines[:].set(visible=True, color="#BBBBBB", linewidth=0.6)
            grid[0, column].set_title(title, fontsize=8, loc="center", pad=4)
        for ax, name in zip(grid[:, 0], names, strict=True):
            ax.set_ylabel(name, fontsize=7.5)
    return figure


def _draw_band(ax: Axes, x: Any, mean: pd.Series, spread: pd.Series | None, style: dict[str, Any]) -> None:
    ax.plot(x, mean, markersize=5, linewidth=1.3, **style)
    if spread is not None:
        ax.fill_between(x, mean - spread, mean + spread, color=style["color"], alpha=0.15, linewidth=0)


def _draw_rows(
    axes: Any, raw: npt.NDArray[np.float64], turned: npt.NDArray[np.float64], codes: npt.NDArray[np.int64]
) -> None:
    rows = np.arange(min(_SHOWN, len(raw)))
    rows = rows[np.argsort(codes[rows], kind="stable")]
    for ax, vectors in zip(axes, (raw, turned), strict=True):
        limit = float(np.abs(vectors[rows]).max()) or 1.0
        ax.imshow(vectors[rows], cmap=WEIGHTS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        for edge in np.flatnonzero(np.diff(codes[rows])) + 0.5:
            ax.axhline(edge, color=INK, linewidth=0.8)


def reconstruction_figure(
    readouts: npt.ArrayLike,
    groups: Any,
    fits: Mapping[str, tuple[npt.ArrayLike, float]],
    *,
    n_orientations: int,
) -> Figure:
    """Draw what the temperature that an alignment reached does to readout vectors (Figure 4A).

    Parameters
    ----------
    readouts
        (N, O * F), orientation-major; few enough to be seen one by one.
    groups
        Types or clusters (N,), by which rows are sorted.
    fits
        By title, such as "beta 2": the angles (N,) in radians and the temperature T of a fit.
    n_orientations
        Number of orientations O.

    Returns
    -------
    Figure
        The vectors and, for each fit, what the relaxed shift at its temperature makes of them: shifted by their angles
        and by 0. The latter should look like the vectors: if it does not, the temperature is too low, and aligned
        vectors are similar because they are blurred.

    Raises
    ------
    SettingsError, EmbeddingError, MisfitError
        If there is no fit, or vectors, groups and angles differ in length.

    See Also
    --------
    december_plugin.plots.relaxed_shift_figure : Draws the distance between two vectors while one is shifted.
    december_plugin.rotation.RotationAlignment : Fits angles and temperature.

    Examples
    --------
    >>> from december_plugin.plots import reconstruction_figure
    >>> from december_plugin.rotation.simulation import simulated_readouts
    >>> simulated = simulated_readouts(20, n_types=2, n_features=4, seed=0)
    >>> fits = {"low": (-simulated.angles, 1.0), "high": (-simulated.angles, 20.0)}  # angles_ and temperature_ of fits
    >>> figure = reconstruction_figure(simulated.readouts, simulated.types, fits, n_orientations=8)
    >>> [ax.get_title(loc="center").splitlines()[0] for ax in figure.axes]
    ['as they are', 'low, shifted', 'low, by 0', 'high, shifted', 'high, by 0']
    """
    import torch

    from december_plugin.rotation.shifts import checked_readouts, relaxed_weights, weighted_shifts

    if not fits:
        raise SettingsError("there is no fit; at least one with its angles and its temperature is needed.")
    vectors = torch.from_numpy(checked_readouts(readouts, n_orientations))
    (grouping,) = as_groupings({"group": groups}, len(vectors))
    order = np.argsort(grouping.codes, kind="stable")
    panels = [("as they are", vectors)]
    for title, (angles, temperature) in fits.items():
        turns = np.asarray(angles, dtype=np.float64)
        if turns.shape != (len(vectors),):
            raise SettingsError(f"{title!r} has {turns.size} angles for {len(vectors)} readout vectors.")
        for name, by in (("shifted", turns), ("by 0", np.zeros_like(turns))):
            weights = relaxed_weights(torch.from_numpy(by), float(temperature), n_orientations)
            panels.append((f"{title}, {name}\nT = {temperature:.3g}", weighted_shifts(vectors, weights)))
    limit = float(vectors.abs().max()) or 1.0
    with figure_style():
        width = min(PAGE_WIDTH, 1.45 * len(panels))
        figure = figure_page(1.9, width=width)
        for ax, (title, drawn) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            rows = drawn.transpose(1, 2).reshape(len(drawn), -1).numpy()[order]
            ax.imshow(rows, cmap=WEIGHTS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
            for edge in np.flatnonzero(np.diff(grouping.codes[order])) + 0.5:
                ax.axhline(edge, color=INK, linewidth=0.8)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set(visible=True, color="#BBBBBB", linewidth=0.6)
            ax.set_title(title, fontsize=7.5, weight="normal", loc="center", pad=4)
    return figure
