"""Checks of the data frames of figures: columns, texts, numbers, and one row where only one can be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.errors import SettingsError
from december_plugin.evaluation.methods import Method
from december_plugin.plots.style import check_text


def checked_frame(
    frame: Any,
    what: str,
    *,
    text: Sequence[str] = (),
    numbers: Sequence[str] = (),
    optional: Sequence[str] = (),
    empty: str,
) -> pd.DataFrame:
    """Return a copy of a frame with the columns that a figure needs, or raise an error that says what is wrong.

    Parameters
    ----------
    frame
        What the caller passed.
    what
        What the frame is called in messages, e.g. "the table".
    text, numbers
        Columns that must be there; numbers become float64, and what is not finite becomes NaN.
    optional
        Further columns of numbers; one that is not there is added as NaN.
    empty
        What it means that the frame has no rows.

    Raises
    ------
    SettingsError
        If it is not a frame, has no rows, lacks a column, or a column holds something other than texts or numbers, or
        a negative standard deviation (columns ``sd`` and ``..._sd``).
    """
    needed = (*text, *numbers)
    if not isinstance(frame, pd.DataFrame):
        raise SettingsError(
            f"{what} is {type(frame).__name__}; it must be a pandas.DataFrame with the columns {', '.join(needed)}."
        )
    missing = [name for name in needed if name not in frame]
    if missing:
        raise SettingsError(
            f"{what} has no column {missing[0]!r}. Needed: {', '.join(needed)}. "
            f"It has: {', '.join(map(str, frame.columns)) or 'none'}."
        )
    if frame.empty:
        raise SettingsError(f"{what} has no rows: {empty}")
    frame = frame.copy()
    for name in text:
        for value in frame[name].unique():
            check_text(value, f"a {name} of {what}")
    for name in (*numbers, *optional):
        frame[name] = _numbers(frame[name], name, what) if name in frame else np.nan
    return frame


def checked_agreement(agreement: Any, advice: str) -> pd.DataFrame:
    """Return a copy of a table of agreement between seeds, one row for each ``label`` and ``n_clusters``.

    Parameters
    ----------
    agreement
        What the caller passed.
    advice
        What to do about two rows where one can be drawn.

    Raises
    ------
    SettingsError
        As :func:`checked_frame`; for numbers of clusters below 1, for no agreement at all, or for two such rows.
    """
    what = "the table"
    agreement = checked_frame(
        *(agreement, what),
        text=("label",),
        numbers=("n_clusters", "agreement_mean", "agreement_sd", "n_pairs"),
        empty="no agreement that could be drawn has been computed yet.",
    )
    check_counts(agreement, what)
    check_known(agreement, what, "agreement_mean")
    check_once(agreement, what, ("label", "n_clusters"), advice)
    return agreement


def _numbers(column: pd.Series, name: str, what: str) -> pd.Series:
    try:
        values = pd.to_numeric(column).astype("float64")
    except (TypeError, ValueError):
        raise SettingsError(f"the column {name!r} of {what} holds values that are not numbers.") from None
    if (name == "sd" or name.endswith("_sd")) and (values < 0).any():
        raise SettingsError(f"the column {name!r} of {what} holds a negative standard deviation.")
    return values.where(np.isfinite(values))


def check_counts(frame: pd.DataFrame, what: str, column: str = "n_clusters") -> None:
    """Raise a :class:`SettingsError` unless a column holds integers of at least 1."""
    values = frame[column]
    if not ((values >= 1) & (values == values.round())).all():
        raise SettingsError(f"the column {column!r} of {what} must hold integers of at least 1.")


def check_known(frame: pd.DataFrame, what: str, column: str) -> None:
    """Raise a :class:`SettingsError` if a column holds no finite value at all."""
    if not frame[column].notna().any():
        raise SettingsError(f"the column {column!r} of {what} holds no finite value.")


def check_once(frame: pd.DataFrame, what: str, columns: Sequence[str], advice: str) -> None:
    """Raise a :class:`SettingsError` if two rows agree in these columns."""
    twice = frame[frame.duplicated(list(columns))]
    if len(twice):
        row = ", ".join(f"{name} = {_shown(twice[name].iloc[0])}" for name in columns)
        raise SettingsError(f"{what} has more than one row with {row}. {advice}")


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else repr(value)


def methods_of(frame: pd.DataFrame, by: str = "label") -> dict[str, Method | str]:
    """Return the labels of a frame, in the order in which they come, with the methods that they stand for.

    Parameters
    ----------
    frame
        The labels in the column ``by``, and optionally ``identity``: each row's
        :class:`~december_plugin.evaluation.methods.Method`. A label without one is just a name.
    by
        Column of the labels.
    """
    labels = [str(label) for label in frame[by]]
    identities = frame["identity"] if "identity" in frame else [None] * len(labels)
    found: dict[str, Method | str] = {}
    for label, identity in zip(labels, identities, strict=True):
        if label not in found or isinstance(found[label], str):
            found[label] = identity if isinstance(identity, Method) else label
    return found
