"""Interactive charts: dictionaries that plotly.js draws, in the colours and markers of :mod:`december_plugin.plots`.

Legends are not plotly's: the page has one for all charts of a group, which stays readable on a phone and on paper.
Names out of the database go through :func:`plotly_text`, because plotly reads some HTML in texts.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

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
_SHARES = [[0, "#FFFFFF"], [0.25, "#BBD9EE"], [0.5, "#56A4D6"], [0.75, "#0072B2"], [1, "#053F66"]]


@dataclass(frozen=True)
class Chart:
    """One interactive chart.

    Attributes
    ----------
    title
        What stands above it.
    alt
        What it shows, for those who do not see it.
    figure
        ``data`` and ``layout`` for plotly.js.
    """

    title: str
    alt: str
    figure: dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """A quantity against the number of clusters.

    Attributes
    ----------
    name
        Stem of the columns ``_mean`` and ``_sd``.
    title, value
        Of the chart and of its vertical axis.
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
    """Return a text of the database in a form that plotly shows as it is: it would read tags and entities in it."""
    return html.escape(str(value), quote=False)


def axis(title: str, **settings: Any) -> dict[str, Any]:
    """Return an axis in the style of the figures."""
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": GRID,
        "linecolor": INK,
        "ticks": "outside",
        "zeroline": False,
        "automargin": True,
        **settings,
    }


def layout(x: Mapping[str, Any], y: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """Return a layout in the style of the figures."""
    return {
        "xaxis": dict(x),
        "yaxis": dict(y),
        "height": HEIGHT,
        "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "showlegend": False,
        "hovermode": "closest",
        "dragmode": False,
        "hoverlabel": {"bgcolor": "white", "font": {"color": "#111111", "size": 13}, "bordercolor": INK},
        **settings,
    }


def line_of(style: MethodStyle) -> dict[str, Any]:
    """Return plotly's settings of a line with markers in the style of a method."""
    symbol = SYMBOLS.get(style.marker, "circle")
    dash = DASHES.get(style.linestyle, "dot") if isinstance(style.linestyle, str) else "dot"
    return {
        "line": {"color": style.color, "width": 1.3 * style.linewidth, "dash": dash},
        "marker": {
            "color": style.color,
            "symbol": symbol if style.filled else f"{symbol}-open",
            "size": (2.0 if style.marker in "^v<>" else 1.6) * style.markersize,
            "line": {"width": 1 if style.filled else 2, "color": "white" if style.filled else style.color},
        },
    }


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
    known = known.assign(drawn=minus_best(known, mean, by="label", best=curve.best))
    counts = sorted({int(k) for k in known["n_clusters"]})
    gap = float(min(np.diff(counts))) if len(counts) > 1 else 1.0
    lines = _same_models(known, list(shown.styles)) if curve.of_models else [[label] for label in shown.styles]
    n = len(lines)
    # Side by side, so that bars do not hide each other, and well on their own side of the way to the next K.
    offsets = np.linspace(-_SPREAD, _SPREAD, n) * gap if n > 1 else [0.0]
    data = _others_trace(known[known["label"].isin(shown.others)], curve, shown.others_label)
    for labels, offset in zip(lines, offsets, strict=True):
        rows = known[known["label"].isin(labels)].sort_values("n_clusters")
        if len(rows):
            if len(labels) > 1:
                rows = rows.drop_duplicates("n_clusters").assign(label=" / ".join(labels))
            data.append(_curve_trace(rows, labels, shown.styles[labels[0]], curve, float(offset)))
    shapes, notes = _types_mark(n_types if curve.mark_types else None, counts)
    ticks = {"tickvals": counts} if len(counts) <= 15 else {}
    x = axis("number of clusters K", range=_padded(counts, gap), **ticks)
    figure = {"data": data, "layout": layout(x, axis(curve.value), shapes=shapes, annotations=notes)}
    alt = (
        f"{curve.title}: {curve.value} against the number of clusters, mean and standard deviation over {curve.over}; "
        "numbers below."
    )
    return Chart(curve.title, alt, figure)


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
) -> dict[str, Any]:
    spreads = _numbers(rows[f"{curve.name}_sd"])
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plotly_text(" / ".join(labels)),
        "meta": {"label": labels[0], "labels": list(labels)},
        "x": [float(k) + offset for k in rows["n_clusters"]],
        "y": _numbers(rows["drawn"]),
        "error_y": {"type": "data", "array": spreads, "thickness": 1.2, "width": 3, "color": style.color},
        "customdata": _described(rows, curve),
        "hovertemplate": _HOVER,
        **line_of(style),
    }


# What people have named comes in as data: in the template itself, %{...} in a name would be read as one of its fields.
_HOVER = "<b>%{customdata[0]}</b><br>K = %{customdata[1]}<br>%{customdata[2]}<extra></extra>"


