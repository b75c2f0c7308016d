"""How stable the clusters of every model are when its neurons are resampled: requests, and results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import datajoint as dj
import numpy as np

from december_plugin.evaluation.stability import (
    DEFAULT_RESAMPLINGS,
    DEFAULT_SHARE,
    STABLE,
    ClusterStability,
    cluster_stability,
    stability_null,
)
from december_plugin.schemas.clustering_vectors import ClusteringVectors, DrawnFrom
from december_plugin.schemas.serialization import decode_blob, encode_blob
from december_plugin.schemas.settings_tables import SettingsTable, comma_separated, is_for_method, named_by_values
from december_plugin.schemas.stored_labels import assigned_labels
from december_plugin.schemas.stored_models import clustering_recipe, full_config, in_session_order


class Resampling(SettingsTable, dj.Lookup):
    """Requested resamplings of neurons. Without an entry, nothing is resampled.

    Like a null, it is requested by an entry for all assignments rather than by a setting of each clustering: the
    clusters are the same with and without it, their key must not change, and it can be requested later.
    """

    definition = """
    # Resamplings of neurons: how stable the clusters of one model are
    resampling_hash: char(32)             # hash of the settings
    ---
    n_resamplings: int unsigned           # number of random parts of the neurons
    resampled_share: double               # share of the neurons that a part has (0 to 1)
    resampling_seed: int unsigned         # seed of the draws
    n_resampled_surrogates: int unsigned  # number of surrogates of the null; 0 = no null
    resampled_clusterings=null: varchar(64)  # methods of the clusterings it is for, comma-separated; null = all
    resampling_ts=CURRENT_TIMESTAMP: timestamp  # time of registration (server's clock)
    """

    def add_entry(
        self,
        *,
        n_draws: int = DEFAULT_RESAMPLINGS,
        share: float = DEFAULT_SHARE,
        seed: int = 0,
        n_surrogates: int = 0,
        clusterings: Sequence[str] | None = None,
        skip_duplicates: bool = False,
    ) -> dict[str, str]:
        """Request the stability of the clusters of every assignment; return the key.

        Parameters
        ----------
        n_draws, share, seed, n_surrogates, clusterings
            See :class:`december_plugin.evaluation.stability_settings.StabilitySettings`. An assignment is clustered
            ``n_draws`` times, and ``n_surrogates * (1 + n_draws)`` times for the null.
        skip_duplicates
            Return the key of an existing entry, rather than raise.

        Raises
        ------
        SettingsError
            For values that are not allowed, or an entry that exists already.
        """
        row = resampling_row(
            n_draws=n_draws, share=share, seed=seed, n_surrogates=n_surrogates, clusterings=clusterings
        )
        return self.enter(row, said="this resampling is registered already", skip_duplicates=skip_duplicates)


def resampling_row(**settings: Any) -> dict[str, Any]:
    """Return the row of settings of a resampling; errors as :meth:`Resampling.add_entry`."""
    from december_plugin.evaluation.stability_settings import StabilitySettings

    chosen = StabilitySettings(**settings)
    values = {
        "n_resamplings": chosen.n_draws,
        "resampled_share": float(chosen.share),
        "resampling_seed": chosen.seed,
        "n_resampled_surrogates": chosen.n_surrogates,
        "resampled_clusterings": comma_separated(chosen.clusterings),
    }
    return named_by_values("resampling_hash", values)


class WithinModelStability(dj.Computed):
    """How well the clusters of one model are found again in random parts of its neurons.

    Parts are clustered as all neurons were, in the space of the clustering; if it aligns vectors, every part is aligned
    separately. For DECEMber, only its clustering part is repeated, as in the null: the mixture, started by k-means, on
    the vectors as the training left them.
    :mod:`december_plugin.evaluation.stability` says what it can and cannot show.
    """

    trained_model_table: ClassVar[Any]
    clustering_table: ClassVar[Any]
    vectors: ClassVar[ClusteringVectors]
    cluster_assignment_table: ClassVar[Any]
    resampling_table: ClassVar[Any]
    nnfabrik: ClassVar[Any]

    definition = """
    # How well the clusters of one model are found again in random parts of its neurons
    -> ClusterAssignment
    -> Resampling
    ---
    jaccard: double                    # mean over clusters of the Jaccard similarity, weighted with their neurons
    part_agreement: double             # mean over draws of the adjusted Rand index between the clusters and the part's
    n_stable_clusters: int unsigned    # clusters with a mean Jaccard similarity of at least 0.75
    n_resampled_clusters: int unsigned # clusters that have neurons
    stability_null_mean=null: double   # mean over surrogates of their jaccard; null without surrogates
    stability_p_value=null: double     # (1 + surrogates that are at least as stable) / (1 + surrogates)
    clusters: longblob                 # the clusters (K,) int64
    cluster_sizes: longblob            # their neurons (K,) int64
    similarities: longblob             # Jaccard similarity (draws, K) float64 with the most similar cluster of the part
    part_agreements: longblob          # adjusted Rand index (draws,) float64
    """

    @property
    def key_source(self) -> Any:
        """All assignments, with every resampling that is requested for their method."""
        asked = self.resampling_table.proj("resampled_clusterings") * self.clustering_table.proj("method")
        wanted = is_for_method("resampled_clusterings")
        return self.cluster_assignment_table.proj() * self.resampling_table.proj() & (asked & wanted).proj()

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Return, packed, how the assignment was clustered, the settings and the configurations."""
        names = ("n_resamplings", "resampled_share", "resampling_seed", "n_resampled_surrogates")
        n_draws, share, seed, n_surrogates = (self.resampling_table & key).fetch1(*names)
        settings = {"n_draws": int(n_draws), "share": float(share), "seed": int(seed)}
        return (encode_blob({**self._inputs(key), "settings": settings, "n_surrogates": int(n_surrogates)}),)

    def make_compute(self, key: dict[str, Any], fetched: str) -> tuple[dict[str, Any]]:
        """Cluster random parts of the neurons, and those of surrogates."""
        from december_plugin.clustering.post_hoc import cluster_readouts

        inputs = decode_blob(fetched)
        drawn, vectors = self._drawn_from(key, inputs)
        found = self._found(key, drawn, vectors, inputs["recipe"], inputs["settings"])
        row = {
            "jaccard": found.overall,
            "part_agreement": float(found.agreements.mean()),
            "n_stable_clusters": int((found.mean >= STABLE).sum()),
            "n_resampled_clusters": len(found.clusters),
            "clusters": found.clusters,
            "cluster_sizes": found.sizes.astype(np.int64),
            "similarities": found.similarities,
            "part_agreements": found.agreements,
        }
        if inputs["n_surrogates"]:

            def cluster(part: np.ndarray) -> np.ndarray:
                return cluster_readouts(drawn.embed(part), **inputs["recipe"]).labels

            null = stability_null(
                vectors, cluster, found.overall, n_surrogates=inputs["n_surrogates"], **inputs["settings"]
            )
            row |= {"stability_null_mean": null.mean, "stability_p_value": null.p_value}
        return (row,)

    def make_insert(self, key: dict[str, Any], row: dict[str, Any]) -> None:
        """Insert the entry."""
        self.insert1({**key, **row})

    def computed(self, key: Mapping[str, Any], *, n_draws: int, share: float, seed: int) -> ClusterStability:
        """Return the stability of one assignment, computed now and not stored."""
        inputs = self._inputs(key)
        settings = {"n_draws": n_draws, "share": share, "seed": seed}
        return self._found(key, *self._drawn_from(key, inputs), inputs["recipe"], settings)

    def stored(
        self, key: Mapping[str, Any], *, n_draws: int, share: float, seed: int
    ) -> tuple[ClusterStability, dict[str, float]] | None:
        """Return the stability of one assignment from the table, with its null; None if it is not stored."""
        asked = {"n_resamplings": n_draws, "resampled_share": share, "resampling_seed": seed}
        rows = (self * self.resampling_table & key & asked).fetch(
            as_dict=True, order_by="n_resampled_surrogates DESC", limit=1
        )
        for row in rows:
            null = {name: row[f"stability_{name}"] for name in ("null_mean", "p_value")}
            null["n_surrogates"] = int(row["n_resampled_surrogates"])
            parts = (row["clusters"], row["cluster_sizes"], row["similarities"], row["part_agreements"])
            return ClusterStability(*parts), {name: math.nan if x is None else x for name, x in null.items()}
        return None

    def _inputs(self, key: Mapping[str, Any]) -> dict[str, Any]:
        method, settings = (self.clustering_table & key).fetch1("method", "settings")
        n_clusters = (self.cluster_assignment_table & key).fetch1("n_clusters_used")
        output = (self.trained_model_table & key).fetch1("output")
        mixture = output.get("mixture") if isinstance(output, Mapping) else None
        data_keys = (self.cluster_assignment_table.Session & key).fetch("data_key", order_by="data_key")
        return {
            "recipe": clustering_recipe(method, n_clusters, settings, mixture=mixture, seed=int(key["seed"])),
            "config": full_config(self.nnfabrik, key, trainer=False),
            "data_keys": [str(name) for name in data_keys],
        }

    def _drawn_from(self, key: Mapping[str, Any], inputs: Mapping[str, Any]) -> tuple[DrawnFrom, np.ndarray]:
        """Return the source of the parts, and its vectors (N, D) with the sessions in the order of the labels."""
        drawn = self.vectors.drawn_from(key, inputs["config"])
        return drawn, in_session_order(drawn.embeddings, inputs["data_keys"])

    def _found(
        self,
        key: Mapping[str, Any],
        drawn: DrawnFrom,
        vectors: np.ndarray,
        recipe: Mapping[str, Any],
        settings: Mapping[str, Any],
    ) -> ClusterStability:
        from december_plugin.clustering.post_hoc import cluster_readouts

        def cluster(part: np.ndarray) -> np.ndarray:
            return cluster_readouts(drawn.embed(part) if drawn.is_aligned else part, **recipe).labels

        labels = assigned_labels(self.cluster_assignment_table, key).labels
        return cluster_stability(vectors, labels, cluster, **settings)
