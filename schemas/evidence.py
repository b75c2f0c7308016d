"""Types or a continuum: what is computed over all seeds of a configuration, and criteria for the number of clusters."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import datajoint as dj
import numpy as np

from december_plugin.errors import SettingsError
from december_plugin.evaluation.agreement import compare_partitions
from december_plugin.evaluation.consensus import Consensus as Partition
from december_plugin.evaluation.consensus import consensus_clusters, consensus_partition
from december_plugin.evaluation.null import DEFAULT_DRAWS, null_agreement, null_band
from december_plugin.schemas.serialization import decode_blob, encode_blob
from december_plugin.schemas.stored import clustering_recipe, full_config, in_session_order, stored_embeddings
from december_plugin.schemas.stored_labels import CommonNeurons, assigned_labels, common_neurons, stored_per_neuron

MOST_SEEDS = 500
# Digest of a set: exclusive or of the digests of its members, in two halves, since SQL's integers have 64 bits. It does
# not depend on an order, and no text of all members is built, whose length servers limit.
MEMBER = "MD5(CONCAT(seed, ' ', labels_md5))"
HALF = "LPAD(LOWER(HEX(BIT_XOR(CAST(CONV(SUBSTRING({member}, {start}, 16), 16, 10) AS UNSIGNED)))), 16, '0')"
SET_DIGEST = f"CONCAT({HALF.format(member=MEMBER, start=1)}, {HALF.format(member=MEMBER, start=17)})"


class SeedCount(dj.Lookup):
    """Numbers of seeds, for the keys of what is computed over all seeds of a configuration."""

    definition = """
    # Numbers of seeds
    n_seeds: int unsigned      # number of model seeds of a configuration
    """

    contents = [{"n_seeds": count} for count in range(2, MOST_SEEDS + 1)]  # noqa: RUF012


class SeedSet(dj.Manual):
    """Digests of sets of seeds and of their labels, for the same keys; entered with the first result of a set."""

    definition = """
    # Sets of seeds with their labels
    seed_set: char(32)         # digest of all seeds of a configuration and of the labels that each has
    """


def set_digest(members: Mapping[int, str]) -> str:
    """Return the digest of a set, from the digest of every seed's labels; the same as the server's."""
    total = 0
    for seed, labels_md5 in members.items():
        total ^= int(hashlib.md5(f"{seed} {labels_md5}".encode(), usedforsecurity=False).hexdigest(), 16)
    return f"{total:032x}"


class SeedSetTable:
    """Mixin of computed tables that have one entry for each set of seeds of a configuration.

    The set is named by a digest of its seeds and of their labels, so that it does not matter in which order they were
    computed. Its smallest and largest seed and their number are in the key, too. When a seed is added or deleted, or
    gets other labels, there is a new key; the entry of the other set stays, and is the one again if that set returns.
    """

    cluster_assignment_table: ClassVar[Any]
    seed_set_table: ClassVar[Any]

    def current_sets(self) -> Any:
        """Return the set of all seeds of every configuration that has at least two, as a query of keys."""
        assignments = self.cluster_assignment_table()
        configuration = [name for name in assignments.primary_key if name != "seed"]
        sets = dj.U(*configuration).aggr(
            assignments,
            n_seeds="count(*)",
            largest_seed="MAX(seed)",
            smallest_seed="MIN(seed)",
            seed_set=SET_DIGEST,
        )
        return dj.U(*configuration, "largest_seed", "smallest_seed", "n_seeds", "seed_set") & (
            sets & f"n_seeds BETWEEN 2 AND {MOST_SEEDS}"
        )

    def enter_set(self, key: Mapping[str, Any]) -> None:
        """Enter the set of a key, which the entry refers to."""
        row = {"seed_set": key["seed_set"]}
        if not self.seed_set_table & row:
            # Not skip_duplicates, for which a worker's account needs the right to update.
            with contextlib.suppress(dj.errors.DuplicateError):
                self.seed_set_table.insert1(row)

    def seeds_of(self, key: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the assignments of a set, by seed, as keys, and the digests of their labels.

        Raises
        ------
        SettingsError
            If assignments of the set were deleted, or have other labels now.
        """
        assignments = self.cluster_assignment_table()
        configuration = {name: key[name] for name in assignments.primary_key if name != "seed"}
        rows = (assignments & configuration).fetch(
            "seed", "labels_md5", as_dict=True, order_by=("assignment_ts", "seed")
        )
        members = [(int(row["seed"]), str(row["labels_md5"])) for row in rows]
        chosen = next((each for each in _subsets(members) if set_digest(dict(each)) == key["seed_set"]), None)
        if chosen is None:
            raise SettingsError(
                f"the {key['n_seeds']} assignments that are to be compared are not there any more: some were deleted, "
                "or computed again with another outcome. Populate again."
            )
        chosen = sorted(chosen)
        return [{**configuration, "seed": seed} for seed, _ in chosen], [md5 for _, md5 in chosen]


