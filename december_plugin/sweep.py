"""Sweeps: a YAML file that says which datasets, models, trainers, clusterings and seeds to combine.

Reading and checking a sweep needs no database. ::

    seeds: [1, 2, 3]
    datasets:
      - fn: december_plugin.datasets.static_loaders
        comment: two sessions
        config: {paths: [static1-2-3, static4-5-6], batch_size: 128}
    models:
      - fn: december_plugin.models.stacked_core_gaussian_readout
        config: {}
    trainers:
      - fn: december_plugin.trainers.december_trainer
        comment: DECEMber, K {n_clusters}, strength {strength}
        config: {pretrain_epochs: 40}
        grid: {n_clusters: [10, 20, 30], strength: [auto, 0.1]}
    clusterings:
      - {method: gmm, n_clusters: [10, 20, 30]}

``grid`` gives settings lists of values; an entry is made for each combination. Comments may name settings in braces.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from december_plugin.errors import SettingsError, did_you_mean
from december_plugin.settings import check_complete, check_known

OUR_DATASET = "december_plugin.datasets.static_loaders"
SECTIONS = ("seeds", "datasets", "models", "trainers", "clusterings")
ENTRY_KEYS = ("fn", "comment", "config", "grid")
MAX_COMMENT_LENGTH = 256


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as YAML 1.2 and Python do; YAML 1.1 wants 1.0e-3."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass(frozen=True)
class Entry:
    """One row of nnfabrik's ``Dataset``, ``Model`` or ``Trainer``."""

    fn: str
    config: dict[str, Any]
    comment: str = ""


@dataclass(frozen=True)
class ClusteringEntry:
    """One row of ``Clustering``."""

    method: str
    n_clusters: int
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """Everything that a sweep registers; every dataset x model x trainer x seed is a training."""

    datasets: tuple[Entry, ...]
    models: tuple[Entry, ...]
    trainers: tuple[Entry, ...]
    seeds: tuple[int, ...]
    clusterings: tuple[ClusteringEntry, ...] = ()

    @property
    def n_trainings(self) -> int:
        """How many trainings the sweep plans."""
        return len(self.datasets) * len(self.models) * len(self.trainers) * len(self.seeds)


