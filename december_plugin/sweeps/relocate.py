"""Records in the tables that recordings have moved, after checking that they are the same."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nnfabrik.builder import get_data

from december_plugin.errors import RecordingError, SettingsError
from december_plugin.evaluation.neuron_order import in_trained_order
from december_plugin.schemas.allowed_functions import check_functions
from december_plugin.schemas.relocation import LONGEST_PATH, is_below, new_path, paths_in, relocated
from december_plugin.schemas.stored_models import neurons_of
from december_plugin.sweeps.entries import entry_key
from december_plugin.sweeps.parse import Entry, Sweep

SEED = 1  # of the loaders that are compared
ITEMS = 20  # of a dataset, whose responses are compared
UNCHECKED = "nothing: the old place is gone, and no model of it is trained"


@dataclass(frozen=True)
class MovedDataset:
    """An entry of ``Dataset`` whose recordings have moved.

    Attributes
    ----------
    key
        Key of the entry.
    comment
        Comment of the entry.
    compared_with
        What its content was compared with, in words.
    n_trained
        Number of models that were trained on it.
    """

    key: Mapping[str, str]
    comment: str
    compared_with: str
    n_trained: int


@dataclass(frozen=True)
class Move:
    """What a relocation does.

    Attributes
    ----------
    rules
        Paths in the entries, and where they will be read from.
    datasets
        The affected entries.
    """

    rules: Mapping[str, str]
    datasets: tuple[MovedDataset, ...]


def plan_move(old: str, new: str, *, nnfabrik: Any, tables: Any) -> Move:
    """Find the datasets whose recordings have moved, and compare what is at the new place with what was at the old one.

    Parameters
    ----------
    old
        A recording, or a folder above several, at its previous place.
    new
        Its new place, which must exist on this machine.
    nnfabrik
        Module with nnfabrik's tables.
    tables
        What :func:`december_plugin.schemas.december_tables` returned for it.

    Raises
    ------
    SettingsError
        If no dataset has a recording there, or the new place is not on this machine.
    RecordingError
        If the recordings at the new place are not those of the old one: other sessions, neurons, numbers of trials or
        responses.
    """
    old, new = _absolute(old), _absolute(new)
    if max(len(old), len(new)) > LONGEST_PATH:
        raise SettingsError(f"a path has more than {LONGEST_PATH} characters.")
    if old == new:
        raise SettingsError(f"both paths are {old}. Give the old place and the new one.")
    if not os.path.exists(new):
        raise SettingsError(
            f"{new} does not exist on this machine. Relocate where the recordings can be read: they are compared with "
            "those at the old place."
        )
    moved = tables.Relocation().paths()
    rows = nnfabrik.Dataset.fetch("dataset_fn", "dataset_hash", "dataset_config", "dataset_comment", as_dict=True)
    rules: dict[str, str] = {}
    affected = []
    for row in rows:
        found = dict(_rules(row["dataset_config"], old, new, moved))
        if found:
            rules |= found
            affected.append(row)
    if not affected:
        known = sorted({new_path(path, moved, even_if_missing=True) for row in rows for path in _paths(row)})
        shown = "; ".join(known[:5]) + ("; ..." if len(known) > 5 else "")
        raise SettingsError(
            f"no dataset has a recording at or below {old}. Recordings of the datasets: {shown or 'none'}."
        )
    after = {**moved, **rules}
    return Move(rules, tuple(_compared(row, moved, after, tables=tables) for row in affected))


def carry_out(move: Move, *, tables: Any) -> None:
    """Write a move into the tables."""
    checked = "; ".join(dict.fromkeys(dataset.compared_with for dataset in move.datasets))[:255]
    table = tables.Relocation()
    with table.connection.transaction:  # all or nothing
        for old, new in move.rules.items():
            table.set(old, new, checked=checked)


def as_registered(sweep: Sweep, *, nnfabrik: Any, tables: Any) -> Sweep:
    """Return a sweep in which moved datasets have the paths under which they are registered.

    After a folder has moved, the sweep's file will sooner or later have its new path, but the entry remains the same.
    """
    moved = tables.Relocation().paths()
    if not moved:
        return sweep
    known = set(zip(*nnfabrik.Dataset.fetch("dataset_fn", "dataset_hash"), strict=True))
    back = {new: old for old, new in moved.items()}

    def registered(entry: Entry) -> Entry:
        earlier = replace(entry, config=_with_paths(entry.config, back))
        pair = tuple(entry_key("dataset", earlier).values())
        is_new = tuple(entry_key("dataset", entry).values()) not in known
        return earlier if is_new and pair in known else entry

    return replace(sweep, datasets=tuple(registered(entry) for entry in sweep.datasets))


def _with_paths(config: Any, back: Mapping[str, str]) -> Any:
    if isinstance(config, str):
        return new_path(config, back, even_if_missing=True) if os.path.isabs(config) else config
    if isinstance(config, Mapping):
        return {name: _with_paths(value, back) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_with_paths(value, back) for value in config]
    return config


def _absolute(path: str) -> str:
    return os.path.normpath(Path(path).expanduser().absolute())


def _paths(row: Mapping[str, Any]) -> Iterator[str]:
    return paths_in(row["dataset_config"])


def _rules(config: Any, old: str, new: str, moved: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what must be recorded: a path of the entry, or a folder above it, and its new place."""
    for path in paths_in(config):
        now = new_path(path, moved, even_if_missing=True)
        if not is_below(now, old):
            continue
        rest = now.rstrip("/")[len(old) :]
        plain = path.rstrip("/")
        # The folder that moved, as the entry names it: the path without what is below the folder.
        yield (plain[: len(plain) - len(rest)], new) if rest and plain.endswith(rest) else (plain, new + rest)


