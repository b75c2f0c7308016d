"""The header of a recording in the generic movie format: ``recording.yaml``, what it may say, and what it must.

Names are text as it is written: ``0012``, ``2021_03_05`` and ``no`` are names (see
:mod:`december_plugin.text.yaml_writer`).

::

    format: december-movies
    version: 1
    data_key: retina-7                 # the session's name
    frame_rate: 30.0                   # Hz, of movies and responses
    unit_ids: unit_ids.npy             # (n,) whole numbers; or a list right here
    stimulus: {unit: grey level, minimum: 0, maximum: 255}
    responses: {unit: spikes per frame, minimum: 0}
    movies:
      forest: {stimulus: stimuli/forest.npy, responses: responses/forest.npy}
      river: {stimulus: stimuli/river.npy, responses: responses/river.npy}
      meadow: {stimulus: stimuli/meadow.npy, responses: responses/meadow.npy, repeats: 10}
    tiers: {train: [forest], validation: [river], test: [meadow]}
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from december_plugin.errors import RecordingError, SettingsError, did_you_mean
from december_plugin.text.yaml_source import read_source
from december_plugin.text.yaml_writer import PlainLoader

HEADER = "recording.yaml"
FORMAT, VERSION = "december-movies", 1
NEEDED = ("format", "version", "data_key", "frame_rate", "unit_ids", "stimulus", "responses", "movies", "tiers")
QUANTITY = ("unit", "minimum", "maximum")
MOVIE = ("stimulus", "responses", "repeats")
TIERS = ("train", "validation", "test")


@dataclass(frozen=True)
class Quantity:
    """What values are: their unit in words, and the range in which they must lie (None: any)."""

    unit: str
    minimum: float | None = None
    maximum: float | None = None

    def __str__(self) -> str:
        if self.minimum is None and self.maximum is None:
            return "any value"
        if self.maximum is None:
            return f"at least {self.minimum:g}"
        return f"at most {self.maximum:g}" if self.minimum is None else f"from {self.minimum:g} to {self.maximum:g}"


@dataclass(frozen=True)
class MovieEntry:
    """One movie: its files, and how often it was shown (None: once, and responses without an axis for it)."""

    stimulus: Path
    responses: Path
    repeats: int | None = None


@dataclass(frozen=True)
class MovieHeader:
    """What a header says.

    Attributes
    ----------
    path
        The file.
    data_key
        The session's name.
    frame_rate
        In Hz.
    unit_ids
        A file, or the ids themselves.
    stimulus, responses
        What their values are.
    movies
        Name to files.
    tiers
        Tier to the names of its movies.
    """

    path: Path
    data_key: str
    frame_rate: float
    unit_ids: Path | tuple[int, ...]
    stimulus: Quantity
    responses: Quantity
    movies: Mapping[str, MovieEntry]
    tiers: Mapping[str, tuple[str, ...]]


def read_header(folder: Path) -> MovieHeader:
    """Read and check ``recording.yaml`` of a folder; no array is opened.

    Raises
    ------
    RecordingError
        If it is missing, not valid YAML, has a key twice or an unknown one, lacks one, or has a value that is not
        allowed.
    """
    if not folder.is_dir():
        raise RecordingError(f"The recording {folder} does not exist or is no folder. Check the path.")
    return _Reader(folder / HEADER).header()


class _Reader:
    def __init__(self, path: Path):
        self.path = path

    def wrong(self, text: str) -> RecordingError:
        return RecordingError(f"{self.path}: {text}")

    def header(self) -> MovieHeader:
        content = self.mapping(self._load(), "the header", NEEDED)
        self.needs(content, NEEDED, "the header")
        if content["format"] != FORMAT:
            raise self.wrong(f"format is {content['format']!r}; {FORMAT!r} is expected.")
        if content["version"] != VERSION or isinstance(content["version"], bool):
            raise self.wrong(f"version is {content['version']!r}; this december_plugin reads version {VERSION}.")
        movies = self._movies(content["movies"])
        return MovieHeader(
            path=self.path,
            data_key=self._data_key(content["data_key"]),
            frame_rate=self._frame_rate(content["frame_rate"]),
            unit_ids=self._unit_ids(content["unit_ids"]),
            stimulus=self._quantity(content["stimulus"], "stimulus"),
            responses=self._quantity(content["responses"], "responses"),
            movies=movies,
            tiers=self._tiers(content["tiers"], movies),
        )

    def _load(self) -> Any:
        try:
            written = self.path.read_bytes()
        except FileNotFoundError:
            raise RecordingError(
                f"{self.path} is missing: a recording in the movie format is a folder with this header. "
                "docs/recordings.md describes it."
            ) from None
        except OSError as error:
            raise RecordingError(f"{self.path} cannot be read: {error.strerror or error}.") from error
        try:
            return read_source(written, str(self.path), what="the header", loader_type=PlainLoader)[0]
        except SettingsError as error:
            raise RecordingError(str(error)) from None

    def mapping(self, value: Any, what: str, allowed: Collection[str] | None) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self.wrong(f"{what} is {value!r}; names with values are expected.")
        for key in value:
            if allowed is not None and key not in allowed:
                raise self.wrong(f"{what} has the unknown key {key!r}. {did_you_mean(key, allowed)}")
        return value

    def needs(self, content: Mapping[str, Any], names: Collection[str], what: str) -> None:
        missing = [name for name in names if name not in content]
        if missing:
            raise self.wrong(f"{what} lacks {', '.join(missing)}. docs/recordings.md describes the header.")

    def _data_key(self, value: Any) -> str:
        # A whole number reads as it is written.
        key = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
        if not key.strip() or "." in key or hasattr(nn.ModuleDict(), key):
            raise self.wrong(
                f"data_key is {value!r}; a name without dots, such as 'retina-7', is expected. A name that is also a "
                "word of YAML (true, null) needs quotes."
            )
        return key

    def _frame_rate(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            raise self.wrong(f"frame_rate is {value!r}; frames per second, a number above 0, is expected.")
        return float(value)

    def _unit_ids(self, value: Any) -> Path | tuple[int, ...]:
        if isinstance(value, str):
            return self.file(value, "unit_ids")
        if not isinstance(value, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in value):
            raise self.wrong(f"unit_ids is {value!r}; a .npy file or a list of whole numbers is expected.")
        return tuple(value)

    def _quantity(self, value: Any, what: str) -> Quantity:
        content = self.mapping(value, what, QUANTITY)
        self.needs(content, ("unit",), what)
        if not isinstance(content["unit"], str) or not content["unit"].strip():
            raise self.wrong(f"{what}.unit is {content['unit']!r}; words are expected, e.g. 'spikes per frame'.")
        limits = {}
        for name in ("minimum", "maximum"):
            limit = content.get(name)
            number = isinstance(limit, (int, float)) and not isinstance(limit, bool) and math.isfinite(limit)
            if limit is not None and not number:
                raise self.wrong(f"{what}.{name} is {limit!r}; a number is expected.")
            limits[name] = None if limit is None else float(limit)
        low, high = limits["minimum"], limits["maximum"]
        if low is not None and high is not None and not low < high:
            raise self.wrong(f"{what}.minimum is {low:g} and {what}.maximum {high:g}; the maximum must be larger.")
        return Quantity(content["unit"], low, high)

    def _movies(self, value: Any) -> dict[str, MovieEntry]:
        movies = {}
        for name, entry in self.mapping(value, "movies", None).items():
            what = f"movie {name!r}"
            content = self.mapping(entry, what, MOVIE)
            self.needs(content, ("stimulus", "responses"), what)
            repeats = content.get("repeats")
            if repeats is not None and (isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1):
                raise self.wrong(f"repeats of {what} is {repeats!r}; a whole number of at least 1 is expected.")
            movies[name] = MovieEntry(
                stimulus=self.file(content["stimulus"], f"stimulus of {what}"),
                responses=self.file(content["responses"], f"responses of {what}"),
                repeats=repeats,
            )
        self._check_own_responses(movies)
        return movies

    def _check_own_responses(self, movies: Mapping[str, MovieEntry]) -> None:
        owners: dict[Path, str] = {}
        for name, entry in movies.items():
            other = owners.setdefault(entry.responses, name)
            if other != name:
                raise self.wrong(
                    f"the movies {other!r} and {name!r} both name the responses {entry.responses.name}. Each movie has "
                    "responses of its own: correct one of them."
                )

    def file(self, value: Any, what: str) -> Path:
        if not isinstance(value, str) or not value.endswith(".npy"):
            raise self.wrong(f"{what} is {value!r}; a .npy file is expected.")
        return self.path.parent / value

    def _tiers(self, value: Any, movies: Mapping[str, MovieEntry]) -> dict[str, tuple[str, ...]]:
        content = self.mapping(value, "tiers", TIERS)
        self.needs(content, ("train", "validation"), "tiers")
        tiers: dict[str, tuple[str, ...]] = {}
        places: dict[str, str] = {}
        for tier in TIERS:
            if tier not in content:
                continue
            names = content[tier]
            if not isinstance(names, list) or not names:
                raise self.wrong(f"the tier {tier!r} is {names!r}; at least one movie is needed: a list of names.")
            for name in names:
                if name not in movies:
                    raise self.wrong(f"the tier {tier!r} names the movie {name!r}. {did_you_mean(str(name), movies)}")
                if name in places:
                    raise self.wrong(
                        f"the movie {name!r} is in the tiers {places[name]!r} and {tier!r}. Name each movie once."
                    )
                places[name] = tier
            tiers[tier] = tuple(names)
        unused = [name for name in movies if name not in places]
        if unused:
            raise self.wrong(
                f"no tier names the movie(s) {', '.join(map(repr, unused))}. Add them to one, or remove them."
            )
        return tiers
