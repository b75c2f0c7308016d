"""Submits a pool to Slurm as an array of tasks, each with a supervisor, and registers it."""

from __future__ import annotations

import dataclasses
import json
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from december_plugin.pool.slurm.array import ArraySettings

DEFAULT_IDLE_EXIT = 60.0  # a task without work gives its GPU back (s)


def submit(array: ArraySettings, settings: Any) -> int:
    """Submit an array, register it as a pool, and print where everything is.

    Parameters
    ----------
    array
        What to request from Slurm.
    settings
        A ``PoolSettings`` for the supervisor of each task; its tables exist.

    Returns
    -------
    int
        The exit code, 0.

    Raises
    ------
    SettingsError
        The nodes would not reach the database.
    SlurmError
        Slurm or submitit is missing, or sbatch refuses.
    """
    from december_plugin.database.lab_settings import lab_settings
    from december_plugin.pool.slurm.array import array_folder, check_credentials, check_reach, check_slurm, submit_array
    from december_plugin.pool.slurm.task import PoolTask

    check_slurm()
    lab = lab_settings()
    if lab is not None:
        check_credentials()
    only_host = check_reach(array, host=None if lab is None else lab.host)
    settings = _settings_on_nodes(settings, array)
    task = PoolTask(settings, only_host, "" if lab is None else lab.address)
    job = submit_array(array, task, pool_id=settings.pool_id)
    _announce(array, settings, job)
    each = f"{array.gpus_per_worker} GPU{'s' * (array.gpus_per_worker > 1)}" if array.gpus_per_worker else "no GPU"
    print(f"Submitted job {job} to Slurm: {array.workers} tasks with {each} each (pool {settings.pool_id[:8]}).")
    print(f"Logs: {array_folder(array, settings.pool_id)}")
    print("See `december pool status`; end it with `december pool stop`.")
    return 0


def _settings_on_nodes(settings: Any, array: ArraySettings) -> Any:
    """Return the settings of the supervisors on the nodes."""
    return dataclasses.replace(
        settings,
        pool_id=uuid.uuid4().hex,
        # By number: fewer GPUs than requested are an error, not a reason for a worker on the processor.
        gpus=tuple(range(array.gpus_per_worker)) or None,
        cpu=None if array.gpus_per_worker else 1,
        idle_exit=DEFAULT_IDLE_EXIT if settings.idle_exit is None else settings.idle_exit,
    )


def _announce(array: ArraySettings, settings: Any, job: str) -> None:
    """Write the pool's row; without it the array could not be stopped, so it is cancelled if this fails."""
    from december_plugin.database.connection import connect
    from december_plugin.pool.jobs.records import PoolRecords
    from december_plugin.pool.slurm.array import cancel_all

    try:
        PoolRecords(connect().connection, settings.schema).add_pool(
            settings.pool_id,
            kind="slurm",
            n_workers=array.workers * (array.gpus_per_worker * settings.workers_per_gpu or 1),
            options=json.dumps({"slurm": array.parameters(), **json.loads(settings.options())}),
            slurm_job=job,
        )
    except BaseException:
        cancel_all(job)
        raise
