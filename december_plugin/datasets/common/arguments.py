"""Checks of arguments that the dataset functions of several formats share."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from december_plugin.errors import SettingsError
from december_plugin.validation.checks import check_number, is_number


def check_paths(paths: Any, *, expected: str = "a list of folders, one for each session,") -> list[Path]:
    """Return one path or several as a list, or raise a :class:`SettingsError`.

    Parameters
    ----------
    paths
        The given paths.
    expected
        What is expected, for the message.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if not isinstance(paths, (list, tuple)) or not paths or not all(isinstance(p, (str, os.PathLike)) for p in paths):
        raise SettingsError(f"paths is {paths!r}; {expected} is expected.", setting="paths")
    return [Path(path) for path in paths]


def absolute(paths: Sequence[Path]) -> list[Path]:
    """Return paths without ``~``, absolute; links are kept."""
    return [Path(os.path.abspath(path.expanduser())) for path in paths]


def check_input_statistics(mean: Any, std: Any, *, remedy: str = "Give both or neither.") -> None:
    """Raise a :class:`SettingsError` if only one of ``inputs_mean`` and ``inputs_std`` is given."""
    if (mean is None) != (std is None):
        given, missing = ("inputs_mean", "inputs_std") if std is None else ("inputs_std", "inputs_mean")
        raise SettingsError(f"{given} was given without {missing}. {remedy}", setting=given, others=[missing])


def check_finite(name: str, value: Any) -> float:
    """Return a finite number, or raise a :class:`SettingsError`."""
    if not is_number(value) or not math.isfinite(value):
        raise SettingsError(f"{name} is {value!r}; it must be a finite number.", setting=name)
    return float(value)


def check_train_fraction(value: Any, *, rest: str) -> float:
    """Return the fraction to train on, or raise a :class:`SettingsError` unless it is above 0 and below 1.

    Parameters
    ----------
    value
        The given ``train_fraction``.
    rest
        What remains for validation, for the message.
    """
    fraction = check_number("train_fraction", value, above=0)
    if fraction >= 1:
        raise SettingsError(
            f"train_fraction is {fraction:g}; it must be below 1, so that validation has {rest}.",
            setting="train_fraction",
        )
    return fraction
