"""Clustering of embeddings, in torch alone: the Student-t mixture, the clustering losses, post hoc methods."""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.clustering.losses import DECEMber as DECEMber
    from december_plugin.clustering.losses import VanillaDEC as VanillaDEC
    from december_plugin.clustering.losses import kl_divergence as kl_divergence
    from december_plugin.clustering.losses import target_distribution as target_distribution
    from december_plugin.clustering.post_hoc import cluster_readouts as cluster_readouts
    from december_plugin.clustering.result import ClusteringResult as ClusteringResult
    from december_plugin.clustering.student_t_mixture import StudentTMixture as StudentTMixture

_NAMES = {
    "losses": ["DECEMber", "VanillaDEC", "kl_divergence", "target_distribution"],
    "post_hoc": ["cluster_readouts"],
    "result": ["ClusteringResult"],
    "student_t_mixture": ["StudentTMixture"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
