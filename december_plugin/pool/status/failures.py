"""Failures grouped by reason: a sweep fails a thousand times for three reasons, not for a thousand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from december_plugin.security.redaction import redacted
from december_plugin.text.terminal import printable

MAX_REASON = 200  # characters of a reason that distinguish it from others
_SEPARATOR = "\n\0\n"  # nothing that redacted() looks for extends across it

# What differs between two failures of one kind. Hashes first, as they hold numbers.
_VARYING = (
    (re.compile(r"\b0x[0-9a-f]+\b", re.I), "#"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.I), "#"),
    (re.compile(r"\b(?=[a-f]*[0-9])[0-9a-f]{7,}\b", re.I), "#"),
    (re.compile(r"(?<![A-Za-z])[+-]?\d+(?:[.,:]\d+)*(?:e[+-]?\d+)?", re.I), "#"),
    (re.compile(r"(?<=[A-Za-z_])\d+(?![A-Za-z\d])"), "#"),  # trial_17, gpu3, but not Conv2d
)
_SEVERAL = re.compile(r"#(?:[\s,x/_.:-]*#)+")  # shapes, dates, several numbers


@dataclass(frozen=True)
class Reason:
    """Failures of one table for one reason.

    Attributes
    ----------
    table
        The table.
    reason
        The first line of the message, its numbers and hashes replaced by ``#``.
    count
        Number of jobs.
    example
        The complete message of one of them.
    job
        Hash of that job.
    poisoned
        Whether these jobs were given up because they kept killing their workers.
    """

    table: str
    reason: str
    count: int
    example: str
    job: str
    poisoned: bool = False


def normalised(message: str) -> str:
    """Return what messages of one kind share: the first line, with ``#`` for numbers and hashes."""
    lines = message.strip().splitlines()
    text = lines[0][: 4 * MAX_REASON] if lines else ""
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    text = " ".join(_SEVERAL.sub("#", text).split())
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"


def grouped(failures: Iterable[tuple[str, str, str, bool]]) -> list[Reason]:
    """Group failures, the most frequent reason first.

    Parameters
    ----------
    failures
        For each: table, hash, message, and whether the job is poisoned.
    """
    found: dict[tuple[str, str, bool], list[tuple[str, str]]] = {}
    for table, job, message, poisoned in failures:
        found.setdefault((table, normalised(message), poisoned), []).append((job, message))
    groups = [
        Reason(table, printable(reason), len(jobs), jobs[0][1], jobs[0][0], poisoned)
        for (table, reason, poisoned), jobs in found.items()
    ]
    return sorted(groups, key=lambda group: (-group.count, group.table, group.reason))


def all_redacted(texts: Sequence[str]) -> list[str]:
    """Return texts without secrets and control characters, all at once: thousands one by one take a second."""
    clean = [printable(text) for text in texts]
    return redacted(_SEPARATOR.join(clean)).split(_SEPARATOR) if clean else []
