"""Models trained elsewhere: reads readout vectors, checkpoints and tables of units from files.

Nothing here needs a database. Functions that entries of nnfabrik name are in :mod:`december_plugin.imports.entries`.
"""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.imports.arrays import read_array as read_array
    from december_plugin.imports.checkpoints import read_checkpoint as read_checkpoint
    from december_plugin.imports.identity import check_same_neurons as check_same_neurons
    from december_plugin.imports.readouts import read_readouts as read_readouts
    from december_plugin.imports.units import Units as Units
    from december_plugin.imports.units import read_units as read_units

_NAMES = {
    "arrays": ["read_array"],
    "checkpoints": ["read_checkpoint"],
    "identity": ["check_same_neurons"],
    "readouts": ["read_readouts"],
    "units": ["Units", "read_units"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
