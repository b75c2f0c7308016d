"""The readout vectors of stored models, and what clustered them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from december_plugin.errors import EmbeddingError
from december_plugin.schemas.clustering import DECEMBER
from december_plugin.schemas.stored_models import build_trained, stored_neurons, stored_state_dict

if TYPE_CHECKING:
    from december_plugin.embeddings.readout_vectors import ReadoutEmbeddings


def stored_embeddings(trained_model: Any, config: Mapping[str, Any], key: Mapping[str, Any]) -> ReadoutEmbeddings:
    """Return the readout vectors of a trained model, from its state dict or, failing that, from the model.

    Parameters
    ----------
    trained_model
        The table of trained models.
    config
        Data set and model, see :func:`~december_plugin.schemas.stored_models.full_config`.
    key
        Restricts the table to one model.

    Raises
    ------
    EmbeddingError
        If neither tells the vectors.
    RecordingError, SettingsError
        If the model has to be built, and its recordings or its function are not those of the training any more.
    """
    from december_plugin.embeddings.readout_vectors import readout_embeddings

    state_dict = stored_state_dict(trained_model, key)
    try:
        return readout_embeddings(state_dict)
    except EmbeddingError as from_state_dict:
        # A readout class may know its vectors where the names and shapes in the state dict do not tell them.
        try:
            neurons = stored_neurons(trained_model, key)
            model = build_trained(config, key, state_dict=state_dict, neurons=neurons)[1]
            return readout_embeddings(model)
        except EmbeddingError as from_model:
            raise from_model from from_state_dict


def in_session_order(embeddings: ReadoutEmbeddings, data_keys: Sequence[str]) -> np.ndarray:
    """Return the vectors (N, D), float64, with the sessions in this order."""
    sessions = embeddings.sessions
    return np.concatenate([embeddings.vectors[sessions[data_key]] for data_key in data_keys]).astype(np.float64)


def clustering_recipe(
    method: str, n_clusters: int, settings: Mapping[str, Any], *, mixture: Mapping[str, Any] | None, seed: int
) -> dict[str, Any]:
    """Return the arguments of :func:`~december_plugin.clustering.cluster_readouts` that cluster as an assignment did.

    For DECEMber, which trains the mixture with the model, it is its clustering part: the Student-t mixture with the
    trained mixture's settings, started by k-means as DECEMber starts, and fitted to the readout vectors as they are.

    Parameters
    ----------
    method, n_clusters, settings
        Of the ``Clustering`` entry; the number of clusters as it was used.
    mixture
        What the trainer stored as its mixture, for the method "december".
    seed
        The model's seed.
    """
    if method != DECEMBER:
        return {"method": method, "n_clusters": int(n_clusters), **settings}
    known = mixture if isinstance(mixture, Mapping) else {}
    return {
        "method": "t_mixture",
        "n_clusters": int(n_clusters),
        "n_init": 1,
        "seed": int(seed),
        "dof": float(known.get("dof", 2.1)),
        "weights": str(known.get("weights", "uniform")),
    }
