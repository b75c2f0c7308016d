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
from dataclasses import dataclass
from typing import Any

from december_plugin.errors import SettingsError, did_you_mean

KEYS = ("name", "n_draws", "seed", "method", "clusterings")


@dataclass(frozen=True)
class SurrogateEntry:
    """One row of ``Surrogate``."""

    name: str | None
    n_draws: int
    seed: int
    method: str
    clusterings: tuple[str, ...] | None = None


def read_surrogates(content: Mapping[str, Any], wrong: Callable[..., None]) -> tuple[SurrogateEntry, ...]:
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
    entries: list[SurrogateEntry] = []
    for position, item in enumerate(section):
        entry = _read(item, f"surrogates, entry {position + 1}", ("surrogates", position), wrong)
        if entry is None:
            continue
        same = [other for other in entries if _settings(other) == _settings(entry)]
        if same or any(entry.name is not None and entry.name == other.name for other in entries):
            what = "has the settings of an entry before it" if same else f"has the name {entry.name!r} again"
            wrong(f"surrogates, entry {position + 1} {what}.", "surrogates", position)
            continue
        entries.append(entry)
    return tuple(entries)


def _settings(entry: SurrogateEntry) -> tuple[Any, ...]:
    return entry.n_draws, entry.seed, entry.method, entry.clusterings


def _read(item: Any, where: str, here: tuple[Any, ...], wrong: Callable[..., None]) -> SurrogateEntry | None:
    from december_plugin.evaluation.null import DEFAULT_DRAWS, checked_settings

    if not isinstance(item, Mapping):
        wrong(f"{where}: an entry is a mapping with keys of {', '.join(KEYS)}.", *here)
        return None
    unknown = [key for key in item if key not in KEYS]
    for key in unknown:
        wrong(f"{where}: there is no key {key!r}. {did_you_mean(str(key), KEYS)}", *here, key, at_key=True)
    values: dict[str, Any] = {"name": None, "n_draws": DEFAULT_DRAWS, "seed": 0, "method": "elliptical"}
    values["clusterings"] = None
    values |= {key: value for key, value in item.items() if key in KEYS}
    is_right = not unknown
    for key in KEYS:
        try:
            checked_settings(**{key: values[key]})
        except SettingsError as error:
            wrong(f"{where}: {error}", *here, *((key,) if key in item else ()))
            is_right = False
    if not is_right:
        return None
    *_, values["clusterings"] = checked_settings(**values)
    return SurrogateEntry(**values)
