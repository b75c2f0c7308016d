"""The jobs that follow the trainings of a sweep, and how long they take, read without writing anything.

They are those of its models and, if it has new clusterings or evaluations, also those of all other models in the
tables, because workers compute whatever is asked for wherever it fits.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import datajoint as dj

from december_plugin.clustering.methods import (
    DECEMBER,
    alignment_recipe,
    canonical_settings,
    embedding_space,
    quality_filter,
)
from december_plugin.evaluation.cluster_functions_settings import LINEAR
from december_plugin.importing.datajoint_internals import job_hash
from december_plugin.imports.stored_names import NEURONS as IMPORTED_NEURONS
from december_plugin.schemas.alignment import alignment_hash
from december_plugin.schemas.cluster_functions import confusion_row
from december_plugin.schemas.clusters import clustering_hash
from december_plugin.schemas.configurations import DIFFERS
from december_plugin.schemas.exciting_images import mei_row
from december_plugin.schemas.nulls import surrogate_row
from december_plugin.schemas.stability import resampling_row
from december_plugin.sweeps.parse import Sweep

CLUSTERINGS, EVALUATIONS, NULL = "clusterings", "evaluations", "the null"
# Without LabelAgreement, because only labels say which models will share sessions with known types.
GROUPS = {
    CLUSTERINGS: ("Alignment", "ClusterAssignment"),
    EVALUATIONS: (
        *("TrainingSummary", "TestPerformance", "FeatureCovariance", "SeedAgreement", "Consensus", "ClusterQuality"),
        *("WithinModelStability", "ClusterConfusion", "ConfigurationAgreement", "Mei", "MeiConfusion"),
    ),
    NULL: ("SurrogateAgreement",),
}
PER_TRAINING = ("TrainingSummary", "TestPerformance")
Key = Mapping[str, Any]


@dataclass(frozen=True)
class Following:
    """Jobs of one kind that follow the trainings of a sweep.

    Attributes
    ----------
    name
        One of :data:`GROUPS`.
    n_left
        Jobs that are not done.
    n_unknown
        Those of tables in which no job has finished yet.
    seconds
        Time that one worker needs for the others (s).
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
    jobs = _Jobs(sweep, datasets, models, trainers, tables)
    found = []
    for name, members in GROUPS.items():
        left = {member: jobs.left(member) for member in members}
        known = {member: jobs.seconds(member, number) for member, number in left.items() if number}
        unknown = sum(left[member] for member, seconds in known.items() if seconds is None)
        found.append(Following(name, sum(left.values()), unknown, sum(filter(None, known.values()))))
    return found


@dataclass(frozen=True)
class _Models:
    """Models that differ only in the seed: a dataset, a model and a trainer.

    Attributes
    ----------
    key
        Key of the three.
    seeds
        All that are planned or trained.
    own
        Seeds of the sweep.
    """

    key: Key
    seeds: frozenset[int]
    own: frozenset[int]

    def brought(self, is_new: bool) -> frozenset[int]:
        """Return the seeds for which an entry has jobs; if it is new, including those of other sweeps."""
        return self.seeds if is_new else self.own

    def pairs(self, is_new: bool) -> int:
        """Return the number of pairs of seeds of which at least one has a job."""
        return _pairs(len(self.seeds)) - _pairs(len(self.seeds - self.brought(is_new)))


@dataclass(frozen=True)
class _Asked:
    """Settings of an evaluation: their hash, whether they are new, and the clusterings that they apply to."""

    name: str
    is_new: bool
    methods: frozenset[str] | None
    n_draws: int = 0
    is_linear: bool = False  # of comparisons of clusters

    def is_of(self, method: str) -> bool:
        """Return whether it is computed for clusterings of this method."""
        return self.methods is None or method in self.methods


@dataclass(frozen=True)
class _Clustering:
    """A clustering: its hash, its method, whether it is new, and what its assignments wait for.

    ``alignment`` is the hash of the alignment, "" for none.
    """

    name: str
    method: str
    is_new: bool
    needs_covariance: bool
    needs_tests: bool
    alignment: str = ""


@dataclass(frozen=True)
class _Alignment:
    """An alignment: its hash, whether it is new, and whether it waits for a covariance."""

    name: str
    is_new: bool
    needs_covariance: bool


