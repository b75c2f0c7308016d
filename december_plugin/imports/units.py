"""Tables of units: which neuron each row of an array belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from december_plugin.embeddings.neuron_ids import NeuronIds, whole_numbers
from december_plugin.errors import EmbeddingError, SettingsError, did_you_mean
from december_plugin.imports.arrays import TABLES, read_table
from december_plugin.text.array_repr import ArrayRepr
from december_plugin.text.stored_text import check_session_names

if TYPE_CHECKING:
    import pandas as pd

# Columns that name a session; the first that a table has count. Several are joined: session 4, scan 7 is "4-7".
SESSION_COLUMNS = (("data_key",), ("session", "scan_idx"), ("session", "scan"), ("session",))
UNIT_COLUMN = "unit_id"
JOINED_BY = "-"


@dataclass(frozen=True, eq=False, repr=False)
class Units(ArrayRepr):
    """The identities of the neurons in the rows of an array.

    Attributes
    ----------
    data_keys
        Session of every neuron, (N,) str.
    unit_ids
        Unit id within its session, (N,) int64.
    test_correlations
        How well the model predicts the neuron on held-out trials, (N,) float64 (-1 to 1; NaN where unknown); None if
        not requested.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.imports import Units
    >>> units = Units(data_keys=np.array(["4-7", "4-7", "5-1"]), unit_ids=np.array([12, 30, 12]))
    >>> units.by_session()
    {'4-7': array([12, 30]), '5-1': array([12])}
    """

    data_keys: np.ndarray
    unit_ids: np.ndarray
    test_correlations: np.ndarray | None = field(default=None)

    def __len__(self) -> int:
        return len(self.unit_ids)

    def by_session(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return the unit ids of every session, each in the order of the rows."""
        return {str(data_key): self.unit_ids[self.data_keys == data_key] for data_key in np.unique(self.data_keys)}


def read_units(
    table: str | Path | pd.DataFrame,
    *,
    session: str | Sequence[str] | None = None,
    unit_id: str = UNIT_COLUMN,
    test_correlation: str | None = None,
) -> Units:
    """Return the identities of the neurons in the rows of a table.

    Parameters
    ----------
    table
        CSV or Parquet, one row per neuron, or a frame.
    session
        The column that names the session, or several, which are joined by hyphens. None: ``data_key``, or ``session``
        and ``scan_idx``, or ``session`` and ``scan``, or ``session``, the first that exists.
    unit_id
        The column with the unit id, a whole number that is unique within its session.
    test_correlation
        The column with the correlation between response and prediction on held-out trials.

    Raises
    ------
    EmbeddingError
        If the table cannot be read, lacks a column, or has unit ids that are not whole numbers or occur twice, or
        sessions without a name or with one that cannot be stored.

    See Also
    --------
    read_readouts : Reads the vectors of these neurons.
    december_plugin.imports.Units : What it returns.

    Examples
    --------
    >>> import pandas as pd
    >>> from december_plugin.imports import read_units
    >>> table = pd.DataFrame({"data_key": ["1-1-1", "1-1-1", "2-1-1"], "unit_id": [4, 7, 4]})
    >>> read_units(table, session="data_key").unit_ids.tolist()
    [4, 7, 4]
    """
    name = "the table of units"
    if isinstance(table, (str, Path)):
        name = str(table)
        if Path(table).suffix not in TABLES:
            raise EmbeddingError(f"{name} is of an unknown kind; tables of units are {' or '.join(TABLES)} files.")
        table = read_table(table)
    columns = [str(column) for column in table.columns]
    frame = table.set_axis(columns, axis=1)
    chosen = session_columns(columns, session, name)
    for column in (*chosen, unit_id, *([test_correlation] if test_correlation else [])):
        if column not in columns:
            raise EmbeddingError(f"{name} has no column {column!r}. {did_you_mean(column, columns)}")
    data_keys = _joined(frame, chosen, name)
    unit_ids = whole_numbers(frame[unit_id].to_numpy())
    if unit_ids is None:
        raise EmbeddingError(f"the column {unit_id!r} of {name} has values that are not whole numbers.")
    try:
        check_session_names(np.unique(data_keys).tolist())
        NeuronIds(data_keys, unit_ids)
    except (SettingsError, ValueError) as error:
        raise EmbeddingError(f"{name}: {error}") from None
    scores = None if test_correlation is None else _scores(frame[test_correlation], test_correlation, name)
    return Units(data_keys, unit_ids, scores)


def session_columns(columns: Sequence[str], session: str | Sequence[str] | None, name: str) -> tuple[str, ...]:
    """Return the columns that name a session: the given ones, or the first of the usual ones that exist.

    Raises
    ------
    EmbeddingError
        If none is given and none of the usual ones exists.
    """
    if session is not None:
        return (session,) if isinstance(session, str) else tuple(session)
    for usual in SESSION_COLUMNS:
        if set(usual) <= set(columns):
            return usual
    raise EmbeddingError(
        f"{name} has no column that names the session (data_key, or session, with scan_idx or scan if there are "
        f"several). It has {', '.join(columns)}. Say which it is with session."
    )


def _joined(frame: pd.DataFrame, columns: Sequence[str], name: str) -> npt.NDArray[np.str_]:
    parts = []
    for column in columns:
        if frame[column].isna().any():
            raise EmbeddingError(f"the column {column!r} of {name} has rows without a session.")
        values = frame[column].to_numpy()
        numbers = whole_numbers(values) if values.dtype.kind in "iuf" else None
        parts.append((values if numbers is None else numbers).astype(str))
    joined = parts[0]
    for part in parts[1:]:
        joined = np.char.add(np.char.add(joined, JOINED_BY), part)
    return np.asarray(joined, dtype=str)


def _scores(column: pd.Series[Any], named: str, name: str) -> npt.NDArray[np.float64]:
    if column.dtype.kind not in "iuf":
        raise EmbeddingError(f"the column {named!r} of {name} does not hold numbers.")
    scores = column.to_numpy(dtype=np.float64)
    known = scores[~np.isnan(scores)]
    if len(known) and (np.abs(known) > 1).any():
        raise EmbeddingError(
            f"the column {named!r} of {name} has values up to {np.abs(known).max():.3g}; correlations are from -1 to 1."
        )
    return scores


def units_of_mapping(unit_ids: Mapping[str, Any]) -> Units:
    """Return the neurons of a mapping of data key to unit ids (n,), session after session."""
    try:
        ids = NeuronIds.of(unit_ids)
    except SettingsError as error:
        raise EmbeddingError(f"the unit ids: {error}") from None
    numbers = whole_numbers(ids.unit_ids)
    if numbers is None:
        raise EmbeddingError("the unit ids have values that are not whole numbers.")
    return Units(ids.data_keys, numbers)
