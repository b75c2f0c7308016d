"""Fields of a dataset's batches, for callers that keep the data elsewhere and make batches there."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Column(NamedTuple):
    """One field of all items of a dataset.

    Attributes
    ----------
    values
        (rows, ...) float32; datasets may share them. Do not write into them.
    rows
        (items,) int64 row of each item; None: every item has the row of its own position.
    length
        None: an item is one row. Otherwise it is this many rows from its position on, (length, ...): a stretch of a
        movie.
    channels_first
        Whether a stretch of rows (channels, ...) is (channels, length, ...).
    """

    values: Tensor
    rows: Tensor | None = None
    length: int | None = None
    channels_first: bool = False


@runtime_checkable
class HasColumns(Protocol):
    """A dataset whose batch of some items is, field by field, the rows of these items, and nothing else."""

    def columns(self) -> dict[str, Column] | None:
        """Return the fields of a batch by name, in their order; None if they are not in memory."""
