"""Readout vectors of a rotation-equivariant model before and after their alignment.

After Figures 1, 2B and 4A of Ustyuzhaninov et al. 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from december_plugin.errors import SettingsError
from december_plugin.plots.groups import Grouping, as_groupings
from december_plugin.plots.panels import PAGE_WIDTH, extra_lines, figure_page, settled, title_panel, wrapped
from december_plugin.plots.style import INK, NOTE, figure_style
from december_plugin.validation.checks import check_integer

WEIGHTS = "RdBu_r"
MOST_NEURONS = 400  # rows that remain distinguishable, over all groups
_HEIGHT = 3.3
_EXAMPLE_GROUPS, _EXAMPLES = 4, 4
_STRONGEST = 0.995  # quantile of the absolute weights at which colours end


def aligned_readouts_figure(
    readouts: npt.ArrayLike,
    angles: npt.ArrayLike,
    groups: Sequence[Any] | npt.NDArray[Any],
    *,
    n_orientations: int,
    title: str = "Readout vectors",
    group: str = "cluster",
    seed: int = 0,
) -> Figure:
    """Draw readout vectors as they are, and shifted by the angles of their alignment.

    Vectors have length 1, as in the alignment. Within a group neurons are sorted by angle: if the neurons of a group
    differ only in orientation, their weights run along diagonals before the alignment and form vertical stripes after
    it.

    Parameters
    ----------
    readouts
        (N, O * F), orientation-major.
    angles
        Angles by which the vectors are shifted, in radians, (N,): ``angles_`` of
        :class:`~december_plugin.rotation.RotationAlignment`.
    groups
        Clusters or types (N,); None, "", -1 and NaN mean no label: these neurons are left out.
    n_orientations
        Number of orientations O.
    title
        Title of the figure.
    group
        What the groups are: "cluster", or "type".
    seed
        Seed of the choice of neurons if there are more than 400; every group keeps its share.

    Returns
    -------
    Figure
        Above, all vectors: a row per neuron, sorted by group and angle, and a column per feature, with its orientations
        side by side. Below, vectors of some neurons of the four largest groups: rows are features, columns
        orientations.

    Raises
    ------
    SettingsError, EmbeddingError, MisfitError
        If vectors, angles and groups differ in length, no neuron has a group, or the number of entries is not a
        multiple of the number of orientations.

    See Also
    --------
    december_plugin.plots.alignments_figure : Draws the diagnostics of alignments.
    december_plugin.plots.cluster_centres_figure : Draws aligned vectors in the plane.
    december_plugin.rotation.RotationAlignment : Finds the angles.

    Examples
    --------
    >>> from december_plugin.plots import aligned_readouts_figure, save_figure
    >>> from december_plugin.rotation import RotationAlignment
    >>> from december_plugin.rotation.simulation import simulated_readouts
    >>> simulated = simulated_readouts(60, n_types=3, n_features=4, seed=1)
    >>> angles = RotationAlignment(8, n_restarts=1, random_state=0).fit(simulated.readouts).angles_
    >>> figure = aligned_readouts_figure(simulated.readouts, angles, simulated.types, n_orientations=8)
    >>> [ax.get_title(loc="left") for ax in figure.axes[:2]]
    ['A  Readout vectors', 'aligned']
    >>> [path.name for path in save_figure(figure, ".", "aligned", formats=["png"])]
    ['aligned.png']
    """
    from december_plugin.rotation.shifts import checked_readouts, shifted

    raw = checked_readouts(readouts, check_integer("n_orientations", n_orientations, minimum=1))
    raw = raw / np.maximum(np.linalg.norm(raw, axis=(1, 2), keepdims=True), np.finfo(np.float64).tiny)
    turned = shifted(raw.reshape(len(raw), -1), angles, n_orientations).reshape(raw.shape)
    (grouping,) = as_groupings({"group": groups}, len(raw))
    if not grouping.names:
        raise SettingsError("no neuron has a group, so nothing can be drawn.")
    turns = np.mod(np.asarray(angles, dtype=np.float64), 2 * np.pi)
    rows = _drawn(grouping, turns, seed)
    limit = float(np.quantile(np.abs(raw), _STRONGEST)) or 1.0
    heading = wrapped(title, PAGE_WIDTH / 2 - 0.6)
    chosen = np.argsort(-grouping.counts, kind="stable")[:_EXAMPLE_GROUPS]
    with figure_style():
        example_height = _example_height(raw.shape[1], raw.shape[2])
        figure = figure_page(_HEIGHT + example_height + 0.7 + extra_lines(heading))
        heights = (_HEIGHT + 0.2, example_height + 0.5)
        (above, below) = figure.subfigures(2, 1, height_ratios=heights, hspace=0.02, squeeze=False)[:, 0]
        left, right = above.subplots(1, 2, sharey=True)
        for ax, vectors in ((left, raw), (right, turned)):
            image = _draw_all(ax, vectors[rows], limit, grouping.codes[rows])
        _name_groups(left, grouping, grouping.codes[rows], group)
        bar = above.colorbar(image, ax=[left, right], fraction=0.02, pad=0.01, aspect=30)
        bar.outline.set_linewidth(0.6)
        bar.set_label("weight (vectors of length 1)", fontsize=7.5)
        of = f" of {len(raw):,}" if len(rows) < len(raw) else ""
        title_panel(left, "A", heading, f"as they are; {len(rows):,}{of} neurons by {group} and angle")
        title_panel(right, "", "aligned", "shifted by their angles")
        _draw_examples(below, raw, turned, grouping, chosen, turns, limit, group)
    return settled(figure)


def _drawn(grouping: Grouping, turns: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.int64]:
    """Return the neurons to draw, sorted by group and angle."""
    labelled = np.flatnonzero(grouping.codes >= 0)
    if len(labelled) > MOST_NEURONS:
        labelled = np.random.default_rng(seed).choice(labelled, MOST_NEURONS, replace=False)
    return labelled[np.lexsort((turns[labelled], grouping.codes[labelled]))]


def _by_feature(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return vectors (n, O, F) as (n, F * O)."""
    return vectors.transpose(0, 2, 1).reshape(len(vectors), -1)


