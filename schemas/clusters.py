"""Clusterings, the clusters of all neurons of trained models, and these clusters as one row per neuron for SQL."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import datajoint as dj
import numpy as np
from datajoint.errors import DuplicateError

from december_plugin.clustering.methods import (
    DECEMBER,
    METHODS,
    QualityFilter,
    alignment_recipe,
    canonical_settings,
    checked_n_clusters,
    embedding_space,
    own_settings,
    quality_filter,
    setting_mistakes,
)
from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import EmbeddingError, MisfitError, SettingsError, did_you_mean
from december_plugin.imports.stored_names import NEURONS as IMPORTED_NEURONS
from december_plugin.schemas.alignment import alignment_hash
from december_plugin.schemas.clustering_vectors import ClusteringVectors, in_space_of_mixture
from december_plugin.schemas.restrictions import fits, of_trainers, restricted
from december_plugin.schemas.serialization import decode_blob, encode_blob
from december_plugin.schemas.settings_tables import SettingsTable, settings_hash
from december_plugin.schemas.stored_models import (
    SessionNeurons,
    build_loaders,
    full_config,
    session_neurons,
)
from december_plugin.text.formatting import numbered
from december_plugin.text.stored_text import checked_text

if TYPE_CHECKING:
    from december_plugin.clustering.result import ClusteringResult

MAX_DESCRIPTION_LENGTH = 255
NO_FILTER = "minimum_test_correlation IS NULL"


def clustering_hash(method: str, n_clusters: int, settings: Mapping[str, Any]) -> str:
    """Return the 32 characters that name a clustering, from its canonical settings."""
    return settings_hash([method, n_clusters, settings])


def _row(method: str, n_clusters: int, settings: dict[str, Any], description: str) -> dict[str, Any]:
    space, recipe = embedding_space(settings), alignment_recipe(settings)
    return {
        "clustering_hash": clustering_hash(method, n_clusters, settings),
        "method": method,
        "n_clusters": n_clusters,
        "settings": settings,
        "space": space.space,
        "normalize": space.normalize,
        "minimum_test_correlation": quality_filter(settings).minimum_test_correlation,
        "alignment_hash": None if recipe is None else alignment_hash(recipe),
        "description": description,
    }


class Clustering(SettingsTable, dj.Lookup):
    """Ways to assign the neurons of a trained model to clusters.

    The entry ``december`` is always there: it reads the mixture that the trainer fitted, and has no
    settings. The others are methods of :mod:`december_plugin.clustering.post_hoc`, fitted afterwards to the readout
    vectors, or to the functional embeddings if ``space`` says so. Those with an alignment are fitted only to the
    vectors of rotation-equivariant models.
    """

    alignment_settings_table: ClassVar[Any]

    definition = """
    # Ways to cluster the neurons of a trained model
    clustering_hash: char(32)             # hash of method, n_clusters and settings
    ---
    method: varchar(32)                   # december = trained with the model; the others are fitted afterwards
    n_clusters: int unsigned              # number of clusters K; 0 = the trainer's (december), or found by the method
    settings: longblob                    # settings of the method, defaults written out
    space='readout': enum('readout', 'functional')  # vectors that are clustered; of december the trainer says it
    normalize='none': enum('none', 'l2')  # l2 = their directions
    minimum_test_correlation=null: double  # only neurons that are predicted at least so well (-1 to 1); null = all
    -> [nullable] AlignmentSettings       # how vectors are turned to a common orientation before; null = they are not
    description='': varchar(255)          # short description
    clustering_ts=CURRENT_TIMESTAMP: timestamp  # time of registration (server's clock)
    """

    contents = [_row(DECEMBER, 0, {}, "the mixture that was trained with the model")]  # noqa: RUF012

    def add_entry(
        self,
        method: str,
        n_clusters: int | None = None,
        *,
        description: str = "",
        skip_duplicates: bool = False,
        **settings: Any,
    ) -> dict[str, str]:
        """Register a clustering and return its key; the same settings always have the same key.

        Parameters
        ----------
        method
            A name in :data:`december_plugin.clustering.methods.METHODS`.
        n_clusters
            Number of clusters of a post hoc method. None for "december", whose trainer has it, and if the method finds
            it.
        description
            A few words for readers of the table; not part of the key.
        skip_duplicates
            Return the key of an existing entry, rather than raise.
        **settings
            Settings of the method, ``space`` and ``normalize`` of
            :class:`~december_plugin.embeddings.space.EmbeddingSpace`, ``minimum_test_correlation`` of
            :class:`~december_plugin.clustering.methods.QualityFilter`, and ``alignment``, a mapping of the settings of
            :class:`~december_plugin.embeddings.alignment_recipe.AlignmentRecipe`; settings that are not given
            have their defaults, and without ``alignment``, nothing is aligned.

        Raises
        ------
        SettingsError
            For an unknown method or setting, a value that is not allowed, or an entry that exists already.
        """
        if method not in METHODS:
            raise SettingsError(f"there is no method {method!r}. {did_you_mean(str(method), METHODS)}")
        checked_text("the description", description, MAX_DESCRIPTION_LENGTH)
        row = _row(
            method, _checked_count(method, n_clusters, settings), canonical_settings(method, settings), description
        )
        for _, mistake in setting_mistakes(method, settings):
            raise mistake
        if (recipe := alignment_recipe(row["settings"])) is not None:
            self.alignment_settings_table().add_entry(**recipe.as_settings(), skip_duplicates=True)
        said = f"this clustering is registered already, as clustering_hash {row['clustering_hash']!r}"
        return self.enter(row, said=said, skip_duplicates=skip_duplicates)


def _checked_count(method: str, n_clusters: int | None, settings: Mapping[str, Any]) -> int:
    if method == DECEMBER:
        if n_clusters:
            raise SettingsError(
                f"n_clusters is {n_clusters!r}; leave it out for the method 'december', whose trainer has it."
            )
        return 0
    return checked_n_clusters(method, n_clusters, settings)


class ClusterAssignment(dj.Computed):
    """The clusters of the neurons of one trained model, one array per session.

    They are all its neurons or, for a clustering with ``minimum_test_correlation``, those that the model predicts this
    well; sessions without any of these have no array.

    The clustering ``december`` applies to models of a DECEMber trainer, post hoc clusterings to all others. Neurons
    are identified by session and unit id.
    """

    trained_model_table: ClassVar[Any]
    clustering_table: ClassVar[Any]
    vectors: ClassVar[ClusteringVectors]
    nnfabrik: ClassVar[Any]
    december_trainers: ClassVar[tuple[str, ...]]

    definition = """
    # Clusters of the neurons of a trained model
    -> TrainedModel
    -> Clustering
    ---
    n_neurons: int unsigned            # number of neurons that were clustered, all sessions together
    n_left_out=0: int unsigned         # number of neurons below the clustering's minimum_test_correlation, or untested
    n_clusters_used: int unsigned      # number of clusters K of the mixture or method, given or found
    n_clusters_found: int unsigned     # number of clusters that hold at least one neuron
    mean_confidence: double            # mean over neurons of the largest responsibility (0 to 1)
    log_likelihood=null: double        # mean log likelihood per neuron (nat); null where the method has none
    converged=null: bool               # whether the fit ended before its largest number of steps; null for december
    labels_md5: char(32)               # md5 of sessions, unit ids and labels: equal if the assignment is equal
    assignment_ts=CURRENT_TIMESTAMP: timestamp  # time of insertion (server's clock)
    """

    class Session(dj.Part):
        """The neurons of one session, in the order of the model's readout."""

        definition = """
        # Clusters of the neurons of one session
        -> master
        data_key: varchar(128)         # session, as the data loaders name it
        ---
        n_session_neurons: int unsigned  # number of neurons n of the session
        unit_ids: longblob             # unit ids (n,) int64
        unit_ids_from: enum('recording', 'position')  # position = no unit ids are known, neurons are counted from 0
        labels: longblob               # cluster of every neuron (n,) int16 or int32, from 0; -1 = no cluster (hdbscan)
        confidences: longblob          # largest responsibility of every neuron (n,) float32 (0 to 1)
        margins=null: longblob         # largest minus second largest responsibility (n,) float32 (0 to 1)
        """

    @property
    def key_source(self) -> Any:
        """Trained models of a DECEMber trainer with the clustering ``december``, all others with the other clusterings.

        Those in functional space wait for the model's feature covariance, those with ``minimum_test_correlation`` for
        its test correlations. A model that was imported without its recording either came with these or never gets any;
        in the latter case, the job exists and its error says so. Those with an alignment wait for that of the model,
        which only rotation-equivariant models get.
        """
        columns = ("method", "space", "minimum_test_correlation", "alignment_hash")
        pairs = self.trained_model_table.proj() * self.clustering_table.proj(*columns)
        fitting = pairs & f"(method = '{DECEMBER}') = ({of_trainers(self.december_trainers)})"
        fitting &= ["space = 'readout'", self.vectors.feature_covariance.proj()]
        fitting &= ["alignment_hash IS NULL", self.vectors.alignment.proj()]
        never_tested = f"dataset_fn = '{IMPORTED_NEURONS}'"
        tested = [NO_FILTER, never_tested, self.vectors.test_performance.proj()]
        return (fitting & tested).proj()

    @classmethod
    def is_december(cls, trainer_fn: str) -> bool:
        """Return whether models of this trainer are clustered by the mixture that they were trained with."""
        return fits(trainer_fn, cls.december_trainers)

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Return, packed, the clustering, what the trainer said about neurons and mixture, and the configurations."""
        clustering = (self.clustering_table & key).fetch1("method", "n_clusters", "settings")
        output = (self.trained_model_table & key).fetch1("output")
        output = output if isinstance(output, Mapping) else {}
        fetched = {
            "clustering": list(clustering),
            "neurons": output.get("neurons"),
            "mixture": output.get("mixture"),
            "config": full_config(self.nnfabrik, key, trainer=False),
        }
        return (encode_blob(fetched),)

    def make_compute(self, key: dict[str, Any], fetched: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Cluster the vectors in the clustering's space; return the entry's values and those of its sessions."""
        from december_plugin.clustering.post_hoc import cluster_readouts

        inputs = decode_blob(fetched)
        method, n_clusters, settings = inputs["clustering"]
        embeddings = self.vectors.of_all_neurons(key, inputs["config"])
        neurons = session_neurons(embeddings.data_keys, inputs["neurons"], lambda: build_loaders(inputs["config"], key))
        kept = self.vectors.kept(key, embeddings)
        if not kept.all():
            neurons, embeddings = _kept_neurons(neurons, kept), embeddings.take(kept)
            _check_enough(len(embeddings), int(n_clusters), quality_filter(settings))
        if method == DECEMBER:
            found = _most_responsible(embeddings.vectors, inputs["mixture"])
        else:
            own = own_settings(settings)
            found = cluster_readouts(embeddings.vectors, method=method, n_clusters=int(n_clusters), **own)
        row, sessions = assignment_rows(found, neurons)
        return {**row, "n_left_out": len(kept) - len(embeddings)}, sessions

    def make_insert(self, key: dict[str, Any], row: dict[str, Any], sessions: list[dict[str, Any]]) -> None:
        """Insert the entry and its sessions."""
        self.insert1({**key, **row})
        self.Session.insert({**key, **session} for session in sessions)


