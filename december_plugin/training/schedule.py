"""Early stopping and the decay of the learning rate in one phase of a training: the pretraining, or what follows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau

from december_plugin.training.early_stopping import EarlyStopping, Verdict
from december_plugin.training.optimizer import Adam
from december_plugin.training.settings import TrainingSettings


class Schedule:
    """Early stopping of one phase, and what becomes of the optimizer's learning rate.

    Parameters
    ----------
    settings
        Those of the training.
    optimizer
        The phase's.
    pretraining
        Whether this is the pretraining; one without early stopping of its own has its best epoch watched, nothing else.

    Attributes
    ----------
    stopping
        The :class:`EarlyStopping`, which holds the best state.
    """

    def __init__(self, settings: TrainingSettings, optimizer: Adam, *, pretraining: bool):
        acts = not pretraining or settings.pretrain_early_stopping
        self.optimizer, self.min_lr = optimizer, settings.min_lr
        self.factor = settings.lr_decay_factor_in(pretraining=pretraining)
        self.stopping = EarlyStopping(
            patience=settings.patience if acts else sys.maxsize,
            tolerance=settings.tolerance,
            lr_decay_steps=settings.lr_decay_steps_in(pretraining=pretraining),
        )
        self.plateau: ReduceLROnPlateau | None = None
        if acts and settings.lr_decay == "plateau":
            self.plateau = ReduceLROnPlateau(
                optimizer,
                mode="max",
                factor=self.factor,
                patience=settings.patience,
                threshold=settings.tolerance,
                threshold_mode="abs",
                min_lr=settings.min_lr,
            )

    def update(self, epoch: int, score: float, get_state: Callable[[], dict[str, Any]]) -> Verdict:
        """Take the score of an epoch and let the learning rate decay if it is time; see :meth:`EarlyStopping.update`.

        After "decay" and "stop" the best state is to be restored.
        """
        verdict = self.stopping.update(epoch, score, get_state)
        if self.plateau is not None:
            self.plateau.step(score)
            # Earlier releases of torch put a number in the place of the tensor that a recorded step reads.
            self.optimizer.learning_rate = self.optimizer.learning_rate
        elif verdict == "decay":
            rate = self.optimizer.learning_rate
            self.optimizer.learning_rate = min(rate, max(rate * self.factor, self.min_lr))
        return verdict

    def state_dict(self) -> dict[str, Any]:
        """Return what the next verdicts depend on, the best state included (not copied)."""
        state = self.stopping.state_dict()
        return state if self.plateau is None else {**state, "plateau": self.plateau.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.stopping.load_state_dict(state)
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])
