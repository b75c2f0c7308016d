"""The settings of gradient ascent, and how it can end; :mod:`december_plugin.insilico.ascent` does it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from december_plugin.validation.models import PLAIN, Count, Positive, PositiveOrZero, Says, settings_class

LONGEST_STEP = 0.5  # of the norm
CONVERGED, MAX_STEPS, DEAD = ENDINGS = ("converged", "max_steps", "dead")


@settings_class
class AscentSettings:
    """How images are optimised.

    Attributes
    ----------
    norm
        L2 norm of the images about grey; None: half that of z-scored images, ``sqrt(pixels) / 2``, or half of what the
        bounds of the canvas allow, if that is less.
    frequency_power
        Which frequencies come first: gradients are divided by their spatial frequency to this power. 0: none.
    highest_frequency
        Highest spatial frequency of the images, in cycles per pixel, up to 0.71 (all).
    step
        Length of the first step, as a fraction of the norm.
    max_steps
        Largest number of steps of an image.
    patience, tolerance
        An image has converged when in so many steps its activity has risen by at most this fraction of its total rise
        since the start.
    n_starts
        Number of different noise images from which every neuron starts; the best result is kept.
    seed
        Seed of the noise.

    See Also
    --------
    maximally_exciting_images : Finds images with these settings.

    Examples
    --------
    >>> from december_plugin.insilico import AscentSettings
    >>> settings = AscentSettings(norm=8.0, n_starts=1)
    >>> settings.max_steps
    300
    """

    norm: Positive | None = None
    frequency_power: PositiveOrZero = 1.0
    highest_frequency: Annotated[
        float,
        Field(gt=0, le=0.71),
        PLAIN,
        Says("{name} is {value!r}; it must be a number above 0 and at most 0.71 cycles per pixel, which is all."),
    ] = 0.71
    step: Annotated[
        float,
        Field(gt=0, le=LONGEST_STEP),
        PLAIN,
        Says(f"{{name}} is {{value!r}}; it must be a number above 0 and at most {LONGEST_STEP}."),
    ] = 0.1
    max_steps: Count = 300
    patience: Count = 10
    tolerance: PositiveOrZero = 1e-3
    n_starts: Count = 3
    seed: Annotated[
        int,
        Field(ge=0, le=2**32 - 1),
        PLAIN,
        Says("{name} is {value!r}; it must be an integer from 0 to 2**32 - 1."),
    ] = 0
