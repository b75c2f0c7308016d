"""One partition from the partitions that several seeds found, and how certain it is of every neuron.

Cluster numbers mean nothing across seeds. Every seed's clusters are matched one to one to those of a reference, so that
as many neurons as possible stay together (:mod:`december_plugin.evaluation.matching`); each seed then votes on every
neuron. The reference is the seed that agrees best with all others at first, and the outcome of the vote after that,
until the vote no longer changes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import SettingsError
from december_plugin.evaluation.matching import NO_PARTNER, match_clusters, medoid_partition
from december_plugin.text.array_repr import ArrayRepr

IntArray = npt.NDArray[np.int64]
MAX_ROUNDS = 50
LEFT_OVER = -2  # vote for a cluster that is not matched with any of the reference's


@dataclass(frozen=True, eq=False, repr=False)
class Consensus(ArrayRepr):
    """A partition that several seeds share.

    Attributes
    ----------
    clusters
        Consensus cluster of every neuron, (N,) int64, numbered as in the seed ``reference``; -1 for a neuron that most
        seeds leave without a cluster.
    stability
        Share of the seeds that put the neuron into its consensus cluster, (N,), 0 to 1.
    votes
        Every seed's clusters in the consensus' numbers, (S, N) int64; -1 without a cluster, -2 for a cluster without a
        partner.
    reference
        Position of the seed that agrees best with all others.
    """

    clusters: IntArray
    stability: npt.NDArray[np.float64]
    votes: IntArray
    reference: int

    @property
    def unanimous(self) -> npt.NDArray[np.bool_]:
        """Which neurons all seeds put into the same consensus cluster, (N,); having no cluster does not count."""
        return np.asarray((self.votes == self.clusters).all(axis=0) & (self.clusters != NO_CLUSTER))

    @property
    def unanimous_fraction(self) -> float:
        """Share of the neurons that all seeds put into the same consensus cluster."""
        return float(self.unanimous.mean())


@dataclass(frozen=True)
class ConsensusCluster:
    """One consensus cluster: its number, its neurons, how many are unanimous, and their mean stability."""

    cluster: int
    n_neurons: int
    n_unanimous: int
    mean_stability: float


def consensus_partition(labels: Sequence[npt.ArrayLike]) -> Consensus:
    """Return the partition that most seeds agree on.

    Parameters
    ----------
    labels
        For each of ``S`` seeds the clusters of the same neurons in the same order, (N,) integers of at least 0; -1 for
        a neuron without a cluster, which is a vote, too.

    Returns
    -------
    Consensus
        A tie between clusters goes to the reference. The same partition whatever the numbers of the other seeds'
        clusters are, unless two matchings keep equally many neurons together.

    Raises
    ------
    SettingsError
        If there are fewer than two seeds, they have different numbers of neurons, or labels are not integers of at
        least -1.

    See Also
    --------
    match_clusters : Gives a partition the numbers of another one.
    agreement_across_seeds : How well the seeds agree.
    december_plugin.results.consensus_table : The consensus of models in the database.

    Examples
    --------
    >>> from december_plugin.evaluation import consensus_partition
    >>> seeds = [[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 0]]  # the numbers of clusters are arbitrary
    >>> consensus = consensus_partition(seeds)
    >>> consensus.clusters.tolist(), consensus.stability.round(2).tolist()
    ([0, 0, 1, 1], [1.0, 1.0, 1.0, 0.67])
    """
    partitions = _checked(labels)
    reference = medoid_partition(partitions)
    clusters = partitions[reference]
    # Each round takes no neurons away from the matched ones, but ties can go round in circles.
    for _ in range(MAX_ROUNDS):
        votes = np.stack([_votes(clusters, other) for other in partitions])
        winners, stability = majority(votes, ties=clusters)
        if np.array_equal(winners, clusters):
            break
        clusters = winners
    return Consensus(winners, stability, votes, reference)


def consensus_clusters(consensus: Consensus) -> list[ConsensusCluster]:
    """Return the clusters of a consensus that hold at least one neuron, by their numbers, without -1 (no cluster)."""
    unanimous = consensus.unanimous
    found = []
    for cluster in np.unique(consensus.clusters[consensus.clusters != NO_CLUSTER]):
        members = consensus.clusters == cluster
        found.append(
            ConsensusCluster(
                int(cluster),
                int(members.sum()),
                int(unanimous[members].sum()),
                float(consensus.stability[members].mean()),
            )
        )
    return found


def majority(votes: IntArray, *, ties: IntArray) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Return, for votes (S, N), the cluster (N,) with most votes and its share; ties go to ``ties`` (N,)."""
    n_seeds, n_neurons = votes.shape
    # The first column counts the votes for no cluster.
    counts = np.zeros((n_neurons, max(votes.max(), ties.max()) + 2), dtype=np.int64)
    neurons = np.arange(n_neurons)
    for vote in votes:
        has_partner = vote != LEFT_OVER
        np.add.at(counts, (neurons[has_partner], vote[has_partner] - NO_CLUSTER), 1)
    # Twice the votes, and one more for the favourite, breaks ties without changing the order otherwise.
    weighted = 2 * counts
    weighted[neurons, ties - NO_CLUSTER] += 1
    winner = weighted.argmax(axis=1)
    return winner + NO_CLUSTER, counts[neurons, winner] / n_seeds


def _votes(clusters: IntArray, partition: IntArray) -> IntArray:
    """Return the clusters (N,) of one partition in the numbers of ``clusters``."""
    matched = match_clusters(clusters, partition)
    return np.where((matched == NO_PARTNER) & (partition != NO_CLUSTER), LEFT_OVER, matched)


def _checked(labels: Sequence[npt.ArrayLike]) -> list[IntArray]:
    if len(labels) < 2:
        raise SettingsError(f"a consensus needs at least two seeds; there is {len(labels)}.")
    partitions = [np.asarray(each) for each in labels]
    shapes = {each.shape for each in partitions}
    if len(shapes) != 1 or len(partitions[0].shape) != 1 or not partitions[0].size:
        raise SettingsError(
            f"the labels of the seeds have the shapes {', '.join(map(str, sorted(shapes)))}; all must be (N,), one "
            "label for each of the same neurons."
        )
    for each in partitions:
        if each.dtype.kind not in "iu" or each.min() < NO_CLUSTER:
            raise SettingsError("labels must be integers of at least 0, the clusters' numbers, or -1 for no cluster.")
    return [each.astype(np.int64) for each in partitions]
