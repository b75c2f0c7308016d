"""Modules of a study, which is a folder of scripts and not a package."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

STUDIES = Path(__file__).parents[2] / "studies"


@contextmanager
def imported(study: str, names: Sequence[str]) -> Iterator[dict[str, ModuleType]]:
    """Import modules of the folder ``studies/<study>`` by name; afterwards they are as little there as before."""
    before = {name: sys.modules.pop(name, None) for name in names}
    sys.path.insert(0, str(STUDIES / study))
    try:
        yield {name: __import__(name) for name in names}
    finally:
        sys.path.remove(str(STUDIES / study))
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
