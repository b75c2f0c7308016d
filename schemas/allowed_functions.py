"""Checks that the functions that entries name may be run here, and can be imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnfabrik import builder
from nnfabrik.builder import resolve_fn

from december_plugin.errors import SettingsError
from december_plugin.importing import failures
from december_plugin.security.allowed_modules import current_restriction

TABLES = {"dataset": "Dataset", "model": "Model", "trainer": "Trainer"}
# The packages in which nnfabrik looks for a name without dots.
DEFAULT_BASES = {"dataset": "datasets", "model": "models", "trainer": "training"}


def check_functions(config: Mapping[str, Any], key: Mapping[str, Any]) -> None:
    """Raise a :class:`SettingsError` that names the entry if one of its functions is not allowed or cannot be found.

    Nothing is imported before all names are known to be allowed (:mod:`december_plugin.security.allowed_modules`).
    """
    entries = {
        role: f"{table} entry with {role}_hash {key[f'{role}_hash']!r}"
        for role, table in TABLES.items()
        if config.get(f"{role}_fn") is not None
    }
    allowed = current_restriction()
    if allowed is not None:
        for role, entry in entries.items():
            allowed.check(config[f"{role}_fn"], table=entry)
    for role, entry in entries.items():
        name = config[f"{role}_fn"]
        try:
            function = resolve_fn(name, DEFAULT_BASES[role])
        except failures.ANYTHING as error:
            # A refusal has no cause; with one, it explains an import that failed.
            if isinstance(error, SettingsError) and error.__cause__ is None:
                raise
            cause = error.__cause__ if isinstance(error, SettingsError) else error
            raise _unusable(entry, name, cause or error) from cause
        if allowed is not None:
            allowed.check_function(function, name=name, table=entry)


def _unusable(entry: str, name: str, error: BaseException) -> SettingsError:
    """Return the error that says that a function cannot be imported, and why."""
    if failures.was_raised_by_the_module(error):
        remedy = "Correct its module, or provide what it needs where this runs."
    else:
        remedy = (
            "Install the package that contains it where this runs, or register the entry under the function's dotted "
            "path."
        )
    reason = failures.reason(error)
    return SettingsError(f"the {entry} names the function {name!r}, which cannot be used here: {reason}. {remedy}")


def guard_nnfabrik() -> None:
    """Make nnfabrik itself obey :func:`december_plugin.security.restricted_to`; calling it again changes nothing.

    A lab's own ``TrainedModel`` resolves names in nnfabrik's code, without :func:`check_functions`. Every name passes
    through the two functions that are replaced here.
    """
    if hasattr(builder.dynamic_import, "before_december"):
        return
    split, load = builder.split_module_name, builder.dynamic_import

    def split_module_name(name: str) -> Any:
        if (allowed := current_restriction()) is not None:
            allowed.check(name, table="entry")
        return split(name)

    def dynamic_import(module: str, name: str) -> Any:
        if (allowed := current_restriction()) is None:
            return load(module, name)
        allowed.check(f"{module}.{name}", table="entry")
        try:
            function = load(module, name)
        except failures.ANYTHING as error:
            raise _unusable("entry", f"{module}.{name}", error) from error
        allowed.check_function(function, name=f"{module}.{name}", table="entry")
        return function

    dynamic_import.before_december = load  # type: ignore[attr-defined]
    builder.split_module_name, builder.dynamic_import = split_module_name, dynamic_import


guard_nnfabrik()
