"""What the batches of a dataset are made of, for whoever keeps the data elsewhere and makes the batches there."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Column(NamedTuple):
    """One field of all trials of a dataset.

    Attributes
    ----------
    values
        (rows, ...) float32; datasets may share them. Do not write into them.
    rows
        (trials,) int64 row of each trial; None: every trial has the row of its own position.
    """

    values: Tensor
    rows: Tensor | None = None


@runtime_checkable
class HasColumns(Protocol):
    """A dataset whose batch of some trials is, field by field, the rows of these trials, and nothing else."""

    def columns(self) -> dict[str, Column]:
        """Return the fields of a batch by name, in their order."""
