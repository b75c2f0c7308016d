"""Runs chosen modules of other packages in special surroundings, whatever their finder and loader."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any


class ImportHook(importlib.abc.MetaPathFinder):
    """Wraps the loaders that later finders return for the modules of the hook."""

    @abstractmethod
    def applies_to(self, name: str) -> bool:
        """Return whether the module of this dotted name runs in other surroundings."""

    @abstractmethod
    def surroundings(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager that surrounds the first run of the module of this name."""

    @classmethod
    def install(cls) -> None:
        """Use the hook from now on; calling it again does nothing."""
        if not any(isinstance(finder, cls) for finder in sys.meta_path):
            sys.meta_path.insert(0, cls())

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's spec with its loader wrapped; None for modules to which the hook does not apply."""
        if not self.applies_to(fullname):
            return None
        # Editable installs and other import hooks have their own finders: ask all that come later.
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)
            spec = find(fullname, path, target) if find is not None else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _SurroundingLoader(spec.loader, self)
                return spec
        return None


class _SurroundingLoader(importlib.abc.Loader):
    """Runs a module with the loader that was found for it, inside the hook's surroundings."""

    def __init__(self, loader: Any, hook: ImportHook):
        self.loader, self.hook = loader, hook

    def __getattr__(self, name: str) -> Any:
        # get_code, get_source, get_resource_reader and the like, for runpy, inspect and importlib.resources.
        if name in ("loader", "hook"):
            raise AttributeError(name)
        return getattr(self.loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        # The module must look afterwards as if it had been loaded the ordinary way (inspect, pickle, reload).
        spec = module.__spec__
        if spec is not None:
            spec.loader = self.loader
        module.__loader__ = self.loader
        with self.hook.surroundings(module.__name__):
            self.loader.exec_module(module)
