"""The methods that a figure shows in colour when there are too many to distinguish."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from december_plugin.plots.frames import methods_of
from december_plugin.plots.panels import line_handles
from december_plugin.plots.style import Methods, MethodStyle, as_method, by_label, method_styles, ordered_methods

MOST_SHOWN = 12
OTHERS_COLOR = "#C4C4C4"


@dataclass(frozen=True)
class ShownMethods:
    """The methods of one figure.

    Attributes
    ----------
    styles
        Those in colour with their styles, in the order of every legend.
    others
        The remaining ones, drawn as thin grey lines.

    See Also
    --------
    shown_methods : Makes the selection.
    december_plugin.plots.method_styles : Gives the methods their styles.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import shown_methods
    >>> table = pd.DataFrame({"label": ["a", "b", "c"], "n_clusters": 5, "agreement_mean": [0.5, 0.7, 0.6]})
    >>> shown = shown_methods(table, "agreement_mean", most=2)
    >>> [handle.get_label() for handle in shown.handles()]
    ['b', 'c', '1 other, grey']
    """

    styles: dict[str, MethodStyle]
    others: tuple[str, ...] = ()

    @property
    def others_label(self) -> str:
        """What the legend calls the remaining ones."""
        return f"{len(self.others)} other{'s' if len(self.others) != 1 else ''}, grey"

    def handles(self) -> list[Line2D]:
        """Return the entries of the legend."""
        others = [Line2D([], [], color=OTHERS_COLOR, linewidth=1.0, label=self.others_label)] if self.others else []
        return [*line_handles(self.styles), *others]


def shown_methods(table: pd.DataFrame, value: str, *, by: str = "label", most: int = MOST_SHOWN) -> ShownMethods:
    """Return which methods a figure shows in colour: all of at most 12, otherwise the best few of each kind.

    Kinds (DECEMber, Gaussian mixture, k-means, ..., and the controls of each) take turns: first the best of each, then
    the second best, until 12 are found. The best method is the one with the largest mean difference from the mean of
    all methods at the same K, so that none benefits from having been tried only at a favourable K. The best of many
    methods were partly lucky: base conclusions on the table of all methods, not on a figure of a few.

    Parameters
    ----------
    table
        One row per method and K: the column ``by``, ``n_clusters``, and the value; optionally ``identity``, see
        :func:`~december_plugin.plots.frames.methods_of`.
    value
        Column of a value of which more is better.
    by
        Column of the methods' labels.
    most
        Largest number of methods in colour, at least 1.

    Returns
    -------
    ShownMethods
        The selection; it does not depend on the order of the rows.

    See Also
    --------
    december_plugin.plots.method_styles : Returns the styles of all methods of a figure.
    december_plugin.plots.agreement_figure : Draws such a selection.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.plots import shown_methods
    >>> table = pd.DataFrame({"label": [f"setting {n}" for n in range(15)], "n_clusters": 5})
    >>> table["agreement_mean"] = 0.02 * table.index
    >>> shown = shown_methods(table, "agreement_mean")
    >>> len(shown.styles), shown.others
    (12, ('setting 0', 'setting 1', 'setting 2'))
    """
    methods = methods_of(table, by)
    labels = ordered_methods(methods)
    if len(labels) <= most:
        return ShownMethods(method_styles(methods))
    values = pd.to_numeric(table[value]) if value in table else pd.Series(0.0, index=table.index)
    above = values - values.groupby(table["n_clusters"]).transform("mean")
    score = above.groupby(table[by].astype(str)).mean()
    ranked = sorted(labels, key=lambda label: (-score[label] if score[label] == score[label] else float("inf"), label))
    chosen = set(_in_turns({label: methods[label] for label in ranked})[:most])
    return ShownMethods(
        method_styles({label: methods[label] for label in labels if label in chosen}),
        tuple(label for label in labels if label not in chosen),
    )


def _in_turns(ranked: Methods) -> list[str]:
    """Return labels so that kinds take turns: the first of every kind, then the second, ..."""
    seen: dict[tuple[str, bool], int] = {}
    turns = []
    for label, method in by_label(ranked).items():
        kind = as_method(method).kind, as_method(method).is_control
        seen[kind] = seen.get(kind, 0) + 1
        turns.append((seen[kind], label))
    return [label for _, label in sorted(turns, key=lambda turn: turn[0])]


def draw_others(
    ax: Axes, rows: pd.DataFrame, others: Iterable[str], value: str, *, x: str = "n_clusters", by: str = "label"
) -> None:
    """Draw the remaining methods as thin grey lines, one artist for all of them; a single value is a grey point."""
    at: list[float] = []
    values: list[float] = []
    kept = rows[rows[by].isin(set(others)) & rows[value].notna()]
    for _, line in kept.sort_values(x, kind="stable").groupby(by, sort=True):
        at += [*line[x], float("nan")]
        values += [*line[value], float("nan")]
    if at:
        single = kept.groupby(by)[x].size().max() == 1
        settings = {"linestyle": "none", "marker": "_", "markersize": 5} if single else {"linewidth": 0.6}
        ax.plot(at, values, color=OTHERS_COLOR, zorder=1.2, label="_others", **settings)
