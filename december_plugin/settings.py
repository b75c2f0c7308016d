"""Checks of settings, shared by every function that nnfabrik calls with a configuration from the database."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from december_plugin.errors import SettingsError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])


def allowed_settings(function: Callable[..., Any]) -> set[str]:
    """Return the names of the keyword-only parameters of ``function``, which are its settings."""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def check_known(function: Callable[..., Any], names: Collection[str]) -> None:
    """Raise a :class:`SettingsError` with a suggestion if ``function`` has no setting of one of these names."""
    allowed = set(inspect.signature(function).parameters)
    for name in names:
        if name not in allowed:
            settings = allowed_settings(function) - {"uid", "cb"}
            raise SettingsError(f"{function.__name__} has no setting {name!r}. {did_you_mean(name, settings)}")


def checked_settings(function: F) -> F:
    """Make a function answer an unknown or missing setting with a :class:`SettingsError`.

    nnfabrik calls dataset, model and trainer functions with a configuration that was stored long before, so a
    misspelled setting should be named together with the one that was probably meant.
    """
    required = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    ]

    @functools.wraps(function)
    def wrapper(*args: Any, **settings: Any) -> Any:
        check_known(function, settings)
        missing = [name for name in required if name not in settings]
        if missing:
            raise SettingsError(f"{function.__name__} needs the setting {missing[0]!r}; it has no default.")
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
