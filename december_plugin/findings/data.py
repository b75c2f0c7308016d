"""The contents of a report: data frames, read once, that need no database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pandas as pd

from december_plugin.evaluation.cluster_tree import ClusterTree
from december_plugin.evaluation.methods import with_count
from december_plugin.findings.aligned_vectors import AlignedVectors
from december_plugin.findings.cluster_functions import FunctionalBlocks, PreferredImages
from december_plugin.findings.wording import SEEDS, Wording


@dataclass(frozen=True, eq=False)
class SelectedConfiguration:
    """The configuration whose clusters are shown one by one.

    Attributes
    ----------
    label
        Its method, as in the table of agreement.
    n_clusters
        Number of clusters K.
    reason
        Why this one, in words.
    n_seeds
        Number of seeds whose clusters were matched and voted on.
    seeds
        These seeds, or names of models.
    neurons
        One row per neuron: ``data_key``, ``unit_id``, ``cluster`` (from 0), ``stability`` (0 to 1), ``confidence`` (0
        to 1), and where known ``margin``, ``type`` and ``test_correlation``.
    from_recording
        Whether all unit ids are the recording's, and not positions.
    resampled
        For a single model, how well its clusters are found again in random parts of its neurons, as returned by
        ``stability_frame``, with its null if surrogates were drawn; empty if unknown.
    finds_count
        Whether the method finds the number of clusters itself.
    """

    label: str
    n_clusters: int
    reason: str
    n_seeds: int
    seeds: tuple[Any, ...]
    neurons: pd.DataFrame
    from_recording: bool = True
    resampled: pd.DataFrame = field(default_factory=pd.DataFrame)
    finds_count: bool = False

    @property
    def title(self) -> str:
        """Method and number of clusters, as titles have them."""
        return with_count(self.label, self.n_clusters, is_found=self.finds_count, n_models=self.n_seeds)


@dataclass(frozen=True, eq=False)
class Embedding:
    """A t-SNE of readout vectors.

    Attributes
    ----------
    neurons
        One row per neuron that was drawn: ``data_key``, ``unit_id``, ``x``, ``y``.
    seed
        Seed, or name, of the model whose readout vectors they are.
    n_neurons
        Number of neurons of the model.
    perplexity
        Perplexity of the t-SNE.
    max_per_session
        Most neurons that were drawn from one session.
    vectors
        What was drawn, in words.
    """

    neurons: pd.DataFrame
    seed: Any
    n_neurons: int
    perplexity: float
    max_per_session: int
    vectors: str = "readout vectors"


@dataclass(frozen=True, eq=False)
class Confusion:
    """Clusters against known types; ``frame`` as ``confusion_frame`` returns it.

    ``finds_count`` says whether the method finds the number of clusters itself.
    """

    label: str
    n_clusters: int
    types_name: str
    frame: pd.DataFrame
    finds_count: bool = False

    @property
    def title(self) -> str:
        """Method and number of clusters, as titles have them."""
        n_models = int(self.frame.attrs.get("n_seeds", 1))
        return with_count(self.label, self.n_clusters, is_found=self.finds_count, n_models=n_models)


def whose_clusters(attrs: Mapping[Any, Any], wording: Wording = SEEDS) -> str:
    """Return whose clusters a confusion frame counts, by its ``attrs``."""
    n_seeds = int(attrs.get("n_seeds", 1))
    if n_seeds > 1:
        return f"consensus of {n_seeds} {wording.many}"
    return f"{wording.one} {attrs.get('reference_seed', '')}".rstrip()


@dataclass(frozen=True)
class MissingItem:
    """Something that the report lacks.

    Attributes
    ----------
    what
        A noun phrase.
    remedy
        What to do, a sentence.
    """

    what: str
    remedy: str


@dataclass(frozen=True, eq=False)
class Analysis:
    """One dataset and model; configurations are compared only within it.

    Attributes
    ----------
    name
        A heading.
    dataset, model
        ``fn``, ``hash``, ``comment`` and ``config`` of the entries; empty without a database.
    agreement
        Rows of ``agreement_table``, with ``label``.
    configuration
        The columns of a configuration's key.
    pairs
        One row per configuration and pair of seeds: its key, ``seed_a``, ``seed_b``, ``agreement`` (ARI).
    tested
        One row per trained model: its key, ``seed``, ``test_correlation`` (mean over neurons).
    trainer_settings, clustering_settings
        Complete settings of trainers, by function and hash, and of clusterings, by hash.
    sessions
        One row per session: ``data_key``, ``n_neurons``, ``unit_ids_from``, and of the models of one configuration what
        ``session_performance`` says, NaN if unknown: ``n_test_trials``, ``untested`` (why it was not tested, "" if it
        was), ``test_correlation``, ``single_trial_ceiling``, ``correlation_to_average``, ``average_ceiling``, ``feve``.
    performance
        ``performance_table`` with ``label``, one row per trainer's models; empty where no model is tested.
    tree
        How the clusters of the method that is shown split as their number grows; None for fewer than two K.
    nulls, counts, choices, consensus
        As ``null_table``, ``cluster_count_table``, ``choose_cluster_count`` and ``consensus_table`` of
        :mod:`december_plugin.results` return them, with ``label`` where there is a method; empty where nothing was
        computed.
    chosen, embedding, confusions
        The clusters that are shown, the t-SNE, and clusters against known types.
    alignments
        As ``alignments`` of :mod:`december_plugin.results` returns them; empty where nothing is aligned.
    aligned
        Readout vectors of one model before and after their alignment, where they could be read.
    functions, functions_table
        Which clusters of one model respond alike, and one row for every model where this is known: ``label``,
        ``n_clusters``, ``seed``, ``responses``, ``threshold``, ``n_orientations``, ``n_found``, ``n_blocks``.
    preferred
        Maximally exciting images of neurons of every cluster of one model, where they are computed.
    types_name, n_types
        The known types that are compared with.
    missing
        What the report lacks.
    wording
        How the report speaks of what is compared.
    similarity
        How similar the embeddings of pairs of models are, as ``Study.similarity`` has it; empty in reports of tables.
    space
        What was compared of each neuron, in words, if that is the same for all configurations.
    probes
        The stimuli behind the feature covariance of an imported model, and what they leave out; "" if it is from the
        recording, was given, or is not needed.
    """

    name: str
    dataset: Mapping[str, Any]
    model: Mapping[str, Any]
    agreement: pd.DataFrame
    sessions: pd.DataFrame
    performance: pd.DataFrame = field(default_factory=pd.DataFrame)
    configuration: tuple[str, ...] = ()
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    tested: pd.DataFrame = field(default_factory=pd.DataFrame)
    trainer_settings: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    clustering_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    nulls: pd.DataFrame = field(default_factory=pd.DataFrame)
    counts: pd.DataFrame = field(default_factory=pd.DataFrame)
    choices: pd.DataFrame = field(default_factory=pd.DataFrame)
    consensus: pd.DataFrame = field(default_factory=pd.DataFrame)
    tree: ClusterTree | None = None
    chosen: SelectedConfiguration | None = None
    embedding: Embedding | None = None
    confusions: tuple[Confusion, ...] = ()
    alignments: pd.DataFrame = field(default_factory=pd.DataFrame)
    aligned: AlignedVectors | None = None
    functions: FunctionalBlocks | None = None
    functions_table: pd.DataFrame = field(default_factory=pd.DataFrame)
    preferred: PreferredImages | None = None
    types_name: str | None = None
    n_types: int | None = None
    missing: tuple[MissingItem, ...] = ()
    wording: Wording = SEEDS
    space: str = ""
    probes: str = ""
    similarity: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that a report says.

    Attributes
    ----------
    title
        Its heading.
    created
        When it was made, with a time zone.
    command
        The command that made it.
    schema, server
        Where the tables are; never an account or a password. Empty without a database.
    analyses
        One per dataset and model.
    progress
        One row per table: ``table``, ``done``, ``running``, ``waiting``, ``failed``, ``poisoned``, ``ignored``.
    failures
        One row per reason: ``table``, ``count``, ``reason``, ``example``, ``job``.
    entries
        Entries of nnfabrik's tables and clusterings: ``kind``, ``fn``, ``hash``, ``comment``, ``config``.
    trainings
        One row per trained model: ``dataset_hash``, ``model_hash``, ``trainer_hash``, ``seed``, ``trainer_role``,
        ``validation_correlation``, ``test_correlation``, ``n_epochs``, ``best_epoch``, ``stopped_by``, ``trained``.
    known_types
        One row per labeling, as ``KnownTypes.overview`` has it.
    versions
        Packages to their versions where this report was made.
    training_versions
        ``package``, ``version``, ``n_models``: what the trainings recorded.
    models
        Without a database, one row per model: ``name``, ``source``, ``n_neurons``, ``n_features``.
    configurations
        As ``configuration_table`` of :mod:`december_plugin.results` returns it; empty where no two are compared.
    """

    title: str
    created: datetime
    command: str
    schema: str
    server: str
    analyses: tuple[Analysis, ...]
    progress: pd.DataFrame
    failures: pd.DataFrame
    entries: pd.DataFrame
    trainings: pd.DataFrame
    known_types: pd.DataFrame
    versions: Mapping[str, str]
    training_versions: pd.DataFrame
    models: pd.DataFrame = field(default_factory=pd.DataFrame)
    configurations: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def has_database(self) -> bool:
        """Whether it was read from tables."""
        return bool(self.schema)


@dataclass(frozen=True)
class ExportTable:
    """A table that an export writes.

    Attributes
    ----------
    name
        Name of its files, without the ending.
    parts
        Returns its rows, part by part; the first part has all columns, even if there are no rows.
    """

    name: str
    parts: Callable[[], Iterator[pd.DataFrame]]
