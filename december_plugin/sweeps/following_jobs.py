"""The jobs that a sweep brings after its trainings, and how long they take, read without writing anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import datajoint as dj

from december_plugin.clustering.methods import DECEMBER, canonical_settings, embedding_space
from december_plugin.importing.datajoint_internals import job_hash
from december_plugin.schemas.clusters import clustering_hash
from december_plugin.schemas.nulls import surrogate_row
from december_plugin.schemas.stability import resampling_row
from december_plugin.sweeps.parse import Sweep

CLUSTERINGS, EVALUATIONS, NULL = "clusterings", "evaluations", "the null"
# Without LabelAgreement and ConfigurationAgreement: which models will share sessions with known types, or neurons and a
# number of clusters with others, only their labels say.
GROUPS = {
    CLUSTERINGS: ("ClusterAssignment",),
    EVALUATIONS: (
        *("TrainingSummary", "TestPerformance", "FeatureCovariance", "SeedAgreement", "Consensus", "ClusterQuality"),
        "WithinModelStability",
    ),
    NULL: ("SurrogateAgreement",),
}
PER_TRAINING = ("TrainingSummary", "TestPerformance")
PER_SET_OF_SEEDS = ("Consensus", "SurrogateAgreement")
Key = Mapping[str, Any]


@dataclass(frozen=True)
class Following:
    """Jobs of one kind that a sweep brings after its trainings.

    Attributes
    ----------
    name
        One of :data:`GROUPS`.
    n_left
        Jobs that are not done.
    n_unknown
        Those of tables of which no job has finished yet.
    seconds
        Time that the others take one worker (s).
    """

    name: str
    n_left: int
    n_unknown: int
    seconds: float


def following_jobs(
    sweep: Sweep, *, datasets: Sequence[Key], models: Sequence[Key], trainers: Sequence[Key], tables: Any
) -> list[Following]:
    """Count the jobs that follow the trainings of a sweep, and estimate their time by jobs that have finished.

    Parameters
    ----------
    sweep
        Checked by :func:`december_plugin.sweeps.parse.parse_sweep`.
    datasets, models, trainers
        nnfabrik's keys of its entries.
    tables
        What :func:`december_plugin.schemas.december_tables` returned.
    """
    jobs = _Jobs(sweep, _distinct(datasets), _distinct(models), _distinct(trainers), tables)
    found = []
    for name, members in GROUPS.items():
        left = {member: jobs.left(member) for member in members}
        known = {member: jobs.seconds(member, number) for member, number in left.items() if number}
        unknown = sum(left[member] for member, seconds in known.items() if seconds is None)
        found.append(Following(name, sum(left.values()), unknown, sum(filter(None, known.values()))))
    return found


class _Jobs:
    def __init__(self, sweep: Sweep, datasets: list[Key], models: list[Key], trainers: list[Key], tables: Any):
        self.tables = tables
        self.seeds = sorted(set(sweep.seeds))
        self.trained = [
            {**dataset, **model, **trainer} for dataset in datasets for model in models for trainer in trainers
        ]
        rows = _rows(tables.Clustering, "method", "space")
        clusterings = {str(row["clustering_hash"]): str(row["method"]) for row in rows}
        spaces = {str(row["space"]) for row in rows}
        for entry in sweep.clusterings:
            settings = canonical_settings(entry.method, entry.settings)
            clusterings[clustering_hash(entry.method, entry.n_clusters or 0, settings)] = entry.method
            spaces.add(embedding_space(settings).space)
        fitted_to = [key for key in self.trained if not tables.ClusterAssignment.is_december(key["trainer_fn"])]
        self.with_covariance = fitted_to if "functional" in spaces else []
        self.configurations = [
            {**key, "clustering_hash": name}
            for key in self.trained
            for name, method in clusterings.items()
            if (method == DECEMBER) == tables.ClusterAssignment.is_december(key["trainer_fn"])
        ]
        asked = [*tables.Surrogate.fetch(as_dict=True), *(surrogate_row(**asdict(each)) for each in sweep.surrogates)]
        self.draws = {str(row["surrogate_hash"]): int(row["n_draws"]) for row in asked}
        self.drawn_for = {str(row["surrogate_hash"]): row["surrogate_clusterings"] for row in asked}
        resamplings = [*tables.Resampling.fetch(as_dict=True), *(resampling_row(**asdict(x)) for x in sweep.stability)]
        self.resampled = [
            {**key, "resampling_hash": name}
            for key in self.configurations
            for name, of in {str(row["resampling_hash"]): row["resampled_clusterings"] for row in resamplings}.items()
            if of is None or clusterings[key["clustering_hash"]] in of.split(",")
        ]
        self.methods = clusterings
        self.all_seeds = self._all_seeds()
        self.finished = _finished(tables)

    def _all_seeds(self) -> dict[tuple[Any, ...], int]:
        """Return the number of seeds that a combination will have, those of earlier sweeps included."""
        found = {_values(key): set(self.seeds) for key in self.trained}
        for row in self.tables.TrainingPlan.fetch("KEY"):
            seeds = found.get(_values({name: row[name] for name in self.trained[0]}))
            if seeds is not None:
                seeds.add(int(row["seed"]))
        return {key: len(seeds) for key, seeds in found.items()}

    def left(self, name: str) -> int:
        """Return how many jobs of a table are not done."""
        table = getattr(self.tables, name)
        if name in PER_SET_OF_SEEDS:
            return self._sets_left(table, list(self.draws) if name == "SurrogateAgreement" else [None])
        keys = self._keys_of(name)
        n_seeds = len(self.seeds)
        number = len(keys) * (n_seeds * (n_seeds - 1) // 2 if name == "SeedAgreement" else n_seeds)
        if not number:
            return 0
        among = ", ".join(map(str, self.seeds))
        seed_columns = [column for column in ("seed", "seed_a", "seed_b") if column in table.primary_key]
        of_sweep = dj.AndList([f"{column} IN ({among})" for column in seed_columns])
        counts = dj.U(*keys[0]).aggr(table & of_sweep, n="count(*)").fetch(*keys[0], "n", as_dict=True)
        wanted = {_values(key) for key in keys}
        return number - sum(
            int(row.pop("n")) for row in counts if _values({name: row[name] for name in keys[0]}) in wanted
        )

    def _keys_of(self, name: str) -> Sequence[Key]:
        """Return the keys of a table without the seed."""
        if name == "FeatureCovariance":
            return self.with_covariance
        if name == "WithinModelStability":
            return self.resampled
        return self.trained if name in PER_TRAINING else self.configurations

    def _sets_left(self, table: Any, surrogates: list[str | None]) -> int:
        names = [*self.trained[0], "clustering_hash", "n_seeds"]
        if surrogates != [None]:
            names.append("surrogate_hash")
        done = {tuple(row[name] for name in names) for row in table.proj().fetch(as_dict=True)}
        left = 0
        for key in self.configurations:
            n_seeds = self.all_seeds[_values({name: key[name] for name in self.trained[0]})]
            if n_seeds < 2:
                continue
            for surrogate in surrogates:
                of = self.drawn_for.get(str(surrogate))
                if of is not None and self.methods[key["clustering_hash"]] not in of.split(","):
                    continue
                row = {**key, "n_seeds": n_seeds, "surrogate_hash": surrogate}
                left += tuple(row[name] for name in names) not in done
        return left

    def seconds(self, name: str, number: int) -> float | None:
        """Return how long so many jobs of a table take one worker, or None if none has finished."""
        finished = self.finished.get(getattr(self.tables, name).table_name, {})
        if not finished:
            return None
        if name != "SurrogateAgreement":
            return number * sum(finished.values()) / len(finished)
        # Every draw clusters the readouts of every seed.
        table = self.tables.SurrogateAgreement()
        known = {str(row["surrogate_hash"]): int(row["n_draws"]) for row in _rows(self.tables.Surrogate, "n_draws")}
        fits = seconds = 0.0
        for key in table.fetch("KEY"):
            took = finished.get(job_hash(table, key))
            if took is not None:
                fits += known[key["surrogate_hash"]] * int(key["n_seeds"])
                seconds += took
        if not fits:
            return None
        draws, seeds = (sum(counts.values()) / len(counts) for counts in (self.draws, self.all_seeds))
        return number * draws * seeds * seconds / fits


def _finished(tables: Any) -> dict[str, dict[str, float]]:
    """Return the durations (s) of the jobs that workers have finished at the first attempt, by table and hash."""
    jobs = tables.PoolJob & "job_state = 'done' AND ended IS NOT NULL AND n_starts = 1"
    rows = jobs.proj(seconds="TIMESTAMPDIFF(MICROSECOND, begun, ended) / 1e6").fetch(as_dict=True)
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row["job_table"], {})[row["job_hash"]] = float(row["seconds"])
    return found


def _rows(table: Any, *columns: str) -> list[dict[str, Any]]:
    return list(table.fetch(*table.primary_key, *columns, as_dict=True))


def _distinct(keys: Sequence[Key]) -> list[Key]:
    return list({_values(key): key for key in keys}.values())


def _values(key: Key) -> tuple[Any, ...]:
    return tuple(str(value) for _, value in sorted(key.items()))
