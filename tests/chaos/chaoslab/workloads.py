"""A small lab's package: what the workers of the chaos tests compute.

``baseline`` and ``december`` are december's own trainers; they keep a journal and sleep after every epoch, so that
faults hit while a training runs and the tests need little of the machine.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from chaoslab import journal
from december_plugin.trainers import baseline_trainer, december_trainer

TrainerResult = tuple[float, dict[str, Any], Mapping[str, torch.Tensor]]


def job_of(uid: Mapping[str, Any] | None) -> str:
    """Return DataJoint's hash of the key, by which the tables know the job."""
    from datajoint.hash import key_hash

    return key_hash(dict(uid)) if uid else ""


def _slowly(trainer: Callable[..., TrainerResult], uid: Any, cb: Any, pause: float, **arguments: Any) -> TrainerResult:
    job = job_of(uid)
    journal.write("begin", job, seed=arguments["seed"])

    def after_epoch(**info: Any) -> None:
        journal.write("epoch", job, epoch=info["epoch"])
        if cb is not None:
            cb(**info)
        if job:  # not in the plain loop that the results are compared with
            time.sleep(pause)

    score, output, state_dict = trainer(uid=uid, cb=after_epoch, **arguments)
    journal.write("end", job, digest=journal.digest(state_dict))
    return score, output, state_dict


def baseline(
    model: nn.Module, dataloaders: Any, seed: int, *, uid: Any = None, cb: Any = None, pause: float = 0, **settings: Any
) -> TrainerResult:
    """December's baseline trainer, which sleeps for ``pause`` seconds after every epoch."""
    return _slowly(baseline_trainer, uid, cb, pause, model=model, dataloaders=dataloaders, seed=seed, **settings)


def december(
    model: nn.Module, dataloaders: Any, seed: int, *, uid: Any = None, cb: Any = None, pause: float = 0, **settings: Any
) -> TrainerResult:
    """DECEMber's trainer, which sleeps for ``pause`` seconds after every epoch."""
    return _slowly(december_trainer, uid, cb, pause, model=model, dataloaders=dataloaders, seed=seed, **settings)


# --- jobs without work ---------------------------------------------------------------------------------------------


def no_loaders(seed: int | None = None) -> dict[str, dict]:
    """No data."""
    return {"train": {}, "validation": {}, "test": {}}


def one_weight(dataloaders: Any, seed: int) -> nn.Module:
    """Return the smallest model."""
    return nn.Linear(1, 1, bias=False)


def trivial(
    model: nn.Module, dataloaders: Any, seed: int, *, uid: Any = None, cb: Any = None, seconds: float = 0.0
) -> TrainerResult:
    """Sleep and return: all that this job costs beyond ``seconds`` is book-keeping."""
    job, began = job_of(uid), time.perf_counter()
    journal.write("begin", job, seed=seed)
    time.sleep(seconds)
    state_dict = {"weight": torch.full((1,), float(seed))}
    journal.write("end", job, digest=journal.digest(state_dict), busy=time.perf_counter() - began)
    return 0.5, {"seed": seed}, state_dict


def poisoned(
    model: nn.Module,
    dataloaders: Any,
    seed: int,
    *,
    uid: Any = None,
    cb: Any = None,
    exits: tuple[int, ...] = (),
    crashes: tuple[int, ...] = (),
) -> TrainerResult:
    """End the process for the seeds of ``exits`` (``os._exit``) and of ``crashes`` (a segmentation fault)."""
    if seed in exits or seed in crashes:
        journal.write("begin", job_of(uid), seed=seed)
    if seed in exits:
        os._exit(1)
    if seed in crashes:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(10)  # until the signal has come
    return trivial(model, dataloaders, seed, uid=uid, cb=cb)
