"""Agreement between seeds on surrogates that have no clusters: the null of every configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import datajoint as dj
import numpy as np

from december_plugin.errors import SettingsError
from december_plugin.evaluation.null import DEFAULT_DRAWS, agreements_of, null_agreement, null_band
from december_plugin.evaluation.valleys import valleys_between
from december_plugin.schemas.clustering_vectors import ClusteringVectors
from december_plugin.schemas.seed_sets import SeedSetTable
from december_plugin.schemas.serialization import decode_blob, encode_blob
from december_plugin.schemas.settings_tables import comma_separated, is_for_method, settings_hash
from december_plugin.schemas.stored_labels import common_neurons
from december_plugin.schemas.stored_models import clustering_recipe, full_config, in_session_order


class Surrogate(dj.Lookup):
    """Nulls with which the agreement between seeds is compared. Without an entry, nothing is drawn."""

    definition = """
    # Surrogates without clusters: the null of the agreement between seeds
    surrogate_hash: char(32)              # hash of the settings
    ---
    surrogate_name: varchar(64)           # name, for tables and figures
    n_draws: int unsigned                 # number of surrogates of all seeds of a configuration
    surrogate_seed: int unsigned          # seed of the draws
    surrogate_method: varchar(32)         # elliptical = keeps sizes (norms); gaussian = does not; or another
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
        """Request a null for every configuration that has at least two seeds; return its key.

        Parameters
        ----------
        name
            Name, at most 64 characters. None makes one from the settings.
        n_draws
            Surrogates per configuration. The smallest p value is ``1 / (1 + n_draws)``: 19 for 0.05, 199 for 0.005.
            Every draw clusters the readouts of every seed, so the time grows with it.
        seed
            Of the draws, 0 to 2**32 - 1.
        method
            "elliptical", "gaussian", "planar", "axial" or "combined", see :mod:`december_plugin.evaluation.null`.
        clusterings
            Methods of the clusterings for which it is drawn, of :data:`december_plugin.clustering.methods.METHODS`;
            None for all.
        skip_duplicates
            Return the key of an existing entry, rather than raise.

        Raises
        ------
        SettingsError
            For values that are not allowed, a name that other settings have, or an entry that exists already.
        """
        row = surrogate_row(name, n_draws=n_draws, seed=seed, method=method, clusterings=clusterings)
        key = self.stored_key(row)
        if key is not None:
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
        return {"surrogate_hash": row["surrogate_hash"]}

    def stored_key(self, row: Mapping[str, Any]) -> dict[str, str] | None:
        """Return the key of the entry with the settings of a row of :func:`surrogate_row`; None if there is none.

        An entry of an earlier version that lists all methods of that version counts as one of all methods.
        """
        from december_plugin.evaluation.surrogate_settings import ONCE_ALL

        hashes = [row["surrogate_hash"]]
        if row["surrogate_clusterings"] in [",".join(once) for once in ONCE_ALL]:
            hashes.append(_surrogate_hash(row["surrogate_method"], row["n_draws"], row["surrogate_seed"]))
        keys = [{"surrogate_hash": each} for each in hashes]
        return next((key for key in keys if self & key), None)


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
    return {
        "surrogate_hash": _surrogate_hash(chosen.method, chosen.n_draws, chosen.seed, of),
        "surrogate_name": name,
        "n_draws": chosen.n_draws,
        "surrogate_seed": chosen.seed,
        "surrogate_method": chosen.method,
        "surrogate_clusterings": comma_separated(of),
    }


def _surrogate_hash(method: str, n_draws: int, seed: int, clusterings: Sequence[str] | None = None) -> str:
    return settings_hash([method, n_draws, seed, *([clusterings] if clusterings else [])])


class SurrogateAgreement(SeedSetTable, dj.Computed):
    """Agreement between the seeds of a configuration on surrogates of their vectors that have no clusters.

    Surrogates are drawn in the space of the clustering; if that consists of directions, they are directions, too. If
    the clustering aligns the vectors, surrogates of the unaligned vectors are aligned in the same way.

    Surrogates are drawn for all seeds of a configuration at once, because the seeds' readouts of a neuron are related;
    so there is one entry for every set of seeds. When a seed is added, there is a new entry for the larger set;
    :func:`december_plugin.results.nulls.null_table` takes those of the present seeds. The surrogates are
    clustered as the real readouts were; for DECEMber, by its mixture, started by k-means, without another training.
    """

    trained_model_table: ClassVar[Any]
    clustering_table: ClassVar[Any]
    vectors: ClassVar[ClusteringVectors]
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
    valleys_mean=null: double          # valleys between the real clusters, mean over seeds; null: not looked at then
    null_valleys_mean=null: double     # the same of the surrogates' clusters, mean over draws
    valleys_p_value=null: double       # (1 + draws that are at least the real mean) / (1 + draws)
    valleys=null: longblob             # valleys between the real clusters of every seed (S,) float64
    null_valleys=null: longblob        # those of the surrogates (draws, S) float64
    """

    @property
    def key_source(self) -> Any:
        """The set of all seeds of every configuration that has at least two, with every surrogate requested for it."""
        pairs = self.current_sets() * self.surrogate_table.proj()
        methods = self.surrogate_table.proj("surrogate_clusterings") * self.clustering_table.proj("method")
        drawn = is_for_method("surrogate_clusterings")
        return pairs & (methods & drawn).proj()

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Return, packed, the clustering, the settings of the surrogates and the configurations.

        The seeds are not included, because one that is added meanwhile does not belong to this entry, whose key names
        them.
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
        drawn, readouts, clustered, recipes = [], [], [], []
        for own, at in zip(keys, neurons.positions, strict=True):
            data_keys = (self.cluster_assignment_table.Session & own).fetch("data_key", order_by="data_key")
            drawn.append(self.vectors.drawn_from(own, inputs["config"]))
            readouts.append(in_session_order(drawn[-1].embeddings, [str(name) for name in data_keys])[at])
            clustered.append(in_session_order(drawn[-1].clustered, [str(name) for name in data_keys])[at])
            recipes.append(self._recipe(own, *inputs["clustering"]))
        is_aligned = drawn[0].is_aligned

        def embed(vectors: np.ndarray, at: int) -> np.ndarray:
            return drawn[at].embed(vectors)

        def cluster(vectors: np.ndarray, at: int) -> np.ndarray:
            return cluster_readouts(vectors if is_aligned else embed(vectors, at), **recipes[at]).labels

        null = null_agreement(readouts, cluster, embed=embed if is_aligned else None, **inputs["surrogates"])
        observed, valleys = float(agreements_of(neurons.labels).mean()), valleys_between(clustered, neurons.labels)
        band = null_band(null.agreements.mean(axis=1), observed)
        of_valleys = null_band(null.valleys.mean(axis=1), float(valleys.mean()))
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
            "valleys_mean": valleys.mean(),
            "null_valleys_mean": of_valleys.mean,
            "valleys_p_value": of_valleys.p_value,
            "valleys": valleys,
            "null_valleys": null.valleys,
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
