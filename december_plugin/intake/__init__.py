"""Brings models that were trained elsewhere into the tables: the import file, its models, and their rows."""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.intake.other_schema import models_of_schema as models_of_schema
    from december_plugin.intake.write import import_models as import_models

_NAMES = {"other_schema": ["models_of_schema"], "write": ["import_models"]}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
