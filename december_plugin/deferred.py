"""Lets a command start without the packages that it may never use.

DataJoint imports pandas, Matplotlib and a client of object stores, and nnfabrik imports torch, when they are imported:
seconds, of which a command that shows a table needs nothing. After :func:`install`, modules of these two packages get a
stand-in for each of :data:`DEFERRED`, which imports the package when an attribute of it is asked for. Nobody else sees
the stand-ins: they are in ``sys.modules`` only while such a module runs for the first time, and a package that was
imported before is taken as it is.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any

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
    """Stands for a module, and imports it when an attribute is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by the import system
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:  # `from torch import nn`
            return _ImportedWhenUsed(f"{self.__name__}.{name}")
        return getattr(importlib.import_module(self.__name__), name)


class _DeferringLoader(importlib.abc.Loader):
    """Runs a module with the loader that was found for it, beside the stand-in of a package."""

    def __init__(self, loader: Any, package: str):
        self.loader, self.package = loader, package

    def __getattr__(self, name: str) -> Any:
        if name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        stands_in = self.package not in sys.modules
        if stands_in:
            sys.modules[self.package] = _ImportedWhenUsed(self.package)
        try:
            self.loader.exec_module(module)
        finally:
            if stands_in:
                del sys.modules[self.package]


class _DeferringFinder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in DEFERRED:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)
            spec = find(fullname, path, target) if find is not None else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _DeferringLoader(spec.loader, DEFERRED[fullname])
                return spec
        return None


def install() -> None:
    """Defer these packages in this process from now on; calling it again does nothing."""
    if not any(isinstance(finder, _DeferringFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _DeferringFinder())
