"""The section ``surrogates`` of a sweep: the nulls that the agreement between seeds is compared with.

::

    surrogates:
      - {n_draws: 99}
      - {name: without sizes, n_draws: 99, method: gaussian, clusterings: [kmeans, december]}

Nothing is drawn for a sweep without this section. What it asks for is drawn for every configuration in the database
that has at least two seeds, as a clustering is computed for every model; with ``clusterings`` for those of these
methods only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from december_plugin.evaluation.surrogate_settings import SurrogateSettings
from december_plugin.validation.models import constructed

KEYS = tuple(each.name for each in fields(SurrogateSettings))


def read_surrogates(content: Mapping[str, Any], wrong: Callable[..., None]) -> tuple[SurrogateSettings, ...]:
    """Return what the section asks for; nothing without the section.

    Parameters
    ----------
    content
        The mapping of the sweep's file.
    wrong
        Called with the text of every mistake and the path to its place in the file; with ``at_key=True`` where a key
        is wrong.
    """
    section = content.get("surrogates")
    if section is None:
        return ()
    if not isinstance(section, list):
        wrong("surrogates must be a list of entries, e.g. [{n_draws: 99}].", "surrogates")
        return ()
    entries: list[SurrogateSettings] = []
    for position, item in enumerate(section):
        entry = _read(item, f"surrogates, entry {position + 1}", ("surrogates", position), wrong)
        if entry is None:
            continue
        same = [other for other in entries if replace(other, name=None) == replace(entry, name=None)]
        if same or any(entry.name is not None and entry.name == other.name for other in entries):
            what = "has the settings of an entry before it" if same else f"has the name {entry.name!r} again"
            wrong(f"surrogates, entry {position + 1} {what}.", "surrogates", position)
            continue
        entries.append(entry)
    return tuple(entries)


def _read(item: Any, where: str, here: tuple[Any, ...], wrong: Callable[..., None]) -> SurrogateSettings | None:
    if not isinstance(item, Mapping):
        wrong(f"{where}: an entry is a mapping with keys of {', '.join(KEYS)}.", *here)
        return None
    entry, mistakes = constructed(SurrogateSettings, item, unknown="there is no key {name!r}. {suggestion}")
    for mistake in mistakes:
        wrong(f"{where}: {mistake.text}", *here, *mistake.path[:1], at_key=mistake.is_unknown)
    return entry
