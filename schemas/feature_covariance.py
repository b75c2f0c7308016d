"""The covariance of the features that a model's readouts receive from its core: the metric of functional embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import datajoint as dj
import numpy as np

from december_plugin.clustering.methods import DECEMBER
from december_plugin.embeddings.space import checked_covariance
from december_plugin.errors import EmbeddingError
from december_plugin.evaluation.cluster_functions_settings import LINEAR
from december_plugin.imports.stored_names import NEURONS as IMPORTED_NEURONS
from december_plugin.schemas.equivariant_models import of_equivariant_models
from december_plugin.schemas.restrictions import of_trainers
from december_plugin.schemas.serialization import decode_blob, encode_blob
from december_plugin.schemas.stored_models import (
    build_trained,
    full_config,
    neurons_of,
    stored_embeddings,
    stored_state_dict,
)

FROM_RECORDING, FROM_IMPORT, FROM_PROBES = "recording", "import", "probes"
SEED = 0  # of the drawn images and neurons: the same for all models of a recording


class FeatureCovariance(dj.Computed):
    """The feature covariance of a trained model, for clusterings in functional space and comparisons of clusters.

    It is computed once if such a clustering, or a comparison of clusters by their linear responses, is registered for
    models of this kind; clusterings then need neither recordings nor a GPU. A mixture that DECEMber trained in
    functional space has its own, stored with it. A model whose trainer or import stored a covariance as
    ``output["feature_covariance"]`` keeps that one; for all others, it is computed on the training tier.
    """

    trained_model_table: ClassVar[Any]
    clustering_table: ClassVar[Any]
    confusion_settings_table: ClassVar[Any]
    alignment_settings_table: ClassVar[Any]
    nnfabrik: ClassVar[Any]
    december_trainers: ClassVar[tuple[str, ...]]
    equivariant_models: ClassVar[tuple[str, ...]]

    definition = """
    # Covariance of the features that a model's readouts receive
    -> TrainedModel
    ---
    n_images=null: int unsigned           # number of stimuli: images, or frames of movies; null = not known
    n_covariance_neurons=null: int unsigned  # number of neurons that it is a mean over; null = not known
    covariance: longblob                  # feature covariance (D, D) float64 (squared units of the core's output)
    covariance_from: enum('recording', 'import', 'probes')  # recording = training tier; import = given with the model
    covariance_ts=CURRENT_TIMESTAMP: timestamp  # time of insertion (server's clock)
    """

    @property
    def key_source(self) -> Any:
        """Models to which clusterings are fitted afterwards, if one of these, or an alignment, is functional.

        If only those are that align vectors, rotation-equivariant models alone. And those whose clusters are to be
        compared by their linear responses, DECEMber's included. Not those that were imported without their recording:
        where their import knows a covariance, it has entered it.
        """
        is_december = of_trainers(self.december_trainers)
        registered = self.clustering_table.fetch("method", "space", "alignment_hash", as_dict=True)
        plain = [row for row in registered if row["alignment_hash"] is None]
        aligned = [row for row in registered if row["alignment_hash"] is not None]
        lists = (self.confusion_settings_table & {"confusion_responses": LINEAR}).fetch("confusion_clusterings")
        compared = _compared_methods(plain, lists)
        needed: list[Any] = [is_december] if DECEMBER in compared else []
        if _is_functional(plain) or compared - {DECEMBER}:
            needed.append(f"NOT ({is_december})")
        if (
            _is_functional(aligned)
            or _compared_methods(aligned, lists)
            or self.alignment_settings_table & {"alignment_space": "functional"}
        ):
            equivariant = of_equivariant_models(self.nnfabrik.Model, self.equivariant_models)
            needed += [dj.AndList([f"NOT ({is_december})", each]) for each in equivariant]
        return self.trained_model_table.proj() & f"dataset_fn <> '{IMPORTED_NEURONS}'" & needed

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Return, packed, the configurations, the neurons, and the covariance that the model came with."""
        output = (self.trained_model_table & key).fetch1("output")
        given = output if isinstance(output, Mapping) else {}
        fetched = {
            "config": full_config(self.nnfabrik, key, trainer=False),
            "neurons": neurons_of(output),
            "covariance": given.get("feature_covariance"),
            "covariance_from": given.get("feature_covariance_from", FROM_IMPORT),
        }
        return (encode_blob(fetched),)

    def make_compute(self, key: dict[str, Any], fetched: str) -> tuple[dict[str, Any]]:
        """Return the covariance with the numbers of stimuli and neurons, or the one that exists already."""
        inputs = decode_blob(fetched)
        if inputs["covariance"] is not None:
            embeddings = stored_embeddings(self.trained_model_table, inputs["config"], key)
            return (given_covariance(inputs["covariance"], inputs["covariance_from"], embeddings.vectors.shape[1]),)
        return (self._estimated(key, inputs),)

    def _estimated(self, key: dict[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
        import torch

        from december_plugin.embeddings.functional import estimate_covariance

        state_dict = stored_state_dict(self.trained_model_table, key)
        loaders, model = build_trained(inputs["config"], key, state_dict=state_dict, neurons=inputs["neurons"])
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        found = estimate_covariance(model, loaders, seed=SEED)
        return {
            "n_images": found.n_images,
            "n_covariance_neurons": found.n_neurons,
            "covariance": found.covariance,
            "covariance_from": FROM_RECORDING,
        }

    def make_insert(self, key: dict[str, Any], row: dict[str, Any]) -> None:
        """Insert the entry."""
        self.insert1({**key, **row})


def stored_covariance(feature_covariance: Any, key: Mapping[str, Any]) -> np.ndarray:
    """Return the stored feature covariance (D, D) of a trained model, or raise an :class:`EmbeddingError`."""
    found = (feature_covariance & key).fetch("covariance")
    if len(found) != 1:
        raise EmbeddingError(
            f"the feature covariance of the trained model {dict(key)} is not stored yet; `december worker` "
            "computes it (FeatureCovariance) if a clustering, or an alignment, with space: functional is registered."
        )
    return np.asarray(found[0])


def _is_functional(clusterings: Iterable[Mapping[str, Any]]) -> bool:
    return any(row["space"] == "functional" for row in clusterings)


def _compared_methods(clusterings: Iterable[Mapping[str, Any]], lists: Iterable[str | None]) -> set[str]:
    """Return the methods of clusterings that one of the lists of methods names; None names all."""
    registered = {str(row["method"]) for row in clusterings}
    return registered & set().union(*(methods.split(",") if methods else registered for methods in lists))


def given_covariance(covariance: Any, given_from: Any, n_features: int) -> dict[str, Any]:
    """Return the values of an entry whose covariance was given with the model, without the key.

    Parameters
    ----------
    covariance
        The matrix (D, D).
    given_from
        "import" or "probes".
    n_features
        The number D of features of the model's readout vectors.

    Raises
    ------
    EmbeddingError
        If it is not a covariance, or has another number of features.
    """
    if given_from not in (FROM_IMPORT, FROM_PROBES):
        raise EmbeddingError(
            f"the feature covariance of a model is said to be from {given_from!r}; output['feature_covariance_from'] "
            f"must be {FROM_IMPORT!r} or {FROM_PROBES!r}."
        )
    checked = checked_covariance(covariance, n_features=n_features)
    return {"covariance": np.ascontiguousarray(checked), "covariance_from": given_from}
