"""Whether a value from a file can be what a function's annotation says, without calling the function."""

from __future__ import annotations

import collections.abc
import os
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin

from december_plugin.errors import SettingsError

WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)


def check_types(function: Callable[..., Any], config: Mapping[str, Any]) -> list[tuple[str, SettingsError]]:
    """Compare settings with the annotations of a function's parameters.

    Parameters
    ----------
    function
        Any function; parameters without an annotation, or with one that is not understood, are not checked.
    config
        Setting to value, as YAML gives it.

    Returns
    -------
    list of (str, SettingsError)
        The settings whose value cannot be right, and what is allowed.
    """
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return []
    found = []
    for name, value in config.items():
        if name in hints and not _fits(value, hints[name]):
            found.append(
                (
                    name,
                    SettingsError(
                        f"{name} is {value!r}; it must be {_words(hints[name])}.{_hint(value, hints[name])}",
                        setting=name,
                    ),
                )
            )
    return found


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is typing.Literal:
        return value in arguments
    if hint in WORDS or hint is None:
        return _is_plain(value, type(None) if hint is None else hint)
    if hint is os.PathLike or origin is os.PathLike:
        return isinstance(value, (str, os.PathLike))
    if (origin or hint) in SEQUENCES:
        return isinstance(value, (list, tuple)) and _items_fit(value, origin or hint, arguments)
    if (origin or hint) in (dict, collections.abc.Mapping):
        return isinstance(value, Mapping)
    return True  # what a file cannot hold anyway, or what is not understood


def _is_plain(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _items_fit(values: Any, kind: Any, arguments: tuple[Any, ...]) -> bool:
    if not arguments:
        return True
    if kind is tuple and arguments[-1] is not Ellipsis:
        return len(values) == len(arguments) and all(map(_fits, values, arguments))
    return all(_fits(value, arguments[0]) for value in values)


def _words(hint: Any) -> str:
    """Return an annotation in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        words = list(dict.fromkeys(_words(each) for each in arguments))
        return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if hint is None or hint in WORDS:
        return WORDS[type(None) if hint is None else hint]
    if hint is os.PathLike or origin is os.PathLike:
        return "text"
    if (origin or hint) in SEQUENCES:
        if origin is tuple and arguments[-1] is not Ellipsis:
            return f"a list of {len(arguments)}"
        return "a list" + (f" (each {_words(arguments[0])})" if arguments and arguments[0] is not Any else "")
    return "a mapping" if (origin or hint) in (dict, collections.abc.Mapping) else str(hint)


def _hint(value: Any, hint: Any) -> str:
    if not isinstance(value, str):
        is_scalar = isinstance(value, (bool, int, float)) or value is None
        takes_text = _fits("text", hint) or _fits(["text"], hint)
        items = value if isinstance(value, (list, tuple)) else [value] if is_scalar else []
        return " Put it in quotes if it is text." if takes_text and any(not isinstance(x, str) for x in items) else ""
    if value.lower() in ("none", "nil"):
        return " Write null for nothing."
    try:
        float(value)
    except ValueError:
        return ""
    return " Write the number without quotes."
