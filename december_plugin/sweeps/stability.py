"""The section ``stability`` of a sweep: how often the neurons of every model are resampled.

::

    stability:
      - {n_draws: 20}
      - {n_draws: 20, n_surrogates: 19, clusterings: [kmeans]}

Nothing is resampled for a sweep without this section, because every draw is another clustering. What it asks for is
computed for every assignment in the database, for one seed or many, or, with ``clusterings``, only for those of these
methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from december_plugin.evaluation.stability_settings import StabilitySettings
from december_plugin.sweeps.asked_entries import read_asked


def read_stability(content: Mapping[str, Any], wrong: Callable[..., None]) -> tuple[StabilitySettings, ...]:
    """Return what the section asks for; nothing without the section.

    Parameters
    ----------
    content
        The mapping of the sweep's file.
    wrong
        Called with the text of every mistake and the path to its place in the file; with ``at_key=True`` if a key
        is wrong.
    """
    return read_asked(content, "stability", StabilitySettings, wrong, example="{n_draws: 20}")
