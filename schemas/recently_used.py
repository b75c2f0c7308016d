"""Keeps recently used values in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class RecentlyUsed(Generic[T]):
    """The most recently used entries, up to a total size, and at least one.

    Parameters
    ----------
    size
        The total size of all entries.
    size_of
        Returns the size of one; without it every entry counts as 1.
    """

    def __init__(self, size: int, size_of: Callable[[T], int] = lambda entry: 1):
        self.size, self._size_of = size, size_of
        self._entries: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return the entry of this name; make it if it is missing."""
        if name not in self._entries:
            self._entries[name] = make()
            while len(self) > 1 and sum(map(self._size_of, self._entries.values())) > self.size:
                self._entries.popitem(last=False)
        self._entries.move_to_end(name)
        return self._entries[name]

    def __len__(self) -> int:
        return len(self._entries)
