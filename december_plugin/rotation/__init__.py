"""Rotation-invariant clustering (Ustyuzhaninov et al. 2020): readout vectors turned to a common orientation."""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.rotation.alignment import RotationAlignment as RotationAlignment
    from december_plugin.rotation.amplitudes import fourier_amplitudes as fourier_amplitudes
    from december_plugin.rotation.controls import permuted_readouts as permuted_readouts
    from december_plugin.rotation.shifts import cyclic_mean as cyclic_mean
    from december_plugin.rotation.shifts import shifted as shifted
    from december_plugin.rotation.simulation import simulated_readouts as simulated_readouts

_NAMES = {
    "alignment": ["RotationAlignment"],
    "amplitudes": ["fourier_amplitudes"],
    "controls": ["permuted_readouts"],
    "shifts": ["cyclic_mean", "shifted"],
    "simulation": ["simulated_readouts"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