def _kept_neurons(neurons: list[SessionNeurons], kept: np.ndarray) -> list[SessionNeurons]:
    """Return the neurons of a mask (N,), without sessions that have none; positions still count all neurons."""
    own = np.split(kept, np.cumsum([len(session.unit_ids) for session in neurons])[:-1])
    return [
        replace(session, unit_ids=session.unit_ids[mask])
        for session, mask in zip(neurons, own, strict=True)
        if mask.any()
    ]


def _check_enough(n_neurons: int, n_clusters: int, wanted: QualityFilter) -> None:
    if n_neurons < n_clusters:
        raise MisfitError(
            f"n_clusters is {n_clusters}, but minimum_test_correlation = {wanted.minimum_test_correlation:g} leaves "
            f"only {numbered(n_neurons, 'neuron')}. Register a clustering with a smaller minimum_test_correlation, or "
            "with fewer clusters."
        )


def trained_mixture_clusters(vectors: np.ndarray, mixture: Mapping[str, Any] | None) -> ClusteringResult:
    """Return the clusters of readout vectors (N, D) in the mixture that a DECEMber trainer fitted and stored.

    Raises
    ------
    EmbeddingError
        If the trainer stored no mixture, or one whose dimension differs from that of the readout vectors, or one of
        functional embeddings without their covariance.
    """
    return _most_responsible(in_space_of_mixture(vectors, mixture), mixture)


