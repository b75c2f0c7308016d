"""Makes the pinned ecosystem importable, and changes nothing else.

PyPI's nnfabrik 0.2.1 and neuralpredictors 0.3.0 say ``from collections import Iterable`` (gone since Python 3.10),
neuralpredictors imports torchvision without declaring it, and GitPython, which nnfabrik imports, raises where no git
program is installed. While a module of these two packages is being imported, and only then, the old names exist in
``collections`` and a stand-in takes the place of a missing torchvision. Nothing global stays changed, so versions that
import by themselves (the packages' git versions) are left as they are.
"""

from __future__ import annotations

import collections
import collections.abc
import importlib
import importlib.abc
import importlib.machinery
import os
import shutil
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

PACKAGES = ("nnfabrik", "neuralpredictors")
USES_TORCHVISION = "neuralpredictors.layers.cores.conv2d"
USES_GIT = "nnfabrik.utility.dj_helpers"
OLD_COLLECTIONS_NAMES = ("Callable", "Iterable", "Iterator", "Mapping", "MutableMapping", "Sequence", "Set")

_lock = threading.RLock()


class _MissingTorchvision(types.ModuleType):
    """Stands for torchvision where it cannot be imported; any use of it says so."""

    def __init__(self, cause: BaseException):
        super().__init__("torchvision")
        self.__dict__["_cause"] = cause

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(
            f"torchvision.{name} is needed here, but torchvision cannot be imported ({self._cause}). Install the "
            "torchvision release that belongs to your torch release, or use a core that does not need it "
            "(e.g. Stacked2dCore)."
        )


@contextmanager
def _old_collections_names() -> Iterator[None]:
    added = [name for name in OLD_COLLECTIONS_NAMES if not hasattr(collections, name)]
    for name in added:
        setattr(collections, name, getattr(collections.abc, name))
    try:
        yield
    finally:
        for name in added:
            delattr(collections, name)


@contextmanager
def _torchvision_or_stand_in() -> Iterator[None]:
    try:
        importlib.import_module("torchvision")
    # A torchvision built for another torch release raises RuntimeError rather than ImportError.
    except (ImportError, RuntimeError, OSError) as cause:
        before = {name for name in sys.modules if name.split(".")[0] == "torchvision"}
        sys.modules["torchvision"] = _MissingTorchvision(cause)
        try:
            yield
        finally:
            for name in [n for n in sys.modules if n.split(".")[0] == "torchvision" and n not in before]:
                del sys.modules[name]
    else:
        yield


@contextmanager
def _git_program_is_optional() -> Iterator[None]:
    if shutil.which("git") or "GIT_PYTHON_REFRESH" in os.environ:
        yield
        return
    os.environ["GIT_PYTHON_REFRESH"] = "quiet"
    try:
        yield
    finally:
        del os.environ["GIT_PYTHON_REFRESH"]


class _MendingLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader):
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        # The module must look afterwards as if it had been loaded the ordinary way (inspect, pickle, reload).
        spec = module.__spec__
        if spec is not None:
            spec.loader = self.loader
        module.__loader__ = self.loader
        with _lock, ExitStack() as stack:
            stack.enter_context(_old_collections_names())
            if module.__name__ == USES_TORCHVISION:
                stack.enter_context(_torchvision_or_stand_in())
            if module.__name__ == USES_GIT:
                stack.enter_context(_git_program_is_optional())
            self.loader.exec_module(module)


class _MendingFinder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.split(".")[0] not in PACKAGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _MendingLoader(spec.loader)
        return spec


def install() -> None:
    """Mend the imports of nnfabrik and neuralpredictors from now on; calling it again does nothing."""
    if not any(isinstance(finder, _MendingFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MendingFinder())