@dataclass(frozen=True)
class _Configuration:
    models: _Models
    clustering: _Clustering
    n_clusters: int | None

    @property
    def key(self) -> Key:
        return {**self.models.key, "clustering_hash": self.clustering.name}


class _Jobs:
    def __init__(
        self, sweep: Sweep, datasets: Sequence[Key], models: Sequence[Key], trainers: Sequence[Key], tables: Any
    ):
        self.tables = tables
        self.finished = _finished(tables)
        self.seeds = frozenset(sweep.seeds)
        self.models = self._models([{**a, **b, **c} for a in datasets for b in models for c in trainers])
        self.equivariant = _equivariant(sweep, models, tables)
        self.alignments = _alignments(sweep, tables)
        self.clusterings = self._clusterings(sweep)
        rows = [(False, row) for row in tables.Surrogate.fetch(as_dict=True)]
        asked = [surrogate_row(**asdict(each)) for each in sweep.surrogates]
        rows += [(True, row) for row in asked if tables.Surrogate().stored_key(row) is None]
        self.surrogates = _asked(rows, "surrogate_hash", "surrogate_clusterings", "n_draws")
        rows = [(False, row) for row in tables.Resampling.fetch(as_dict=True)]
        rows += [(True, resampling_row(**asdict(each))) for each in sweep.stability]
        self.resamplings = _asked(rows, "resampling_hash", "resampled_clusterings", "n_resamplings")
        rows = [(False, row) for row in tables.ClusterConfusionSettings.fetch(as_dict=True)]
        rows += [(True, confusion_row(**asdict(each))) for each in sweep.cluster_confusion]
        self.confusions = _asked(rows, "confusion_hash", "confusion_clusterings")
        rows = [(False, row) for row in tables.MeiSettings.fetch(as_dict=True)]
        rows += [(True, mei_row(**asdict(each))) for each in sweep.exciting_images]
        self.images = _asked(rows, "mei_hash", "mei_clusterings")
        self.covered, self.tested = (
            _by_models(table & {"dataset_fn": IMPORTED_NEURONS})
            for table in (tables.FeatureCovariance, tables.TestPerformance)
        )
        self.configurations = self._configurations(sweep, trainers)

    def _models(self, of_sweep: Sequence[Key]) -> list[_Models]:
        """Return all models that are planned or trained, and those of the sweep."""
        found: dict[tuple[Any, ...], tuple[Key, set[int]]] = {}
        for key in of_sweep:
            found[_values(key)] = (key, set(self.seeds))
        wanted = set(found)
        for table in (self.tables.TrainingPlan, self.tables.TrainedModel):
            for row in table.fetch(*DIFFERS, "seed", as_dict=True):
                seed = int(row.pop("seed"))
                found.setdefault(_values(row), (row, set()))[1].add(seed)
        return [
            _Models(key, frozenset(seeds), self.seeds if name in wanted else frozenset())
            for name, (key, seeds) in found.items()
        ]

    def _clusterings(self, sweep: Sweep) -> list[_Clustering]:
        found = {}
        for row in self.tables.Clustering.fetch(as_dict=True):
            name, method, settings = str(row["clustering_hash"]), str(row["method"]), row["settings"]
            found[name] = _clustering(name, method, settings, is_new=False)
        for entry in sweep.clusterings:
            settings = canonical_settings(entry.method, entry.settings)
            name = clustering_hash(entry.method, entry.n_clusters or 0, settings)
            found.setdefault(name, _clustering(name, entry.method, settings, is_new=True))
        return list(found.values())

    def _configurations(self, sweep: Sweep, trainers: Sequence[Key]) -> list[_Configuration]:
        """Return how each model is clustered.

        Models that were imported without their recording are left out unless they came with the covariance or the test
        correlations that a clustering needs.
        """
        counts = self._counts(sweep, trainers)
        found = []
        for models, clustering in itertools.product(self.models, self.clusterings):
            is_december = self._is_december(models)
            if is_december != (clustering.method == DECEMBER):
                continue
            if clustering.alignment and not self._is_equivariant(models):
                continue
            if models.key["dataset_fn"] == IMPORTED_NEURONS:
                seeds, name = models.seeds, _values(models.key)
                seeds &= self.covered.get(name, frozenset()) if clustering.needs_covariance else seeds
                seeds &= self.tested.get(name, frozenset()) if clustering.needs_tests else seeds
                models = replace(models, seeds=seeds, own=models.own & seeds)
            n_clusters = counts.get(_values(models.key)) if is_december else None
            found.append(_Configuration(models, clustering, n_clusters))
        return found

    def _counts(self, sweep: Sweep, trainers: Sequence[Key]) -> dict[tuple[Any, ...], int]:
        """Return the number of clusters of DECEMber's models, as far as clusters or trainers give it."""
        said = {
            _values({name: row[name] for name in ("trainer_fn", "trainer_hash")}): row["trainer_config"]
            for row in self.tables.nnfabrik.Trainer.fetch("trainer_fn", "trainer_hash", "trainer_config", as_dict=True)
        }
        said |= {_values(key): entry.config for key, entry in zip(trainers, sweep.trainers, strict=True)}
        found = {}
        december = self.tables.ClusterAssignment * self.tables.Clustering.proj("method") & {"method": DECEMBER}
        for row in december.fetch(*DIFFERS, "n_clusters_used", as_dict=True):
            number = int(row.pop("n_clusters_used"))
            found[_values(row)] = number
        for models in self.models:
            trainer = {name: models.key[name] for name in ("trainer_fn", "trainer_hash")}
            config = said.get(_values(trainer))
            if isinstance(config, Mapping) and isinstance(config.get("n_clusters"), int):
                found.setdefault(_values(models.key), config["n_clusters"])
        return found

    def left(self, name: str) -> int:
        """Return how many jobs of a table are not done."""
        if name == "ConfigurationAgreement":
            return self._pairs_left()
        if name in ("Consensus", "SurrogateAgreement"):
            return self._sets_left(name)
        return sum(self._brought(name).values()) - self._done(name)

    def _brought(self, name: str) -> dict[tuple[Any, ...], int]:
        """Return the number of jobs of a table by its key without the seed."""
        if name in PER_TRAINING:
            return {_values(models.key): len(models.own) for models in self.models}
        if name == "FeatureCovariance":
            return self._covariances()
        if name == "Alignment":
            return {
                _values({**models.key, "alignment_hash": asked.name}): len(
                    self._alignable(models, asked) & models.brought(asked.is_new)
                )
                for models, asked in itertools.product(self.models, self.alignments)
                if self._is_equivariant(models) and not self._is_december(models)
            }
        if name == "ClusterConfusion":
            return {
                _values({**each.key, "confusion_hash": asked.name}): len(
                    self._compared(each, asked) & each.models.brought(each.clustering.is_new or asked.is_new)
                )
                for each, asked in itertools.product(self.configurations, self.confusions)
            }
        if name == "WithinModelStability":
            return {
                _values({**each.key, "resampling_hash": asked.name}): len(
                    each.models.brought(each.clustering.is_new or asked.is_new)
                )
                for each, asked in itertools.product(self.configurations, self.resamplings)
                if asked.is_of(each.clustering.method)
            }
        if name in ("Mei", "MeiConfusion"):
            return {
                _values({**each.key, "mei_hash": asked.name}): len(
                    each.models.brought(each.clustering.is_new or asked.is_new)
                )
                for each, asked in itertools.product(self.configurations, self.images)
                if asked.is_of(each.clustering.method) and each.models.key["dataset_fn"] != IMPORTED_NEURONS
            }
        number = _Models.pairs if name == "SeedAgreement" else lambda models, is_new: len(models.brought(is_new))
        return {_values(each.key): number(each.models, each.clustering.is_new) for each in self.configurations}

    def _covariances(self) -> dict[tuple[Any, ...], int]:
        """Return the number of feature covariances: for clusterings that need them, and to compare clusters."""
        found = {}
        for models in self.models:
            if models.key["dataset_fn"] == IMPORTED_NEURONS:
                continue
            is_december, is_equivariant = self._is_december(models), self._is_equivariant(models)
            own = [each for each in self.clusterings if (each.method == DECEMBER) == is_december]
            own = [each for each in own if is_equivariant or not each.alignment]
            are_new = [each.is_new for each in own if each.needs_covariance]
            if is_equivariant and not is_december:
                are_new += [each.is_new for each in self.alignments if each.needs_covariance]
            are_new += [
                each.is_new or asked.is_new
                for each, asked in itertools.product(own, self.confusions)
                if asked.is_linear and asked.is_of(each.method)
            ]
            if are_new:
                found[_values(models.key)] = len(models.brought(all(are_new)))
        return found

    def _is_december(self, models: _Models) -> bool:
        return bool(self.tables.ClusterAssignment.is_december(models.key["trainer_fn"]))

    def _is_equivariant(self, models: _Models) -> bool:
        return (models.key["model_fn"], models.key["model_hash"]) in self.equivariant

    def _alignable(self, models: _Models, asked: _Alignment) -> frozenset[int]:
        """Return the seeds whose models have an alignment."""
        if not asked.needs_covariance or models.key["dataset_fn"] != IMPORTED_NEURONS:
            return models.seeds
        return self.covered.get(_values(models.key), frozenset())

    def _compared(self, configuration: _Configuration, asked: _Asked) -> frozenset[int]:
        """Return the seeds for whose models clusters are compared."""
        models = configuration.models
        if not asked.is_of(configuration.clustering.method):
            return frozenset()
        if models.key["dataset_fn"] != IMPORTED_NEURONS:
            return models.seeds
        return self.covered.get(_values(models.key), frozenset()) if asked.is_linear else frozenset()

    def _done(self, name: str) -> int:
        """Return how many of these jobs are done; none are for a new entry."""
        table = getattr(self.tables, name)
        names = [column for column in table.primary_key if column not in ("seed", "seed_a", "seed_b")]
        among = ", ".join(map(str, sorted(self.seeds)))
        of_sweep = [f"{column} IN ({among})" for column in ("seed", "seed_a", "seed_b") if column in table.primary_key]
        # A covariance may exist before the first clustering that needs it.
        rows = table if name == "FeatureCovariance" else table & of_sweep
        brought = self._brought(name)
        counts = dj.U(*names).aggr(rows, n="count(*)").fetch(*names, "n", as_dict=True)
        return sum(min(int(row.pop("n")), brought.get(_values(row), 0)) for row in counts)

    def _sets_left(self, name: str) -> int:
        """Return how many sets of seeds are left, for every configuration that the sweep adds something to."""
        table = getattr(self.tables, name)
        asked = self.surrogates if name == "SurrogateAgreement" else [_Asked("", is_new=False, methods=None)]
        names = [*DIFFERS, "clustering_hash", *(["surrogate_hash"] if name == "SurrogateAgreement" else [])]
        rows = table.fetch(*names, "n_seeds", as_dict=True)
        done = {(int(row.pop("n_seeds")), _values(row)) for row in rows}
        left = 0
        for each, surrogate in itertools.product(self.configurations, asked):
            models = each.models
            if len(models.seeds) < 2 or not surrogate.is_of(each.clustering.method):
                continue
            if models.brought(each.clustering.is_new or surrogate.is_new):
                key = {**each.key, "surrogate_hash": surrogate.name} if surrogate.name else each.key
                left += (len(models.seeds), _values(key)) not in done
        return left

    def _pairs_left(self) -> int:
        """Return how many pairs of configurations are left, of which the sweep adds something to one."""
        names = [*DIFFERS, "clustering_hash"]
        assigned = {
            (row.pop("n"), _values(row))
            for row in dj.U(*names).aggr(self.tables.ClusterAssignment, n="count(*)").fetch(*names, "n", as_dict=True)
        }
        compared = self.tables.ConfigurationAgreement & self.tables.ConfigurationAgreement().key_source
        others = [f"{name}_b" for name in DIFFERS]
        done = set()
        for row in (compared * self.tables.ConfigurationPair).fetch(*names, *others, as_dict=True):
            second = {name: row.pop(f"{name}_b") for name in DIFFERS}
            of_clustering = {"clustering_hash": row["clustering_hash"]}
            done.add(frozenset((_values(row), _values({**second, **of_clustering}))))
        by_clustering: dict[str, list[tuple[_Configuration, tuple[Any, ...], bool]]] = {}
        for each in self.configurations:
            if each.models.seeds:
                name = _values(each.key)
                is_complete = (len(each.models.seeds), name) in assigned
                by_clustering.setdefault(each.clustering.name, []).append((each, name, is_complete))
        left = 0
        for members in by_clustering.values():
            for (a, name, is_a), (b, name_b, is_b) in itertools.combinations_with_replacement(members, 2):
                if not a.models.brought(a.clustering.is_new) and not b.models.brought(b.clustering.is_new):
                    continue
                if (a is b and len(a.models.seeds) < 2) or _differ(a.n_clusters, b.n_clusters):
                    continue
                left += not (is_a and is_b and frozenset((name, name_b)) in done)
        return left

    def seconds(self, name: str, number: int) -> float | None:
        """Return how long one worker needs for this many jobs of a table, or None if none has finished."""
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
        draws = sum(each.n_draws for each in self.surrogates) / len(self.surrogates)
        of_sweep = [len(models.seeds) for models in self.models if models.own]
        return number * draws * sum(of_sweep) / len(of_sweep) * seconds / fits


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


