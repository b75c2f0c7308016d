"""t-SNE pictures of readout vectors, one panel per grouping."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from december_plugin.errors import SettingsError
from december_plugin.evaluation.tsne import checked_vectors, tsne_coordinates
from december_plugin.plots.groups import Grouping, as_groupings
from december_plugin.plots.panels import PAGE_WIDTH, TITLE_LINE, add_legend, letters, settled, wrapped
from december_plugin.plots.style import INK, PALE, figure_style

MAX_LEGEND_GROUPS = 12
_MAX_COLUMNS = 3
_LEGEND_ROW = 0.14
_TITLE_CHARACTERS = 12.0  # per inch
_MAX_VECTOR_POINTS = 3000


def embedding_figure(
    vectors: npt.ArrayLike,
    groupings: Mapping[str, Any],
    *,
    seed: int = 0,
    sessions: Any = None,
    max_neurons_per_session: int = 2000,
    coordinates: npt.ArrayLike | None = None,
    reference: str | None = None,
    what: str = "readout vectors",
) -> Figure:
    """Draw the t-SNE embedding of readout vectors, or of other vectors of the neurons, coloured by several groupings.

    All panels show the same neurons at the same coordinates; groups of different panels that share most of their
    neurons have the same colour. Up to 12 groups are named in a legend; if there are more, names are written onto the
    points, those of the largest groups first, as far as there is room. Neurons without a label are light grey, below
    the others.

    Parameters
    ----------
    vectors
        Readout vectors, or other vectors of the neurons, shape (N, D).
    groupings
        Labels (N,) by the title of their panel, e.g. ``{"planted type": types}``; None, "", -1 and NaN mean no label.
    seed
        Seed of the choice of neurons, of t-SNE, and of the order in which points are drawn.
    sessions, max_neurons_per_session
        See :func:`drawn_neurons`.
    coordinates
        Coordinates (N, 2) to use in place of t-SNE's, NaN for neurons to leave out; then no neurons are chosen at
        random.
    reference
        Title of the panel whose groups take the colours in their order; None: the panel that labels most neurons.
    what
        What the vectors are called.

    Returns
    -------
    Figure
        One panel per grouping, at most three side by side; four are two by two.

    Raises
    ------
    SettingsError
        If vectors are not finite numbers (N, D), or labels, sessions or coordinates do not fit them.

    See Also
    --------
    december_plugin.plots.tsne_coordinates : Computes the coordinates.
    december_plugin.plots.embedding_panels_figure : Draws several models of the same neurons.
    december_plugin.plots.cluster_centres_figure : Marks the centres of clusters.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.plots import embedding_figure
    >>> rng = np.random.default_rng(0)
    >>> types = np.repeat(["ON", "OFF"], 30)
    >>> vectors = rng.normal(size=(60, 4)) + 6 * (types == "ON")[:, None]
    >>> figure = embedding_figure(vectors, {"known type": types})
    >>> figure.axes[0].get_title(loc="left"), figure.axes[0].get_title(loc="right")
    ('known type', '2 groups')
    >>> [name.get_text() for name in figure.axes[0].get_legend().get_texts()]
    ['OFF (30)', 'ON (30)']
    """
    vectors = checked_vectors(vectors)
    encoded = as_groupings(groupings, len(vectors), reference=reference)
    if coordinates is None:
        limit = max_neurons_per_session
        drawn = drawn_neurons(len(vectors), sessions=sessions, max_neurons_per_session=limit, seed=seed)
        points = tsne_coordinates(vectors[drawn], seed=seed)
    else:
        drawn, points = _given_coordinates(coordinates, len(vectors))
    order = np.random.default_rng(seed).permutation(len(drawn))
    drawn, points = drawn[order], points[order]
    with figure_style():
        return _draw(points, [(grouping, grouping.codes[drawn]) for grouping in encoded], len(vectors), what)


def drawn_neurons(
    n_neurons: int, *, sessions: Any = None, max_neurons_per_session: int = 2000, seed: int = 0
) -> np.ndarray:
    """Return which neurons are drawn: a limited number of each session, chosen without replacement.

    The choice from a session depends only on the seed, the session's name and its number of neurons, not on the other
    sessions: every picture of the same recordings shows the same neurons.

    Parameters
    ----------
    n_neurons
        Number of neurons N.
    sessions
        Session of each neuron, shape (N,), or None if all belong to one.
    max_neurons_per_session
        At least 1; 2,000 in the DECEMber paper.
    seed
        Seed of the choice.

    Returns
    -------
    ndarray
        Positions, increasing, int64.

    Raises
    ------
    SettingsError
        If there is not one session per neuron, or ``max_neurons_per_session`` is not an integer of at least 1.

    See Also
    --------
    embedding_figure : Draws these neurons.
    december_plugin.plots.tsne_frame : Embeds these neurons in several models.

    Examples
    --------
    >>> from december_plugin.plots import drawn_neurons
    >>> sessions = ["mouse 1"] * 5 + ["mouse 2"] * 2
    >>> [sessions[at] for at in drawn_neurons(7, sessions=sessions, max_neurons_per_session=3)]
    ['mouse 1', 'mouse 1', 'mouse 1', 'mouse 2', 'mouse 2']
    """
    limit = max_neurons_per_session
    if isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or limit < 1:
        raise SettingsError(f"max_neurons_per_session is {limit!r}; it must be an integer of at least 1.")
    names = [""] * n_neurons if sessions is None else [str(session) for session in sessions]
    if len(names) != n_neurons:
        raise SettingsError(
            f"sessions has {len(names)} entries for {n_neurons} readout vectors; it needs one for each."
        )
    members: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        members.setdefault(name, []).append(position)
    chosen = []
    for name, positions in members.items():
        generator = np.random.default_rng([int(seed), zlib.crc32(name.encode())])
        size = min(int(limit), len(positions))
        chosen.append(np.asarray(positions)[generator.choice(len(positions), size, replace=False)])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _given_coordinates(coordinates: npt.ArrayLike, n_neurons: int) -> tuple[np.ndarray, np.ndarray]:
    points = np.asarray(coordinates, dtype=np.float64)
    if points.shape != (n_neurons, 2):
        raise SettingsError(
            f"coordinates has shape {points.shape}; ({n_neurons}, 2) is needed, a row for each readout vector "
            "(NaN where it is not to be drawn)."
        )
    if np.isinf(points).any():
        raise SettingsError("coordinates holds infinite values; use NaN for a neuron that is not to be drawn.")
    drawn = np.flatnonzero(np.isfinite(points).all(axis=1))
    if len(drawn) == 0:
        raise SettingsError("coordinates holds only NaN, so no neuron can be drawn.")
    return drawn, points[drawn]


def _draw(points: np.ndarray, panels: list[tuple[Grouping, np.ndarray]], n_neurons: int, what: str) -> Figure:
    n_rows = -(-len(panels) // _MAX_COLUMNS)
    n_columns = -(-len(panels) // n_rows)
    side = min(3.3, PAGE_WIDTH / n_columns)
    titles = [
        _title(grouping.title, letter, side) for (grouping, _), letter in zip(panels, _letters(panels), strict=True)
    ]
    head = TITLE_LINE * (max(title.count("\n") for title in titles) + 1)
    legends = max(_legend_height(grouping, codes, side) for grouping, codes in panels)
    figure = Figure(figsize=(side * n_columns, (side + head + 0.16 + legends) * n_rows + 0.2), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.04)  # type: ignore[union-attr,call-arg]
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    center = (points.min(axis=0) + points.max(axis=0)) / 2
    # A square, so that all panels have the same scale in both directions.
    half = max(float(np.ptp(points, axis=0).max()) / 2 * 1.06, 1e-9)
    for ax, title, (grouping, codes) in zip(axes, titles, panels, strict=False):
        ax.set(xlim=(center[0] - half, center[0] + half), ylim=(center[1] - half, center[1] + half))
        _draw_panel(ax, points, grouping, codes, title=title, side=side)
    for ax in axes[len(panels) :]:
        ax.remove()
    of = f" of {n_neurons:,}" if len(points) < n_neurons else ""
    figure.supxlabel(f"t-SNE of {len(points):,}{of} {what}", fontsize=7.5, color="#777777")
    return settled(figure)


def _letters(panels: Sequence[Any]) -> list[str]:
    return letters(len(panels)) if len(panels) > 1 else [""]


def _title(title: str, letter: str, side: float) -> str:
    text = wrapped(title, side)
    return f"{letter}  {text}" if letter else text


def _draw_panel(
    ax: Axes, points: np.ndarray, grouping: Grouping, codes: np.ndarray, *, title: str, side: float
) -> None:
    size = float(np.clip(7000 / len(points), 2.0, 14.0))
    labelled = codes >= 0
    colors = np.array(grouping.colors)[codes[labelled]] if labelled.any() else None
    x, y = points.T
    missing = ax.scatter(x[~labelled], y[~labelled], s=0.7 * size, c=PALE, zorder=1)
    known = ax.scatter(x[labelled], y[labelled], s=size, c=colors, alpha=0.85, zorder=2)
    for collection in (missing, known):
        # Thousands of small paths make a vector graphic slow to open.
        collection.set(linewidths=0, rasterized=len(points) > _MAX_VECTOR_POINTS)
    n_groups = len(grouping.names)
    ax.set_title(title, pad=6, fontsize=8.5)
    if len(title) + 12 <= _TITLE_CHARACTERS * side:
        text = f"{n_groups} group{'s' if n_groups != 1 else ''}"
        ax.set_title(text, loc="right", fontsize=7.5, weight="normal", pad=6)
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set(visible=True, color="#BBBBBB", linewidth=0.6)
    if n_groups <= MAX_LEGEND_GROUPS:
        _add_legend(ax, grouping, codes, side)
    else:
        _write_names(ax, points, grouping, codes)


def _legend_entries(grouping: Grouping, codes: np.ndarray) -> list[tuple[str, str]]:
    """Return text and colour of each entry."""
    if len(grouping.names) > MAX_LEGEND_GROUPS:
        return []
    counts = np.bincount(codes[codes >= 0], minlength=len(grouping.names))
    texts = [f"{name} ({count})" for name, count in zip(grouping.names, counts, strict=True)]
    entries = list(zip(texts, grouping.colors, strict=True))
    n_missing = int((codes < 0).sum())
    return [*entries, (f"no label ({n_missing})", PALE)] if n_missing else entries


def _legend_shape(entries: list[tuple[str, str]], side: float) -> tuple[int, int]:
    """Return rows and columns that fit below a panel, as even as possible."""
    if not entries:
        return 0, 1
    # In characters: the width of the panel, and the marker and the gap next to each text.
    fitting = max(1, int(16 * side) // (max(len(text) for text, _ in entries) + 5))
    n_rows = -(-len(entries) // fitting)
    return n_rows, -(-len(entries) // n_rows)


def _legend_height(grouping: Grouping, codes: np.ndarray, side: float) -> float:
    return _LEGEND_ROW * _legend_shape(_legend_entries(grouping, codes), side)[0]


def _add_legend(ax: Axes, grouping: Grouping, codes: np.ndarray, side: float) -> None:
    entries = _legend_entries(grouping, codes)
    if not entries:
        return
    _, n_columns = _legend_shape(entries, side)
    # matplotlib fills a legend by columns; people read it by rows.
    entries = [entry for column in range(n_columns) for entry in entries[column::n_columns]]
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=5, markeredgewidth=0, color=color) for _, color in entries
    ]
    add_legend(
        ax,
        handles,
        [text for text, _ in entries],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=n_columns,
        fontsize=7,
        handletextpad=0.1,
        columnspacing=0.9,
        labelspacing=0.35,
    )


def _write_names(ax: Axes, points: np.ndarray, grouping: Grouping, codes: np.ndarray) -> None:
    """Write the groups' names onto them, larger groups first, where there is room."""
    left, right = ax.get_xlim()
    letter = 0.02 * (right - left)
    placed: list[tuple[float, float, float]] = []
    counts = np.bincount(codes[codes >= 0], minlength=len(grouping.names))
    for code in np.argsort(-counts, kind="stable"):
        if counts[code] == 0:
            continue
        x, y = densest_point(points[codes == code])
        width = letter * len(grouping.names[code])
        if any(abs(x - u) < (width + w) / 2 and abs(y - v) < 1.8 * letter for u, v, w in placed):
            continue
        placed.append((x, y, width))
        text = ax.text(
            x, y, grouping.names[code], fontsize=6.5, weight="bold", color=INK, ha="center", va="center", zorder=4
        )
        text.set_path_effects([withStroke(linewidth=2.0, foreground="white", alpha=0.85)])


def densest_point(members: np.ndarray) -> np.ndarray:
    """Return the one of the points (n, 2) whose median distance to the others (to the first 500) is smallest."""
    # A mean can be where the group has no point; the median distance ignores stray points.
    distances = np.linalg.norm(members[:, None] - members[None, :500], axis=2)
    return members[np.median(distances, axis=1).argmin()]
