"""What will go wrong where a sweep's trainings run: recordings that are not there, functions that workers refuse."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from december_plugin.errors import SettingsError
from december_plugin.security.allowed_modules import OPTION, VARIABLE, AllowedModules
from december_plugin.sweeps.parse import Sweep
from december_plugin.sweeps.validate import is_ours, path_settings, resolve

MOST = 5  # paths that are named one by one
NOWHERE = "an entry"  # what a refusal that nobody sees calls the entry


def recording_paths(fn: str, config: dict[str, Any]) -> list[str]:
    """Return the files and folders that an entry of a dataset function of this package names; of others, none."""
    function = resolve("datasets", fn)
    if not is_ours(function):
        return []
    values = [config.get(name) for name in path_settings(function)]
    lists = [value if isinstance(value, (list, tuple)) else [value] for value in values]
    return [path for each in lists for path in each if isinstance(path, str)]


def missing_recordings(sweep: Sweep, moved: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield a sentence on recordings that are not on this machine; workers may run elsewhere.

    Parameters
    ----------
    sweep
        Checked by :func:`december_plugin.sweeps.parse.parse_sweep`.
    moved
        Paths of recordings, or of folders above them, that have moved, and where they are now.
    """
    from december_plugin.schemas.relocation import new_path

    found = [path for entry in sweep.datasets for path in recording_paths(entry.fn, entry.config)]
    paths = [new_path(path, moved or {}) for path in found]
    missing = [path for path in dict.fromkeys(paths) if not _exists(path)]
    for path in missing[:MOST]:
        yield f"{path} does not exist on this machine.{_similar(path)}"
    if len(missing) > MOST:
        yield f"{len(missing) - MOST} more recordings do not exist on this machine."
    if missing:
        yield (
            "paths are part of the dataset's entry. If one is wrong, correct it before workers start, and remove what "
            "was planned for it: `december forget`. If workers run on other machines, it must be there."
        )


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # no rights on the way to it, a name that is too long
        return False


def _similar(path: str) -> str:
    try:
        names = [each.name for each in Path(path).parent.iterdir()]
    except (OSError, ValueError):
        return ""
    close = difflib.get_close_matches(Path(path).name, names, n=1, cutoff=0.6)
    return f" Did you mean {Path(path).parent / close[0]}?" if close else ""


def refused_functions(sweep: Sweep) -> Iterator[str]:
    """Yield a sentence for each package whose functions workers do not run, as this machine is configured.

    Parameters
    ----------
    sweep
        Checked by :func:`december_plugin.sweeps.parse.parse_sweep`.
    """
    allowed = AllowedModules.from_settings()
    refused: dict[str, list[str]] = {}
    entries = [("datasets", sweep.datasets), ("models", sweep.models), ("trainers", sweep.trainers)]
    for section, name in dict.fromkeys((section, entry.fn) for section, found in entries for entry in found):
        function = resolve(section, name)
        for module in _needed(allowed, function, name):
            refused.setdefault(module, []).append(name)
    for package, names in refused.items():
        yield (
            f"workers refuse {', '.join(names)} until {package} is allowed where they run: `december worker {OPTION} "
            f"{package}`, or {VARIABLE}={package}."
        )


def _needed(allowed: AllowedModules, function: Any, name: str) -> list[str]:
    """Return the packages that must be allowed for a function: where its name is, and where it was defined."""
    needed = []
    try:
        allowed.check(name, table=NOWHERE)
    except SettingsError:
        needed.append(name.partition(".")[0])
    try:
        allowed.check_function(function, name=name, table=NOWHERE)
    except SettingsError:
        needed.append(allowed.home_of(function).partition(".")[0])
    return list(dict.fromkeys(needed))
