"""The clusters of all neurons of a trained model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import datajoint as dj
import numpy as np

from december_plugin.errors import EmbeddingError
from december_plugin.schemas.clustering import DECEMBER
from december_plugin.schemas.neuron_ids import SessionNeurons, session_neurons
from december_plugin.schemas.serialization import packed, unpacked
from december_plugin.schemas.stored_models import build_loaders, full_config
from december_plugin.schemas.stored_readouts import stored_embeddings

if TYPE_CHECKING:
    from december_plugin.clustering.result import ClusteringResult


class ClusterAssignment(dj.Computed):
    """The clusters of all neurons of one trained model, one array per session.

    The clustering ``december`` goes with models of a DECEMber trainer, post hoc clusterings with all others. Neurons
    are identified by session and unit id.
    """

    trained_model_table: ClassVar[Any]
    clustering_table: ClassVar[Any]
    nnfabrik: ClassVar[Any]
    december_trainers: ClassVar[tuple[str, ...]]

    definition = """
    # Clusters of all neurons of a trained model
    -> TrainedModel
    -> Clustering
    ---
    n_neurons: int unsigned            # number of neurons, all sessions together
    n_clusters_used: int unsigned      # number of clusters K of the mixture or method
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
        labels: longblob               # cluster of every neuron (n,) int16 or int32, from 0
        confidences: longblob          # largest responsibility of every neuron (n,) float32 (0 to 1)
        margins=null: longblob         # largest minus second largest responsibility (n,) float32 (0 to 1)
        """

    @property
    def key_source(self) -> Any:
        """Trained models of a DECEMber trainer with the clustering ``december``, all others with the other ones."""
        patterns = [name.replace("*", "%") for name in self.december_trainers]
        is_december = " OR ".join(f"trainer_fn LIKE '{pattern}'" for pattern in patterns) or "FALSE"
        pairs = self.trained_model_table.proj() * self.clustering_table.proj("method")
        return (pairs & f"(method = '{DECEMBER}') = ({is_december})").proj()

    @classmethod
    def is_december(cls, trainer_fn: str) -> bool:
        """Return whether models of this trainer are clustered by the mixture that they were trained with."""
        patterns = (".*".join(map(re.escape, name.split("*"))) for name in cls.december_trainers)
        return any(re.fullmatch(pattern, trainer_fn) for pattern in patterns)

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
        return (packed(fetched),)

    def make_compute(self, key: dict[str, Any], fetched: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Cluster the readout vectors; return the entry's values and those of its sessions."""
        from december_plugin.clustering.post_hoc import cluster_readouts

        inputs = unpacked(fetched)
        embeddings = stored_embeddings(self.trained_model_table, inputs["config"], key)
        neurons = session_neurons(embeddings.data_keys, inputs["neurons"], lambda: build_loaders(inputs["config"], key))
        method, n_clusters, settings = inputs["clustering"]
        if method == DECEMBER:
            found = trained_mixture_clusters(embeddings.vectors, inputs["mixture"])
        else:
            found = cluster_readouts(embeddings.vectors, method=method, n_clusters=int(n_clusters), **settings)
        return assignment_rows(found, neurons)

    def make_insert(self, key: dict[str, Any], row: dict[str, Any], sessions: list[dict[str, Any]]) -> None:
        """Insert the entry and its sessions."""
        self.insert1({**key, **row})
        self.Session.insert({**key, **session} for session in sessions)


def trained_mixture_clusters(vectors: np.ndarray, mixture: Mapping[str, Any] | None) -> ClusteringResult:
    """Return the clusters of readout vectors (N, D) in the mixture that a DECEMber trainer fitted and stored.

    Raises
    ------
    EmbeddingError
        If the trainer stored no mixture, or one of another dimension than the readout vectors.
    """
    import torch

    from december_plugin.clustering.student_t_mixture import StudentTMixture

    if not isinstance(mixture, Mapping):
        raise EmbeddingError(
            "the trainer stored no mixture in its output['mixture'], so there are no clusters to read. Use a post hoc "
            "clustering for this model, or the december_trainer."
        )
    centers, scales, mixing_weights = (
        torch.tensor(np.asarray(mixture[name]), dtype=torch.float64) for name in ("centers", "scales", "mixing_weights")
    )
    if centers.shape[1] != vectors.shape[1]:
        raise EmbeddingError(
            f"the stored mixture has {centers.shape[1]} dimensions and the readout vectors have {vectors.shape[1]}; "
            "the state dict and the output are not of the same training."
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
        "n_clusters_found": len(np.unique(clusters.labels)),
        "mean_confidence": float(np.mean(clusters.confidences)),
        "log_likelihood": log_likelihood if log_likelihood is not None and np.isfinite(log_likelihood) else None,
        "converged": clusters.converged,
        "labels_md5": digest.hexdigest(),
    }
    return row, sessions