# --- comparison --------------------------------------------------------------------------------------------------


def _compared(
    row: Mapping[str, Any], before: Mapping[str, str], after: Mapping[str, str], *, tables: Any
) -> MovedDataset:
    key = {name: row[name] for name in ("dataset_fn", "dataset_hash")}
    models = tables.TrainedModel & key
    dataset = MovedDataset(key, row["dataset_comment"], UNCHECKED, len(models))
    config = row["dataset_config"]
    was, is_now = relocated(config, before), _with_paths(config, after)
    loaders = _loaders(key, is_now)
    compared = []
    if all(os.path.exists(path) for path in paths_in(was)) and was != is_now:
        _check_same(_loaders(key, was), loaders, now=is_now)
        compared.append("the recordings at the old place")
    if len(models):
        trained = models.fetch("KEY", limit=1)[0]
        neurons = neurons_of((models & trained).fetch1("output")) or _assigned_neurons(tables, trained)
        if neurons:
            in_trained_order(loaders, neurons)
            compared.append("sessions and unit ids of the trained models")
        if _check_trials(tables, trained, loaders, now=is_now):
            compared.append("their numbers of test trials")
    return replace(dataset, compared_with=", ".join(compared) or UNCHECKED)


def _loaders(key: Mapping[str, str], config: Mapping[str, Any]) -> Mapping[str, Any]:
    check_functions({"dataset_fn": key["dataset_fn"]}, key)
    return get_data(key["dataset_fn"], {"seed": SEED, **copy.deepcopy(dict(config))})


def _check_same(old: Mapping[str, Any], new: Mapping[str, Any], *, now: Mapping[str, Any]) -> None:
    """Compare sessions, unit ids, numbers of trials, and the first responses of every tier."""
    from december_plugin.embeddings.readout_vectors import unit_ids_of

    places = ", ".join(paths_in(now))
    sessions = {tier: sorted(of_tier) for tier, of_tier in old.items()}
    if sessions != {tier: sorted(of_tier) for tier, of_tier in new.items()}:
        shown = [
            ", ".join(sorted({each for of_tier in loaders.values() for each in of_tier})) for loaders in (old, new)
        ]
        raise RecordingError(
            f"the sessions of {places} are {shown[1]}; at the old place they are {shown[0]}. A session is named after "
            "its folder: keep the folder's name. Nothing was changed."
        )
    before, after = unit_ids_of(old), unit_ids_of(new)
    for tier, of_tier in old.items():
        for data_key, loader in of_tier.items():
            other = new[tier][data_key]
            what = _difference(loader, other, before.get(data_key), after.get(data_key))
            if what:
                raise RecordingError(
                    f"the session {data_key!r} at {places} has {what} than at the old place, so it is another "
                    "recording. Register it as a separate dataset. Nothing was changed."
                )


def _difference(old: Any, new: Any, old_units: Any, new_units: Any) -> str:
    if not np.array_equal([] if old_units is None else old_units, [] if new_units is None else new_units):
        return "other unit ids"
    if _n_trials(old) != _n_trials(new):
        return "another number of trials"
    for first, second in zip(_some_responses(old), _some_responses(new), strict=True):
        if first.shape != second.shape or not np.array_equal(first, second, equal_nan=True):
            return "other responses"
    return ""


def _some_responses(loader: Any) -> list[np.ndarray]:
    """Return the responses of some items of a loader's dataset, in the order of the files; none if it has none."""
    import torch

    try:
        count = len(loader.dataset)
        items = [loader.dataset[at] for at in np.linspace(0, count - 1, min(count, ITEMS)).astype(int).tolist()]
        return [torch.as_tensor(item.responses).double().cpu().numpy() for item in items]
    except (AttributeError, TypeError):
        return []


def _n_trials(loader: Any) -> int | None:
    sampler: Any = getattr(loader, "sampler", None)
    return len(sampler) if hasattr(sampler, "__len__") else None


def _assigned_neurons(tables: Any, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the neurons of a model of another package's trainer, as its first assignment has them."""
    sessions = tables.ClusterAssignment.Session & key & {"unit_ids_from": "recording"}
    rows: Sequence[Mapping[str, Any]] = sessions.fetch("data_key", "unit_ids", as_dict=True)
    return {row["data_key"]: {"unit_ids": row["unit_ids"], "n_neurons": len(row["unit_ids"])} for row in rows} or None


def _check_trials(tables: Any, key: Mapping[str, Any], loaders: Mapping[str, Any], *, now: Mapping[str, Any]) -> bool:
    """Compare the numbers of test trials with those that the trained model was tested on; return if there are any."""
    from december_plugin.sweeps.functions import IMAGES, resolve, stimuli_of

    if stimuli_of(resolve("datasets", key["dataset_fn"])) != IMAGES:
        return False  # trials of movies are clips to a loader
    stored = dict(zip(*(tables.TestPerformance.Session & key).fetch("data_key", "n_trials"), strict=True))
    for data_key, loader in (loaders.get("test") or {}).items():
        count = _n_trials(loader)
        if count is not None and stored.get(data_key) and int(stored[data_key]) != count:
            raise RecordingError(
                f"the session {data_key!r} at {', '.join(paths_in(now))} has {count} test trials; trained models were "
                f"tested on {stored[data_key]}, so it is another recording. Register it as a separate dataset. "
                "Nothing was changed."
            )
    return bool(stored)
