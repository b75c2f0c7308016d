"""What a scenario found: checks that must hold, and figures; and how they are printed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Check:
    """One thing that must be so."""

    what: str
    holds: bool
    found: str = ""


@dataclass
class Figures:
    """Checks and figures of one scenario."""

    name: str
    fault: str
    checks: list[Check] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    left_out: str = ""  # why it was not run, if it was not

    def check(self, what: str, holds: bool, found: Any = "") -> None:
        """Record whether something holds that must."""
        self.checks.append(Check(what, bool(holds), str(found)))

    def equal(self, what: str, found: Any, expected: Any) -> None:
        """Record whether a value is what it must be."""
        self.check(what, found == expected, found if found == expected else f"{found}, not {expected}")

    def note(self, what: str, value: Any) -> None:
        """Record a figure."""
        self.values[what] = f"{value:.3g}" if isinstance(value, float) else str(value)

    def spread(self, what: str, values: Iterable[float], unit: str = "s") -> None:
        """Record median and largest of some values."""
        values = sorted(values)
        if not values:
            self.note(what, "none")
            return
        self.note(what, f"median {statistics.median(values):.2f} {unit}, largest {values[-1]:.2f} {unit}")

    def finish(self) -> Figures:
        """Note how long it took."""
        self.seconds = time.monotonic() - self.began
        return self

    @property
    def failures(self) -> list[Check]:
        """Return the checks that do not hold."""
        return [check for check in self.checks if not check.holds]

    def __str__(self) -> str:
        if self.left_out:
            return f"== {self.name}: {self.fault}\n   not run: {self.left_out}"
        lines = [f"== {self.name}: {self.fault}  ({self.seconds:.0f} s)"]
        lines += [f"   {what}: {value}" for what, value in self.values.items()]
        for check in self.checks:
            lines.append(
                f"   [{'ok' if check.holds else 'FAILED'}] {check.what}" + f": {check.found}" * bool(check.found)
            )
        return "\n".join(lines)


def summary(results: Iterable[Figures]) -> str:
    """Return the table: one line for each scenario."""
    rows = [("scenario", "fault", "checks", "seconds", "result")]
    for result in results:
        held = f"{len(result.checks) - len(result.failures)}/{len(result.checks)}"
        verdict = "not run" if result.left_out else "holds" if not result.failures else "FAILED"
        rows.append((result.name, result.fault, held, f"{result.seconds:.0f}", verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
