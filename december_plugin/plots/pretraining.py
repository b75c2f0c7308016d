"""Learning rate and length of the pretraining (Figures 5 and 6)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from december_plugin.evaluation.methods import Method
from december_plugin.plots.clusters_axis import draw_means, set_value_limits
from december_plugin.plots.frames import check_counts, check_known, check_once, checked_frame, methods_of
from december_plugin.plots.method_lines import draw_against_k
from december_plugin.plots.panels import (
    PAGE_WIDTH,
    decades,
    figure_page,
    legend_below,
    legend_height,
    letters,
    spread_note,
    title_panel,
)
from december_plugin.plots.style import MethodStyle, figure_style, method_styles, ordered_styles

_ROW = 2.55
_MAX_STRENGTHS = 5
_UNNAMED = "other"
_NUMBERS = (
    "pretrain_epochs",
    "learning_rate",
    "validation_correlation_mean",
    "validation_correlation_sd",
    "test_correlation_mean",
    "test_correlation_sd",
)


def pretraining_figure(performance: pd.DataFrame, agreement: pd.DataFrame) -> Figure:
    """Draw validation correlation against learning rate, test correlation, and agreement, by length of the pretraining.

    The learning rate is chosen on the validation tier; the test correlation is that of the chosen rate.

    Parameters
    ----------
    performance
        One row per length and learning rate, of one strength: ``pretrain_epochs``, ``learning_rate``,
        ``validation_correlation_mean``, ``validation_correlation_sd``, ``test_correlation_mean``,
        ``test_correlation_sd``.
    agreement
        ``pretrain_epochs``, ``n_clusters``, ``agreement_mean``, ``agreement_sd``, ``n_pairs``; rows without a length
        (NaN) belong to other methods, which the column ``label`` names, and are drawn, too.

    Returns
    -------
    Figure
        Three panels; two if there is only one learning rate, which leaves nothing to choose.

    Raises
    ------
    SettingsError
        If a frame is empty, lacks a column, a column is not numeric, or there are two rows where one can be drawn.

    See Also
    --------
    learning_rate_figure : Draws learning rates for several strengths.
    december_plugin.plots.strength_figure : Draws what the strength of the clustering loss does.
    december_plugin.results.performance_frame : Returns the performance of a lab's models.
    december_plugin.results.agreement_table : Returns the agreement of a lab.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import pretraining_figure
    >>> performance = pd.DataFrame({"pretrain_epochs": [5, 5, 20, 20], "learning_rate": [0.003, 0.009, 0.003, 0.009]})
    >>> performance["validation_correlation_mean"] = [0.36, 0.38, 0.37, 0.35]
    >>> performance["test_correlation_mean"] = [0.35, 0.37, 0.36, 0.34]
    >>> performance = performance.assign(validation_correlation_sd=0.003, test_correlation_sd=0.003)
    >>> agreement = pd.DataFrame({"pretrain_epochs": [5, 20], "n_clusters": 10, "agreement_mean": [0.5, 0.6]})
    >>> agreement = agreement.assign(agreement_sd=0.04, n_pairs=3)
    >>> figure = pretraining_figure(performance, agreement)
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['A  Learning rate', 'B  At the best learning rate', 'C  Agreement between seeds']
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['pretraining 5 epochs', 'pretraining 20 epochs']
    """
    performance = _checked_performance(performance, ("pretrain_epochs", "learning_rate"))
    several = performance["learning_rate"].nunique() > 1
    agreement, labels = _checked_agreement(agreement)
    lengths = ordered_styles([*performance["pretrain_epochs"], *agreement["pretrain_epochs"].dropna()])
    named = {_length_name(length): style for length, style in lengths.items()}
    others = method_styles({label: method for label, method in _others(agreement).items() if label not in named})
    styles = {**named, **others}
    with figure_style():
        figure = figure_page(_ROW + legend_height(styles))
        axes = list(figure.subplots(1, 3 if several else 2))
        names = letters(len(axes))
        best = _best(performance)
        if several:
            _draw_learning_rates(axes[0], performance, lengths, "validation_correlation")
            title_panel(axes[0], names[0], "Learning rate", "mean ± SD over seeds; ring: best mean")
        _draw_best(axes[-2], best, lengths)
        title, note = "At the best learning rate", "chosen on validation; mean ± SD over seeds"
        if not several:
            title, note = (
                "Predictive performance",
                f"learning rate {best['learning_rate'].iloc[0]:g}; mean ± SD over seeds",
            )
        title_panel(axes[-2], names[-2], title, note)
        lines = {label: styles[label] for label in dict.fromkeys(labels)}
        draw_against_k(axes[-1], agreement.assign(line=labels), lines, width=PAGE_WIDTH / len(axes), by="line")
        note = spread_note(agreement["n_pairs"], "pair of seeds", "pairs of seeds")
        title_panel(axes[-1], names[-1], "Agreement between seeds", note)
        legend_below(figure, [_handle(style, label) for label, style in styles.items()])
    return figure


def learning_rate_figure(performance: pd.DataFrame) -> Figure:
    """Draw validation and test correlation against the learning rate, for each strength of the clustering loss.

    Parameters
    ----------
    performance
        As for :func:`pretraining_figure`, with ``strength`` (a number; 0: no clustering loss), of which at most five
        are drawn; without that column all rows are of one strength.

    Returns
    -------
    Figure
        A column per strength; validation above, test below, each row with one scale.

    Raises
    ------
    SettingsError
        If the frame is empty, lacks a column, a column is not numeric, or there are two rows where one can be drawn.

    See Also
    --------
    pretraining_figure : Draws one strength, with the agreement.
    december_plugin.plots.strength_figure : Draws what the strength of the clustering loss does.
    december_plugin.results.performance_frame : Returns the performance of a lab's models.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import learning_rate_figure
    >>> performance = pd.DataFrame({"strength": [0, 0, 10, 10], "learning_rate": [0.003, 0.009, 0.003, 0.009]})
    >>> performance["validation_correlation_mean"] = [0.37, 0.38, 0.36, 0.35]
    >>> performance["test_correlation_mean"] = [0.36, 0.37, 0.35, 0.34]
    >>> performance = performance.assign(
    ...     pretrain_epochs=20, validation_correlation_sd=0.003, test_correlation_sd=0.003
    ... )
    >>> figure = learning_rate_figure(performance)
    >>> [ax.get_title(loc="left") for ax in figure.axes[:2]]
    ['A  no clustering loss', 'B  strength 10']
    """
    titled = isinstance(performance, pd.DataFrame) and "strength" in performance
    if isinstance(performance, pd.DataFrame) and not titled:
        performance = performance.assign(strength=1.0)
    keys = ("strength", "pretrain_epochs", "learning_rate")
    performance = _checked_performance(performance, keys)
    strengths = sorted(performance["strength"].unique())[:_MAX_STRENGTHS]
    lengths = ordered_styles(performance["pretrain_epochs"])
    names = [_length_name(length) for length in lengths]
    width = min(PAGE_WIDTH, 2.6 * len(strengths))
    with figure_style():
        figure = figure_page(2 * 2.1 + 0.3 + legend_height(names, width=width), width=width)
        axes = figure.subplots(2, len(strengths), squeeze=False, sharex=True, sharey="row")
        panel_names = letters(2 * len(strengths))
        for i, score in enumerate(("validation_correlation", "test_correlation")):
            for j, strength in enumerate(strengths):
                rows = performance[performance["strength"] == strength]
                _draw_learning_rates(axes[i, j], rows, lengths, score, ylabel=j == 0, xlabel=i == 1)
                title = _strength_title(strength) if titled and i == 0 else ""
                title_panel(axes[i, j], panel_names[i * len(strengths) + j], title)
            set_value_limits(axes[i, 0], performance[f"{score}_mean"], performance[f"{score}_sd"])
        legend_below(figure, [_handle(style, _length_name(n)) for n, style in lengths.items()], width=width)
    return figure


def _checked_performance(performance: pd.DataFrame, keys: tuple[str, ...]) -> pd.DataFrame:
    what = "the frame of performance"
    numbers = tuple(dict.fromkeys((*keys, *_NUMBERS)))
    performance = checked_frame(performance, what, numbers=numbers, empty="no model has been trained yet.")
    check_known(performance, what, "validation_correlation_mean")
    check_once(performance, what, keys, "Draw one dataset, model and strength at a time.")
    return performance.sort_values(list(keys), ignore_index=True)


def _checked_agreement(agreement: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the frame and the label of every row."""
    what = "the table"
    numbers = ("pretrain_epochs", "n_clusters", "agreement_mean", "agreement_sd", "n_pairs")
    agreement = checked_frame(agreement, what, numbers=numbers, empty="no agreement has been computed yet.")
    check_counts(agreement, what)
    check_known(agreement, what, "agreement_mean")
    agreement = agreement.sort_values("pretrain_epochs", kind="stable", ignore_index=True)
    methods = agreement["label"] if "label" in agreement else pd.Series(_UNNAMED, index=agreement.index)
    labels = [
        str(method) if pd.isna(length) else _length_name(length)
        for length, method in zip(agreement["pretrain_epochs"], methods, strict=True)
    ]
    check_once(
        agreement.assign(line=labels), what, ("line", "n_clusters"), "Draw one dataset, model and strength at a time."
    )
    return agreement, labels


