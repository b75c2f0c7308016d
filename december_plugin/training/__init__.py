"""nnfabrik trainer functions and the loop they share."""

from december_plugin.training.trainers import baseline_trainer, december_trainer

__all__ = ["baseline_trainer", "december_trainer"]
