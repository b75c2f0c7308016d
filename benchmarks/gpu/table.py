"""The results as a table: plain text for the terminal, Markdown for the documentation."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.rows import Row, as_text
from benchmarks.gpu.running import Outcome

WIDTH = 132
SHORTEST = 20  # of a column that is wrapped
MARGIN = "  "
MET = {True: "yes", False: "NO", None: ""}
NOT_A_GPU = "Tiny sizes, to try out the benchmark itself: no figures of a GPU, and no targets but those of rounding."

Cells = tuple[str, str, str, str, str]  # what, value, against, target, met


def headline(facts: dict[str, Any]) -> str:
    """Return what was measured, and where, in one line."""
    parts = [facts["device"]]
    parts += [f"{facts['memory_gib']} GiB"] if facts.get("memory_gib") else []
    parts += [f"driver {facts['driver']}"] if facts.get("driver") else []
    parts += [f"torch {facts['torch']}", f"Triton {facts['triton']}" if facts.get("triton") else "no Triton"]
    parts += [f"Python {facts['python']}", f"commit {(facts['commit'] or 'unknown')[:12]}", facts["date"]]
    return ", ".join(parts)


def as_lines(outcomes: Sequence[Outcome], facts: dict[str, Any]) -> list[str]:
    """Return the results as text for a terminal."""
    lines = [headline(facts), ""]
    if facts["tiny"]:
        lines = [NOT_A_GPU, *lines]
    cells = [_cells(row, facts) for outcome in outcomes for row in outcome.rows]
    widths = _widths(cells)
    for outcome in outcomes:
        lines.append(f"{outcome.part} ({outcome.seconds:.0f} s)")
        for row in outcome.rows:
            lines += _wrapped(_cells(row, facts), widths)
        if outcome.failure:
            lines.append(f"  FAILED: {outcome.failure}")
    return lines


def as_markdown(outcomes: Sequence[Outcome], facts: dict[str, Any]) -> str:
    """Return the results as a table for the documentation."""
    lines = [f"{headline(facts)}", ""]
    if facts["tiny"]:
        lines = [f"**{NOT_A_GPU}**", "", *lines]
    lines += ["| part | what | | against | target | met |", "| --- | --- | --: | --- | --- | --- |"]
    for outcome in outcomes:
        name = outcome.part
        for row in outcome.rows:
            what, value, against, target, met = (cell.replace("|", r"\|") for cell in _cells(row, facts))
            lines.append(f"| {name} | {what} | {value} | {against} | {target} | {met} |")
            name = ""
        if outcome.failure:
            failure = outcome.failure.replace("|", r"\|")
            lines.append(f"| {name} | failed: {failure} | | | | NO |")
    return "\n".join(lines) + "\n"


def _widths(cells: Sequence[Cells]) -> list[int]:
    """Return how wide each column is: `what` and `against` are wrapped if a line would be longer than WIDTH."""
    what, value, against, target, met = (max((len(line[column]) for line in cells), default=0) for column in range(5))
    room = max(WIDTH - len(MARGIN) * 5 - value - target - met, 2 * SHORTEST)
    against = min(against, max(room - what, room // 2))
    return [min(what, room - against), value, against, target, met]


def _wrapped(cells: Cells, widths: Sequence[int]) -> list[str]:
    """Return the lines of a row, the first with all its cells."""
    what = textwrap.wrap(cells[0], max(widths[0], 1), subsequent_indent=MARGIN)
    against = textwrap.wrap(cells[2], max(widths[2], 1), subsequent_indent=MARGIN)
    lines = []
    for number, (head, beside) in enumerate(itertools.zip_longest(what, against, fillvalue="")):
        value, target, met = (cells[1], *cells[3:]) if number == 0 else ("", "", "")
        justified = [head.ljust(widths[0]), value.rjust(widths[1])]
        justified += [cell.ljust(width) for cell, width in zip((beside, target, met), widths[2:], strict=True)]
        lines.append((MARGIN + MARGIN.join(justified)).rstrip())
    return lines


def _cells(row: Row, facts: dict[str, Any]) -> Cells:
    target = "" if row.target is None else f"{row.target} {row.unit}".rstrip()
    met = MET[row.is_met(judged=not facts["tiny"])]
    return row.what, f"{as_text(row.value)} {row.unit}".rstrip(), row.against, target, met
