"""Which clusters respond alike: their correlations in the order of a tree, and the blocks that it is cut into.

After Figures 7 (left), C1 and C2 of Ustyuzhaninov et al. 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from december_plugin.errors import SettingsError
from december_plugin.evaluation.cluster_functions import ClusterBlocks, cluster_blocks
from december_plugin.evaluation.cluster_functions_settings import THRESHOLD
from december_plugin.plots.confusion import SHARES
from december_plugin.plots.panels import PAGE_WIDTH, extra_lines, figure_page, letters, settled, title_panel, wrapped
from december_plugin.plots.style import INK, NOTE, figure_style
from december_plugin.text.formatting import numbered
from december_plugin.validation.checks import check_integer

# The orange red of Okabe and Ito, far from the blues of the matrices.
OUTLINE = "#D55E00"
_MOST_NAMED = 50
_LEAST_SIDE, _MOST_SIDE, _CELL = 2.0, 4.2, 0.2
_TREE_WIDTH = 1.5
_CHANGES = 3


def cluster_confusion_figure(
    correlations: npt.ArrayLike,
    *,
    threshold: float = THRESHOLD,
    names: Sequence[Any] | None = None,
    title: str = "Which clusters respond alike",
) -> Figure:
    """Draw how similarly clusters respond, in the order of their tree, and the blocks that a threshold makes.

    Parameters
    ----------
    correlations
        Between the responses of cluster means, (K, K), of
        :func:`~december_plugin.evaluation.cluster_functions.response_confusion` or ``covariance_confusion``.
    threshold
        Mean correlation down to which blocks are merged, -1 to 1.
    names
        Names of the clusters, (K,); None: numbers from 0.
    title
        Title of the figure.

    Returns
    -------
    Figure
        The tree of the merges with the threshold, and the matrix, every block of more than one cluster outlined.

    Raises
    ------
    SettingsError, MisfitError
        As for :func:`~december_plugin.evaluation.cluster_functions.cluster_blocks`, or if names and clusters differ in
        number.

    See Also
    --------
    block_changes_figure : Draws what another threshold would change.
    december_plugin.evaluation.cluster_functions.cluster_blocks : Finds the blocks.
    december_plugin.results.cluster_confusion : Returns the correlations of a lab.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.plots import cluster_confusion_figure
    >>> correlations = np.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 1.0]])
    >>> figure = cluster_confusion_figure(correlations, threshold=0.5)  # clusters 0 and 1 are one block
    >>> figure.axes[1].texts[-1].get_text()  # below the title
    '3 clusters in 2 blocks at a correlation of 0.5'
    """
    blocks, matrix = _ordered(correlations, threshold)
    shown = _names(names, len(matrix))
    side = float(np.clip(_CELL * len(matrix), _LEAST_SIDE, _MOST_SIDE))
    width = side + _TREE_WIDTH + 1.4
    title = wrapped(title, width - _TREE_WIDTH - 0.3)
    with figure_style():
        figure = figure_page(side + 0.9 + extra_lines(title), width=width)
        tree, ax = figure.subplots(1, 2, width_ratios=(_TREE_WIDTH, side + 0.4))
        image = _draw_matrix(ax, matrix)
        _name_clusters(ax, [shown[at] for at in blocks.order])
        for first, last in _spans(blocks.labels[blocks.order]):
            _outline(ax, first, last)
        bar = figure.colorbar(image, ax=ax, fraction=0.045, pad=0.02)
        bar.outline.set_linewidth(0.6)
        bar.set_label("correlation of responses", fontsize=7.5)
        _name_blocks(ax, blocks)
        _draw_tree(tree, blocks)
        title_panel(tree, "", "A  Tree")
        found = f"{numbered(len(matrix), 'cluster')} in {numbered(blocks.n_blocks, 'block')}"
        title_panel(ax, "B", title, f"{found} at a correlation of {threshold:g}")
        settled(figure)
    return figure


def block_changes_figure(
    correlations: npt.ArrayLike,
    *,
    threshold: float = THRESHOLD,
    names: Sequence[Any] | None = None,
    n: int = _CHANGES,
) -> Figure:
    """Draw what another threshold would change: the next merges below it, and the last merges above it, undone.

    Parameters
    ----------
    correlations, threshold, names
        As for :func:`cluster_confusion_figure`.
    n
        Largest number of merges, and of splits.

    Returns
    -------
    Figure
        A row of matrices in which two more blocks are merged from panel to panel, and a row in which one more block is
        split; an empty row is left out. The blocks that change are orange, and the title has their mean correlation.

    Raises
    ------
    SettingsError, MisfitError
        As for :func:`cluster_confusion_figure`, or if there is only one cluster.

    See Also
    --------
    cluster_confusion_figure : Draws the blocks at the threshold.
    december_plugin.evaluation.cluster_functions.cluster_blocks : Finds the blocks.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.plots import block_changes_figure
    >>> correlations = np.array([[1.0, 0.9, 0.4], [0.9, 1.0, 0.3], [0.4, 0.3, 1.0]])
    >>> figure = block_changes_figure(correlations, threshold=0.5)
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['A  merged at 0.35: 1 block', 'B  split at 0.90: 3 blocks']
    """
    check_integer("n", n, minimum=1)
    blocks, matrix = _ordered(correlations, threshold)
    shown = _names(names, len(matrix))
    rows = [(True, blocks.next_merges(n)), (False, blocks.last_splits(n))]
    rows = [(is_merge, changes) for is_merge, changes in rows if len(changes)]
    if not rows:
        raise SettingsError("there is only one cluster; merges and splits need at least two.")
    place = {int(cluster): at for at, cluster in enumerate(blocks.order)}
    panel = PAGE_WIDTH / max(_CHANGES, n)
    with figure_style():
        figure = figure_page(len(rows) * (panel + 0.3))
        grid = figure.subplots(len(rows), max(_CHANGES, n), squeeze=False)
        for axes, letter, (is_merge, changes) in zip(grid, letters(len(rows)), rows, strict=True):
            for ax, change in zip(axes, changes.itertuples(index=False), strict=False):
                _draw_matrix(ax, matrix)
                # A split leaves one block more than its merge did.
                for first, last in _spans(_cut(blocks, change.n_blocks + (0 if is_merge else 1))):
                    _outline(ax, first, last)
                spans = [(place[part[0]], place[part[-1]]) for part in (change.first, change.second)]
                if is_merge:
                    spans = [(min(spans)[0], max(spans)[1])]
                for first, last in spans:
                    _outline(ax, first, last, OUTLINE)
                ax.set(xticks=[], yticks=[])
                joint = " + " if is_merge else " | "
                which = joint.join(_listed([shown[at] for at in part]) for part in (change.first, change.second))
                left = change.n_blocks + (0 if is_merge else 1)
                title = f"{'merged' if is_merge else 'split'} at {change.correlation:.2f}: {numbered(left, 'block')}"
                title_panel(ax, "", f"{letter}  {title}" if ax is axes[0] else title, which)
            for ax in axes[len(changes) :]:
                ax.remove()
        settled(figure)
    return figure


def _ordered(correlations: npt.ArrayLike, threshold: float) -> tuple[ClusterBlocks, npt.NDArray[np.float64]]:
    blocks = cluster_blocks(correlations, threshold=threshold)
    matrix = np.asarray(correlations, dtype=np.float64)
    return blocks, matrix[np.ix_(blocks.order, blocks.order)]


def _names(names: Sequence[Any] | None, n: int) -> list[str]:
    if names is None:
        return [str(number) for number in range(n)]
    if len(names) != n:
        raise SettingsError(f"names has {len(names)} entries for {n} clusters; there must be one for each.")
    return [str(name) for name in names]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} and {len(names) - 2} more"


def _cut(blocks: ClusterBlocks, n_blocks: int) -> npt.NDArray[np.int64]:
    """Return the blocks of the clusters, in their order, after the merges that leave ``n_blocks`` of them."""
    block = np.arange(len(blocks.order))
    for merge in blocks.merges[blocks.merges["n_blocks"] >= n_blocks].itertuples(index=False):
        block[[*merge.first, *merge.second]] = block[merge.first[0]]
    return np.asarray(block[blocks.order])


def _spans(ordered: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return first and last place of every block of more than one cluster."""
    edges = np.flatnonzero(np.diff(ordered)) + 1
    parts = np.split(np.arange(len(ordered)), edges)
    return [(int(part[0]), int(part[-1])) for part in parts if len(part) > 1]


