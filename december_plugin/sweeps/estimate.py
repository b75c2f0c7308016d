"""What registering a sweep would add, and how long its trainings will take, read without writing anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from december_plugin.importing.datajoint_internals import job_hash
from december_plugin.schemas.training import combinations
from december_plugin.sweeps.entries import KINDS, entry_key
from december_plugin.sweeps.following_jobs import Following, following_jobs
from december_plugin.sweeps.parse import Sweep
from december_plugin.sweeps.training_time import Estimate, Finished, Training, estimate, most_epochs


@dataclass(frozen=True)
class SweepEstimate:
    """What is left of a sweep, given what is in the tables.

    Attributes
    ----------
    n_trainings
        Different trainings of the sweep.
    n_new
        Those that are not planned yet.
    n_trained
        Those that are trained already.
    estimate
        For those that are not trained.
    on_gpu
        Whether it rests on trainings on GPUs; if none was, on those on processors.
    n_interrupted
        Finished trainings that were left out because they resumed from a checkpoint, so that their time is not known.
    following
        The jobs that follow the trainings.
    """

    n_trainings: int
    n_new: int
    n_trained: int
    estimate: Estimate
    on_gpu: bool
    n_interrupted: int
    following: tuple[Following, ...] = ()


def estimate_sweep(sweep: Sweep, *, nnfabrik: Any, tables: Any) -> SweepEstimate:
    """Compare a sweep with the tables.

    Parameters
    ----------
    sweep
        Checked by :func:`december_plugin.sweeps.parse.parse_sweep`.
    nnfabrik
        Module with nnfabrik's tables.
    tables
        What :func:`december_plugin.schemas.december_tables` returned for it.
    """
    entries = {"dataset": sweep.datasets, "model": sweep.models, "trainer": sweep.trainers}
    keys = {kind: [entry_key(kind, entry) for entry in entries[kind]] for kind in KINDS}
    plan = combinations(datasets=keys["dataset"], models=keys["model"], trainers=keys["trainer"], seeds=sweep.seeds)
    names = list(plan[0])
    wanted = {_values(key, names) for key in plan}
    planned = wanted & _keys(tables.TrainingPlan, names)
    trained = wanted & _keys(tables.TrainedModel, names)
    epochs = {
        _pair(key, "trainer"): most_epochs(entry.fn, entry.config)
        for key, entry in zip(keys["trainer"], sweep.trainers, strict=True)
    }
    left = [_training(dict(zip(names, values, strict=True)), epochs) for values in sorted(wanted - trained)]
    finished, on_gpu, n_interrupted = finished_trainings(nnfabrik, tables)
    return SweepEstimate(
        n_trainings=len(wanted),
        n_new=len(wanted - planned - trained),
        n_trained=len(trained),
        estimate=estimate(left, finished),
        on_gpu=on_gpu,
        n_interrupted=n_interrupted,
        following=tuple(
            following_jobs(
                sweep, datasets=keys["dataset"], models=keys["model"], trainers=keys["trainer"], tables=tables
            )
        ),
    )


def finished_trainings(nnfabrik: Any, tables: Any) -> tuple[list[Finished], bool, int]:
    """Return the trainings whose time is known, whether they ran on GPUs, and how many were left out.

    Workers note beginning and end of every job; trainings by a plain ``populate()`` have no time. Times on GPUs and on
    processors are not mixed: those on GPUs count, if there are any.
    """
    jobs = {row["job_hash"]: row for row in _done_jobs(tables)}
    epochs = {
        _pair(row, "trainer"): most_epochs(row["trainer_fn"], row["trainer_config"])
        for row in nnfabrik.Trainer.fetch("trainer_fn", "trainer_hash", "trainer_config", as_dict=True)
    }
    table = tables.TrainedModel()
    names = list(table.primary_key)
    run = {
        _values(row, names): row["n_epochs"] for row in tables.TrainingSummary.fetch(*names, "n_epochs", as_dict=True)
    }
    found: dict[bool, list[Finished]] = {True: [], False: []}
    n_interrupted = 0
    for key in table.fetch("KEY"):
        job = jobs.get(job_hash(table, key))
        if job is None:
            continue
        if job["n_starts"] > 1:
            n_interrupted += 1
            continue
        training = _training(key, epochs)
        found[bool(job["worker_gpu"])].append(Finished(training, job["seconds"], run.get(_values(key, names))))
    on_gpu = bool(found[True])
    return found[on_gpu], on_gpu, n_interrupted


def _done_jobs(tables: Any) -> list[dict[str, Any]]:
    """Return hash, duration (s), number of starts and GPU of every training that a worker has finished."""
    jobs = tables.PoolJob & {"job_table": tables.TrainedModel.table_name, "job_state": "done"} & "ended IS NOT NULL"
    timed = jobs.proj("n_starts", "last_worker", seconds="TIMESTAMPDIFF(MICROSECOND, begun, ended) / 1e6")
    gpus = dict(zip(*tables.PoolWorker.fetch("worker_id", "worker_gpu"), strict=True))
    rows = timed.fetch("job_hash", "n_starts", "last_worker", "seconds", as_dict=True)
    return [{**row, "seconds": float(row["seconds"]), "worker_gpu": gpus.get(row["last_worker"], "")} for row in rows]


def _keys(table: Any, names: list[str]) -> set[tuple[Any, ...]]:
    return {_values(row, names) for row in table.fetch("KEY")}


def _values(row: Any, names: list[str]) -> tuple[Any, ...]:
    return tuple(int(row[name]) if name == "seed" else row[name] for name in names)


def _pair(row: Any, kind: str) -> tuple[str, str]:
    return row[f"{kind}_fn"], row[f"{kind}_hash"]


def _training(key: Any, epochs: dict[tuple[str, str], int | None]) -> Training:
    dataset, model, trainer = (_pair(key, kind) for kind in KINDS)
    return Training(dataset, model, trainer, epochs.get(trainer))
