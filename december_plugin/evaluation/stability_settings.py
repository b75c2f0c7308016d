"""Settings of a resampling: how often parts of a model's neurons are drawn, their size, and for which clusterings."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from december_plugin.evaluation.stability import DEFAULT_RESAMPLINGS, DEFAULT_SHARE
from december_plugin.evaluation.surrogate_settings import MOST_DRAWS, Clusterings, Draws, Seed, in_one_form
from december_plugin.validation.models import PLAIN, Says, settings_class

Share = Annotated[
    float,
    Field(gt=0, lt=1),
    PLAIN,
    Says("{name} is {value!r}; it must be a number between 0 and 1."),
]
Surrogates = Annotated[
    int,
    Field(ge=0, le=MOST_DRAWS),
    PLAIN,
    Says(f"{{name}} is {{value!r}}; it must be an integer from 0 to {MOST_DRAWS}."),
]


@settings_class
class StabilitySettings:
    """The settings of one row of ``Resampling``.

    Attributes
    ----------
    n_draws
        Number of parts of the neurons, 1 to 10,000.
    share
        Share of the neurons that a part has, between 0 and 1.
    seed
        Seed of the draws, 0 to 2**32 - 1.
    n_surrogates
        Surrogates without clusters whose stability is the null, 0 (no null) to 10,000; each is clustered ``1 +
        n_draws`` times.
    clusterings
        Methods of the clusterings for which it is computed, in alphabetical order; None: all.
    """

    n_draws: Draws = DEFAULT_RESAMPLINGS
    share: Share = DEFAULT_SHARE
    seed: Seed = 0
    n_surrogates: Surrogates = 0
    clusterings: Annotated[Clusterings | None, AfterValidator(in_one_form)] = None
