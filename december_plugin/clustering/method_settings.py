"""What each post hoc method can be told: its settings, their limits and their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, PlainValidator

from december_plugin.clustering.kmeans import KMEANS_RESTARTS
from december_plugin.clustering.student_t_mixture import Weights
from december_plugin.errors import SettingsError
from december_plugin.validation.checks import check_bounds
from december_plugin.validation.models import AS_GIVEN, Positive, PositiveOrZero, Says, constructed, settings_class

Seed = Annotated[
    int,
    Field(ge=0, le=2**32 - 1),
    AS_GIVEN,
    Says("{name} is {value!r}, but must be an integer from 0 to 2**32 - 1."),
]
Often = Annotated[int, Field(ge=1), AS_GIVEN, Says("{name} is {value!r}, but must be an integer of at least 1.")]
Nats = Annotated[PositiveOrZero, Says("{name} is {value!r}, but must be a finite number of nats, 0 or more.")]
DegreesOfFreedom = Annotated[
    Positive, Says("{name} is {value!r}, but the degrees of freedom must be a positive, finite number.")
]
Bounds = Annotated[tuple[float, float], PlainValidator(lambda bounds: check_bounds("scale_bounds", bounds))]


@settings_class
class GaussianMixtureSettings:
    """A Gaussian mixture with diagonal covariances, scikit-learn's.

    The paper fixes the seed and ``reg_covar=1e-6``; the other defaults are those of the t mixture, so that the two are
    fitted with equal effort (scikit-learn's own are ``n_init=1, max_iter=100, tol=1e-3``).

    Attributes
    ----------
    seed
        Of the starts.
    n_init
        Runs, of which the most likely counts.
    max_iter
        EM steps at most.
    tol
        A step that adds less than this to the mean log likelihood per neuron (nats) is the last.
    reg_covar
        Added to the variances (squared units of the readout weights).
    """

    seed: Seed = 0
    n_init: Often = 5
    max_iter: Often = 500
    tol: PositiveOrZero = 1e-5
    reg_covar: PositiveOrZero = 1e-6


@settings_class
class KMeansSettings:
    """The best of ``n_init`` restarts: the clustering from which DECEMber starts if it has the same seed."""

    seed: Seed = 0
    n_init: Often = KMEANS_RESTARTS


@settings_class
class StudentTMixtureSettings:
    """See :class:`~december_plugin.clustering.student_t_mixture.StudentTMixture`."""

    seed: Seed = 0
    n_init: Often = 5
    max_iter: Often = 500
    tol: Nats = 1e-5
    dof: DegreesOfFreedom = 2.1
    weights: Annotated[Weights, Says("{name} is {value!r}, which is unknown. {suggestion}")] = "uniform"
    scale_bounds: Bounds = (1e-4, 1e4)


KINDS: Mapping[str, type] = MappingProxyType(
    {"gmm": GaussianMixtureSettings, "kmeans": KMeansSettings, "t_mixture": StudentTMixtureSettings}
)
METHODS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {method: MappingProxyType({each.name: each.default for each in fields(kind)}) for method, kind in KINDS.items()}
)
"""The settings of every method, with their defaults."""


def mistakes_in_settings(method: str, settings: Mapping[str, Any]) -> list[SettingsError]:
    """Return what is wrong with settings of one of :data:`METHODS`, unknown names first."""
    unknown = f"{method} has no setting {{name!r}}. {{suggestion}}"
    _, found = constructed(KINDS[method], settings, unknown=unknown)
    return [each.as_error() for each in sorted(found, key=lambda each: not each.is_unknown)]
