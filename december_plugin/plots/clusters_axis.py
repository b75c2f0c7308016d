"""The axis of K, and means with their standard deviations on it, the same in all figures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from december_plugin.plots.style import INK, MethodStyle

# K has a logarithmic axis if the largest is at least this many times the smallest.
_LOG_RATIO = 8.0
# Distances of methods at one K, in points; the wider one for markers on a shared line.
_OFFSET_STEP, _WIDE_OFFSET_STEP, _SINGLE_OFFSET_STEP = 3.0, 5.0, 18.0
# Methods at one K take at most this share of the way to the next K, so that each is nearest to its own tick.
_SHARE = 0.5
# Points from the middle of a marker to the end of the axis.
_MARKER_ROOM = 6.0
_DIGIT_POINTS = 4.8


class ClustersAxis:
    """The axis of K, the same in all panels of a figure.

    Parameters
    ----------
    n_clusters
        All values of K.
    n_methods
        Number of methods, for which there must be room at each K.
    width
        Width of a panel, inches.
    """

    def __init__(self, n_clusters: npt.ArrayLike, n_methods: int, width: float):
        self.counts, self.n_methods = np.unique(n_clusters), n_methods
        # In points: four fifths of a panel, the rest are numbers and label of the other axis.
        self.length = 0.8 * 72 * width
        low, high = self.counts[0], self.counts[-1]
        self.logarithmic = bool(high / low >= _LOG_RATIO)
        positions = np.log(self.counts) if self.logarithmic else self.counts
        # Room for the methods that are moved to the sides.
        span = float(np.ptp(positions)) or 1.0
        moved = 0.5 * (n_methods - 1) * self._step(_WIDE_OFFSET_STEP, positions) + _MARKER_ROOM
        margin = span * moved / max(self.length - 2 * moved, 0.2 * self.length)
        limits = np.array([positions[0] - margin, positions[-1] + margin])
        self.limits = np.exp(limits) if self.logarithmic else limits
        #: Smallest distance between two values of K, as a fraction of the axis.
        self.gap = float(np.diff(positions).min() / np.ptp(limits)) if len(self.counts) > 1 else 1.0

    def prepare(self, ax: Axes) -> None:
        """Set scale, limits, ticks and label."""
        if self.logarithmic:
            ax.set_xscale("log")
        ax.set_xlim(*self.limits)
        ax.xaxis.set_major_locator(FixedLocator(self.ticks))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set_xlabel("number of clusters K")

    @property
    def ticks(self) -> list[float]:
        """The values of K whose numbers fit on the axis."""
        scale = np.log if self.logarithmic else np.asarray
        axis = float(np.ptp(scale(self.limits)))
        ticks: list[float] = []
        for count in self.counts:
            room = (_DIGIT_POINTS * len(f"{count:g}") + _DIGIT_POINTS) / self.length * axis
            if not ticks or scale(count) - scale(ticks[-1]) >= room:
                ticks.append(float(count))
        return ticks

    def offsets(self, wide: bool) -> np.ndarray:
        """Return how far each method is moved, in points: together at most half of the way to the next K."""
        n = self.n_methods
        step = _WIDE_OFFSET_STEP if wide else _OFFSET_STEP
        if len(self.counts) == 1:
            step = min(_SINGLE_OFFSET_STEP, 0.9 * self.length / max(n, 1))
        else:
            step = min(step, _SHARE * self.gap * self.length / max(n - 1, 1))
        return step * (np.arange(n) - (n - 1) / 2)

    def _step(self, widest: float, positions: np.ndarray) -> float:
        """Return the distance of two methods at one K, in points, as it is without margins, where it is largest."""
        if len(positions) == 1:
            return 0.0
        gap = float(np.diff(positions).min() / np.ptp(positions))
        return min(widest, _SHARE * gap * self.length / max(self.n_methods - 1, 1))


def draw_means(
    ax: Axes,
    rows: pd.DataFrame,
    mean: str,
    sd: str,
    label: str,
    style: MethodStyle,
    *,
    x: str = "n_clusters",
    offset: float = 0.0,
    joined: bool = True,
) -> None:
    """Draw the means of one method, with bars of one SD where it is known.

    Parameters
    ----------
    ax, label, style
        Panel, label and style of the line.
    rows, x, mean, sd
        The frame, and its columns for the horizontal position, the mean and the SD (which may be missing).
    offset
        Shift to the right, in points.
    joined
        Whether a line joins the markers.
    """
    settings = style.line_settings()
    if not joined:
        settings["linestyle"] = "none"
    spread = rows[sd] if sd in rows else pd.Series(np.nan, index=rows.index)
    # Moved on the page, not in K: the data of the lines remain what was measured.
    moved = ScaledTranslation(offset / 72, 0, ax.figure.dpi_scale_trans)
    ax.errorbar(
        rows[x].to_numpy(),
        rows[mean].to_numpy(),
        yerr=spread.to_numpy(),
        label=label,
        ecolor=style.color,
        elinewidth=0.5 * style.linewidth + 0.2,
        transform=ax.transData + moved,
        **settings,
    )


def set_value_limits(ax: Axes, means: pd.Series, sds: pd.Series | None = None) -> None:
    """Give the vertical axis room for means and bars, and for 0 if that takes little of the height."""
    sd = 0.0 if sds is None else sds.fillna(0.0)
    low, high = float((means - sd).min()), float((means + sd).max())
    if 0 < low < 0.35 * high:
        low = 0.0
    margin = 0.06 * (high - low) or 0.05
    ax.set_ylim(low - (margin if low != 0 else 0.0), high + margin)
    if low < 0 < high:
        ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
