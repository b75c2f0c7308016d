"""The partition that the seeds of a configuration share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import datajoint as dj
import numpy as np

from december_plugin.evaluation.consensus import Consensus as Partition
from december_plugin.evaluation.consensus import consensus_clusters, consensus_partition
from december_plugin.schemas.seed_sets import SeedSetTable
from december_plugin.schemas.stored_labels import CommonNeurons, common_neurons, stored_per_neuron


@dataclass(frozen=True, eq=False)
class StoredConsensus:
    """A consensus of stored assignments: the neurons, the partition, and means over seeds (N,), NaN if not stored."""

    neurons: CommonNeurons
    partition: Partition
    confidences: np.ndarray
    margins: np.ndarray


def consensus_of(cluster_assignment: Any, keys: Sequence[Mapping[str, Any]]) -> StoredConsensus:
    """Return the consensus of several stored assignments, of the neurons that all of them have."""
    neurons = common_neurons(cluster_assignment, keys)
    means: dict[str, np.ndarray] = {}
    for column in ("confidences", "margins"):
        stored = [stored_per_neuron(cluster_assignment, key, column) for key in keys]
        means[column] = np.full(len(neurons.ids), np.nan)
        if all(values is not None for values in stored):
            own = [values[at] for values, at in zip(stored, neurons.positions, strict=True) if values is not None]
            means[column] = np.asarray(np.mean(own, axis=0, dtype=np.float64))
    return StoredConsensus(neurons, consensus_partition(neurons.labels), **means)


class Consensus(SeedSetTable, dj.Computed):
    """The partition that the seeds of a configuration share, and how many of them agree on every neuron.

    There is one entry for every set of seeds. When a seed is added, there is a new entry for the larger set;
    :func:`december_plugin.results.consensus.consensus_table` takes those of the present seeds.
    """

    cluster_assignment_table: ClassVar[Any]

    definition = """
    # Partition that the seeds of a configuration share
    -> ClusterAssignment.proj(largest_seed='seed')
    -> ClusterAssignment.proj(smallest_seed='seed')
    -> SeedCount
    -> SeedSet
    ---
    n_consensus_neurons: int unsigned   # number of neurons that all seeds have
    n_consensus_clusters: int unsigned  # number of consensus clusters that hold at least one neuron
    mean_stability: double              # mean over neurons of the share of seeds that agree on them (0 to 1)
    core_fraction: double               # share of neurons that all seeds put into the same consensus cluster (0 to 1)
    reference_seed: int                 # seed whose numbers the consensus clusters have
    seeds: longblob                     # the seeds (S,) int64, ascending
    labels_md5s: longblob               # digests of their labels, list of str: equal if the assignments are equal
    """

    class Cluster(dj.Part):
        """One consensus cluster."""

        definition = """
        # Consensus clusters
        -> master
        cluster: int unsigned           # number of the consensus cluster, from 0
        ---
        n_cluster_neurons: int unsigned # number of neurons
        n_core_neurons: int unsigned    # number of neurons that all seeds put there: the stable core
        cluster_stability: double       # mean over its neurons of the share of seeds that agree on them (0 to 1)
        """

    class Session(dj.Part):
        """The neurons of one session that all seeds have."""

        definition = """
        # Consensus of the neurons of one session
        -> master
        data_key: varchar(128)          # session, as the data loaders name it
        ---
        consensus_unit_ids: longblob    # unit ids (n,) int64
        consensus_clusters: longblob    # consensus cluster of every neuron (n,) int32, from 0
        stabilities: longblob           # share of the seeds that put the neuron there (n,) float32 (0 to 1)
        """

    @property
    def key_source(self) -> Any:
        """The set of all seeds of every configuration that has at least two."""
        return self.current_sets()

    def make(self, key: dict[str, Any]) -> None:
        """Match the clusters of all seeds and let them vote on every neuron."""
        keys, digests = self.seeds_of(key)
        found = consensus_of(self.cluster_assignment_table, keys)
        partition, ids = found.partition, found.neurons.ids
        clusters = consensus_clusters(partition)
        self.enter_set(key)
        self.insert1(
            {
                **key,
                "n_consensus_neurons": len(ids),
                "n_consensus_clusters": len(clusters),
                "mean_stability": float(partition.stability.mean()),
                "core_fraction": partition.unanimous_fraction,
                "reference_seed": keys[partition.reference]["seed"],
                "seeds": np.array([each["seed"] for each in keys], dtype=np.int64),
                "labels_md5s": digests,
            }
        )
        names = {
            "n_neurons": "n_cluster_neurons",
            "n_unanimous": "n_core_neurons",
            "mean_stability": "cluster_stability",
        }
        self.Cluster.insert(
            {**key, **{names.get(name, name): value for name, value in asdict(cluster).items()}} for cluster in clusters
        )
        self.Session.insert(
            {
                **key,
                "data_key": str(data_key),
                "consensus_unit_ids": ids.unit_ids[own].astype(np.int64),
                "consensus_clusters": partition.clusters[own].astype(np.int32),
                "stabilities": partition.stability[own].astype(np.float32),
            }
            for data_key in np.unique(ids.data_keys)
            for own in [ids.data_keys == data_key]
        )
