"""The folder in which december keeps its own files: the embedded database, the default store, logs and caches."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def december_home(home: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder in which december keeps its database, store and caches; nothing is created.

    Parameters
    ----------
    home
        The folder; by default the environment variable ``DECEMBER_HOME``, else ``december`` in the user's data folder.
    """
    chosen = home or os.environ.get("DECEMBER_HOME") or platformdirs.user_data_dir("december", appauthor=False)
    return Path(chosen).expanduser().resolve()
