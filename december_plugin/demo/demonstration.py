"""The demonstration: the whole workflow, on simulated recordings with planted types or on your own."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from december_plugin.errors import DecemberError, ExitCode, ServerError
from december_plugin.pool.status.overview import read_overview
from december_plugin.pool.supervisor.gpus import visible_gpus
from december_plugin.pool.supervisor.supervisor import SIGNALLED, PoolSettings, print_event, run_pool
from december_plugin.sweeps.parse import Sweep, parse_sweep

SESSIONS = ("static1-1-1-simulated", "static2-1-1-simulated")
TWINS = ("static3-1-1-continuum", "static4-1-1-continuum")
TYPED, CONTINUUM = "planted types", "a continuum"
WITH_NULL = ("kmeans", "december")  # methods whose agreement is compared with a null
TYPES_NAME = "planted types"
PUBLISHED_IMAGE_SHAPE = (144, 256)
COMMENT_LENGTH = 256  # characters of nnfabrik's comments that a joined name may take
IDLE_EXIT = 1.0  # workers need not wait for anything (s)
N_LINES = 8  # of the workers' last output, in an error
EXPECTED = ("pool ", "ends: nothing to do", "waiting for")  # parts of what the pool says


@dataclass(frozen=True)
class DemoSettings:
    """Settings of the demonstration.

    Attributes
    ----------
    folder
        Where recordings, sweep, logs and figures go.
    recordings
        The user's own recordings; empty for simulated ones.
    seeds, n_clusters
        Model seeds and numbers of clusters.
    max_iter, pretrain_epochs
        Epochs, and how many of them are pretraining.
    strengths
        Strengths of the clustering loss.
    n_draws
        Surrogates of the null of k-means and DECEMber; 0: no null.
    n_workers
        Worker processes.
    """

    folder: Path
    recordings: tuple[Path, ...] = ()
    seeds: tuple[int, ...] = (1, 2, 3)
    n_clusters: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    max_iter: int = 30
    pretrain_epochs: int = 20
    strengths: tuple[float | str, ...] = ("auto",)
    n_draws: int = 20
    n_workers: int = 2


def simulated_recordings(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Write the demonstration's recordings into ``folder``, if they do not exist yet.

    Returns
    -------
    dict
        By the comment of their dataset, the folders of two sessions: neurons of planted types, and neurons of a
        continuum whose tuning has the same mean and covariance. Everything else is equal.
    """
    from december_plugin.simulate import write_recording

    populations = {TYPED: (SESSIONS, "types"), CONTINUUM: (TWINS, "continuum")}
    for names, population in populations.values():
        for seed, name in enumerate(names, start=1):
            # The truth is written last.
            if not (folder / name / "truth").is_dir():
                write_recording(folder / name, population=population, seed=seed, overwrite=True)
    return {comment: tuple(folder / name for name in names) for comment, (names, _) in populations.items()}


