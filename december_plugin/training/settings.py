"""The settings of a training and of its clustering, validated once, with every default in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, field, fields
from typing import Annotated, Any, Literal

import torch
from pydantic import PlainValidator, SkipValidation, model_validator

from december_plugin.clustering.kmeans import KMeansSeeds
from december_plugin.clustering.methods import Weights
from december_plugin.clustering.student_t_mixture import EmptyClusters, ScaleCenters, StartScales
from december_plugin.embeddings.space import EmbeddingSpace, Normalize, Space
from december_plugin.errors import SettingsError
from december_plugin.training.precision import Precision
from december_plugin.validation.checks import check_bounds, check_number
from december_plugin.validation.models import Count, CountOrZero, Positive, PositiveOrZero, Share, settings_class

AUTO_GRADIENT_RATIO = 0.01
# Settings that do not change what a training computes, except for the rounding of a device.
WITHOUT_EFFECT = ("verbose", "share_pretraining", "device", "resident_data", "cuda_graphs")
LOCK_IN_GRADIENT_RATIO = 0.1
CovarianceRefresh = Literal["epoch", "never"]


def _added(default: Any) -> Any:
    """Return a field that digests leave out at its default, so that they are those of releases without it."""
    return field(default=default, metadata={"added": True})


def protocol_defaults(settings: Any) -> dict[str, Any]:
    """Return the defaults of the settings that distinguish the published protocol from this package's.

    Parameters
    ----------
    settings
        :class:`TrainingSettings` or :class:`ClusteringSettings`, or one of them.
    """
    return {each.name: each.default for each in fields(settings) if each.metadata.get("added")}


def distinguishing(settings: TrainingSettings | ClusteringSettings) -> dict[str, Any]:
    """Return the settings by name, without those of later releases that have their default."""
    added = protocol_defaults(settings)
    return {name: value for name, value in asdict(settings).items() if name not in added or value != added[name]}


def _checked_switch(name: str, *others: str) -> Callable[[Any], Any]:
    *most, last = ("true", "false", *map(repr, others))

    def check(value: Any) -> Any:
        if value not in others and not isinstance(value, bool):
            raise SettingsError(f"{name} is {value!r}; it must be {', '.join(most)} or {last}.", setting=name)
        return value

    return check


@settings_class
class TrainingSettings:
    """Settings of the training, named as in the SENSORIUM 2022 trainer if it has them.

    Attributes
    ----------
    max_iter
        Most epochs, including the pretraining.
    lr_init
        Adam's learning rate.
    patience
        Epochs without a better validation score after which the learning rate decays.
    tolerance
        How much higher than the best one a score must be to be better (correlation).
    lr_decay_steps
        The training stops when patience has run out this many times.
    lr_decay_factor, min_lr
        Factor of each decay of the learning rate, and its lower bound.
    lr_decay
        When the learning rate decays. "restore": when patience runs out, together with the return to the best weights.
        "plateau": by torch's ``ReduceLROnPlateau`` with the same patience, as in the SENSORIUM 2022 trainer; it counts
        separately, so the decay comes one epoch or more after the return, and not at all if the score is better then.
    scale_loss
        Whether a batch's loss is scaled by ``sqrt(M / m)``.
    scale_loss_trials
        Which trials ``M`` counts: "train", those of the training tier, or "all", every trial of the loader's dataset,
        whatever its tier, as in the SENSORIUM 2022 trainer.
    pretrain_epochs
        Epochs at the beginning at constant learning rate, without early stopping and without a clustering loss. Runs
        that differ only in what follows share them. Early stopping starts after them.
    pretrain_early_stopping
        Whether the pretraining has early stopping too: its learning rate may decay, and if patience runs out for the
        last time it ends earlier, at its best epoch.
    pretrain_lr_decay_steps, pretrain_lr_decay_factor
        The same for the pretraining, if it has early stopping; None: ``lr_decay_steps`` and ``lr_decay_factor``.
    lr_after_pretraining
        Adam's learning rate after the pretraining; None: it stays as it is, or starts at ``lr_init`` in a fresh
        optimizer.
    fresh_optimizer
        Whether a new Adam, without the moments of the pretraining, is used after it.
    best_epoch_from
        The earliest weights that may be restored as the best: "training", those of the first epoch after the
        pretraining; "pretraining_end", those with which that epoch began; "first_epoch", those of any epoch.
    stop_after_pretraining
        End there (the control of a DECEMber run with the same ``pretrain_epochs``).
    share_pretraining
        Whether to use the folder of shared pretrainings.
    device
        "auto" (CUDA if there is a GPU), "cpu", "cuda" or "cuda:0" and so on.
    precision
        Precision of the convolutions. "float32"; "tf32", with factors of 10 bits, which only GPUs have (torch's own
        default there); "bf16", the model's core under autocast. The readout, the loss and the mixture are float32 in
        any case.
    resident_data
        Whether the data of all sessions stay on the device, where batches are made by index. "auto": on a GPU, if all
        loaders allow it, as much as fits into half of its free memory. "inputs": responses come from the host, batch by
        batch, while the device works: less memory, about as fast. True: all, or it is an error.
    cuda_graphs
        Whether the launches of a step are recorded and replayed. "auto": on a GPU, if the data stay there and all
        layers of the model are torch's, neuralpredictors' or of this package. True: regardless of the layers. What
        cannot be recorded is launched kernel by kernel, with a warning that says why.
    verbose
        Whether to show a progress bar if the output is a terminal.
    """

    max_iter: Count = 200
    lr_init: Positive = 0.009
    patience: Count = 5
    tolerance: PositiveOrZero = 1e-6
    lr_decay_steps: Count = 3
    lr_decay_factor: Share = 0.3
    min_lr: PositiveOrZero = 1e-4
    lr_decay: Literal["restore", "plateau"] = _added("restore")
    scale_loss: bool = True
    scale_loss_trials: Literal["train", "all"] = _added("train")
    pretrain_epochs: CountOrZero = 0
    pretrain_early_stopping: bool = _added(False)
    pretrain_lr_decay_steps: Count | None = _added(None)
    pretrain_lr_decay_factor: Share | None = _added(None)
    lr_after_pretraining: Positive | None = _added(None)
    fresh_optimizer: bool = _added(False)
    best_epoch_from: Literal["training", "pretraining_end", "first_epoch"] = _added("training")
    stop_after_pretraining: bool = False
    share_pretraining: bool = True
    device: SkipValidation[str] = "auto"  # by resolve_device, on the machine that trains
    precision: Precision = _added("float32")
    resident_data: Annotated[bool | str, PlainValidator(_checked_switch("resident_data", "auto", "inputs"))] = "auto"
    cuda_graphs: Annotated[bool | str, PlainValidator(_checked_switch("cuda_graphs", "auto"))] = "auto"
    verbose: bool = True

    @model_validator(mode="after")
    def _leave_epochs(self) -> TrainingSettings:
        if self.stop_after_pretraining and self.pretrain_epochs == 0:
            raise SettingsError(
                "stop_after_pretraining needs pretrain_epochs of at least 1; it is 0.",
                setting="stop_after_pretraining",
                others=["pretrain_epochs"],
            )
        if not self.stop_after_pretraining and self.pretrain_epochs >= self.max_iter:
            raise SettingsError(
                f"pretrain_epochs is {self.pretrain_epochs} and max_iter, which includes the pretraining, is "
                f"{self.max_iter}: no epoch is left for the training. Raise max_iter or lower pretrain_epochs.",
                setting="pretrain_epochs",
                others=["max_iter"],
            )
        return self

    def pretraining(self) -> dict[str, Any]:
        """Return what the pretraining depends on, by name: runs for which it is equal can share it."""
        described: dict[str, Any] = {
            "epochs": self.pretrain_epochs,
            "lr_init": self.lr_init,
            "scale_loss": self.scale_loss,
        }
        if self.scale_loss_trials != "train":
            described["scale_loss_trials"] = self.scale_loss_trials
        if self.pretrain_early_stopping:
            described["early_stopping"] = (
                *(self.patience, self.tolerance, self.min_lr, self.lr_decay),
                self.lr_decay_steps_in(pretraining=True),
                self.lr_decay_factor_in(pretraining=True),
            )
        if self.best_epoch_from == "first_epoch":
            described["keeps"] = "best epoch"
        if self.precision != "float32":
            described["precision"] = self.precision
        return described

    def lr_decay_steps_in(self, *, pretraining: bool) -> int:
        """Return how many times patience may run out in the pretraining or after it."""
        own = self.pretrain_lr_decay_steps if pretraining else None
        return self.lr_decay_steps if own is None else own

    def lr_decay_factor_in(self, *, pretraining: bool) -> float:
        """Return what the learning rate is multiplied by in the pretraining or after it."""
        own = self.pretrain_lr_decay_factor if pretraining else None
        return self.lr_decay_factor if own is None else own


def _checked_strength(value: Any) -> Any:
    if value == "auto":
        return value
    if isinstance(value, str):
        text = f"strength is {value!r}; it must be a number of at least 0, or 'auto'."
        raise SettingsError(text, setting="strength")
    check_number("strength", value, minimum=0)
    return value


def _checked_bounds(value: Any) -> Any:
    check_bounds("scale_bounds", value)
    return tuple(value)  # a list, once it has been in the database


@settings_class
class ClusteringSettings:
    """Settings of DECEMber's clustering loss (paper, section 3), including every choice that the paper leaves open.

    Attributes
    ----------
    n_clusters
        Number of clusters, K.
    strength
        Factor of the clustering loss (beta), or "auto": the factor at which the gradient of the clustering loss with
        respect to the readout vectors has 0.01 times the norm of the model loss's when the clustering begins.
    space, normalize
        The space in which the neurons are clustered, see :class:`~december_plugin.embeddings.space.EmbeddingSpace`. In
        functional space the gradient of the clustering loss flows to the readout vectors through the root of the
        feature covariance, which counts as a constant.
    covariance_refresh
        When the feature covariance, first measured when the clustering begins, is measured again: "epoch", at the start
        of every epoch, so that distances remain those of what the neurons compute while the core changes; or "never".
        No effect on clusters of readout vectors.
    dof
        Degrees of freedom of the t distributions.
    weights
        "uniform" or "learned" mixing weights.
    scale_bounds
        Bounds of the scales s2, in squared units of the space: of the readout weights, of the drive's standard
        deviation, or of directions, whose squares sum to 1.
    detach_target
        Whether the target distribution is a constant for the gradient, as in classic DEC.
    kmeans_n_init
        Restarts of the k-means that starts the mixture.
    kmeans_seeds
        "spawned": a separate seed for each restart. "joint": scikit-learn draws all of them from one generator, as in
        the published code.
    mixture_n_init
        Runs of EM, each from k-means; the clusters start from the likeliest mixture. 0: they start from k-means itself.
        Otherwise ``kmeans_n_init``, ``kmeans_seeds`` and ``start_scales`` have no effect: the runs start like those of
        :meth:`~december_plugin.clustering.student_t_mixture.StudentTMixture.fit` do.
    start_scales
        "clamped": the population variances of the k-means clusters, within ``scale_bounds``. "unclamped": the unbiased
        variances, regardless of the bounds, as in the published code; the first M-step clamps them.
    scale_centers
        Centres about which an M-step computes the scales: "new" (exact EM) or "old", those of the E-step (the published
        code).
    empty_clusters
        What to do with a cluster without neurons: "keep" its centre and scales, or "reseed" it at the middle of all
        neurons, with wide scales, as in the published code.
    restore_mixture
        Whether the best epoch's mixture is restored along with its weights. In the published code, the last one is
        kept. The feature covariance of a functional space is always that of the weights.
    """

    n_clusters: Count
    strength: Annotated[float | str, PlainValidator(_checked_strength)] = "auto"
    space: Space = _added("readout")
    normalize: Normalize = _added("none")
    covariance_refresh: CovarianceRefresh = _added("epoch")
    dof: Positive = 2.1
    weights: Weights = "uniform"
    scale_bounds: Annotated[tuple[float, float], PlainValidator(_checked_bounds)] = (1e-4, 1e4)
    detach_target: bool = False
    kmeans_n_init: Count = 20
    kmeans_seeds: KMeansSeeds = _added("spawned")
    mixture_n_init: CountOrZero = _added(0)
    start_scales: StartScales = _added("clamped")
    scale_centers: ScaleCenters = _added("new")
    empty_clusters: EmptyClusters = _added("keep")
    restore_mixture: bool = _added(True)

    @property
    def embedding_space(self) -> EmbeddingSpace:
        """The space of the clusters."""
        return EmbeddingSpace(space=self.space, normalize=self.normalize)


def resolve_device(name: str) -> torch.device:
    """Return the device of this name; "auto" is CUDA if there is a GPU and the CPU otherwise."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise SettingsError(
            f"device is {name!r}; it must be 'auto', 'cpu', 'cuda' or 'cuda:0' and so on.", setting="device"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"device is {name!r}, but this machine has {torch.cuda.device_count()} GPUs that torch can use. Use "
            "'auto', which takes a GPU if there is one.",
            setting="device",
        )
    return device
