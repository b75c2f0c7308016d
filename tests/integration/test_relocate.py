"""``december relocate``: recordings that have moved are found, compared, and not trained again."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pymysql
import pytest

from december_plugin.cli import main
from december_plugin.errors import RecordingError, SettingsError
from december_plugin.results import assignments
from december_plugin.simulate import write_recording
from december_plugin.sweeps.parse import load_sweep
from december_plugin.sweeps.register import register
from december_plugin.sweeps.relocate import Move, carry_out, plan_move
from helpers.lab_tables import Lab, emptied

SIZES = {"n_neurons": 15, "n_train": 30, "n_validation": 10, "n_test": 3, "n_repeats": 4, "image_shape": (12, 14)}
SWEEP = """\
seeds: [1, 2]
datasets:
  - fn: december_plugin.datasets.static_loaders
    comment: mine
    config: {{paths: [{path}], batch_size: 10}}
models:
  - fn: december_plugin.models.stacked_core_gaussian_readout
    config: {{hidden_channels: 4, layers: 2, input_kern: 5, hidden_kern: 3}}
trainers:
  - fn: december_plugin.trainers.baseline_trainer
    config: {{pretrain_epochs: 1, max_iter: 2, device: cpu, verbose: false}}
clusterings:
  - {{method: kmeans, n_clusters: 2}}
"""


@pytest.fixture
def moved(declared: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train one of two seeds on a recording, then move the folder that the recording is in."""
    lab = emptied(declared)
    monkeypatch.setenv("DECEMBER_PRETRAINING", str(tmp_path / "pretraining"))
    write_recording(tmp_path / "old" / "static1", seed=1, **SIZES)
    register_at(lab, tmp_path, "old")
    populate(lab, "seed = 1")
    shutil.move(tmp_path / "old", tmp_path / "new")
    return lab


def register_at(lab: Lab, folder: Path, place: str) -> Any:
    path = folder / "sweep.yaml"
    path.write_text(SWEEP.format(path=folder / place / "static1"))
    return register(load_sweep(path), nnfabrik=lab.nnfabrik, tables=lab.tables)


