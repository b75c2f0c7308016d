"""Groupings of neurons, ready to be drawn: which neurons have a label, how groups are ordered and coloured."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from december_plugin.errors import SettingsError
from december_plugin.evaluation.matching import match_counts
from december_plugin.plots.style import GROUP_COLORS, check_text, group_colors, natural_order


@dataclass(frozen=True)
class Grouping:
    """One grouping of N neurons.

    Attributes
    ----------
    title
        What the panel is called.
    names
        Names of the groups, numbers in numerical order.
    codes
        Index into ``names``, shape (N,); -1 where a neuron has no label.
    colors
        One colour per group.
    """

    title: str
    names: tuple[str, ...]
    codes: np.ndarray
    colors: tuple[str, ...] = ()

    @property
    def counts(self) -> np.ndarray:
        """Number of neurons of each group."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))


def as_groupings(groupings: Mapping[str, Any], n_neurons: int, *, reference: str | None = None) -> list[Grouping]:
    """Check groupings and give their groups colours.

    The reference, by default the grouping that labels most neurons (of several, the one with the fewest groups), takes
    the colours in their order. In every other one, a group takes the colour of the group that it shares most neurons
    with, one to one and best in sum (Hungarian algorithm); groups that are left over take unused colours, as long as
    there are any. If two groupings agree, their panels look the same.

    Parameters
    ----------
    groupings
        Labels, each of length N, by title.
    n_neurons
        N.
    reference
        Title of the grouping that takes the colours in their order; None chooses.

    Returns
    -------
    list of Grouping
        In the order given.

    Raises
    ------
    SettingsError
        If there is no grouping, none has the reference's title, or there is not one label per neuron.
    """
    if not isinstance(groupings, Mapping) or not groupings:
        raise SettingsError(
            "there is no grouping to draw; groupings must map a title to labels, e.g. {'cluster': labels}."
        )
    found = [_encoded(title, labels, n_neurons) for title, labels in groupings.items()]
    if reference is not None and reference not in groupings:
        raise SettingsError(f"there is no grouping {reference!r}; there are {', '.join(map(repr, groupings))}.")
    first = min(found, key=lambda g: (g.title != reference, -g.counts.sum(), len(g.names)))
    first = replace(first, colors=tuple(group_colors(len(first.names))))
    free = itertools.cycle([color for color in GROUP_COLORS if color not in first.colors] or GROUP_COLORS)
    return [first if grouping.title == first.title else _matched(grouping, first, free) for grouping in found]


def _encoded(title: Any, labels: Any, n_neurons: int) -> Grouping:
    title = check_text(title, "the title of a grouping")
    if isinstance(labels, (str, bytes)) or not hasattr(labels, "__len__"):
        raise SettingsError(f"the labels of {title!r} are {type(labels).__name__}; a sequence of labels is needed.")
    values = list(labels)
    if len(values) != n_neurons:
        raise SettingsError(
            f"the grouping {title!r} has {len(values)} labels for {n_neurons} readout vectors; it needs one per "
            "vector, in the same order (None, '' or -1 where there is none)."
        )
    names = [_name(value, title) for value in values]
    order = tuple(sorted({name for name in names if name is not None}, key=natural_order))
    position = {name: i for i, name in enumerate(order)}
    codes = np.array([-1 if name is None else position[name] for name in names], dtype=np.int64)
    return Grouping(title, order, codes)


def _name(value: Any, title: str) -> str | None:
    """Return what a label is called in the figure, or None if it means "no label"."""
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return None if value == -1 else str(int(value))
    if isinstance(value, (float, np.floating)):
        if np.isnan(value) or value == -1:
            return None
        return f"{value:g}"
    if isinstance(value, str):
        return value.strip() or None
    if hasattr(value, "__len__") or isinstance(value, np.ndarray):
        raise SettingsError(f"the grouping {title!r} has the label {value!r}; a label is a number or a text.")
    # pandas.NA and NaT are equal to nothing, not even to themselves.
    return None if str(value) in ("<NA>", "NaT") else str(value)


def _matched(grouping: Grouping, reference: Grouping, free: Iterator[str]) -> Grouping:
    """Give the groups the colours of the reference's groups that they share most neurons with."""
    n = len(grouping.names)
    shared = np.zeros((n, len(reference.names)), dtype=np.int64)
    both = (grouping.codes >= 0) & (reference.codes >= 0)
    np.add.at(shared, (grouping.codes[both], reference.codes[both]), 1)
    colors = {int(i): reference.colors[k] for i, k in zip(*match_counts(shared), strict=True)}
    return replace(grouping, colors=tuple(colors[i] if i in colors else next(free) for i in range(n)))
