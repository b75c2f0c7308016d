"""The format of import files: sections, the keys of models, and the values of these keys."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from december_plugin.errors import SettingsError
from december_plugin.imports.units import UNIT_COLUMN
from december_plugin.sweeps.file_format import NO_MAPPING, SeedOfSweep
from december_plugin.text.yaml_reader import FileError, Source, read_yaml
from december_plugin.text.yaml_reader import Path as Place
from december_plugin.validation.models import Says, StrictModel, Violation, mistakes_in

NAME_LENGTH = 128
NO_MODEL = "a model is a mapping with a name and its files, under checkpoints or readouts."
NOISE = "noise"
NO_PROBES = f"probes must be {NOISE!r}, a folder of images, or a mapping of settings, e.g. {{{{n: 500}}}}."
TEXT_KEYS = ("name", "trained", "session", "prefix", "array", "recording", "fn")

AsList = BeforeValidator(lambda given: given if isinstance(given, (list, tuple)) else [given])
# Names of files, or patterns such as models/*.pth; in Python also arrays and state dicts themselves.
Files = Annotated[list[Any], AsList, Field(min_length=1)]


class ImportFileError(FileError):
    """An import file has mistakes; the message lists all of them."""

    WHAT: ClassVar[str] = "the import"


class UnitsItem(StrictModel):
    """A table of units, and the names of its columns."""

    SAYS_UNKNOWN: ClassVar[str] = "there is no key {name!r}. {suggestion}"

    table: Annotated[Any, Says("table must be the name of a CSV or Parquet file; it is {value!r}.")]
    session: str | list[str] | None = None
    unit_id: str = UNIT_COLUMN
    test_correlation: str | None = None


class FunctionItem(StrictModel):
    """A function and its settings."""

    SAYS_UNKNOWN: ClassVar[str] = "there is no key {name!r}. {suggestion}"

    fn: str
    config: dict[str, Any] = Field(default_factory=dict)


class ModelFunctionItem(FunctionItem):
    """A model function, its settings, and the shape of its input."""

    input_shape: (
        Annotated[
            list[Annotated[int, Field(ge=1)]],
            Field(min_length=3, max_length=4),
            Says(
                "input_shape is {value!r}; it must be [channels, height, width] of the images, or [channels, frames, "
                "height, width] of the movies, that the model was trained on."
            ),
        ]
        | None
    ) = None


class ProbesItem(StrictModel):
    """Stimuli for a model without its recording; the keys are settings of the probes.

    Without ``images`` they are noise with the spectrum of natural images.
    """

    SAYS_UNKNOWN: ClassVar[str] = "there is no key {name!r}. {suggestion}"

    images: str | None = None
    n: Annotated[int, Field(ge=2)] | None = None
    image_channels: Annotated[int, Field(ge=1)] | None = None
    behavior: list[float] | None = None
    mean: float | None = None
    std: Annotated[float, Field(gt=0)] | None = None


def _probes(given: Any) -> Any:
    if isinstance(given, str):
        return {} if given == NOISE else {"images": given}
    return given


def _units(given: Any) -> Any:
    return given if isinstance(given, Mapping) or given is None else {"table": given}


UnitsOf = Annotated[UnitsItem | None, BeforeValidator(_units)]


class ModelItem(StrictModel):
    """A model, with one file for each of its seeds."""

    SAYS: ClassVar[tuple[Says, ...]] = (Says(NO_MODEL, when=NO_MAPPING),)
    SAYS_UNKNOWN: ClassVar[str] = "there is no key {name!r}. {suggestion}"

    name: Annotated[
        str,
        Field(min_length=1, max_length=NAME_LENGTH),
        Says(f"name is {{value!r}}; it must be text of 1 to {NAME_LENGTH} characters."),
    ]
    checkpoints: Files | None = None
    readouts: Files | None = None
    seeds: Annotated[list[SeedOfSweep], Says("{name} is {value!r}; it must be a list of integers.")] | None = None
    units: UnitsOf = None
    session: str | None = None
    prefix: str | None = None
    array: str | None = None
    model: ModelFunctionItem | None = None
    missing_as_zero: list[str] = Field(default_factory=list)
    covariances: Files | None = None
    fingerprints: Files | None = None
    probes: Annotated[ProbesItem | None, BeforeValidator(_probes), Says(NO_PROBES, when=NO_MAPPING)] = None
    dataset: FunctionItem | None = None
    trained: str = ""

    @model_validator(mode="after")
    def _has_one_kind_of_files(self) -> ModelItem:
        if (self.checkpoints is None) == (self.readouts is None):
            raise SettingsError(
                f"the model {self.name!r} needs either checkpoints or readouts: the files with its state dicts, or "
                "with its readout vectors, one for each seed."
            )
        if self.covariances is not None and self.fingerprints is not None:
            raise SettingsError(
                f"the model {self.name!r} has covariances and fingerprints; a feature covariance follows from "
                "fingerprints, so give one of them."
            )
        if self.checkpoints is None and (wrong := next((key for key in ONLY_OF_CHECKPOINTS if getattr(self, key)), "")):
            raise SettingsError(f"the model {self.name!r} has {wrong}, which only checkpoints can have.")
        if self.dataset is not None and self.model is None:
            raise SettingsError(
                f"the model {self.name!r} has a dataset but no model function; a recording is useful only for a model "
                "that can be run."
            )
        if self.probes is not None and (self.model is None or self.dataset is not None):
            raise SettingsError(
                f"the model {self.name!r} has probes, which are for a model function without a recording: "
                + ("name the recording alone." if self.dataset is not None else "name the model function, too.")
            )
        if self.probes is not None and (self.covariances is not None or self.fingerprints is not None):
            raise SettingsError(
                f"the model {self.name!r} has probes as well as a covariance or fingerprints; give only one of them."
            )
        return self


ONLY_OF_CHECKPOINTS = ("model", "prefix", "missing_as_zero")


class ImportContent(StrictModel):
    """The sections of an import file."""

    SAYS_UNKNOWN: ClassVar[str] = "there is no section {name!r}. {suggestion}"
    SAYS_MISSING: ClassVar[Says] = Says("the section {name!r} is missing or empty.")

    models: Annotated[
        list[ModelItem],
        Field(min_length=1),
        Says(
            "{name} must be a list of models, e.g. {{name: my model, checkpoints: models/*.pth}}.", when=("list_type",)
        ),
    ]
    units: UnitsOf = None
    recording: str = ""
    clusterings: Any = None  # as in a sweep, see december_plugin.sweeps.parse
    surrogates: Any = None
    stability: Any = None
    cluster_confusion: Any = None
    exciting_images: Any = None


SECTIONS = tuple(ImportContent.model_fields)


def read_source(path: str | Path) -> tuple[Any, Source]:
    """Return the content of an import file, and the places of its entries.

    Raises
    ------
    SettingsError
        If it cannot be read.
    ImportFileError
        For every mistake in its YAML.
    """
    try:
        written = Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"the import file {path} cannot be read: {error.strerror}.") from None
    read = read_yaml(written, str(path), what="the import file", is_text=_is_text)
    if read.mistakes:
        raise ImportFileError(read.mistakes, read.source)
    return read.content, read.source


def _is_text(place: Place) -> bool:
    return place[-1] in TEXT_KEYS and place[:1] == ("models",) and "config" not in place


def checked_content(content: Any) -> tuple[ImportContent | None, list[Violation]]:
    """Return the content of an import file, or None, and its mistakes."""
    if not isinstance(content, Mapping):
        text = f"an import file is a mapping with the sections {', '.join(SECTIONS)}."
        return None, [Violation((), text, "model_type")]
    given = {str(name): value for name, value in content.items() if value is not None or name not in SECTIONS}
    try:
        return ImportContent.model_validate(given), []
    except ValidationError as error:
        found = mistakes_in(error, ImportContent, given)
    unknown = [str(each.path[0]) for each in found if each.is_unknown and len(each.path) == 1]
    # A section whose name is misspelled is not missing, too.
    return None, [each for each in found if not (each.is_missing and _is_like(each.path, unknown))]


def _is_like(path: tuple[Any, ...], names: list[str]) -> bool:
    return len(path) == 1 and bool(difflib.get_close_matches(path[0], names, n=1))
