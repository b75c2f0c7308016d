"""The section ``surrogates`` of a sweep: the nulls that the agreement between seeds is compared with.

::

    surrogates:
      - {n_draws: 99}
      - {name: without sizes, n_draws: 99, method: gaussian, clusterings: [kmeans, december]}

Nothing is drawn for a sweep without this section. What it asks for is drawn for every configuration in the database
that has at least two seeds, or, with ``clusterings``, only for those of these methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from december_plugin.evaluation.surrogate_settings import SurrogateSettings
from december_plugin.sweeps.asked_entries import SAME, read_asked


def read_surrogates(content: Mapping[str, Any], wrong: Callable[..., None]) -> tuple[SurrogateSettings, ...]:
    """Return what the section asks for; nothing without the section.

    Parameters
    ----------
    content
        The mapping of the sweep's file.
    wrong
        Called with the text of every mistake and the path to its place in the file; with ``at_key=True`` if a key
        is wrong.
    """

    def again(entry: SurrogateSettings, before: list[SurrogateSettings]) -> str:
        if any(replace(other, name=None) == replace(entry, name=None) for other in before):
            return SAME
        is_named = entry.name is not None and any(entry.name == other.name for other in before)
        return f"has the name {entry.name!r} again" if is_named else ""

    return read_asked(content, "surrogates", SurrogateSettings, wrong, again=again, example="{n_draws: 99}")
