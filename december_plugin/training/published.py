"""The settings of the published experiments, as presets of the trainers.

They are those of the authors' trainer, as far as it is public: the code that the paper names, and the settings of its
experiments on mouse V1 (strengths of 1e4 to 1e7, learning rates of 0.008 to 0.003, which depend on the strength).
``docs/experiments.md`` tells where and why the defaults of this package differ.
"""

from __future__ import annotations

from typing import Any

from december_plugin.validation.checks import Preset

PUBLISHED_TRAINING: dict[str, Any] = {
    "max_iter": 200,
    "lr_init": 0.009,
    "patience": 5,
    "tolerance": 1e-6,
    "lr_decay_steps": 4,
    "lr_decay_factor": 0.3,
    "min_lr": 1e-4,
    "lr_decay": "plateau",
    "scale_loss": True,
    "scale_loss_trials": "all",
    "pretrain_early_stopping": True,
    "fresh_optimizer": True,
    "best_epoch_from": "pretraining_end",
}
PUBLISHED_CLUSTERING: dict[str, Any] = {
    "dof": 2.1,
    "weights": "uniform",
    "scale_bounds": [1e-4, 1e4],
    "detach_target": False,
    "kmeans_n_init": 20,
    "kmeans_seeds": "joint",
    "start_scales": "unclamped",
    "scale_centers": "old",
    "empty_clusters": "reseed",
    "restore_mixture": False,
}
PUBLISHED_BASELINE = Preset({**PUBLISHED_TRAINING, "pretrain_epochs": 0})
PUBLISHED_DECEMBER = Preset(
    {**PUBLISHED_TRAINING, "pretrain_epochs": 10, **PUBLISHED_CLUSTERING},
    needs={
        "strength": "the published experiments have no default. They chose it in the order of magnitude of the model "
        "loss at initialization: 1e4 to 1e7 for mouse V1. 'auto' is orders of magnitude weaker."
    },
)
