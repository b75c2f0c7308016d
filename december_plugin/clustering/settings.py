"""Settings of post hoc clusterings, checked and brought into one form before anything is clustered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from december_plugin.errors import SettingsError, UnknownSettingError, did_you_mean

DECEMBER = "december"
LARGEST = 2**63
MOST_CLUSTERS = 2**32 - 1  # of the table's column


def canonical_settings(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a post hoc method with every default written out and every value in one form.

    ``1`` and ``1.0`` are the same where the default is a float, and so are tuples and lists, and NumPy's and Python's
    numbers: equal settings must get equal hashes, in every process.

    Raises
    ------
    SettingsError
        For an unknown setting, or a value that is not a finite number, a string, a bool, None or a list of these.
    """
    from december_plugin.clustering.method_settings import METHODS

    defaults: Mapping[str, Any] = {} if method == DECEMBER else METHODS[method]
    for name in settings:
        if name not in defaults:
            allowed = did_you_mean(name, defaults) if defaults else "It has none: the trainer has them all."
            raise UnknownSettingError(f"{method} has no setting {name!r}. {allowed}", setting=name)
    merged = {**defaults, **settings}
    return {name: _canonical(name, merged[name], defaults[name]) for name in sorted(merged)}


def _canonical(name: str, value: Any, default: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and abs(value) >= LARGEST:
        raise SettingsError(f"{name} has {len(str(abs(value)))} digits; numbers are below 2**63.", setting=name)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, (list, tuple)):
        like = default if isinstance(default, (list, tuple)) and len(default) == len(value) else [None] * len(value)
        return [_canonical(name, entry, entry_default) for entry, entry_default in zip(value, like, strict=True)]
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise SettingsError(
            f"{name} is {value!r}; a setting is a number, a string, true, false, none or a list.", setting=name
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{name} is {value!r}; it must be finite.", setting=name)
    return value


def setting_mistakes(method: str, settings: Mapping[str, Any]) -> list[tuple[str, SettingsError]]:
    """Return what is wrong with the settings of a post hoc method: the setting ("" for none) and the error of each.

    Parameters
    ----------
    method
        "december", which has no settings, or one of :data:`december_plugin.clustering.method_settings.METHODS`.
    settings
        What is given of them.
    """
    from december_plugin.clustering.method_settings import mistakes_in_settings

    found: list[tuple[str, SettingsError]] = []
    for name, value in settings.items():
        try:
            right = canonical_settings(method, {name: value})[name]
        except SettingsError as error:
            found.append((name, error))
        else:
            found += [(name, error) for error in mistakes_in_settings(method, {name: right})]
    return found
