"""Bundles: a result in one file, for a paper's supplement and for other machines; read without a database.

The tables write and take them in :mod:`december_plugin.sharing` and :mod:`december_plugin.intake.bundles`.
"""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.bundles.annotated import annotated_neurons as annotated_neurons
    from december_plugin.bundles.bundle import Bundle as Bundle
    from december_plugin.bundles.bundle import read_bundle as read_bundle

_NAMES = {
    "annotated": ["annotated_neurons"],
    "bundle": ["Bundle", "read_bundle"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
