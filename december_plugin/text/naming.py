"""Names of what is compared: a comment where comments differ, and the settings that differ where they do not.

A configuration (data set, model, trainer, clustering) is named by its method and the trainer's comment. Configurations
whose names coincide are distinguished by the settings in which they differ, in words: "DECEMber (max_iter 12)".
Defaults count as settings, so that an entry that leaves a setting out and one that sets it are compared by the same
values. Nothing is ever named by a hash: what differs in nothing that can be said is numbered.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

import pandas as pd

from december_plugin.errors import SettingsError
from december_plugin.text.terminal import printable
from december_plugin.validation.checks import PASSED_BY_NNFABRIK, expand_preset

METHOD_NAMES = {"december": "DECEMber", "gmm": "Gaussian mixture", "kmeans": "k-means", "t_mixture": "t mixture"}
ROLE_ORDER = {"december": 0, "baseline": 1, "control": 2}
END_OF_PRETRAINING = "end of pretraining"
COUNT = "n_clusters"  # what a configuration is drawn against, and never a part of its name
LONGEST_VALUE = 40  # characters of a setting's value in a name
WRITTEN = ("trainer_config", "clustering_settings")  # of a configuration, as they are stored

_ABSENT = "default"
T = TypeVar("T")


def complete_settings(function: str, config: Any) -> dict[str, Any]:
    """Return the settings of an entry with the defaults of its function, and with what a preset stands for.

    Parameters
    ----------
    function
        Dotted name. Defaults and presets are known for functions of this package; of others the config is all there is.
    config
        What the entry stores; anything but a mapping has no settings.
    """
    given, found = _given(config), _own_function(function)
    if found is None:
        return given
    try:
        return _defaults(found) | expand_preset(found, given)
    except SettingsError:  # a preset of another version
        return _defaults(found) | given


def setting_words(value: Any) -> str:
    """Return the value of a setting in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(setting_words, value)) or "none"
    return str(value)


