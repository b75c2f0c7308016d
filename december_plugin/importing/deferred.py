"""Lets commands start without packages that they may never use.

When they are imported, DataJoint imports pandas, Matplotlib and a client of object stores, and nnfabrik imports torch.
This takes seconds, and a command that shows a table needs none of them. After :func:`install`, modules of these two
packages get a stand-in for each of :data:`DEFERRED`, which imports the package when one of its attributes is used. No
other module sees the stand-ins: they are in ``sys.modules`` only while such a module runs for the first time, and a
package that was imported before is used as it is.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from december_plugin.importing.hooks import ImportHook

# By module, the packages that it uses in functions only.
DEFERRED = {
    "datajoint.autopopulate": "deepdiff",
    "datajoint.condition": "pandas",
    "datajoint.diagram": "matplotlib",
    "datajoint.fetch": "pandas",
    "datajoint.s3": "minio",
    "datajoint.table": "pandas",
    "nnfabrik.templates": "torch",
    "nnfabrik.utility": "torch",
}


class _ImportedWhenUsed(types.ModuleType):
    """Replaces a module, and imports it when one of its attributes is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by the import system
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:  # `from torch import nn`
            return _ImportedWhenUsed(f"{self.__name__}.{name}")
        return getattr(importlib.import_module(self.__name__), name)


class _DeferringHook(ImportHook):
    def applies_to(self, name: str) -> bool:
        return name in DEFERRED

    @contextmanager
    def surroundings(self, name: str) -> Iterator[None]:
        package = DEFERRED[name]
        stands_in = package not in sys.modules
        if stands_in:
            sys.modules[package] = _ImportedWhenUsed(package)
        try:
            yield
        finally:
            if stands_in:
                del sys.modules[package]


def install() -> None:
    """Defer these packages in this process from now on; calling it again does nothing."""
    _DeferringHook.install()
