"""How much room files take."""

from __future__ import annotations

import os
from pathlib import Path


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below a folder, without following links; 0 for one that does not exist."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(place, name).lstat().st_size
            except OSError:  # removed meanwhile
                continue
    return total
