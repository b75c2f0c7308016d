"""One cell of the study of spaces: one model seed on one draw of a recording; trainings, embeddings, clusterings.

Everything is kept in separate files and made only if it is missing: the trained models ("baseline", and "control",
stopped at the end of the pretraining), their readout vectors and feature covariance, the labels of every clustering.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import COMMON, prepared, scores_of, unclustered, write_result
from design import BASELINE, CONTROL, Condition
from spaces_design import SPACES, Clustering, Training

from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.embeddings import feature_covariance
from december_plugin.embeddings.readout_vectors import readout_embeddings
from december_plugin.embeddings.space import covariance_root
from december_plugin.errors import NoClustersError
from december_plugin.models import stacked_core_gaussian_readout
from december_plugin.schemas.clusters import trained_mixture_clusters
from december_plugin.trainers import december_trainer

ROLES = (CONTROL, BASELINE)
N_IMAGES = 400  # for a covariance


def _path(folder: Path, kind: str, condition: Condition, seed: int, suffix: str) -> Path:
    return folder / kind / f"{condition.name}-seed{seed}{suffix}"


def model_path(folder: Path, condition: Condition, seed: int) -> Path:
    """Return where a cell's models are kept."""
    return _path(folder, "models", condition, seed, ".pt")


def embeddings_path(folder: Path, condition: Condition, seed: int) -> Path:
    """Return where readout vectors, covariances, planted types and test correlations of a cell are kept."""
    return _path(folder, "embeddings", condition, seed, ".npz")


def labels_path(folder: Path, condition: Condition, seed: int) -> Path:
    """Return where the labels of a cell's clusterings after the fact are kept."""
    return _path(folder, "labels", condition, seed, ".npz")


def december_path(folder: Path, condition: Condition, seed: int, training: Training) -> Path:
    """Return where the labels of a DECEMber training are kept."""
    return _path(folder, "december", condition, seed, f"-{training.name.replace(' ', '_').replace(',', '')}.npz")


def train_cell(folder: Path, condition: Condition, seed: int) -> Path:
    """Train the two models of a cell without a clustering loss, if they do not exist yet."""
    target = model_path(folder, condition, seed)
    if target.exists():
        return target
    loaders, truth = prepared(folder, condition)
    kept: dict[str, Any] = {"truth": torch.from_numpy(truth)}
    for role in ROLES:
        scores, state = unclustered(condition, loaders, seed, role)
        kept[role] = {"state": dict(state), "test_correlation": scores["test_correlation"]}
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(".tmp")
    torch.save(kept, draft)
    draft.rename(target)
    return target


def embed_cell(folder: Path, condition: Condition, seed: int) -> Path:
    """Keep readout vectors and feature covariance of a cell's models."""
    target = embeddings_path(folder, condition, seed)
    if target.exists():
        return target
    kept = torch.load(model_path(folder, condition, seed), weights_only=True)
    loaders, truth = prepared(folder, condition)
    arrays: dict[str, Any] = {"truth": truth}
    for role in ROLES:
        model = stacked_core_gaussian_readout(loaders, seed, **condition.model)
        model.load_state_dict(kept[role]["state"])
        arrays[f"{role}_vectors"] = readout_embeddings(kept[role]["state"]).vectors.astype(np.float64)
        arrays[f"{role}_covariance"] = feature_covariance(model, loaders, n_images=N_IMAGES)
        arrays[f"{role}_test_correlation"] = kept[role]["test_correlation"]
    write_result(target, **arrays)
    return target


def embedded(arrays: Mapping[str, Any], role: str) -> dict[str, np.ndarray]:
    """Return the vectors (N, D) of a cell's model in every space, by the space's phrase."""
    vectors, root = arrays[f"{role}_vectors"], covariance_root(arrays[f"{role}_covariance"])
    return {space.phrase: np.asarray(space.embed(vectors, root)) for space in SPACES}


def cluster_cell(folder: Path, condition: Condition, seed: int, clusterings: Mapping[str, Clustering]) -> Path:
    """Make the clusterings, by name, that a cell does not have yet; the names of arrays are role, space and name."""
    target = labels_path(folder, condition, seed)
    known = dict(np.load(target)) if target.exists() else {}
    with np.load(embeddings_path(folder, condition, seed)) as saved:
        arrays = dict(saved)
    found = {}
    for role in ROLES:
        for phrase, vectors in embedded(arrays, role).items():
            for name, (method, settings, roles, finds_k) in clusterings.items():
                key = "|".join((role, phrase, name))
                if role in roles and key not in known:
                    n_clusters = None if finds_k else condition.n_clusters[0]
                    try:
                        labels = cluster_readouts(vectors, method=method, n_clusters=n_clusters, **settings).labels
                    except NoClustersError:
                        labels = np.full(len(vectors), NO_CLUSTER)
                    found[key] = labels.astype(np.int16)
    if found:
        write_result(target, **known, **found)
    return target


def train_december(folder: Path, condition: Condition, seed: int, training: Training) -> Path:
    """Train DECEMber in a space, from the cell's pretraining, if it has not been trained."""
    target = december_path(folder, condition, seed, training)
    if target.exists():
        return target
    loaders, truth = prepared(folder, condition)
    model = stacked_core_gaussian_readout(loaders, seed, **condition.model)
    epochs = {"pretrain_epochs": condition.pretrain_epochs, "max_iter": condition.max_iter}
    settings = {**training.settings, **epochs, "n_clusters": condition.n_clusters[0]}
    _, output, state = december_trainer(model, loaders, seed, **settings, **COMMON)
    clusters = trained_mixture_clusters(readout_embeddings(state).vectors, output["mixture"])
    scores = scores_of(model, loaders, output["clustering"])
    write_result(target, labels=clusters.labels.astype(np.int16), truth=truth, **scores)
    return target
