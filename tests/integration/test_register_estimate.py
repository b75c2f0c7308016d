"""``december register --dry-run`` beside the tables: what is new, planned, trained, and how long the rest takes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from december_plugin.cli import main
from december_plugin.pool import Worker, WorkerSettings
from december_plugin.schemas import lab as lab_module
from december_plugin.sweeps.estimate import estimate_sweep
from december_plugin.sweeps.following_jobs import GROUPS, Following
from december_plugin.sweeps.parse import Entry, Sweep, load_sweep
from helpers.fake_sweep import FakeSweep

SWEEP = """\
seeds: [1, 2, 3, 4, 5, 6, 7]
datasets:
  - {fn: helpers.planted_lab.loaders}
models:
  - {fn: helpers.planted_lab.model, config: {note: kept}}
trainers:
  - {fn: helpers.planted_lab.baseline}
  - {fn: helpers.planted_lab.december}
"""


@pytest.fixture
def sweep(sweep: FakeSweep, empty_lab: Any) -> FakeSweep:
    """Return six planned trainings, four of which are trained: two of these by a worker with times of 60 s and 30 s."""
    empty_lab.tables.TrainedModel.populate("seed <= 4")
    sweep.done(0, seconds=60)
    sweep.done(1, seconds=30)
    return sweep


def test_counts_and_hours(sweep: FakeSweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    before = {name: len(getattr(sweep.tables, name)()) for name in ("TrainingPlan", "TrainedModel", "PoolJob")}
    assert main(["register", str(path), "--dry-run", "--schema", sweep.schema]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "The sweep is valid. It plans 14 trainings: 1 dataset x 1 model x 2 trainers x 7 seeds.",
        "Note: workers refuse helpers.planted_lab.loaders, helpers.planted_lab.model, helpers.planted_lab.baseline, "
        "helpers.planted_lab.december until helpers is allowed where they run: `december worker --allow-modules "
        "helpers`, or DECEMBER_ALLOW_MODULES=helpers.",
        "  new                    8",
        "  planned already        2",
        "  trained already        4",
        "To train 10: about 8 min on the processor, with one worker; 8 min if none stops early. Based on",
        "  2 finished with the same dataset, model and trainer, for 3 of them: 45 s each on average.",
        "  2 finished with the same dataset and model, for 7 of them: 45 s each on average, by time per epoch.",
        "  None of these ran on a GPU, which would be faster.",
        "Trainings that reused a shared pretraining count with the time that they really took.",
        "After the trainings, with one worker: evaluations are not estimated yet (28 jobs).",
    ]
    assert before == {name: len(getattr(sweep.tables, name)()) for name in before}
    assert len(sweep.tables.nnfabrik.Trainer()) == 1


def test_times_count_by_kind_of_device_and_interrupted_trainings_do_not(sweep: FakeSweep) -> None:
    entries = {
        kind: (Entry(f"helpers.planted_lab.{fn}", {}),)
        for kind, fn in {"datasets": "loaders", "trainers": "baseline"}.items()
    }
    asked = Sweep(**entries, models=(Entry("helpers.planted_lab.model", {"note": "kept"}),), seeds=(6,))

    def found() -> tuple[list[tuple[str, float, int]], int]:
        estimated = estimate_sweep(asked, nnfabrik=sweep.lab.nnfabrik, tables=sweep.tables)
        return [(str(each.device), each.seconds, each.n_finished) for each in estimated.devices], (
            estimated.n_interrupted
        )

    def ran_on(number: int, **worker: Any) -> None:
        values = (sweep.worker(**worker), sweep.hash(number))
        sweep.execute("UPDATE POOL_job` SET last_worker = %s WHERE job_hash = %s", *values)

    assert found() == ([("the processor, with one worker", 45, 2)], 0)
    ran_on(1, worker_gpu="0")  # of a version that noted no more
    assert found() == ([("one GPU", 30, 1)], 0)
    ran_on(1, worker_gpu="0", gpu_workers=0)  # its torch could use none
    assert found() == ([("the processor, with one worker", 45, 2)], 0)
    ran_on(1, worker_gpu="0")
    ran_on(0, gpu_name="NVIDIA L4", gpu_workers=2)  # without a pool it has no number
    assert found() == ([("one GPU", 30, 1), ("one NVIDIA L4 with 2 workers", 30, 1)], 0)
    ran_on(1, worker_gpu="1b", gpu_name="NVIDIA L4", gpu_workers=2)
    assert found() == ([("one NVIDIA L4 with 2 workers", 45 / 2, 2)], 0)
    sweep.execute("UPDATE POOL_job` SET n_starts = 2 WHERE job_hash = %s", sweep.hash(1))
    assert found() == ([("one NVIDIA L4 with 2 workers", 30, 1)], 1)


def test_a_schema_without_tables_and_a_server_that_does_not_answer(
    database: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    assert main(["register", str(path), "--dry-run", "--schema", "nothing_there"]) == 0
    assert "is unknown: there are no december tables in the schema 'nothing_there' yet." in capsys.readouterr().out

    def unreachable(**_: Any) -> None:
        from december_plugin.errors import ServerUnreachableError

        raise ServerUnreachableError("the server is away.")

    monkeypatch.setattr(lab_module, "open_lab", unreachable)
    assert main(["register", str(path), "--dry-run"]) == 0
    assert "is unknown: the server is away." in capsys.readouterr().out


@pytest.mark.slow(5)
def test_no_server_is_started_for_it(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(re.sub(r"helpers\.planted_lab\.\w+", "os.path.join", SWEEP))
    home = tmp_path / "home"
    environment = {"DECEMBER_HOME": str(home), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "december_plugin.cli", "register", "sweep.yaml", "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == (
        "How many of them are already planned or trained, and how long they take, is unknown: no database is "
        "configured, and december's own is not running (`december db start`)."
    )
    assert not home.exists()


FOLLOWING = """\
seeds: [1, 2, 3]
datasets:
  - {fn: helpers.planted_lab.loaders}
