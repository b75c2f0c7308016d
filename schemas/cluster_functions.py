"""Which clusters of a trained model compute the same thing: requested comparisons, and their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import datajoint as dj
import numpy as np

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import EmbeddingError, MisfitError
from december_plugin.evaluation.cluster_functions_settings import LINEAR, THRESHOLD, ClusterFunctionsSettings
from december_plugin.imports.stored_names import NEURONS as IMPORTED_NEURONS
from december_plugin.schemas.alignment import said_orientations
from december_plugin.schemas.clustering_vectors import ClusteringVectors
from december_plugin.schemas.equivariant_models import EQUIVARIANT_MODELS, of_equivariant_models
from december_plugin.schemas.feature_covariance import SEED
from december_plugin.schemas.serialization import decode_blob, encode_blob
from december_plugin.schemas.settings_tables import SettingsTable, comma_separated, is_for_method, named_by_values
from december_plugin.schemas.stored_labels import assigned_labels
from december_plugin.schemas.stored_models import (
    build_trained,
    full_config,
    model_function_of,
    neurons_of,
    stored_state_dict,
)

OF_METHOD = is_for_method("confusion_clusterings")


class ClusterConfusionSettings(SettingsTable, dj.Lookup):
    """Requested comparisons of clusters by what they compute. Without an entry, nothing is compared."""

    definition = """
    # Comparisons of clusters by what they compute
    confusion_hash: char(32)              # hash of the settings
    ---
    confusion_threshold: double           # mean correlation down to which blocks of clusters are merged (-1 to 1)
    confusion_responses: enum('linear', 'images')  # images = as the model predicts them for training stimuli
    confusion_clusterings=null: varchar(64)  # methods of the clusterings it is for, comma-separated; null = all
    confusion_ts=CURRENT_TIMESTAMP: timestamp  # time of registration (server's clock)
    """

    def add_entry(
        self,
        *,
        threshold: float = THRESHOLD,
        responses: str = LINEAR,
        clusterings: Sequence[str] | None = None,
        skip_duplicates: bool = False,
    ) -> dict[str, str]:
        """Request a comparison of the clusters of every assignment; return the key.

        Parameters
        ----------
        threshold, responses, clusterings
            See :class:`december_plugin.evaluation.cluster_functions_settings.ClusterFunctionsSettings`.
        skip_duplicates
            Return the key of an existing entry, rather than raise.

        Raises
        ------
        SettingsError
            For values that are not allowed, or an entry that exists already.
        """
        row = confusion_row(threshold=threshold, responses=responses, clusterings=clusterings)
        said = "this comparison of clusters is registered already"
        return self.enter(row, said=said, skip_duplicates=skip_duplicates)


def confusion_row(**settings: Any) -> dict[str, Any]:
    """Return the row of settings of a comparison; errors as :meth:`ClusterConfusionSettings.add_entry`."""
    chosen = ClusterFunctionsSettings(**settings)
    values = {
        "confusion_threshold": float(chosen.threshold),
        "confusion_responses": chosen.responses,
        "confusion_clusterings": comma_separated(chosen.clusterings),
    }
    return named_by_values("confusion_hash", values)


class ClusterConfusion(dj.Computed):
    """Correlations between the responses of a model's cluster means, and blocks of clusters that respond alike.

    A cluster's mean is that of its readout vectors (aligned, if the clustering is) with that of its biases. With a
    rotation-equivariant core, correlations are the best over orientations. Clusters without neurons are left out.
    :mod:`december_plugin.evaluation.cluster_functions` has the formula.
    """

    trained_model_table: ClassVar[Any]
    clustering_table: ClassVar[Any]
    vectors: ClassVar[ClusteringVectors]
    cluster_assignment_table: ClassVar[Any]
    settings_table: ClassVar[Any]
    nnfabrik: ClassVar[Any]

    definition = """
    # Which clusters of a trained model compute the same thing
    -> ClusterAssignment
    -> ClusterConfusionSettings
    ---
    n_orientations: int unsigned       # orientations over which correlations are the best; 1 = no equivariant core
    n_blocks: int unsigned             # number of blocks of clusters at the threshold
    n_confusion_images=null: int unsigned  # number of stimuli: images, or frames of movies; null = not known
    confusion_clusters: longblob       # clusters (K,) int64 that have neurons
    confusion_sizes: longblob          # their neurons (K,) int64
    correlations: longblob             # correlations between their responses (K, K) float64 (-1 to 1)
    blocks: longblob                   # block of each (K,) int64, from 0
    """

    @property
    def key_source(self) -> Any:
        """All assignments, with every comparison that is requested for their method.

        Those of linear responses wait for the model's feature covariance. Of models that were imported without their
        recording there are these alone, if the covariance came with them. A model of a lab's own function with a
        rotation-equivariant core waits for its first alignment, where it gets one: that tells its orientations.
        """
        asked = self.settings_table.proj("confusion_clusterings") * self.clustering_table.proj("method") & OF_METHOD
        linear = (self.settings_table & {"confusion_responses": LINEAR}).proj() * self.vectors.feature_covariance.proj()
        others = (self.settings_table & f"confusion_responses <> '{LINEAR}'").proj() * (
            self.trained_model_table.proj() & f"dataset_fn <> '{IMPORTED_NEURONS}'"
        )
        wanted = self.cluster_assignment_table.proj() * self.settings_table.proj() & asked.proj()
        wanted = wanted & [linear, others]
        if set(self.vectors.alignment.equivariant_models) <= set(EQUIVARIANT_MODELS):  # which tell their orientations
            return wanted
        return wanted - self._of_unknown_orientations()

    def _of_unknown_orientations(self) -> Any:
        """Return the keys of models whose number of orientations an alignment will tell, and that have none yet."""
        alignment = self.vectors.alignment()
        asked = alignment.alignable_models() & bool(alignment.alignment_settings_table())
        return asked - of_equivariant_models(self.nnfabrik.Model, EQUIVARIANT_MODELS) - alignment.proj()

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Return, packed, the settings, the configurations and what the trainer said about the neurons."""
        names = ("confusion_threshold", "confusion_responses")
        threshold, responses = (self.settings_table & key).fetch1(*names)
        fetched = {
            "threshold": float(threshold),
            "responses": str(responses),
            "config": full_config(self.nnfabrik, key, trainer=False),
            "neurons": neurons_of((self.trained_model_table & key).fetch1("output")),
        }
        return (encode_blob(fetched),)

    def make_compute(self, key: dict[str, Any], fetched: str) -> tuple[dict[str, Any]]:
        """Return the correlations and blocks."""
        from december_plugin.evaluation.cluster_functions import cluster_blocks, cluster_means, covariance_confusion

        inputs = decode_blob(fetched)
        config = inputs["config"]
        embeddings = self.vectors.readouts_of(key, config)
        labels = self._labels(key, embeddings)
        clusters = np.unique(labels[labels != NO_CLUSTER])
        places = np.where(labels == NO_CLUSTER, NO_CLUSTER, np.searchsorted(clusters, labels))
        means = cluster_means(embeddings.vectors, places)
        n_orientations = self._orientations(key, inputs)
        if means.shape[1] % n_orientations:
            raise EmbeddingError(
                f"the model has {n_orientations} orientations, but its readout vectors have {means.shape[1]} entries, "
                "which is not a multiple of it, so they are not those of a rotation-equivariant core."
            )
        if inputs["responses"] == LINEAR:
            found = covariance_confusion(means, self.vectors.covariance_of(key), n_orientations=n_orientations)
            n_images = (self.vectors.feature_covariance & key).fetch1("n_images")
        else:
            found, n_images = self._of_images(key, inputs, means, places, n_orientations)
        blocks = cluster_blocks(found, threshold=inputs["threshold"])
        row = {
            "n_orientations": n_orientations,
            "n_blocks": blocks.n_blocks,
            "n_confusion_images": n_images,
            "confusion_clusters": clusters,
            "confusion_sizes": np.bincount(places[places != NO_CLUSTER]).astype(np.int64),
            "correlations": found,
            "blocks": blocks.labels,
        }
        return (row,)

    def make_insert(self, key: dict[str, Any], row: dict[str, Any]) -> None:
        """Insert the entry."""
        self.insert1({**key, **row})

    def _orientations(self, key: Mapping[str, Any], inputs: Mapping[str, Any]) -> int:
        """Return the number of orientations of the model's core.

        Of a lab's own function it is that of its alignment, or, where there is none, as of DECEMBer's models, what the
        core says, which is checked as an alignment does it; without the recording, what the function's settings say.
        """
        from december_plugin.models.equivariance import check_equivariance, orientations_of

        function = model_function_of(inputs["config"]["model_fn"], inputs["config"]["model_config"])
        known = orientations_of(*function)
        of_model = {name: key[name] for name in self.trained_model_table.primary_key}
        aligned = (self.vectors.alignment & of_model).fetch("n_orientations", limit=1)
        if len(aligned):
            return int(aligned[0])
        if known > 1 or not self.vectors.alignment.is_equivariant(*function):
            return known
        if key["dataset_fn"] == IMPORTED_NEURONS:
            return said_orientations(function[0], None, function[1])
        core, images, n_orientations = self.vectors.alignment().core_of(key, inputs)
        check_equivariance(core, images, n_orientations)
        return n_orientations

    def _labels(self, key: Mapping[str, Any], embeddings: Any) -> np.ndarray:
        """Return the cluster of every neuron of the model, (N,) int64, -1 for those that it does not include."""
        kept = self.vectors.kept(key, embeddings)
        own = embeddings if kept.all() else embeddings.take(kept)
        stored = assigned_labels(self.cluster_assignment_table, key)
        labels = np.full(len(embeddings), NO_CLUSTER, dtype=np.int64)
        found = np.empty(len(own), dtype=np.int64)
        for data_key, rows in own.sessions.items():
            of_session = stored.labels[stored.ids.data_keys == data_key]
            if len(of_session) != rows.stop - rows.start:
                raise MisfitError(
                    f"session {data_key!r} has {rows.stop - rows.start} neurons in the model and {len(of_session)} in "
                    "its assignment: delete the assignment, so that it is computed again."
                )
            found[rows] = of_session
        labels[kept] = found
        return labels

    def _of_images(
        self, key: dict[str, Any], inputs: Mapping[str, Any], means: np.ndarray, places: np.ndarray, n_orientations: int
    ) -> tuple[np.ndarray, int]:
        from december_plugin.evaluation.cluster_functions import cluster_means, readout_biases, stimulus_confusion

        state_dict = stored_state_dict(self.trained_model_table, key)
        loaders, model = build_trained(inputs["config"], key, state_dict=state_dict, neurons=inputs["neurons"])
        biases = cluster_means(readout_biases(model)[:, None], places)[:, 0]
        return stimulus_confusion(model, loaders, means, biases=biases, n_orientations=n_orientations, seed=SEED)
