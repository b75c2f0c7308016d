"""The settings of a training and of its clustering, validated once, with every default in one place."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from december_plugin.errors import SettingsError
from december_plugin.mixture import StudentTMixture
from december_plugin.settings import check_bool, check_choice, check_integer, check_number

AUTO_GRADIENT_RATIO = 0.01
LOCK_IN_GRADIENT_RATIO = 0.1


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of the training itself, named as in the SENSORIUM 2022 trainer where it has them.

    Attributes
    ----------
    max_iter
        Epochs at most, pretraining included.
    lr_init
        Adam's learning rate.
    patience
        Epochs without a better validation score after which the learning rate decays.
    tolerance
        What a score must exceed the best one by to be better (correlation).
    lr_decay_steps
        The training stops when patience has run out this many times.
    lr_decay_factor, min_lr
        What the learning rate is multiplied by then, and its lower bound.
    scale_loss
        Whether a batch's loss is scaled by ``sqrt(M / m)``.
    pretrain_epochs
        Epochs at the beginning at constant learning rate, without early stopping and without a clustering loss. Runs
        that differ only in what follows share them. Early stopping starts after them.
    stop_after_pretraining
        End there (the control of a DECEMber run with the same ``pretrain_epochs``).
    share_pretraining
        Whether to use the folder of shared pretrainings.
    device
        "auto" (CUDA where there is a GPU), "cpu", "cuda" or "cuda:0" and so on.
    verbose
        Whether to show a progress bar where the output is a terminal.
    """

    max_iter: int = 200
    lr_init: float = 0.009
    patience: int = 5
    tolerance: float = 1e-6
    lr_decay_steps: int = 3
    lr_decay_factor: float = 0.3
    min_lr: float = 1e-4
    scale_loss: bool = True
    pretrain_epochs: int = 0
    stop_after_pretraining: bool = False
    share_pretraining: bool = True
    device: str = "auto"
    verbose: bool = True

    def __post_init__(self) -> None:
        check_integer("max_iter", self.max_iter, minimum=1)
        check_number("lr_init", self.lr_init, above=0)
        check_integer("patience", self.patience, minimum=1)
        check_number("tolerance", self.tolerance, minimum=0)
        check_integer("lr_decay_steps", self.lr_decay_steps, minimum=1)
        if check_number("lr_decay_factor", self.lr_decay_factor, above=0) > 1:
            raise SettingsError(f"lr_decay_factor is {self.lr_decay_factor!r}; it must be at most 1.")
        check_number("min_lr", self.min_lr, minimum=0)
        check_integer("pretrain_epochs", self.pretrain_epochs, minimum=0)
        for name in ("scale_loss", "stop_after_pretraining", "share_pretraining", "verbose"):
            check_bool(name, getattr(self, name))
        if self.stop_after_pretraining and self.pretrain_epochs == 0:
            raise SettingsError("stop_after_pretraining needs pretrain_epochs of at least 1; it is 0.")
        if not self.stop_after_pretraining and self.pretrain_epochs >= self.max_iter:
            raise SettingsError(
                f"pretrain_epochs is {self.pretrain_epochs} and max_iter, which counts the pretraining too, is "
                f"{self.max_iter}: no epoch is left for the training. Raise max_iter or lower pretrain_epochs."
            )


@dataclass(frozen=True, kw_only=True)
class ClusteringSettings:
    """Settings of DECEMber's clustering loss (paper, section 3; every choice where the paper is silent is here).

    Attributes
    ----------
    n_clusters
        K.
    strength
        Factor of the clustering loss (beta), or "auto": the factor at which the gradient of the clustering loss with
        respect to the readout vectors has 0.01 times the norm of the model loss's when the clustering begins.
    dof
        Degrees of freedom of the t distributions.
    weights
        "uniform" or "learned" mixing weights.
    scale_bounds
        Bounds of the scales s2, in squared units of the readout weights.
    detach_target
        Whether the target distribution is a constant for the gradient, as in classic DEC.
    kmeans_n_init
        Restarts of the k-means that starts the mixture.
    """

    n_clusters: int
    strength: float | str = "auto"
    dof: float = 2.1
    weights: str = "uniform"
    scale_bounds: tuple[float, float] = (1e-4, 1e4)
    detach_target: bool = False
    kmeans_n_init: int = 20

    def __post_init__(self) -> None:
        check_integer("n_clusters", self.n_clusters, minimum=1)
        if self.strength != "auto":
            if isinstance(self.strength, str):
                raise SettingsError(f"strength is {self.strength!r}; it must be a number of at least 0, or 'auto'.")
            check_number("strength", self.strength, minimum=0)
        check_number("dof", self.dof, above=0)
        check_choice("weights", self.weights, ("uniform", "learned"))
        check_integer("kmeans_n_init", self.kmeans_n_init, minimum=1)
        check_bool("detach_target", self.detach_target)
        # The mixture checks what it gets; a list is what a tuple is after its way through the database.
        StudentTMixture(1, 1, dof=self.dof, scale_bounds=self.scale_bounds)
        object.__setattr__(self, "scale_bounds", tuple(self.scale_bounds))


def resolve_device(name: str) -> torch.device:
    """Return the device of this name; "auto" is CUDA where there is a GPU and the CPU otherwise."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise SettingsError(f"device is {name!r}; it must be 'auto', 'cpu', 'cuda' or 'cuda:0' and so on.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"device is {name!r}, but this machine has {torch.cuda.device_count()} GPUs that torch can use. Use "
            "'auto', which takes a GPU where there is one."
        )
    return device
