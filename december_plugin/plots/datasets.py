"""Agreement of several datasets, and their weighted mean (Figures 7 and 15)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from december_plugin.errors import SettingsError
from december_plugin.evaluation.agreement import pool_mean_sd
from december_plugin.plots.frames import check_counts, check_known, check_once, checked_frame
from december_plugin.plots.method_lines import draw_against_k
from december_plugin.plots.panels import (
    PAGE_WIDTH,
    figure_page,
    legend_below,
    legend_height,
    letters,
    shortened,
    title_panel,
)
from december_plugin.plots.shown import shown_methods
from december_plugin.plots.style import figure_style

_MAX_COLUMNS, _ROW = 3, 2.35
_WHAT = "the table"


def weighted_agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over datasets, weighted by their numbers of neurons, by method and K.

    The standard deviation follows the law of total variance: it combines the spread within the datasets and between
    them (:func:`december_plugin.evaluation.agreement.pool_mean_sd`). A mean is computed only if all datasets have a
    value; otherwise it would be a mean over different neurons.

    Parameters
    ----------
    table
        One row per dataset, method and K: ``dataset``, ``label``, ``n_clusters``, ``agreement_mean``,
        ``agreement_sd``, ``n_neurons``.

    Returns
    -------
    pandas.DataFrame
        ``label``, ``n_clusters``, ``agreement_mean``, ``agreement_sd`` (NaN if a dataset has none), ``n_datasets``,
        ``n_neurons``.

    Raises
    ------
    SettingsError
        If the table is empty, lacks a column, a column is not numeric, or there are two rows where only one is allowed.

    See Also
    --------
    datasets_figure : Draws the datasets and their mean.
    december_plugin.results.datasets_frame : Returns the table of a lab.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import weighted_agreement
    >>> table = pd.DataFrame({"dataset": ["retina 1", "retina 2"], "label": "k-means", "n_clusters": 5})
    >>> table = table.assign(agreement_mean=[0.6, 0.8], agreement_sd=0.05, n_neurons=[300, 100])
    >>> weighted_agreement(table)[["label", "agreement_mean", "agreement_sd", "n_neurons"]]
         label  agreement_mean  agreement_sd  n_neurons
    0  k-means            0.65           0.1        400
    """
    table = _checked(table)
    n_datasets = table["dataset"].nunique()
    rows = []
    for (method, n_clusters), group in table.groupby(["label", "n_clusters"], sort=False):
        known = group.dropna(subset=["agreement_mean", "n_neurons"])
        if known["dataset"].nunique() < n_datasets:
            continue
        mean, sd = pool_mean_sd(known["agreement_mean"], known["agreement_sd"], known["n_neurons"])
        rows.append((method, n_clusters, float(mean), float(sd), n_datasets, int(known["n_neurons"].sum())))
    columns = ["label", "n_clusters", "agreement_mean", "agreement_sd", "n_datasets", "n_neurons"]
    return pd.DataFrame(rows, columns=columns)


def datasets_figure(table: pd.DataFrame) -> Figure:
    """Draw the agreement between seeds of several datasets, their weighted mean first.

    Parameters
    ----------
    table
        As for :func:`weighted_agreement`. With one dataset there is no panel of the mean.

    Returns
    -------
    Figure
        Panels with one scale, three side by side; the mean has a corridor of one SD, the datasets have bars.

    Raises
    ------
    SettingsError
        As for :func:`weighted_agreement`.

    See Also
    --------
    weighted_agreement : Returns the weighted mean.
    december_plugin.plots.agreement_figure : Draws one dataset.
    december_plugin.results.datasets_frame : Returns the table of a lab.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import datasets_figure
    >>> table = pd.DataFrame({"dataset": ["retina 1", "retina 2"], "label": "k-means", "n_clusters": 5})
    >>> table = table.assign(agreement_mean=[0.6, 0.8], agreement_sd=0.05, n_neurons=[300, 100])
    >>> [ax.get_title(loc="left") for ax in datasets_figure(table).axes]
    ['A  All 2 datasets', 'B  retina 1', 'C  retina 2']
    """
    table = _checked(table)
    datasets = list(dict.fromkeys(table["dataset"]))
    shown = shown_methods(table, "agreement_mean")
    handles = shown.handles()
    pooled = weighted_agreement(table) if len(datasets) > 1 else None
    n_panels = len(datasets) + (pooled is not None)
    n_columns = min(n_panels, _MAX_COLUMNS)
    n_rows = -(-n_panels // n_columns)
    with figure_style():
        figure = figure_page(n_rows * _ROW + legend_height(str(handle.get_label()) for handle in handles))
        axes = list(figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).flat)
        settings: dict[str, Any] = {"styles": shown.styles, "others": shown.others, "width": PAGE_WIDTH / n_columns}
        panels = list(zip(axes, letters(n_panels), strict=False))
        if pooled is not None:
            ax, name = panels.pop(0)
            draw_against_k(ax, _on_all_counts(pooled, table), corridor=True, **settings)
            title_panel(ax, name, f"All {len(datasets)} datasets", "weighted by neurons; band: SD")
        for (ax, name), dataset in zip(panels, datasets, strict=True):
            rows = table[table["dataset"] == dataset]
            draw_against_k(ax, _on_all_counts(rows, table), **settings)
            title_panel(ax, name, shortened(dataset, PAGE_WIDTH / n_columns), f"{_range(rows['n_neurons'])} neurons")
        for i, ax in enumerate(axes):
            if i >= n_panels:
                ax.remove()
            elif i % n_columns:
                ax.set_ylabel("")
        _set_common_limits(axes[0], table)
        legend_below(figure, handles)
    return figure


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    table = checked_frame(
        *(table, _WHAT),
        text=("dataset", "label"),
        numbers=("n_clusters", "agreement_mean", "agreement_sd", "n_neurons"),
        empty="no agreement that could be drawn has been computed yet.",
    )
    check_counts(table, _WHAT)
    check_known(table, _WHAT, "agreement_mean")
    check_once(table, _WHAT, ("dataset", "label", "n_clusters"), "Draw one model at a time.")
    if not (table["n_neurons"].dropna() > 0).all():
        raise SettingsError(f"the column 'n_neurons' of {_WHAT} must hold numbers of neurons, at least 1.")
    return table


def _on_all_counts(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows, and empty ones, so that every panel has the axis of all values of K."""
    return pd.concat([rows, pd.DataFrame({"n_clusters": table["n_clusters"].unique()})])


def _set_common_limits(ax: Axes, table: pd.DataFrame) -> None:
    sd = table["agreement_sd"].fillna(0.0)
    low, high = float((table["agreement_mean"] - sd).min()), float((table["agreement_mean"] + sd).max())
    ax.set_ylim(min(low, 0.0) * 1.05, high * 1.05 if high > 0 else 0.05)


def _range(counts: pd.Series) -> str:
    known = counts.dropna()
    if known.empty:
        return "? "
    low, high = int(known.min()), int(known.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
