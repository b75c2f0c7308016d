"""Checks of single settings, and of which settings a function that nnfabrik calls has, needs and was given."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from december_plugin.errors import MissingSettingError, SettingsError, UnknownSettingError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])


# What nnfabrik or its callers pass in addition to the settings of an entry.
PASSED_BY_NNFABRIK = frozenset({"model", "dataloaders", "seed", "uid", "cb", "data_info"})


@functools.lru_cache(maxsize=256)
def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function by name, found once: for each of a thousand entries it would take seconds."""
    return inspect.signature(function).parameters


def allowed_settings(function: Callable[..., Any]) -> set[str]:
    """Return the names of the parameters of ``function`` that an entry's configuration may set."""
    return set(parameters_of(function)) - PASSED_BY_NNFABRIK


def unknown_setting(owner: str, name: str, allowed: Collection[str]) -> UnknownSettingError:
    """Return the error for a setting that its owner, a function or method, does not have, with a suggestion."""
    return UnknownSettingError(f"{owner} has no setting {name!r}. {did_you_mean(name, allowed)}", setting=name)


def check_known(function: Callable[..., Any], names: Collection[str]) -> None:
    """Raise a :class:`SettingsError` with a suggestion if ``function`` has no setting of one of these names."""
    for name in names:
        if name not in parameters_of(function):
            raise unknown_setting(function.__name__, name, allowed_settings(function))


def check_complete(function: Callable[..., Any], names: Collection[str]) -> None:
    """Raise a :class:`SettingsError` if a setting without a default is not among these names."""
    for name, parameter in parameters_of(function).items():
        if parameter.default is parameter.empty and name not in {*names, *PASSED_BY_NNFABRIK}:
            raise MissingSettingError(
                f"{function.__name__} needs the setting {name!r}; it has no default.", setting=name
            )


@dataclass(frozen=True)
class Preset:
    """Values for many settings of a function, under one name.

    Attributes
    ----------
    values
        Setting to value, including those equal to the function's defaults, so that the preset does not change when a
        default does.
    needs
        Settings without which the preset makes no sense and for which it has no value, and why.
    """

    values: Mapping[str, Any]
    needs: Mapping[str, str] = field(default_factory=dict)


def with_presets(**presets: Preset) -> Callable[[F], F]:
    """Give a function presets for its setting ``preset``, which :func:`expand_preset` replaces by their values.

    The decorator belongs below :func:`checked_settings`, which expands the preset of a direct call.
    """

    def decorate(function: F) -> F:
        function.presets = presets  # type: ignore[attr-defined]
        return function

    return decorate


def expand_preset(function: Callable[..., Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without ``preset`` but with its values; settings that are given explicitly take precedence.

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
            text = f"preset is {name!r}, which needs the setting {needed!r}: {reason}"
            raise SettingsError(text, setting="preset", others=[needed])
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


def is_integer(value: Any) -> bool:
    """Return whether a value is a whole number of Python or NumPy; true and false are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return whether a value is a real number of Python or NumPy; true and false are not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_integer(name: str, value: Any, *, minimum: int, setting: str | None = None) -> int:
    """Return ``value`` as an int, or raise a :class:`SettingsError` if it is not one or is below ``minimum``.

    Parameters
    ----------
    name
        What the message calls the value.
    value
        What the user gave.
    minimum
        The smallest integer that is allowed.
    setting
        The setting that the value belongs to, if it has another name.
    """
    setting = setting or name
    if isinstance(value, bool) or not (isinstance(value, int) or (hasattr(value, "__index__"))):
        raise SettingsError(f"{name} is {value!r}; it must be an integer of at least {minimum}.", setting=setting)
    if int(value) < minimum:
        raise SettingsError(f"{name} is {value}; it must be at least {minimum}.", setting=setting)
    return int(value)


def check_count(name: str, value: Any) -> int:
    """Return ``value`` as an int, or raise a :class:`SettingsError` if it is not an integer of at least 1."""
    if not is_integer(value) or value < 1:
        raise SettingsError(f"{name} is {value!r}, but must be an integer of at least 1.", setting=name)
    return int(value)


def check_odd(name: str, value: Any) -> int:
    """Return ``value`` as an int, or raise a :class:`SettingsError` if it is not an odd integer of at least 1."""
    size = check_integer(name, value, minimum=1)
    if size % 2 == 0:
        raise SettingsError(f"{name} is {size}; it must be odd.", setting=name)
    return size


def check_seed(name: str, value: Any) -> int:
    """Return ``value`` as an int, or raise a :class:`SettingsError` if it is not a seed of NumPy, 0 to 2**32 - 1."""
    if not is_integer(value) or not 0 <= value < 2**32:
        raise SettingsError(f"{name} is {value!r}, but must be an integer from 0 to 2**32 - 1.", setting=name)
    return int(value)


def check_number(name: str, value: Any, *, above: float | None = None, minimum: float | None = None) -> float:
    """Return ``value`` as a finite float, or raise a :class:`SettingsError` naming the allowed range."""
    allowed = f"a number above {above:g}" if above is not None else f"a number of at least {minimum or 0:g}"
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__") or not math.isfinite(float(value)):
        raise SettingsError(f"{name} is {value!r}; it must be {allowed}.", setting=name)
    number = float(value)
    if (above is not None and number <= above) or (minimum is not None and number < minimum):
        raise SettingsError(f"{name} is {value!r}; it must be {allowed}.", setting=name)
    return number


def check_fraction(name: str, value: Any) -> float:
    """Return ``value`` as a float, or raise a :class:`SettingsError` unless it is above 0 and at most 1."""
    number = check_number(name, value, above=0)
    if number > 1:
        raise SettingsError(f"{name} is {value!r}; it must be a number above 0 and at most 1.", setting=name)
    return number


def check_bounds(name: str, value: Any) -> tuple[float, float]:
    """Return the lower and the upper bound, or raise a :class:`SettingsError` unless both are positive and finite."""
    try:
        low, high = value
        valid = is_number(low) and is_number(high) and 0 < low < high < math.inf
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise SettingsError(
            f"{name} is {value!r}, but must be two positive, finite numbers in rising order, e.g. (1e-4, 1e4).",
            setting=name,
        )
    return float(low), float(high)


def check_bool(name: str, value: Any) -> bool:
    """Return ``value``, or raise a :class:`SettingsError` if it is neither true nor false."""
    if not isinstance(value, bool):
        raise SettingsError(f"{name} is {value!r}; it must be true or false.", setting=name)
    return value


def check_choice(name: str, value: Any, allowed: Collection[str], *, setting: str | None = None) -> str:
    """Return ``value``, or raise a :class:`SettingsError` with a suggestion if it is not one of ``allowed``.

    ``setting`` is the setting that the value belongs to, if it has another name.
    """
    if not isinstance(value, str) or value not in allowed:
        raise SettingsError(f"{name} is {value!r}. {did_you_mean(str(value), allowed)}", setting=setting or name)
    return value


def check_sizes(**sizes: tuple[Any, int]) -> None:
    """Raise a :class:`SettingsError` unless each setting is an integer of at least the number given with it."""
    for name, (value, minimum) in sizes.items():
        check_integer(name, value, minimum=minimum)


def check_spreads(**spreads: Any) -> None:
    """Raise a :class:`SettingsError` unless each setting is a number of at least 0."""
    for name, value in spreads.items():
        check_number(name, value, minimum=0)


def check_positive(**positive: Any) -> None:
    """Raise a :class:`SettingsError` unless each setting is a number above 0."""
    for name, value in positive.items():
        check_number(name, value, above=0)
