"""Reads trained models from nnfabrik's tables: configurations, weights, readout vectors, and identities of neurons."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datajoint.hash import uuid_from_file
from nnfabrik.builder import get_all_parts, get_data, get_model
from nnfabrik.utility.nn_helpers import load_state_dict

from december_plugin.clustering.methods import DECEMBER, FOUND, METHODS, own_settings
from december_plugin.errors import EmbeddingError, RecordingError, SettingsError
from december_plugin.evaluation.neuron_order import in_trained_order
from december_plugin.imports.stored_names import MODEL as IMPORTED_MODEL
from december_plugin.schemas.allowed_functions import TABLES, check_functions
from december_plugin.schemas.recently_used import RecentlyUsed
from december_plugin.schemas.relocation import paths_in, relocated, rules_for
from december_plugin.storage.atomic import DamagedError

if TYPE_CHECKING:
    from december_plugin.embeddings.readout_vectors import ReadoutEmbeddings

EMBEDDINGS_BYTES = 2**27  # of readout vectors that stay in memory


def full_config(nnfabrik: Any, key: Mapping[str, Any], *, trainer: bool = True) -> dict[str, Any]:
    """Return names and configurations of an entry's functions, as nnfabrik's ``get_all_parts`` takes them.

    Its ``moved`` says where the recordings are now (:mod:`december_plugin.schemas.relocation`).

    Parameters
    ----------
    nnfabrik
        Namespace with ``Dataset``, ``Model`` and ``Trainer``, and optionally our tables' ``Relocation``.
    key
        Restricts each of these tables to one entry.
    trainer
        Whether to include the trainer.
    """
    config: dict[str, Any] = {}
    for role, table in TABLES.items():
        if role != "trainer" or trainer:
            config[f"{role}_fn"], config[f"{role}_config"] = (getattr(nnfabrik, table) & key).fn_config
    if hasattr(nnfabrik, "Relocation"):
        config["moved"] = rules_for(config["dataset_config"], nnfabrik.Relocation().paths())
    return config


def _here(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a configuration with the recordings' paths on this machine."""
    copied = copy.deepcopy(dict(config))
    moved = copied.pop("moved", {})
    return {**copied, "dataset_config": relocated(copied["dataset_config"], moved)}


def build_untrained(config: Mapping[str, Any], key: Mapping[str, Any]) -> tuple[Any, ...]:
    """Build loaders and an untrained model, and the trainer if ``config`` has one, with the entry's seed.

    nnfabrik's ``get_all_parts`` writes into the configurations, so it gets copies.
    """
    check_functions(config, key)
    here = _here(config)
    with told_if_moved(here["dataset_config"]):
        return get_all_parts(**here, seed=key["seed"])


def build_trained(
    config: Mapping[str, Any],
    key: Mapping[str, Any],
    *,
    state_dict: Mapping[str, Any],
    neurons: Mapping[str, Any] | None,
) -> tuple[Any, Any]:
    """Build loaders and model of a trained model, with its weights and with its neurons in the order of the training.

    Stored weights and loaders are combined only here.

    Parameters
    ----------
    config
        Dataset and model, see :func:`full_config`.
    key
        The trained model's.
    state_dict
        Its stored weights.
    neurons
        What its trainer stored as ``output["neurons"]``, see :func:`stored_neurons`.

    Raises
    ------
    RecordingError
        If the recordings have other sessions or neurons than during the training.
    SettingsError
        If the weights do not fit the model, or a function of the entry cannot be used.
    """
    check_functions(config, key)
    loaders = in_trained_order(build_loaders(config, key), neurons)
    model_config = copy.deepcopy(dict(config["model_config"]))
    model = get_model(config["model_fn"], model_config, loaders, seed=key["seed"])
    transfer = bool(config["model_config"].get("transfer", False))  # as nnfabrik's get_model
    flexible = dict.fromkeys(("match_names", "ignore_unused", "ignore_dim_mismatch", "ignore_missing"), transfer)
    try:
        load_state_dict(model, dict(state_dict), **flexible)
    except RuntimeError as error:
        raise SettingsError(
            f"the stored weights of the trained model {dict(key)} do not fit the model that its entries build now: "
            f"{' '.join(str(error).split())}. Its recordings or its model function have changed since the training: "
            "restore them, or delete the trained model, so that it is trained again."
        ) from error
    return loaders, model


