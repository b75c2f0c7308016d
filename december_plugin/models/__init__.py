"""nnfabrik model functions."""

from december_plugin.models.stacked_core import stacked_core_gaussian_readout

__all__ = ["stacked_core_gaussian_readout"]
