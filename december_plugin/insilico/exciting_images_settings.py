"""Settings of maximally exciting images of clusters: the number of neurons, the models, and the ascent."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from december_plugin.evaluation.surrogate_settings import Clusterings, in_one_form
from december_plugin.insilico.ascent_settings import AscentSettings
from december_plugin.validation.models import PLAIN, Count, Says, settings_class

PER_CLUSTER = 16  # as in the paper
LEAST_CORRELATION = 0.7  # least test correlation of neurons that are compared by their images, as in the paper
Models = Literal["single", "seeds"]
SINGLE: Models = "single"
SEEDS: Models = "seeds"


@settings_class
class ExcitingImagesSettings(AscentSettings):
    """The settings of one row of ``MeiSettings``, with those of the ascent.

    Attributes
    ----------
    per_cluster
        Number of neurons of each cluster: those with the best test correlations.
    models
        "single": images that drive the model of the assignment. "seeds": images that drive the mean of all models that
        differ from it only in the seed and have the same neurons.
    least_correlation
        Smallest test correlation, -1 to 1, of the neurons of ``MeiConfusion``.
    clusterings
        Methods of the clusterings for which they are computed, in alphabetical order; None: all.
    """

    per_cluster: Count = PER_CLUSTER
    models: Annotated[Models, Says("{name} is {value!r}, which is unknown. {suggestion}")] = SINGLE
    least_correlation: Annotated[
        float,
        Field(ge=-1, le=1),
        PLAIN,
        Says("{name} is {value!r}; it must be a correlation from -1 to 1."),
    ] = LEAST_CORRELATION
    clusterings: Annotated[Clusterings | None, AfterValidator(in_one_form)] = None

    @property
    def ascent(self) -> dict[str, Any]:
        """Only the settings of the ascent."""
        return {each.name: getattr(self, each.name) for each in fields(AscentSettings)}
