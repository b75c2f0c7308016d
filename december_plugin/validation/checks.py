"""Checks of settings, shared by every function that nnfabrik calls with a configuration from the database."""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from december_plugin.errors import SettingsError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])


# What nnfabrik or its callers pass beside the settings of an entry.
PASSED_BY_NNFABRIK = frozenset({"model", "dataloaders", "seed", "uid", "cb", "data_info"})


@functools.lru_cache(maxsize=256)
def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function by name, found once: for each of a thousand entries it would take seconds."""
    return inspect.signature(function).parameters


def allowed_settings(function: Callable[..., Any]) -> set[str]:
    """Return the names of the parameters of ``function`` that an entry's configuration may set."""
    return set(parameters_of(function)) - PASSED_BY_NNFABRIK


def check_known(function: Callable[..., Any], names: Collection[str]) -> None:
    """Raise a :class:`SettingsError` with a suggestion if ``function`` has no setting of one of these names."""
    allowed = set(parameters_of(function))
    for name in names:
        if name not in allowed:
            suggestion = did_you_mean(name, allowed_settings(function))
            raise SettingsError(f"{function.__name__} has no setting {name!r}. {suggestion}")


def check_complete(function: Callable[..., Any], names: Collection[str]) -> None:
    """Raise a :class:`SettingsError` if a setting without a default is not among these names."""
    for name, parameter in parameters_of(function).items():
        if parameter.default is parameter.empty and name not in {*names, *PASSED_BY_NNFABRIK}:
            raise SettingsError(f"{function.__name__} needs the setting {name!r}; it has no default.")


@dataclass(frozen=True)
class Preset:
    """Values for many settings of a function, under one name.

    Attributes
    ----------
    values
        Setting to value, all of them, those that are the function's defaults too: the preset stays what it is when a
        default changes.
    needs
        Settings without which the preset makes no sense and for which it has no value, and why.
    """

    values: Mapping[str, Any]
    needs: Mapping[str, str] = field(default_factory=dict)


def with_presets(**presets: Preset) -> Callable[[F], F]:
    """Give a function presets for its setting ``preset``, which :func:`expand_preset` replaces by their values.

    The decorator stands below :func:`checked_settings`, which expands the preset of a direct call.
    """

    def decorate(function: F) -> F:
        function.presets = presets  # type: ignore[attr-defined]
        return function

    return decorate


def expand_preset(function: Callable[..., Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without ``preset``, and with every value that it stands for; other settings in them win.

    Raises
    ------
    SettingsError
        For a preset that ``function`` does not have, or one that lacks a setting it needs.
    """
    given = {name: value for name, value in config.items() if name != "preset"}
    presets: Mapping[str, Preset] = getattr(function, "presets", {})
    name = config.get("preset")
    if name is None or not presets:
        return given if presets else dict(config)
    preset = presets[check_choice("preset", name, presets)]
    for needed, reason in preset.needs.items():
        if needed not in given:
            raise SettingsError(f"preset is {name!r}, which needs the setting {needed!r}: {reason}")
    # Copies: nnfabrik writes into the configurations that it is given.
    return {**copy.deepcopy(dict(preset.values)), **given}


def checked_settings(function: F) -> F:
    """Make a function answer an unknown or missing setting with a :class:`SettingsError`.

    nnfabrik calls dataset, model and trainer functions with a configuration that was stored long before, so a
    misspelled setting should be named together with the one that was probably meant. A preset is expanded.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **settings: Any) -> Any:
        check_known(function, settings)
        settings = expand_preset(function, settings)
        positional = list(parameters_of(function))[: len(args)]
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
