"""CSV files that a spreadsheet shows as they are."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd

# What a spreadsheet mistakes for the beginning of a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose texts no spreadsheet mistakes for a formula: those that begin like one get an apostrophe."""
    changed = {}
    for name in frame.columns:
        column = frame[name]
        if column.dtype.kind in "biufcmM":
            continue
        risky = [isinstance(value, str) and value.startswith(FORMULA_STARTS) for value in column]
        if any(risky):
            changed[name] = [f"'{value}" if is_risky else value for value, is_risky in zip(column, risky, strict=True)]
    return frame.assign(**changed) if changed else frame


def write_csv(frame: pd.DataFrame, target: str | PathLike[str] | IO[str], **options: Any) -> None:
    """Write a frame as CSV without its index; ``options`` are those of :meth:`pandas.DataFrame.to_csv`."""
    without_formulas(frame).to_csv(target, index=False, **options)
