"""One cell of the study: a condition's recordings and one model seed; trains, clusters, keeps labels and scores."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from design import BASELINE, CONTROL, POST_HOC, Condition
from filelock import FileLock

from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.datasets import static_loaders
from december_plugin.embeddings.readout_vectors import readout_embeddings
from december_plugin.evaluation.performance import predict_tier, single_trial_correlation
from december_plugin.models import stacked_core_gaussian_readout
from december_plugin.schemas.clusters import trained_mixture_clusters
from december_plugin.simulate import read_truth, write_recording
from december_plugin.trainers import baseline_trainer, december_trainer

COMMON = {"verbose": False, "device": "cpu"}
SESSIONS = ("static1-1-1-simulated", "static2-1-1-simulated")


def result_path(folder: Path, condition: Condition, seed: int) -> Path:
    """Return where a cell's result is kept."""
    return folder / "cells" / f"{condition.name.replace(' ', '_')}-seed{seed}.npz"


def supplement_path(cell: Path) -> Path:
    """Return where the supplement of a cell's result is kept."""
    return cell.with_name(f"{cell.stem}-supplement.npz")


def run_cell(folder: Path, condition: Condition, seed: int) -> Path:
    """Run one cell, if its result does not exist yet, and return where the result is."""
    target = result_path(folder, condition, seed)
    if target.exists():
        return target
    began = time.monotonic()
    loaders, truth = prepared(folder, condition)
    labels, scores = {}, []
    for role, variant, score, found in _trainings(condition, loaders, seed):
        for (method, count), own in found.items():
            labels[f"labels_{len(scores)}"] = own.astype(np.int16)
            scores.append({"role": role, "variant": variant, "method": method, "n_clusters": count, **score})
    about = {"scores": scores, "seconds": time.monotonic() - began}
    write_result(target, about=json.dumps(about), truth=truth, **labels)
    return target


def prepared(folder: Path, condition: Condition) -> tuple[dict[str, Any], np.ndarray]:
    """Set the process up for trainings; return loaders and planted types (neurons of both sessions,)."""
    torch.set_num_threads(1)
    os.environ["DECEMBER_PRETRAINING"] = str(folder / "pretraining")
    recordings = _recordings(folder, condition)
    loaders = static_loaders(paths=[str(path) for path in recordings], batch_size=32)
    return loaders, np.concatenate([read_truth(path).types for path in recordings])


def write_result(target: Path, **arrays: Any) -> None:
    """Write a result at once, so that an interrupted study has no half of one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez_compressed(draft, **arrays)
    draft.rename(target)


def _recordings(folder: Path, condition: Condition) -> list[Path]:
    """Write the condition's two sessions, once for all its cells."""
    about = {**condition.recording, **({"seed": condition.first_seed} if condition.first_seed != 1 else {})}
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    home = folder / "recordings" / name
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(str(home / "lock")):
        for number, session in enumerate(SESSIONS, start=condition.first_seed):
            if not (home / session).is_dir():
                write_recording(home / session, seed=number, **condition.recording)
    return [home / session for session in SESSIONS]


Labels = dict[tuple[str, int], np.ndarray]


def _trainings(
    condition: Condition, loaders: dict[str, Any], seed: int
) -> Iterator[tuple[str, str, dict[str, float], Labels]]:
    """Train everything; yield role, variant, scores, and the labels by method and K."""
    for role in (CONTROL, BASELINE):
        score, state = unclustered(condition, loaders, seed, role)
        yield role, role, score, _post_hoc(state, condition)
    for variant in condition.variants:
        model = stacked_core_gaussian_readout(loaders, seed, **condition.model)
        settings = {"n_clusters": variant.n_clusters, "max_iter": condition.max_iter, **variant.settings}
        epochs = {"pretrain_epochs": condition.pretrain_epochs}
        _, output, state = december_trainer(model, loaders, seed, **settings, **epochs, **COMMON)
        clusters = trained_mixture_clusters(readout_embeddings(state).vectors, output["mixture"])
        labels = {("december", variant.n_clusters): clusters.labels}
        yield "december", variant.name, scores_of(model, loaders, output["clustering"]), labels


def unclustered(
    condition: Condition, loaders: dict[str, Any], seed: int, role: str
) -> tuple[dict[str, float], dict[str, Any]]:
    """Train without a clustering loss, to the end of the pretraining for the control; return scores and state dict."""
    model = stacked_core_gaussian_readout(loaders, seed, **condition.model)
    settings = {"stop_after_pretraining": True} if role == CONTROL else {"max_iter": condition.max_iter}
    epochs = {"pretrain_epochs": condition.pretrain_epochs}
    _, _, state = baseline_trainer(model, loaders, seed, **settings, **epochs, **COMMON)
    return scores_of(model, loaders, {}), state


def scores_of(model: Any, loaders: dict[str, Any], clustering: dict[str, Any]) -> dict[str, float]:
    """Return test correlation, mean over neurons, and gradient ratio of a trained model."""
    per_neuron = [single_trial_correlation(*pair) for pair in predict_tier(model, loaders["test"]).values()]
    ratio = clustering.get("gradient_ratio")
    return {
        "test_correlation": float(np.concatenate(per_neuron).mean()),
        "gradient_ratio": float("nan") if ratio is None else float(ratio),
    }


def _post_hoc(state: dict[str, Any], condition: Condition) -> Labels:
    vectors = readout_embeddings(state).vectors
    return {
        (method, count): cluster_readouts(vectors, method=method, n_clusters=count).labels
        for method in POST_HOC
        for count in condition.n_clusters
    }
