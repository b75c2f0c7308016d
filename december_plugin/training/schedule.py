"""Early stopping and the decay of the learning rate in one phase of a training: the pretraining, or what follows."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch.optim.lr_scheduler import ReduceLROnPlateau

from december_plugin.training.optimizer import Adam
from december_plugin.training.settings import TrainingSettings

Verdict = Literal["improved", "waiting", "decay", "stop"]
_STATE = ("best_score", "best_epoch", "best_state", "epochs_waited", "times_run_out")


class EarlyStopping:
    """Keep the best state; after ``patience`` epochs without improvement decay the learning rate, in the end stop.

    The scheme of the SENSORIUM 2022 baselines (neuralpredictors' ``early_stopping`` with ``lr_decay_steps``), as an
    object rather than a generator, so that it knows nothing about models and can start again, without regard to earlier
    epochs, when the clustering begins.

    Parameters
    ----------
    patience
        Epochs without improvement after which the learning rate decays, or the training stops.
    tolerance
        A score counts as better if it exceeds the best one by more than this.
    lr_decay_steps
        How many times patience may run out; the last time stops the training.
    """

    def __init__(self, *, patience: int, tolerance: float, lr_decay_steps: int):
        self.patience = patience
        self.tolerance = tolerance
        self.lr_decay_steps = lr_decay_steps
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self.best_state: dict[str, Any] | None = None
        self.epochs_waited = 0
        self.times_run_out = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what the next verdicts depend on, the best state included (not copied)."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        for name in _STATE:
            setattr(self, name, state[name])

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out for the last time."""
        return self.times_run_out >= self.lr_decay_steps

    def start_from(self, epoch: int, score: float, state: dict[str, Any]) -> None:
        """Take an earlier state, which is copied, as the best so far, before the first :meth:`update`."""
        self.best_score, self.best_epoch, self.best_state = score, epoch, copy.deepcopy(state)

    def update(self, epoch: int, score: float, get_state: Callable[[], dict[str, Any]]) -> Verdict:
        """Take the score of an epoch; ``get_state`` is called, and its result copied, only if it is the best so far."""
        if self.best_score is None or score > self.best_score + self.tolerance:
            self.best_score, self.best_epoch = score, epoch
            self.best_state = copy.deepcopy(get_state())
            self.epochs_waited = 0
            return "improved"
        self.epochs_waited += 1
        if self.epochs_waited < self.patience:
            return "waiting"
        self.epochs_waited = 0
        self.times_run_out += 1
        return "stop" if self.exhausted else "decay"


class Schedule:
    """Early stopping of one phase, and the decay of the optimizer's learning rate.

    Parameters
    ----------
    settings
        Settings of the training.
    optimizer
        Optimizer of the phase.
    pretraining
        Whether this is the pretraining; if it has no early stopping, only its best epoch is recorded.

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

        After "decay" and "stop", restore the best state.
        """
        verdict = self.stopping.update(epoch, score, get_state)
        if self.plateau is not None:
            self.plateau.step(score)
            # Earlier releases of torch replace the tensor that a recorded step reads by a number.
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
