"""Answers from the filled tables, as pandas data frames."""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.results.agreement import agreement_table as agreement_table
    from december_plugin.results.agreement import best_configurations as best_configurations
    from december_plugin.results.alignment import alignments as alignments
    from december_plugin.results.assignments import load_assigned_model as load_assigned_model
    from december_plugin.results.assignments import neuron_clusters as neuron_clusters
    from december_plugin.results.assignments import stable_neurons as stable_neurons
    from december_plugin.results.cluster_counts import choose_cluster_count as choose_cluster_count
    from december_plugin.results.cluster_counts import cluster_count_table as cluster_count_table
    from december_plugin.results.cluster_functions import cluster_confusion as cluster_confusion
    from december_plugin.results.cluster_functions import cluster_pairs as cluster_pairs
    from december_plugin.results.cluster_trees import cluster_tree_of as cluster_tree_of
    from december_plugin.results.configurations import configuration_table as configuration_table
    from december_plugin.results.confusion import confusion_frame as confusion_frame
    from december_plugin.results.consensus import consensus_frame as consensus_frame
    from december_plugin.results.consensus import consensus_table as consensus_table
    from december_plugin.results.exciting_images import exciting_images as exciting_images
    from december_plugin.results.exciting_images import exciting_neurons as exciting_neurons
    from december_plugin.results.exciting_images import mei_confusion as mei_confusion
    from december_plugin.results.export import export_tables as export_tables
    from december_plugin.results.figure_frames import datasets_frame as datasets_frame
    from december_plugin.results.figure_frames import embeddings_frame as embeddings_frame
    from december_plugin.results.figure_frames import measures_frame as measures_frame
    from december_plugin.results.figure_frames import performance_frame as performance_frame
    from december_plugin.results.figure_frames import restarts_frame as restarts_frame
    from december_plugin.results.nulls import null_table as null_table
    from december_plugin.results.performance import performance_table as performance_table
    from december_plugin.results.performance import session_performance as session_performance
    from december_plugin.results.performance import untested_sessions as untested_sessions
    from december_plugin.results.report import collect_report as collect_report
    from december_plugin.results.stability import stability_frame as stability_frame
    from december_plugin.results.stability import stability_table as stability_table

_NAMES = {
    "agreement": ["agreement_table", "best_configurations"],
    "alignment": ["alignments"],
    "assignments": ["load_assigned_model", "neuron_clusters", "stable_neurons"],
    "cluster_counts": ["choose_cluster_count", "cluster_count_table"],
    "cluster_functions": ["cluster_confusion", "cluster_pairs"],
    "cluster_trees": ["cluster_tree_of"],
    "configurations": ["configuration_table"],
    "confusion": ["confusion_frame"],
    "consensus": ["consensus_frame", "consensus_table"],
    "exciting_images": ["exciting_images", "exciting_neurons", "mei_confusion"],
    "export": ["export_tables"],
    "figure_frames": ["datasets_frame", "embeddings_frame", "measures_frame", "performance_frame", "restarts_frame"],
    "nulls": ["null_table"],
    "performance": ["performance_table", "session_performance", "untested_sessions"],
    "report": ["collect_report"],
    "stability": ["stability_frame", "stability_table"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
