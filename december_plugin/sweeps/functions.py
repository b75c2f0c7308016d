"""Whether the functions that a sweep names can work: their settings, and what can be combined.

Nothing is loaded or trained. Settings are checked by the functions' own checks: trainers' settings are constructed,
model functions build their model for a made-up session of two neurons, dataset functions are called with a folder that
does not exist, which they notice after they have checked their settings.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from december_plugin.errors import (
    DecemberError,
    MisfitError,
    MissingExtraError,
    MissingSettingError,
    RecordingError,
    SettingsError,
    did_you_mean,
)
from december_plugin.importing import failures
from december_plugin.security.allowed_modules import is_dotted_name
from december_plugin.text.stored_text import check_session_names
from december_plugin.validation.annotations import check_types
from december_plugin.validation.checks import allowed_settings, check_complete, unknown_setting

BASES = {"datasets": "datasets", "models": "models", "trainers": "training"}
FN_LENGTHS = {"datasets": 64, "models": 128, "trainers": 64}  # of nnfabrik's columns
IMAGES, MOVIES = "images", "movies"
# Building these takes milliseconds, and needs no download and no other package.
BUILT = (
    "stacked_core_gaussian_readout",
    "stacked_core_attention_readout",
    "stacked_core_factorized_readout",
    "equivariant_core_gaussian_readout",
    "equivariant_core_factorized_readout",
    "movie_core_gaussian_readout",
)
MADE_UP = "made-up session"
MADE_UP_SIZES = {IMAGES: (1, 64, 64), MOVIES: (1, 60, 64, 64)}
SMALLEST = {"n_clusters": 1, "batch_size": 1}  # replace wrong values of settings without a default

Found = tuple[str, SettingsError]  # one of the given settings, or "", and what is wrong


def resolve(section: str, name: str) -> Callable[..., Any]:
    """Return the function of an entry, or raise a :class:`SettingsError` if there is none."""
    from nnfabrik.builder import resolve_fn

    if not is_dotted_name(name):
        raise SettingsError(
            f"{name!r} is not the dotted name of a function. Write the whole dotted path, e.g. "
            f"december_plugin.trainers.december_trainer.{_similar_name(section, name)}"
        )
    try:
        function = resolve_fn(name, BASES[section])
    except failures.ANYTHING as error:
        reason = failures.reason(error)
        if failures.was_raised_by_the_module(error):
            module = name.rpartition(".")[0]
            raise SettingsError(
                f"{name!r} is not a function that can be imported here ({reason}). Correct the module, or provide what "
                f'it needs; `python -c "import {module}"` shows the whole error.'
            ) from None
        raise SettingsError(
            f"{name!r} is not a function that can be imported here ({reason}). Write the whole dotted path, e.g. "
            "december_plugin.trainers.december_trainer, and install the package that it is in."
            f"{_similar_name(section, name)}"
        ) from None
    if len(name) > FN_LENGTHS[section]:
        raise SettingsError(
            f"{name!r} has {len(name)} characters; nnfabrik's table allows {FN_LENGTHS[section]}. Import the function "
            "in a module with a shorter name, and name it there."
        )
    return function


def _similar_name(section: str, name: str) -> str:
    from december_plugin import datasets, models, trainers

    module = {"datasets": datasets, "models": models, "trainers": trainers}[section]
    ours = [f"{module.__name__}.{each}" for each in module.__all__]
    suggestion = did_you_mean(name, ours).partition("Allowed:")[0].strip()
    return f" {suggestion}" if suggestion else ""


def is_ours(function: Callable[..., Any]) -> bool:
    """Return whether a function belongs to this package, whatever path names it."""
    return getattr(function, "__module__", "").startswith("december_plugin.")


def config_mistakes(section: str, function: Callable[..., Any], config: Mapping[str, Any]) -> list[Found]:
    """Return what is wrong with the settings of an entry.

    Parameters
    ----------
    section
        ``datasets``, ``models`` or ``trainers``.
    function
        The entry's function. Only those whose settings are checked when they are called can be checked here.
    config
        The settings.
    """
    from december_plugin.training.trainers import TRAINERS

    if function not in TRAINERS and not hasattr(function, "has_checked_settings"):
        return []
    found = _names(section, function, config)
    known = {name: value for name, value in config.items() if name in allowed_settings(function)}
    if section == "trainers":
        typed: list[Found] = [] if function in TRAINERS else check_types(function, known)
    else:
        typed = check_types(function, known)
    usable = {name: value for name, value in known.items() if name not in dict(typed)}
    return [*found, *typed, *_ranges(function, usable), *_session_names(function, usable)]


def _session_names(function: Callable[..., Any], settings: Mapping[str, Any]) -> list[Found]:
    """Return what is wrong with the names of sessions, as far as their folders give them."""
    from december_plugin.datasets import static_loaders
    from december_plugin.datasets.sensorium.layout import data_key_of

    paths = settings.get("paths")
    if function is not static_loaders or not isinstance(paths, (list, tuple)):
        return []
    try:
        check_session_names(data_key_of(Path(path)) for path in paths)
    except RecordingError as error:
        return [("paths", SettingsError(str(error), setting="paths"))]
    return []


def _names(section: str, function: Callable[..., Any], config: Mapping[str, Any]) -> list[Found]:
    # A dataset may have its own seed, which then counts.
    allowed = allowed_settings(function) | ({"seed"} if section == "datasets" else set())
    found: list[Found] = [
        (name, unknown_setting(function.__name__, name, allowed)) for name in config if name not in allowed
    ]
    try:
        check_complete(function, config)
    except SettingsError as error:
        found.append(("", error))
    return found


def _ranges(function: Callable[..., Any], config: Mapping[str, Any]) -> list[Found]:
    """Let the function check its settings; after each complaint, leave the setting out and continue with the others."""
    found: list[Found] = []
    left_out: list[str] = []
    left = {**{name: value for name, value in SMALLEST.items() if name in allowed_settings(function)}, **config}
    for _ in range(len(config) + 1):
        error = _complaint(function, left)
        if error is None or isinstance(error, MissingSettingError):  # reported already
            break
        concerned = [name for name in (error.setting, *error.others) if name is not None]
        culprit = next((name for name in concerned if name in left), "")
        if not set(concerned) & set(left_out):  # otherwise it is about a default, which is not in the file
            found.append((culprit, error))
        if not culprit or left.get(culprit) == SMALLEST.get(culprit, left):
            break
        left.pop(culprit)
        left_out.append(culprit)
        if culprit in SMALLEST:
            left[culprit] = SMALLEST[culprit]
    return found


def _complaint(function: Callable[..., Any], config: Mapping[str, Any]) -> SettingsError | None:
    from december_plugin.training.trainers import TRAINERS, check_trainer_config

    try:
        if function in TRAINERS:
            check_trainer_config(function, config)
        elif is_ours(function) and function.__name__ in BUILT:
            _build(function, config)
        elif is_ours(function) and path_settings(function):
            _call_without_data(function, config)
    except MissingExtraError:  # it may be installed where the workers are
        return None
    except SettingsError as error:
        return error
    return None


def made_up_session(function: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    """Return a ``data_info`` that a model function takes: a session of two neurons, with everything it may ask for."""
    from december_plugin import models

    shape = MADE_UP_SIZES[models.STIMULI[function.__name__]]
    info = {
        "input_dimensions": (2, *shape),
        "output_dimension": (2, 2),
        "input_channels": shape[0],
        "mean_responses": np.ones(2, dtype=np.float32),
        "cell_motor_coordinates": np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]),
        "pupil_channels": 2,
    }
    return {MADE_UP: info}


def _build(function: Callable[..., Any], config: Mapping[str, Any]) -> None:
    """Build a model; only a complaint about the settings counts, not one about the made-up session."""
    try:
        function(None, 0, **config, data_info=made_up_session(function))
    except MisfitError:
        return
    except SettingsError:
        raise
    except Exception:
        # A part of another package refused something; the real data decide.
        return


def path_settings(function: Callable[..., Any]) -> list[str]:
    """Return the settings of a dataset function that are files or folders: path, paths, movie_path and the like."""
    return [name for name in inspect.signature(function).parameters if re.search(r"(^|_)paths?$", name)]


def _call_without_data(function: Callable[..., Any], config: Mapping[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        missing: dict[str, Any] = {}
        for name in path_settings(function):
            given = config.get(name)
            many = range(len(given)) if isinstance(given, (list, tuple)) else None
            path = str(Path(folder) / f"missing-{name}")
            missing[name] = path if many is None else [f"{path}-{number}" for number in many]
        try:
            function(**{**config, **missing, "seed": 1})
        except SettingsError:
            raise
        except (DecemberError, OSError, TypeError):
            return


# --- combinations ------------------------------------------------------------------------------------------------


def stimuli_of(function: Callable[..., Any]) -> str | None:
    """Return what a dataset function serves or a model function takes: images, movies, or None if unknown.

    Functions of other packages may serve and take anything.
    """
    from december_plugin import datasets, models

    return (datasets.STIMULI | models.STIMULI).get(function.__name__) if is_ours(function) else None


def most_neurons(function: Callable[..., Any], config: Mapping[str, Any]) -> int | None:
    """Return the most neurons that a dataset entry may have, judging by its settings and folders; None if unknown.

    Folders that are not on this machine are not a mistake: workers may run elsewhere.
    """
    paths = config.get("paths")
    if not is_ours(function) or not isinstance(paths, (list, tuple, str)):
        return None
    folders = [paths] if isinstance(paths, str) else list(paths)
    chosen, per_session = config.get("neuron_ids"), config.get("neuron_n")
    if isinstance(chosen, Mapping):  # session to unit ids; sessions that are not named are left out
        return sum(len(units) for units in chosen.values() if isinstance(units, list))
    counts = []
    for number, folder in enumerate(folders):
        if isinstance(chosen, list) and len(chosen) == len(folders) and isinstance(chosen[number], list):
            counts.append(len(chosen[number]))
            continue
        known = [_n_neurons_in(Path(str(folder))), per_session if isinstance(per_session, int) else None]
        sizes = [size for size in known if size is not None]
        if not sizes:
            return None
        counts.append(min(sizes))
    return sum(counts)


def _n_neurons_in(folder: Path) -> int | None:
    """Return the number of neurons of a recording in the SENSORIUM 2022 layout or the generic format for movies."""
    for file in (folder / "meta" / "neurons" / "unit_ids.npy", folder / "unit_ids.npy"):
        try:
            return len(np.load(file, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, TypeError, EOFError):
            continue
    return None
