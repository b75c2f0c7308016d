"""What partitions and models are worth: agreement, nulls, model selection, consensus, performance. No database."""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.evaluation.agreement import compare_partitions as compare_partitions
    from december_plugin.evaluation.confusion import confusion_matrix as confusion_matrix
    from december_plugin.evaluation.consensus import consensus_partition as consensus_partition
    from december_plugin.evaluation.matching import match_clusters as match_clusters

_NAMES = {
    "agreement": ["compare_partitions"],
    "confusion": ["confusion_matrix"],
    "consensus": ["consensus_partition"],
    "matching": ["match_clusters"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
