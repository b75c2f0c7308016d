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
      - {method: kmeans, n_clusters: 10, grid: {space: [readout, functional], normalize: [none, l2]}}

``grid`` gives settings lists of values; each combination becomes an entry. Comments may name settings in braces.
A ``preset`` is replaced by its values. All mistakes of a file are reported together, each with its line
(:class:`~december_plugin.sweeps.source.SweepError`).
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

from december_plugin.errors import SettingsError, UnknownSettingError
from december_plugin.evaluation.cluster_functions_settings import ClusterFunctionsSettings
from december_plugin.evaluation.stability_settings import StabilitySettings
from december_plugin.evaluation.surrogate_settings import SurrogateSettings
from december_plugin.insilico.exciting_images_settings import ExcitingImagesSettings
from december_plugin.sweeps import functions
from december_plugin.sweeps.cluster_functions import read_cluster_confusion
from december_plugin.sweeps.exciting_images import read_exciting_images
from december_plugin.sweeps.file_format import SECTIONS, ClusteringItem, content_mistakes
from december_plugin.sweeps.source import SweepError, read_source
from december_plugin.sweeps.stability import read_stability
from december_plugin.sweeps.surrogates import read_surrogates
from december_plugin.text.stored_text import checked_text
from december_plugin.text.yaml_reader import Mistake, Source
from december_plugin.validation.checks import expand_preset

MAX_COMMENT_LENGTH = 256
# Sections about what to do with trained models.
EVALUATIONS = ("clusterings", "surrogates", "stability", "cluster_confusion", "exciting_images")
MAX_CELLS = 3  # combinations of a grid that are named if many have the same mistake


@dataclass(frozen=True)
class Entry:
    """One row of nnfabrik's ``Dataset``, ``Model`` or ``Trainer``."""

    fn: str
    config: dict[str, Any]
    comment: str = ""


@dataclass(frozen=True)
class ClusteringEntry:
    """One row of ``Clustering``; ``n_clusters`` is 0 if the method finds it."""

    method: str
    n_clusters: int
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """Everything that a sweep registers; every dataset x model x trainer x seed is a training.

    ``source`` is the file, for mistakes that show only in the tables.
    """

    datasets: tuple[Entry, ...]
    models: tuple[Entry, ...]
    trainers: tuple[Entry, ...]
    seeds: tuple[int, ...]
    clusterings: tuple[ClusteringEntry, ...] = ()
    surrogates: tuple[SurrogateSettings, ...] = ()
    stability: tuple[StabilitySettings, ...] = ()
    cluster_confusion: tuple[ClusterFunctionsSettings, ...] = ()
    exciting_images: tuple[ExcitingImagesSettings, ...] = ()
    source: Source | None = field(default=None, compare=False, repr=False)

    @property
    def n_trainings(self) -> int:
        """Number of trainings that the sweep plans."""
        return len(self.datasets) * len(self.models) * len(self.trainers) * len(self.seeds)


@dataclass(frozen=True)
class _Cell:
    """An entry made from one combination of a grid: which one, and its place in the file."""

    entry: Entry
    function: Callable[..., Any] | None
    section: str
    position: int
    values: Mapping[str, int]  # setting of the grid to the position of its value
    given: Mapping[str, Any]  # the settings in the file: a preset is not expanded

    @property
    def where(self) -> str:
        return entry_name(self.section, self.position)

    @property
    def name(self) -> str:
        """The combination, e.g. ``n_clusters=10, strength=auto``; empty without a grid."""
        return ", ".join(f"{name}={self.given[name]}" for name in self.values)

    @property
    def described(self) -> str:
        return f"{self.where} ({self.name})" if self.values else self.where

    def path(self, setting: str = "") -> tuple[Any, ...]:
        """Return the place of a setting of this combination or, without a setting, of the entry."""
        entry = (self.section, self.position)
        if setting in self.values:
            return (*entry, "grid", setting, self.values[setting])
        return (*entry, "config", setting) if setting else entry


