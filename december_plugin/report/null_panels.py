"""The page's first figure: every method's agreement next to its own null, as small drawings that need no script.

They are SVG in the page, so that they can be read on a phone, on paper and without scripts; the only texts in them are
numbers. Names of methods are above them, as text of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from december_plugin.evaluation.agreement import SIGNIFICANT
from december_plugin.findings.data import Analysis
from december_plugin.findings.wording import Wording
from december_plugin.plots.clusters_axis import ClustersAxis
from december_plugin.plots.nulls import (
    BAND_COLOR,
    NULL_COLOR,
    null_in_words,
    null_panels,
    surrogate_words,
    with_spread,
)
from december_plugin.plots.shown import shown_methods
from december_plugin.plots.style import INK, MethodStyle
from december_plugin.report.swatches import line_settings, marker_shape

GRID_COLOR = "#E6E6E6"
# The drawing and the margins around its panel, in units that are about pixels of a screen.
_WIDTH, _HEIGHT = 280.0, 168.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 38.0, 8.0, 12.0, 38.0
_FONT = 12.0


@dataclass(frozen=True)
class NullPanel:
    """One method: its name, its p values in words, and the drawing."""

    label: str
    words: str
    drawing: Markup


@dataclass(frozen=True)
class NullFigure:
    """All panels, what the surrogates are, how many methods are only in the table, and what is drawn."""

    panels: tuple[NullPanel, ...]
    surrogates: str
    n_others: int
    asterisk: Markup
    between: str
    threshold: str = f"p ≤ {SIGNIFICANT:g}"


def null_figure_of(analysis: Analysis) -> NullFigure | None:
    """Return the figure of an analysis; None where nothing was computed."""
    nulls = analysis.nulls
    if nulls.empty or not nulls["null_mean"].notna().any():
        return None
    nulls = with_spread(nulls, analysis.agreement)
    nulls = nulls[nulls["null_mean"].notna() & nulls["agreement_mean"].notna()]
    shown = shown_methods(nulls, "agreement_mean")
    found = null_panels(nulls, shown.styles)
    surrogates = list(dict.fromkeys(surrogate_words(rows) for _, rows in found))
    scale = _Scale.of(pd.concat([rows for _, rows in found]))
    panels = [
        NullPanel(
            method,
            _words(rows, with_surrogate=len(surrogates) > 1),
            _drawing(rows, shown.styles[method], scale, analysis.wording),
        )
        for method, rows in found
    ]
    said = surrogates[0] if len(surrogates) == 1 else ""
    asterisk = Markup(f'<svg class="swatch" viewBox="0 0 14 14" width="14" height="14">{_asterisk(7.0, 7.0)}</svg>')
    return NullFigure(tuple(panels), said, len(shown.others), asterisk, analysis.wording.between)


def _words(rows: pd.DataFrame, *, with_surrogate: bool) -> str:
    """Return the p values in words, a line each; a number stays next to its p."""
    words = null_in_words(rows, separator="\n").replace("p = ", "p\u00a0=\u00a0")
    return f"{words}\n{surrogate_words(rows)}" if with_surrogate else words


@dataclass(frozen=True)
class _Scale:
    """Where values are in the drawing; the same for all panels."""

    counts: tuple[float, ...]
    limits: tuple[float, float]
    logarithmic: bool
    ticks: tuple[float, ...]
    low: float
    high: float

    @classmethod
    def of(cls, rows: pd.DataFrame) -> _Scale:
        axis = ClustersAxis(rows["n_clusters"].to_numpy(), 1, (_WIDTH - _LEFT - _RIGHT) / 0.8 / 72)
        tops = rows["agreement_mean"] + rows["agreement_sd"].fillna(0.0)
        bottoms = rows["agreement_mean"] - rows["agreement_sd"].fillna(0.0)
        high = float(np.nanmax([tops.max(), rows["null_high"].max()]))
        low = min(0.0, float(np.nanmin([bottoms.min(), rows["null_low"].min()])))
        margin = 0.06 * (high - low) or 0.05
        counts = tuple(float(count) for count in axis.counts)
        limits = (float(axis.limits[0]), float(axis.limits[1]))
        return cls(counts, limits, axis.logarithmic, tuple(axis.ticks), low - (margin if low < 0 else 0), high + margin)

    def x(self, count: float) -> float:
        low, high, at = (np.log(v) if self.logarithmic else v for v in (*self.limits, count))
        return float(_LEFT + (at - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT))

    def y(self, value: float) -> float:
        return float(_HEIGHT - _BOTTOM - (value - self.low) / (self.high - self.low) * (_HEIGHT - _TOP - _BOTTOM))

    @property
    def values(self) -> list[float]:
        found = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(self.low, self.high)
        return [float(value) for value in found if self.low <= value <= self.high]


def _drawing(rows: pd.DataFrame, style: MethodStyle, scale: _Scale, wording: Wording) -> Markup:
    parts = [*_frame(scale), *_band(rows, scale), *_points(rows, style, scale)]
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{wording.between} against the number '
        f'of clusters, with the band of its null; numbers in the table below." font-size="{_FONT:g}" fill="{INK}">'
        f"{''.join(parts)}</svg>"
    )


def _frame(scale: _Scale) -> list[str]:
    left, right, bottom = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for value in scale.values:
        y = scale.y(value)
        parts.append(_line(left, y, right, y, GRID_COLOR))
        parts.append(f'<text x="{left - 6:g}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    for count in scale.counts:
        parts.append(_line(scale.x(count), bottom, scale.x(count), bottom + 4, INK))
    for count in scale.ticks:
        parts.append(f'<text x="{scale.x(count):.1f}" y="{bottom + 17:g}" text-anchor="middle">{count:g}</text>')
    parts += [_line(left, bottom, right, bottom, INK), _line(left, bottom, left, _TOP - 8, INK)]
    middle = (left + right) / 2
    parts.append(f'<text x="{middle:g}" y="{_HEIGHT - 5:g}" text-anchor="middle">number of clusters K</text>')
    return parts


def _band(rows: pd.DataFrame, scale: _Scale) -> list[str]:
    x = [scale.x(count) for count in rows["n_clusters"]]
    low, high, mean = ([scale.y(v) for v in rows[name]] for name in ("null_low", "null_high", "null_mean"))
    if len(x) == 1:  # a single K has no area
        x, low, high, mean = [x[0] - 10, x[0] + 10], 2 * low, 2 * high, 2 * mean
    outline = _path(list(zip(x, high, strict=True)) + list(zip(x, low, strict=True))[::-1])
    middle = _path(list(zip(x, mean, strict=True)))
    return [
        f'<path d="{outline}Z" fill="{BAND_COLOR}"/>',
        f'<path d="{middle}" fill="none" stroke="{NULL_COLOR}" stroke-dasharray="2 3"/>',
    ]


def _points(rows: pd.DataFrame, style: MethodStyle, scale: _Scale) -> list[str]:
    at = [(scale.x(row.n_clusters), scale.y(row.agreement_mean)) for row in rows.itertuples()]
    parts = [f'<path d="{_path(at)}" fill="none" {line_settings(style)}/>']
    for (x, y), row in zip(at, rows.to_dict("records"), strict=True):
        mean, sd, p = row["agreement_mean"], row["agreement_sd"], row["p_value"]
        bar = _line(x, scale.y(mean - sd), x, scale.y(mean + sd), style.color) if sd == sd else ""
        top = scale.y(mean + sd) if sd == sd else y
        mark = _asterisk(x, min(top, y - 5) - 6) if p <= SIGNIFICANT else ""
        words = f"K = {row['n_clusters']:g}: {mean:.3f}" + (f" ± {sd:.3f}" if sd == sd else "")
        words += f"; null {row['null_low']:.3f} to {row['null_high']:.3f}" + (f"; p = {p:.3g}" if p == p else "")
        shape = f'<g transform="translate({x:.1f} {y:.1f})">{marker_shape(style)}</g>'
        parts.append(f"<g><title>{words}</title>{bar}{shape}{mark}</g>")
    return parts


def _asterisk(x: float, y: float) -> str:
    angles = np.radians([90.0, 30.0, -30.0])
    ends = [(3.6 * np.cos(angle), 3.6 * np.sin(angle)) for angle in angles]
    return "".join(_line(x - dx, y - dy, x + dx, y + dy, INK, width=1.3) for dx, dy in ends)


def _line(x1: float, y1: float, x2: float, y2: float, color: str, *, width: float = 1.0) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width:g}"/>'


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f"{'M' if i == 0 else 'L'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "−")
