"""Makes the pinned ecosystem importable, and changes nothing else.

PyPI's nnfabrik 0.2.1 and neuralpredictors 0.3.0 use ``from collections import Iterable`` (removed in Python 3.10),
neuralpredictors imports torchvision without declaring it, and GitPython, which nnfabrik imports, raises where no git
program is installed. While a module of these two packages is being imported, and only then, the old names exist in
``collections`` and a stand-in replaces a torchvision that cannot be imported. Nothing stays changed globally, so
versions that need no help (the packages' git versions) are left as they are.
"""

from __future__ import annotations

import collections
import collections.abc
import importlib
import os
import shutil
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from december_plugin.importing.hooks import ImportHook

PACKAGES = ("nnfabrik", "neuralpredictors")
USES_TORCHVISION = "neuralpredictors.layers.cores.conv2d"
USES_GIT = "nnfabrik.utility.dj_helpers"
OLD_COLLECTIONS_NAMES = ("Callable", "Iterable", "Iterator", "Mapping", "MutableMapping", "Sequence", "Set")


class _MissingTorchvision(types.ModuleType):
    """Replaces torchvision if it cannot be imported; any use of it raises an error."""

    def __init__(self, cause: BaseException):
        super().__init__("torchvision")
        # The text and not the exception, whose traceback would keep the frames of the failed import alive.
        self.__dict__["_cause"] = f"{type(cause).__name__}: {cause}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(
            f"torchvision.{name} is needed here, but torchvision cannot be imported ({self._cause}). Install the "
            "torchvision release that belongs to your torch release, or use a core that does not need it "
            "(e.g. Stacked2dCore)."
        )


class _OldCollectionsNames:
    """Puts the old names into ``collections`` while at least one thread is inside.

    Threads are counted and do not wait for each other: a lock held while a module runs would interact with the import
    system's own module locks and could deadlock two threads that import the same packages.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._added: list[str] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._added = [name for name in OLD_COLLECTIONS_NAMES if not hasattr(collections, name)]
                for name in self._added:
                    setattr(collections, name, getattr(collections.abc, name))
            self._inside += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for name in self._added:
                    vars(collections).pop(name, None)


_old_collections_names = _OldCollectionsNames()


@contextmanager
def _torchvision_or_stand_in() -> Iterator[None]:
    try:
        importlib.import_module("torchvision")
    # A torchvision built for another torch release raises whatever it stumbles over first: RuntimeError (an operator
    # does not exist), AttributeError (a half-initialised module), OSError (a missing symbol).
    except Exception as cause:
        before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"}
        sys.modules["torchvision"] = _MissingTorchvision(cause)
    else:
        yield
        return
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules.update(before)


@contextmanager
def _git_program_is_optional() -> Iterator[None]:
    if shutil.which("git") or "GIT_PYTHON_REFRESH" in os.environ:
        yield
        return
    os.environ["GIT_PYTHON_REFRESH"] = "quiet"
    try:
        yield
    finally:
        os.environ.pop("GIT_PYTHON_REFRESH", None)


class _MendingHook(ImportHook):
    def applies_to(self, name: str) -> bool:
        return name.split(".")[0] in PACKAGES

    @contextmanager
    def surroundings(self, name: str) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(_old_collections_names)
            if name == USES_TORCHVISION:
                stack.enter_context(_torchvision_or_stand_in())
            if name == USES_GIT:
                stack.enter_context(_git_program_is_optional())
            yield


def install() -> None:
    """Fix the imports of nnfabrik and neuralpredictors from now on; calling it again does nothing."""
    _MendingHook.install()
