"""The smallest of the shipped laptop sweeps, from `december sweeps data` to the agreement with the planted types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from december_plugin.cli import main
from december_plugin.results.confusion import confusion_frame
from december_plugin.schemas.lab import open_lab

pytestmark = pytest.mark.slow(5)

NAME = "marmoset-2"
TYPES = "planted types of marmoset-2"


@pytest.fixture(scope="module")
def lab(database: Any, new_schema_name: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    schema = new_schema_name()
    folder = tmp_path_factory.mktemp("laptop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DECEMBER_PRETRAINING", str(folder / "pretraining"))
        assert main(["sweeps", "data", f"laptop/{NAME}", str(folder)]) == 0
        assert main(["register", str(folder / f"{NAME}.yaml"), "--schema", schema]) == 0
        words = [str(folder / f"{NAME}-types.csv"), "--name", TYPES, "--source", "simulated", "--schema", schema]
        assert main(["types", "import", *words]) == 0
        # One seed of one length of the pretraining is enough to see that every kind of training runs.
        lab = open_lab(schema=schema)
        trainers = lab.nnfabrik.Trainer & [f"trainer_comment LIKE '%{words}%'" for words in ("baseline", "10 epochs")]
        kept = (lab.tables.TrainingPlan & "seed = 1" & trainers.proj()).fetch("KEY")
        (lab.tables.TrainingPlan - kept).delete_quick()
        tables = lab.tables
        for table in (tables.TrainedModel, tables.TrainingSummary, tables.ClusterAssignment, tables.LabelAgreement):
            table.populate()
    return lab


def test_every_kind_of_training_is_clustered_and_compared_with_the_planted_types(lab: Any) -> None:
    tables = lab.tables
    assert sorted(tables.TrainingSummary.fetch("trainer_role")) == ["baseline", "control", *["december"] * 3]
    # DECEMber's own clusters of each K, and three post hoc methods of each K for each of the other two trainers.
    assert len(tables.ClusterAssignment()) == len(tables.LabelAgreement()) == 3 + 9 + 9
    assert tables.LabelAgreement.fetch("adjusted_rand_index").max() > 0.5
    assert set(tables.LabelAgreement.fetch("n_labelled")) == {73}


def test_confusion_with_the_planted_types(lab: Any) -> None:
    december = lab.tables.ClusterAssignment & (lab.tables.Clustering & "method = 'december'") & "n_clusters_used = 2"
    frame = confusion_frame(lab.tables, december, types_name=TYPES)
    assert list(frame.columns) == ["type 1", "type 2"]
    assert frame.sum().tolist() == [38, 35]
    assert (frame.attrs["n_seeds"], frame.attrs["n_unlabelled"], frame.attrs["n_unassigned"]) == (1, 0, 0)


def test_the_sweep_is_not_planned_twice(lab: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["sweeps", "copy", f"laptop/{NAME}", str(tmp_path)]) == 0
    assert main(["register", str(tmp_path / f"{NAME}.yaml"), "--dry-run", "--schema", lab.schema]) == 0
    # Another folder is another dataset.
    assert "  new                   27" in capsys.readouterr().out