class _Reader:
    """Reads the sections of a sweep, and collects the mistakes."""

    def __init__(self, content: Mapping[str, Any]):
        self.content = content
        self.mistakes: list[Mistake] = []
        self.mistaken: set[tuple[Any, ...]] = set()  # places that are wrong, or contain mistakes

    def wrong(self, text: str, *path: Any, at_key: bool = False) -> None:
        self.mistakes.append(Mistake(text, tuple(path), at_key))

    def structure(self) -> None:
        """Note what is wrong with sections, keys and the values of keys, and remember which parts that concerns."""
        for mistake in content_mistakes(self.content):
            is_in_entry = len(mistake.path) > 1 and mistake.path[0] != "seeds"
            where = f"{entry_name(*mistake.path[:2])}: " if is_in_entry else ""
            self.wrong(f"{where}{mistake.text}", *mistake.path, at_key=mistake.is_unknown)
        self.mistaken = {mistake.path[:end] for mistake in self.mistakes for end in range(len(mistake.path) + 1)}

    def seeds(self) -> tuple[int, ...]:
        value = self.content.get("seeds") or []
        if ("seeds",) in {mistake.path for mistake in self.mistakes}:
            return ()
        for at, seed in enumerate(value):
            if seed in value[:at]:
                self.wrong(f"seeds is {value!r}; a seed appears twice.", "seeds", at)
        return tuple(value)

    def items(self, section: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the entries of a section that are mappings with the required keys."""
        items = self.content.get(section) or []
        paths = {mistake.path for mistake in self.mistakes}
        if (section,) not in paths:
            yield from ((at, item) for at, item in enumerate(items) if (section, at) not in paths)

    # --- datasets, models, trainers ---------------------------------------------------------------------------

    def cells(self, section: str) -> list[_Cell]:
        """Return the entries of a section, one for each combination of a grid; none for those that have mistakes."""
        cells: list[_Cell] = []
        for position, item in self.items(section):
            here = (section, position)
            config, grid = item.get("config") or {}, item.get("grid") or {}
            before = len(self.mistakes)
            if not self.mistaken & {(*here, "config"), (*here, "grid")}:
                self._check_grid(grid, config, here)
            if here not in self.mistaken and len(self.mistakes) == before:
                function = functions.resolve(section, item["fn"])
                cells += self._combined(section, position, item, function, dict(config), grid)
        return _without_doubles(cells)

    def _check_grid(
        self,
        grid: Mapping[str, list[Any]],
        config: Mapping[str, Any],
        here: tuple[str, int],
        *,
        beside: str = "in config",
    ) -> None:
        where = entry_name(*here)
        for name, values in grid.items():
            if name in config:
                text = f"{where}: {name} is {beside} and in grid; leave it out of one of them."
                self.wrong(text, *here, "grid", name, at_key=True)
            for at, value in enumerate(values):
                if any(_is_same(value, other) for other in values[:at]):
                    self.wrong(f"{where}: the grid has {name}={value!r} twice.", *here, "grid", name, at)

    def _combined(
        self,
        section: str,
        position: int,
        item: Mapping[str, Any],
        function: Callable[..., Any],
        config: dict[str, Any],
        grid: Mapping[str, list[Any]],
    ) -> list[_Cell]:
        cells = []
        found: dict[tuple[str, str], tuple[SettingsError, list[_Cell]]] = {}

        def note(culprit: str, error: SettingsError, cell: _Cell) -> None:
            found.setdefault((culprit, str(error)), (error, []))[1].append(cell)

        for chosen in itertools.product(*(range(len(values)) for values in grid.values())):
            at = dict(zip(grid, chosen, strict=True))
            given = {**config, **{name: grid[name][number] for name, number in at.items()}}
            cell = _Cell(Entry(item["fn"], given), function, section, position, at, given)
            try:
                settings = expand_preset(function, given)
            except SettingsError as mistake:
                note("preset", mistake, cell)
                settings = {name: value for name, value in given.items() if name != "preset"}
            cell = replace(cell, entry=replace(cell.entry, config=settings))
            for culprit, error in functions.config_mistakes(section, function, settings):
                note(culprit, error, cell)
            try:
                comment = self._comment(item, {**settings, **given})
            except SettingsError as error:
                note("comment", error, cell)
                continue
            cells.append(replace(cell, entry=replace(cell.entry, comment=comment)))
        said: set[str] = set()
        for (culprit, text), (first, where) in found.items():
            if text not in said:
                self._wrong_in_cells(culprit, first, where, grid)
            said.add(text)
        return [] if found else cells

    def _wrong_in_cells(
        self, culprit: str, error: SettingsError, cells: list[_Cell], grid: Mapping[str, list[Any]]
    ) -> None:
        first = cells[0]
        path = (*first.path(), "comment") if culprit == "comment" else first.path(culprit)
        unknown = isinstance(error, UnknownSettingError)
        if unknown and culprit in first.values:
            path = path[:-1]
        named = _common_name(culprit, cells, grid)
        self.wrong(f"{first.where}{f' (for {named})' if named else ''}: {error}", *path, at_key=unknown)

    @staticmethod
    def _comment(item: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
        given = item.get("comment")
        if given is not None and not isinstance(given, str):
            raise SettingsError(f"the comment is {given!r}; it must be text. Put it in quotes.")
        comment = filled_comment(given or "", settings)
        if len(comment) > MAX_COMMENT_LENGTH:
            raise SettingsError(f"the comment has {len(comment)} characters; {MAX_COMMENT_LENGTH} are allowed.")
        return checked_text("the comment", comment, MAX_COMMENT_LENGTH)

    # --- clusterings ------------------------------------------------------------------------------------------

    def clusterings(self) -> list[tuple[ClusteringEntry, tuple[Any, ...]]]:
        """Return the clusterings and their places."""
        from december_plugin.clustering.methods import checked_n_clusters

        entries: list[tuple[ClusteringEntry, tuple[Any, ...]]] = []
        for position, item in self.items("clusterings"):
            here, method = ("clusterings", position), item["method"]
            if {(*here, "method"), (*here, "grid")} & self.mistaken:
                continue
            settings = {key: value for key, value in item.items() if key not in ClusteringItem.model_fields}
            grid = item.get("grid") or {}
            self._check_clustering(method, settings, grid, here)
            asked = item.get("n_clusters")
            is_list = isinstance(asked, list)
            for at, count in enumerate(asked if isinstance(asked, list) else [asked]):
                place = (*here, "n_clusters", at) if is_list else (*here, "n_clusters")
                if place in self.mistaken:
                    continue
                for values in itertools.product(*grid.values()):
                    given = {**settings, **dict(zip(grid, values, strict=True))}
                    try:
                        entry = ClusteringEntry(method, checked_n_clusters(method, count, given), given)
                    except SettingsError as error:
                        close = [] if "n_clusters" in item else difflib.get_close_matches("n_clusters", item, n=1)
                        hint = f" It has {close[0]!r}: did you mean 'n_clusters'?" if close else ""
                        self.wrong(f"{entry_name(*here)}: {error}{hint}", *(place if "n_clusters" in item else here))
                        break
                    entries.append((entry, place))
        return entries

    def _check_clustering(
        self, method: str, settings: Mapping[str, Any], grid: Mapping[str, list[Any]], here: tuple[str, int]
    ) -> None:
        from december_plugin.clustering.methods import ALIGNMENT, setting_mistakes

        where = entry_name(*here)
        self._check_grid(grid, settings, here, beside="in the entry itself")
        for name in ClusteringItem.model_fields.keys() & grid.keys():
            text = f"{where}: {name} is a key of the entry itself, not a setting; remove it from the grid."
            self.wrong(text, *here, "grid", name, at_key=True)
        given: list[tuple[tuple[Any, ...], str, Any]] = [((name,), name, value) for name, value in settings.items()]
        given += [
            (("grid", name, at), name, value)
            for name, values in grid.items()
            if name not in ClusteringItem.model_fields
            for at, value in enumerate(values)
        ]
        said: set[str] = set()
        for path, name, value in given:
            for _, error in setting_mistakes(method, {name: value}):
                is_unknown = isinstance(error, UnknownSettingError)
                is_inside = name == ALIGNMENT and isinstance(value, Mapping) and error.setting in value
                place = path[:2] if is_unknown and path[0] == "grid" and not is_inside else path
                if is_inside:
                    place = (*path, error.setting)
                if str(error) not in said:
                    self.wrong(f"{where}: {error}", *here, *place, at_key=is_unknown)
                said.add(str(error))

    # --- combinations of entries ------------------------------------------------------------------------------

    def combinations(self, datasets: list[_Cell], models: list[_Cell], trainers: list[_Cell], clusterings: Any) -> None:
        """Find what cannot be combined: every dataset goes with every model and every trainer."""
        for model, dataset in itertools.product(models, datasets):
            takes, gives = (functions.stimuli_of(cell.function) for cell in (model, dataset))  # type: ignore[arg-type]
            if takes is not None and gives is not None and takes != gives:
                self.wrong(
                    f"{model.described}: {_short(model)} takes {takes}, but {_short(dataset)} of {dataset.described} "
                    f"gives {gives}. A sweep combines every dataset with every model: use two files for what does "
                    "not fit together.",
                    *model.path(),
                    "fn",
                )
        for dataset in datasets:
            most = functions.most_neurons(dataset.function, dataset.entry.config)  # type: ignore[arg-type]
            if most is None:
                continue
            asked = {
                (trainer.where, trainer.path("n_clusters")): trainer.entry.config.get("n_clusters")
                for trainer in trainers
            }
            for (where, place), count in asked.items():
                if isinstance(count, int) and count > most:
                    self._too_many(where, count, most, dataset, place)
            for clustering, place in clusterings:
                if clustering.n_clusters > most:
                    self._too_many(f"clusterings, entry {place[1] + 1}", clustering.n_clusters, most, dataset, place)

    def _too_many(self, where: str, count: int, most: int, dataset: _Cell, path: tuple[Any, ...]) -> None:
        self.wrong(
            f"{where}: n_clusters is {count}, but {dataset.described} has at most {most} neurons. Ask for fewer "
            "clusters than neurons.",
            *path,
        )


def load_sweep(path: str | Path, *, folder: str | Path | None = None) -> Sweep:
    """Read a sweep from a YAML file.

    Parameters
    ----------
    path
        The file.
    folder
        Folder of relative recording paths; None: that of the file.

    Raises
    ------
    SettingsError
        If the file cannot be read or is not YAML.
    SweepError
        For the mistakes in it, each with file, line and column; see :func:`parse_sweep`.
    """
    path = Path(path)
    try:
        written = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"the sweep {path} cannot be read: {error.strerror}.") from None
    content, source = read_source(written, str(path))
    start = path.resolve().parent if folder is None else Path(folder).resolve()
    return parse_sweep(content, folder=start, source=source)


def parse_sweep(content: Any, *, folder: Path | None = None, source: Source | None = None) -> Sweep:
    """Check a sweep and expand its grids.

    Parameters
    ----------
    content
        The mapping of the YAML file.
    folder
        Folder of relative paths in configs of this package's dataset functions; None leaves them relative.
    source
        Places in the file; the message then names lines.

    Raises
    ------
    SweepError
        For unknown sections, keys, functions, settings or methods, wrong types, values that are not allowed, and
        impossible combinations: all that are found, with the place in the file and, if there is a similar name, a
        suggestion.
    """
    if not isinstance(content, Mapping):
        raise SweepError([Mistake(f"a sweep is a mapping with the sections {', '.join(SECTIONS)}.")], source)
    reader = _Reader(content)
    reader.structure()
    seeds = reader.seeds()
    datasets, models, trainers = (reader.cells(section) for section in SECTIONS[1:4])
    if folder is not None:
        datasets = [_with_absolute_paths(cell, folder) for cell in datasets]
    clusterings = reader.clusterings()
    reader.combinations(datasets, models, trainers, clusterings)
    surrogates = read_surrogates(content, reader.wrong)
    stability = read_stability(content, reader.wrong)
    cluster_confusion = read_cluster_confusion(content, reader.wrong)
    exciting_images = read_exciting_images(content, reader.wrong)
    if reader.mistakes:
        raise SweepError(reader.mistakes, source)
    return Sweep(
        datasets=tuple(cell.entry for cell in datasets),
        models=tuple(cell.entry for cell in models),
        trainers=tuple(cell.entry for cell in trainers),
        seeds=seeds,
        clusterings=tuple(entry for entry, _ in clusterings),
        surrogates=surrogates,
        stability=stability,
        cluster_confusion=cluster_confusion,
        exciting_images=exciting_images,
        source=source,
    )


class Evaluations(NamedTuple):
    """What a file asks for with trained models.

    Attributes
    ----------
    clusterings
        With their places in the file.
    surrogates, stability, cluster_confusion, exciting_images
        The requested evaluations.
    mistakes
        What is wrong with the sections.
    """

    clusterings: list[tuple[ClusteringEntry, tuple[Any, ...]]]
    surrogates: tuple[SurrogateSettings, ...]
    stability: tuple[StabilitySettings, ...]
    cluster_confusion: tuple[ClusterFunctionsSettings, ...]
    exciting_images: tuple[ExcitingImagesSettings, ...]
    mistakes: list[Mistake]


def parse_evaluations(content: Mapping[str, Any]) -> Evaluations:
    """Check the sections about trained models in a file that plans no trainings."""
    reader = _Reader({name: content[name] for name in EVALUATIONS if name in content})
    reader.structure()
    reader.mistakes = [mistake for mistake in reader.mistakes if mistake.path[:1] == EVALUATIONS[:1]]
    return Evaluations(
        clusterings=reader.clusterings(),
        surrogates=read_surrogates(reader.content, reader.wrong),
        stability=read_stability(reader.content, reader.wrong),
        cluster_confusion=read_cluster_confusion(reader.content, reader.wrong),
        exciting_images=read_exciting_images(reader.content, reader.wrong),
        mistakes=reader.mistakes,
    )


def filled_comment(comment: str, settings: Mapping[str, Any]) -> str:
    """Return a comment with the values of the settings that it names in braces, e.g. ``K {n_clusters}``.

    A name may have Python's format, as in ``{strength:.2f}``, or a position, as in ``{paths[0]}``. ``{{`` and ``}}``
    are braces.

    Raises
    ------
    SettingsError
        For an unpaired brace, a name that is not a setting, or a format that does not suit the value.
    """
    try:
        parts = list(Formatter().parse(comment))
    except ValueError:
        raise SettingsError(
            f"the comment {comment!r} has an unpaired brace. Write {{{{ or }}}} for a brace, and {{name}} for the "
            "value of a setting."
        ) from None
    filled = []
    for text, name, form, conversion in parts:
        filled.append(text)
        if name is None:
            continue
        setting = re.fullmatch(r"(\w+)((?:\[\w+\])*)", name)
        if setting is None or setting[1] not in settings:
            raise SettingsError(
                f"the comment {comment!r} names {name!r}, which is not a setting. Write {{{{ and }}}} for "
                "braces in text."
            )
        try:
            value = Formatter().convert_field(Formatter().get_field(name, (), settings)[0], conversion)
            filled.append(format(value, _checked_format(form or "")))
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise SettingsError(f"the comment {comment!r} cannot be filled at {{{name}}}: {error}.") from None
    return "".join(filled)


def _checked_format(form: str) -> str:
    if not re.fullmatch(r"[^{}\d]{0,4}\d{0,2}[,_]?(\.\d{1,2})?[a-zA-Z%]?", form):
        raise ValueError(f"the format {form!r} is not like '.2f'")
    return form


def entry_name(section: str, position: int) -> str:
    """Return the name of an entry in messages, e.g. ``trainers, entry 1``."""
    return f"{section}, entry {position + 1}"


def _short(cell: _Cell) -> str:
    return cell.entry.fn.rpartition(".")[2]


def _is_same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and value == other


def _common_name(culprit: str, cells: list[_Cell], grid: Mapping[str, list[Any]]) -> str:
    """Return which combinations of a grid have a mistake; "" if all have it, or all with one value of its setting."""
    same = {name for name in grid if len({cell.values[name] for cell in cells}) == 1}
    others = math.prod(len(values) for name, values in grid.items() if name not in same)
    if len(cells) == others:  # regardless of the other settings
        same = {name for name in same if len(grid[name]) > 1}
        return "" if same <= {culprit} else ", ".join(f"{n}={cells[0].given[n]}" for n in grid if n in same)
    named = "; ".join(cell.name for cell in cells[:MAX_CELLS])
    return named if len(cells) <= MAX_CELLS else f"{named}; and {len(cells) - MAX_CELLS} more"


def _without_doubles(cells: list[_Cell]) -> list[_Cell]:
    """Leave out repeated entries, which are one row of the table."""
    kept: dict[str, _Cell] = {}
    for cell in cells:
        entry = cell.entry
        kept.setdefault(json.dumps([entry.fn, entry.comment, entry.config], sort_keys=True, default=repr), cell)
    return list(kept.values())


def _with_absolute_paths(cell: _Cell, folder: Path) -> _Cell:
    if cell.function is None or not functions.is_ours(cell.function):
        return cell
    return replace(
        cell, entry=replace(cell.entry, config=with_absolute_paths(cell.function, cell.entry.config, folder))
    )


def with_absolute_paths(function: Callable[..., Any], config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings of a dataset function with its recordings' paths made absolute from a folder."""
    config = dict(config)
    for name in functions.path_settings(function):
        value = config.get(name)
        if isinstance(value, str):
            config[name] = _absolute(value, folder)
        elif isinstance(value, list) and all(isinstance(path, str) for path in value):
            config[name] = [_absolute(path, folder) for path in value]
    return config


def _absolute(path: str, folder: Path) -> str:
    return str(folder / Path(path).expanduser())
