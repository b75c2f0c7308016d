"""Agreement across configurations: matrices of models, of their clusters and of their embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from december_plugin.errors import SettingsError
from december_plugin.plots.confusion import SHARES
from december_plugin.plots.frames import checked_frame
from december_plugin.plots.panels import figure_page, legend_below, legend_height, title_panel
from december_plugin.plots.style import INK, figure_style

PANELS = (
    ("A", "adjusted_rand_index", "Clusters", "adjusted Rand index"),
    ("B", "cosine_correlation", "Embeddings", "correlation of cosines"),
)
MOST_MODELS = 24  # as many names as fit into a legend
_MAX_NUMBERED = 12
_CELL, _MIN_SIDE, _MAX_SIDE = 0.3, 1.5, 2.3


def configurations_figure(pairs: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw how well models of the same neurons agree, in their clusters and in their embeddings.

    Parameters
    ----------
    pairs
        One row for each pair of models of one clustering, in either order: ``name_a``, ``name_b``,
        ``adjusted_rand_index`` and ``cosine_correlation``, NaN where unknown. A model paired with itself is on the
        diagonal: its seeds compared with each other. Only the first 24 models are drawn.
    title
        Which clustering, below the title of the first panel.

    Returns
    -------
    Figure
        Two matrices with the models in the same order; a cell without a number is unknown.

    Raises
    ------
    SettingsError
        If it is not a frame, lacks a column, has a pair twice, or has fewer than two models.

    See Also
    --------
    december_plugin.plots.agreement_figure : Draws the agreement between seeds of one configuration.
    december_plugin.results.configuration_table : Returns the pairs of a lab.
    december_plugin.evaluation.compare_embeddings : Computes how alike two models place the same neurons.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import configurations_figure
    >>> a, b = "Gaussian readout", "factorized readout"
    >>> pairs = pd.DataFrame({"name_a": [a, a, b], "name_b": [a, b, b]})
    >>> pairs = pairs.assign(adjusted_rand_index=[0.82, 0.55, 0.78], cosine_correlation=[0.97, 0.91, 0.96])
    >>> figure = configurations_figure(pairs)
    >>> [ax.get_title(loc="left") for ax in figure.axes[:2]]  # the others are colour bars
    ['A  Clusters', 'B  Embeddings']
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['.82', '.55', '.55', '.78']
    """
    numbers = tuple(column for _, column, _, _ in PANELS)
    pairs = checked_frame(
        pairs,
        "the table of pairs",
        text=("name_a", "name_b"),
        numbers=numbers,
        empty="no two configurations with neurons in common have been compared yet.",
    )
    names = list(dict.fromkeys([*pairs["name_a"], *pairs["name_b"]]))
    if len(names) < 2:
        raise SettingsError("there is only one configuration; a comparison needs at least two.")
    matrices = [_matrix(pairs, names, column)[:MOST_MODELS, :MOST_MODELS] for column in numbers]
    shown = names[:MOST_MODELS]
    labels = [f"{at}  {name}" for at, name in enumerate(shown, 1)]
    handles = [Line2D([], [], linestyle="", label=label) for label in labels]
    side = min(max(_MIN_SIDE, _CELL * len(shown)), _MAX_SIDE)
    with figure_style():
        figure = figure_page(side + 0.75 + legend_height(labels))
        legend_below(figure, handles, handle_length=0)
        axes = figure.subplots(1, 2)
        for ax, (letter, _, what, label), matrix in zip(axes, PANELS, matrices, strict=True):
            _draw(ax, matrix, label)
            title_panel(ax, letter, what, (title or None) if letter == "A" else "diagonals: between seeds of one model")
            ax.set_ylabel("model")
        if len(names) > len(shown):
            axes[0].set_xlabel(f"the first {len(shown)} of {len(names)} models")
    return figure


def _matrix(pairs: pd.DataFrame, names: list[str], column: str) -> np.ndarray:
    at = {name: position for position, name in enumerate(names)}
    matrix = np.full((len(names), len(names)), np.nan)
    seen: set[frozenset[str]] = set()
    for first, second, value in pairs[["name_a", "name_b", column]].itertuples(index=False):
        if frozenset((first, second)) in seen:
            raise SettingsError(f"the pair of {first!r} and {second!r} occurs twice; draw one clustering at a time.")
        seen.add(frozenset((first, second)))
        matrix[at[first], at[second]] = matrix[at[second], at[first]] = value
    return matrix


def _draw(ax: Axes, matrix: np.ndarray, label: str) -> None:
    n = len(matrix)
    edges = np.arange(n + 1) - 0.5
    low = min(0.0, float(np.nanmin(matrix))) if np.isfinite(matrix).any() else 0.0
    colours: dict[str, Any] = {"cmap": SHARES, "vmin": low, "vmax": 1.0, "edgecolors": "#E6E6E6", "linewidth": 0.4}
    mesh = ax.pcolormesh(edges, edges, np.ma.masked_invalid(matrix), **colours)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), aspect="equal")
    ax.spines[:].set(visible=True, linewidth=0.6)
    numbers = [str(at + 1) for at in range(n)]
    ax.set_xticks(range(n), numbers)
    ax.set_yticks(range(n), numbers)
    ax.tick_params(length=2, labelsize=7 if n <= _MAX_NUMBERED else 5.5)
    if n <= _MAX_NUMBERED:
        for row, column in zip(*np.nonzero(np.isfinite(matrix)), strict=True):
            value = matrix[row, column]
            color = "white" if (value - low) / (1 - low) > 0.55 else INK
            text = f"{value:.2f}".replace("0.", ".", 1)
            ax.text(column, row, text, ha="center", va="center", color=color, fontsize=6.5)
    bar = ax.figure.colorbar(mesh, ax=ax, fraction=0.045, pad=0.03, aspect=20)
    bar.outline.set_linewidth(0.6)
    bar.set_label(label, fontsize=7.5)
