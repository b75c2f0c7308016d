"""Settings of a pool, and what follows from them on one machine."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal

from december_plugin.errors import SettingsError
from december_plugin.pool.memory_share import memory_share
from december_plugin.pool.supervisor.gpus import GIBIBYTE, VisibleGpus
from december_plugin.pool.supervisor.slots import Slot, choose_slots
from december_plugin.storage.home import december_home
from december_plugin.validation.models import Count, CountOrZero, Positive, PositiveOrZero, settings_class

LONGEST_POLL = 5.0  # idle workers look for work this often (s)


@settings_class
class PoolSettings:
    """Settings of a pool. They contain no secrets and can be pickled, so that they can be sent to other machines.

    Attributes
    ----------
    schema
        Schema of december's tables.
    nnfabrik
        As the option of the command; None uses the environment and DataJoint's settings.
    pool_id
        Of a row in ``Pool`` that was written before, when an array was submitted to Slurm. If empty, a row is made,
        which ends with the supervisor.
    gpus, workers_per_gpu, cpu
        See :func:`december_plugin.pool.supervisor.slots.choose_slots`.
    mps
        See :func:`december_plugin.pool.supervisor.mps.plan_mps`.
    only, skip, lease, checkpoint_every, max_attempts, retry, data_cache, allow_modules
        Of the workers, see :class:`december_plugin.pool.worker.settings.WorkerSettings`.
    idle_exit
        End when all workers have had nothing to do for this time (s); None never ends.
    max_time
        End after this time (s).
    log_folder
        For the workers' logs; None uses december's folder.
    tensorboard
        For the curves of trainings, as TensorBoard event files; None writes none.
    """

    schema: str
    nnfabrik: str | None = None
    pool_id: str = ""
    gpus: tuple[int | str, ...] | None = None
    workers_per_gpu: Count = 1
    mps: Literal["auto", "on", "off"] = "auto"
    cpu: CountOrZero | None = None
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    lease: Positive = 60.0
    checkpoint_every: Count = 5
    max_attempts: Count = 3
    idle_exit: PositiveOrZero | None = None
    max_time: PositiveOrZero | None = None
    retry: bool = False
    data_cache: PositiveOrZero | None = None
    allow_modules: tuple[str, ...] = ()
    log_folder: Path | None = None
    tensorboard: Path | None = None

    def options(self) -> str:
        """Return the settings that differ from the defaults, as the table of pools keeps them."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        kept = {
            field.name: chosen[field.name]
            for field in fields(self)
            if field.name not in ("schema", "pool_id") and chosen[field.name] != field.default
        }
        return json.dumps(kept, default=str)

    def worker_options(self, slot: Slot, *, mixed: bool) -> list[str]:
        """Return the options of the worker in this place; a ``mixed`` pool has places with and without a GPU."""
        skip = self.skip
        if mixed and slot.gpu is None and not self.only and "gpu" not in skip:
            skip = (*skip, "gpu")  # a training would take days there while the GPUs are idle
        poll = LONGEST_POLL if self.idle_exit is None else min(LONGEST_POLL, max(0.5, self.idle_exit / 3))
        words = ["--schema", self.schema, "--poll", f"{poll:g}", "--lease", f"{self.lease:g}"]
        words += ["--checkpoint-every", str(self.checkpoint_every), "--max-attempts", str(self.max_attempts)]
        words += ["--data-cache", f"{self.data_cache:g}"] if self.data_cache is not None else []
        words += ["--nnfabrik", self.nnfabrik] if self.nnfabrik else []
        words += ["--tensorboard", str(self.tensorboard)] if self.tensorboard is not None else []
        for option, names in (("--only", self.only), ("--skip", skip), ("--allow-modules", self.allow_modules)):
            words += [option, ",".join(names)] if names else []
        return words


def worker_program() -> list[str]:
    """Return the command of a worker: the script next to this interpreter, which need not be on the path."""
    # As a script and not as a module: `-m` would use a package of this name in the current folder.
    script = Path(sys.executable).with_name("december")
    program = [str(script)] if script.exists() else [sys.executable, "-m", "december_plugin.cli"]
    return [*program, "worker"]


def log_folder_of(settings: PoolSettings, pool_id: str) -> Path:
    """Return the folder for the logs of a pool's workers on this machine."""
    if settings.log_folder is not None:
        folder = settings.log_folder.expanduser().resolve()
    else:
        folder = december_home() / "logs" / settings.schema / f"pool-{pool_id[:8]}"
    if settings.pool_id:  # one of many supervisors, whose folders may be on one disk
        task = os.environ.get("SLURM_ARRAY_TASK_ID")
        folder /= f"task-{task}" if task else platform.node()
    return folder


def slots_of(settings: PoolSettings, visible: VisibleGpus) -> tuple[Slot, ...]:
    """Return the places of a pool's workers on a machine with these GPUs.

    Raises
    ------
    SettingsError
        If a GPU does not exist, or no place is left.
    """
    return choose_slots(visible, gpus=settings.gpus, workers_per_gpu=settings.workers_per_gpu, cpu=settings.cpu)


def notice(settings: PoolSettings, visible: VisibleGpus, slots: Sequence[Slot]) -> str:
    """Return what may surprise a user about the places of the workers; empty if they are as requested."""
    if settings.gpus is None and settings.cpu is None and not visible.gpus:
        return f"no GPU is visible ({visible.source}): one worker on the processor. --cpu N starts more"
    if len({slot.gpu is None for slot in slots}) == 2 and not settings.only:
        return "the workers on the processor fill the tables that need no GPU"
    return ""


def sharing_in_words(slots: Sequence[Slot]) -> str:
    """Return how much of its GPU's memory each worker may use; empty if none is shared, or if it is unknown."""
    shares = dict.fromkeys(
        memory_share(slot.gpu.memory, slot.n_sharing)
        for slot in slots
        if slot.gpu is not None and slot.gpu.memory and slot.n_sharing > 1
    )
    if not shares:
        return ""
    sizes = ", ".join(f"{share / GIBIBYTE:.1f} GiB" for share in shares)
    return f"each worker may use its share of the memory of its GPU, {sizes}"


def made_log_folder(folder: Path, complaint: str) -> Path:
    """Create a folder that only the user can read, if it does not exist.

    Parameters
    ----------
    folder
        For logs.
    complaint
        Message of the :class:`SettingsError` if it cannot be created, with places for ``folder`` and ``reason``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(complaint.format(folder=folder, reason=error.strerror or error)) from None
    return folder