def _others(agreement: pd.DataFrame) -> dict[str, Method | str]:
    """Return the methods of the rows without a length."""
    rows = agreement[agreement["pretrain_epochs"].isna()]
    return methods_of(rows if "label" in rows else rows.assign(label=_UNNAMED))


def _strength_title(strength: float) -> str:
    return f"strength {strength:g}" if strength else "no clustering loss"


def _length_name(length: float) -> str:
    return f"pretraining {length:g} epochs"


def _best(performance: pd.DataFrame) -> pd.DataFrame:
    known = performance.dropna(subset="validation_correlation_mean")
    return known.loc[known.groupby("pretrain_epochs")["validation_correlation_mean"].idxmax()]


def _draw_learning_rates(
    ax: Axes,
    performance: pd.DataFrame,
    lengths: dict[Any, MethodStyle],
    score: str,
    *,
    ylabel: bool = True,
    xlabel: bool = True,
) -> None:
    for length, style in lengths.items():
        rows = performance[(performance["pretrain_epochs"] == length) & performance[f"{score}_mean"].notna()]
        draw_means(*(ax, rows, f"{score}_mean", f"{score}_sd", _length_name(length), style), x="learning_rate")
    if score == "validation_correlation":
        best = _best(performance)
        ring: dict[str, Any] = {
            "markersize": 10,
            "markerfacecolor": "none",
            "markeredgecolor": "#333333",
            "markeredgewidth": 0.8,
        }
        ax.plot(best["learning_rate"], best["validation_correlation_mean"], "o", zorder=6, label="_best", **ring)
    set_value_limits(ax, performance[f"{score}_mean"], performance[f"{score}_sd"])
    rates = sorted(performance["learning_rate"].unique())
    if rates[0] > 0:
        ax.set_xscale("log")
        decades(ax, "x")
        factor = (rates[-1] / rates[0]) ** 0.08 if len(rates) > 1 else 2.0
        ax.set_xlim(rates[0] / factor, rates[-1] * factor)
    if len(rates) <= 5:
        ax.xaxis.set_major_locator(FixedLocator(rates))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.tick_params(axis="x", labelsize=6.5)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("learning rate" if xlabel else "")
    ax.set_ylabel(score.replace("_", " ") if ylabel else "")
    ax.grid(axis="y")


def _draw_best(ax: Axes, best: pd.DataFrame, lengths: dict[Any, MethodStyle]) -> None:
    known = best.dropna(subset="test_correlation_mean")
    ax.plot(
        known["pretrain_epochs"],
        known["test_correlation_mean"],
        color="#8A8A8A",
        linewidth=1.0,
        zorder=2,
        label="_line",
    )
    for length, style in lengths.items():
        rows = known[known["pretrain_epochs"] == length]
        if len(rows):
            settings: dict[str, Any] = {"x": "pretrain_epochs", "joined": False}
            draw_means(
                ax, rows, "test_correlation_mean", "test_correlation_sd", _length_name(length), style, **settings
            )
    if len(known):
        set_value_limits(ax, known["test_correlation_mean"], known["test_correlation_sd"])
    ax.set_xticks(sorted(best["pretrain_epochs"]))
    ax.set_xlabel("epochs of pretraining")
    ax.set_ylabel("test correlation")
    ax.margins(x=0.1)
    ax.grid(axis="y")


def _handle(style: MethodStyle, label: str) -> Line2D:
    return Line2D([], [], label=label, **style.line_settings())
