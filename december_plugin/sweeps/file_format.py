"""The format of a sweep's file: its sections, the keys of their entries, and the values of these keys.

Settings of functions and methods are checked where they are combined, entry by entry
(:mod:`december_plugin.sweeps.parse`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from december_plugin.clustering.methods import MOST_CLUSTERS, PostHocKind
from december_plugin.sweeps import functions
from december_plugin.validation.models import Says, StrictModel, Violation, mistakes_in

LARGEST_SEED = 2**31 - 1
NO_MAPPING = ("model_type", "model_attributes_type")
NO_FN = "an entry is a mapping with at least the key 'fn'."
NO_COUNT = "an entry needs the keys 'method' and 'n_clusters'."

OrNothing = BeforeValidator(lambda given: given or {})
Grid = Annotated[
    dict[str, Annotated[list[Any], Field(min_length=1)]],
    OrNothing,
    Says("grid must give each setting a list of values; it is {value!r}."),
]


class SweepEntry(StrictModel):
    """An entry of nnfabrik: a function, a comment, settings, and lists of values for some of them."""

    SAYS: ClassVar[tuple[Says, ...]] = (Says(NO_FN, when=NO_MAPPING),)
    SAYS_UNKNOWN: ClassVar[str] = "there is no key {name!r}. {suggestion}"
    SAYS_MISSING: ClassVar[Says] = Says(NO_FN, is_of_part=True)
    SECTION: ClassVar[str]

    fn: Annotated[str, Says(NO_FN, when=("string_type",), is_of_part=True)]
    comment: Any = None
    config: Annotated[dict[str, Any], OrNothing, Says("config must be a mapping of settings; it is {value!r}.")] = (
        Field(default_factory=dict)
    )
    grid: Grid = Field(default_factory=dict)

    @field_validator("fn")
    @classmethod
    def _names_a_function(cls, fn: str) -> str:
        functions.resolve(cls.SECTION, fn)
        return fn


class DatasetEntry(SweepEntry):
    """An entry of ``Dataset``."""

    SECTION: ClassVar[str] = "datasets"


class ModelEntry(SweepEntry):
    """An entry of ``Model``."""

    SECTION: ClassVar[str] = "models"


class TrainerEntry(SweepEntry):
    """An entry of ``Trainer``."""

    SECTION: ClassVar[str] = "trainers"


class ClusteringItem(StrictModel):
    """Post hoc clusterings by one method; keys that are not declared here are settings of the method."""

    model_config = ConfigDict(extra="allow")
    SAYS: ClassVar[tuple[Says, ...]] = (Says(NO_COUNT, when=NO_MAPPING),)
    SAYS_MISSING: ClassVar[Says] = Says(NO_COUNT, is_of_part=True)

    method: Annotated[PostHocKind, Says("there is no method {value!r}. {suggestion}")]
    n_clusters: Annotated[
        list[
            Annotated[
                int,
                Field(ge=1, le=MOST_CLUSTERS),
                Says(f"n_clusters is {{value}}; at most {MOST_CLUSTERS} are allowed.", when=("less_than_equal",)),
                Says("n_clusters is {value!r}; it must be an integer of at least 1."),
            ]
        ],
        BeforeValidator(lambda given: given if isinstance(given, list) else [given]),
    ] = Field(default_factory=list)  # some methods find it
    grid: Grid = Field(default_factory=dict)


SeedOfSweep = Annotated[
    int,
    Field(ge=0, le=LARGEST_SEED),
    Says(
        f"{{name}} is {{whole!r}}; seeds are from 0 to {LARGEST_SEED}.", when=("greater_than_equal", "less_than_equal")
    ),
]
OF_ENTRIES = Says(
    f"{{name}} must be a list of entries, each with the keys {', '.join(SweepEntry.model_fields)}.", when=("list_type",)
)
OF_CLUSTERINGS = Says(
    "{name} must be a list of entries, e.g. {{method: gmm, n_clusters: [10, 20]}}.", when=("list_type",)
)


class SweepContent(StrictModel):
    """The sections of a sweep."""

    SAYS_UNKNOWN: ClassVar[str] = "there is no section {name!r}. {suggestion}"
    SAYS_MISSING: ClassVar[Says] = Says("the section {name!r} is missing or empty.")

    seeds: Annotated[list[SeedOfSweep], Says("{name} is {value!r}; it must be a list of integers.")]
    datasets: Annotated[list[DatasetEntry], OF_ENTRIES]
    models: Annotated[list[ModelEntry], OF_ENTRIES]
    trainers: Annotated[list[TrainerEntry], OF_ENTRIES]
    clusterings: Annotated[list[ClusteringItem], OF_CLUSTERINGS] = Field(default_factory=list)
    surrogates: Any = None  # see december_plugin.sweeps.surrogates
    stability: Any = None  # see december_plugin.sweeps.stability
    cluster_confusion: Any = None  # see december_plugin.sweeps.cluster_functions
    exciting_images: Any = None  # see december_plugin.sweeps.exciting_images


SECTIONS = tuple(SweepContent.model_fields)


def content_mistakes(content: Mapping[str, Any]) -> list[Violation]:
    """Return what is wrong with a file as a whole; empty sections count as missing."""
    given = {name: value for name, value in content.items() if value or name not in SECTIONS}
    try:
        SweepContent.model_validate(given)
    except ValidationError as error:
        found = mistakes_in(error, SweepContent, given)
    else:
        return []
    unknown = [str(each.path[0]) for each in found if each.is_unknown and len(each.path) == 1]
    # A section whose name is misspelled is not also reported as missing.
    return [each for each in found if not (each.is_missing and _is_like(each.path, unknown))]


def _is_like(path: tuple[Any, ...], names: list[str]) -> bool:
    return len(path) == 1 and bool(difflib.get_close_matches(path[0], names, n=1))
