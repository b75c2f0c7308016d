"""t-SNE of several models side by side, the same neurons and colours in every panel (Figure 4A to E)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from december_plugin.errors import SettingsError
from december_plugin.evaluation.tsne import checked_vectors, tsne_coordinates
from december_plugin.plots.embedding import drawn_neurons
from december_plugin.plots.frames import checked_frame
from december_plugin.plots.groups import Grouping, as_groupings
from december_plugin.plots.panels import PAGE_WIDTH, figure_page, letters, settled
from december_plugin.plots.style import NOTE, PALE, figure_style

_MAX_COLUMNS = 5
_MAX_VECTOR_POINTS = 3000
_MAX_TITLE = 19


def tsne_frame(
    vectors: Mapping[str, npt.ArrayLike],
    neurons: pd.DataFrame,
    groups: Mapping[str, Any],
    *,
    seed: int = 0,
    max_neurons_per_session: int = 2000,
) -> pd.DataFrame:
    """Return t-SNE coordinates of the same neurons in several models, for :func:`embedding_panels_figure`.

    Parameters
    ----------
    vectors
        Readout vectors (N, D) by method or model, of the same N neurons in the same order.
    neurons
        ``data_key`` and ``unit_id`` of these neurons.
    groups
        Labels (N,) by method or model, which set the colours; None, "", -1 and NaN mean no label.
    seed
        Seed of the choice of neurons and of t-SNE.
    max_neurons_per_session
        See :func:`~december_plugin.plots.drawn_neurons`.

    Returns
    -------
    pandas.DataFrame
        ``label``, ``data_key``, ``unit_id``, ``x``, ``y`` and ``group``, a row per method and drawn neuron.

    Raises
    ------
    SettingsError
        If there are no models, or vectors or groups differ from the neurons in number.

    See Also
    --------
    embedding_panels_figure : Draws the frame.
    december_plugin.plots.cluster_centres_figure : Draws it with the centres of clusters.
    december_plugin.plots.tsne_coordinates : Embeds the vectors of one model.
    december_plugin.results.embeddings_frame : Makes the frame of a lab.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from december_plugin.plots import tsne_frame
    >>> rng = np.random.default_rng(0)
    >>> neurons = pd.DataFrame({"data_key": "mouse 1", "unit_id": np.arange(24)})
    >>> vectors = {"seed 1": rng.normal(size=(24, 4)), "seed 2": rng.normal(size=(24, 4))}
    >>> clusters = {name: np.repeat([0, 1], 12) for name in vectors}
    >>> frame = tsne_frame(vectors, neurons, clusters, max_neurons_per_session=15)
    >>> frame.groupby("label")["unit_id"].count().to_dict()
    {'seed 1': 15, 'seed 2': 15}
    >>> frame.columns.tolist()
    ['label', 'data_key', 'unit_id', 'x', 'y', 'group']
    """
    if not vectors:
        raise SettingsError("there are no readout vectors; a mapping of method to vectors (N, D) is needed.")
    keys = neurons["data_key"].to_numpy()
    drawn = drawn_neurons(len(neurons), sessions=keys, max_neurons_per_session=max_neurons_per_session, seed=seed)
    frames = []
    for method, array in vectors.items():
        found = checked_vectors(array)
        labels = groups.get(method)
        if len(found) != len(neurons) or labels is None or len(labels) != len(neurons):
            n_labels = "no" if labels is None else str(len(labels))
            raise SettingsError(
                f"{method!r} has {len(found)} readout vectors and {n_labels} groups for {len(neurons)} neurons; every "
                "method needs one of each per neuron, in the same order."
            )
        points = tsne_coordinates(found[drawn], seed=seed)
        frame = neurons[["data_key", "unit_id"]].iloc[drawn].reset_index(drop=True)
        chosen = pd.Series(list(labels), dtype=object).iloc[drawn].to_numpy()
        frames.append(frame.assign(label=method, x=points[:, 0], y=points[:, 1], group=chosen))
    return pd.concat(frames, ignore_index=True)[["label", "data_key", "unit_id", "x", "y", "group"]]


def embedding_panels_figure(coordinates: pd.DataFrame) -> Figure:
    """Draw embeddings of several models, a panel for each, at most five side by side.

    Every panel has the same neurons. Where a method's groups are its own clusters, groups of different panels that
    share most of their neurons have the same colour.

    Parameters
    ----------
    coordinates
        What :func:`tsne_frame` returns: ``label``, ``data_key``, ``unit_id``, ``x``, ``y``, ``group``.

    Returns
    -------
    Figure
        The panels.

    Raises
    ------
    SettingsError
        If the frame is empty, lacks a column, or two methods have different neurons.

    See Also
    --------
    tsne_frame : Makes the coordinates.
    december_plugin.plots.embedding_figure : Draws several groupings of one model.
    december_plugin.plots.strength_figure : Draws embeddings above what the strength does.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from december_plugin.plots import embedding_panels_figure
    >>> neurons = pd.DataFrame({"data_key": "mouse 1", "unit_id": np.arange(40), "group": np.repeat([0, 1], 20)})
    >>> points = np.random.default_rng(0).normal(size=(2, 40, 2)) + 8 * neurons["group"].to_numpy()[:, None]
    >>> coordinates = pd.concat(
    ...     [neurons.assign(label=f"seed {seed}", x=xy[:, 0], y=xy[:, 1]) for seed, xy in enumerate(points, 1)]
    ... )
    >>> figure = embedding_panels_figure(coordinates)
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['A  seed 1', 'B  seed 2']
    >>> figure.get_supxlabel()
    't-SNE of the same 40 neurons; neurons of one colour share a group'
    """
    panels = embedding_panels(coordinates)
    n_columns = min(len(panels.methods), _MAX_COLUMNS)
    n_rows = -(-len(panels.methods) // n_columns)
    width = min(PAGE_WIDTH, 2.6 * n_columns)
    with figure_style():
        figure = figure_page(n_rows * (width / n_columns + 0.25) + 0.2, width=width)
        axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
        panels.draw(axes[: len(panels.methods)], letters(len(panels.methods)))
        for ax in axes[len(panels.methods) :]:
            ax.remove()
        figure.supxlabel(panels.note, fontsize=7, color=NOTE)
        settled(figure)
    return figure


class EmbeddingPanels:
    """Checked coordinates, ready to be drawn into panels.

    Parameters
    ----------
    methods
        Titles of the panels.
    points
        Coordinates of each (N, 2).
    groupings
        Groups of each, with their colours.
    """

    def __init__(self, methods: list[str], points: list[np.ndarray], groupings: list[Grouping]):
        self.methods, self.points, self.groupings = methods, points, groupings

    @property
    def note(self) -> str:
        """What the panels show, in a few words."""
        return f"t-SNE of the same {len(self.points[0]):,} neurons; neurons of one colour share a group"

    def draw(self, axes: list[Axes], names: list[str]) -> None:
        """Draw each method into its panel, under its letter."""
        order = np.random.default_rng(0).permutation(len(self.points[0]))
        for ax, name, method, points, grouping in zip(
            axes, names, self.methods, self.points, self.groupings, strict=True
        ):
            _draw(ax, points[order], grouping.codes[order], grouping.colors)
            ax.set_title(f"{name}  {_two_lines(method)}", fontsize=8, pad=4)


def embedding_panels(coordinates: pd.DataFrame) -> EmbeddingPanels:
    """Return checked coordinates with colours; see :func:`embedding_panels_figure`."""
    what = "the frame of coordinates"
    coordinates = checked_frame(
        *(coordinates, what),
        text=("label",),
        numbers=("x", "y"),
        empty="there are no neurons that could be drawn.",
    )
    for name in ("data_key", "unit_id", "group"):
        if name not in coordinates:
            raise SettingsError(
                f"{what} has no column {name!r}. Needed: label, data_key, unit_id, x, y, group. "
                f"It has: {', '.join(map(str, coordinates.columns))}."
            )
    parts = {
        method: part.set_index(["data_key", "unit_id"]) for method, part in coordinates.groupby("label", sort=False)
    }
    methods = [str(method) for method in parts]
    first = parts[methods[0]]
    for method, part in parts.items():
        if len(part) != len(first) or not part.index.is_unique or not first.index.isin(part.index).all():
            raise SettingsError(
                f"{what}: {methods[0]!r} and {method!r} do not have the same neurons, each of them once."
            )
    aligned = [part.loc[first.index] for part in parts.values()]
    groupings = as_groupings(
        {method: part["group"].tolist() for method, part in zip(methods, aligned, strict=True)}, len(first)
    )
    return EmbeddingPanels(methods, [part[["x", "y"]].to_numpy() for part in aligned], groupings)


def _draw(ax: Axes, points: np.ndarray, codes: np.ndarray, colors: tuple[str, ...]) -> None:
    size = float(np.clip(2500 / len(points), 0.5, 8.0))
    labelled = codes >= 0
    x, y = points.T
    ax.scatter(x[~labelled], y[~labelled], s=0.7 * size, c=PALE, linewidths=0, rasterized=len(points) > 500)
    shown = np.array(colors)[codes[labelled]] if labelled.any() else None
    dense = len(points) > _MAX_VECTOR_POINTS
    ax.scatter(x[labelled], y[labelled], s=size, c=shown, linewidths=0, alpha=0.85, rasterized=dense)
    center = (np.nanmin(points, axis=0) + np.nanmax(points, axis=0)) / 2
    half = max(float(np.nanmax(np.ptp(points, axis=0))) / 2 * 1.05, 1e-9)
    ax.set(xlim=(center[0] - half, center[0] + half), ylim=(center[1] - half, center[1] + half))
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set(visible=True, color="#BBBBBB", linewidth=0.6)


def _two_lines(title: str) -> str:
    """Break a long title at its comma."""
    head, comma, tail = title.partition(", ")
    return f"{head},\n{tail}" if comma and len(title) > _MAX_TITLE else title
