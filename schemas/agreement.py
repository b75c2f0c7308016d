"""Agreement of clusters between pairs of model seeds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

import datajoint as dj

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import SettingsError
from december_plugin.evaluation.agreement import MEASURES, compare_partitions
from december_plugin.schemas.restrictions import restricted
from december_plugin.schemas.stored_labels import assigned_labels


class SeparatedInt(int):
    """An integer whose text begins with a comma.

    DataJoint names a reservation by the key's values in a row without separators, so that the seeds 1 and 123 would be
    the same job as 11 and 23.
    """

    def __str__(self) -> str:
        return f",{int(self)}"


class SeedAgreement(dj.Computed):
    """Agreement between the assignments of two seeds of one configuration: dataset, model, trainer and clustering.

    There is one entry for every pair with ``seed_a < seed_b``. Means over pairs are queries, see :meth:`summary`, so
    that a seed that is added later is never missed.
    """

    cluster_assignment_table: ClassVar[Any]

    definition = """
    # Agreement of the clusters of two model seeds of one configuration
    -> ClusterAssignment.proj(seed_a='seed')
    -> ClusterAssignment.proj(seed_b='seed')
    ---
    adjusted_rand_index: double       # 1 = the same partition, 0 = as expected by chance (dimensionless)
    fowlkes_mallows: double           # geometric mean of pairwise precision and recall (0 to 1)
    homogeneity: double               # 1 if every cluster of seed_b lies in one cluster of seed_a (0 to 1)
    completeness: double              # 1 if every cluster of seed_a lies in one cluster of seed_b (0 to 1)
    v_measure: double                 # harmonic mean of homogeneity and completeness (0 to 1)
    n_neurons: int unsigned           # number of neurons that were compared: those that have a cluster in both
    """

    @property
    def key_source(self) -> Any:
        """All pairs of assignments that differ only in the seed, each once."""
        assignments = self.cluster_assignment_table
        return assignments.proj(seed_a="seed") * assignments.proj(seed_b="seed") & "seed_a < seed_b"

    def _job_key(self, key: dict[str, Any]) -> dict[str, Any]:
        return {**key, "seed_b": SeparatedInt(key["seed_b"])}

    def make(self, key: dict[str, Any]) -> None:
        """Compare the two assignments, neuron by neuron."""
        shared = {name: value for name, value in key.items() if name not in ("seed_a", "seed_b")}
        first, second = (
            assigned_labels(self.cluster_assignment_table, {**shared, "seed": key[name]})
            for name in ("seed_a", "seed_b")
        )
        for data_key in first.from_recording.keys() & second.from_recording.keys():
            if first.from_recording[data_key] != second.from_recording[data_key]:
                raise SettingsError(
                    f"session {data_key!r} has unit ids for only one of the seeds {key['seed_a']} and "
                    f"{key['seed_b']}, so its neurons cannot be matched. Train both seeds on the same dataset."
                )
        agreement = compare_partitions(
            first.labels, second.labels, ids_a=first.ids, ids_b=second.ids, common_only=True, no_cluster=NO_CLUSTER
        )
        self.insert1({**key, **asdict(agreement)})

    def summary(self, restriction: Any = True, *, measure: str = "adjusted_rand_index") -> Any:
        """Return mean, sd and number of pairs of every configuration, as a DataJoint query.

        Parameters
        ----------
        restriction
            Which pairs to take.
        measure
            Column to summarise.

        Returns
        -------
        datajoint.QueryExpression
            Keyed by the primary key without the seeds; ``agreement_mean``, ``agreement_sd`` (between pairs, divisor
            n - 1, NULL for one pair) and ``n_pairs``.

        Raises
        ------
        SettingsError
            If the measure is unknown.
        """
        if measure not in MEASURES:
            raise SettingsError(f"there is no measure {measure!r}. Allowed: {', '.join(MEASURES)}.")
        configuration = [name for name in self.primary_key if name not in ("seed_a", "seed_b")]
        return dj.U(*configuration).aggr(
            restricted(self, restriction),
            agreement_mean=f"avg({measure})",
            agreement_sd=f"stddev_samp({measure})",
            n_pairs="count(*)",
        )