def _outline(ax: Axes, first: int, last: int, color: str = INK) -> None:
    length = last - first + 1
    is_plain = color == INK
    ax.add_patch(
        Rectangle(
            *((first - 0.5, first - 0.5), length, length),
            fill=False,
            edgecolor=color,
            linewidth=1.0 if is_plain else 1.8,
            zorder=3 if is_plain else 4,
            clip_on=False,
        )
    )


def _draw_matrix(ax: Axes, matrix: npt.NDArray[np.float64]) -> AxesImage:
    n = len(matrix)
    image = ax.imshow(matrix, cmap=SHARES, vmin=0, vmax=1, interpolation="nearest")
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    ax.spines[:].set(visible=True, linewidth=0.6)
    return image


def _name_clusters(ax: Axes, names: Sequence[str]) -> None:
    step = -(-len(names) // _MOST_NAMED)
    size = 7 if len(names) <= 25 else 5
    ax.set_xticks(range(0, len(names), step), names[::step], rotation=90)
    ax.set_yticks(range(0, len(names), step), names[::step])
    ax.tick_params(length=2, labelsize=size, pad=2)
    ax.set_xlabel("cluster")


def _name_blocks(ax: Axes, blocks: ClusterBlocks) -> None:
    """Write the numbers of the blocks to the right of the matrix."""
    ordered = blocks.labels[blocks.order]
    # Of many blocks of one cluster each, the numbers would cover each other.
    step = -(-blocks.n_blocks // _MOST_NAMED)
    settings: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points", "va": "center"}
    for block in range(0, blocks.n_blocks, step):
        middle = float(np.flatnonzero(ordered == block).mean())
        ax.annotate(f"{block}", (1, middle), (3, 0), fontsize=6, color=NOTE, **settings)
    ax.annotate(
        "block", (1, 0), (3, -3), fontsize=6, color=NOTE, **(settings | {"xycoords": "axes fraction", "va": "top"})
    )


def _draw_tree(ax: Axes, blocks: ClusterBlocks) -> None:
    """Draw the merges, with the clusters on the right, in the rows of the matrix next to it."""
    place = {int(cluster): float(at) for at, cluster in enumerate(blocks.order)}
    at: dict[tuple[int, ...], tuple[float, float]] = {(cluster,): (1.0, row) for cluster, row in place.items()}
    above: list[list[tuple[float, float]]] = []
    below: list[list[tuple[float, float]]] = []
    for merge in blocks.merges.itertuples(index=False):
        (x_first, y_first), (x_second, y_second) = at[merge.first], at[merge.second]
        path = [(x_first, y_first), (merge.correlation, y_first), (merge.correlation, y_second), (x_second, y_second)]
        (above if merge.n_blocks >= blocks.n_blocks else below).append(path)
        joined = tuple(sorted((*merge.first, *merge.second), key=place.__getitem__))
        at[joined] = (merge.correlation, (y_first + y_second) / 2)
    ax.add_collection(LineCollection(below, colors="#9A9A9A", linewidths=0.8))
    ax.add_collection(LineCollection(above, colors=INK, linewidths=1.1))
    ax.axvline(blocks.threshold, color=OUTLINE, linewidth=1.0, linestyle="--")
    lowest = min([blocks.threshold, *(blocks.merges["correlation"] if len(blocks.merges) else [])])
    ax.set(xlim=(min(lowest, 0.0) - 0.04, 1.02), ylim=(len(blocks.order) - 0.5, -0.5), yticks=[])
    ax.set_xlabel("mean correlation")
    for side in ("left", "top", "right"):
        ax.spines[side].set_visible(False)
