"""Monitors of trainings, which learn of every epoch and hold the state of an interrupted training.

A trainer called by hand has no monitor. A worker sets its own::

    with monitored(CheckpointsOf(job)):
        trainer(model=model, dataloaders=loaders, seed=seed)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """The progress of a training.

    Attributes
    ----------
    epoch
        Number of finished epochs, from 1, including those of an interrupted process.
    n_epochs
        Most epochs; early stopping may end the training before.
    score
        Mean validation correlation after this epoch.
    seconds_per_epoch
        Mean duration of the epochs of this process (s).
    curves
        Name to one value for each finished epoch from the first on, including those of an interrupted process. They
        grow with the training; a monitor must not change them.
    """

    epoch: int
    n_epochs: int
    score: float | None
    seconds_per_epoch: float
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict, repr=False, compare=False)


class Monitor:
    """A monitor that does nothing, to derive others from."""

    def load(self) -> bytes | None:
        """Return the state of an interrupted training, or None to begin one.

        Called once, before the first epoch. A state that cannot be read, or that belongs to another training (another
        model, other data, settings, seed or software), is refused with a warning, and the training starts over.
        """
        return None

    def after_epoch(self, progress: Progress, get_state: Callable[[], bytes]) -> None:
        """Learn of a finished epoch; an exception raised here ends the training, and the trainer raises it.

        Parameters
        ----------
        progress
            The progress of the training.
        get_state
            Returns the state from which the training continues with the same bytes, for :meth:`load` of a later
            process. Call it within ``after_epoch``: it copies the model, the optimizer and more at each call.
        """


_NOBODY = Monitor()
_current: ContextVar[Monitor] = ContextVar("training_monitor", default=_NOBODY)


def current_monitor() -> Monitor:
    """Return the monitor of trainings in this thread."""
    return _current.get()


@contextmanager
def monitored(monitor: Monitor) -> Iterator[None]:
    """Let ``monitor`` watch the trainings of this thread, within the block."""
    token = _current.set(monitor)
    try:
        yield
    finally:
        _current.reset(token)
