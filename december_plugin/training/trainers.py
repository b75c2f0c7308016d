"""The trainer functions that go into nnfabrik's ``Trainer`` table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import nn

from december_plugin.training.clustering_phase import ClusteringPhase
from december_plugin.training.loop import TrainingRun
from december_plugin.training.presets import PAPER_BASELINE, PAPER_DECEMBER, PUBLISHED_BASELINE, PUBLISHED_DECEMBER
from december_plugin.training.settings import ClusteringSettings, TrainingSettings
from december_plugin.validation.checks import (
    allowed_settings,
    check_complete,
    checked_settings,
    expand_preset,
    unknown_setting,
    with_presets,
)

Settings = TypeVar("Settings", TrainingSettings, ClusteringSettings)
# Mean validation correlation of the restored epoch; curves, settings, neurons and versions; the state dict.
TrainerResult = tuple[float, dict[str, Any], dict[str, torch.Tensor]]


@checked_settings
@with_presets(paper=PAPER_BASELINE, published=PUBLISHED_BASELINE)
def baseline_trainer(
    model: nn.Module,
    dataloaders: Mapping[str, Mapping[str, Any]],
    seed: int,
    *,
    uid: Any = None,
    cb: Callable[..., None] | None = None,
    preset: str | None = None,
    max_iter: int = 200,
    lr_init: float = 0.009,
    patience: int = 5,
    tolerance: float = 1e-6,
    lr_decay_steps: int = 3,
    lr_decay_factor: float = 0.3,
    min_lr: float = 1e-4,
    lr_decay: str = "restore",
    scale_loss: bool = True,
    scale_loss_trials: str = "train",
    pretrain_epochs: int = 0,
    pretrain_early_stopping: bool = False,
    pretrain_lr_decay_steps: int | None = None,
    pretrain_lr_decay_factor: float | None = None,
    lr_after_pretraining: float | None = None,
    fresh_optimizer: bool = False,
    best_epoch_from: str = "training",
    stop_after_pretraining: bool = False,
    share_pretraining: bool = True,
    device: str = "auto",
    precision: str = "float32",
    resident_data: bool | str = "auto",
    cuda_graphs: bool | str = "auto",
    verbose: bool = True,
) -> TrainerResult:
    """Train without a clustering loss, for models whose readout vectors are clustered afterwards.

    Parameters
    ----------
    model
        Any model with nnfabrik's core / readout shape: ``model(images, data_key=..., **batch fields)``,
        ``model.core``, and ``model.readout``, an ``nn.ModuleDict`` of one readout per session.
    dataloaders
        Tier ("train", "validation") to data key to loader; a batch's first two fields are images and responses.
    seed
        Seeds the training. Same seed, same machine, same number of threads, CPU: same bytes.
    uid, cb
        nnfabrik's identifier of the entry, and its callback: ``cb(uid=, epoch=, model=, info=)`` is called after every
        epoch.
    preset
        Many settings under one name (:mod:`december_plugin.training.presets`). "paper": the method as the paper
        describes it, with this package's choices where the paper leaves them open. "published": the authors' published
        code, as far as it is known, with the settings of its experiments. Settings that are given as well take
        precedence. None: the defaults here.
    max_iter, lr_init, patience, tolerance, lr_decay_steps, lr_decay_factor, min_lr, lr_decay
        As in the SENSORIUM 2022 trainer; see :class:`~december_plugin.training.settings.TrainingSettings`.
    scale_loss, scale_loss_trials
        How the loss is scaled; see :class:`~december_plugin.training.settings.TrainingSettings`.
    pretrain_epochs
        Share this many first epochs with DECEMber runs of the same ``pretrain_epochs``: the baseline is then exactly
        a DECEMber run of strength 0.
    pretrain_early_stopping, pretrain_lr_decay_steps, pretrain_lr_decay_factor
        Early stopping of the pretraining; see :class:`~december_plugin.training.settings.TrainingSettings`.
    lr_after_pretraining, fresh_optimizer, best_epoch_from
        What changes when the pretraining is over; see :class:`~december_plugin.training.settings.TrainingSettings`.
    stop_after_pretraining
        End after ``pretrain_epochs``: the control that shows what the clustering loss itself adds.
    share_pretraining, device, precision, resident_data, cuda_graphs, verbose
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

    See Also
    --------
    december_trainer : Trains with the clustering loss.
    december_plugin.clustering.cluster_readouts : Clusters the readout vectors of the trained model.

    Examples
    --------
    >>> from december_plugin.datasets import static_loaders
    >>> from december_plugin.models import stacked_core_gaussian_readout
    >>> from december_plugin.simulate import write_recording
    >>> from december_plugin.trainers import baseline_trainer
    >>> sizes = {"n_neurons": 8, "n_train": 20, "n_validation": 5, "n_test": 2, "n_repeats": 3}
    >>> loaders = static_loaders([write_recording("static4-1-1-simulated", seed=4, **sizes)], batch_size=10, seed=1)
    >>> model = stacked_core_gaussian_readout(loaders, seed=1, hidden_channels=4, layers=1)
    >>> score, output, state_dict = baseline_trainer(model, loaders, seed=1, max_iter=2, device="cpu", verbose=False)
    >>> output["stopped_by"], len(output["curves"]["train_loss"])
    ('max_iter', 2)
    >>> tuple(state_dict["readout.static4-1-1-simulated._features"].shape)  # readout vectors: 4 features, 8 neurons
    (1, 4, 1, 8)
    """
    given = locals()
    settings = _of(TrainingSettings, given)
    return TrainingRun(model, dataloaders, seed, settings, uid=uid, cb=cb).run()


@checked_settings
@with_presets(paper=PAPER_DECEMBER, published=PUBLISHED_DECEMBER)
def december_trainer(
    model: nn.Module,
    dataloaders: Mapping[str, Mapping[str, Any]],
    seed: int,
    *,
    n_clusters: int,
    strength: float | str = "auto",
    uid: Any = None,
    cb: Callable[..., None] | None = None,
    preset: str | None = None,
    space: str = "readout",
    normalize: str = "none",
    covariance_refresh: str = "epoch",
    dof: float = 2.1,
    weights: str = "uniform",
    scale_bounds: tuple[float, float] = (1e-4, 1e4),
    detach_target: bool = False,
    kmeans_n_init: int = 20,
    kmeans_seeds: str = "spawned",
    mixture_n_init: int = 0,
    start_scales: str = "clamped",
    scale_centers: str = "new",
    empty_clusters: str = "keep",
    restore_mixture: bool = True,
    max_iter: int = 200,
    lr_init: float = 0.009,
    patience: int = 5,
    tolerance: float = 1e-6,
    lr_decay_steps: int = 3,
    lr_decay_factor: float = 0.3,
    min_lr: float = 1e-4,
    lr_decay: str = "restore",
    scale_loss: bool = True,
    scale_loss_trials: str = "train",
    pretrain_epochs: int = 40,
    pretrain_early_stopping: bool = False,
    pretrain_lr_decay_steps: int | None = None,
    pretrain_lr_decay_factor: float | None = None,
    lr_after_pretraining: float | None = None,
    fresh_optimizer: bool = False,
    best_epoch_from: str = "training",
    share_pretraining: bool = True,
    device: str = "auto",
    precision: str = "float32",
    resident_data: bool | str = "auto",
    cuda_graphs: bool | str = "auto",
    verbose: bool = True,
) -> TrainerResult:
    """Train with DECEMber's clustering loss after a pretraining without it ("Learning to cluster neuronal function").

    After ``pretrain_epochs`` a Student-t mixture is started by k-means on the readout vectors of all sessions. From
    then on every optimizer step makes one EM step of the mixture and adds ``strength`` times the KL divergence between
    the sharpened and the soft assignments to the loss. Best score and patience are reset there, so the restored epoch
    is always one with clustering; the mixture is restored together with the weights.

    With ``space="functional"`` the mixture is one of functional embeddings, whose distances do not depend on the basis
    that the core happens to use. The feature covariance is measured with 400 stimuli of the training tier when the
    clustering begins and at the start of each of its epochs, and belongs to the mixture.

    Parameters
    ----------
    model, dataloaders, seed, uid, cb
        As for :func:`baseline_trainer`.
    n_clusters, strength, space, normalize, covariance_refresh, dof, weights, scale_bounds, detach_target
        See :class:`~december_plugin.training.settings.ClusteringSettings`.
    kmeans_n_init, kmeans_seeds, mixture_n_init, start_scales, scale_centers, empty_clusters, restore_mixture
        See :class:`~december_plugin.training.settings.ClusteringSettings`.
    preset
        As for :func:`baseline_trainer`. Both cluster readout vectors, with uniform weights. "published" needs a
        ``strength``.
    max_iter, lr_init, patience, tolerance, lr_decay_steps, lr_decay_factor, min_lr, lr_decay
        As for :func:`baseline_trainer`; ``max_iter`` includes the pretraining.
    pretrain_epochs
        Epochs without the clustering loss; about two thirds of the training has worked well. With 0 the readout
        vectors are all equal at the start and cannot be clustered.
    scale_loss, scale_loss_trials, best_epoch_from
        As for :func:`baseline_trainer`.
    pretrain_early_stopping, pretrain_lr_decay_steps, pretrain_lr_decay_factor, lr_after_pretraining, fresh_optimizer
        As for :func:`baseline_trainer`: ``lr_after_pretraining`` is the learning rate of the clustering phase.
    share_pretraining, device, precision, resident_data, cuda_graphs, verbose
        See :class:`~december_plugin.training.settings.TrainingSettings`.

    Returns
    -------
    score, output, state_dict
        As for :func:`baseline_trainer`; ``output["mixture"]`` holds the fitted mixture, its space and, if that is
        functional, the ``covariance`` (D, D) that maps readout vectors to it; ``output["clustering"]`` the
        strength that was used and its gradient ratio.

    Raises
    ------
    SettingsError
        For an unknown setting or a value that is not allowed, and for more clusters than neurons.
    EmbeddingError
        In functional space, before anything is trained: if a readout does not say what it receives from the core.
    TrainingDivergedError
        If the loss or the readout vectors become NaN or infinite.

    Warns
    -----
    UserWarning
        If the clustering loss is so strong that it only freezes the partition found at the end of the pretraining.

    See Also
    --------
    baseline_trainer : The control: the same training without the clustering loss.
    december_plugin.clustering.DECEMber : The loss itself, for your own training loop.

    Examples
    --------
    >>> from december_plugin.datasets import static_loaders
    >>> from december_plugin.models import stacked_core_gaussian_readout
    >>> from december_plugin.simulate import write_recording
    >>> from december_plugin.trainers import december_trainer
    >>> sizes = {"n_neurons": 8, "n_train": 20, "n_validation": 5, "n_test": 2, "n_repeats": 3}
    >>> loaders = static_loaders([write_recording("static5-1-1-simulated", seed=5, **sizes)], batch_size=10, seed=1)
    >>> model = stacked_core_gaussian_readout(loaders, seed=1, hidden_channels=4, layers=1)
    >>> settings = {"pretrain_epochs": 1, "max_iter": 3, "device": "cpu", "verbose": False}
    >>> score, output, state_dict = december_trainer(model, loaders, 1, n_clusters=2, strength=1e-3, **settings)
    >>> output["mixture"]["centers"].shape  # clusters, features
    (2, 4)
    """
    given = locals()
    clustering, settings = _of(ClusteringSettings, given), _of(TrainingSettings, given)
    phase = ClusteringPhase(clustering)
    return TrainingRun(model, dataloaders, seed, settings, clustering=phase, uid=uid, cb=cb).run()


TRAINERS = (baseline_trainer, december_trainer)


def _of(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """Construct settings of this kind from those among ``given``; a trainer may not have all of them."""
    return kind(**{each.name: given[each.name] for each in fields(kind) if each.name in given})


def check_trainer_config(trainer: Callable[..., TrainerResult], config: Mapping[str, Any]) -> None:
    """Check a configuration of one of :data:`TRAINERS` without training: names, types and ranges.

    Raises
    ------
    SettingsError
        As the trainer itself would.
    """
    known = allowed_settings(trainer)
    for name in config:
        if name not in known:
            raise unknown_setting(trainer.__name__, name, known)
    check_complete(trainer, expand_preset(trainer, config))
    if trainer is december_trainer:
        _of(ClusteringSettings, _with_defaults(trainer, config))
    training_settings(trainer, config)


def training_settings(trainer: Callable[..., TrainerResult], config: Mapping[str, Any]) -> TrainingSettings:
    """Return the settings of the training of a configuration of one of :data:`TRAINERS`, with presets expanded."""
    return _of(TrainingSettings, _with_defaults(trainer, config))


def _with_defaults(trainer: Callable[..., TrainerResult], config: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {name: parameter.default for name, parameter in inspect.signature(trainer).parameters.items()}
    return {**defaults, **expand_preset(trainer, config)}
