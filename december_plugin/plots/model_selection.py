"""What four criteria say about the number of clusters K, side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter
from matplotlib.transforms import ScaledTranslation

from december_plugin.errors import SettingsError
from december_plugin.evaluation.model_selection import AGREEMENT, CRITERIA, OF_ONE_MODEL, Criterion
from december_plugin.plots.frames import check_counts, check_known, check_once, checked_frame
from december_plugin.plots.method_lines import draw_against_k, minus_best
from december_plugin.plots.panels import (
    PAGE_WIDTH,
    figure_page,
    legend_below,
    legend_height,
    letters,
    title_panel,
)
from december_plugin.plots.shown import shown_methods
from december_plugin.plots.style import INK, figure_style

# If no null is known, the agreement itself.
_WITHOUT_NULL = replace(AGREEMENT, curve="agreement", title="Agreement between {many}", value="adjusted Rand index")
NOT_BETWEEN = (
    "Likelihood, BIC and silhouette are drawn minus the best value of each curve: compare along a curve, never between "
    "curves. They refer to different readout vectors, whose scales differ between methods."
)
_ROW = 2.35
_LARGE = 1e4
_RING: dict[str, Any] = {
    "markersize": 10,
    "markerfacecolor": "none",
    "markeredgecolor": INK,
    "markeredgewidth": 0.9,
}
_WHAT = "the table"


def cluster_count_figure(table: pd.DataFrame, choices: pd.DataFrame | None = None, *, many: str = "seeds") -> Figure:
    """Draw four criteria against K, with the K that each picks, if any.

    The agreement between seeds is drawn minus the mean of its null if there is one, otherwise as it is. The held-out
    likelihood, the BIC and the silhouette refer to different readout vectors for every method and are drawn minus the
    best value of their curve: compare along a curve, never between curves. :func:`cluster_count_caption` puts the
    choices into sentences.

    Parameters
    ----------
    table
        One row per method and K: ``label`` (what the legend says), ``n_clusters``, ``agreement_mean``,
        ``agreement_sd``, and, as far as they are known, ``above_null_mean``, ``heldout_log_likelihood_mean``,
        ``bic_mean``, ``silhouette_mean`` with their ``_sd``. A criterion without any value has no panel.
    choices
        One row per method: ``label``, the K that a criterion picks or NaN in the columns ``agreement``,
        ``heldout_log_likelihood``, ``bic``, ``silhouette`` (as far as they are there). None: no marks.
    many
        What is compared: "seeds", or "models" if they differ in more than the seed.

    Returns
    -------
    Figure
        Up to four panels, two side by side.

    Raises
    ------
    SettingsError
        If the table is empty, lacks a column, a column is not numeric, there are two rows where one can be drawn, or
        every method has a single K, which leaves nothing to compare.

    See Also
    --------
    cluster_count_caption : Says in words what the criteria pick.
    december_plugin.plots.cluster_tree_figure : Draws how clusters split as K grows.
    december_plugin.results.cluster_count_table : Returns the table of a lab.
    december_plugin.results.choose_cluster_count : Returns the choices.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import cluster_count_figure
    >>> table = pd.DataFrame({"label": "Gaussian mixture", "n_clusters": [4, 6, 8], "bic_mean": [5210, 5020, 5100]})
    >>> table = table.assign(agreement_mean=[0.7, 0.8, 0.6], agreement_sd=0.05)
    >>> choices = pd.DataFrame({"label": ["Gaussian mixture"], "agreement": [6], "bic": [6]})
    >>> figure = cluster_count_figure(table, choices)
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['adjusted Rand index', 'BIC − best']
    """
    table = _checked(table)
    agreement = AGREEMENT if table["above_null_mean"].notna().any() else _WITHOUT_NULL
    panels = [each for each in (agreement, *OF_ONE_MODEL) if table[f"{each.curve}_mean"].notna().any()]
    shown = shown_methods(table, "agreement_mean")
    n_columns = min(len(panels), 2)
    n_rows = -(-len(panels) // n_columns)
    width = PAGE_WIDTH if n_columns == 2 else 4.2
    handles = shown.handles()
    if choices is not None:
        handles.append(_ring())
    labels = [str(handle.get_label()) for handle in handles]
    with figure_style():
        figure = figure_page(n_rows * _ROW + legend_height(labels, width=width), width=width)
        axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
        for ax, name, criterion in zip(axes, letters(len(panels)), panels, strict=False):
            mean, ylabel = f"{criterion.curve}_mean", criterion.value
            if criterion.of_one_model:
                table[mean], ylabel = minus_best(table, mean, best=criterion.best), f"{ylabel} − best"
            settings: dict[str, Any] = {"mean": mean, "sd": f"{criterion.curve}_sd", "ylabel": ylabel}
            offsets = draw_against_k(ax, table, shown.styles, width=width / n_columns, others=shown.others, **settings)
            if table[mean].abs().max() >= _LARGE:
                ax.yaxis.set_major_formatter(EngFormatter(sep=""))
            if choices is not None:
                _mark(ax, table, choices, criterion, offsets)
            title_panel(ax, name if len(panels) > 1 else "", criterion.title.format(many=many), _note(criterion, many))
        for ax in axes[len(panels) :]:
            ax.remove()
        legend_below(figure, handles, width=width)
    return figure


def cluster_count_caption(choices: pd.DataFrame) -> str:
    """Return the caption of the figure: how to read it, and what the criteria pick, a paragraph per method.

    Parameters
    ----------
    choices
        As for :func:`cluster_count_figure`, with ``statement``.

    Returns
    -------
    str
        Paragraphs, separated by empty lines.

    See Also
    --------
    cluster_count_figure : Draws the criteria.
    december_plugin.results.choose_cluster_count : Returns the choices.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import cluster_count_caption
    >>> choices = pd.DataFrame({"label": ["k-means"], "statement": ["only the silhouette picks a K, 6."]})
    >>> print(cluster_count_caption(choices).splitlines()[-1])
    k-means: only the silhouette picks a K, 6.
    """
    statements = [
        f"{row.label}: {row.statement}" if "label" in choices else str(row.statement) for row in choices.itertuples()
    ]
    return "\n\n".join([NOT_BETWEEN, *statements]) + "\n"


def _note(criterion: Criterion, many: str) -> str:
    if criterion.of_one_model:
        return f"along a curve only; {criterion.direction}"
    bars = f"mean ± SD over pairs of {many}" if criterion == _WITHOUT_NULL else "bars: SD of the null"
    return f"{bars}; {criterion.direction}"


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    optional = [f"{criterion.curve}_{part}" for criterion in CRITERIA for part in ("mean", "sd")]
    table = checked_frame(
        *(table, _WHAT),
        text=("label",),
        numbers=("n_clusters", "agreement_mean", "agreement_sd"),
        optional=optional,
        empty="no criterion that could be drawn has been computed yet.",
    )
    check_counts(table, _WHAT)
    known = table[["agreement_mean", *(f"{criterion.curve}_mean" for criterion in OF_ONE_MODEL)]].notna().any()
    if not known.any():
        check_known(table, _WHAT, "agreement_mean")
    check_once(table, _WHAT, ("label", "n_clusters"), "Draw one dataset and model at a time.")
    if table.groupby("label")["n_clusters"].nunique().max() < 2:
        tried = ", ".join(f"{count:g}" for count in sorted(table["n_clusters"].unique()))
        raise SettingsError(
            f"{_WHAT} has one number of clusters for each method (K = {tried}); criteria are compared along at least "
            "two of one method."
        )
    return table


def _mark(
    ax: Axes, table: pd.DataFrame, choices: pd.DataFrame, criterion: Criterion, offsets: dict[str, float]
) -> None:
    """Put a ring around the point of the K that a criterion picks."""
    column = criterion.name
    if column not in choices:
        return
    for label, offset in offsets.items():
        picked = choices.loc[choices["label"] == label, column].dropna()
        if picked.empty:
            continue
        at = (table["label"] == label) & (table["n_clusters"] == picked.iloc[0])
        values = table.loc[at, f"{criterion.curve}_mean"].dropna()
        if len(values):
            ax.plot(
                *([picked.iloc[0]], [values.iloc[0]], "o"),
                transform=ax.transData + ScaledTranslation(offset / 72, 0, ax.figure.dpi_scale_trans),
                zorder=7,
                label=f"_picked by {criterion.name}",
                **_RING,
            )


def _ring() -> Line2D:
    return Line2D([], [], linestyle="", marker="o", label="K that the criterion picks", **_RING)
