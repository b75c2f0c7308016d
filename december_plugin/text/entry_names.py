"""Names of what is compared: a comment where comments differ, and the settings that differ where they do not.

Entries whose names coincide are distinguished by the settings in which they differ, in words: "small core (layers 4)".
Defaults count as settings, so that an entry that leaves a setting out and one that sets it are compared by the same
values. Nothing is ever named by a hash: entries whose difference cannot be put into words are numbered.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

import pandas as pd

from december_plugin.errors import SettingsError
from december_plugin.text.terminal import printable
from december_plugin.validation.checks import PASSED_BY_NNFABRIK, expand_preset

LONGEST_VALUE = 40  # characters of a setting's value in a name

_ABSENT = "default"
T = TypeVar("T")


def complete_settings(function: str, config: Any) -> dict[str, Any]:
    """Return the settings of an entry with the defaults of its function, and with what a preset stands for.

    Parameters
    ----------
    function
        Dotted name. Defaults and presets are known for functions of this package; for others, only the config is known.
    config
        What the entry stores; anything but a mapping has no settings.
    """
    given, found = given_settings(config), _own_function(function)
    if found is None:
        return given
    try:
        return _defaults(found) | expand_preset(found, given)
    except SettingsError:  # a preset of another version
        return _defaults(found) | given


def setting_words(value: Any) -> str:
    """Return the value of a setting in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(setting_words, value)) or "none"
    return str(value)


def distinct_names(names: Sequence[str], functions: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a name for each of several entries, no two of them alike.

    Parameters
    ----------
    names
        The name of each on its own, e.g. its comment; entries whose names differ keep them.
    functions
        The dotted name of each entry's function: named where it is what differs.
    settings
        The complete settings of each: those that differ between entries of the same name and function are named.

    Returns
    -------
    list of str
        In the order of the entries; those whose difference cannot be put into words are numbered, as in "small [2]".
    """
    found = list(names)
    for members in grouped(range(len(found)), key=lambda i: names[i]):
        for i, said in _differences(members, functions, settings).items():
            if said:
                found[i] = f"{names[i]} ({', '.join(said)})"
    return number_duplicates(found)


def number_duplicates(names: Sequence[str]) -> list[str]:
    """Return the names, with a number after those that were there before."""
    taken, found = set(names), []
    seen: set[str] = set()
    for name in names:
        number, new = 1, name
        while new in seen or (number > 1 and new in taken):
            number += 1
            new = f"{name} [{number}]"
        seen.add(new)
        found.append(new)
    return found


def entry_names(entries: pd.DataFrame) -> list[str]:
    """Return the names of datasets or of models.

    Parameters
    ----------
    entries
        ``fn``, ``comment`` and ``config`` (a mapping), one row per entry, the entries that are shown together.
    """
    functions = [str(name) for name in entries["fn"]]
    comments = [one_line(text) for text in entries["comment"]]
    names = [comment or short_function(function) for comment, function in zip(comments, functions, strict=True)]
    if len(set(names)) == len(names):  # nothing else is needed for which functions would be imported
        return names
    settings = [distinguishing_settings(fn, config) for fn, config in zip(functions, entries["config"], strict=True)]
    return distinct_names(names, functions, settings)


def short_function(function: Any) -> str:
    """Return the last part of a dotted name."""
    return str(function).rsplit(".", 1)[-1]


# --- parts of the above ------------------------------------------------------------------------------------------


def distinguishing_settings(function: str, config: Any) -> dict[str, Any]:
    """Return the settings that distinguish an entry: those of a preset are one, the preset."""
    given, found = given_settings(config), _own_function(function)
    return given if found is None else _defaults(found) | given


def given_settings(config: Any) -> dict[str, Any]:
    """Return the settings that an entry stores; anything but a mapping has none."""
    return dict(config) if isinstance(config, Mapping) else {}


def _own_function(name: str) -> Callable[..., Any] | None:
    """Return a function of this package by its dotted name; None for others, and for those of another version."""
    package, _, last = str(name).rpartition(".")
    if package.split(".")[0] != "december_plugin":
        return None
    try:
        found = getattr(import_module(package), last)
    except (ImportError, AttributeError):
        return None
    return found if callable(found) else None


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    own = [each for each in parameters if each.name not in PASSED_BY_NNFABRIK]
    return {each.name: each.default for each in own if each.default is not inspect.Parameter.empty}


def _differences(
    members: list[int], functions: Sequence[str], settings: Sequence[Mapping[str, Any]]
) -> dict[int, list[str]]:
    """Return what distinguishes entries of one name, in words."""
    said: dict[int, list[str]] = {i: [] for i in members}
    by_function = grouped(members, key=lambda i: functions[i])
    if len(by_function) > 1:
        short = {short_function(functions[group[0]]) for group in by_function}
        for group in by_function:
            name = functions[group[0]]
            for i in group:
                said[i].append(short_function(name) if len(short) == len(by_function) else name)
    for group in by_function:
        flat = {i: _flat(settings[i]) for i in group}
        names = dict.fromkeys(name for i in group for name in flat[i])
        for name in names:
            values = {i: canonical(flat[i][name]) if name in flat[i] else None for i in group}
            if len(set(values.values())) < 2:
                continue
            words = _values_in_words([flat[i].get(name, _ABSENT) for i in group])
            for i, text in zip(group, words, strict=True):
                said[i].append(f"{name} {text}")
    return said


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested settings as one level, with dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = value
    return found


def _values_in_words(values: list[Any]) -> list[str]:
    """Return values in words; of long lists only what they do not share, of paths the last part where that differs."""
    words = [setting_words(value) for value in values]
    if all(len(text) <= LONGEST_VALUE for text in words):
        return words
    lists = [[str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)] for value in values]
    shared = set.intersection(*map(set, lists))
    own = [[item for item in items if item not in shared] or items for items in lists]
    last = [[item.rstrip("/").rsplit("/", 1)[-1] for item in items] for items in own]
    parts = last if len({tuple(items) for items in last}) == len({tuple(items) for items in own}) else own
    return [_shortened(items) for items in parts]


def _shortened(items: list[str]) -> str:
    text, n = items[0], 1
    while n < len(items) and len(text) + len(items[n]) + 2 <= LONGEST_VALUE:
        text, n = f"{text}, {items[n]}", n + 1
    if len(text) > LONGEST_VALUE:
        text = f"…{text[1 - LONGEST_VALUE :]}"  # paths differ at their ends
    return f"{text} and {len(items) - n} more" if n < len(items) else text


def canonical(value: Any) -> str:
    """Return a text that is the same for settings that are equal."""

    def other(entry: Any) -> Any:
        return entry.tolist() if hasattr(entry, "tolist") else repr(entry)

    return json.dumps(value, default=other, sort_keys=True)


def one_line(value: Any) -> str:
    """Return a stored text on one line, without what a terminal would obey, so that columns of names stay aligned."""
    return "" if pd.isna(value) else " ".join(printable(str(value)).split())


def grouped(items: Iterable[T], *, key: Callable[[T], Hashable]) -> list[list[T]]:
    """Return the items of each key together, in the order in which they come."""
    found: dict[Hashable, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.values())
