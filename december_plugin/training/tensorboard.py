"""Training curves as TensorBoard's event files, written while a training runs.

The optional extra ``[tensorboard]`` is imported when the first curve is written. Writing changes nothing about a
training: no random numbers are drawn, and a folder that cannot be written costs the curves and not the training.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from december_plugin.errors import MissingExtraError
from december_plugin.training.monitor import Monitor, Progress

logger = logging.getLogger(__name__)

INSTALL = 'pip install "december-plugin[tensorboard]"'
EVENT_FILES = "events.out.tfevents.*"
FLUSH_SECONDS = 5.0  # how old the curves in TensorBoard may be if epochs are short
LONGEST_NAME = 100  # characters
# Names of a training's curves in TensorBoard, in groups.
TAGS = {
    "train_loss": "loss/training",
    "clustering_loss": "loss/clustering",
    "validation_correlation": "correlation/validation",
    "learning_rate": "schedule/learning_rate",
    "phase": "schedule/phase",
    "changed_assignments": "clusters/changed_assignments",
}


def check_tensorboard() -> None:
    """Check that event files can be written here, without importing anything.

    Raises
    ------
    MissingExtraError
        The package tensorboard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingExtraError(
            "curves for TensorBoard need the package tensorboard, which is not installed. Install it: "
            f"{INSTALL}; or leave out --tensorboard, DECEMBER_TENSORBOARD and december.tensorboard."
        )


def run_name(description: str, identity: str) -> str:
    """Return the name of a training's folder: its description as a file name, then what is unique.

    Parameters
    ----------
    description
        What the training is called.
    identity
        Distinguishes it from others of the same description, such as the beginning of a hash.

    Examples
    --------
    >>> run_name("DECEMber, K 20, seed 3", "5f2c91d0")
    'DECEMber-K-20-seed-3-5f2c91d0'
    """
    words = re.sub(r"[^\w.+-]+", "-", description).strip("-.")[:LONGEST_NAME]
    return f"{words}-{identity}" if words else identity


class TensorBoardMonitor(Monitor):
    """Writes the curves of one training into a folder, and leaves everything else to another monitor.

    The folder contains only the curves of this training. A training that continues from an earlier state knows its
    curves from the first epoch on, so they are written again and replace the files of the interrupted process: no epoch
    is missing or appears twice. To watch a training that you start yourself::

        with TensorBoardMonitor("runs/first") as monitor, monitored(monitor):
            trainer(model=model, dataloaders=loaders, seed=seed)

    Parameters
    ----------
    folder
        Folder of this training; created when the first epoch is finished.
    inner
        The monitor that keeps the training's state, if any.
    about
        What is written next to the curves, by name: shown under *Text*.
    """

    def __init__(self, folder: Path | str, *, inner: Monitor | None = None, about: Mapping[str, Any] | None = None):
        self.folder, self.about = Path(folder), dict(about or {})
        self.inner = inner if inner is not None else Monitor()
        self._writer: Any = None
        self._n_written = 0
        self._flushed = float("-inf")
        self._given_up = False

    def load(self) -> bytes | None:
        """Return the state that the inner monitor has."""
        return self.inner.load()

    def after_epoch(self, progress: Progress, get_state: Any) -> None:
        """Call the inner monitor, and write what the epoch added to the curves."""
        self.inner.after_epoch(progress, get_state)
        if self._given_up:
            return
        try:
            self._write(progress.curves)
        except MissingExtraError:
            raise
        except Exception as error:  # of the disk or TensorBoard: it must not cost the training
            self._given_up = True
            logger.warning(
                "the curves for TensorBoard cannot be written into %s (%s: %s); the training continues without them",
                self.folder,
                type(error).__name__,
                error,
            )
            self.close()

    def close(self) -> None:
        """Write what is left, and close the file."""
        writer, self._writer, self._n_written = self._writer, None, 0
        if writer is None:
            return
        try:
            writer.close()
        except Exception as error:
            if not self._given_up:
                logger.warning("the last curves for TensorBoard could not be written into %s: %s", self.folder, error)

    def __enter__(self) -> TensorBoardMonitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, curves: Mapping[str, Sequence[float]]) -> None:
        epochs = curves.get("epoch", ())
        if self._writer is None or len(epochs) < self._n_written:  # the first epoch, or that of another training
            self.close()
            self._writer = self._new_writer()
        for row in range(self._n_written, len(epochs)):
            for name, tag in TAGS.items():
                if name in curves and math.isfinite(curves[name][row]):
                    self._writer.add_scalar(tag, curves[name][row], global_step=int(epochs[row]))
        self._n_written = len(epochs)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def _new_writer(self) -> Any:
        check_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(EVENT_FILES):  # of an interrupted process; the curves begin with the first epoch
            path.unlink(missing_ok=True)
        writer = SummaryWriter(str(self.folder), flush_secs=int(FLUSH_SECONDS))
        if self.about:
            rows = "\n".join(f"| {name} | {value} |" for name, value in self.about.items())
            writer.add_text("training", f"| | |\n| --- | --- |\n{rows}")
        return writer
