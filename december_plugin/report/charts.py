"""Interactive charts, as plotly's own objects, in the colours and markers of :mod:`december_plugin.plots`.

Legends are not plotly's: the page has one for all charts of a group, which stays readable on a phone and on paper.
Names from the database go through :func:`plotly_text`, because plotly reads some HTML in texts.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.basedatatypes import BaseTraceType

from december_plugin.plots.method_lines import minus_best
from december_plugin.plots.shown import OTHERS_COLOR, ShownMethods, shown_methods
from december_plugin.plots.style import INK, NOTE, MethodStyle, group_colors

SYMBOLS = {
    **{"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "<": "triangle-left"},
    **{">": "triangle-right", "D": "diamond", "d": "diamond-tall", "X": "x", "P": "cross", "p": "pentagon"},
    **{"h": "hexagon", "8": "octagon", "*": "star"},
}
DASHES = {"-": "solid", "--": "dash", "-.": "dashdot"}
GRID = "#E6E6E6"
HEIGHT = 340
_SPREAD = 0.14  # how far methods are moved to the sides at one K, in distances of two K
_WITHOUT = "#4D4D4D"  # models without the clustering loss
_SHARES = [[0, "#FFFFFF"], [0.25, "#BBD9EE"], [0.5, "#56A4D6"], [0.75, "#0072B2"], [1, "#053F66"]]


@dataclass(frozen=True)
class Chart:
    """One interactive chart.

    Attributes
    ----------
    title
        Heading above it.
    alt
        What it shows, for readers who cannot see it.
    traces, layout
        What plotly.js draws. A ``plotly.graph_objects.Figure`` of them would add plotly's template, 6 kB
        for each chart.
    """

    title: str
    alt: str
    traces: Sequence[BaseTraceType]
    layout: go.Layout

    def to_json(self) -> dict[str, Any]:
        """Return ``data`` and ``layout`` for plotly.js, of types that JSON has."""
        return {
            "data": [trace.to_plotly_json() for trace in self.traces],
            "layout": self.layout.to_plotly_json(),
        }


@dataclass(frozen=True)
class Curve:
    """A quantity against the number of clusters.

    Attributes
    ----------
    name
        Stem of the columns ``_mean`` and ``_sd``.
    title, value
        Titles of the chart and of its vertical axis.
    over
        What mean and standard deviation are taken over.
    mark_types
        Whether the number of known types is marked.
    best
        "max" or "min": values are drawn minus the best of their curve, because those of different methods cannot be
        compared. Empty: as they are.
    of_models
        Whether it is a quantity of the trained models, which their clustering does not change: methods that cluster the
        same models are one line.
    """

    name: str
    title: str
    value: str
    over: str
    mark_types: bool = True
    best: str = ""
    of_models: bool = False


def plotly_text(value: Any) -> str:
    """Return a text from the database so that plotly shows it unchanged instead of reading tags and entities in it."""
    return html.escape(str(value), quote=False)


# Of both axes.
_AXIS: dict[str, Any] = {"gridcolor": GRID, "linecolor": INK, "ticks": "outside", "zeroline": False, "automargin": True}
_STANDOFF = 8  # of the axes' titles (pixels)


def x_axis(title: str, **settings: Any) -> go.layout.XAxis:
    """Return a horizontal axis in the style of the figures."""
    return go.layout.XAxis(title=go.layout.xaxis.Title(text=title, standoff=_STANDOFF), **_AXIS, **settings)


def y_axis(title: str, **settings: Any) -> go.layout.YAxis:
    """Return a vertical axis in the style of the figures."""
    return go.layout.YAxis(title=go.layout.yaxis.Title(text=title, standoff=_STANDOFF), **_AXIS, **settings)


def layout(
    x: go.layout.XAxis, y: go.layout.YAxis, *, height: int = HEIGHT, top: int = 12, **settings: Any
) -> go.Layout:
    """Return a layout in the style of the figures; ``height`` and ``top``, the margin above, are in pixels."""
    return go.Layout(
        xaxis=x,
        yaxis=y,
        height=height,
        margin=go.layout.Margin(l=56, r=12, t=top, b=48),
        font=go.layout.Font(family="system-ui, sans-serif", size=13, color=INK),
        paper_bgcolor="white",
        plot_bgcolor="white",
        showlegend=False,
        hovermode="closest",
        dragmode=False,
        hoverlabel=go.layout.Hoverlabel(
            bgcolor="white", font=go.layout.hoverlabel.Font(color="#111111", size=13), bordercolor=INK
        ),
        **settings,
    )


def line_of(style: MethodStyle) -> go.scatter.Line:
    """Return a line in the style of a method."""
    if isinstance(style.linestyle, str):
        dash = DASHES.get(style.linestyle, "dot")
    else:  # matplotlib counts dashes in widths of the line
        dash = ",".join(f"{1.3 * style.linewidth * length:.1f}px" for length in style.linestyle[1])
    return go.scatter.Line(color=style.color, width=1.3 * style.linewidth, dash=dash)


def marker_of(style: MethodStyle) -> go.scatter.Marker:
    """Return markers in the style of a method."""
    symbol = SYMBOLS.get(style.marker, "circle")
    edge = go.scatter.marker.Line(width=1 if style.filled else 2, color="white" if style.filled else style.color)
    return go.scatter.Marker(
        color=style.color,
        symbol=symbol if style.filled else f"{symbol}-open",
        size=(2.0 if style.marker in "^v<>" else 1.6) * style.markersize,
        line=edge,
    )


def _error_bars(spreads: Sequence[float | None], color: str) -> go.scatter.ErrorY:
    return go.scatter.ErrorY(type="data", array=spreads, thickness=1.2, width=3, color=color)


def _numbers(values: Iterable[Any]) -> list[float | None]:
    """Return numbers as JSON has them: what is not finite is missing."""
    return [float(value) if value is not None and math.isfinite(value) else None for value in values]


def curves_chart(table: pd.DataFrame, curve: Curve, *, shown: ShownMethods, n_types: int | None = None) -> Chart | None:
    """Return a quantity against the number of clusters, a line per method; None if there is no value.

    Parameters
    ----------
    table
        ``label``, ``n_clusters`` and the curve's columns.
    curve
        What is drawn.
    shown
        The methods in colour, in the order of drawing, and those that are one grey trace.
    n_types
        Number of known types, marked by a vertical line.
    """
    mean = f"{curve.name}_mean"
    known = table[table[mean].notna()] if mean in table else table.iloc[:0]
    if known.empty:
        return None
    known = known.assign(drawn=minus_best(known, mean, best=curve.best))
    counts = sorted({int(k) for k in known["n_clusters"]})
    gap = float(min(np.diff(counts))) if len(counts) > 1 else 1.0
    lines = _same_models(known, list(shown.styles)) if curve.of_models else [[label] for label in shown.styles]
    n = len(lines)
    # Side by side, so that bars do not hide each other, and closer to their own K than to the next.
    offsets = np.linspace(-_SPREAD, _SPREAD, n) * gap if n > 1 else [0.0]
    traces = _others_trace(known[known["label"].isin(shown.others)], curve, shown.others_label)
    for labels, offset in zip(lines, offsets, strict=True):
        rows = known[known["label"].isin(labels)].sort_values("n_clusters")
        if len(rows):
            if len(labels) > 1:
                rows = rows.drop_duplicates("n_clusters").assign(label=" / ".join(labels))
            traces.append(_curve_trace(rows, labels, shown.styles[labels[0]], curve, float(offset)))
    shapes, notes = _types_mark(n_types if curve.mark_types else None, counts)
    ticks = {"tickvals": counts} if len(counts) <= 15 else {}
    x = x_axis("number of clusters K", range=_padded(counts, gap), **ticks)
    of_chart = layout(x, y_axis(curve.value), shapes=shapes, annotations=notes)
    alt = (
        f"{curve.title}: {curve.value} against the number of clusters, mean and standard deviation over {curve.over}; "
        "numbers below."
    )
    return Chart(curve.title, alt, traces, of_chart)


def _same_models(table: pd.DataFrame, labels: Sequence[str]) -> list[list[str]]:
    """Return the methods that are drawn as one line each: those that cluster the models of the same trainers."""
    trainers = table.groupby("label")[["trainer_fn", "trainer_hash"]].agg(frozenset)
    groups: dict[Any, list[str]] = {}
    for label in labels:
        key = tuple(trainers.loc[label]) if label in trainers.index else label
        groups.setdefault(key, []).append(label)
    return list(groups.values())


def _curve_trace(
    rows: pd.DataFrame, labels: Sequence[str], style: MethodStyle, curve: Curve, offset: float
) -> go.Scatter:
    return go.Scatter(
        mode="lines+markers",
        name=plotly_text(" / ".join(labels)),
        meta={"label": labels[0], "labels": list(labels)},
        x=[float(k) + offset for k in rows["n_clusters"]],
        y=_numbers(rows["drawn"]),
        error_y=_error_bars(_numbers(rows[f"{curve.name}_sd"]), style.color),
        customdata=_described(rows, curve),
        hovertemplate=_HOVER,
        line=line_of(style),
        marker=marker_of(style),
    )


# Names are passed as data: in the template itself, %{...} in a name would be read as a field.
_HOVER = "<b>%{customdata[0]}</b><br>K = %{customdata[1]}<br>%{customdata[2]}<extra></extra>"


def _described(rows: pd.DataFrame, curve: Curve) -> list[list[Any]]:
    over = rows["n_pairs"] if curve.name == "agreement" and "n_pairs" in rows else [None] * len(rows)
    means, drawn, spreads = (_numbers(rows[name]) for name in (f"{curve.name}_mean", "drawn", f"{curve.name}_sd"))
    described = []
    for label, k, mean, at, sd, n in zip(rows["label"], rows["n_clusters"], means, drawn, spreads, over, strict=True):
        words = f"{curve.value}: {at:.3f}" + ("" if sd is None else f" ± {sd:.3f}")
        words += "" if n is None else f", {int(n)} pair{'s' if n != 1 else ''}"
        words += f"<br>the value itself: {mean + 0.0:.4g}" if curve.best else ""
        described.append([plotly_text(label), int(k), words.replace("-", "−")])
    return described


def _others_trace(rows: pd.DataFrame, curve: Curve, label: str) -> list[go.Scatter]:
    """Return one grey trace of all methods that are not shown in colour, with a gap after each."""
    if rows.empty:
        return []
    x: list[float | None] = []
    y: list[float | None] = []
    custom: list[list[Any]] = []
    for _, line in rows.sort_values("n_clusters").groupby("label", sort=True):
        x += [*(float(k) for k in line["n_clusters"]), None]
        y += [*_numbers(line["drawn"]), None]
        custom += [*_described(line, curve), ["", 0, ""]]
    return [
        go.Scatter(
            mode="lines+markers",
            name=label,
            meta={"label": label},
            x=x,
            y=y,
            line=go.scatter.Line(color=OTHERS_COLOR, width=1),
            marker=go.scatter.Marker(color=OTHERS_COLOR, size=4),
            customdata=custom,
            hovertemplate=_HOVER,
        )
    ]


def _padded(counts: Sequence[int], gap: float) -> list[float]:
    return [counts[0] - 0.5 * gap, counts[-1] + 0.5 * gap]


def _types_mark(n_types: int | None, counts: Sequence[int]) -> tuple[list[go.layout.Shape], list[go.layout.Annotation]]:
    if n_types is None or not counts[0] <= n_types <= counts[-1]:
        return [], []
    line = go.layout.shape.Line(color=INK, width=1, dash="dot")
    shape = go.layout.Shape(type="line", x0=n_types, x1=n_types, y0=0, y1=1, yref="paper", line=line)
    note = _note(f"{n_types} known types", x=n_types, y=0, yref="paper", xanchor="left", yanchor="bottom")
    return [shape], [note]


def _note(text: str, **place: Any) -> go.layout.Annotation:
    font = go.layout.annotation.Font(size=11, color=NOTE)
    return go.layout.Annotation(text=text, showarrow=False, font=font, **place)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return plotly_text(value)


def strength_charts(agreement: pd.DataFrame) -> list[Chart]:
    """Return test correlation and agreement against the strength of the clustering loss; none for a single strength.

    Training without the loss (strength 0) has no place on a logarithmic axis: it is a horizontal line. The factor of
    "auto" differs between K, but counts as one strength.
    """
    december = agreement[(agreement["method"] == "december") & (agreement["strength"] > 0)]
    if december["strength_setting"].nunique() < 2:
        return []
    without = agreement[(agreement["trainer_role"] == "baseline") | agreement["strength"].eq(0.0)]
    charts = [_strength_chart(december, without, "test_correlation", "Predictive performance", "test correlation")]
    charts.append(
        _strength_chart(december, without.iloc[:0], "agreement", "Agreement between seeds", "ARI between seeds")
    )
    return [chart for chart in charts if chart is not None]


def _strength_chart(december: pd.DataFrame, without: pd.DataFrame, name: str, title: str, value: str) -> Chart | None:
    known = december[december[f"{name}_mean"].notna()]
    if known.empty:
        return None
    groups = list(known.groupby(["n_clusters", "pretrain_epochs"], dropna=False))
    several = len({pretrained for (_, pretrained), _ in groups}) > 1
    traces = []
    for mark, ((count, pretrained), rows) in zip(_marks(len(groups)), groups, strict=True):
        label = f"K = {count:g}" + (f", {pretrained:g} epochs of pretraining" if several else "")
        traces.append(_strength_trace(rows.sort_values("strength"), label, mark, name, value))
    shapes, notes = _without_loss(without.dropna(subset=[f"{name}_mean"]), name)
    low, high = float(np.log10(known["strength"].min())), float(np.log10(known["strength"].max()))
    x = x_axis("strength of the clustering loss", type="log", dtick=1, range=[low - 0.5, high + 0.5])
    alt = f"{title}: {value} against the strength of the clustering loss; numbers below."
    return Chart(title, alt, traces, layout(x, y_axis(value), top=22, shapes=shapes, annotations=notes))


def _strength_trace(rows: pd.DataFrame, label: str, mark: tuple[str, str], name: str, value: str) -> go.Scatter:
    color, symbol = mark
    spreads = _numbers(rows[f"{name}_sd"])
    custom = [
        [plotly_text(row["label"]), "" if s is None else f" ± {s:.3f}", _shown(float(row["gradient_ratio"]))]
        for row, s in zip(rows.to_dict("records"), spreads, strict=True)
    ]
    return go.Scatter(
        mode="lines+markers" if len(rows) > 1 else "markers",
        name=label,
        meta={"label": label},
        x=_numbers(rows["strength"]),
        y=_numbers(rows[f"{name}_mean"]),
        error_y=_error_bars(spreads, color),
        line=go.scatter.Line(color=color, width=2),
        marker=go.scatter.Marker(color=color, symbol=symbol, size=9),
        customdata=custom,
        hovertemplate=f"<b>%{{customdata[0]}}</b>, {label}<br>strength %{{x:.4g}}, gradient ratio "
        f"%{{customdata[2]}}<br>{value}: %{{y:.3f}}%{{customdata[1]}}<extra></extra>",
    )


def _without_loss(rows: pd.DataFrame, name: str) -> tuple[list[go.layout.Shape], list[go.layout.Annotation]]:
    """Return the line and the band of models without the clustering loss, and what they are."""
    if rows.empty:
        return [], []
    level, spread = float(rows[f"{name}_mean"].iloc[0]), float(rows[f"{name}_sd"].iloc[0])
    across: dict[str, Any] = {"xref": "paper", "x0": 0, "x1": 1}
    line = go.layout.shape.Line(color=_WITHOUT, width=1.5, dash="dash")
    shapes = [go.layout.Shape(type="line", y0=level, y1=level, line=line, **across)]
    if math.isfinite(spread):
        settings = {**across, "fillcolor": _WITHOUT, "opacity": 0.1, "line": go.layout.shape.Line(width=0)}
        shapes.append(go.layout.Shape(type="rect", y0=level - spread, y1=level + spread, layer="below", **settings))
    text = "dashed: no clustering loss (strength 0), mean ± SD"
    return shapes, [_note(text, x=0, xref="paper", xanchor="left", y=1, yref="paper", yanchor="bottom")]


def _marks(n: int) -> list[tuple[str, str]]:
    symbols = list(SYMBOLS.values())
    return [(color, symbols[i % len(symbols)]) for i, color in enumerate(group_colors(n))]


def cluster_sizes_chart(clusters: pd.DataFrame, *, n_seeds: int, many: str = "seeds") -> Chart:
    """Return sizes of clusters, with the neurons that all models put there separate from the others.

    Parameters
    ----------
    clusters
        ``cluster`` (shown name), ``color``, ``size`` and ``core`` (neurons with stability 1).
    n_seeds
        Number of models; a single one has no core.
    many
        What models are called.
    """
    names = [f"{name}" for name in clusters["cluster"]]
    core = clusters["core"].astype(int)
    rest = clusters["size"].astype(int) - core
    bars = []
    if n_seeds > 1:
        bars.append((core, f"in this cluster in all {n_seeds} {many}", 1.0))
        bars.append((rest, f"in most {many}", 0.4))
    else:
        bars.append((clusters["size"].astype(int), "neurons", 1.0))
    traces = [
        go.Bar(
            x=names,
            y=sizes.tolist(),
            name=label,
            marker=go.bar.Marker(color=list(clusters["color"]), opacity=opacity),
            hovertemplate=f"cluster %{{x}}: %{{y}} neurons {label}<extra></extra>",
        )
        for sizes, label, opacity in bars
    ]
    title = "Sizes of the clusters"
    note = f" (full colour: in the same cluster in all {n_seeds} {many})" if n_seeds > 1 else ""
    x = x_axis("cluster", type="category", showgrid=False)
    of_chart = layout(x, y_axis("neurons"), barmode="stack", bargap=0.25)
    return Chart(f"{title}{note}", f"{title}{note}; numbers below.", traces, of_chart)


def confusion_chart(frame: pd.DataFrame, *, title: str) -> Chart:
    """Return a heat map of clusters against known types: the colour is the share of the type, the text the count."""
    counts = frame.to_numpy(dtype=float)
    totals = counts.sum(axis=0)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    rows = [plotly_text(name) for name in frame.index]
    columns = [plotly_text(name) for name in frame.columns]
    title_of_bar = go.heatmap.colorbar.Title(
        text="share of the type's neurons", side="right", font=go.heatmap.colorbar.title.Font(size=11)
    )
    trace = go.Heatmap(
        x=columns,
        y=rows,
        z=share.tolist(),
        zmin=0,
        zmax=1,
        # As in the figures, a cell without neurons is blank.
        text=[[f"{value:g}" if value else "" for value in row] for row in counts],
        texttemplate="%{text}" if frame.size <= 400 else "",
        customdata=[[f"{value:g}" for value in row] for row in counts],
        colorscale=_SHARES,
        colorbar=go.heatmap.ColorBar(title=title_of_bar, thickness=12, tickvals=[0, 0.5, 1]),
        hovertemplate="type %{x}<br>cluster %{y}<br>%{customdata} neurons, %{z:.0%} of the type<extra></extra>",
        xgap=1,
        ygap=1,
    )
    x = x_axis("known type", type="category", showgrid=False)
    y = y_axis("cluster", type="category", showgrid=False, autorange="reversed")
    alt = f"{title}: numbers of neurons by cluster and known type; numbers below."
    return Chart(title, alt, [trace], layout(x, y, height=max(HEIGHT, 70 + 22 * len(rows))))


def methods_of(agreement: pd.DataFrame) -> ShownMethods:
    """Return the methods that an analysis shows in colour with their styles, the same in all charts and figures."""
    return shown_methods(agreement, "agreement_mean")