def _most_responsible(vectors: np.ndarray, mixture: Mapping[str, Any] | None) -> ClusteringResult:
    """Return the clusters of vectors (N, D) in the space of the mixture."""
    import torch

    from december_plugin.clustering.student_t_mixture import StudentTMixture

    if not isinstance(mixture, Mapping):
        raise EmbeddingError(
            "the trainer stored no mixture in its output['mixture'], so no clusters can be read. Use a post hoc "
            "clustering for this model, or the december_trainer."
        )
    centers, scales, mixing_weights = (
        torch.tensor(np.asarray(mixture[name]), dtype=torch.float64) for name in ("centers", "scales", "mixing_weights")
    )
    if centers.shape[1] != vectors.shape[1]:
        raise EmbeddingError(
            f"the stored mixture has {centers.shape[1]} dimensions and the readout vectors have {vectors.shape[1]}; "
            "the state dict and the output are not from the same training."
        )
    fitted = StudentTMixture(*centers.shape, dof=float(mixture["dof"]), weights=str(mixture["weights"])).double()
    with torch.no_grad():
        fitted.centers.copy_(centers)
        fitted.scales.copy_(scales)
        fitted.mixing_weights.copy_(mixing_weights)
    return fitted.result(torch.as_tensor(vectors, dtype=torch.float64))


