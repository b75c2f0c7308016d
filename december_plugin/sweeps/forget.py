"""Finds trainings that were planned and never done, and removes them from the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datajoint.errors import AccessError, IntegrityError

from december_plugin.errors import SettingsError
from december_plugin.importing.datajoint_internals import job_hash
from december_plugin.pool.jobs.actions import JobActions
from december_plugin.pool.jobs.job import STATES, Job
from december_plugin.pool.jobs.lookup import HEX, JobLookup
from december_plugin.schemas.relocation import is_below, new_path, paths_in
from december_plugin.schemas.setup_lock import changing_the_plan
from december_plugin.schemas.training import combinations
from december_plugin.sweeps.entries import KINDS, entry_key
from december_plugin.sweeps.parse import Sweep
from december_plugin.sweeps.relocate import as_registered

Key = dict[str, Any]


@dataclass
class Forgettable:
    """A selection of planned trainings.

    Attributes
    ----------
    untrained
        Keys that were planned and never trained.
    trained
        Number of those that are trained: they are kept, with everything computed from them.
    states
        State of a job in ``~jobs`` (failed, running, ignored) to the number of those that are untrained and in it.
    """

    untrained: list[Key] = field(default_factory=list)
    trained: int = 0
    states: dict[str, int] = field(default_factory=dict)


@dataclass
class Forgotten:
    """What was removed.

    Attributes
    ----------
    n_trainings
        Number of planned trainings.
    entries
        Table of nnfabrik to the number of its entries that nothing else used.
    refused
        Others, and why they were kept.
    """

    n_trainings: int = 0
    entries: dict[str, int] = field(default_factory=dict)
    refused: list[tuple[Job, str]] = field(default_factory=list)


class Planned:
    """The trainings of the plan, and which of them are trained.

    Parameters
    ----------
    nnfabrik
        Module with nnfabrik's tables.
    tables
        What :func:`december_plugin.schemas.december_tables` returned for it.
    """

    def __init__(self, *, nnfabrik: Any, tables: Any):
        self.nnfabrik, self.tables = nnfabrik, tables
        self.table = tables.TrainedModel()
        self.names = tuple(tables.TrainingPlan().primary_key)
        self.keys = tables.TrainingPlan().fetch("KEY")
        self._trained = {self._values(key) for key in self.table.fetch("KEY")}

    def select(self, *, sweep: Sweep | None = None, paths: Sequence[str] = (), jobs: Sequence[str] = ()) -> Forgettable:
        """Return the planned trainings that meet every condition that is given.

        Parameters
        ----------
        sweep
            Those of this sweep.
        paths
            Those of datasets with a recording at or below one of these paths.
        jobs
            Those whose job's hash begins with one of these.

        Raises
        ------
        SettingsError
            If no condition is given, or a path or a job belongs to no planned training.
        """
        if sweep is None and not paths and not jobs:
            raise SettingsError("forget what? Name a sweep, --dataset PATH or --job JOB. Nothing was removed.")
        chosen = self.keys
        if sweep is not None:
            wanted = self._of_sweep(sweep)
            chosen = [key for key in chosen if self._values(key) in wanted]
        if paths:
            datasets = self._datasets_at(paths)
            chosen = [key for key in chosen if (key["dataset_fn"], key["dataset_hash"]) in datasets]
        if jobs:
            chosen = self._of_jobs(chosen, jobs)
        untrained = [key for key in chosen if self._values(key) not in self._trained]
        return Forgettable(untrained, len(chosen) - len(untrained), self._states(untrained))

    def forget(self, keys: Sequence[Key]) -> Forgotten:
        """Remove trainings from the plan, with their records as jobs; what a living worker holds is kept.

        Entries of datasets, models and trainers that are no longer used are removed, too, if the nnfabrik tables are
        december's own: in a lab's tables they may have other purposes.
        """
        jobs = [Job(type(self.table).__name__, job_hash(self.table, key), "planned", key) for key in keys]
        schema = self.tables.schema
        # A registration in between would plan nothing for entries that it just found.
        with changing_the_plan(schema.connection, schema.database):
            outcome = JobActions(JobLookup(self.tables)).forget(jobs, self.tables.TrainingPlan())
            gone = [job.key for job in outcome.changed if job.key is not None]
            result = Forgotten(len(gone), refused=outcome.refused)
            if self.nnfabrik.Trainer.database == schema.database:
                result.entries = self._remove_entries(gone)
        return result

    # --- selections ---------------------------------------------------------------------------------------------

    def _of_sweep(self, sweep: Sweep) -> set[tuple[Any, ...]]:
        sweep = as_registered(sweep, nnfabrik=self.nnfabrik, tables=self.tables)
        entries = {"dataset": sweep.datasets, "model": sweep.models, "trainer": sweep.trainers}
        keys = {f"{kind}s": [entry_key(kind, entry) for entry in entries[kind]] for kind in KINDS}
        return {self._values(key) for key in combinations(**keys, seeds=sweep.seeds)}

    def _datasets_at(self, paths: Sequence[str]) -> set[tuple[str, str]]:
        rows = self.nnfabrik.Dataset.fetch("dataset_fn", "dataset_hash", "dataset_config")
        moved = self.tables.Relocation().paths()
        found: set[tuple[str, str]] = set()
        for path in paths:
            wanted = {path.rstrip("/") or "/", str(Path(path).expanduser().absolute())}
            here = {
                (fn, each)
                for fn, each, config in zip(*rows, strict=True)
                if any(
                    is_below(at, old) for known in paths_in(config) for at in _places(known, moved) for old in wanted
                )
            }
            if not here:
                known = sorted({known for config in rows[2] for known in paths_in(config)})
                shown = "; ".join(known[:5]) + ("; ..." if len(known) > 5 else "")
                raise SettingsError(
                    f"no dataset has a recording at or below {path!r}. Recordings of the datasets: {shown or 'none'}."
                )
            found |= here
        return found

    def _of_jobs(self, keys: Iterable[Key], jobs: Sequence[str]) -> list[Key]:
        hashes = {job_hash(self.table, key): key for key in keys}
        chosen: dict[str, Key] = {}
        for job in jobs:
            beginning = job.lower()
            if not beginning or not set(beginning) <= HEX:
                raise SettingsError(f"{job!r} is not the name of a job: that is the beginning of its hash.")
            here = {each: key for each, key in hashes.items() if each.startswith(beginning)}
            if not here:
                raise SettingsError(
                    f"no planned training has a job that begins with {job!r}. Only trainings can be forgotten; "
                    "`december jobs show --table TrainedModel` lists them."
                )
            if len(here) > 1:
                raise SettingsError(
                    f"{len(here)} planned trainings have jobs that begin with {job!r}. Give more of its characters."
                )
            chosen |= here
        return list(chosen.values())

    def _states(self, keys: Iterable[Key]) -> dict[str, int]:
        schema = self.table.connection.schemas[self.table.database]
        rows = (schema.jobs & {"table_name": self.table.table_name}).fetch("key_hash", "status")
        statuses = dict(zip(*rows, strict=True))
        counted: dict[str, int] = {}
        for key in keys:
            status = statuses.get(job_hash(self.table, key))
            if status is not None:
                state = STATES.get(str(status), str(status))
                counted[state] = counted.get(state, 0) + 1
        return counted

    def _values(self, key: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(int(key[name]) if name == "seed" else key[name] for name in self.names)

    # --- entries ------------------------------------------------------------------------------------------------

    def _remove_entries(self, gone: Sequence[Key]) -> dict[str, int]:
        left = self.tables.TrainingPlan().fetch("KEY")
        removed = {}
        for kind in KINDS:
            names = (f"{kind}_fn", f"{kind}_hash")
            used = {tuple(key[name] for name in names) for key in left}
            unused = {tuple(key[name] for name in names) for key in gone} - used
            table = getattr(self.nnfabrik, kind.capitalize())
            count = sum(_delete(table & dict(zip(names, pair, strict=True))) for pair in sorted(unused))
            if count:
                removed[kind.capitalize()] = count
        return removed


def _places(path: str, moved: Mapping[str, str]) -> set[str]:
    """Return where a recording was, and where it is now."""
    return {path, new_path(path, moved, even_if_missing=True)}


def _delete(query: Any) -> bool:
    """Delete an entry unless a row of another table refers to it."""
    try:
        return bool(query.delete_quick(get_count=True))
    except (IntegrityError, AccessError):
        return False
