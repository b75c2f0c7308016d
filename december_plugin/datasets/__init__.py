"""nnfabrik dataset functions, one folder for each recording format.

A new format is a folder with its ``loaders.py``; its function and the kind of its stimuli are listed here.
"""

from december_plugin.datasets.hoefling_2024.loaders import hoefling_2024_loaders, hoefling_2024_types
from december_plugin.datasets.macaque_v4.loaders import macaque_v4_loaders
from december_plugin.datasets.movies.loaders import movie_loaders
from december_plugin.datasets.sensorium.loaders import static_loaders
from december_plugin.datasets.sridhar_2025.loaders import sridhar_2025_loaders

__all__ = [
    "hoefling_2024_loaders",
    "hoefling_2024_types",
    "macaque_v4_loaders",
    "movie_loaders",
    "sridhar_2025_loaders",
    "static_loaders",
]

# The stimuli that each serves: a sweep combines it with models that take the same.
STIMULI = {
    "static_loaders": "images",
    "macaque_v4_loaders": "images",
    "movie_loaders": "movies",
    "hoefling_2024_loaders": "movies",
    "sridhar_2025_loaders": "movies",
}
