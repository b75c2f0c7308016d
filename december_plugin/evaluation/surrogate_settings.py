"""The settings of a null: how many surrogates are drawn, by which method, and for which clusterings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from december_plugin.clustering.methods import METHODS, Kind
from december_plugin.evaluation.null import DEFAULT_DRAWS, SurrogateMethod
from december_plugin.text.stored_text import checked_text
from december_plugin.validation.models import PLAIN, Says, settings_class

MOST_DRAWS = 10_000
LARGEST_SEED = 2**32 - 1
NAME_LENGTH = 64
# The methods of earlier versions. A list of all methods is stored as None, which includes those that are added later.
ONCE_ALL = (
    ("december", "gmm", "kmeans", "t_mixture"),
    ("december", "gmm", "hdbscan", "kmeans", "t_mixture", "ward"),
)

Draws = Annotated[
    int,
    Field(ge=1, le=MOST_DRAWS),
    PLAIN,
    Says(f"{{name}} is {{value}}; at most {MOST_DRAWS} are allowed.", when=("less_than_equal",)),
]
Seed = Annotated[
    int,
    Field(ge=0, le=LARGEST_SEED),
    PLAIN,
    Says("{name} is {value!r}; it must be an integer from 0 to 2**32 - 1."),
]
Clusterings = Annotated[
    list[Annotated[Kind, Says("there is no clustering {value!r}. {suggestion}")]],
    Field(min_length=1),
    BeforeValidator(lambda given: list(given) if isinstance(given, tuple) else given),
    Says(f"{{name}} is {{value!r}}; it must be a list of {', '.join(METHODS)}, or be left out."),
]


def _checked_name(name: Any) -> str | None:
    return None if name is None else checked_text("name", name, NAME_LENGTH, empty=False, setting="name")


def in_one_form(clusterings: list[str] | None) -> tuple[str, ...] | None:
    """Return the methods in order, each once; None for all of them."""
    chosen = set(clusterings or METHODS)
    return None if chosen == set(METHODS) else tuple(sorted(chosen))


@settings_class
class SurrogateSettings:
    """The settings of one row of ``Surrogate``.

    Attributes
    ----------
    name
        A short name for tables and figures, 1 to 64 characters; None: made from the settings.
    n_draws
        Number of surrogates of every set of seeds, 1 to 10,000.
    seed
        Seed of the draws, 0 to 2**32 - 1.
    method
        "elliptical", "gaussian", "planar", "axial" or "combined", see :mod:`december_plugin.evaluation.null`.
    clusterings
        Methods of the clusterings for which it is drawn, in alphabetical order; None: all.
    """

    name: Annotated[str | None, PlainValidator(_checked_name)] = None
    n_draws: Draws = DEFAULT_DRAWS
    seed: Seed = 0
    method: Annotated[SurrogateMethod, Says("there is no surrogate method {value!r}. {suggestion}")] = "elliptical"
    clusterings: Annotated[Clusterings | None, AfterValidator(in_one_form)] = None
