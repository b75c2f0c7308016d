"""Settings of a comparison of clusters by what they compute: the responses compared, and the clusters merged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from december_plugin.evaluation.surrogate_settings import Clusterings, in_one_form
from december_plugin.validation.models import PLAIN, Says, settings_class

THRESHOLD = 0.5  # mean correlation down to which clusters are merged (Ustyuzhaninov et al. 2020, section 5.2)
Responses = Literal["linear", "images"]
LINEAR: Responses = "linear"
IMAGES: Responses = "images"


@settings_class
class ClusterFunctionsSettings:
    """The settings of one row of ``ClusterConfusionSettings``.

    Attributes
    ----------
    threshold
        Mean correlation between blocks of clusters, from -1 to 1, down to which these are merged.
    responses
        "linear": responses before the output nonlinearity, from the model's feature covariance. "images": the model's
        predictions for the stimuli of its training tier.
    clusterings
        Methods of the clusterings for which it is computed, in alphabetical order; None: all.
    """

    threshold: Annotated[
        float,
        Field(ge=-1, le=1),
        PLAIN,
        Says("{name} is {value!r}; it must be a correlation from -1 to 1."),
    ] = THRESHOLD
    responses: Annotated[Responses, Says("{name} is {value!r}, which is unknown. {suggestion}")] = LINEAR
    clusterings: Annotated[Clusterings | None, AfterValidator(in_one_form)] = None
