"""Recordings that stay in memory from one job of a process to the next, as long as their files do not change.

A sweep trains and tests dozens of models on the same recordings, and reading these takes longer than training a small
model. A worker opens a :class:`DataCache` for its jobs (:func:`kept_between_jobs`); without one, as in a script or a
notebook, every call reads the files.

Only datasets are kept, and they are never changed. Loaders and samplers are made for every job, so that no random
state passes from one to the next, and a job has the same bytes as if it had read the recordings itself.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from december_plugin.datasets.common.arguments import absolute

logger = logging.getLogger(__name__)

SHARE = 1 / 8  # of the memory that is free when the cache is opened
SHARE_OF_ALL = 1 / 2  # of it, for all workers that start at the same time
SETTLED_SECONDS = 2.0  # a file read less than this after it was written may still be changing
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)

Data = TypeVar("Data")


@dataclass(frozen=True)
class Stamp:
    """What is known about files without reading them: paths, sizes, times and places on the disk.

    Attributes
    ----------
    files
        Path, size, times of the last change of content and of any change (ns), number of the file.
    n_bytes
        All sizes together.
    newest
        The latest change of any of them (s since 1970).
    """

    files: tuple[tuple[str, int, int, int, int], ...]
    n_bytes: int
    newest: float


def stamp_of(places: Sequence[Path]) -> Stamp | None:
    """Return the stamp of files, and of everything below folders; None if one of them cannot be accessed."""
    try:
        files = sorted(file for place in places for file in _files(place))
    except OSError:
        return None
    newest = max((max(changed, touched) for _, _, changed, touched, _ in files), default=0) / 1e9
    return Stamp(tuple(files), sum(size for _, size, *_ in files), newest)


def _files(place: str | os.PathLike[str]) -> Iterator[tuple[str, int, int, int, int]]:
    try:
        entries = os.scandir(place)
    except NotADirectoryError:
        yield _signature(os.fspath(place), os.stat(place))
        return
    with entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path)
            else:
                yield _signature(entry.path, entry.stat())


def _signature(path: str, found: os.stat_result) -> tuple[str, int, int, int, int]:
    return path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


@dataclass
class _Kept:
    data: Any
    stamp: Stamp
    n_bytes: int
    versions: list[tuple[torch.Tensor, int]]

    def is_untouched(self) -> bool:
        """Whether no tensor has been written into since, as a trainer of another package might do."""
        return all(tensor._version == version for tensor, version in self.versions)  # noqa: SLF001


class DataCache:
    """Datasets in memory; the least recently used are removed first.

    Parameters
    ----------
    limit
        Bytes that may be kept; 0 keeps nothing.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._kept: dict[Hashable, _Kept] = {}

    @property
    def n_bytes(self) -> int:
        """Bytes that are kept."""
        return sum(kept.n_bytes for kept in self._kept.values())

    def get(self, key: Hashable, places: Sequence[Path], load: Callable[[], Data]) -> Data:
        """Return what ``load`` returns, or returned earlier for the same key and the same files.

        Parameters
        ----------
        key
            Everything that determines what is loaded, apart from the content of the files.
        places
            Files, and folders with everything below them, that are read.
        load
            Reads them. What it returns must never be changed.
        """
        stamp = stamp_of(places) if self.limit else None
        if stamp is None:  # reading the files explains what is wrong with them
            return load()
        kept = self._kept.pop(key, None)
        if kept is not None and kept.stamp == stamp and kept.is_untouched():
            self._kept[key] = kept  # the most recently used is the last
            return kept.data
        del kept
        # Files are about as large as what is made of them; better too much space than too little memory.
        self._make_room(stamp.n_bytes)
        data = load()
        self._keep(key, places, stamp, data)
        return data

    def _keep(self, key: Hashable, places: Sequence[Path], stamp: Stamp, data: Any) -> None:
        arrays = list(_arrays(data, set()))
        n_bytes = sum(_n_bytes(array) for array in arrays)
        may_change_unseen = time.time() - stamp.newest < SETTLED_SECONDS
        if n_bytes > self.limit or may_change_unseen or stamp_of(places) != stamp:
            return
        self._make_room(n_bytes)
        tensors = [array for array in arrays if isinstance(array, torch.Tensor)]
        self._kept[key] = _Kept(data, stamp, n_bytes, [(tensor, tensor._version) for tensor in tensors])  # noqa: SLF001

    def _make_room(self, n_bytes: int) -> None:
        """Remove the least recently used until this many bytes fit, within the limit and on the machine."""
        if self._kept and (free := free_memory()) is not None and free < 2 * n_bytes:
            self._kept.clear()
        while self._kept and self.n_bytes + n_bytes > self.limit:
            del self._kept[next(iter(self._kept))]


def default_limit(n_workers: int = 1) -> int:
    """Return how many bytes a worker keeps by default: an eighth of the free memory; none if that is unknown.

    Parameters
    ----------
    n_workers
        Workers that start on this machine at the same time, and see the same free memory: together they keep at most
        half of it.
    """
    return int(min(SHARE, SHARE_OF_ALL / n_workers) * (free_memory() or 0))


def free_memory() -> int | None:
    """Return how many bytes the processes of this machine, or container, can still take; None if unknown."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    for limit, used in _CGROUPS:
        with suppress(OSError, ValueError):  # no such file; "max"
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(0, min(found)) if found else None


_current: ContextVar[DataCache | None] = ContextVar("data_cache", default=None)


def current_cache() -> DataCache:
    """Return the cache of this thread's jobs; one that keeps nothing outside of :func:`kept_between_jobs`."""
    return _current.get() or DataCache(0)


def kept_or_loaded(function: str, places: Sequence[Path], settings: Sequence[Any], load: Callable[[], Data]) -> Data:
    """Return the datasets of a dataset function from :func:`current_cache`.

    Parameters
    ----------
    function
        Name of the function.
    places, load
        As for :meth:`DataCache.get`.
    settings
        Everything else that determines what is loaded, compared by its ``repr``.
    """
    places = absolute(places)
    return current_cache().get((function, *map(str, places), repr(settings)), places, load)


@contextmanager
def kept_between_jobs(cache: DataCache) -> Iterator[None]:
    """Let dataset functions take recordings from this cache, within the block."""
    token = _current.set(cache)
    try:
        yield
    finally:
        _current.reset(token)


def _arrays(value: Any, seen: set[int]) -> Iterator[torch.Tensor | np.ndarray]:
    """Yield the tensors and arrays that can be reached from a value, each once."""
    if id(value) in seen or isinstance(value, (str, bytes, int, float, type(None), type)):
        return
    seen.add(id(value))
    if isinstance(value, (torch.Tensor, np.ndarray)):
        yield value
        return
    if isinstance(value, Mapping):
        inside: Any = value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        inside = value
    else:
        inside = getattr(value, "__dict__", {}).values()
    for each in list(inside):
        yield from _arrays(each, seen)


def _n_bytes(array: torch.Tensor | np.ndarray) -> int:
    if isinstance(array, np.memmap):
        return 0
    return int(array.untyped_storage().nbytes() if isinstance(array, torch.Tensor) else array.nbytes)
