"""Checks of the settings of simulated recordings."""

from __future__ import annotations

from typing import Any

from december_plugin.validation.checks import check_integer, check_number


def check_sizes(**sizes: tuple[Any, int]) -> None:
    """Raise a :class:`SettingsError` unless each setting is a whole number of at least the number beside it."""
    for name, (value, minimum) in sizes.items():
        check_integer(name, value, minimum=minimum)


def check_spreads(**spreads: Any) -> None:
    """Raise a :class:`SettingsError` unless each setting is a number of at least 0."""
    for name, value in spreads.items():
        check_number(name, value, minimum=0)


def check_positive(**numbers: Any) -> None:
    """Raise a :class:`SettingsError` unless each setting is a number above 0."""
    for name, value in numbers.items():
        check_number(name, value, above=0)
