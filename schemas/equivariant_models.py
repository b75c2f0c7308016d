"""Which registered models are rotation-equivariant, by their functions, including those of imported models."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from december_plugin.errors import SettingsError
from december_plugin.imports.stored_names import MODEL as IMPORTED_MODEL
from december_plugin.schemas.restrictions import fits, like
from december_plugin.schemas.stored_models import model_function_of

EQUIVARIANT_MODELS = ("december_plugin.*equivariant_core_*_readout",)
VARIABLE, SETTING = "DECEMBER_EQUIVARIANT_MODELS", "december.equivariant_models"


def equivariant_patterns() -> tuple[str, ...]:
    """Return the patterns of our functions, and a lab's patterns from the environment or DataJoint's configuration.

    Raises
    ------
    SettingsError
        If the lab's patterns are not names of functions, in which ``*`` is anything.
    """
    import datajoint as dj

    given = os.environ.get(VARIABLE) or dj.config.get(SETTING) or ()
    own = [name.strip() for name in (given.split(",") if isinstance(given, str) else given)]
    for name in own:
        if not re.fullmatch(r"[\w.*]+", name):
            raise SettingsError(
                f"{VARIABLE} (in DataJoint's configuration {SETTING}) has {name!r}; it must be a list of dotted names "
                "of model functions, separated by commas, in which * stands for anything."
            )
    return (*EQUIVARIANT_MODELS, *own)


def is_equivariant(model_fn: str, model_config: Mapping[str, Any], patterns: Sequence[str]) -> bool:
    """Return whether the function of an entry of ``Model`` fits one of the patterns.

    Parameters
    ----------
    model_fn, model_config
        Its function and settings; for an imported model, the function that these name counts.
    patterns
        Names of functions, in which ``*`` is anything.
    """
    return fits(model_function_of(model_fn, model_config)[0], patterns)


def of_equivariant_models(models: Any, patterns: Sequence[str]) -> list[Any]:
    """Return restrictions of which a model meets one if :func:`is_equivariant` holds.

    Parameters
    ----------
    models
        nnfabrik's ``Model``.
    patterns
        Names of functions, in which ``*`` is anything.
    """
    imported = (models & {"model_fn": IMPORTED_MODEL}).fetch("model_hash", "model_config", as_dict=True)
    hashes = [row["model_hash"] for row in imported if is_equivariant(IMPORTED_MODEL, row["model_config"], patterns)]
    return [like("model_fn", patterns), *({"model_fn": IMPORTED_MODEL, "model_hash": each} for each in hashes)]
