"""Training curves: performance, clustering loss, and how many neurons left their first cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from december_plugin.errors import SettingsError
from december_plugin.evaluation.methods import Method
from december_plugin.plots.panels import decades, letters, panel_row, title_panel
from december_plugin.plots.style import INK, MethodStyle, check_text, figure_style, method_styles

COLUMNS = ("epoch", "phase", "validation_correlation", "clustering_loss", "changed_assignments")
# The clustering loss has a logarithmic axis if the largest is at least this many times the smallest.
_LOG_RATIO = 30.0


@dataclass(frozen=True)
class _Panel:
    column: str
    title: str
    ylabel: str
    clustering: bool


_PANELS = (
    _Panel("validation_correlation", "Predictive performance", "validation correlation", False),
    _Panel("clustering_loss", "Clustering loss", "KL divergence (sum over neurons)", True),
    _Panel("changed_assignments", "Left their k-means cluster", "share of neurons", True),
)
_Runs = Mapping[str, Sequence[Mapping[str, np.ndarray]]]


def training_curves_figure(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], methods: Mapping[str, Method] | None = None
) -> Figure:
    """Draw training curves, every seed as a thin line and their mean as a thick one.

    Side by side: the validation correlation and, if a training has a clustering loss, that loss (on a logarithmic axis
    if it spans a factor of 30) and the share of neurons that are no longer in the cluster where k-means put them, both
    from the start of the clustering, which a vertical line marks. The panel of the correlation leaves out the steep
    rise in the first half of the epochs before the clustering, and says from which epoch it begins. Thin lines are
    above thick ones so that a method stays visible where others have the same values. A mean ends with the shortest of
    its runs; otherwise, it would jump whenever a run stops.

    Parameters
    ----------
    curves
        Label to the ``curves`` of the trainer's output, one mapping per seed: equally long arrays ``epoch``, ``phase``
        (0 during the pretraining, 1 after), ``validation_correlation``, ``clustering_loss`` and
        ``changed_assignments`` (NaN where there is no clustering). Other arrays are ignored.
    methods
        Labels to the methods that they stand for; a label without one is just a name.

    Returns
    -------
    Figure
        One or three panels, and one legend.

    Raises
    ------
    SettingsError
        If there are no curves, one lacks an array, or its arrays differ in length.

    See Also
    --------
    december_plugin.plots.strength_figure : Draws what the strength of the clustering loss does.
    december_plugin.plots.pretraining_figure : Draws what learning rate and length of the pretraining do.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.plots import training_curves_figure
    >>> epoch = np.arange(1, 21)
    >>> begun = epoch > 10  # with the clustering loss
    >>> run = {"epoch": epoch, "phase": begun.astype(int), "validation_correlation": 0.4 - 0.3 / epoch}
    >>> run["clustering_loss"] = np.where(begun, 5.0 / epoch, np.nan)
    >>> run["changed_assignments"] = np.where(begun, 0.02 * (epoch - 10), np.nan)
    >>> figure = training_curves_figure({"DECEMber": [run]})
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['A  Predictive performance', 'B  Clustering loss', 'C  Left their k-means cluster']
    """
    runs = _checked(curves)
    styles = method_styles({label: (methods or {}).get(label, label) for label in runs})
    starts = sorted({start for many in runs.values() for run in many if (start := _clustering_start(run)) is not None})
    panels = [panel for panel in _PANELS if starts or not panel.clustering]
    with figure_style():
        handles = [_handle(label, style) for label, style in styles.items()]
        figure, axes = panel_row(len(panels), handles, handle_length=2.6)
        for ax, panel, letter in zip(axes, panels, letters(len(panels)), strict=True):
            for label, many in runs.items():
                _draw_runs(ax, [(run["epoch"], run[panel.column]) for run in many], label, styles[label])
            first = _finish_panel(ax, panel, runs, starts)
            note = "thin: seeds, thick: mean" if max(map(len, runs.values())) > 1 else "one seed of each"
            begins = f"; from epoch {first:g} on" if first > 1 and not panel.clustering else ""
            title_panel(ax, letter if len(panels) > 1 else "", panel.title, note + begins)
    return figure


def _checked(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[dict[str, np.ndarray]]]:
    if not isinstance(curves, Mapping) or not curves:
        raise SettingsError(
            "there are no training curves to draw; a mapping of labels to curves, one per seed, is needed."
        )
    runs: dict[str, list[dict[str, np.ndarray]]] = {}
    for label, many in curves.items():
        check_text(label, "a label of the training curves")
        if isinstance(many, (Mapping, str)) or not isinstance(many, Sequence):
            raise SettingsError(
                f"the curves of {label!r} are {type(many).__name__}; a list with one mapping per seed is needed."
            )
        if not many:
            raise SettingsError(f"there are no curves for {label!r}; one mapping per seed is needed.")
        runs[label] = [_checked_run(run, f"{label!r}, run {number}") for number, run in enumerate(many, start=1)]
    return runs


def _checked_run(run: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    missing = [name for name in COLUMNS if name not in run]
    if missing:
        raise SettingsError(f"the curves of {where} have no {missing[0]!r}. Needed: {', '.join(COLUMNS)}.")
    try:
        arrays = {name: np.asarray(run[name], dtype=np.float64) for name in COLUMNS}
    except (TypeError, ValueError):
        raise SettingsError(f"the curves of {where} hold values that are not numbers.") from None
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1 or next(iter(shapes)) == (0,):
        sizes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise SettingsError(f"the curves of {where} must be equally long, with at least one epoch; they have {sizes}.")
    return arrays


def _clustering_start(run: Mapping[str, np.ndarray]) -> float | None:
    """Return the last epoch without clustering loss, or None if there is none with it."""
    clustered = run["epoch"][(run["phase"] > 0) & np.isfinite(run["clustering_loss"])]
    return float(clustered.min()) - 1 if len(clustered) else None


def _draw_runs(ax: Axes, runs: list[tuple[np.ndarray, np.ndarray]], label: str, style: MethodStyle) -> None:
    runs = [(epochs, values) for epochs, values in runs if np.isfinite(values).any()]
    settings: dict[str, Any] = {"color": style.color, "linestyle": style.linestyle}
    for epochs, values in runs if len(runs) > 1 else []:
        ax.plot(epochs, values, linewidth=0.7, alpha=0.45, zorder=style.zorder - 1, label=f"_{label}", **settings)
    if runs:
        epochs = runs[0][0]
        for other, _ in runs[1:]:
            epochs = np.intersect1d(epochs, other)
        mean = np.mean([values[np.searchsorted(at, epochs)] for at, values in runs], axis=0)
        # Where two methods have the same values, the thinner line is seen on the thicker one.
        zorder = 6.0 - 0.5 * style.linewidth
        ax.plot(epochs, mean, linewidth=style.linewidth, zorder=zorder, label=label, **settings)


def _finish_panel(ax: Axes, panel: _Panel, runs: _Runs, starts: list[float]) -> float:
    """Set the axes; return the first epoch that is shown."""
    ax.set_xlabel("epoch")
    ax.set_ylabel(panel.ylabel)
    every = [run for many in runs.values() for run in many]
    last = max(run["epoch"].max() for run in every)
    # The steep beginning would squeeze everything that comes after it.
    settled = math.ceil((starts[0] if starts else last) / 2)
    begin = min(run["epoch"].min() for run in every)
    first = starts[0] if panel.clustering else max(begin, settled)
    margin = 0.03 * (last - first) or 0.5
    ax.set_xlim(first - margin, last + margin)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    values = np.concatenate([run[panel.column][run["epoch"] >= first] for run in every])
    _set_value_axis(ax, panel, values[np.isfinite(values)])
    for start in starts:
        ax.axvline(start, color=INK, linewidth=0.8, linestyle=":", zorder=1, label="_clustering begins")
    if starts and not panel.clustering:
        _name_start(ax, starts[0])
    return float(first)


def _set_value_axis(ax: Axes, panel: _Panel, values: np.ndarray) -> None:
    if panel.column == "clustering_loss":
        positive = values[values > 0]
        if len(positive) and positive.max() >= _LOG_RATIO * positive.min():
            ax.set_yscale("log", nonpositive="mask")
            decades(ax, "y")
        else:
            ax.set_ylim(bottom=min(0.0, values.min(initial=0.0)))
    elif panel.column == "validation_correlation" and len(values):
        margin = 0.06 * float(np.ptp(values)) or 0.01
        ax.set_ylim(values.min() - 2 * margin, values.max() + margin)
    elif panel.column == "changed_assignments":
        ax.set_ylim(0, 1.05 * max(values.max(initial=0.0), 0.02))
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def _name_start(ax: Axes, start: float) -> None:
    """Name the line at its foot, to its right if there is room: to its left, the performance is still rising."""
    left, right = ax.get_xlim()
    on_left = right - start < 0.33 * (right - left)
    ax.annotate(
        "clustering begins",
        (start, 0),
        (-4 if on_left else 4, 6),
        xycoords=ax.get_xaxis_transform(),
        textcoords="offset points",
        ha="right" if on_left else "left",
        fontsize=7,
    )


def _handle(label: str, style: MethodStyle) -> Line2D:
    settings = style.line_settings() | {"marker": "none", "label": label}
    return Line2D([], [], **settings)
