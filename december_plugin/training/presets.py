"""Settings of the trainers under one name: the method of the paper, and the published experiments.

``paper`` is DECEMber as the paper describes it: clusters of readout vectors, uniform weights, exact EM. What the paper
leaves open is this package's choice, including the strength, for which the paper has no single value. Use it as the
method to compare others with. ``published`` is the authors' trainer, as far as it is public: the code that the paper
names, with its deviations from the text, and the settings of its experiments on mouse V1 (strengths of 1e4 to 1e7,
learning rates of 0.008 to 0.003, which depend on the strength). Use it to reproduce a published figure.
``docs/experiments.md`` compares all three, value by value.
"""

from __future__ import annotations

from typing import Any

from december_plugin.validation.checks import Preset

PAPER_TRAINING: dict[str, Any] = {
    "max_iter": 200,
    "lr_init": 0.009,
    "patience": 5,
    "tolerance": 1e-6,
    "lr_decay_steps": 3,
    "lr_decay_factor": 0.3,
    "min_lr": 1e-4,
    "lr_decay": "restore",
    "scale_loss": True,
    "scale_loss_trials": "train",
    "pretrain_early_stopping": False,
    "fresh_optimizer": False,
    "best_epoch_from": "training",
}
PAPER_CLUSTERING: dict[str, Any] = {
    "strength": "auto",
    "space": "readout",
    "normalize": "none",
    "dof": 2.1,
    "weights": "uniform",
    "scale_bounds": [1e-4, 1e4],
    "detach_target": False,
    "kmeans_n_init": 20,
    "kmeans_seeds": "spawned",
    "mixture_n_init": 0,
    "start_scales": "clamped",
    "scale_centers": "new",
    "empty_clusters": "keep",
    "restore_mixture": True,
}
PAPER_BASELINE = Preset({**PAPER_TRAINING, "pretrain_epochs": 0})
PAPER_DECEMBER = Preset({**PAPER_TRAINING, "pretrain_epochs": 40, **PAPER_CLUSTERING})

# Without the settings of the space, whose default will remain readout vectors, so that hashes of registered entries
# stay the same.
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
