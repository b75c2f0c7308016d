"""``december forget``: what was planned and never trained goes, what is trained or in work stays."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import datajoint as dj
import pytest

from december_plugin.cli import main
from december_plugin.errors import ServerError
from december_plugin.schemas.setup_lock import changing_the_plan, one_at_a_time
from december_plugin.sweeps.forget import Planned
from helpers.fake_sweep import FakeSweep
from helpers.lab_tables import open_lab

SWEEP = """\
seeds: [1, 2, 3, 4, 5, 6, 7]
datasets:
  - {fn: helpers.planted_lab.loaders}
models:
  - {fn: helpers.planted_lab.model, config: {note: kept}}
trainers:
  - {fn: helpers.planted_lab.baseline}
"""


@pytest.fixture
def sweep(sweep: FakeSweep, empty_lab: Any) -> FakeSweep:
    """Return six planned trainings: 1 and 2 are trained, 3 has failed, 4 runs."""
    empty_lab.tables.TrainedModel.populate("seed <= 2")
    sweep.fail(2, "RecordingError: not there")
    sweep.run(3, sweep.worker())
    return sweep


def seeds(fake: FakeSweep) -> list[int]:
    return sorted(fake.tables.TrainingPlan.fetch("seed").tolist())


def test_by_the_file_of_the_sweep(sweep: FakeSweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    words = ["forget", str(path), "--schema", sweep.schema]
    assert main(words) == 1
    out, error = capsys.readouterr()
    assert (
        error
        == "december: error: there is no terminal for the question. Add --yes to remove them. Nothing was removed.\n"
    )
    shown = [
        "Kept, because they are done: 2 trainings.",
        "4 trainings planned and never trained (1 failed, 1 running):",
        "  1 dataset   loaders d41d8cd9",
        "  1 model     model 9d0b9a86",
        "  1 trainer   baseline d41d8cd9",
        "  4 seeds     3, 4, 5, 6",
    ]
    assert [line.split("kept")[0] for line in out.splitlines()][:2] == shown[:2]
    assert out.splitlines()[-1] == shown[-1]
    assert seeds(sweep) == [1, 2, 3, 4, 5, 6]
    assert main([*words, "--yes"]) == 1  # one of them is in work
    out, error = capsys.readouterr()
    assert out.splitlines()[-1] == "Removed 3 planned trainings."
    assert f"december: TrainedModel {sweep.hash(3)[:8]} is being computed by the worker" in error
    assert seeds(sweep) == [1, 2, 4]
    # Results, and the entries that they need, are as they were; the failure and its record are gone.
    assert len(sweep.tables.TrainedModel()) == 2
    assert len(sweep.lab.nnfabrik.Trainer()) == 1
    assert sweep.queue() == {sweep.hash(3): "reserved"}
    assert not len(sweep.tables.PoolJob & {"job_hash": sweep.hash(2)})


def test_by_the_path_of_a_recording_with_its_entries(
    empty_lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab, schema = empty_lab, empty_lab.tables.schema.database
    for name in ("rigth", "right"):
        lab.plan("baseline", [1, 2], dataset={"sessions": 1, "where": [str(tmp_path / name / "static1")]})
    words = ["forget", "--dataset", str(tmp_path / "rigth"), "--schema", schema]
    assert main([*words, "--yes"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "Removed 2 planned trainings; entries that are no longer used: 1 of Dataset."
    )
    (config,) = lab.nnfabrik.Dataset.fetch("dataset_config")
    assert config["where"] == [str(tmp_path / "right" / "static1")]
    assert len(lab.tables.TrainingPlan()) == 2
    assert main([*words, "--yes"]) == 1
    assert capsys.readouterr().err == (
        f"december: error: no dataset has a recording at or below '{tmp_path / 'rigth'}'. Recordings of the datasets: "
        f"{tmp_path / 'right' / 'static1'}.\n"
    )


def test_entries_of_a_labs_own_tables_stay(empty_lab: Any, new_schema_name: Any) -> None:
    ours = open_lab(empty_lab.nnfabrik.Model.database, schema=new_schema_name())
    ours.plan("baseline", [1])
    assert main(["forget", "--job", "0123", "--schema", ours.tables.schema.database, "--yes"]) in (0, 1)
    planned = Planned(nnfabrik=ours.nnfabrik, tables=ours.tables)
    done = planned.forget(planned.keys)
    assert (done.n_trainings, done.entries) == (1, {})
    assert len(ours.nnfabrik.Trainer()) == 1


def test_it_waits_for_a_registration(sweep: FakeSweep, monkeypatch: pytest.MonkeyPatch, server: Any) -> None:
    own = server.settings
    other = dj.Connection(own.host, own.user, own.password, port=own.port, use_tls=False)
    held = changing_the_plan(other, sweep.schema)
    held.__enter__()
    waited = functools.partial(one_at_a_time, longest=1)
    monkeypatch.setattr("december_plugin.schemas.setup_lock.one_at_a_time", waited)
    planned = Planned(nnfabrik=sweep.lab.nnfabrik, tables=sweep.tables)
    with pytest.raises(ServerError, match=r"^another process has been changing the plan of the schema '"):
        planned.forget(planned.select(jobs=[sweep.hash(4)]).untrained)
    assert seeds(sweep) == [1, 2, 3, 4, 5, 6]
    other.close()
    assert planned.forget(planned.select(jobs=[sweep.hash(4)]).untrained).n_trainings == 1


def test_by_the_names_of_jobs(sweep: FakeSweep, capsys: pytest.CaptureFixture[str]) -> None:
    schema = ["--schema", sweep.schema, "--yes"]
    assert main(["forget", "--job", sweep.hash(4)[:10], "--job", sweep.hash(5)[:10].upper(), *schema]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Removed 2 planned trainings."
    assert seeds(sweep) == [1, 2, 3, 4]
    assert main(["forget", "--job", sweep.hash(0)[:10], *schema]) == 0
    nothing = "Nothing that matches is planned and untrained. Nothing was removed."
    assert capsys.readouterr().out.splitlines()[-1] == nothing
    for job, message in (
        ("xyz", "'xyz' is not the name of a job: that is the beginning of its hash."),
        (
            sweep.hash(4)[:10],
            f"no planned training has a job that begins with '{sweep.hash(4)[:10]}'. Only trainings can be forgotten; "
            "`december jobs show --table TrainedModel` lists them.",
        ),
    ):
        assert main(["forget", "--job", job, *schema]) == 1
        assert capsys.readouterr().err == f"december: error: {message}\n"
    assert main(["forget", *schema]) == 1
    assert capsys.readouterr().err == (
        "december: error: forget what? Name a sweep, --dataset PATH or --job JOB. Nothing was removed.\n"
    )


def test_conditions_are_met_together_and_the_question_can_be_denied(
    sweep: FakeSweep, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("1, 2, 3, 4, 5, 6, 7", "5, 7"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, left in (("n", [1, 2, 3, 4, 5, 6]), ("y", [1, 2, 3, 4, 6])):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert main(["forget", str(path), "--schema", sweep.schema]) == 0
        assert seeds(sweep) == left
    assert capsys.readouterr().out.splitlines()[-1] == "Removed 1 planned training."
