"""nnfabrik model functions."""

from december_plugin.models.hoefling import hoefling_core_gaussian_readout
from december_plugin.models.stacked_core import stacked_core_gaussian_readout

__all__ = ["hoefling_core_gaussian_readout", "stacked_core_gaussian_readout"]
