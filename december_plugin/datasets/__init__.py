"""nnfabrik dataset functions, one module for each recording format."""

from december_plugin.datasets.static import static_loaders

__all__ = ["static_loaders"]