models:
  - {fn: helpers.planted_lab.model}
trainers:
  - {fn: helpers.planted_lab.baseline}
  - {fn: helpers.planted_lab.december}
clusterings:
  - {method: kmeans, n_clusters: [2, 3]}
surrogates:
  - {n_draws: 1}
  - {n_draws: 2}
stability:
  - {n_draws: 2, clusterings: [kmeans]}
"""


@pytest.mark.slow(5)
def test_the_jobs_that_follow_are_those_that_workers_find(empty_lab: Any, tmp_path: Path) -> None:
    path, tables = tmp_path / "sweep.yaml", empty_lab.tables

    def following() -> list[Following]:
        return list(estimate_sweep(load_sweep(path), nnfabrik=empty_lab.nnfabrik, tables=tables).following)

    path.write_text(FOLLOWING)
    before = following()
    # 3 trainings of DECEMber with its own clustering, 3 others with two: 3 configurations.
    assert [(jobs.name, jobs.n_left, jobs.n_unknown) for jobs in before] == [
        ("clusterings", 9, 9),
        ("evaluations", 6 + 6 + 3 * 3 + 3 + 9 + 6 + 3, 42),
        ("the null", 6, 6),
    ]
    assert main(["register", str(path), "--schema", tables.schema.database]) == 0
    Worker(tables, WorkerSettings()).run()
    done = {name: sum(len(getattr(tables, member)()) for member in members) for name, members in GROUPS.items()}
    assert {jobs.name: jobs.n_left for jobs in before} == done
    assert [(jobs.n_left, jobs.n_unknown) for jobs in following()] == [(0, 0)] * 3
    # A seed more: its trainings, its pairs, and every set of seeds anew.
    path.write_text(FOLLOWING.replace("[1, 2, 3]", "[1, 2, 3, 4]"))
    more = following()
    assert [(jobs.n_left, jobs.n_unknown) for jobs in more] == [(3, 0), (2 + 2 + 3 * 3 + 3 + 3 + 2 + 3, 0), (6, 0)]
    # A null takes as long as it has draws: 1 and 2 before, 1, 2 and 1997 now.
    longer = FOLLOWING.replace("  - {n_draws: 2}\n", "  - {n_draws: 2}\n  - {n_draws: 1997}\n")
    path.write_text(longer.replace("[1, 2, 3]", "[1, 2, 3, 4]"))
    assert following()[2].seconds == pytest.approx(more[2].seconds * 2000 / 3)


EARLIER = """\
seeds: [1, 3]
datasets:
  - {fn: helpers.planted_lab.loaders}
models:
  - {fn: helpers.planted_lab.model}
trainers:
  - {fn: helpers.planted_lab.baseline}
  - {fn: helpers.planted_lab.december}
clusterings:
  - {method: kmeans, n_clusters: 2}
"""
LATER = """\
seeds: [3]
datasets:
  - {fn: helpers.planted_lab.loaders}
models:
  - {fn: helpers.planted_lab.model}
trainers:
  - {fn: helpers.planted_lab.baseline}
  - {fn: helpers.planted_lab.december, config: {n_moved: 0}}
clusterings:
  - {method: kmeans, n_clusters: 2}
  - {method: kmeans, n_clusters: 3, space: functional, minimum_test_correlation: -1}
surrogates:
  - {n_draws: 1, clusterings: [kmeans]}
stability:
  - {n_draws: 2, clusterings: [kmeans]}
cluster_confusion:
  - {threshold: 0.2}
  - {responses: images, clusterings: [kmeans]}
exciting_images:
  - {per_cluster: 1, max_steps: 2, n_starts: 1}
"""


@pytest.mark.slow(5)
def test_what_is_new_is_counted_for_the_models_of_earlier_sweeps_too(empty_lab: Any, tmp_path: Path) -> None:
    path, tables = tmp_path / "sweep.yaml", empty_lab.tables

    def counts() -> dict[str, int]:
        names = [member for members in GROUPS.values() for member in members]
        return {name: len(getattr(tables, name)()) for name in names}

    path.write_text(EARLIER)
    assert main(["register", str(path), "--schema", tables.schema.database]) == 0
    Worker(tables, WorkerSettings()).run()
    path.write_text(LATER)
    before = counts()
    expected = estimate_sweep(load_sweep(path), nnfabrik=empty_lab.nnfabrik, tables=tables).following
    assert main(["register", str(path), "--schema", tables.schema.database]) == 0
    Worker(tables, WorkerSettings()).run()
    after = counts()
    done = {name: sum(after[member] - before[member] for member in members) for name, members in GROUPS.items()}
    assert {jobs.name: jobs.n_left for jobs in expected} == done
    assert after["FeatureCovariance"] == 5  # to compare the clusters of all models
    again = estimate_sweep(load_sweep(path), nnfabrik=empty_lab.nnfabrik, tables=tables).following
    assert [jobs.n_left for jobs in again] == [0, 0, 0]