def populate(lab: Lab, restriction: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for table in (lab.tables.TrainedModel, lab.tables.TestPerformance, lab.tables.ClusterAssignment):
            table.populate(restriction)


def run(lab: Lab, *words: str) -> int:
    return main([*map(str, words), "--schema", lab.tables.schema.database])


@pytest.mark.slow(4)
def test_a_folder_that_moved_is_not_trained_anew(
    moved: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    with pytest.raises(RecordingError) as raised:
        populate(moved, "seed = 2")
    assert str(raised.value).endswith(
        f" If it has moved, `december relocate {old}/static1 NEW` tells all workers where it is now, and nothing is "
        f"trained again; if its path was never right, `december forget --dataset {old}/static1` removes what was "
        "planned for it."
    )
    before = moved.tables.TrainedModel.fetch(as_dict=True)
    capsys.readouterr()
    assert run(moved, "relocate", old, new, "--dry-run") == 0
    assert capsys.readouterr().out.splitlines() == [
        "Dataset mine: compared with sessions and unit ids of the trained models, their numbers of test trials; 1 "
        "trained model keeps its results.",
        "Nothing was changed (--dry-run).",
    ]
    assert not len(moved.tables.Relocation())
    assert run(moved, "relocate", old, new) == 0
    assert f"Every worker now reads {old} from {new}." in capsys.readouterr().out.splitlines()
    populate(moved, "seed = 2")
    after = moved.tables.TrainedModel.fetch(as_dict=True, order_by="seed")
    assert [row["seed"] for row in after] == [1, 2]
    assert {row["dataset_hash"] for row in after} == {before[0]["dataset_hash"]}
    assert after[0]["score"] == before[0]["score"]
    loaders, _ = assignments.load_assigned_model(moved.tables, {"seed": 1})
    assert list(loaders["test"]) == ["static1"]
    loaders, _ = moved.tables.TrainedModel().load_model({"seed": 1})
    assert list(loaders["test"]) == ["static1"]
    assert run(moved, "relocate", "--list") == 0
    assert capsys.readouterr().out.startswith(f"{old} has been read from {new} since ")


def test_the_file_of_the_sweep_may_have_the_new_paths(
    moved: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(moved, "relocate", tmp_path / "old", tmp_path / "new") == 0
    for place in ("new", "old"):
        written = register_at(moved, tmp_path, place)
        assert (written.new["Dataset"], written.new["TrainingPlan"], len(written.plan)) == (0, 0, 2)
        capsys.readouterr()
        assert run(moved, "register", tmp_path / "sweep.yaml", "--dry-run") == 0
        out = capsys.readouterr().out
        assert "  trained already        1" in out.splitlines()
        assert "does not exist on this machine" not in out
    assert run(moved, "forget", "--dataset", tmp_path / "new", "--yes") == 0
    assert moved.tables.TrainingPlan.fetch("seed").tolist() == [1]


def test_it_can_be_taken_back_and_moved_further(moved: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, third = (tmp_path / name for name in ("old", "new", "third"))
    relocations = moved.tables.Relocation()
    assert run(moved, "relocate", old, new) == 0
    shutil.move(new, third)
    assert run(moved, "relocate", new, third) == 0
    assert relocations.paths() == {str(old): str(third)}
    # One recording of the folder goes elsewhere, and comes back.
    (tmp_path / "else").mkdir()
    shutil.move(third / "static1", tmp_path / "else")
    assert run(moved, "relocate", third / "static1", tmp_path / "else" / "static1") == 0
    assert relocations.paths() == {str(old): str(third), f"{old}/static1": f"{tmp_path}/else/static1"}
    shutil.move(tmp_path / "else" / "static1", third)
    assert run(moved, "relocate", tmp_path / "else" / "static1", third / "static1") == 0
    assert relocations.paths() == {str(old): str(third)}
    shutil.move(third, old)
    capsys.readouterr()
    assert run(moved, "relocate", third, old) == 0
    assert f"{old} is no longer relocated." in capsys.readouterr().out.splitlines()
    assert relocations.paths() == {}


def test_other_recordings_are_refused(moved: Lab, tmp_path: Path) -> None:
    old = str(tmp_path / "old")
    settings = {"nnfabrik": moved.nnfabrik, "tables": moved.tables}
    for place, changed, message in (
        ("neurons", {"n_neurons": 16}, r"session 'static1'"),
        (
            "tests",
            {"n_repeats": 5},
            r"the session 'static1' at .*/tests/static1 has 15 test trials; trained models were",
        ),
    ):
        write_recording(tmp_path / place / "static1", seed=1, **{**SIZES, **changed})
        with pytest.raises(RecordingError, match=message):
            plan_move(old, str(tmp_path / place), **settings)
    write_recording(tmp_path / "named" / "static2", seed=1, **SIZES)
    with pytest.raises(RecordingError, match="static2"):
        plan_move(f"{old}/static1", str(tmp_path / "named" / "static2"), **settings)
    assert not len(moved.tables.Relocation())
    with pytest.raises(SettingsError, match=r"nowhere does not exist on this machine\. Relocate where the recordings"):
        plan_move(old, str(tmp_path / "nowhere"), **settings)
    with pytest.raises(SettingsError) as raised:
        plan_move(str(tmp_path / "other"), str(tmp_path / "new"), **settings)
    assert str(raised.value) == (
        f"no dataset has a recording at or below {tmp_path}/other. Recordings of the datasets: {old}/static1."
    )
    with pytest.raises(SettingsError, match=r"both paths are .*/old\. Give the old place and the new one\."):
        plan_move(old, f"{old}/", **settings)


def test_what_is_still_at_the_old_place_is_compared(
    declared: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = emptied(declared)
    write_recording(tmp_path / "old" / "static1", seed=1, **SIZES)
    register_at(lab, tmp_path, "old")
    shutil.copytree(tmp_path / "old", tmp_path / "copy")
    shutil.copytree(tmp_path / "old", tmp_path / "other")
    for file in (tmp_path / "other" / "static1" / "data" / "responses").glob("*.npy"):
        np.save(file, np.load(file) + 1)
    settings = {"nnfabrik": lab.nnfabrik, "tables": lab.tables}
    with pytest.raises(RecordingError) as raised:
        plan_move(str(tmp_path / "old"), str(tmp_path / "other"), **settings)
    assert str(raised.value) == (
        f"the session 'static1' at {tmp_path}/other/static1 has other responses than at the old place, so it is "
        "another recording. Register it as a separate dataset. Nothing was changed."
    )
    (dataset,) = plan_move(str(tmp_path / "old"), str(tmp_path / "copy"), **settings).datasets
    assert dataset.compared_with == "the recordings at the old place"
    shutil.copytree(tmp_path / "old" / "static1", tmp_path / "static9")
    with pytest.raises(
        RecordingError, match=r"are static9; at the old place they are static1\. A session is named after"
    ):
        plan_move(str(tmp_path / "old" / "static1"), str(tmp_path / "static9"), **settings)
    np.testing.assert_equal(len(lab.tables.Relocation()), 0)
    # Without the old place, and without a trained model, there is nothing to compare with, which is said.
    shutil.rmtree(tmp_path / "old")
    assert run(lab, "relocate", tmp_path / "old", tmp_path / "other") == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        "Dataset mine: compared with nothing: the old place is gone, and no model of it is trained; no trained models."
    )


def test_a_machine_that_has_not_moved_its_recordings_goes_on_with_them(tmp_path: Path) -> None:
    from december_plugin.schemas.relocation import relocated

    here, there = tmp_path / "here", tmp_path / "there"
    (here / "one").mkdir(parents=True)
    config = {"paths": [str(here / "one"), "relative", f"{here}two"], "more": {"at": str(here / "one")}, "n": 3}
    assert relocated(config, {str(here): str(there)})["paths"] == [str(here / "one"), "relative", f"{here}two"]
    (there / "one").mkdir(parents=True)
    assert relocated(config, {str(here): str(there)}) == {
        "paths": [str(there / "one"), "relative", f"{here}two"],
        "more": {"at": str(there / "one")},
        "n": 3,
    }
    (here / "one").rmdir()
    (there / "one").rmdir()
    assert relocated(config, {str(here): str(there)})["paths"][0] == str(there / "one")


def test_all_of_a_move_is_noted_or_nothing(declared: Lab) -> None:
    lab = emptied(declared)
    with pytest.raises(pymysql.err.DataError):
        carry_out(Move({"/first": "/new", "/second": "/" + "x" * 5000}, ()), tables=lab.tables)
    assert lab.tables.Relocation().paths() == {}


def test_tables_of_an_earlier_version_have_no_relocations(declared: Lab) -> None:
    table = declared.tables.Relocation()
    table.drop_quick()
    assert table.paths() == {}
    assert emptied(declared).tables.Relocation().is_declared