def _described(rows: pd.DataFrame, curve: Curve) -> list[list[Any]]:
    over = rows["n_pairs"] if curve.name == "seeds" and "n_pairs" in rows else [None] * len(rows)
    means, drawn, spreads = (_numbers(rows[name]) for name in (f"{curve.name}_mean", "drawn", f"{curve.name}_sd"))
    described = []
    for label, k, mean, at, sd, n in zip(rows["label"], rows["n_clusters"], means, drawn, spreads, over, strict=True):
        words = f"{curve.value}: {at:.3f}" + ("" if sd is None else f" ± {sd:.3f}")
        words += "" if n is None else f", {int(n)} pair{'s' if n != 1 else ''}"
        words += f"<br>the value itself: {mean + 0.0:.4g}" if curve.best else ""
        described.append([plotly_text(label), int(k), words.replace("-", "−")])
    return described


def _others_trace(rows: pd.DataFrame, curve: Curve, label: str) -> list[dict[str, Any]]:
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
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": label,
            "meta": {"label": label},
            "x": x,
            "y": y,
            "line": {"color": OTHERS_COLOR, "width": 1},
            "marker": {"color": OTHERS_COLOR, "size": 4},
            "customdata": custom,
            "hovertemplate": _HOVER,
        }
    ]


def _padded(counts: Sequence[int], gap: float) -> list[float]:
    return [counts[0] - 0.5 * gap, counts[-1] + 0.5 * gap]


def _types_mark(n_types: int | None, counts: Sequence[int]) -> tuple[list[Any], list[Any]]:
    if n_types is None or not counts[0] <= n_types <= counts[-1]:
        return [], []
    line = {"color": INK, "width": 1, "dash": "dot"}
    shape = {"type": "line", "x0": n_types, "x1": n_types, "y0": 0, "y1": 1, "yref": "paper", "line": line}
    note = {"x": n_types, "y": 0, "yref": "paper", "text": f"{n_types} known types", "showarrow": False}
    note |= {"xanchor": "left", "yanchor": "bottom", "font": {"size": 11, "color": NOTE}}
    return [shape], [note]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return plotly_text(value)


def strength_charts(agreement: pd.DataFrame) -> list[Chart]:
    """Return test correlation and agreement against the strength of the clustering loss; none of a single strength.

    Training without the loss (strength 0) has no place on a logarithmic axis: it is a horizontal line. What "auto"
    comes out at differs between K, and is one strength.
    """
    december = agreement[(agreement["method"] == "december") & (agreement["strength"] > 0)]
    if december["strength_setting"].nunique() < 2:
        return []
    without = agreement[(agreement["trainer_role"] == "baseline") | agreement["strength"].eq(0.0)]
    charts = [_strength_chart(december, without, "test", "Predictive performance", "test correlation")]
    charts.append(_strength_chart(december, without.iloc[:0], "seeds", "Agreement between seeds", "ARI between seeds"))
    return [chart for chart in charts if chart is not None]


def _strength_chart(december: pd.DataFrame, without: pd.DataFrame, name: str, title: str, value: str) -> Chart | None:
    known = december[december[f"{name}_mean"].notna()]
    if known.empty:
        return None
    groups = list(known.groupby(["n_clusters", "pretrain_epochs"], dropna=False))
    several = len({pretrained for (_, pretrained), _ in groups}) > 1
    data = []
    for mark, ((count, pretrained), rows) in zip(_marks(len(groups)), groups, strict=True):
        label = f"K = {count:g}" + (f", {pretrained:g} epochs of pretraining" if several else "")
        data.append(_strength_trace(rows.sort_values("strength"), label, mark, name, value))
    shapes, notes = _without_loss(without.dropna(subset=[f"{name}_mean"]), name)
    low, high = float(np.log10(known["strength"].min())), float(np.log10(known["strength"].max()))
    x = axis("strength of the clustering loss", type="log", dtick=1, range=[low - 0.5, high + 0.5])
    margin = {"l": 56, "r": 12, "t": 22, "b": 48}
    figure = {"data": data, "layout": layout(x, axis(value), shapes=shapes, annotations=notes, margin=margin)}
    return Chart(title, f"{title}: {value} against the strength of the clustering loss; numbers below.", figure)


def _strength_trace(rows: pd.DataFrame, label: str, mark: tuple[str, str], name: str, value: str) -> dict[str, Any]:
    color, symbol = mark
    spreads = _numbers(rows[f"{name}_sd"])
    custom = [
        [plotly_text(row["label"]), "" if s is None else f" ± {s:.3f}", _shown(float(row["gradient_ratio"]))]
        for row, s in zip(rows.to_dict("records"), spreads, strict=True)
    ]
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(rows) > 1 else "markers",
        "name": label,
        "meta": {"label": label},
        "x": _numbers(rows["strength"]),
        "y": _numbers(rows[f"{name}_mean"]),
        "error_y": {"type": "data", "array": spreads, "thickness": 1.2, "width": 3, "color": color},
        "line": {"color": color, "width": 2},
        "marker": {"color": color, "symbol": symbol, "size": 9},
        "customdata": custom,
        "hovertemplate": f"<b>%{{customdata[0]}}</b>, {label}<br>strength %{{x:.4g}}, gradient ratio "
        f"%{{customdata[2]}}<br>{value}: %{{y:.3f}}%{{customdata[1]}}<extra></extra>",
    }


