"""The section ``cluster_confusion`` of a sweep: comparisons of clusters by what their neurons compute.

::

    cluster_confusion:
      - {threshold: 0.5}
      - {responses: images, clusterings: [gmm]}

Nothing is compared for a sweep without this section. What it asks for is computed for every assignment in the database,
or, with ``clusterings``, only for those of these methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from december_plugin.evaluation.cluster_functions_settings import ClusterFunctionsSettings
from december_plugin.sweeps.asked_entries import read_asked


def read_cluster_confusion(
    content: Mapping[str, Any], wrong: Callable[..., None]
) -> tuple[ClusterFunctionsSettings, ...]:
    """Return what the section asks for; nothing without the section.

    Parameters
    ----------
    content
        The mapping of the sweep's file.
    wrong
        Called with the text of every mistake and the path to its place in the file; with ``at_key=True`` if a key
        is wrong.
    """
    return read_asked(content, "cluster_confusion", ClusterFunctionsSettings, wrong, example="{threshold: 0.5}")
