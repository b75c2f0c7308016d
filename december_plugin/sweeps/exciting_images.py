"""The section ``exciting_images`` of a sweep: the neurons whose maximally exciting images are computed, and how.

::

    exciting_images:
      - {per_cluster: 16}
      - {models: seeds, clusterings: [gmm], n_starts: 1}

Nothing is computed for a sweep without this section. What it asks for is computed for every assignment in the database
whose model is tested, or, with ``clusterings``, only for those of these methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from december_plugin.insilico.exciting_images_settings import ExcitingImagesSettings
from december_plugin.sweeps.asked_entries import read_asked


def read_exciting_images(content: Mapping[str, Any], wrong: Callable[..., None]) -> tuple[ExcitingImagesSettings, ...]:
    """Return what the section asks for; nothing without the section.

    Parameters
    ----------
    content
        The mapping of the sweep's file.
    wrong
        Called with the text of every mistake and the path to its place in the file; with ``at_key=True`` if a key
        is wrong.
    """
    return read_asked(content, "exciting_images", ExcitingImagesSettings, wrong, example="{per_cluster: 16}")
