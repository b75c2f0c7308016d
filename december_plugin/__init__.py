"""Functional cell types in digital twins of the visual system, with nnfabrik and DataJoint.

Importing this package opens no database connection, and imports no torch before one of its names is used. It makes
PyPI's nnfabrik and neuralpredictors importable on current Python (see :mod:`december_plugin.importing.shims`).
"""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

from december_plugin.importing.shims import install as _install
from december_plugin.importing.versions import installed_version as _installed_version

_install()

if TYPE_CHECKING:
    from december_plugin.clustering.losses import DECEMber as DECEMber
    from december_plugin.clustering.losses import VanillaDEC as VanillaDEC
    from december_plugin.clustering.losses import kl_divergence as kl_divergence
    from december_plugin.clustering.losses import target_distribution as target_distribution
    from december_plugin.clustering.post_hoc import cluster_readouts as cluster_readouts
    from december_plugin.clustering.student_t_mixture import StudentTMixture as StudentTMixture
    from december_plugin.embeddings.readout_vectors import readout_embeddings as readout_embeddings
    from december_plugin.evaluation.agreement import compare_partitions as compare_partitions
    from december_plugin.evaluation.confusion import confusion_matrix as confusion_matrix
    from december_plugin.evaluation.consensus import consensus_partition as consensus_partition
    from december_plugin.evaluation.matching import match_clusters as match_clusters
    from december_plugin.intake.write import import_models as import_models
    from december_plugin.schemas.lab import open_lab as open_lab
    from december_plugin.simulate import write_recording as write_recording

_NAMES = {
    "clustering.losses": ["DECEMber", "VanillaDEC", "kl_divergence", "target_distribution"],
    "clustering.post_hoc": ["cluster_readouts"],
    "clustering.student_t_mixture": ["StudentTMixture"],
    "embeddings.readout_vectors": ["readout_embeddings"],
    "evaluation.agreement": ["compare_partitions"],
    "evaluation.confusion": ["confusion_matrix"],
    "evaluation.consensus": ["consensus_partition"],
    "evaluation.matching": ["match_clusters"],
    "intake.write": ["import_models"],
    "schemas.lab": ["open_lab"],
    "simulate": ["write_recording"],
}
_MODULES = ["agreement", "datasets", "embeddings", "models", "plots", "schemas", "simulate", "sklearn", "trainers"]
__getattr__, __dir__, __all__ = _lazy.attach(__name__, _MODULES, _NAMES)

__version__ = _installed_version("december-plugin")
