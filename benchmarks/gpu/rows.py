"""What a part measures: one number for each row of the table, with the target that it should reach."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """What a number should be.

    Attributes
    ----------
    at_most, at_least
        The bound, in the unit of the number; exactly one of them.
    everywhere
        Whether it holds on any device and at any size, as for errors of rounding. Other targets are for a GPU at full
        size, and are not judged elsewhere.
    """

    at_most: float | None = None
    at_least: float | None = None
    everywhere: bool = False

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("A target has one bound: give at_most or at_least.")

    def __str__(self) -> str:
        if self.at_most is not None:
            return f"at most {as_text(self.at_most)}"
        return f"at least {as_text(self.at_least)}"

    def is_met(self, value: float) -> bool:
        """Return whether a number reaches the target; NaN never does."""
        return value <= self.at_most if self.at_most is not None else value >= (self.at_least or 0.0)


@dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes
    ----------
    what
        What was measured, in words, with the size where it is not the part's.
    value
        The number.
    unit
        Its unit, such as ``"ms"`` or ``"times"``; empty for a relative error.
    target
        The target; None if there is none.
    against
        What it is compared with, in words, e.g. ``"grid_sample: 3.1 ms"``.
    """

    what: str
    value: float
    unit: str = ""
    target: Target | None = None
    against: str = ""

    def is_met(self, *, judged: bool) -> bool | None:
        """Return whether the target is reached; None without one, or if it is not ``judged`` (Target.everywhere)."""
        if self.target is None or not (judged or self.target.everywhere):
            return None
        return self.target.is_met(self.value)

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Row:
        """Return the row that :meth:`to_json` wrote."""
        target = values["target"]
        return cls(**{**values, "target": None if target is None else Target(**target)})


def as_text(value: float) -> str:
    """Return a number with three digits, and with all of them before the point."""
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.3g}"