def _without_loss(rows: pd.DataFrame, name: str) -> tuple[list[Any], list[Any]]:
    """Return the line and the band of models without the clustering loss, and what they are."""
    if rows.empty:
        return [], []
    level, spread = float(rows[f"{name}_mean"].iloc[0]), float(rows[f"{name}_sd"].iloc[0])
    across: dict[str, Any] = {"xref": "paper", "x0": 0, "x1": 1}
    line = {"color": "#4D4D4D", "width": 1.5, "dash": "dash"}
    shapes = [{"type": "line", **across, "y0": level, "y1": level, "line": line}]
    if math.isfinite(spread):
        box = {"type": "rect", **across, "y0": level - spread, "y1": level + spread, "layer": "below"}
        shapes.append({**box, "fillcolor": "#4D4D4D", "opacity": 0.1, "line": {"width": 0}})
    note = {"x": 0, "xref": "paper", "xanchor": "left", "y": 1, "yref": "paper", "yanchor": "bottom"}
    text = "dashed: no clustering loss (strength 0), mean ± SD"
    return shapes, [{**note, "showarrow": False, "text": text, "font": {"size": 11, "color": NOTE}}]


def _marks(n: int) -> list[tuple[str, str]]:
    symbols = list(SYMBOLS.values())
    return [(color, symbols[i % len(symbols)]) for i, color in enumerate(group_colors(n))]


def cluster_sizes_chart(clusters: pd.DataFrame, *, n_seeds: int) -> Chart:
    """Return sizes of clusters, the neurons that all seeds put there apart from the others.

    Parameters
    ----------
    clusters
        ``cluster`` (shown name), ``color``, ``size`` and ``core`` (neurons with stability 1).
    n_seeds
        Number of seeds; with one seed there is no core.
    """
    names = [f"{name}" for name in clusters["cluster"]]
    core = clusters["core"].astype(int)
    rest = clusters["size"].astype(int) - core
    hover = "cluster %{x}: %{y} neurons"
    bars = []
    if n_seeds > 1:
        label = f"in this cluster in all {n_seeds} seeds"
        bars.append({"y": core.tolist(), "name": label, "opacity": 1.0})
        bars.append({"y": rest.tolist(), "name": "in most seeds", "opacity": 0.4})
    else:
        bars.append({"y": clusters["size"].astype(int).tolist(), "name": "neurons", "opacity": 1.0})
    data = [
        {
            "type": "bar",
            "x": names,
            "y": bar["y"],
            "name": bar["name"],
            "marker": {"color": list(clusters["color"]), "opacity": bar["opacity"]},
            "hovertemplate": f"{hover} {bar['name']}<extra></extra>",
        }
        for bar in bars
    ]
    x = axis("cluster", type="category", showgrid=False)
    title = "Sizes of the clusters"
    note = f" (full colour: in the same cluster in all {n_seeds} seeds)" if n_seeds > 1 else ""
    figure = {"data": data, "layout": layout(x, axis("neurons"), barmode="stack", bargap=0.25)}
    return Chart(f"{title}{note}", f"{title}{note}; numbers below.", figure)


def confusion_chart(frame: pd.DataFrame, *, title: str) -> Chart:
    """Return a heat map of clusters against known types: the colour is the share of the type, the text the count."""
    counts = frame.to_numpy(dtype=float)
    totals = counts.sum(axis=0)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    rows = [plotly_text(name) for name in frame.index]
    columns = [plotly_text(name) for name in frame.columns]
    trace = {
        "type": "heatmap",
        "x": columns,
        "y": rows,
        "z": share.tolist(),
        "zmin": 0,
        "zmax": 1,
        # As in the figures, a cell without neurons is blank.
        "text": [[f"{value:g}" if value else "" for value in row] for row in counts],
        "texttemplate": "%{text}" if frame.size <= 400 else "",
        "customdata": [[f"{value:g}" for value in row] for row in counts],
        "colorscale": _SHARES,
        "colorbar": {
            "title": {"text": "share of the type's neurons", "side": "right", "font": {"size": 11}},
            "thickness": 12,
            "tickvals": [0, 0.5, 1],
        },
        "hovertemplate": "type %{x}<br>cluster %{y}<br>%{customdata} neurons, %{z:.0%} of the type<extra></extra>",
        "xgap": 1,
        "ygap": 1,
    }
    x = axis("known type", type="category", showgrid=False)
    y = axis("cluster", type="category", showgrid=False, autorange="reversed")
    size = {"height": max(HEIGHT, 70 + 22 * len(rows))}
    alt = f"{title}: numbers of neurons by cluster and known type; numbers below."
    return Chart(title, alt, {"data": [trace], "layout": layout(x, y, **size)})


def methods_of(agreement: pd.DataFrame) -> ShownMethods:
    """Return the methods that an analysis shows in colour with their styles, the same in all charts and figures."""
    return shown_methods(agreement.assign(label=agreement["label"].astype(str)), "seeds_mean", by="label")
