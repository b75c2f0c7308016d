"""What the neurons of clusters prefer: their maximally exciting images, and their responses to each other's.

After Figures 6 and 7 of Ustyuzhaninov et al. 2020.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import SettingsError
from december_plugin.plots.cluster_centres import draw_islands
from december_plugin.plots.confusion import SHARES
from december_plugin.plots.groups import Grouping
from december_plugin.plots.panels import PAGE_WIDTH, figure_page, title_panel
from december_plugin.plots.style import INK, NOTE, figure_style, group_colors, natural_order
from december_plugin.validation.checks import check_integer

N_BEST = 16  # as in the paper
_BLOCKS_IN_A_ROW = 5
_MAPS_IN_A_ROW = 3  # with a map next to each
_BLOCK_TITLE = 0.34  # inches
_MOST_NAMED = 30
_SIDE = 4.6


def exciting_images_figure(
    images: npt.ArrayLike,
    clusters: Sequence[Any] | npt.NDArray[Any],
    test_correlations: npt.ArrayLike | None = None,
    *,
    n_best: int = N_BEST,
    grey: float = 0.0,
    crop: int | None = None,
    sizes: Mapping[Any, int] | None = None,
    blocks: Mapping[Any, Any] | None = None,
    islands: pd.DataFrame | None = None,
    title: str = "Maximally exciting images",
) -> Figure:
    """Draw the maximally exciting images of the best-predicted neurons of each cluster.

    Receptive fields can be anywhere in an image, so each image is centred, cut to a square, and drawn with its own
    range about grey.

    Parameters
    ----------
    images
        (N, height, width); or (N, channels, height, width), drawn as the mean over channels; or clips, (N, channels,
        frames, height, width), of which the frame with the highest contrast is drawn.
    clusters
        Clusters of the neurons, (N,); those without a cluster (-1) are left out.
    test_correlations
        Test correlations of the neurons, (N,): the best come first, those without one (NaN) last. None: in the order
        given.
    n_best
        Largest number of images of a cluster.
    grey
        The value of an empty pixel.
    crop
        Side of the squares in pixels; None: the shorter side of the images.
    sizes
        Number of neurons by cluster; None: the number of images.
    blocks
        Block by cluster, of those that respond alike
        (:func:`~december_plugin.evaluation.cluster_functions.cluster_blocks`): clusters are sorted by it.
    islands
        t-SNE coordinates ``x`` and ``y`` of all neurons, with their ``cluster``: a map next to the images of each
        cluster shows where the cluster is.
    title
        Title of the figure.

    Returns
    -------
    Figure
        A block of images for each cluster, in the order of their names.

    Raises
    ------
    SettingsError
        If shapes do not match, or no neuron has a cluster.

    See Also
    --------
    mei_confusion_figure : Draws how neurons respond to each other's images.
    december_plugin.insilico.maximally_exciting_images : Finds the images.
    december_plugin.results.exciting_images : Returns those of a lab.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.plots import exciting_images_figure
    >>> images = np.random.default_rng(0).normal(size=(4, 1, 16, 16))
    >>> figure = exciting_images_figure(images, clusters=[0, 0, 1, 1], test_correlations=[0.8, 0.7, 0.9, 0.6])
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['0 (n = 2)', '1 (n = 2)']
    """
    check_integer("n_best", n_best, minimum=1)
    shown, labels = _checked_images(images), np.asarray(clusters)
    scores = np.zeros(len(shown)) if test_correlations is None else np.asarray(test_correlations, dtype=np.float64)
    for name, values in (("clusters", labels), ("test_correlations", scores)):
        if values.shape != (len(shown),):
            raise SettingsError(
                f"{name} have shape {values.shape}; one for each of the {len(shown)} images is expected."
            )
    names = _names(labels)
    colors = dict(zip(names, group_colors(len(names)), strict=True))
    if blocks is not None:
        names.sort(key=lambda name: natural_order(blocks.get(name, "")))
    per_row = math.ceil(math.sqrt(n_best))
    n_panels, at_most = (1, _BLOCKS_IN_A_ROW) if islands is None else (2, _MAPS_IN_A_ROW)
    n_columns = min(at_most, len(names))
    n_rows = -(-len(names) // n_columns)
    width = PAGE_WIDTH * n_columns / at_most
    side = (width - 0.1) / (n_columns * n_panels) - 0.12
    with figure_style():
        figure = figure_page(n_rows * (side + _BLOCK_TITLE) + 0.4, width=max(width, 2.4))
        axes = figure.subplots(n_rows, n_columns * n_panels, squeeze=False).reshape(-1, n_panels)
        figure.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold")
        for panels, name in zip(axes, names, strict=False):
            members = np.flatnonzero(labels == name)
            best = members[np.argsort(-np.nan_to_num(scores[members], nan=-np.inf), kind="stable")][:n_best]
            _draw_block(panels[-1], page_of_images(shown[best], per_row=per_row, grey=grey, crop=crop), colors[name])
            if islands is not None:
                draw_island(panels[0], islands, name, colors[name])
            size = len(members) if sizes is None else sizes.get(name, len(members))
            block = "" if blocks is None or name not in blocks else f", block {blocks[name]}"
            panels[0].set_title(f"{name}{block} (n = {size:,})", fontsize=7.5, pad=5)
        for ax in axes[len(names) :].flat:
            ax.set_axis_off()
    return figure


def draw_island(ax: Axes, islands: pd.DataFrame, cluster: Any, color: str) -> None:
    """Draw a t-SNE map in which one cluster has its colour, and all other neurons are grey.

    Parameters
    ----------
    ax
        The panel.
    islands
        ``x``, ``y`` and ``cluster``, a row per neuron.
    cluster, color
        The cluster, and its colour.
    """
    if missing := [name for name in ("x", "y", "cluster") if name not in islands]:
        raise SettingsError(f"the frame of islands has no column {missing[0]!r}; it has: {', '.join(islands)}.")
    own = (islands["cluster"] == cluster).to_numpy()
    points = islands[["x", "y"]].to_numpy(dtype=np.float64)
    draw_islands(ax, points, Grouping("", (str(cluster),), np.where(own, 0, -1), (color,)))


def page_of_images(
    images: npt.ArrayLike, *, per_row: int, n_rows: int | None = None, grey: float = 0.0, crop: int | None = None
) -> npt.NDArray[np.float64]:
    """Return images as one: each centred in a square, with its own range about grey, row by row.

    Parameters
    ----------
    images
        As for :func:`exciting_images_figure`.
    per_row, n_rows
        Number of squares in a row, and of rows (None: the same number); places without an image stay empty.
    grey
        The value of an empty pixel.
    crop
        Side of the squares in pixels; None: the shorter side of the images.

    Returns
    -------
    ndarray
        (height, width) float64, from -1 to 1, grey at 0; NaN between the squares.
    """
    shown = _checked_images(images)
    side = min(shown.shape[1:]) if crop is None else check_integer("crop", crop, minimum=2)
    gap = max(1, side // 12)
    rows = per_row if n_rows is None else n_rows
    page = np.full((rows * (side + gap) - gap, per_row * (side + gap) - gap), np.nan)
    for number, square in enumerate(_squares(shown, side, grey)):
        top, left = (place * (side + gap) for place in divmod(number, per_row))
        page[top : top + side, left : left + side] = square
    return page


def mei_confusion_figure(
    values: npt.ArrayLike,
    clusters: Sequence[Any] | npt.NDArray[Any],
    *,
    blocks: Mapping[Any, Any] | None = None,
    title: str = "Responses to each other's maximally exciting images",
) -> Figure:
    """Draw an MEI confusion matrix, neurons ordered by cluster.

    Parameters
    ----------
    values
        (M, M): row ``i``, column ``j`` is the response of neuron ``j`` to the image of neuron ``i``, relative to that
        to its own (:class:`~december_plugin.insilico.mei_confusion.MeiConfusion`).
    clusters
        Clusters of the neurons, (M,); those without a cluster (-1) are left out.
    blocks
        Block by cluster, as for :func:`exciting_images_figure`: clusters are sorted by it, and blocks outlined.
    title
        Title of the figure.

    Returns
    -------
    Figure
        The matrix, with the mean response within and between clusters below the title.

    Raises
    ------
    SettingsError
        If shapes do not match, or no neuron has a cluster.

    See Also
    --------
    exciting_images_figure : Draws the images.
    december_plugin.insilico.mei_confusion : Computes the matrix.
    december_plugin.results.mei_confusion : Returns that of a lab.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.plots import mei_confusion_figure
    >>> responses = np.array([[1.0, 0.8, 0.1], [0.7, 1.0, 0.2], [0.2, 0.1, 1.0]])
    >>> figure = mei_confusion_figure(responses, clusters=[0, 0, 1])
    >>> figure.axes[0].texts[-1].get_text()  # below the title
    '3 neurons; mean 0.75 within and 0.15 between clusters'
    """
    matrix, labels = np.asarray(values, dtype=np.float64), np.asarray(clusters)
    if matrix.ndim != 2 or matrix.shape != (len(labels), len(labels)) or labels.ndim != 1:
        raise SettingsError(
            f"the MEI confusion matrix has shape {matrix.shape} for {labels.size} neurons; (M, M) and one cluster for "
            "each neuron are expected."
        )
    names = _names(labels)
    if blocks is not None:
        names.sort(key=lambda name: natural_order(blocks.get(name, "")))
    order = np.concatenate([np.flatnonzero(labels == name) for name in names])
    sizes = np.array([int((labels == name).sum()) for name in names])
    with figure_style():
        figure = figure_page(_SIDE + 0.6, width=_SIDE + 1.4)
        ax = figure.add_subplot()
        _draw_matrix(ax, matrix[np.ix_(order, order)], names, sizes)
        _outline_blocks(ax, [None if blocks is None else blocks.get(name) for name in names], sizes)
        within = np.repeat(np.arange(len(names)), sizes)
        same = within[:, None] == within
        np.fill_diagonal(same, False)
        others = within[:, None] != within
        ordered = matrix[np.ix_(order, order)]
        means = [
            f"{ordered[mask].mean():.2f} {word}" for mask, word in ((same, "within"), (others, "between")) if mask.any()
        ]
        title_panel(ax, "", title, f"{len(order):,} neurons; mean {' and '.join(means)} clusters" if means else None)
    return figure


def _draw_block(ax: Axes, page: npt.NDArray[np.float64], color: Any) -> None:
    ax.imshow(page, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.add_patch(
        Rectangle((0, 1.005), 1, 0.02, transform=ax.transAxes, facecolor=color, edgecolor="none", clip_on=False)
    )


def _squares(images: npt.NDArray[np.float64], side: int, grey: float) -> npt.NDArray[np.float64]:
    """Return the middles of images (n, height, width), each in the middle and between -1 and 1."""
    import torch

    from december_plugin.insilico.turning import moved, shifts_to_the_middle

    edge = side  # so that a field at the edge of its image is seen in the middle of its square
    padded = np.pad(images - grey, ((0, 0), (edge, edge), (edge, edge)))
    tensor = torch.from_numpy(padded)[:, None]
    middles = moved(tensor, shifts_to_the_middle(tensor))[:, 0].numpy()
    top, left = ((size - side) // 2 for size in middles.shape[1:])
    squares = middles[:, top : top + side, left : left + side]
    largest = np.abs(squares).max(axis=(1, 2), keepdims=True)
    return np.asarray(squares / np.where(largest > 0, largest, 1))


def _draw_matrix(ax: Axes, matrix: npt.NDArray[np.float64], names: list[Any], sizes: npt.NDArray[np.int64]) -> None:
    n = len(matrix)
    image = ax.imshow(matrix, cmap=SHARES, vmin=0, vmax=1, interpolation="nearest")
    edges = np.concatenate([[0], np.cumsum(sizes)]) - 0.5
    for edge in edges[1:-1]:
        ax.axhline(edge, color=INK, linewidth=0.4)
        ax.axvline(edge, color=INK, linewidth=0.4)
    middles = (edges[:-1] + edges[1:]) / 2
    step = -(-len(names) // _MOST_NAMED)
    labels = [str(name) for name in names[::step]]
    ax.set_xticks(middles[::step], labels, rotation=90 if len(labels) > 10 else 0)
    ax.set_yticks(middles[::step], labels)
    ax.tick_params(length=2, labelsize=6.5)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    ax.set_xlabel("cluster of the neuron that responds")
    ax.set_ylabel("cluster of the image's neuron")
    ax.spines[:].set(visible=True, linewidth=0.6)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.045, pad=0.03)
    bar.outline.set_linewidth(0.6)
    bar.set_label("response relative to that to the own image", fontsize=7.5)


def _outline_blocks(ax: Axes, blocks: list[Any], sizes: npt.NDArray[np.int64]) -> None:
    """Outline the neurons of each block, and name it on the right."""
    ends = np.cumsum(sizes)
    settings: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points", "va": "center"}
    for block in dict.fromkeys(name for name in blocks if name is not None):
        own = [at for at, name in enumerate(blocks) if name == block]
        first, length = ends[own[0]] - sizes[own[0]], sizes[own].sum()
        corner = (first - 0.5, first - 0.5)
        ax.add_patch(Rectangle(corner, length, length, fill=False, edgecolor=INK, linewidth=1.3, clip_on=False))
        ax.annotate(f"{block}", (1, first + length / 2 - 0.5), (3, 0), fontsize=6, color=NOTE, **settings)
    if any(name is not None for name in blocks):
        settings |= {"xycoords": "axes fraction", "va": "top"}
        ax.annotate("block", (1, 0), (3, -3), fontsize=6, color=NOTE, **settings)


def _names(labels: npt.NDArray[Any]) -> list[Any]:
    names = [name for name in sorted(np.unique(labels).tolist(), key=natural_order) if name != NO_CLUSTER]
    if not names:
        raise SettingsError("no neuron has a cluster, so nothing can be drawn.")
    return names


def _checked_images(images: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return images as (N, height, width)."""
    shown = np.asarray(images, dtype=np.float64)
    if shown.ndim == 5:
        contrast = shown.var(axis=(1, 3, 4))
        shown = shown[np.arange(len(shown)), :, contrast.argmax(axis=1)]
    if shown.ndim == 4:
        shown = shown.mean(axis=1)
    if shown.ndim != 3 or not len(shown) or not np.isfinite(shown).all():
        raise SettingsError(
            f"the images have shape {np.shape(images)}; (N, height, width) of finite values is expected, or with "
            "channels and frames after the first axis."
        )
    return shown
