"""Checks of settings, shared by every function that nnfabrik calls with a configuration from the database."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from december_plugin.errors import SettingsError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])


# What nnfabrik or its callers pass beside the settings of an entry.
PASSED_BY_NNFABRIK = frozenset({"model", "dataloaders", "seed", "uid", "cb", "data_info"})


def allowed_settings(function: Callable[..., Any]) -> set[str]:
    """Return the names of the parameters of ``function`` that an entry's configuration may set."""
    return set(inspect.signature(function).parameters) - PASSED_BY_NNFABRIK


def check_known(function: Callable[..., Any], names: Collection[str]) -> None:
    """Raise a :class:`SettingsError` with a suggestion if ``function`` has no setting of one of these names."""
    allowed = set(inspect.signature(function).parameters)
    for name in names:
        if name not in allowed:
            suggestion = did_you_mean(name, allowed_settings(function))
            raise SettingsError(f"{function.__name__} has no setting {name!r}. {suggestion}")


def check_complete(function: Callable[..., Any], names: Collection[str]) -> None:
    """Raise a :class:`SettingsError` if a setting without a default is not among these names."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is parameter.empty and name not in {*names, *PASSED_BY_NNFABRIK}:
            raise SettingsError(f"{function.__name__} needs the setting {name!r}; it has no default.")


def checked_settings(function: F) -> F:
    """Make a function answer an unknown or missing setting with a :class:`SettingsError`.

    nnfabrik calls dataset, model and trainer functions with a configuration that was stored long before, so a
    misspelled setting should be named together with the one that was probably meant.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **settings: Any) -> Any:
        check_known(function, settings)
        positional = list(inspect.signature(function).parameters)[: len(args)]
        check_complete(function, [*positional, *settings])
        return function(*args, **settings)

    wrapper.has_checked_settings = True  # type: ignore[attr-defined]
    return wrapper  # type: ignore[return-value]


def check_integer(name: str, value: Any, *, minimum: int) -> int:
    """Return ``value`` as an int, or raise a :class:`SettingsError` if it is not one or is below ``minimum``."""
    if isinstance(value, bool) or not (isinstance(value, int) or (hasattr(value, "__index__"))):
        raise SettingsError(f"{name} is {value!r}; it must be an integer of at least {minimum}.")
    if int(value) < minimum:
        raise SettingsError(f"{name} is {value}; it must be at least {minimum}.")
    return int(value)


def check_number(name: str, value: Any, *, above: float | None = None, minimum: float | None = None) -> float:
    """Return ``value`` as a finite float, or raise a :class:`SettingsError` naming the allowed range."""
    allowed = f"a number above {above:g}" if above is not None else f"a number of at least {minimum or 0:g}"
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__") or not math.isfinite(float(value)):
        raise SettingsError(f"{name} is {value!r}; it must be {allowed}.")
    number = float(value)
    if (above is not None and number <= above) or (minimum is not None and number < minimum):
        raise SettingsError(f"{name} is {value!r}; it must be {allowed}.")
    return number


def check_bool(name: str, value: Any) -> bool:
    """Return ``value``, or raise a :class:`SettingsError` if it is neither true nor false."""
    if not isinstance(value, bool):
        raise SettingsError(f"{name} is {value!r}; it must be true or false.")
    return value


def check_choice(name: str, value: Any, allowed: Collection[str]) -> str:
    """Return ``value``, or raise a :class:`SettingsError` with a suggestion if it is not one of ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise SettingsError(f"{name} is {value!r}. {did_you_mean(str(value), allowed)}")
    return value
