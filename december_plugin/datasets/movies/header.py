"""The header of a recording in the generic movie format: ``recording.yaml``, and its checks.

Names are text as it is written: ``0012``, ``2021_03_05`` and ``no`` are names (see
:mod:`december_plugin.text.yaml_plain_loader`).

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

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator, ValidationError, ValidationInfo, model_validator
from torch import nn

from december_plugin.errors import RecordingError, SettingsError, did_you_mean
from december_plugin.text.yaml_plain_loader import PlainLoader
from december_plugin.text.yaml_reader import listed, read_yaml
from december_plugin.validation.checks import is_integer
from december_plugin.validation.models import Says, StrictModel, Violation, mistakes_in

HEADER = "recording.yaml"
FORMAT, VERSION = "december-movies", 1


def _in_folder(value: Any, info: ValidationInfo) -> Path:
    """Return a file of the recording, whose folder is the context of the validation."""
    if not isinstance(value, str) or not value.endswith(".npy"):
        raise ValueError
    assert info.context is not None
    return Path(info.context["folder"]) / value


def _session_name(value: Any) -> str:
    # A whole number reads as it is written.
    key = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not key.strip() or "." in key or hasattr(nn.ModuleDict(), key):
        raise ValueError
    return key


def _units(value: Any, info: ValidationInfo) -> Path | tuple[int, ...]:
    if isinstance(value, str):
        return _in_folder(value, info)
    if not isinstance(value, list) or not all(map(is_integer, value)):
        raise SettingsError(f"unit_ids is {value!r}; a .npy file or a list of whole numbers is expected.")
    return tuple(value)


Array = Annotated[Path, PlainValidator(_in_folder), Says("{name} is {value!r}; a .npy file is expected.")]
Limit = Annotated[float, Field(allow_inf_nan=False), Says("{name} is {value!r}; a number is expected.")]
Names = Annotated[
    list[Any], Field(min_length=1), Says("{name} is {value!r}; at least one movie is needed: a list of names.")
]
NOT_NAMES = Says(
    "{name} is {value!r}; names with values are expected.", when=("model_type", "dict_type", "model_attributes_type")
)


class _Part(StrictModel):
    """A part of the header."""

    SAYS: ClassVar[tuple[Says, ...]] = (NOT_NAMES,)
    SAYS_UNKNOWN: ClassVar[str] = "{owner} has the unknown key {name!r}. {suggestion}"


class Quantity(_Part):
    """Unit of values in words, and the range that they must be in (None: any)."""

    SAYS: ClassVar[tuple[Says, ...]] = (
        NOT_NAMES,
        Says(
            "{name}.minimum is {value[minimum]:g} and {name}.maximum {value[maximum]:g}; the maximum must be larger.",
            when=("value_error",),
        ),
    )
    unit: Annotated[
        str, Field(pattern=r"\S"), Says("{name} is {value!r}; words are expected, e.g. 'spikes per frame'.")
    ]
    minimum: Limit | None = None
    maximum: Limit | None = None

    @model_validator(mode="after")
    def _rises(self) -> Quantity:
        if self.minimum is not None and self.maximum is not None and not self.minimum < self.maximum:
            raise ValueError
        return self

    def __str__(self) -> str:
        if self.minimum is None and self.maximum is None:
            return "any value"
        if self.maximum is None:
            return f"at least {self.minimum:g}"
        return f"at most {self.maximum:g}" if self.minimum is None else f"from {self.minimum:g} to {self.maximum:g}"


class MovieEntry(_Part):
    """The files of a movie, and how often it was shown (None: once, with responses without an axis for repeats)."""

    stimulus: Array
    responses: Array
    repeats: (
        Annotated[int, Field(ge=1), Says("{name} is {value!r}; a whole number of at least 1 is expected.")] | None
    ) = None


class Tiers(_Part):
    """The names of the movies of each tier."""

    train: Names
    validation: Names
    test: Names = Field(default_factory=list)


class HeaderContent(_Part):
    """The header as the file has it."""

    format: Annotated[Literal["december-movies"], Says(f"{{name}} is {{value!r}}; {FORMAT!r} is expected.")]
    version: Annotated[
        int,
        Field(ge=VERSION, le=VERSION),
        Says(f"{{name}} is {{value!r}}; this december_plugin reads version {VERSION}."),
    ]
    data_key: Annotated[
        str,
        PlainValidator(_session_name),
        Says(
            "{name} is {value!r}; a name without dots, such as 'retina-7', is expected. A name that is also a word of "
            "YAML (true, null) needs quotes."
        ),
    ]
    frame_rate: Annotated[
        float,
        Field(gt=0, allow_inf_nan=False),
        Says("{name} is {value!r}; frames per second, a number above 0, is expected."),
    ]
    unit_ids: Annotated[
        Path | tuple[int, ...], PlainValidator(_units), Says("{name} is {value!r}; a .npy file is expected.")
    ]
    stimulus: Quantity
    responses: Quantity
    movies: Annotated[dict[str, MovieEntry], NOT_NAMES]
    tiers: Tiers

    @model_validator(mode="after")
    def _belong_together(self) -> HeaderContent:
        _check_own_responses(self.movies)
        _check_tiers(self.tiers_by_name(), self.movies)
        return self

    def tiers_by_name(self) -> dict[str, tuple[Any, ...]]:
        """Return the tiers that the header has, in their order, and the names of their movies."""
        return {name: tuple(getattr(self.tiers, name)) for name in Tiers.model_fields if getattr(self.tiers, name)}


@dataclass(frozen=True)
class MovieHeader:
    """The content of a header.

    Attributes
    ----------
    path
        The file.
    data_key
        The session's name.
    frame_rate
        Frames per second (Hz).
    unit_ids
        A file, or the ids themselves.
    stimulus, responses
        Unit and range of their values.
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
        raise RecordingError(f"The recording {folder} does not exist or is not a folder. Check the path.")
    path = folder / HEADER
    content = _load(path)
    try:
        read = HeaderContent.model_validate(content, context={"folder": folder})
    except ValidationError as error:
        raise RecordingError(
            f"{path}: {_first(mistakes_in(error, HeaderContent, content, name_of=_name_of))}"
        ) from None
    same = {
        name: getattr(read, name) for name in HeaderContent.model_fields if name not in ("format", "version", "tiers")
    }
    return MovieHeader(path=path, tiers=read.tiers_by_name(), **same)