def stored_neurons(trained_model: Any, key: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what the trainer of a model stored about its neurons; None for other packages' trainers."""
    return neurons_of((trained_model & key).fetch1("output"))


def neurons_of(output: Any) -> Mapping[str, Any] | None:
    """Return ``output["neurons"]`` of our trainers; None if it is missing."""
    neurons = output.get("neurons") if isinstance(output, Mapping) else None
    return neurons if isinstance(neurons, Mapping) else None


def model_function_of(model_fn: str, model_config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return name and settings of an entry's model function; for an imported model, of its own model function."""
    if model_fn == IMPORTED_MODEL:
        return str(model_config["fn"]), model_config["config"]
    return model_fn, model_config


def build_loaders(config: Mapping[str, Any], key: Mapping[str, Any]) -> Any:
    """Build only the loaders, with the entry's seed unless its configuration has one."""
    check_functions({"dataset_fn": config["dataset_fn"]}, key)
    dataset_config = _here(config)["dataset_config"]
    dataset_config.setdefault("seed", key["seed"])
    with told_if_moved(dataset_config):
        return get_data(config["dataset_fn"], dataset_config)


@contextlib.contextmanager
def told_if_moved(dataset_config: Mapping[str, Any]) -> Iterator[None]:
    """Within the block, let the error of a missing recording say what to do if it has moved."""
    try:
        yield
    except RecordingError as error:
        missing = next((path for path in paths_in(dataset_config) if not os.path.exists(path)), None)
        if missing is None:
            raise
        raise RecordingError(
            f"{error} If it has moved, `december relocate {missing} NEW` tells all workers where it is now, and "
            f"nothing is trained again; if its path was never right, `december forget --dataset {missing}` removes "
            "what was planned for it."
        ) from error


def stored_state_dict(trained_model: Any, key: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trained model's state dict, on the CPU.

    Raises
    ------
    EmbeddingError
        If there is none, if it would be written outside the folder to which it is fetched, or if it contains anything
        but tensors and plain values: it is read with ``weights_only=True``, which runs no code from the file.
    DamagedError
        If the file in the store differs from what was stored.
    """
    import torch

    stored = _stored(trained_model, key)
    content = _checked_content(stored, key)
    with tempfile.TemporaryDirectory() as folder:
        path = stored.fetch1("model_state", download_path=folder)
        # DataJoint itself compares the hash of an attachment with its content when it is stored, never when it is read.
        if uuid_from_file(path, init_string=Path(path).name + "\0") != content:
            raise DamagedError(
                f"the stored state dict of the trained model {dict(key)} is damaged: its content does not match its "
                f"checksum {content.hex}, after which the file is named in the store. Restore that file from a backup, "
                "or delete the trained model, so that it is trained again."
            )
        try:
            return torch.load(path, weights_only=True, map_location="cpu")
        except pickle.UnpicklingError as error:
            raise EmbeddingError(
                f"the state dict of the trained model {dict(key)} cannot be read with weights_only=True: {error} "
                "Load it once as its owner, keep only its tensors, and store it again."
            ) from error


def _stored(trained_model: Any, key: Mapping[str, Any]) -> Any:
    stored = trained_model.ModelStorage & key
    if len(stored) != 1:
        raise EmbeddingError(f"{len(stored)} state dicts are stored for the trained model {dict(key)}; one is needed.")
    return stored


def _checked_content(stored: Any, key: Mapping[str, Any]) -> uuid.UUID:
    """Return the hash of what was stored; refuse a file name that is a path, where DataJoint would write the file."""
    external = stored.connection.schemas[stored.database].external[stored.heading["model_state"].store]
    rows = stored.connection.query(
        f"SELECT hash, attachment_name FROM {external.full_table_name} "
        f"WHERE hash IN ({stored.make_sql(['model_state'])})"
    ).fetchall()
    for _, name in rows:
        if name is None or name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise EmbeddingError(
                f"the state dict of the trained model {dict(key)} is stored under the file name {name!r}, which is not "
                f"a plain file name. It was not fetched: find out who wrote it into {external.full_table_name}."
            )
    return uuid.UUID(bytes=rows[0][0])


# Many clusterings, comparisons and nulls of one worker belong to the same few models.
_embeddings: RecentlyUsed[ReadoutEmbeddings] = RecentlyUsed(EMBEDDINGS_BYTES, lambda found: found.vectors.nbytes)


def stored_embeddings(trained_model: Any, config: Mapping[str, Any], key: Mapping[str, Any]) -> ReadoutEmbeddings:
    """Return the readout vectors of a trained model, from its state dict or, failing that, from the model.

    Parameters
    ----------
    trained_model
        The table of trained models.
    config
        Dataset and model, see :func:`~december_plugin.schemas.stored_models.full_config`.
    key
        Restricts the table to one model.

    Raises
    ------
    EmbeddingError
        If neither provides the vectors.
    RecordingError, SettingsError
        If the model has to be built, and its recordings or its function are no longer those of the training.
    """
    from december_plugin.embeddings.readout_vectors import readout_embeddings

    # By the hash of the state dict, so that a retrained model is never mistaken for the old one.
    content = _checked_content(_stored(trained_model, key), key)
    try:
        found = _embeddings.get(content, lambda: readout_embeddings(stored_state_dict(trained_model, key)))
        return replace(found, vectors=found.vectors.copy())
    except EmbeddingError as from_state_dict:
        # A readout class may know its vectors if the names and shapes in the state dict do not reveal them.
        state_dict = stored_state_dict(trained_model, key)
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
    """Return arguments with which :func:`~december_plugin.clustering.cluster_readouts` clusters as an assignment did.

    For DECEMber, which trains the mixture with the model, it is its clustering part: the Student-t mixture with the
    trained mixture's settings, started by k-means as DECEMber starts, and fitted to the vectors as they are. The space
    is not part of it: the vectors are those of :class:`~december_plugin.schemas.clustering_vectors.ClusteringVectors`.

    Parameters
    ----------
    method, n_clusters, settings
        Of the ``Clustering`` entry; the number of clusters as it was used. A method that finds it finds it
        again.
    mixture
        What the trainer stored as its mixture, for the method "december".
    seed
        The model's seed.
    """
    if method != DECEMBER:
        described = METHODS[method]
        is_found = described.count == "found" or settings.get(described.finds_by) is not None
        used = FOUND if is_found else int(n_clusters)
        return {"method": method, "n_clusters": used, **own_settings(settings)}
    known = mixture if isinstance(mixture, Mapping) else {}
    return {
        "method": "t_mixture",
        "n_clusters": int(n_clusters),
        "n_init": 1,
        "seed": int(seed),
        "dof": float(known.get("dof", 2.1)),
        "weights": str(known.get("weights", "uniform")),
    }


FROM_RECORDING = "recording"
FROM_POSITION = "position"


@dataclass(frozen=True)
class SessionNeurons:
    """The neurons of one session: unit ids (n,) int64, and their origin.

    Without unit ids in the dataset, only the position in the readout is known, which is correct as long as models of
    the same dataset entry are compared.
    """

    data_key: str
    unit_ids: np.ndarray
    unit_ids_from: str


def session_neurons(
    data_keys: np.ndarray, neurons: Mapping[str, Any] | None, build_loaders: Callable[[], Any]
) -> list[SessionNeurons]:
    """Return the identities of a model's neurons, one entry per session, in the order of the readout.

    Parameters
    ----------
    data_keys
        Session of every readout vector (N,), sessions one after the other.
    neurons
        ``output["neurons"]`` of our trainers, data key to ``{"unit_ids": array or None, ...}``; None for others.
    build_loaders
        Called for other trainers, to get the unit ids from the data loaders.

    Raises
    ------
    EmbeddingError
        If a session's numbers of unit ids and of readout vectors differ.
    """
    if neurons is not None:
        known = {data_key: session.get("unit_ids") for data_key, session in neurons.items()}
    else:
        from december_plugin.embeddings.readout_vectors import unit_ids_of

        known = dict(unit_ids_of(build_loaders()))
    names, starts, counts = np.unique(data_keys, return_index=True, return_counts=True)
    sessions = []
    for position in np.argsort(starts):
        data_key, count = str(names[position]), int(counts[position])
        unit_ids = known.get(data_key)
        if unit_ids is None:
            sessions.append(SessionNeurons(data_key, np.arange(count, dtype=np.int64), FROM_POSITION))
            continue
        unit_ids = np.ascontiguousarray(unit_ids, dtype=np.int64)
        if len(unit_ids) != count:
            raise EmbeddingError(
                f"session {data_key!r} has {len(unit_ids)} unit ids and {count} readout vectors; the dataset has "
                "changed since the model was trained, or its loaders serve a part of the neurons."
            )
        sessions.append(SessionNeurons(data_key, unit_ids, FROM_RECORDING))
    return sessions
