"""Which job comes next: from the plan, in the order of the tables, at a cost that does not grow with what is stored.

Trainings that differ only in their trainer read the same recordings and may share a pretraining. A worker takes them up
one after the other, and leaves another worker's family to that worker as long as there are other jobs. So it finds the
recordings in memory, and does not wait for a pretraining that another worker computes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from december_plugin.errors import SettingsError, did_you_mean
from december_plugin.importing.datajoint_internals import job_hash
from december_plugin.pool.jobs.records import PoolRecords

GPU_TABLES = ("TrainedModel", "TestPerformance", "FeatureCovariance", "Mei", "MeiConfusion")
OF_RECORDINGS = ("dataset_fn", "dataset_hash")
OF_FAMILY = (*OF_RECORDINGS, "model_fn", "model_hash", "seed")  # what trainings that share a pretraining have in common
REFETCH_FAMILY_SECONDS = 1.0  # look up again who does what before beginning another family, after this time
BATCH = 200  # keys that are fetched at once
REFETCH_SECONDS = 3600.0  # after this time, new ones are fetched although some are left
EMPTY_SECONDS = 5.0  # a table in which nothing was found is asked again after this time
MAX_TAKEN = 3  # keys in a row that others have taken, after which new ones are fetched


def choose_tables(tables: Any, *, only: Sequence[str] = (), skip: Sequence[str] = ()) -> list[Any]:
    """Return the computed tables that a worker fills, each after those it depends on.

    Parameters
    ----------
    tables
        What :func:`december_plugin.schemas.december_tables` returns.
    only, skip
        Names of tables; ``gpu`` and ``cpu`` stand for those that use a GPU and those that do not.

    Raises
    ------
    SettingsError
        For a name that does not exist, or if nothing is left.
    """
    names = [table.__name__ for table in tables.computed]
    wanted, unwanted = _expanded(only, names), _expanded(skip, names)
    chosen = [
        table for table in tables.computed if (not only or table.__name__ in wanted) and table.__name__ not in unwanted
    ]
    if not chosen:
        raise SettingsError(
            f"--only {','.join(only)} and --skip {','.join(skip)} leave no table to fill. Tables: {', '.join(names)}."
        )
    return chosen


def _expanded(chosen: Iterable[str], names: Sequence[str]) -> set[str]:
    groups = {"gpu": set(GPU_TABLES), "cpu": set(names) - set(GPU_TABLES)}
    found: set[str] = set()
    for name in chosen:
        if name not in names and name not in groups:
            raise SettingsError(f"there is no table {name!r}. {did_you_mean(name, [*names, *groups])}")
        found |= groups.get(name, {name})
    return found


class TableQueue:
    """Keys of one table that may be free, fetched in batches and in random order, with families together.

    Parameters
    ----------
    table
        An instance of a computed table.
    """

    def __init__(self, table: Any):
        self.table = table
        self._has_families = type(table).__name__ in GPU_TABLES
        self._keys: list[dict[str, Any]] = []
        self._last: dict[str, Any] | None = None
        self._fetched = float("-inf")
        self._taken = 0

    def next(self) -> dict[str, Any] | None:
        """Return a key that was free a moment ago, or None if there is none."""
        if not self._keys or self._taken >= MAX_TAKEN or self.age > REFETCH_SECONDS or self._leaves_its_family():
            self._fetch()
        if not self._keys:
            return None
        self._last = self._keys.pop()
        return self._last

    def more(self, number: int) -> list[dict[str, Any]]:
        """Return at most so many further keys of those that were fetched with the last one."""
        return [self._keys.pop() for _ in range(min(number, len(self._keys)))]

    @property
    def age(self) -> float:
        """Time since the keys were fetched (s)."""
        return time.monotonic() - self._fetched

    def was_taken(self) -> None:
        """Note that another worker had already taken the last key."""
        self._taken += 1

    def was_free(self) -> None:
        """Note that the last key was free."""
        self._taken = 0

    def _leaves_its_family(self) -> bool:
        if not self._has_families or self._last is None or self.age < REFETCH_FAMILY_SECONDS:
            return False
        return _part(self._keys[-1], OF_FAMILY) != _part(self._last, OF_FAMILY)

    def _fetch(self) -> None:
        states = PoolRecords.queued_states(self.table)
        missing = self.table.key_source.proj() - self.table.proj()
        keys = missing.fetch("KEY", limit=BATCH + len(states))
        by_state: dict[str | None, list[dict[str, Any]]] = {}
        for key in keys:
            by_state.setdefault(states.get(job_hash(self.table, key)), []).append(key)
        self._keys = by_state.get(None, [])
        random.SystemRandom().shuffle(self._keys)  # not the generator that trainings seed
        if self._has_families:
            self._keys = self._with_families_together(self._keys, in_work=by_state.get("reserved", []))
        self._fetched, self._taken = time.monotonic(), 0

    def _with_families_together(
        self, keys: list[dict[str, Any]], *, in_work: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return keys in the order from the last to the first that is to be taken up."""
        taken = {_part(key, OF_FAMILY) for key in in_work}
        last = self._last or {}
        places = {family: number for number, family in enumerate({_part(key, OF_FAMILY): None for key in keys})}

        def order(key: dict[str, Any]) -> tuple[bool, bool, bool, int]:
            family = _part(key, OF_FAMILY)
            is_own = family == _part(last, OF_FAMILY)
            has_other_recordings = _part(key, OF_RECORDINGS) != _part(last, OF_RECORDINGS)
            return family in taken and not is_own, not is_own, has_other_recordings, places[family]

        return sorted(keys, key=order, reverse=True)


def _part(key: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(key.get(name)) for name in names)


class JobQueue:
    """Jobs of several tables, in the order of the tables.

    A table in which nothing was found is not asked again for some seconds, unless nothing else is left.

    Parameters
    ----------
    tables
        Classes of computed tables.
    """

    def __init__(self, tables: Sequence[Any]):
        self.tables = [TableQueue(table()) for table in tables]
        self._empty: dict[int, float] = {}

    def next(self) -> tuple[TableQueue, dict[str, Any]] | None:
        """Return a key that was free a moment ago, with the queue of its table; None if nothing is left."""
        now = time.monotonic()
        numbers = range(len(self.tables))
        found = self._first(n for n in numbers if now - self._empty.get(n, -EMPTY_SECONDS) >= EMPTY_SECONDS)
        # A job that was just done may have made others possible, even in tables that were just found empty.
        return found or self._first(numbers)

    def _first(self, numbers: Iterable[int]) -> tuple[TableQueue, dict[str, Any]] | None:
        for number in numbers:
            key = self.tables[number].next()
            if key is not None:
                self._empty.pop(number, None)
                return self.tables[number], key
            self._empty[number] = time.monotonic()
        return None
