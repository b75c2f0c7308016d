"""Which functions workers may run, and what must never be printed."""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.security.allowed_modules import AllowedModules as AllowedModules
    from december_plugin.security.allowed_modules import restricted_to as restricted_to

_NAMES = {
    "allowed_modules": ["AllowedModules", "restricted_to"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
