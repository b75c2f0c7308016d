"""Sections of a sweep that ask for evaluations: lists of settings, each at most once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from december_plugin.validation.models import constructed

Settings = TypeVar("Settings")
SAME = "has the settings of an entry before it"


def same_settings(entry: Any, before: Sequence[Any]) -> str:
    """Return in words that an entry repeats an earlier one; "" if it does not."""
    return SAME if entry in before else ""


def read_asked(
    content: Mapping[str, Any],
    section: str,
    kind: type[Settings],
    wrong: Callable[..., None],
    *,
    example: str,
    again: Callable[[Settings, list[Settings]], str] = same_settings,
) -> tuple[Settings, ...]:
    """Return what a section asks for; nothing without the section.

    Parameters
    ----------
    content
        The mapping of the sweep's file.
    section
        Name of the section.
    kind
        The class of its settings.
    wrong
        Called with the text of every mistake and the path to its place in the file; with ``at_key=True`` if a key
        is wrong.
    example
        An entry, for messages.
    again
        Returns in words what an entry repeats of an earlier one; "" for nothing.
    """
    found = content.get(section)
    if found is None:
        return ()
    if not isinstance(found, list):
        wrong(f"{section} must be a list of entries, e.g. [{example}].", section)
        return ()
    entries: list[Settings] = []
    for position, item in enumerate(found):
        where, here = f"{section}, entry {position + 1}", (section, position)
        if not isinstance(item, Mapping):
            keys = ", ".join(each.name for each in fields(kind))  # type: ignore[arg-type]
            wrong(f"{where}: an entry is a mapping with keys of {keys}.", *here)
            continue
        entry, mistakes = constructed(kind, item, unknown="there is no key {name!r}. {suggestion}")
        for mistake in mistakes:
            wrong(f"{where}: {mistake.text}", *here, *mistake.path[:1], at_key=mistake.is_unknown)
        if entry is None:
            continue
        if what := again(entry, entries):
            wrong(f"{where} {what}.", *here)
            continue
        entries.append(entry)
    return tuple(entries)
