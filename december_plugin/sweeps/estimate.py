"""What registering a sweep would add, and how long its trainings will take, read without writing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from december_plugin.importing.datajoint_internals import job_hash
from december_plugin.schemas.training import combinations
from december_plugin.sweeps.entries import KINDS, entry_key
from december_plugin.sweeps.following_jobs import Following, following_jobs
from december_plugin.sweeps.parse import Sweep
from december_plugin.sweeps.training_time import Device, Estimate, Finished, Training, estimate, most_epochs


@dataclass(frozen=True)
class DeviceEstimate:
    """How long trainings take on one kind of device, judging by those that ran there.

    Attributes
    ----------
    device
        The kind of device.
    estimate
        For the remaining trainings, as if one worker did them one after the other.
    n_finished
        Finished trainings that ran there.
    """

    device: Device
    estimate: Estimate
    n_finished: int

    @property
    def seconds(self) -> float:
        """Expected time on one device with all of its workers (s)."""
        return self.estimate.seconds / self.device.n_workers

    @property
    def most_seconds(self) -> float:
        """The same, if no training stops early (s)."""
        return self.estimate.most_seconds / self.device.n_workers


@dataclass(frozen=True)
class SweepEstimate:
    """What remains of a sweep, given what is in the tables.

    Attributes
    ----------
    n_trainings
        Different trainings of the sweep.
    n_new
        Those that are not planned yet.
    n_trained
        Those that are trained already.
    devices
        For those that are not trained, by kind of device, first the one on which most of them could be judged. Without
        processors if a GPU has trained anything similar; empty if nothing has.
    n_interrupted
        Finished trainings that were left out because they resumed from a checkpoint, so that their time is unknown.
    following
        The jobs that follow the trainings.
    """

    n_trainings: int
    n_new: int
    n_trained: int
    devices: tuple[DeviceEstimate, ...]
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
    finished, n_interrupted = finished_trainings(nnfabrik, tables)
    return SweepEstimate(
        n_trainings=len(wanted),
        n_new=len(wanted - planned - trained),
        n_trained=len(trained),
        devices=_by_device(left, finished),
        n_interrupted=n_interrupted,
        following=tuple(
            following_jobs(
                sweep, datasets=keys["dataset"], models=keys["model"], trainers=keys["trainer"], tables=tables
            )
        ),
    )


def _by_device(left: list[Training], finished: Mapping[Device, list[Finished]]) -> tuple[DeviceEstimate, ...]:
    """Return the time of the remaining trainings on each kind of device that has trained similar ones."""
    found = [DeviceEstimate(device, estimate(left, those), len(those)) for device, those in finished.items()]
    found = [each for each in found if each.estimate.bases]
    on_gpus = [each for each in found if each.device.is_gpu]
    return tuple(
        sorted(on_gpus or found, key=lambda each: (each.estimate.n_unknown, -each.n_finished, str(each.device)))
    )


def finished_trainings(nnfabrik: Any, tables: Any) -> tuple[dict[Device, list[Finished]], int]:
    """Return the trainings whose time is known, by the kind of device that they ran on, and how many were left out.

    Workers record start and end of every job; trainings by a plain ``populate()`` have no time.
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
    found: dict[Device, list[Finished]] = {}
    n_interrupted = 0
    for key in table.fetch("KEY"):
        job = jobs.get(job_hash(table, key))
        if job is None:
            continue
        if job["n_starts"] > 1:
            n_interrupted += 1
            continue
        training = _training(key, epochs)
        those = found.setdefault(job["device"], [])
        those.append(Finished(training, job["seconds"], run.get(_values(key, names))))
    return found, n_interrupted


def _done_jobs(tables: Any) -> list[dict[str, Any]]:
    """Return hash, duration (s), number of starts and device of every training that a worker has finished."""
    jobs = tables.PoolJob & {"job_table": tables.TrainedModel.table_name, "job_state": "done"} & "ended IS NOT NULL"
    timed = jobs.proj("n_starts", "last_worker", seconds="TIMESTAMPDIFF(MICROSECOND, begun, ended) / 1e6")
    workers = tables.PoolWorker.fetch("worker_id", "worker_gpu", "gpu_name", "gpu_workers", as_dict=True)
    devices = {row["worker_id"]: _device(row) for row in workers}
    rows = timed.fetch("job_hash", "n_starts", "last_worker", "seconds", as_dict=True)
    return [
        {**row, "seconds": float(row["seconds"]), "device": devices.get(row["last_worker"], Device())} for row in rows
    ]


def _device(worker: Mapping[str, Any]) -> Device:
    """Return a worker's device; workers of earlier versions recorded only the number of the GPU."""
    is_gpu = bool(worker["gpu_workers"] and (worker["gpu_name"] or worker["worker_gpu"]))
    return Device(is_gpu, worker["gpu_name"], int(worker["gpu_workers"])) if is_gpu else Device()


def _keys(table: Any, names: list[str]) -> set[tuple[Any, ...]]:
    return {_values(row, names) for row in table.fetch("KEY")}


def _values(row: Any, names: list[str]) -> tuple[Any, ...]:
    return tuple(int(row[name]) if name == "seed" else row[name] for name in names)


def _pair(row: Any, kind: str) -> tuple[str, str]:
    return row[f"{kind}_fn"], row[f"{kind}_hash"]


def _training(key: Any, epochs: dict[tuple[str, str], int | None]) -> Training:
    dataset, model, trainer = (_pair(key, kind) for kind in KINDS)
    return Training(dataset, model, trainer, epochs.get(trainer))
