"""Simulated recordings at the scale of a whole experiment: many sessions of one population, written in parallel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from december_plugin.simulate.sensorium import write_recording
from december_plugin.validation.checks import check_integer


def write_recordings(
    folder: str | os.PathLike[str],
    *,
    n_sessions: int = 7,
    n_neurons: int = 7800,
    n_train: int = 4500,
    n_validation: int = 500,
    n_test: int = 100,
    n_repeats: int = 10,
    image_shape: Sequence[int] = (36, 64),
    seed: int | None = None,
    processes: int | None = None,
    **settings: Any,
) -> list[Path]:
    """Write simulated recordings of several sessions, by default as large as the seven mice of SENSORIUM 2022.

    All sessions have the same types and features; every session has its own images, neurons and responses. The names of
    the folders are ``static1-1-1-GrayImageNet-simulated`` and so on: animals 1 to ``n_sessions``.

    Parameters
    ----------
    folder
        Where the recordings' folders are written.
    n_sessions
        Number of sessions, at least 1.
    n_neurons, n_train, n_validation, n_test, n_repeats, image_shape
        Sizes of each session, as in :func:`december_plugin.simulate.write_recording`.
    seed
        Seed of the first session, at least 0, the next number that of the second, and so on; None takes those
        determined by the folders' names.
    processes
        How many sessions are written at the same time, each by its own process, which takes about 2 GB at the default
        sizes; None takes as many as there are processors. 1 writes them in this process.
    settings
        Further settings of :func:`december_plugin.simulate.write_recording`, the same for all sessions.

    Returns
    -------
    list of pathlib.Path
        The recordings. The same arguments write the same bytes, whatever the number of processes.

    Raises
    ------
    SettingsError
        If a setting is not allowed.
    RecordingError
        If one of the folders exists already and is not to be replaced.

    See Also
    --------
    write_recording : One session.
    december_plugin.datasets.static_loaders : Loads the recordings for training.

    Examples
    --------
    >>> from december_plugin.simulate import write_recordings
    >>> sizes = {"n_neurons": 5, "n_train": 6, "n_validation": 2, "n_test": 1, "n_repeats": 2, "image_shape": (12, 16)}
    >>> folders = write_recordings("mice", n_sessions=2, seed=1, processes=1, **sizes)
    >>> len(folders)
    2
    """
    check_integer("n_sessions", n_sessions, minimum=1)
    if seed is not None:
        check_integer("seed", seed, minimum=0)
    processes = os.cpu_count() or 1 if processes is None else check_integer("processes", processes, minimum=1)
    settings |= {
        "n_neurons": n_neurons,
        "n_train": n_train,
        "n_validation": n_validation,
        "n_test": n_test,
        "n_repeats": n_repeats,
        "image_shape": image_shape,
    }
    sessions = [
        (Path(folder) / f"static{number + 1}-1-1-GrayImageNet-simulated", None if seed is None else seed + number)
        for number in range(n_sessions)
    ]
    if min(processes, n_sessions) == 1:
        return [write_recording(path, seed=own, **settings) for path, own in sessions]
    # Not forked: threads of torch or BLAS that this process may have do not survive it.
    with ProcessPoolExecutor(min(processes, n_sessions), mp_context=get_context("spawn")) as pool:
        written = [pool.submit(write_recording, path, seed=own, **settings) for path, own in sessions]
        return [future.result() for future in written]
