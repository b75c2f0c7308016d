"""Numbers, times and lists in words, as messages and tables have them."""

from __future__ import annotations

from collections.abc import Sequence


def format_duration(seconds: float) -> str:
    """Return a time in seconds with the unit that fits it, in at most seven characters: ``12 min``, ``1.5 h``."""
    for limit, unit, name in ((90, 1, "s"), (90 * 60, 60, "min"), (36 * 3600, 3600, "h")):
        if seconds < limit:
            number = seconds / unit
            return f"{number:.1f} {name}" if name == "h" and number < 10 else f"{number:.0f} {name}"
    days = seconds / 86400
    return f"{days:.1f} d" if days < 10 else f"{days:.0f} d"


def format_age(seconds: float) -> str:
    """Return a time in seconds with its two largest units: ``1 h 6 min``."""
    seconds = max(0, round(seconds))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def format_size(n_bytes: int) -> str:
    """Return a number of bytes with the unit that fits it: ``12 B``, ``3.4 MB``."""
    number = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def listed(words: Sequence[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def numbered(count: int, thing: str, *, s: str = "s") -> str:
    """Return ``1 job``, ``2,000 jobs``."""
    return f"{count:,} {thing}" + ("" if count == 1 else s)
