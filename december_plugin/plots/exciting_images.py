"""What neurons of clusters prefer: their maximally exciting images, and how they like each other's.

After Figures 6 and 7 of Ustyuzhaninov et al. 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import SettingsError
from december_plugin.plots.confusion import SHARES
from december_plugin.plots.panels import PAGE_WIDTH, figure_page, title_panel
from december_plugin.plots.style import INK, figure_style, group_colors, natural_order
from december_plugin.validation.checks import check_integer

N_BEST = 16  # as in the paper
_BLOCKS_IN_A_ROW = 5
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
    title: str = "Maximally exciting images",
) -> Figure:
    """Draw the maximally exciting images of the best-predicted neurons of each cluster.

    Each image is put into the middle, as receptive fields lie anywhere, cut to a square, and drawn with a range of its
    own about grey.

    Parameters
    ----------
    images
        (N, height, width), or (N, channels, height, width), of whose channels the mean is drawn; of clips, the frame
        with the most contrast, (N, channels, frames, height, width).
    clusters
        Of the neurons, (N,); those without a cluster (-1) are left out.
    test_correlations
        Of the neurons, (N,): the best come first; those without one (NaN) come last. None: in the order given.
    n_best
        At most how many of a cluster.
    grey
        The value of an empty pixel.
    crop
        Side of the squares in pixels; None: the shorter side of the images.
    title
        Of the figure.

    Returns
    -------
    Figure
        A block of images for each cluster, in the order of their names.

    Raises
    ------
    SettingsError
        If the numbers do not fit, or no neuron has a cluster.
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
    side = min(shown.shape[1:]) if crop is None else check_integer("crop", crop, minimum=2)
    per_row = math.ceil(math.sqrt(n_best))
    n_columns = min(_BLOCKS_IN_A_ROW, len(names))
    n_rows = -(-len(names) // n_columns)
    width = PAGE_WIDTH * n_columns / _BLOCKS_IN_A_ROW
    block = (width - 0.1) / n_columns - 0.12
    with figure_style():
        figure = figure_page(n_rows * (block + _BLOCK_TITLE) + 0.4, width=max(width, 2.4))
        axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        figure.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold")
        for ax, name, color in zip(axes, names, group_colors(len(names)), strict=False):
            members = np.flatnonzero(labels == name)
            order = members[np.argsort(-np.nan_to_num(scores[members], nan=-np.inf), kind="stable")][:n_best]
            _draw_block(ax, _squares(shown[order], side, grey), per_row, color)
            ax.set_title(f"{name} (n = {len(members):,})", fontsize=7.5, pad=5)
        for ax in axes[len(names) :]:
            ax.set_axis_off()
    return figure


def mei_confusion_figure(
    values: npt.ArrayLike,
    clusters: Sequence[Any] | npt.NDArray[Any],
    *,
    title: str = "Responses to each other's maximally exciting images",
) -> Figure:
    """Draw an MEI confusion matrix, neurons ordered by cluster.

    Parameters
    ----------
    values
        (M, M): row ``i``, column ``j`` is the response of neuron ``j`` to the image of neuron ``i``, relative to that
        to its own (:class:`~december_plugin.insilico.mei_confusion.MeiConfusion`).
    clusters
        Of the neurons, (M,); those without a cluster (-1) are left out.
    title
        Of the figure.

    Raises
    ------
    SettingsError
        If the numbers do not fit, or no neuron has a cluster.
    """
    matrix, labels = np.asarray(values, dtype=np.float64), np.asarray(clusters)
    if matrix.ndim != 2 or matrix.shape != (len(labels), len(labels)) or labels.ndim != 1:
        raise SettingsError(
            f"the MEI confusion matrix is {matrix.shape} for {labels.size} neurons; (M, M) and one cluster for each "
            "neuron are expected."
        )
    names = _names(labels)
    order = np.concatenate([np.flatnonzero(labels == name) for name in names])
    sizes = np.array([int((labels == name).sum()) for name in names])
    with figure_style():
        figure = figure_page(_SIDE + 0.6, width=_SIDE + 1.4)
        ax = figure.add_subplot()
        _draw_matrix(ax, matrix[np.ix_(order, order)], names, sizes)
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


def _draw_block(ax: Axes, squares: npt.NDArray[np.float64], per_row: int, color: Any) -> None:
    """Draw squares (n, side, side), each of a range from -1 to 1, row by row."""
    n_rows, side = per_row, squares.shape[1]
    gap = max(1, side // 12)
    page = np.full((n_rows * (side + gap) - gap, per_row * (side + gap) - gap), np.nan)
    for number, square in enumerate(squares):
        top, left = (place * (side + gap) for place in divmod(number, per_row))
        page[top : top + side, left : left + side] = square
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


def _names(labels: npt.NDArray[Any]) -> list[Any]:
    names = [name for name in sorted(np.unique(labels).tolist(), key=natural_order) if name != NO_CLUSTER]
    if not names:
        raise SettingsError("no neuron has a cluster; there is nothing to draw.")
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
            f"the images are {np.shape(images)}; (N, height, width) of finite values is expected, or with channels and "
            "frames after the first axis."
        )
    return shown
