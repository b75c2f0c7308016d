"""nnfabrik model functions."""

from december_plugin.models.attention import stacked_core_attention_readout, task_core_attention_readout
from december_plugin.models.equivariant import (
    equivariant_core_factorized_readout,
    equivariant_core_gaussian_readout,
)
from december_plugin.models.factorized import stacked_core_factorized_readout
from december_plugin.models.gaussian import stacked_core_gaussian_readout
from december_plugin.models.hoefling import hoefling_core_gaussian_readout
from december_plugin.models.movie import movie_core_gaussian_readout

__all__ = [
    "equivariant_core_factorized_readout",
    "equivariant_core_gaussian_readout",
    "hoefling_core_gaussian_readout",
    "movie_core_gaussian_readout",
    "stacked_core_attention_readout",
    "stacked_core_factorized_readout",
    "stacked_core_gaussian_readout",
    "task_core_attention_readout",
]

# The stimuli that each takes: a sweep combines it with datasets that serve the same.
STIMULI = {
    "stacked_core_gaussian_readout": "images",
    "stacked_core_attention_readout": "images",
    "stacked_core_factorized_readout": "images",
    "task_core_attention_readout": "images",
    "equivariant_core_gaussian_readout": "images",
    "equivariant_core_factorized_readout": "images",
    "movie_core_gaussian_readout": "movies",
    "hoefling_core_gaussian_readout": "movies",
}