def distinct_names(names: Sequence[str], functions: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a name for each of several entries, no two of them alike.

    Parameters
    ----------
    names
        What each is called by itself, e.g. its comment; entries whose names differ keep them.
    functions
        The dotted name of each entry's function: named where it is what differs.
    settings
        The complete settings of each: those that differ between entries of the same name and function are named.

    Returns
    -------
    list of str
        In the order of the entries; what differs in nothing that can be said is numbered, as in "small [2]".
    """
    found = list(names)
    for members in _groups(range(len(found)), key=lambda i: names[i]):
        for i, said in _differences(members, functions, settings).items():
            if said:
                found[i] = f"{names[i]} ({', '.join(said)})"
    return numbered(found)


def numbered(names: Sequence[str]) -> list[str]:
    """Return the names, with a number after those that were there before."""
    taken, found = set(names), []
    seen: set[str] = set()
    for name in names:
        number, new = 1, name
        while new in seen or (number > 1 and new in taken):
            number += 1
            new = f"{name} [{number}]"
        seen.add(new)
        found.append(new)
    return found


def entry_names(entries: pd.DataFrame) -> list[str]:
    """Return the names of data sets or of models.

    Parameters
    ----------
    entries
        ``fn``, ``comment`` and ``config`` (a mapping), one row per entry, the entries that are shown together.
    """
    functions = [str(name) for name in entries["fn"]]
    comments = [_text(text) for text in entries["comment"]]
    names = [comment or short_function(function) for comment, function in zip(comments, functions, strict=True)]
    if len(set(names)) == len(names):  # nothing else is to be said, for which the functions would be imported
        return names
    settings = [_said_settings(fn, config) for fn, config in zip(functions, entries["config"], strict=True)]
    return distinct_names(names, functions, settings)


def configuration_labels(configurations: pd.DataFrame) -> list[str]:
    """Return the names of configurations; those that differ in nothing but the number of clusters have the same.

    Within a data set and model no two rows with the same number of clusters have the same name.

    Parameters
    ----------
    configurations
        One row each: ``dataset_fn``, ``dataset_hash``, ``model_fn``, ``model_hash``, ``method``, ``n_clusters``,
        ``trainer_role``, ``trainer_fn``, ``trainer_hash``, ``trainer_comment``, ``trainer_config``,
        ``clustering_hash``, ``clustering_settings`` and ``clustering_description``.
    """
    labels = pd.Series("", index=configurations.index, dtype=object)
    for _, rows in configurations.groupby(["dataset_fn", "dataset_hash", "model_fn", "model_hash"], sort=False):
        labels.loc[rows.index] = _labels_within(rows)
    return labels.tolist()


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of configurations in the order in which they are shown.

    By data set, model and number of clusters; DECEMber first, from the gentlest loss to the strongest, then what was
    fitted to the baseline, then to the end of the pretraining.

    Parameters
    ----------
    table
        ``dataset_hash``, ``model_hash``, ``n_clusters``, ``trainer_role``, ``label``, and ``gradient_ratio`` if it is
        known.
    """
    order = [ROLE_ORDER.get(role, len(ROLE_ORDER)) for role in table["trainer_role"]]
    ratio = table["gradient_ratio"].astype(float) if "gradient_ratio" in table else 0.0
    by = ["dataset_hash", "model_hash", COUNT, "_order", "_ratio", "label"]
    ordered = table.assign(_order=order, _ratio=ratio).sort_values(by, kind="stable", ignore_index=True)
    return ordered.drop(columns=["_order", "_ratio"])


def short_function(function: Any) -> str:
    """Return the last part of a dotted name."""
    return str(function).rsplit(".", 1)[-1]


# --- parts of the above ------------------------------------------------------------------------------------------


def _said_settings(function: str, config: Any) -> dict[str, Any]:
    """Return the settings that distinguish an entry: those of a preset are one, the preset."""
    given, found = _given(config), _own_function(function)
    return given if found is None else _defaults(found) | given


def _given(config: Any) -> dict[str, Any]:
    return dict(config) if isinstance(config, Mapping) else {}


def _own_function(name: str) -> Callable[..., Any] | None:
    """Return a function of this package by its dotted name; None for others, and for those of another version."""
    package, _, last = str(name).rpartition(".")
    if package.split(".")[0] != "december_plugin":
        return None
    try:
        found = getattr(import_module(package), last)
    except (ImportError, AttributeError):
        return None
    return found if callable(found) else None


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    own = [each for each in parameters if each.name not in PASSED_BY_NNFABRIK]
    return {each.name: each.default for each in own if each.default is not inspect.Parameter.empty}


def _labels_within(rows: pd.DataFrame) -> list[str]:
    records = rows.to_dict("records")
    bases = [_base(record) for record in records]
    if _is_said_by_bases(bases, records):
        return bases
    settings = [_settings_of(record) for record in records]
    functions = [str(record["trainer_fn"]) for record in records]
    curves = [(base, function, _canonical(own)) for base, function, own in zip(bases, functions, settings, strict=True)]
    first = {curve: i for i, curve in reversed(list(enumerate(curves)))}
    chosen = sorted(first.values())
    names = distinct_names(
        _with_comments([bases[i] for i in chosen], [records[i] for i in chosen]),
        [functions[i] for i in chosen],
        [settings[i] for i in chosen],
    )
    named = {curves[i]: name for i, name in zip(chosen, names, strict=True)}
    labels = [named[curve] for curve in curves]
    # The same settings can be stored twice, with a default written out and without.
    for members in _groups(range(len(records)), key=lambda i: (labels[i], records[i][COUNT])):
        ordered = sorted(members, key=lambda i: (str(records[i]["trainer_hash"]), str(records[i]["clustering_hash"])))
        for i, label in zip(ordered, numbered([labels[i] for i in ordered]), strict=True):
            labels[i] = label
    return labels


def _is_said_by_bases(bases: list[str], records: list[dict[str, Any]]) -> bool:
    """Return whether configurations of one name differ in the number of clusters alone, also as they were written.

    Then there is nothing to add to the names, for which the functions with their defaults would be imported.
    """
    if len({(base, record[COUNT]) for base, record in zip(bases, records, strict=True)}) < len(bases):
        return False
    written = {
        (base, record["trainer_fn"], *(_canonical(_without_count(record[name])) for name in WRITTEN))
        for base, record in zip(bases, records, strict=True)
    }
    return len(written) == len(set(bases))


def _without_count(settings: Any) -> dict[str, Any]:
    return {name: value for name, value in _given(settings).items() if name != COUNT}


def _base(record: Mapping[str, Any]) -> str:
    """Return the name that a configuration has by itself."""
    comment, method, role = _text(record["trainer_comment"]), str(record["method"]), str(record["trainer_role"])
    name = METHOD_NAMES.get(method, method)
    if method == "december":
        return comment if comment.lower().startswith("december") else f"{name}, {comment}".rstrip(", ")
    if role == "control":
        return f"{name}, {END_OF_PRETRAINING}"
    return name if role == "baseline" or not comment else f"{name}, {comment}"


def _with_comments(bases: list[str], records: list[dict[str, Any]]) -> list[str]:
    """Add comments to names of post hoc clusterings that coincide, where the comments differ.

    That a clustering is of the end of the pretraining is said already; what its trainer's comment adds are settings.
    """
    found = list(bases)
    for members in _groups(range(len(bases)), key=lambda i: bases[i]):
        for column, applies in (("trainer_comment", "baseline"), ("clustering_description", None)):
            texts = [_text(records[i][column]) for i in members]
            roles = {str(records[i]["trainer_role"]) for i in members}
            if len(set(texts)) > 1 and (applies is None or roles == {applies}):
                for i, text in zip(members, texts, strict=True):
                    found[i] = f"{found[i]}, {text}" if text else found[i]
    return found


def _settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of trainer and clustering without the number of clusters."""
    settings = _said_settings(str(record["trainer_fn"]), record["trainer_config"])
    clustering = record["clustering_settings"] if isinstance(record["clustering_settings"], Mapping) else {}
    settings |= {f"clustering {name}" if name in settings else name: value for name, value in clustering.items()}
    settings.pop(COUNT, None)
    return settings


def _differences(
    members: list[int], functions: Sequence[str], settings: Sequence[Mapping[str, Any]]
) -> dict[int, list[str]]:
    """Return what distinguishes entries of one name, in words."""
    said: dict[int, list[str]] = {i: [] for i in members}
    by_function = _groups(members, key=lambda i: functions[i])
    if len(by_function) > 1:
        short = {short_function(functions[group[0]]) for group in by_function}
        for group in by_function:
            name = functions[group[0]]
            for i in group:
                said[i].append(short_function(name) if len(short) == len(by_function) else name)
    for group in by_function:
        flat = {i: _flat(settings[i]) for i in group}
        names = dict.fromkeys(name for i in group for name in flat[i])
        for name in names:
            values = {i: _canonical(flat[i][name]) if name in flat[i] else None for i in group}
            if len(set(values.values())) < 2:
                continue
            words = _values_in_words([flat[i].get(name, _ABSENT) for i in group])
            for i, text in zip(group, words, strict=True):
                said[i].append(f"{name} {text}")
    return said


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested settings as one level, with dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = value
    return found


def _values_in_words(values: list[Any]) -> list[str]:
    """Return values in words; of long lists only what they do not share, of paths the last part where that differs."""
    words = [setting_words(value) for value in values]
    if all(len(text) <= LONGEST_VALUE for text in words):
        return words
    lists = [[str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)] for value in values]
    shared = set.intersection(*map(set, lists))
    own = [[item for item in items if item not in shared] or items for items in lists]
    last = [[item.rstrip("/").rsplit("/", 1)[-1] for item in items] for items in own]
    parts = last if len({tuple(items) for items in last}) == len({tuple(items) for items in own}) else own
    return [_shortened(items) for items in parts]


def _shortened(items: list[str]) -> str:
    text, n = items[0], 1
    while n < len(items) and len(text) + len(items[n]) + 2 <= LONGEST_VALUE:
        text, n = f"{text}, {items[n]}", n + 1
    if len(text) > LONGEST_VALUE:
        text = f"…{text[1 - LONGEST_VALUE :]}"  # paths differ at their ends
    return f"{text} and {len(items) - n} more" if n < len(items) else text


def _canonical(value: Any) -> str:
    def other(entry: Any) -> Any:
        return entry.tolist() if hasattr(entry, "tolist") else repr(entry)

    return json.dumps(value, default=other, sort_keys=True)


def _text(value: Any) -> str:
    """Return a stored text on one line, without what a terminal would obey, so that columns of names stay in line."""
    return "" if pd.isna(value) else " ".join(printable(str(value)).split())


def _groups(items: Iterable[T], *, key: Callable[[T], Hashable]) -> list[list[T]]:
    found: dict[Hashable, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.values())