def demo_sweep(settings: DemoSettings, recordings: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Return the sweep of the demonstration, as in a YAML file; recordings by their dataset's comment."""
    epochs = {"max_iter": settings.max_iter, "pretrain_epochs": settings.pretrain_epochs}
    control = {"pretrain_epochs": settings.pretrain_epochs, "stop_after_pretraining": True}
    clusters = list(settings.n_clusters)
    asked = {"surrogates": [{"n_draws": settings.n_draws, "clusterings": list(WITH_NULL)}]} if settings.n_draws else {}
    return {
        "seeds": list(settings.seeds),
        "datasets": [
            {
                "fn": "december_plugin.datasets.static_loaders",
                "comment": comment,
                "config": _data_settings(folders),
            }
            for comment, folders in recordings.items()
        ],
        "models": [
            {
                "fn": "december_plugin.models.stacked_core_gaussian_readout",
                "comment": "small stacked core, Gaussian readout",
                "config": {
                    "hidden_channels": 16,
                    "input_kern": 7,
                    "hidden_kern": 5,
                    "layers": 2,
                    "depth_separable": False,
                },
            }
        ],
        "trainers": [
            {"fn": "december_plugin.trainers.baseline_trainer", "comment": "baseline", "config": epochs},
            {"fn": "december_plugin.trainers.baseline_trainer", "comment": "end of pretraining", "config": control},
            {
                "fn": "december_plugin.trainers.december_trainer",
                "comment": "DECEMber" if len(settings.strengths) == 1 else "DECEMber, strength {strength}",
                "config": epochs,
                "grid": {"n_clusters": clusters, "strength": list(settings.strengths)},
            },
        ],
        "clusterings": [{"method": method, "n_clusters": clusters} for method in ("gmm", "kmeans", "t_mixture")],
        **asked,
    }


def own_recordings(recordings: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Return the user's recordings by the comment of their dataset."""
    return {", ".join(path.name for path in recordings)[:COMMENT_LENGTH]: tuple(recordings)}


def _data_settings(recordings: Sequence[Path]) -> dict[str, Any]:
    data: dict[str, Any] = {"paths": [str(path.resolve()) for path in recordings], "batch_size": 32}
    if _image_shape(recordings[0]) == PUBLISHED_IMAGE_SHAPE:
        data["scale"] = 0.25
    return data | _behavior_settings(recordings)


def _image_shape(recording: Path) -> tuple[int, ...]:
    from december_plugin.datasets.sensorium.layout import RecordingFolder

    return RecordingFolder(recording).read("images", 0).shape[-2:]


def _behavior_settings(recordings: Sequence[Path]) -> dict[str, bool]:
    """Use behaviour and pupil position if every recording has them."""
    return {
        setting: all((path / "data" / item).is_dir() for path in recordings)
        for setting, item in (("include_behavior", "behavior"), ("include_eye_position", "pupil_center"))
    }


def write_sweep(settings: DemoSettings, recordings: Mapping[str, Sequence[Path]]) -> tuple[Path, Sweep]:
    """Write the sweep's YAML file and return it, checked."""
    content = demo_sweep(settings, recordings)
    text = yaml.safe_dump(content, sort_keys=False, width=120)
    path, number = settings.folder / "sweep.yaml", 1
    while path.exists() and path.read_text(encoding="utf-8") != text:  # the user may have changed it
        number += 1
        path = settings.folder / f"sweep-{number}.yaml"
    path.write_text(text, encoding="utf-8")
    return path, parse_sweep(content)


def add_planted_types(tables: Any, recordings: Sequence[Path]) -> str | None:
    """Store the planted types of simulated recordings as known types; return their name, or None without truth."""
    from december_plugin.datasets.sensorium.layout import data_key_of
    from december_plugin.simulate import read_truth

    if not all((path / "truth").is_dir() for path in recordings):
        return None
    truths = {data_key_of(path): read_truth(path) for path in recordings}
    if any((truth.types < 0).any() for truth in truths.values()):  # a continuum
        return None
    ours = [path.name for path in recordings] == list(SESSIONS)
    name = TYPES_NAME if ours else f"{TYPES_NAME}: {', '.join(truths)}"[:64]
    types = {
        data_key: (truth.unit_ids, np.array([f"type {number + 1}" for number in truth.types]))
        for data_key, truth in truths.items()
    }
    tables.KnownTypes().add_entry(name, types, source="december_plugin.simulate", skip_duplicates=True)
    return name


def fill_tables(schema: str, settings: DemoSettings, tables: Any, plan: Sequence[dict[str, Any]], *, show: Any) -> None:
    """Let a pool of workers fill the tables, calling ``show(trained, planned, assigned)`` when the numbers change."""
    keys = list(plan)
    last: tuple[int, ...] = ()
    said: deque[str] = deque(maxlen=N_LINES)

    def look() -> None:
        nonlocal last
        numbers = (len(tables.TrainedModel & keys), len(keys), len(tables.ClusterAssignment & keys))
        if numbers != last:
            show(*numbers)
            last = numbers

    def on_event(source: str, text: str) -> None:
        said.append(f"[{source}] {text}")
        if source == "pool" and not text.startswith(EXPECTED):
            print_event(source, text)

    code = run_pool(
        pool_settings(schema, settings), environment=_environment(settings), on_event=on_event, on_tick=look
    )
    look()
    if code == SIGNALLED + signal.SIGINT:
        raise KeyboardInterrupt
    if code > SIGNALLED:
        raise SystemExit(code)
    if code == ExitCode.ERROR:
        end = "\n".join(said)
        raise DecemberError(f"the workers broke down; their logs are in {settings.folder}:\n{end}")
    # Failures of other runs in these tables do not count.
    wanted = {tuple(sorted(key.items())) for key in keys}
    for job in read_overview(tables).jobs_in("failed", "poisoned"):
        if tuple(sorted((name, (job.key or {}).get(name)) for name in keys[0])) in wanted:
            raise DecemberError(f"a job of {job.table} failed: {job.reason}\n`december status` has all of them.")


def pool_settings(schema: str, settings: DemoSettings) -> PoolSettings:
    """Return the settings of the demonstration's pool, whose workers share the first GPU, or the processor."""
    places: dict[str, Any] = {"cpu": settings.n_workers}
    if visible_gpus().gpus:
        places = {"gpus": (0,), "workers_per_gpu": settings.n_workers}
    # The demonstration has its own tables, even if the settings name the lab's nnfabrik tables.
    return PoolSettings(
        schema=schema, nnfabrik=schema, retry=True, idle_exit=IDLE_EXIT, log_folder=settings.folder, **places
    )


def _environment(settings: DemoSettings) -> dict[str, str]:
    environment = {**os.environ, "DECEMBER_PRETRAINING": str((settings.folder / "pretraining").resolve())}
    # Workers share the machine: each takes its share of the cores.
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // settings.n_workers)))
    return environment


def check_folder(folder: Path) -> None:
    """Create the demonstration's folder, or raise a :class:`ServerError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise ServerError(f"the folder {folder} cannot be written ({error.strerror}); choose another.") from None