def _subsets(members: list[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Yield the sets that may have been all there were a while ago: without the newest, or without any two."""
    yield members
    for n_kept in range(len(members) - 1, 1, -1):
        yield members[:n_kept]
    for n_left_out in (1, 2):  # several that were assigned within one second
        for left_out in itertools.combinations(members, n_left_out):
            yield [member for member in members if member not in left_out]


@dataclass(frozen=True, eq=False)
class StoredConsensus:
    """A consensus of stored assignments: the neurons, the partition, and means over seeds (N,); NaN if not stored."""

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
    :func:`december_plugin.results.evidence.consensus_table` takes those of the present seeds.
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


class ClusterQuality(dj.Computed):
    """How well a number of clusters fits the readout vectors of one model: criteria for choosing it.

    For DECEMber, whose mixture was trained with the model, the mixture is fitted again to a part of the neurons, on
    the readouts as the training left them, to score the others.
    """

    trained_model_table: ClassVar[Any]
    clustering_table: ClassVar[Any]
    cluster_assignment_table: ClassVar[Any]
    nnfabrik: ClassVar[Any]

    definition = """
    # Criteria for the number of clusters
    -> ClusterAssignment
    ---
    heldout_log_likelihood=null: double     # mean over splits, per held-out neuron (nat); null without a likelihood
    heldout_log_likelihood_se=null: double  # standard error of that mean, over splits (nat)
    n_splits: int unsigned                  # number of random splits, one third of the neurons held out in each
    bic=null: double                        # Bayesian information criterion of the assignment's fit (smaller = better)
    silhouette=null: double                 # mean silhouette, Euclidean (-1 to 1); null for a single cluster
    """

    @property
    def key_source(self) -> Any:
        """All assignments."""
        return self.cluster_assignment_table.proj()

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Return, packed, clustering, log likelihood, mixture and configurations."""
        method, settings = (self.clustering_table & key).fetch1("method", "settings")
        log_likelihood, n_clusters = (self.cluster_assignment_table & key).fetch1("log_likelihood", "n_clusters_used")
        output = (self.trained_model_table & key).fetch1("output")
        mixture = output.get("mixture") if isinstance(output, Mapping) else None
        fetched = {
            "recipe": clustering_recipe(method, n_clusters, settings, mixture=mixture, seed=int(key["seed"])),
            "log_likelihood": log_likelihood,
            "config": full_config(self.nnfabrik, key, trainer=False),
            "data_keys": list((self.cluster_assignment_table.Session & key).fetch("data_key", order_by="data_key")),
        }
        return (encode_blob(fetched),)

    def make_compute(self, key: dict[str, Any], fetched: str) -> tuple[dict[str, Any]]:
        """Return the criteria."""
        from december_plugin.evaluation.model_selection import (
            LIKELIHOOD_METHODS,
            N_SPLITS,
            bayesian_information_criterion,
            held_out_log_likelihood,
            silhouette,
        )

        inputs = decode_blob(fetched)
        embeddings = stored_embeddings(self.trained_model_table, inputs["config"], key)
        vectors = in_session_order(embeddings, inputs["data_keys"])
        labels = assigned_labels(self.cluster_assignment_table, key).labels
        recipe = inputs["recipe"]
        row: dict[str, Any] = {"n_splits": 0, "silhouette": _finite(silhouette(vectors, labels))}
        n_train = len(vectors) - max(1, round(len(vectors) / 3))
        if recipe["method"] in LIKELIHOOD_METHODS and recipe["n_clusters"] <= n_train:
            settings = {name: value for name, value in recipe.items() if name not in ("method", "n_clusters")}
            held_out = held_out_log_likelihood(
                vectors, method=recipe["method"], n_clusters=recipe["n_clusters"], settings=settings
            )
            row |= {
                "heldout_log_likelihood": _finite(held_out.mean),
                "heldout_log_likelihood_se": _finite(held_out.standard_error),
                "n_splits": N_SPLITS,
            }
        if inputs["log_likelihood"] is not None and math.isfinite(inputs["log_likelihood"]):
            row["bic"] = bayesian_information_criterion(
                float(inputs["log_likelihood"]),
                n_neurons=len(vectors),
                n_features=vectors.shape[1],
                n_clusters=recipe["n_clusters"],
                weights="learned" if recipe["method"] == "gmm" else str(recipe.get("weights", "uniform")),
            )
        return (row,)

    def make_insert(self, key: dict[str, Any], row: dict[str, Any]) -> None:
        """Insert the entry."""
        self.insert1({**key, **row})


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


class Surrogate(dj.Lookup):
    """Nulls that the agreement between seeds is compared with. Without an entry nothing is drawn."""

    definition = """
    # Surrogates without clusters: the null of the agreement between seeds
    surrogate_hash: char(32)              # hash of the settings
    ---
    surrogate_name: varchar(64)           # name, for tables and figures
    n_draws: int unsigned                 # number of surrogates of all seeds of a configuration
    surrogate_seed: int unsigned          # seed of the draws
    surrogate_method: varchar(32)         # elliptical = keeps the neurons' sizes (norms); gaussian = does not
    surrogate_clusterings=null: varchar(64)  # methods of the clusterings it is drawn for, comma-separated; null = all
    surrogate_ts=CURRENT_TIMESTAMP: timestamp  # time of registration (server's clock)
    """

    def add_entry(
        self,
        name: str | None = None,
        *,
        n_draws: int = DEFAULT_DRAWS,
        seed: int = 0,
        method: str = "elliptical",
        clusterings: Sequence[str] | None = None,
        skip_duplicates: bool = False,
    ) -> dict[str, str]:
        """Ask for a null for every configuration that has at least two seeds; return its key.

        Parameters
        ----------
        name
            Name, at most 64 characters. None makes one of the settings.
        n_draws
            Surrogates per configuration. The smallest p value is ``1 / (1 + n_draws)``: 19 for 0.05, 199 for 0.005.
            Every draw clusters the readouts of every seed, so the time grows with it.
        seed
            Of the draws, 0 to 2**32 - 1.
        method
            "elliptical" or "gaussian", see :mod:`december_plugin.evaluation.null`.
        clusterings
            Methods of the clusterings that it is drawn for, of "december", "gmm", "kmeans", "t_mixture"; None for all.
        skip_duplicates
            Return the key of an entry that is there already, rather than raise.

        Raises
        ------
        SettingsError
            For values that are not allowed, a name that other settings have, or an entry that is there already.
        """
        row = surrogate_row(name, n_draws=n_draws, seed=seed, method=method, clusterings=clusterings)
        key = {"surrogate_hash": row["surrogate_hash"]}
        if self & key:
            if not skip_duplicates:
                known = (self & key).fetch1("surrogate_name")
                raise SettingsError(
                    f"these surrogates are registered already, as {known!r}. Pass skip_duplicates=True to get "
                    "their key."
                )
            return key
        if self & {"surrogate_name": row["surrogate_name"]}:
            raise SettingsError(
                f"there are surrogates named {row['surrogate_name']!r} with other settings. Choose another name."
            )
        self.insert1(row, skip_duplicates=skip_duplicates)
        return key


def surrogate_row(name: str | None, *, n_draws: Any, seed: Any, method: Any, clusterings: Any = None) -> dict[str, Any]:
    """Return the row of surrogate settings; errors as :meth:`Surrogate.add_entry`."""
    from december_plugin.evaluation.surrogate_settings import NAME_LENGTH, SurrogateSettings

    chosen = SurrogateSettings(name=name, n_draws=n_draws, seed=seed, method=method, clusterings=clusterings)
    of = chosen.clusterings
    if name is None:
        from december_plugin.evaluation.methods import NAMES

        whose = f", of {' and '.join(NAMES[each] for each in of)}" if of else ""
        shown = f", seed {chosen.seed}" if chosen.seed else ""
        name = f"{chosen.method}, {chosen.n_draws} draws{shown}{whose}"[:NAME_LENGTH]
    text = json.dumps([chosen.method, chosen.n_draws, chosen.seed, *([of] if of else [])], separators=(",", ":"))
    return {
        "surrogate_hash": hashlib.md5(text.encode("utf-8"), usedforsecurity=False).hexdigest(),
        "surrogate_name": name,
        "n_draws": chosen.n_draws,
        "surrogate_seed": chosen.seed,
        "surrogate_method": chosen.method,
        "surrogate_clusterings": ",".join(of) if of else None,
    }


class SurrogateAgreement(SeedSetTable, dj.Computed):
    """Agreement between the seeds of a configuration on surrogates of their readout vectors that have no clusters.

    Surrogates are drawn for all seeds of a configuration at once, because the seeds' readouts of a neuron are related;
    so there is one entry for every set of seeds. When a seed is added, there is a new entry for the larger set;
    :func:`december_plugin.results.evidence.null_table` takes those of the present seeds. The surrogates are
    clustered as the real readouts were; of DECEMber, by its mixture started by k-means, without training anew.
    """

    trained_model_table: ClassVar[Any]
    clustering_table: ClassVar[Any]
    cluster_assignment_table: ClassVar[Any]
    surrogate_table: ClassVar[Any]
    nnfabrik: ClassVar[Any]

    definition = """
    # Agreement between seeds on surrogates without clusters
    -> ClusterAssignment.proj(largest_seed='seed')
    -> ClusterAssignment.proj(smallest_seed='seed')
    -> SeedCount
    -> SeedSet
    -> Surrogate
    ---
    observed_mean: double              # mean over pairs of seeds of the real adjusted Rand index
    null_mean: double                  # mean over draws of the surrogates' mean over pairs
    null_sd=null: double               # standard deviation over draws (divisor n - 1); null for one draw
    null_low: double                   # quantile 0.025 over draws
    null_high: double                  # quantile 0.975 over draws
    p_value: double                    # (1 + draws that are at least the observed mean) / (1 + draws)
    n_null_pairs: int unsigned         # number of pairs of seeds
    n_null_neurons: int unsigned       # number of neurons that all seeds have
    correlation_error: double          # root mean square error of the surrogates' correlations between channels
    largest_correlation_error: double  # largest of these errors, mean over draws
    seeds: longblob                    # the seeds (S,) int64, ascending
    labels_md5s: longblob              # digests of their labels, list of str: equal if the assignments are equal
    agreements: longblob               # adjusted Rand index (draws, pairs) float64, pairs as itertools.combinations
    """

    @property
    def key_source(self) -> Any:
        """The set of all seeds of every configuration that has at least two, with every surrogate asked for it."""
        pairs = self.current_sets() * self.surrogate_table.proj()
        methods = self.surrogate_table.proj("surrogate_clusterings") * self.clustering_table.proj("method")
        drawn = "surrogate_clusterings IS NULL OR FIND_IN_SET(method, surrogate_clusterings)"
        return pairs & (methods & drawn).proj()

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Return, packed, the clustering, the settings of the surrogates and the configurations.

        Not the seeds: one that is added meanwhile is none of this entry, which says itself what it is of.
        """
        method, settings = (self.clustering_table & key).fetch1("method", "settings")
        n_draws, seed, surrogate_method = (self.surrogate_table & key).fetch1(
            "n_draws", "surrogate_seed", "surrogate_method"
        )
        fetched = {
            "clustering": [method, settings],
            "config": full_config(self.nnfabrik, {**key, "seed": key["largest_seed"]}, trainer=False),
            "surrogates": {"n_draws": int(n_draws), "seed": int(seed), "method": str(surrogate_method)},
        }
        return (encode_blob(fetched),)

    def make_compute(self, key: dict[str, Any], fetched: str) -> tuple[dict[str, Any]]:
        """Draw surrogates, cluster them, and compare the seeds."""
        from december_plugin.clustering.post_hoc import cluster_readouts

        inputs = decode_blob(fetched)
        keys, digests = self.seeds_of(key)
        neurons = common_neurons(self.cluster_assignment_table, keys)
        readouts, recipes = [], []
        for own, at in zip(keys, neurons.positions, strict=True):
            data_keys = (self.cluster_assignment_table.Session & own).fetch("data_key", order_by="data_key")
            embeddings = stored_embeddings(self.trained_model_table, inputs["config"], own)
            readouts.append(in_session_order(embeddings, [str(name) for name in data_keys])[at])
            recipes.append(self._recipe(own, *inputs["clustering"]))

        def cluster(vectors: np.ndarray, at: int) -> np.ndarray:
            return cluster_readouts(vectors, **recipes[at]).labels

        null = null_agreement(readouts, cluster, **inputs["surrogates"])
        pairs = itertools.combinations(neurons.labels, 2)
        observed = float(np.mean([compare_partitions(a, b).adjusted_rand_index for a, b in pairs]))
        band = null_band(null.agreements.mean(axis=1), observed)
        row = {
            "observed_mean": observed,
            "null_mean": band.mean,
            "null_sd": band.sd if math.isfinite(band.sd) else None,
            "null_low": band.low,
            "null_high": band.high,
            "p_value": band.p_value,
            "n_null_pairs": null.agreements.shape[1],
            "n_null_neurons": len(neurons.ids),
            "correlation_error": null.correlation_error,
            "largest_correlation_error": null.largest_correlation_error,
            "seeds": np.array([own["seed"] for own in keys], dtype=np.int64),
            "labels_md5s": digests,
            "agreements": null.agreements,
        }
        return (row,)

    def _recipe(self, own: dict[str, Any], method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        n_clusters = (self.cluster_assignment_table & own).fetch1("n_clusters_used")
        output = (self.trained_model_table & own).fetch1("output")
        mixture = output.get("mixture") if isinstance(output, Mapping) else None
        return clustering_recipe(method, n_clusters, settings, mixture=mixture, seed=own["seed"])

    def make_insert(self, key: dict[str, Any], row: dict[str, Any]) -> None:
        """Insert the entry."""
        self.enter_set(key)
        self.insert1({**key, **row})
