"""The trainer functions that go into nnfabrik's ``Trainer`` table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from december_plugin.errors import SettingsError, did_you_mean
from december_plugin.settings import allowed_settings, check_complete, checked_settings
from december_plugin.training.clustering_phase import ClusteringPhase
from december_plugin.training.loop import TrainingRun
from december_plugin.training.settings import ClusteringSettings, TrainingSettings

Triple = tuple[float, dict[str, Any], dict[str, torch.Tensor]]


@checked_settings
def baseline_trainer(
    model: nn.Module,
    dataloaders: Mapping[str, Mapping[str, Any]],
    seed: int,
    *,
    uid: Any = None,
    cb: Callable[..., None] | None = None,
    max_iter: int = 200,
    lr_init: float = 0.009,
    patience: int = 5,
    tolerance: float = 1e-6,
    lr_decay_steps: int = 3,
    lr_decay_factor: float = 0.3,
    min_lr: float = 1e-4,
    scale_loss: bool = True,
    pretrain_epochs: int = 0,
    stop_after_pretraining: bool = False,
    share_pretraining: bool = True,
    device: str = "auto",
    verbose: bool = True,
) -> Triple:
    """Train without a clustering loss: the model on whose readouts the post hoc clusterings are made.

    Parameters
    ----------
    model
        Any model with nnfabrik's core / readout shape: ``model(images, data_key=..., **batch fields)``,
        ``model.core``, and ``model.readout``, an ``nn.ModuleDict`` of one readout per session.
    dataloaders
        Tier ("train", "validation") to data key to loader; a batch's first two fields are images and responses.
    seed
        Seeds the training. Same seed, same machine, CPU: same bytes.
    uid, cb
        nnfabrik's; ``cb(uid=, epoch=, model=, info=)`` is called after every epoch.
    max_iter, lr_init, patience, tolerance, lr_decay_steps, lr_decay_factor, min_lr, scale_loss
        As in the SENSORIUM 2022 trainer; see :class:`~december_plugin.training.settings.TrainingSettings`.
    pretrain_epochs
        Share this many first epochs with DECEMber runs of the same ``pretrain_epochs``: the baseline is then exactly
        a DECEMber run of strength 0.
    stop_after_pretraining
        End after ``pretrain_epochs``: the control that tells what the clustering loss itself adds.
    share_pretraining, device, verbose
        See :class:`~december_plugin.training.settings.TrainingSettings`.

    Returns
    -------
    score, output, state_dict
        Mean validation correlation of the restored epoch; curves, settings, neurons and versions; the model's state
        dict on the CPU.

    Raises
    ------
    SettingsError
        For an unknown setting or a value that is not allowed.
    TrainingDivergedError
        If the loss becomes NaN or infinite.
    """
    settings = TrainingSettings(
        max_iter=max_iter,
        lr_init=lr_init,
        patience=patience,
        tolerance=tolerance,
        lr_decay_steps=lr_decay_steps,
        lr_decay_factor=lr_decay_factor,
        min_lr=min_lr,
        scale_loss=scale_loss,
        pretrain_epochs=pretrain_epochs,
        stop_after_pretraining=stop_after_pretraining,
        share_pretraining=share_pretraining,
        device=device,
        verbose=verbose,
    )
    return TrainingRun(model, dataloaders, seed, settings, uid=uid, cb=cb).run()


@checked_settings
def december_trainer(
    model: nn.Module,
    dataloaders: Mapping[str, Mapping[str, Any]],
    seed: int,
    *,
    n_clusters: int,
    strength: float | str = "auto",
    uid: Any = None,
    cb: Callable[..., None] | None = None,
    dof: float = 2.1,
    weights: str = "uniform",
    scale_bounds: tuple[float, float] = (1e-4, 1e4),
    detach_target: bool = False,
    kmeans_n_init: int = 20,
    max_iter: int = 200,
    lr_init: float = 0.009,
    patience: int = 5,
    tolerance: float = 1e-6,
    lr_decay_steps: int = 3,
    lr_decay_factor: float = 0.3,
    min_lr: float = 1e-4,
    scale_loss: bool = True,
    pretrain_epochs: int = 40,
    share_pretraining: bool = True,
    device: str = "auto",
    verbose: bool = True,
) -> Triple:
    """Train with DECEMber's clustering loss after a pretraining without it ("Learning to cluster neuronal function").

    After ``pretrain_epochs`` a Student-t mixture is started by k-means on the readout vectors of all sessions. From
    then on every optimizer step makes one EM step of the mixture and adds ``strength`` times the KL divergence between
    the sharpened and the soft assignments to the loss. Best score and patience start anew there, so the restored epoch
    is always one with clustering; the mixture is restored together with the weights.

    Parameters
    ----------
    model, dataloaders, seed, uid, cb
        As for :func:`baseline_trainer`.
    n_clusters, strength, dof, weights, scale_bounds, detach_target, kmeans_n_init
        See :class:`~december_plugin.training.settings.ClusteringSettings`.
    max_iter, lr_init, patience, tolerance, lr_decay_steps, lr_decay_factor, min_lr, scale_loss
        As for :func:`baseline_trainer`; ``max_iter`` counts the pretraining too.
    pretrain_epochs
        Epochs without the clustering loss; about two thirds of the training has worked well. With 0 the readout
        vectors are all equal at the start and cannot be clustered.
    share_pretraining, device, verbose
        See :class:`~december_plugin.training.settings.TrainingSettings`.

    Returns
    -------
    score, output, state_dict
        As for :func:`baseline_trainer`; ``output["mixture"]`` holds the fitted mixture and ``output["clustering"]`` the
        strength that was used and its gradient ratio.

    Raises
    ------
    SettingsError
        For an unknown setting or a value that is not allowed, and for more clusters than neurons.
    TrainingDivergedError
        If the loss or the readout vectors become NaN or infinite.

    Warns
    -----
    UserWarning
        If the clustering loss is so strong that it only freezes the partition found at the end of the pretraining.
    """
    clustering = ClusteringSettings(
        n_clusters=n_clusters,
        strength=strength,
        dof=dof,
        weights=weights,
        scale_bounds=scale_bounds,
        detach_target=detach_target,
        kmeans_n_init=kmeans_n_init,
    )
    settings = TrainingSettings(
        max_iter=max_iter,
        lr_init=lr_init,
        patience=patience,
        tolerance=tolerance,
        lr_decay_steps=lr_decay_steps,
        lr_decay_factor=lr_decay_factor,
        min_lr=min_lr,
        scale_loss=scale_loss,
        pretrain_epochs=pretrain_epochs,
        share_pretraining=share_pretraining,
        device=device,
        verbose=verbose,
    )
    phase = ClusteringPhase(clustering)
    return TrainingRun(model, dataloaders, seed, settings, clustering=phase, uid=uid, cb=cb).run()


TRAINERS = (baseline_trainer, december_trainer)


def check_trainer_config(trainer: Callable[..., Triple], config: Mapping[str, Any]) -> None:
    """Check a configuration of one of :data:`TRAINERS` without training: names, types and ranges.

    Raises
    ------
    SettingsError
        As the trainer itself would.
    """
    known = allowed_settings(trainer)
    for name in config:
        if name not in known:
            raise SettingsError(f"{trainer.__name__} has no setting {name!r}. {did_you_mean(name, known)}")
    defaults = inspect.signature(trainer).parameters
    settings = {name: config.get(name, defaults[name].default) for name in known}
    check_complete(trainer, config)
    if trainer is december_trainer:
        ClusteringSettings(**{field.name: settings[field.name] for field in fields(ClusteringSettings)})
    TrainingSettings(**{f.name: settings[f.name] for f in fields(TrainingSettings) if f.name in settings})
