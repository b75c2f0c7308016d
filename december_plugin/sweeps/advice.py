"""What to know before a valid sweep is registered.

Its trainings fail if recordings are missing or workers refuse functions; its results cannot be interpreted without
seeds to compare, controls, and the post hoc methods.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from december_plugin.clustering.methods import FOUND, alignment_recipe
from december_plugin.errors import SettingsError
from december_plugin.schemas.equivariant_models import VARIABLE as EQUIVARIANT_VARIABLE
from december_plugin.schemas.equivariant_models import equivariant_patterns, is_equivariant
from december_plugin.security.allowed_modules import OPTION, VARIABLE, AllowedModules
from december_plugin.sweeps.functions import is_ours, path_settings, resolve
from december_plugin.sweeps.parse import Entry, Sweep
from december_plugin.text.formatting import numbered


def advice(sweep: Sweep) -> Iterator[str]:
    """Yield a sentence for each comparison that DECEMber's results need and the sweep lacks.

    Parameters
    ----------
    sweep
        Checked by :func:`december_plugin.sweeps.parse.parse_sweep`.
    """
    yield from _unaligned(sweep)
    if len(sweep.seeds) < 2:
        yield "there is one seed, so there will be no agreement between seeds. Use at least three."
    december = [entry for entry in sweep.trainers if _is_our_trainer(entry, "december_trainer")]
    if not december:
        return
    baselines = [entry for entry in sweep.trainers if _is_our_trainer(entry, "baseline_trainer")]
    controls = {_pretraining(entry) for entry in baselines if entry.config.get("stop_after_pretraining")}
    if not any(not entry.config.get("stop_after_pretraining") for entry in baselines):
        yield "there is no baseline_trainer without clustering loss to compare DECEMber with."
    missing = sorted({_pretraining(entry) for entry in december} - controls, key=str)
    if missing:
        epochs = ", ".join(map(str, sorted({dict(pretraining)["epochs"] for pretraining in missing})))
        yield (
            f"no control ends with the pretraining of DECEMber ({epochs} epochs): a baseline_trainer with "
            "stop_after_pretraining: true and the same pretrain_epochs and lr_init. Without it you cannot "
            "tell what the clustering loss added."
        )
    yield from _post_hoc({entry.config["n_clusters"] for entry in december}, sweep)


def _unaligned(sweep: Sweep) -> Iterator[str]:
    """Yield a sentence if clusterings with an alignment have nothing to align."""
    aligned = [entry for entry in sweep.clusterings if alignment_recipe(entry.settings)]
    patterns = equivariant_patterns()
    if aligned and not any(is_equivariant(entry.fn, entry.config, patterns) for entry in sweep.models):
        number = numbered(len(aligned), "clustering")
        yield (
            f"the sweep has {number} with alignment, but no rotation-equivariant model, and only these are aligned. "
            f"If your own model function has such a core, name it in {EQUIVARIANT_VARIABLE}."
        )
    elif aligned and all(_is_our_trainer(entry, "december_trainer") for entry in sweep.trainers):
        yield (
            "vectors are aligned for clusterings that are fitted afterwards, but all trainers are december_trainer, "
            "whose models have their own clusters. Add a baseline_trainer."
        )


def _post_hoc(asked: set[Any], sweep: Sweep) -> Iterator[str]:
    """Yield what the post hoc methods of the sweep lack; a method that it does not name was left out on purpose."""
    counts: dict[str, set[int]] = {}
    for entry in sweep.clusterings:
        counts.setdefault(entry.method, set()).add(entry.n_clusters)
    if not counts:
        yield (
            "there are no clusterings, so DECEMber will not be compared with other methods. t_mixture with the same "
            "n_clusters shows what the clustering loss adds."
        )
    for method in sorted(method for method in counts if counts[method] != {FOUND}):
        if left := sorted(asked - counts[method]):
            yield f"the clusterings have {method}, but not with n_clusters {left}, which DECEMber has."


def _is_our_trainer(entry: Entry, name: str) -> bool:
    return resolve("trainers", entry.fn).__module__.startswith("december_plugin.") and entry.fn.endswith(f".{name}")


def _pretraining(entry: Entry) -> tuple[Any, ...]:
    """Return length and settings of an entry's pretraining: equal ones are the same pretraining."""
    from december_plugin.training.trainers import training_settings

    return tuple(training_settings(resolve("trainers", entry.fn), entry.config).pretraining().items())


MOST_PATHS = 5  # paths that are named one by one
NOWHERE = "an entry"  # what a refusal, which is not shown, calls the entry


def recording_paths(fn: str, config: dict[str, Any]) -> list[str]:
    """Return the files and folders that an entry names; none for dataset functions of other packages."""
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
    for path in missing[:MOST_PATHS]:
        yield f"{path} does not exist on this machine.{_similar(path)}"
    if len(missing) > MOST_PATHS:
        yield f"{len(missing) - MOST_PATHS} more recordings do not exist on this machine."
    if missing:
        yield (
            "paths are part of the dataset's entry. If one is wrong, correct it before workers start, and remove what "
            "was planned for it: `december forget`. If workers run on other machines, it must be right there."
        )


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # no permission for a folder above it, or a name that is too long
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
    """Return the packages that must be allowed for a function: those of its name and of its definition."""
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