def _load(path: Path) -> Any:
    try:
        written = path.read_bytes()
    except FileNotFoundError:
        raise RecordingError(
            f"{path} is missing: a recording in the movie format is a folder with this header. "
            "docs/recordings.md describes it."
        ) from None
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}.") from error
    read = read_yaml(written, str(path), what="the header", loader_type=PlainLoader)
    if read.mistakes:
        mistakes = sorted(read.mistakes, key=read.source.place_of)
        raise RecordingError(listed([read.source.shown(mistake) for mistake in mistakes], read.source.name))
    return read.content


def _name_of(path: tuple[Any, ...]) -> str:
    """Return the name of a place in the header, for messages."""
    match path:
        case ():
            return "the header"
        case ("movies", name):
            return f"movie {name!r}"
        case ("movies", name, key):
            return f"{key} of movie {name!r}"
        case ("tiers", tier):
            return f"the tier {tier!r}"
    return ".".join(map(str, path))


def _first(found: list[Violation]) -> str:
    """Return the mistake to correct first: a name that does not exist, then what is missing, then a wrong value."""
    unknown = [each for each in found if each.is_unknown]
    missing = [each for each in found if each.is_missing]
    if unknown or not missing:
        return (unknown or found)[0].text
    owner = missing[0].path[:-1]
    names = [each.path[-1] for each in missing if each.path[:-1] == owner]
    return f"{_name_of(owner)} lacks {', '.join(names)}. docs/recordings.md describes the header."


def _check_own_responses(movies: Mapping[str, MovieEntry]) -> None:
    owners: dict[Path, str] = {}
    for name, entry in movies.items():
        other = owners.setdefault(entry.responses, name)
        if other != name:
            raise SettingsError(
                f"the movies {other!r} and {name!r} both name the responses {entry.responses.name}. Each movie has "
                "its own responses: correct one of them."
            )


def _check_tiers(tiers: Mapping[str, tuple[Any, ...]], movies: Mapping[str, MovieEntry]) -> None:
    places: dict[Any, str] = {}
    for tier, names in tiers.items():
        for name in names:
            if name not in movies:
                raise SettingsError(f"the tier {tier!r} names the movie {name!r}. {did_you_mean(str(name), movies)}")
            if name in places:
                raise SettingsError(
                    f"the movie {name!r} is in the tiers {places[name]!r} and {tier!r}. Name each movie once."
                )
            places[name] = tier
    unused = [name for name in movies if name not in places]
    if unused:
        raise SettingsError(
            f"no tier names the movie(s) {', '.join(map(repr, unused))}. Add them to one, or remove them."
        )