def load_sweep(path: str | Path) -> Sweep:
    """Read a sweep from a YAML file; relative recording paths are taken from the file's folder.

    Raises
    ------
    SettingsError
        If the file cannot be read, or for the first mistake in it; see :func:`parse_sweep`.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise SettingsError(f"the sweep {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"the sweep {path} is not valid YAML: {error}") from None
    try:
        return parse_sweep(content, folder=path.resolve().parent)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def parse_sweep(content: Any, *, folder: Path | None = None) -> Sweep:
    """Check a sweep and expand its grids.

    Parameters
    ----------
    content
        The mapping of the YAML file.
    folder
        What relative paths in the ``paths`` of a dataset's config are relative to; None leaves them.

    Raises
    ------
    SettingsError
        For an unknown section, key, function, setting or method, a wrong type, or a value that is not allowed; with
        the place in the file and, where one is close, a suggestion.
    """
    if not isinstance(content, Mapping):
        raise SettingsError(f"a sweep is a mapping with the sections {', '.join(SECTIONS)}.")
    for name in content:
        if name not in SECTIONS:
            raise SettingsError(f"there is no section {name!r}. {did_you_mean(str(name), SECTIONS)}")
    missing = [name for name in SECTIONS[:4] if not content.get(name)]
    if missing:
        raise SettingsError(f"the section {missing[0]!r} is missing or empty.")
    datasets = tuple(_entries(content, "datasets"))
    if folder is not None:
        datasets = tuple(
            Entry(e.fn, _absolute_paths(e.config, folder), e.comment) if e.fn == OUR_DATASET else e for e in datasets
        )
    return Sweep(
        datasets=datasets,
        models=tuple(_entries(content, "models")),
        trainers=tuple(_entries(content, "trainers")),
        seeds=_seeds(content["seeds"]),
        clusterings=tuple(_clusterings(content.get("clusterings") or [])),
    )


def _seeds(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in value):
        raise SettingsError(f"seeds is {value!r}; it must be a list of integers.")
    if any(not 0 <= seed < 2**31 for seed in value):
        raise SettingsError(f"seeds is {value!r}; seeds are from 0 to {2**31 - 1}.")
    if len(set(value)) < len(value):
        raise SettingsError(f"seeds is {value!r}; a seed is there twice.")
    return tuple(value)


def _entries(content: Mapping[str, Any], section: str) -> Iterator[Entry]:
    items = content[section]
    if not isinstance(items, list):
        raise SettingsError(f"{section} must be a list of entries, each with the keys {', '.join(ENTRY_KEYS)}.")
    for position, item in enumerate(items, start=1):
        where = f"{section}, entry {position}"
        if not isinstance(item, Mapping) or "fn" not in item:
            raise SettingsError(f"{where}: an entry is a mapping with at least the key 'fn'.")
        for key in item:
            if key not in ENTRY_KEYS:
                raise SettingsError(f"{where}: there is no key {key!r}. {did_you_mean(str(key), ENTRY_KEYS)}")
        config = item.get("config") or {}
        if not isinstance(config, Mapping):
            raise SettingsError(f"{where}: config must be a mapping of settings; it is {config!r}.")
        for combination in _grid(item.get("grid") or {}, where):
            entry = _entry(section, item, {**config, **combination}, where)
            yield entry


def _grid(grid: Any, where: str) -> Iterator[dict[str, Any]]:
    if not isinstance(grid, Mapping) or not all(isinstance(values, list) and values for values in grid.values()):
        raise SettingsError(f"{where}: grid must give each setting a list of values; it is {grid!r}.")
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _entry(section: str, item: Mapping[str, Any], config: dict[str, Any], where: str) -> Entry:
    try:
        comment = str(item.get("comment") or "").format(**config)
    except (KeyError, IndexError, ValueError) as error:
        raise SettingsError(f"{where}: the comment {item['comment']!r} names no setting {error}.") from None
    if len(comment) > MAX_COMMENT_LENGTH:
        raise SettingsError(f"{where}: the comment has {len(comment)} characters; {MAX_COMMENT_LENGTH} are allowed.")
    entry = Entry(str(item["fn"]), config, comment)
    try:
        check_entry(section, entry)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None
    return entry


def check_entry(section: str, entry: Entry) -> None:
    """Raise a :class:`SettingsError` if an entry names no function, or its settings cannot be the function's."""
    from nnfabrik.builder import resolve_fn

    from december_plugin.training.entries import TRAINERS, check_trainer_config

    bases = {"datasets": "datasets", "models": "models", "trainers": "training"}
    try:
        function = resolve_fn(entry.fn, bases[section])
    except (NameError, TypeError, ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"{entry.fn!r} names no function that can be imported here ({error}). Write the whole dotted path, e.g. "
            "december_plugin.trainers.december_trainer, and install the package that it is in."
        ) from None
    if function in TRAINERS:
        check_trainer_config(function, entry.config)
    elif hasattr(function, "has_checked_settings"):
        check_known(function, entry.config)
        check_complete(function, entry.config)


def _absolute_paths(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    paths = config.get("paths")
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        return config
    return {**config, "paths": [str(folder / Path(path).expanduser()) for path in paths]}


def _clusterings(items: Any) -> Iterator[ClusteringEntry]:
    from december_plugin.baselines import METHODS

    if not isinstance(items, list):
        raise SettingsError("clusterings must be a list of entries, e.g. {method: gmm, n_clusters: [10, 20]}.")
    for position, item in enumerate(items, start=1):
        where = f"clusterings, entry {position}"
        if not isinstance(item, Mapping) or not {"method", "n_clusters"} <= set(item):
            raise SettingsError(f"{where}: an entry needs the keys 'method' and 'n_clusters'.")
        method = item["method"]
        if method not in METHODS:
            raise SettingsError(f"{where}: there is no method {method!r}. {did_you_mean(str(method), METHODS)}")
        settings = {key: value for key, value in item.items() if key not in ("method", "n_clusters")}
        for key in settings:
            if key not in METHODS[method]:
                raise SettingsError(f"{where}: {method} has no setting {key!r}. {did_you_mean(key, METHODS[method])}")
        counts = item["n_clusters"] if isinstance(item["n_clusters"], list) else [item["n_clusters"]]
        for count in counts:
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise SettingsError(f"{where}: n_clusters is {count!r}; it must be an integer of at least 1.")
            yield ClusteringEntry(method, count, settings)
