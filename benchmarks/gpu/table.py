"""The results as a table: plain text for the terminal, Markdown for the documentation."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.rows import Row, as_text
from benchmarks.gpu.running import Outcome

WIDTH = 132
MET = {True: "yes", False: "NO", None: ""}
NOT_A_GPU = "Tiny sizes, to try out the benchmark itself: no figures of a GPU, and no targets but those of rounding."


def headline(facts: dict[str, Any]) -> str:
    """Return where and of what was measured, in one line."""
    parts = [facts["device"]]
    parts += [f"{facts['memory_gib']} GiB"] if facts.get("memory_gib") else []
    parts += [f"driver {facts['driver']}"] if facts.get("driver") else []
    parts += [f"torch {facts['torch']}", f"Triton {facts['triton']}" if facts.get("triton") else "no Triton"]
    parts += [f"Python {facts['python']}", f"commit {(facts['commit'] or 'unknown')[:12]}", facts["date"]]
    return ", ".join(parts)


def as_lines(outcomes: Sequence[Outcome], facts: dict[str, Any]) -> list[str]:
    """Lay the results out for a terminal."""
    lines = [headline(facts), ""]
    if facts["tiny"]:
        lines = [NOT_A_GPU, *lines]
    cells = [_cells(row, facts) for outcome in outcomes for row in outcome.rows]
    widths = [max((len(line[column]) for line in cells), default=0) for column in range(1, 5)]
    first = min(max((len(line[0]) for line in cells), default=0), WIDTH - sum(widths) - 2 * len(widths))
    for outcome in outcomes:
        lines.append(f"{outcome.part} ({outcome.seconds:.0f} s)")
        for row in outcome.rows:
            what, value, *others = _cells(row, facts)
            head, *rest = textwrap.wrap(what, max(first, 20), subsequent_indent="  ")
            line = f"  {head:<{first}}  {value:>{widths[0]}}"
            line += "".join(f"  {cell:<{width}}" for cell, width in zip(others, widths[1:], strict=True))
            lines += [line.rstrip(), *(f"  {more}" for more in rest)]
        if outcome.failure:
            lines.append(f"  FAILED: {outcome.failure}")
    return lines


def as_markdown(outcomes: Sequence[Outcome], facts: dict[str, Any]) -> str:
    """Lay the results out as a table for the documentation."""
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


def _cells(row: Row, facts: dict[str, Any]) -> tuple[str, str, str, str, str]:
    target = "" if row.target is None else f"{row.target} {row.unit}".rstrip()
    met = MET[row.is_met(judged=not facts["tiny"])]
    return row.what, f"{as_text(row.value)} {row.unit}".rstrip(), row.against, target, met
