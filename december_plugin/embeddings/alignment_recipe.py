"""How readout vectors of rotation-equivariant models are turned to a common orientation before they are clustered.

Only the settings, for code that names or stores them; :mod:`december_plugin.rotation` does the alignment.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Annotated, Any, Literal

from pydantic import Field

from december_plugin.embeddings.space import Space
from december_plugin.validation.models import PLAIN, Says, settings_class

Schedule = Literal["ramp", "paper"]
Control = Literal["features", "neurons"]

UNKNOWN = "{name} is {value!r}, which is unknown. {suggestion}"
MOST_RESTARTS, MOST_MEANS = 1000, 10_000

# What a recipe says beyond "aligned", where it is not the default.
_WORDS: dict[str, dict[Any, str]] = {
    "schedule": {"paper": "paper's schedule"},
    "power": {1: "distances, not squared"},
    "n_means": {1: "one mean"},
    "space": {"functional": "by what neurons compute"},
    "control": {"features": "features permuted in every neuron", "neurons": "features permuted across neurons"},
}


@settings_class
class AlignmentRecipe:
    """How readout vectors are aligned; the number of orientations is the model's.

    Attributes
    ----------
    schedule, power, n_restarts, beta, n_means
        See :class:`~december_plugin.rotation.alignment.RotationAlignment`.
    space
        "readout": the readout vectors are aligned as they are. "functional": by what neurons compute, in the metric of
        the model's feature covariance, averaged over turns of the stimulus.
    seed
        Seed of the random starts and of the permutations of a control, 0 to 2**32 - 1.
    control
        "none", or which features are permuted before vectors are aligned, see
        :func:`~december_plugin.rotation.controls.permuted_readouts`: clusters of permuted vectors are not types.
    """

    schedule: Annotated[Schedule, Says(UNKNOWN)] = "ramp"
    power: Annotated[int, Field(ge=1, le=2), PLAIN, Says("{name} is {value!r}, but must be 1 or 2.")] = 2
    n_restarts: Annotated[
        int,
        Field(ge=1, le=MOST_RESTARTS),
        PLAIN,
        Says(f"{{name}} is {{value!r}}, but must be an integer from 1 to {MOST_RESTARTS}."),
    ] = 3
    beta: Annotated[
        Annotated[float, Field(gt=0, allow_inf_nan=False), PLAIN] | None,
        Says("{name} is {value!r}, but must be a positive number, or None for the schedule's."),
    ] = None
    n_means: Annotated[
        Annotated[int, Field(ge=1, le=MOST_MEANS), PLAIN] | None,
        Says(f"{{name}} is {{value!r}}, but must be an integer from 1 to {MOST_MEANS}, or None for the schedule's."),
    ] = None
    space: Annotated[Space, Says(UNKNOWN)] = "readout"
    seed: Annotated[
        int,
        Field(ge=0, le=2**32 - 1),
        PLAIN,
        Says("{name} is {value!r}, but must be an integer from 0 to 2**32 - 1."),
    ] = 0
    control: Annotated[Literal["none", "features", "neurons"], Says(UNKNOWN)] = "none"

    @property
    def is_functional(self) -> bool:
        """Whether the model's feature covariance is needed."""
        return self.space == "functional"

    @property
    def phrase(self) -> str:
        """The recipe in words: "aligned", and in brackets what differs from the defaults."""
        said = []
        for each in fields(self):
            value = getattr(self, each.name)
            if value != each.default:
                plain = f"{each.name.removeprefix('n_')} {value:g}" if isinstance(value, (int, float)) else str(value)
                said.append(_WORDS.get(each.name, {}).get(value, plain))
        return f"aligned ({', '.join(said)})" if said else "aligned"

    def as_settings(self) -> dict[str, Any]:
        """Return the settings with every default written out; equal recipes have equal ones."""
        return asdict(self)