def _clustering(name: str, method: str, settings: Mapping[str, Any], *, is_new: bool) -> _Clustering:
    needs_tests = quality_filter(settings).minimum_test_correlation is not None
    recipe, is_functional = alignment_recipe(settings), embedding_space(settings).is_functional
    if recipe is None:
        return _Clustering(name, method, is_new, is_functional, needs_tests)
    needs_covariance = is_functional or recipe.is_functional
    return _Clustering(name, method, is_new, needs_covariance, needs_tests, alignment_hash(recipe))


def _equivariant(sweep: Sweep, models: Sequence[Key], tables: Any) -> set[tuple[str, str]]:
    """Return function and hash of the rotation-equivariant models of the tables and of the sweep."""
    known = {
        (row["model_fn"], row["model_hash"]): row["model_config"] for row in tables.nnfabrik.Model.fetch(as_dict=True)
    }
    known |= {
        (key["model_fn"], key["model_hash"]): entry.config for key, entry in zip(models, sweep.models, strict=True)
    }
    return {key for key, config in known.items() if tables.Alignment.is_equivariant(key[0], config)}


def _alignments(sweep: Sweep, tables: Any) -> list[_Alignment]:
    """Return the requested alignments, each once; those of the tables before those of the sweep."""
    rows = tables.AlignmentSettings.fetch("alignment_hash", "alignment_space", as_dict=True)
    found = {
        row["alignment_hash"]: _Alignment(row["alignment_hash"], False, row["alignment_space"] == "functional")
        for row in rows
    }
    for entry in sweep.clusterings:
        if (recipe := alignment_recipe(entry.settings)) is not None:
            name = alignment_hash(recipe)
            found.setdefault(name, _Alignment(name, True, recipe.is_functional))
    return list(found.values())


