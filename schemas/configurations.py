"""Agreement across configurations: models of the same neurons with other cores, readouts, trainers or training data.

The number of pairs of models grows with the square of their number, so there is one entry for each pair of
*configurations* (dataset, model and trainer) and clustering, a mean over pairs of their seeds, of at most
:data:`MOST_PAIRS`. A configuration is also paired with itself; then different seeds are compared. Two complete
keys of configurations do not fit into one key of InnoDB, which ends at 3072 bytes: so the second configuration, and
the seeds that were compared, are given by a digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import datajoint as dj
import numpy as np

from december_plugin.clustering.methods import DECEMBER
from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import SettingsError
from december_plugin.evaluation.agreement import MEASURES, compare_partitions
from december_plugin.evaluation.similarity import SIMILARITIES, compare_embeddings
from december_plugin.schemas.clustering_vectors import ClusteringVectors
from december_plugin.schemas.recently_used import RecentlyUsed
from december_plugin.schemas.seed_sets import MOST_SEEDS, SET_DIGEST, earlier_sets, set_digest
from december_plugin.schemas.serialization import decode_blob, encode_blob
from december_plugin.schemas.stored_labels import AssignedLabels, assigned_labels
from december_plugin.schemas.stored_models import in_session_order

MOST_PAIRS = 10  # pairs of seeds of two configurations that are compared
VECTORS_KEPT = 6  # models, of 28 MB each for 54,569 neurons and 64 features
DIFFERS = ("dataset_fn", "dataset_hash", "model_fn", "model_hash", "trainer_fn", "trainer_hash")
DIGEST = f"MD5(CONCAT_WS(' ', {', '.join(DIFFERS)}))"


class ConfigurationPair(dj.Manual):
    """The second configurations of pairs, entered with the first result of a pair."""

    definition = """
    # Second configurations of pairs
    pair: char(32)   # digest of two configurations, their seeds, and the labels that each has
    ---
    -> Dataset.proj(dataset_fn_b='dataset_fn', dataset_hash_b='dataset_hash')
    -> Model.proj(model_fn_b='model_fn', model_hash_b='model_hash')
    -> Trainer.proj(trainer_fn_b='trainer_fn', trainer_hash_b='trainer_hash')
    """


class ConfigurationAgreement(dj.Computed):
    """Agreement of clusters, and similarity of embeddings, between two configurations of one clustering.

    The neurons that both have are compared, by session and unit id, with each model's embedding in the space of its
    clustering. Different seeds are paired if possible, because models of one seed may have the same initial weights.
    DECEMber's mixtures are compared if they have the same number of clusters. A configuration of at least two seeds is
    compared with itself, seed with seed: this says how similar its embeddings are, whereas ``SeedAgreement`` has only
    the clusters. When a seed is added, there is a new entry for the larger set of seeds;
    :mod:`december_plugin.results.configurations` takes those of the present seeds.
    """

    cluster_assignment_table: ClassVar[Any]
    clustering_table: ClassVar[Any]
    pair_table: ClassVar[Any]
    vectors: ClassVar[ClusteringVectors]

    definition = """
    # Agreement of clusters and similarity of embeddings across configurations
    -> ClusterAssignment.proj(first_seed='seed')
    -> ConfigurationPair
    ---
    n_common_neurons: int unsigned         # number of neurons that both have; the smallest, if pairs of seeds differ
    n_seed_pairs: int unsigned             # number of pairs of seeds that were compared
    adjusted_rand_index=null: double       # mean over pairs; 1 = the same partition, 0 = as expected by chance
    adjusted_rand_index_sd=null: double    # standard deviation over pairs (divisor n - 1); null for one pair
    fowlkes_mallows=null: double           # mean over pairs; geometric mean of pairwise precision and recall (0 to 1)
    homogeneity=null: double               # mean over pairs; 1 if clusters of the second lie in one of the first each
    completeness=null: double              # mean over pairs; 1 if clusters of the first lie in one of the second each
    v_measure=null: double                 # mean over pairs; harmonic mean of the two (0 to 1)
    distance_correlation=null: double      # mean over pairs; correlation of distances between neurons (-1 to 1)
    cosine_correlation=null: double        # mean over pairs; correlation of cosines between neurons (-1 to 1)
    linear_cka=null: double                # mean over pairs; linear centred kernel alignment (0 to 1)
    seed_pairs: longblob                   # the pairs of seeds (pairs, 2) int64
    """

    @property
    def key_source(self) -> Any:
        """Every pair of configurations of one clustering, including each with itself, with their present seeds."""
        assignments = self.cluster_assignment_table()
        configuration = [name for name in assignments.primary_key if name != "seed"]
        sets = dj.U(*configuration).aggr(
            assignments, n_seeds="count(*)", first_seed="MIN(seed)", k="MIN(n_clusters_used)", seed_set=SET_DIGEST
        )
        first = (sets & f"n_seeds <= {MOST_SEEDS}").proj("n_seeds", "first_seed", "k", "seed_set", digest=DIGEST)
        second = (sets & f"n_seeds <= {MOST_SEEDS}").proj(
            **{f"{name}_b": name for name in DIFFERS}, k_b="k", seed_set_b="seed_set", digest_b=DIGEST
        )
        methods = self.clustering_table.proj("method")
        pairs = first * second * methods & "digest < digest_b OR digest = digest_b AND n_seeds > 1"
        pairs &= f"method <> '{DECEMBER}' OR k = k_b"
        named = pairs.proj("first_seed", pair="MD5(CONCAT(digest, seed_set, digest_b, seed_set_b))")
        return dj.U(*configuration, "first_seed", "pair") & named

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Return, packed, the second configuration and the seeds of both."""
        return (encode_blob(dict(zip(("first", "second", "other"), self._members(key), strict=True))),)

    def make_compute(self, key: dict[str, Any], fetched: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Compare the two configurations, pair of seeds by pair of seeds."""
        found = decode_blob(fetched)
        first = {name: key[name] for name in self.cluster_assignment_table.primary_key if name != "seed"}
        second = {**first, **found["other"]}
        pairs = seed_pairs(list(found["first"]), list(found["second"]), same=first == second)
        reader = _Reader(self.cluster_assignment_table, self.vectors)
        compared = [reader.compare({**first, "seed": a}, {**second, "seed": b}) for a, b in pairs]
        row: dict[str, Any] = {
            "n_common_neurons": min(each["n_neurons"] for each in compared),
            "n_seed_pairs": len(pairs),
            "seed_pairs": np.array(pairs, dtype=np.int64),
        }
        for name in (*MEASURES, *SIMILARITIES):
            values = [each[name] for each in compared if math.isfinite(each[name])]
            row[name] = float(np.mean(values)) if values else None
            if name == "adjusted_rand_index":
                row[f"{name}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return row, {f"{name}_b": value for name, value in found["other"].items()}

    def make_insert(self, key: dict[str, Any], row: dict[str, Any], second: dict[str, Any]) -> None:
        """Insert the entry, and the pair that it refers to."""
        if not self.pair_table & {"pair": key["pair"]}:
            # Not skip_duplicates, for which a worker's account needs the right to update.
            with contextlib.suppress(dj.errors.DuplicateError):
                self.pair_table.insert1({"pair": key["pair"], **second})
        self.insert1({**key, **row})

    def _members(self, key: Mapping[str, Any]) -> tuple[dict[int, str], dict[int, str], dict[str, str]]:
        """Return the seeds of both configurations with their digests, and the second configuration.

        Raises
        ------
        SettingsError
            If assignments of the pair were deleted, or have other labels now.
        """
        assignments = self.cluster_assignment_table()
        shared = [name for name in assignments.primary_key if name not in ("seed", *DIFFERS)]
        rows = (assignments & {name: key[name] for name in shared}).fetch(
            *DIFFERS, "seed", "labels_md5", as_dict=True, order_by=("assignment_ts", "seed")
        )
        members: dict[tuple[str, ...], list[tuple[int, str]]] = defaultdict(list)
        for row in rows:
            members[tuple(row[name] for name in DIFFERS)].append((int(row["seed"]), str(row["labels_md5"])))
        found = pair_members(members, tuple(key[name] for name in DIFFERS), key["pair"])
        if found is not None:
            mine, other, theirs = found
            return mine, theirs, dict(zip(DIFFERS, other, strict=True))
        raise SettingsError(
            "the assignments of two configurations that are to be compared no longer exist: some were deleted, "
            "or computed again with another result. Populate again."
        )


def pair_members(
    members: Mapping[tuple[str, ...], list[tuple[int, str]]], own: tuple[str, ...], pair: str
) -> tuple[dict[int, str], tuple[str, ...], dict[int, str]] | None:
    """Return the seeds that belong to the digest of a pair, and the second configuration; None if there are none.

    Parameters
    ----------
    members
        Configuration to its seeds with the digests of their labels, by the time of their assignment.
    own
        The first configuration; the second one may be the same.
    pair
        The digest, of the present seeds or of earlier ones.
    """
    if own not in members:
        return None
    for of_then in (_present, earlier_sets):
        # Digested once each: there are many earlier sets, and many times more pairs of them.
        digests = {name: [set_digest(dict(each)) for each in of_then(seeds)] for name, seeds in members.items()}
        for other in members:
            for (at, mine), (at_b, theirs) in itertools.product(enumerate(digests[own]), enumerate(digests[other])):
                if (other != own or mine == theirs) and _pair_digest(own, mine, other, theirs) == pair:
                    first, second = (
                        next(itertools.islice(of_then(members[name]), place, None))
                        for name, place in ((own, at), (other, at_b))
                    )
                    return dict(first), other, dict(second)
    return None


def _present(members: list[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    yield members


def _pair_digest(first: Sequence[str], seeds: str, second: Sequence[str], seeds_b: str) -> str:
    """Return the digest of a pair of configurations, from those of their seeds; the same as the server's."""
    return _digest("".join((_digest(" ".join(first)), seeds, _digest(" ".join(second)), seeds_b)))


def seed_pairs(
    first: Sequence[int], second: Sequence[int], *, same: bool = False, most: int = MOST_PAIRS
) -> list[tuple[int, int]]:
    """Return which seeds of two configurations are compared: each about equally often, and no seed with itself.

    Parameters
    ----------
    first, second
        The seeds.
    same
        Whether both are seeds of one configuration; then each pair is compared once, the smaller seed first.
    most
        At most so many pairs.

    Returns
    -------
    list of (int, int)
        Pairs of equal seeds occur only if there are no others.
    """
    n = max(len(first), len(second))
    places = itertools.product(enumerate(sorted(first)), enumerate(sorted(second)))
    cyclic = sorted(places, key=lambda pair: ((pair[1][0] - pair[0][0]) % n, pair[0][0]))
    pairs = [(a, b) for (_, a), (_, b) in cyclic]
    if same:
        pairs = list(dict.fromkeys((min(pair), max(pair)) for pair in pairs))
    return ([(a, b) for a, b in pairs if a != b] or pairs)[:most]


def _digest(text: str) -> str:
    return hashlib.md5(text.encode("utf-8"), usedforsecurity=False).hexdigest()


class _Reader:
    """Reads labels and vectors of assignments, and keeps the vectors that were used last."""

    def __init__(self, cluster_assignment: Any, vectors: ClusteringVectors):
        self._assignments, self._vectors = cluster_assignment, vectors
        self._read: RecentlyUsed[np.ndarray] = RecentlyUsed(VECTORS_KEPT)

    def compare(self, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        """Return all measures of two assignments; NaN and 0 neurons if they have no neuron in common."""
        a, b = (assigned_labels(self._assignments, key) for key in (first, second))
        same_dataset = all(first[name] == second[name] for name in ("dataset_fn", "dataset_hash"))
        kept_a, kept_b = (_identified(each, other, same_dataset) for each, other in ((a, b), (b, a)))
        ids_a, ids_b = a.ids.take(kept_a), b.ids.take(kept_b)
        if not ids_a.index.isin(ids_b.index).any():
            return {"n_neurons": 0, **dict.fromkeys((*MEASURES, *SIMILARITIES), math.nan)}
        agreement = compare_partitions(
            a.labels[kept_a], b.labels[kept_b], ids_a=ids_a, ids_b=ids_b, common_only=True, no_cluster=NO_CLUSTER
        )
        similarity = compare_embeddings(self.of(first)[kept_a], self.of(second)[kept_b], ids_a=ids_a, ids_b=ids_b)
        return {**asdict(agreement), **asdict(similarity)}  # neurons without a cluster count, too

    def of(self, key: dict[str, Any]) -> np.ndarray:
        """Return the vectors (N, D) of an assignment, sessions in alphabetical order, as its labels."""
        return self._read.get(tuple(key.values()), lambda: self._fetched(key))

    def _fetched(self, key: dict[str, Any]) -> np.ndarray:
        data_keys = (self._assignments.Session & key).fetch("data_key", order_by="data_key")
        return in_session_order(self._vectors.of(key), [str(data_key) for data_key in data_keys])


def _identified(labels: AssignedLabels, other: AssignedLabels, same_dataset: bool) -> np.ndarray:
    """Return which neurons (N,) can be matched: positions mean the same in one dataset only."""
    matched = [
        data_key
        for data_key, from_recording in labels.from_recording.items()
        if data_key in other.from_recording
        and from_recording == other.from_recording[data_key]
        and (from_recording or same_dataset)
    ]
    return np.flatnonzero(np.isin(labels.ids.data_keys, matched))
