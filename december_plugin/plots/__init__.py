"""Figures from plain data frames and arrays: every figure of the DECEMber paper, and those that go beyond it.

Every function returns a :class:`matplotlib.figure.Figure` that belongs to no window and leaves matplotlib's global
state alone; :func:`save_figure` writes it. A method has the same colour, marker and line in all of them.
docs/figures.md lists which figure of the paper each one is, and which query makes its frame.
"""

from december_plugin.evaluation.tsne import TsneSettings, tsne_coordinates, tsne_settings
from december_plugin.plots.agreement import agreement_figure
from december_plugin.plots.aligned_readouts import aligned_readouts_figure
from december_plugin.plots.alignments import alignments_figure
from december_plugin.plots.cluster_blocks import block_changes_figure, cluster_confusion_figure
from december_plugin.plots.cluster_centres import cluster_centres_figure
from december_plugin.plots.cluster_tree import cluster_tree_figure
from december_plugin.plots.confidence import calibration_figure, consensus_figure
from december_plugin.plots.configurations import configurations_figure
from december_plugin.plots.confusion import confusion_figure, known_types_figure
from december_plugin.plots.curves import training_curves_figure
from december_plugin.plots.datasets import datasets_figure, weighted_agreement
from december_plugin.plots.embedding import drawn_neurons, embedding_figure
from december_plugin.plots.embedding_panels import embedding_panels_figure, tsne_frame
from december_plugin.plots.equivariant import equivariant_figure
from december_plugin.plots.exciting_images import exciting_images_figure, mei_confusion_figure
from december_plugin.plots.measures import measures_figure
from december_plugin.plots.model_selection import cluster_count_caption, cluster_count_figure
from december_plugin.plots.nulls import null_figure, with_spread
from december_plugin.plots.pretraining import learning_rate_figure, pretraining_figure
from december_plugin.plots.relaxed_shift import relaxed_shift_figure
from december_plugin.plots.restarts import restarts_figure
from december_plugin.plots.saving import save_figure
from december_plugin.plots.shown import ShownMethods, shown_methods
from december_plugin.plots.strength import strength_figure
from december_plugin.plots.style import MethodStyle, method_style, method_styles
from december_plugin.plots.synthetic_alignment import (
    reconstruction_figure,
    synthetic_alignment_figure,
    synthetic_readouts_figure,
)
from december_plugin.plots.toy import toy_figure

__all__ = [
    "MethodStyle",
    "ShownMethods",
    "TsneSettings",
    "agreement_figure",
    "aligned_readouts_figure",
    "alignments_figure",
    "block_changes_figure",
    "calibration_figure",
    "cluster_centres_figure",
    "cluster_confusion_figure",
    "cluster_count_caption",
    "cluster_count_figure",
    "cluster_tree_figure",
    "configurations_figure",
    "confusion_figure",
    "consensus_figure",
    "datasets_figure",
    "drawn_neurons",
    "embedding_figure",
    "embedding_panels_figure",
    "equivariant_figure",
    "exciting_images_figure",
    "known_types_figure",
    "learning_rate_figure",
    "measures_figure",
    "mei_confusion_figure",
    "method_style",
    "method_styles",
    "null_figure",
    "pretraining_figure",
    "reconstruction_figure",
    "relaxed_shift_figure",
    "restarts_figure",
    "save_figure",
    "shown_methods",
    "strength_figure",
    "synthetic_alignment_figure",
    "synthetic_readouts_figure",
    "toy_figure",
    "training_curves_figure",
    "tsne_coordinates",
    "tsne_frame",
    "tsne_settings",
    "weighted_agreement",
    "with_spread",
]
