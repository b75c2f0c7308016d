"""Puts jobs into words: what they are called, and what distinguishes one from another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from december_plugin.clustering.methods import alignment_recipe, filter_of_column
from december_plugin.embeddings.space import READOUT_SPACE, EmbeddingSpace
from december_plugin.evaluation.cluster_functions_settings import IMAGES
from december_plugin.imports.stored_names import TRAINER as IMPORTED
from december_plugin.insilico.exciting_images_settings import SEEDS
from december_plugin.schemas.alignment import COLUMNS, recipe_of_row

# What one job, and several jobs, of our tables are called; a lab's own tables go by their names.
KINDS = {
    "TrainedModel": ("training", "trainings"),
    "TrainingSummary": ("training summary", "training summaries"),
    "TestPerformance": ("test of a model", "tests of models"),
    "FeatureCovariance": ("feature covariance", "feature covariances"),
    "Alignment": ("alignment", "alignments"),
    "ClusterAssignment": ("clustering", "clusterings"),
    "SeedAgreement": ("comparison of seeds", "comparisons of seeds"),
    "LabelAgreement": ("comparison with known types", "comparisons with known types"),
    "Consensus": ("consensus", "consensus partitions"),
    "ClusterQuality": ("check of a number of clusters", "checks of numbers of clusters"),
    "WithinModelStability": ("check of stability", "checks of stability"),
    "ClusterConfusion": ("comparison of clusters", "comparisons of clusters"),
    "SurrogateAgreement": ("null job", "null jobs"),
    "ConfigurationAgreement": ("comparison of configurations", "comparisons of configurations"),
    "Mei": ("job of exciting images", "jobs of exciting images"),
    "MeiConfusion": ("comparison of exciting images", "comparisons of exciting images"),
}


def counted(table: str, count: int) -> str:
    """Return a number of jobs of a table in words: ``1 training``, ``2,000 null jobs``."""
    one, several = KINDS.get(table, (f"{table} job", f"{table} jobs"))
    return f"{count:,} {one if count == 1 else several}"


def describe_jobs(tables: Any, *, strict: bool = False) -> Callable[[str, Mapping[str, Any]], str]:
    """Return a function that puts a job, given as a table's name and a key, into words.

    Parameters
    ----------
    tables
        What :func:`december_plugin.schemas.december_tables` returns.
    strict
        Let the function raise if the settings of a job are not valid, as a worker wants it, whose job fails then.
        Otherwise such a job goes by its table and key, so that it does not hide all others.

    See Also
    --------
    read_overview : Reads the state of all jobs, workers and pools.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.pool import describe_jobs
    >>> lab = open_lab(schema="retina")
    >>> describe = describe_jobs(lab.tables)
    >>> clustering = lab.tables.Clustering & {"method": "kmeans", "n_clusters": 3}
    >>> key = (lab.tables.ClusterAssignment & clustering.proj() & {"seed": 1}).fetch1("KEY")
    >>> describe("ClusterAssignment", key)
    'ClusterAssignment: baseline, kmeans, K 3, seed 1'
    """
    # A hash is that of the configuration alone: two functions may share it.
    trainers = _Columns(tables.nnfabrik.Trainer, ("trainer_fn", "trainer_hash"), ("trainer_comment", "trainer_config"))
    models = _Columns(tables.nnfabrik.Model, ("model_fn", "model_hash"), ("model_comment",))
    columns = ("method", "n_clusters", "space", "normalize", "minimum_test_correlation", "settings")
    clusterings = _Columns(tables.Clustering, ("clustering_hash",), columns)
    alignments = _Columns(tables.AlignmentSettings, ("alignment_hash",), tuple(COLUMNS.values()))
    of_confusion = ("confusion_responses", "confusion_threshold")
    confusions = _Columns(tables.ClusterConfusionSettings, ("confusion_hash",), of_confusion)
    images = _Columns(tables.MeiSettings, ("mei_hash",), ("mei_per_cluster", "mei_models"))

    def describe(table: str, key: Mapping[str, Any]) -> str:
        comment, config = trainers.of(key) or ("", {})
        parts = [comment or str(key.get("trainer_fn", "")).split(".")[-1]]
        if key.get("trainer_fn") == IMPORTED and (of_model := models.of(key)) and of_model[0]:
            # All imported models have the same trainer, whose comment is how they were trained, if that is known.
            parts = [of_model[0], comment]
        if isinstance(config, Mapping) and "n_clusters" in config:
            parts.append(f"K {config['n_clusters']}")
        if "clustering_hash" in key and (clustering := clusterings.of(key)):
            method, n_clusters, space, normalize, least, settings = clustering
            parts.append(f"{method}, K {n_clusters}" if n_clusters else method)
            compared = EmbeddingSpace(space=space, normalize=normalize)
            parts.append(compared.phrase if compared != READOUT_SPACE else "")
            recipe = alignment_recipe(settings)
            parts += [recipe.phrase if recipe else "", filter_of_column(least).phrase]
        if "alignment_hash" in key and (row := alignments.of(key)):
            parts.append(recipe_of_row(dict(zip(COLUMNS.values(), row, strict=True))).phrase)
        if "confusion_hash" in key and (row := confusions.of(key)):
            parts.append(f"{'responses to images' if row[0] == IMAGES else 'linear responses'}, threshold {row[1]:g}")
        if "mei_hash" in key and (row := images.of(key)):
            parts.append(f"{row[0]} per cluster{', mean of all seeds' if row[1] == SEEDS else ''}")
        parts += [f"{name} {key[name]}" for name in ("seed", "seed_a", "seed_b") if name in key]
        return f"{table}: {', '.join(part for part in parts if part)}"

    def describe_any(table: str, key: Mapping[str, Any]) -> str:
        try:
            return describe(table, key)
        except Exception:  # of settings of another version, say; of a lab's own table it may be any
            return plain_words(table, key)

    return describe if strict else describe_any


def plain_words(table: str, key: Mapping[str, Any]) -> str:
    """Return a job in words that no setting can spoil: its table and its key."""
    return f"{table}: {', '.join(f'{name} {value}' for name, value in key.items())}"


class _Columns:
    """Columns of a table's rows by their keys, all read at once, and again for a row that was inserted later."""

    def __init__(self, table: Any, key: tuple[str, ...], columns: tuple[str, ...]):
        self.table, self.key, self.columns = table, key, columns
        self._rows = self._read()

    def of(self, key: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the columns of the row that a job's key refers to, or None."""
        found = tuple(key.get(name) for name in self.key)
        if found not in self._rows and None not in found:
            self._rows[found] = None  # looked up once, even if the server is away
            with suppress(Exception):
                self._rows |= self._read(dict(zip(self.key, found, strict=True)))
        return self._rows.get(found)

    def _read(self, restriction: Any = True) -> dict[tuple[Any, ...], tuple[Any, ...] | None]:
        rows = (self.table() & restriction).fetch(*self.key, *self.columns, as_dict=True)
        return {tuple(row[name] for name in self.key): tuple(row[column] for column in self.columns) for row in rows}
