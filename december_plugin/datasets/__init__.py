"""nnfabrik dataset functions, one module for each recording format."""

from december_plugin.datasets.hoefling_2024 import hoefling_2024_loaders, hoefling_2024_types
from december_plugin.datasets.macaque_v4 import macaque_v4_loaders
from december_plugin.datasets.movies import movie_loaders
from december_plugin.datasets.sridhar_2025 import sridhar_2025_loaders
from december_plugin.datasets.static import static_loaders

__all__ = [
    "hoefling_2024_loaders",
    "hoefling_2024_types",
    "macaque_v4_loaders",
    "movie_loaders",
    "sridhar_2025_loaders",
    "static_loaders",
]
