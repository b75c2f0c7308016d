"""The short dotted path of the trainer functions, as stored in databases; it never changes."""

from december_plugin.training.trainers import baseline_trainer, december_trainer

__all__ = ["baseline_trainer", "december_trainer"]
