"""What a child process runs that is killed, told to stop or interrupted while it trains."""

from __future__ import annotations

import functools
import multiprocessing
import os
import pickle
import random
import signal
import threading
import warnings
from pathlib import Path

import december_plugin  # noqa: F401  # before neuralpredictors, which it makes fit for this Python

# isort: split
import torch

from december_plugin.training.pretraining import PretrainingCache, pretraining_folder
from helpers.interrupted import InFile, Interrupted, Recorder, loaders_of, train

# The first optimizer imports most of torch: once, in the process that the children are copied from.
torch.optim.Adam([torch.zeros(())])

SETTINGS = {"max_iter": 8, "pretrain_epochs": 3, "n_clusters": 3, "patience": 2, "weights": "learned"}


class KillAt:
    """Kills its own process after an epoch, without a chance to tidy up."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def __call__(self, epoch: int) -> None:
        if epoch == self.epoch:
            os.kill(os.getpid(), signal.SIGKILL)


class TermWithin:
    """Sends its own process a SIGTERM, a moment into the epoch after this one."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def __call__(self, epoch: int) -> None:
        if epoch == self.epoch:
            threading.Timer(0.005, os.kill, (os.getpid(), signal.SIGTERM)).start()


def train_to_file(path: Path, done: Path, act) -> None:
    """Train with the state in a file; write the result when it is there."""
    torch.set_num_threads(1)

    def handler(number, frame):
        raise Interrupted

    signal.signal(signal.SIGTERM, handler)
    try:
        result = train(InFile(path, act or (lambda epoch: None)), **SETTINGS)
    except Interrupted:
        os._exit(143)
    done.write_text(repr(result))


class Stoppable(Recorder):
    """Raises from a signal handler, before the first epoch or within the second of this process.

    Python drops what is raised within a finalizer or while a process is forked, so the next epoch's end asks again.
    """

    stopped = False

    def __init__(self, state, moment, *, at_once):
        super().__init__(state)
        self.moment, self.at_once = moment, at_once

    def handle(self, number, frame):
        self.stopped = True
        raise Interrupted

    def load(self):
        if self.at_once:
            signal.setitimer(signal.ITIMER_REAL, 0.02 * self.moment)
        return super().load()

    def after_epoch(self, progress, get_state):
        super().after_epoch(progress, get_state)
        if self.stopped:
            raise Interrupted
        if len(self.progress) == 1:
            signal.setitimer(signal.ITIMER_REAL, self.moment * progress.seconds_per_epoch)

    def train(self, **arguments):
        """Return the result, or None if the training was interrupted."""
        before = signal.signal(signal.SIGALRM, self.handle)
        try:
            result = train(self, **arguments)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:
            return None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return result


def train_while_interrupted(done: Path, folder: Path, workers: int, n_epochs: int) -> None:
    """Train in this process until no interruption comes before the end.

    Writes the number of interruptions, the result, and that of a training without them.
    """
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of the loaders' workers, as everywhere else on Linux
    warnings.simplefilter("ignore")
    os.environ["DECEMBER_PRETRAINING"] = str(folder / "pretraining")
    # A lock that is not given back makes a test fail, and not wait for ten minutes.
    PretrainingCache.__init__.__kwdefaults__["patience"] = 2.0
    arguments = {**SETTINGS, "max_iter": n_epochs, "loaders": functools.partial(loaders_of, num_workers=workers)}
    moments = random.Random(workers)
    expected = train(**arguments)
    interruptions, state, result = 0, None, None
    while True:
        for file in pretraining_folder().glob("*.pt"):
            file.unlink()
        monitor = Stoppable(state, moments.uniform(0.05, 1), at_once=interruptions == 0)
        result = monitor.train(**arguments)
        if result is not None:
            break
        state = monitor.states[max(monitor.states)] if monitor.states else state
        interruptions += 1
    done.write_bytes(pickle.dumps((interruptions, result, expected)))
    os._exit(0)  # without what the interpreter does at its end, which may wait for a lock that was not given back