def assignment_rows(
    clusters: ClusteringResult, neurons: list[SessionNeurons]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the values of an entry and of its sessions, without keys.

    Parameters
    ----------
    clusters
        Of all neurons (N,), sessions one after the other.
    neurons
        Identities, sessions in the same order.
    """
    dtype = np.int16 if clusters.n_clusters <= np.iinfo(np.int16).max else np.int32
    sessions, digest, start = [], hashlib.md5(usedforsecurity=False), 0
    for session in neurons:
        own = slice(start, start + len(session.unit_ids))
        start = own.stop
        labels = np.ascontiguousarray(clusters.labels[own], dtype=dtype)
        digest.update(f"{session.data_key}\0{len(labels)}\0".encode())
        digest.update(session.unit_ids.tobytes() + labels.astype(np.int64).tobytes())
        sessions.append(
            {
                "data_key": session.data_key,
                "n_session_neurons": len(labels),
                "unit_ids": session.unit_ids,
                "unit_ids_from": session.unit_ids_from,
                "labels": labels,
                "confidences": np.ascontiguousarray(clusters.confidences[own], dtype=np.float32),
                "margins": np.ascontiguousarray(clusters.margins[own], dtype=np.float32),
            }
        )
    log_likelihood = clusters.log_likelihood
    row = {
        "n_neurons": len(clusters.labels),
        "n_clusters_used": clusters.n_clusters,
        "n_clusters_found": len(np.unique(clusters.labels[clusters.labels != NO_CLUSTER])),
        "mean_confidence": float(np.mean(clusters.confidences)),
        "log_likelihood": log_likelihood if log_likelihood is not None and np.isfinite(log_likelihood) else None,
        "converged": clusters.converged,
        "labels_md5": digest.hexdigest(),
    }
    return row, sessions


# Bytes of one INSERT statement, well below the 1 MB that the strictest servers take.
STATEMENT_BYTES = 500_000


class NeuronCluster(dj.Manual):
    """The clusters of :class:`ClusterAssignment` as one narrow row per neuron, written on demand by :meth:`fill`.

    The arrays of :class:`ClusterAssignment` are the canonical store. The rows here have a short surrogate key,
    a UUID made from the key of the session's assignment, and are indexed by unit id, so that the clusters of one neuron
    in all models are found quickly. Deleting an assignment deletes its rows.
    """

    cluster_assignment_table: ClassVar[Any]

    definition = """
    # Sessions of assignments that are also stored as one row per neuron
    session_uuid: uuid                # made of the key of the session's assignment
    ---
    -> [unique] ClusterAssignment.Session
    """

    class Neuron(dj.Part):
        """The cluster of one neuron."""

        definition = """
        # Cluster of one neuron
        -> master
        unit_id: bigint               # unit id within the session
        ---
        label: int                    # cluster, from 0; -1 = no cluster (hdbscan)
        confidence: float             # its responsibility (0 to 1)
        index (unit_id)
        """

    def fill(self, restriction: Any = True) -> int:
        """Write the rows of the assignments that have none yet, and return the number of rows written.

        Parameters
        ----------
        restriction
            Which assignments.
        """
        assignments = self.cluster_assignment_table
        sessions = assignments.Session & restricted(assignments, restriction).proj()
        n_rows = 0
        for key in (sessions.proj() - self.proj(*sessions.primary_key)).fetch("KEY"):
            unit_ids, labels, confidences = (sessions & key).fetch1("unit_ids", "labels", "confidences")
            session_uuid = uuid_of(key)
            with contextlib.suppress(DuplicateError), self.connection.transaction:  # another process may be quicker
                self.insert1({"session_uuid": session_uuid, **key})
                self._insert_neurons(session_uuid, unit_ids, labels, confidences)
                n_rows += len(unit_ids)
        return n_rows

    def _insert_neurons(
        self, session_uuid: uuid.UUID, unit_ids: np.ndarray, labels: np.ndarray, confidences: np.ndarray
    ) -> None:
        # DataJoint's insert handles every value separately, which takes minutes where this takes seconds.
        prefix = f"(x'{session_uuid.hex}',"
        rows = [
            f"{prefix}{unit_id},{label},{confidence:.9g})"
            for unit_id, label, confidence in zip(unit_ids.tolist(), labels.tolist(), confidences.tolist(), strict=True)
        ]
        step = max(1, STATEMENT_BYTES // max(len(prefix) + 48, 1))
        insert = f"INSERT INTO {self.Neuron.full_table_name} (session_uuid, unit_id, label, confidence) VALUES "
        for start in range(0, len(rows), step):
            self.connection.query(insert + ",".join(rows[start : start + step]))


def uuid_of(key: dict[str, Any]) -> uuid.UUID:
    """Return the surrogate key of one session's assignment."""
    text = "\0".join(f"{name}={key[name]}" for name in sorted(key))
    return uuid.uuid5(uuid.NAMESPACE_OID, text)