def _draw_all(ax: Axes, vectors: npt.NDArray[np.float64], limit: float, codes: npt.NDArray[np.int64]) -> Any:
    n_orientations, n_features = vectors.shape[1:]
    image = ax.imshow(
        _by_feature(vectors), cmap=WEIGHTS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
    )
    for edge in np.flatnonzero(np.diff(codes)) + 0.5:
        ax.axhline(edge, color=INK, linewidth=0.6)
    for feature in range(1, n_features):
        ax.axvline(feature * n_orientations - 0.5, color="#BBBBBB", linewidth=0.4)
    step = -(-n_features // 16)
    middles = (np.arange(n_features) + 0.5) * n_orientations - 0.5
    ax.set_xticks(middles[::step], [f"{feature}" for feature in range(n_features)][::step])
    ax.tick_params(length=0)
    ax.set_xlabel(f"feature ({n_orientations} orientations each)")
    ax.spines[:].set(visible=True, linewidth=0.6)
    return image


def _name_groups(ax: Axes, grouping: Grouping, codes: npt.NDArray[np.int64], group: str) -> None:
    """Write the groups' names next to their rows, where there is room."""
    ticks: list[float] = []
    names: list[str] = []
    room = 0.045 * len(codes)
    for code, name in enumerate(grouping.names):
        at = np.flatnonzero(codes == code)
        if len(at) and (not ticks or at.mean() - ticks[-1] >= room):
            ticks.append(float(at.mean()))
            names.append(name)
    ax.set_yticks(ticks, names)
    ax.set_ylabel(group)


def _example_height(n_orientations: int, n_features: int) -> float:
    """Return the height of two rows of matrices F x O whose width is given, in inches."""
    width = (PAGE_WIDTH - 0.6) / (_EXAMPLE_GROUPS * _EXAMPLES) - 0.06
    return 2 * float(np.clip(width * n_features / n_orientations, 0.35, 1.2))


def _draw_examples(
    figure: Any,
    raw: npt.NDArray[np.float64],
    turned: npt.NDArray[np.float64],
    grouping: Grouping,
    chosen: npt.NDArray[np.int64],
    turns: npt.NDArray[np.float64],
    limit: float,
    group: str,
) -> None:
    """Draw some neurons of some groups, their angles far apart: as they are above, aligned below."""
    n_orientations, n_features = raw.shape[1:]
    axes = figure.subplots(2, len(chosen), squeeze=False)
    gap = max(1, n_orientations // 3)
    for number, code in enumerate(chosen):
        members = np.flatnonzero(grouping.codes == code)
        members = members[np.argsort(turns[members], kind="stable")]
        members = members[np.unique(np.linspace(0, len(members) - 1, _EXAMPLES).round().astype(int))]
        lefts = np.arange(len(members)) * (n_orientations + gap)
        for ax, vectors in zip(axes[:, number], (raw, turned), strict=True):
            page = np.full((n_features, _EXAMPLES * (n_orientations + gap) - gap), np.nan)
            for left, neuron in zip(lefts, members, strict=True):
                page[:, left : left + n_orientations] = vectors[neuron].T
                corner = (left - 0.5, -0.5)
                ax.add_patch(Rectangle(corner, n_orientations, n_features, fill=False, edgecolor=INK, linewidth=0.5))
            ax.imshow(page, cmap=WEIGHTS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        names = [f"{np.rad2deg(turn):.0f}°" for turn in turns[members]]
        axes[1, number].set_xticks(lefts + (n_orientations - 1) / 2, names, fontsize=6.5, color=NOTE)
        axes[1, number].tick_params(length=0, pad=2)
        name = f"{group} {grouping.names[code]}"
        axes[0, number].set_title(f"B  {name}" if number == 0 else name, fontsize=8.5, pad=4)
    axes[0, 0].set_ylabel("as it is", fontsize=7)
    axes[1, 0].set_ylabel("aligned", fontsize=7)
