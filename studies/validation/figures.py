"""The two figures of the validation study."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from design import BASELINE, CONTROL
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import METHODS, STRENGTHS, Estimate, Results, december, difference, mean_of, post_hoc

from december_plugin.evaluation.methods import Method
from december_plugin.plots.panels import figure_page, legend_below, letters, line_handles, title_panel
from december_plugin.plots.style import MethodStyle, figure_style, method_style

TITLES = {"types": "planted types", "unequal": "very unequal types", "continuum": "a continuum"}
ROW = 0.17  # inches
Drawn = tuple[str, Estimate, dict[str, Any]]


def central_figure(results: Results) -> Figure | None:
    """Draw ARI to the types and between seeds of every method in the central conditions, with 95 % intervals."""
    scores = results.scores[results.scores["factor"] == "central"]
    populations = [name for name in TITLES if (scores["population"] == name).any()]
    if not populations:
        return None
    with figure_style():
        figure = figure_page(1.1 + ROW * len(METHODS) * len(populations) + 0.45 * len(populations))
        grid = figure.subplots(len(populations), 2, squeeze=False)
        for (left, right), population, letter in zip(grid, populations, letters(len(populations)), strict=True):
            at = {
                "population": population,
                "factor": "central",
                "level": "",
                "n_clusters": _first_count(scores, population),
            }
            rows = [(name, {**at, **values}) for name, values in METHODS.items()]
            truth = [(n, mean_of(results, v, "truth"), {}) for n, v in rows]
            seeds = [(n, mean_of(results, v, "seeds"), {}) for n, v in rows]
            _dots(left, truth, names=True)
            _dots(right, seeds, names=False)
            title_panel(left, letter, TITLES[population])
            left.set_xlabel("ARI to the planted types")
            right.set_xlabel("ARI between seeds")
            if all(np.isnan(estimate.mean) for _, estimate, _ in truth):
                _say_no_types(left)
    return figure


def factors_figure(results: Results) -> Figure | None:
    """Draw DECEMber minus t mixture and minus control, for every condition, as differences of ARI with intervals."""
    populations = [name for name in TITLES if (results.scores["population"] == name).any()]
    if not populations:
        return None
    names = ("DECEMber, strength auto", "DECEMber, strength 100")
    columns = {
        "truth": ("t mixture", post_hoc(BASELINE, "t_mixture"), "to types"),
        "seeds": ("t mixture", post_hoc(BASELINE, "t_mixture"), "between seeds"),
        "control": ("control", post_hoc(CONTROL, "kmeans"), "between seeds"),
    }
    conditions = {name: _levels(results, name) for name in populations}
    with figure_style():
        styles = {name: _style(METHODS[name]) for name in names}
        height = sum(1.6 * ROW * len(levels) + 0.55 for levels in conditions.values())
        figure = figure_page(0.7 + height)
        ratios = [len(levels) + 1.5 for levels in conditions.values()]
        grid = figure.subplots(len(populations), 3, squeeze=False, gridspec_kw={"height_ratios": ratios})
        for line, population, letter in zip(grid, populations, letters(len(populations)), strict=True):
            levels = conditions[population]
            for place, (ax, (kind, (what, reference, short))) in enumerate(zip(line, columns.items(), strict=True)):
                quantity = "truth" if kind == "truth" else "seeds"
                for offset, name in zip((-0.17, 0.17), names, strict=True):
                    chosen = december(name.removeprefix("DECEMber, "))
                    drawn = [
                        (text, difference(results, {**at, **chosen}, {**at, **reference}, quantity), {"offset": offset})
                        for text, at in levels.items()
                    ]
                    _dots(ax, drawn, names=place == 0, style=styles[name])
                ax.axvline(0, color="#333333", linewidth=0.8, zorder=1)
                ax.set_xlabel(f"ARI {short}, minus {what}")
                _bound(ax)
            title_panel(line[0], letter, TITLES[population])
        legend_below(figure, line_handles(styles))
    return figure


def _first_count(scores: pd.DataFrame, population: str) -> int:
    own = scores[(scores["population"] == population) & scores["variant"].isin(STRENGTHS[:1] + STRENGTHS[-1:])]
    return int(own["n_clusters"].iloc[0])


def _levels(results: Results, population: str) -> dict[str, dict[str, Any]]:
    own = results.scores[(results.scores["population"] == population) & results.scores["variant"].isin(STRENGTHS)]
    found: dict[str, dict[str, Any]] = {}
    strongest = own[own["variant"] == "strength 100"]
    for row in (strongest if len(strongest) else own).itertuples(index=False):
        text = "central" if row.factor == "central" else f"{row.factor}: {row.level}"
        at = {"factor": row.factor, "level": row.level, "n_clusters": row.n_clusters}
        found.setdefault(text, {"population": population, **at})
    return found


def _style(chosen: dict[str, str]) -> MethodStyle:
    strength = chosen["variant"].removeprefix("strength ") if chosen["variant"] in STRENGTHS else ""
    return method_style(Method(chosen["method"], chosen["role"], strength=strength))


def _dots(ax: Axes, rows: list[Drawn], *, names: bool, style: MethodStyle | None = None) -> None:
    for place, (name, estimate, more) in enumerate(rows):
        if np.isnan(estimate.mean):
            continue
        drawn = style or _style(METHODS[name])
        y = place + more.get("offset", 0.0)
        settings = {**drawn.line_settings(), "linestyle": "none"}
        if not np.isnan(estimate.low):
            ax.plot([estimate.low, estimate.high], [y, y], color=drawn.color, linewidth=1.0, zorder=2)
        ax.plot([estimate.mean], [y], **{**settings, "markersize": 4.5})
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [name for name, *_ in rows] if names else [])
    ax.grid(axis="x")


def _bound(ax: Axes) -> None:
    """Bound the axis by the means: with three seeds, an interval may be as wide as the scale; it is cut."""
    means = [float(x) for line in ax.lines for x in line.get_xdata() if line.get_marker() not in ("None", None)]
    if not means:
        ax.set_xlim(-0.1, 0.1)
        _say_no_types(ax)
        return
    reach = 1.4 * max(abs(x) for x in means) + 0.04
    ax.set_xlim(-reach, reach)


def _say_no_types(ax: Axes) -> None:
    ax.text(0.5, 0.5, "no types", transform=ax.transAxes, ha="center", va="center")
    ax.set_xticks([])
