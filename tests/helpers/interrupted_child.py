"""What a child process runs that is killed or told to stop while it trains."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import december_plugin  # noqa: F401  # before neuralpredictors, which it makes fit for this Python

# isort: split
import torch

from helpers.interrupted import InFile, Interrupted, train

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
