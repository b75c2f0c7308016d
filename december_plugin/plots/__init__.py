"""Figures from plain data: agreement against K, t-SNE of readout vectors, training curves.

Every function returns a :class:`matplotlib.figure.Figure` that belongs to no window and leaves matplotlib's global
state alone; :func:`save_figure` writes it.
"""

from december_plugin.plots.agreement import agreement_figure
from december_plugin.plots.curves import training_curves_figure
from december_plugin.plots.embedding import drawn_neurons, embedding_figure
from december_plugin.plots.saving import save_figure
from december_plugin.plots.style import MethodStyle, method_style, method_styles
from december_plugin.plots.tsne import TsneSettings, tsne_coordinates, tsne_settings

__all__ = [
    "MethodStyle",
    "TsneSettings",
    "agreement_figure",
    "drawn_neurons",
    "embedding_figure",
    "method_style",
    "method_styles",
    "save_figure",
    "training_curves_figure",
    "tsne_coordinates",
    "tsne_settings",
]
