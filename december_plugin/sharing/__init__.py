"""Shares a result: all of it in one file, and its neurons as AnnData."""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.sharing.result import Result as Result
    from december_plugin.sharing.write import write_bundle as write_bundle

_NAMES = {
    "result": ["Result"],
    "write": ["write_bundle"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
