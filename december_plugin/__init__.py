"""Functional cell types in digital twins of the visual system, inside nnfabrik and DataJoint.

Importing this package opens no database connection, and imports no torch before one of its names is used. It makes
PyPI's nnfabrik and neuralpredictors importable on current Python (see :mod:`december_plugin.compat`).
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path as _Path
from typing import TYPE_CHECKING

import lazy_loader as _lazy

from december_plugin.compat import install as _install

_install()

# In a source tree that Python finds before an installed package, the tables lie beside this folder.
_root = _Path(__file__).resolve().parents[1]
if (_root / "setup.py").exists() and (_root / "schemas" / "__init__.py").exists():
    __path__.append(str(_root))

if TYPE_CHECKING:
    from december_plugin.agreement import compare_partitions as compare_partitions
    from december_plugin.baselines import cluster_readouts as cluster_readouts
    from december_plugin.clustering import DECEMber as DECEMber
    from december_plugin.clustering import VanillaDEC as VanillaDEC
    from december_plugin.clustering import kl_divergence as kl_divergence
    from december_plugin.clustering import target_distribution as target_distribution
    from december_plugin.confusion import confusion_matrix as confusion_matrix
    from december_plugin.consensus import consensus_partition as consensus_partition
    from december_plugin.embeddings import readout_embeddings as readout_embeddings
    from december_plugin.lab import open_lab as open_lab
    from december_plugin.matching import match_clusters as match_clusters
    from december_plugin.mixture import StudentTMixture as StudentTMixture
    from december_plugin.simulate import write_recording as write_recording

_NAMES = {
    "agreement": ["compare_partitions"],
    "baselines": ["cluster_readouts"],
    "clustering": ["DECEMber", "VanillaDEC", "kl_divergence", "target_distribution"],
    "confusion": ["confusion_matrix"],
    "consensus": ["consensus_partition"],
    "embeddings": ["readout_embeddings"],
    "lab": ["open_lab"],
    "matching": ["match_clusters"],
    "mixture": ["StudentTMixture"],
    "simulate": ["write_recording"],
}
_MODULES = ["agreement", "datasets", "embeddings", "models", "plots", "schemas", "simulate", "sklearn", "trainers"]
__getattr__, __dir__, __all__ = _lazy.attach(__name__, _MODULES, _NAMES)

try:
    __version__ = version("december-plugin")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

del PackageNotFoundError, version
