"""Checks of settings and arrays that come from users or from the database."""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.validation.checks import checked_settings as checked_settings

_NAMES = {
    "checks": ["checked_settings"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
