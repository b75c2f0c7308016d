"""How long planned trainings will take, judging by similar finished ones.

A planned training is compared with the finished ones of the first of these kinds that exists:

1. the same dataset, model and trainer, with other seeds: it takes their mean time;
2. the same dataset and model, with other trainers: their time per epoch, times the expected number of epochs,
   which is the number allowed times the share of the allowed epochs that the finished ones ran;
3. the same dataset and model *functions* with other settings: as 2, but only an order of magnitude.

Trainers with unknown numbers of epochs take the mean time of the finished ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SAME, SAME_DATA_AND_MODEL, SAME_FUNCTIONS = range(3)
LEVELS = ("dataset, model and trainer", "dataset and model", "dataset and model functions, with other settings")


@dataclass(frozen=True)
class Training:
    """The entries of a training.

    Attributes
    ----------
    dataset, model, trainer
        Function and hash of the settings of each entry.
    most_epochs
        Epochs that its settings allow; None if unknown.
    """

    dataset: tuple[str, str]
    model: tuple[str, str]
    trainer: tuple[str, str]
    most_epochs: int | None

    def alike(self, level: int) -> tuple[Any, ...]:
        """Return what trainings that are similar at this level have in common."""
        if level == SAME:
            return (self.dataset, self.model, self.trainer)
        return (self.dataset, self.model) if level == SAME_DATA_AND_MODEL else (self.dataset[0], self.model[0])


@dataclass(frozen=True)
class Device:
    """The kind of device that trainings ran on; times on different ones are not mixed.

    Attributes
    ----------
    is_gpu
        Whether it was a GPU.
    name
        Its model, with the profile of a MIG part; empty for the processor, or if that was not recorded.
    n_workers
        Workers that shared it: a training takes longer with more of them, and the GPU does more at a time.
    """

    is_gpu: bool = False
    name: str = ""
    n_workers: int = 1

    def __str__(self) -> str:
        if not self.is_gpu:
            return "the processor, with one worker"
        return f"one {self.name or 'GPU'}" + (f" with {self.n_workers} workers" if self.n_workers > 1 else "")


@dataclass(frozen=True)
class Finished:
    """A training that has run without interruption.

    Attributes
    ----------
    training
        The training.
    seconds
        Time from its start to the stored result (s).
    n_epochs
        Epochs it has run, including the pretraining, even if that was shared by another training; None if unknown.
    """

    training: Training
    seconds: float
    n_epochs: int | None


@dataclass
class Basis:
    """The basis of a part of an estimate.

    Attributes
    ----------
    level
        Index into :data:`LEVELS`.
    n_planned
        Planned trainings that were judged by it.
    n_finished
        Finished trainings that they were compared with.
    seconds, most_seconds
        Time of all these planned trainings together: expected, and if none stops early (s).
    """

    level: int
    n_planned: int = 0
    n_finished: int = 0
    seconds: float = 0.0
    most_seconds: float = 0.0


@dataclass
class Estimate:
    """How long planned trainings will take on one device.

    Attributes
    ----------
    bases
        The parts, by level.
    n_unknown
        Planned trainings without a similar finished one.
    """

    bases: list[Basis] = field(default_factory=list)
    n_unknown: int = 0

    @property
    def seconds(self) -> float:
        """Expected time of those that could be judged (s)."""
        return sum(basis.seconds for basis in self.bases)

    @property
    def most_seconds(self) -> float:
        """The same, if none of them stops early (s)."""
        return sum(basis.most_seconds for basis in self.bases)


@dataclass(frozen=True)
class _Pace:
    """What the finished trainings of one kind have in common."""

    n_finished: int
    seconds: float  # mean per training
    seconds_per_epoch: float | None
    share: float  # of the allowed epochs that were run

    @classmethod
    def of(cls, finished: Sequence[Finished]) -> _Pace:
        counted = [each for each in finished if each.n_epochs and each.training.most_epochs]
        epochs = sum(each.n_epochs or 0 for each in counted)
        allowed = sum(each.training.most_epochs or 0 for each in counted)
        return cls(
            n_finished=len(finished),
            seconds=sum(each.seconds for each in finished) / len(finished),
            seconds_per_epoch=sum(each.seconds for each in counted) / epochs if epochs else None,
            share=min(1.0, epochs / allowed) if allowed else 1.0,
        )

    def expected(self, planned: Training, level: int) -> tuple[float, float]:
        """Return the expected seconds, and those if it does not stop early."""
        if self.seconds_per_epoch is None or planned.most_epochs is None:
            return self.seconds, self.seconds
        most = self.seconds_per_epoch * planned.most_epochs
        likely = self.seconds if level == SAME else most * self.share
        return likely, max(likely, most)


def estimate(planned: Sequence[Training], finished: Sequence[Finished]) -> Estimate:
    """Return how long planned trainings will take.

    Parameters
    ----------
    planned
        The trainings to be run.
    finished
        Trainings that have run, all on the same kind of device.
    """
    paces: list[Mapping[Any, _Pace]] = []
    for level in range(len(LEVELS)):
        groups: dict[Any, list[Finished]] = {}
        for each in finished:
            groups.setdefault(each.training.alike(level), []).append(each)
        paces.append({alike: _Pace.of(group) for alike, group in groups.items()})
    bases: dict[int, Basis] = {}
    used: dict[int, set[Any]] = {}
    n_unknown = 0
    for training in planned:
        levels = [number for number in range(len(LEVELS)) if training.alike(number) in paces[number]]
        if not levels:
            n_unknown += 1
            continue
        level = levels[0]
        pace = paces[level][training.alike(level)]
        basis = bases.setdefault(level, Basis(level))
        likely, most = pace.expected(training, level)
        basis.n_planned += 1
        basis.seconds += likely
        basis.most_seconds += most
        if training.alike(level) not in used.setdefault(level, set()):
            used[level].add(training.alike(level))
            basis.n_finished += pace.n_finished
    return Estimate([bases[level] for level in sorted(bases)], n_unknown)


def most_epochs(trainer_fn: str, config: Mapping[str, Any]) -> int | None:
    """Return how many epochs one of our trainers runs at most; None for trainers of other packages.

    Parameters
    ----------
    trainer_fn
        The dotted name in the entry.
    config
        The entry's settings.
    """
    from december_plugin.training.settings import TrainingSettings
    from december_plugin.training.trainers import TRAINERS

    package, _, name = trainer_fn.rpartition(".")
    if package.partition(".")[0] != "december_plugin" or name not in {trainer.__name__ for trainer in TRAINERS}:
        return None
    setting = "pretrain_epochs" if config.get("stop_after_pretraining") else "max_iter"
    value = config.get(setting, TrainingSettings.max_iter if setting == "max_iter" else 0)
    return value if isinstance(value, int) and value > 0 else None