def _asked(rows: Sequence[tuple[bool, Key]], name: str, of: str, draws: str = "") -> list[_Asked]:
    """Return the requested evaluations, each once; rows of the tables before those of the sweep, which are new."""
    found: dict[str, _Asked] = {}
    for is_new, row in rows:
        methods = frozenset(row[of].split(",")) if row[of] is not None else None
        n_draws, is_linear = int(row[draws]) if draws else 0, row.get("confusion_responses") == LINEAR
        found.setdefault(str(row[name]), _Asked(str(row[name]), is_new, methods, n_draws, is_linear))
    return list(found.values())


def _by_models(table: Any) -> dict[tuple[Any, ...], frozenset[int]]:
    """Return the seeds of the rows of a table, by their models."""
    found: dict[tuple[Any, ...], set[int]] = {}
    for row in table.fetch(*DIFFERS, "seed", as_dict=True):
        seed = int(row.pop("seed"))
        found.setdefault(_values(row), set()).add(seed)
    return {name: frozenset(seeds) for name, seeds in found.items()}


def _pairs(n: int) -> int:
    return n * (n - 1) // 2


def _differ(a: int | None, b: int | None) -> bool:
    return a is not None and b is not None and a != b


def _values(key: Key) -> tuple[Any, ...]:
    return tuple(str(value) for _, value in sorted(key.items()))
