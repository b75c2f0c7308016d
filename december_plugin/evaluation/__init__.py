"""Evaluation of partitions and models: agreement, nulls, model selection, consensus, performance. No database."""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.evaluation.agreement import agreement_across_seeds as agreement_across_seeds
    from december_plugin.evaluation.agreement import agreement_with_types as agreement_with_types
    from december_plugin.evaluation.agreement import compare_partitions as compare_partitions
    from december_plugin.evaluation.cluster_functions import cluster_blocks as cluster_blocks
    from december_plugin.evaluation.cluster_functions import cluster_means as cluster_means
    from december_plugin.evaluation.cluster_functions import covariance_confusion as covariance_confusion
    from december_plugin.evaluation.confusion import confusion_matrix as confusion_matrix
    from december_plugin.evaluation.consensus import consensus_partition as consensus_partition
    from december_plugin.evaluation.matching import match_clusters as match_clusters
    from december_plugin.evaluation.methods import Method as Method
    from december_plugin.evaluation.model_selection import (
        bayesian_information_criterion as bayesian_information_criterion,
    )
    from december_plugin.evaluation.model_selection import held_out_log_likelihood as held_out_log_likelihood
    from december_plugin.evaluation.model_selection import smallest_within_error as smallest_within_error
    from december_plugin.evaluation.null import null_agreement as null_agreement
    from december_plugin.evaluation.similarity import compare_embeddings as compare_embeddings
    from december_plugin.evaluation.stability import cluster_stability as cluster_stability

_NAMES = {
    "agreement": ["agreement_across_seeds", "agreement_with_types", "compare_partitions"],
    "cluster_functions": ["cluster_blocks", "cluster_means", "covariance_confusion"],
    "confusion": ["confusion_matrix"],
    "consensus": ["consensus_partition"],
    "matching": ["match_clusters"],
    "methods": ["Method"],
    "model_selection": ["bayesian_information_criterion", "held_out_log_likelihood", "smallest_within_error"],
    "null": ["null_agreement"],
    "similarity": ["compare_embeddings"],
    "stability": ["cluster_stability"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
