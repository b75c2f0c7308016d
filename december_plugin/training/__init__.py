"""nnfabrik trainer functions and the loop they share."""

from december_plugin.training.entries import baseline_trainer, december_trainer

__all__ = ["baseline_trainer", "december_trainer"]
