"""The pages on experiments, the report and security: their commands and code run, on a lab with planted results."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from december_plugin.cli import main
from december_plugin.schemas.lab import open_lab
from helpers import lab_tables, pages, planted_lab

pytestmark = pytest.mark.slow(3)

SHIPPED = pages.claim("docs/experiments.md", "bash", starting=("december sweeps", "december register", "december pool"))
TYPES = pages.claim("docs/experiments.md", "bash", starting="december types")
(CONFUSION,) = pages.claim("docs/experiments.md", "python")
REPORTING = pages.claim("docs/report.md", "bash")
(WORKER,) = pages.claim("docs/security.md", "bash")


@pytest.fixture(scope="module")
def planted(new_schema_name: Any) -> lab_tables.Lab:
    """Two seeds of a baseline with three planted types, clustered and compared."""
    lab = lab_tables.open_lab(new_schema_name())
    lab.train("baseline", [1, 2])
    lab.tables.Clustering().add_entry("kmeans", 3, n_init=1)
    lab.tables.KnownTypes().add_entry("V4 types", lab_tables.truth())
    for table in lab.tables.computed:
        table.populate()
    return lab


@pytest.fixture
def folder(planted: lab_tables.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, on the planted lab."""
    monkeypatch.chdir(tmp_path)
    for name in ("DECEMBER_SCHEMA", "DECEMBER_NNFABRIK"):
        monkeypatch.setenv(name, planted.tables.schema.database)
    return tmp_path


def carry_out(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command and return what it printed."""
    capsys.readouterr()
    code = main(words)
    printed = capsys.readouterr()
    assert code == 0, f"{words}: {printed.err}"
    return printed.out


# --- docs/experiments.md


def test_shipped_sweeps(
    folder: Path, new_schema_name: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = new_schema_name()
    monkeypatch.setenv("DECEMBER_SCHEMA", schema)
    monkeypatch.delenv("DECEMBER_NNFABRIK")
    printed = {}
    for command in SHIPPED:
        words = command.words[1:]
        if words[0] == "pool":  # which test_laptop_sweep.py leads to the end
            words.append("--dry-run")
        printed[" ".join(command.words)] = carry_out(words, capsys)
    assert "paper/mouse-v1-strength" in printed["december sweeps list"]
    assert "trainers:" in printed["december sweeps show paper/mouse-v1-strength"]
    assert "It plans 150 trainings" in printed["december register paper/mouse-v1-strength --dry-run"]
    assert len(open_lab(schema=schema).tables.TrainingPlan()) == 27
    assert (folder / "my-lab" / "mouse-v1-strength.yaml").exists()
    assert (folder / "trial" / "marmoset-2-types.csv").exists()


def test_known_types(folder: Path, planted: lab_tables.Lab, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"data_key": key, "unit_id": unit, "type": f"type {of}"}
        for key, (units, types) in lab_tables.truth().items()
        for unit, of in zip(units, types, strict=True)
    ]
    (folder / "trial").mkdir()
    for name in ("labels.csv", "trial/marmoset-2-types.csv"):
        pd.DataFrame(rows).to_csv(folder / name, index=False)
    printed = {command.words[2] + command.words[-1]: carry_out(command.words[1:], capsys) for command in TYPES}
    assert "planted types" in printed["listlist"]
    planted.tables.LabelAgreement.populate()
    compared = planted.tables.LabelAgreement & {"types_name": "planted types"}
    assert len(compared) == len(planted.tables.ClusterAssignment())
    (planted.tables.KnownTypes & {"types_name": "planted types"}).delete(safemode=False)


def test_confusion_with_known_types(folder: Path, planted: lab_tables.Lab) -> None:
    configuration, *_ = planted.tables.ClusterAssignment.fetch("KEY")
    del configuration["seed"]
    names: dict[str, Any] = {"tables": planted.tables, "configuration": configuration}
    CONFUSION.run(names)
    assert names["frame"].to_numpy().sum() == sum(planted_lab.SESSIONS.values())
    assert names["frame"].attrs["n_seeds"] == 2
    assert list(names["frame"].attrs["per_type"].columns) == ["cluster", "n_neurons", "recall", "precision"]


# --- docs/report.md


def test_report_and_export(folder: Path, planted: lab_tables.Lab, capsys: pytest.CaptureFixture[str]) -> None:
    (assignment, *_) = planted.tables.ClusterAssignment.fetch("KEY")
    beginnings = {"--dataset": assignment["dataset_hash"][:4], "--model": assignment["model_hash"][:2]}
    for command in REPORTING:
        words = command.words[1:]
        for option, value in (*beginnings.items(), ("--clusters", "3")):
            if option in words:
                words[words.index(option) + 1] = value
        if words[0] == "report" and words[1:] != ["-o", "report.html"]:
            (folder / "report.html").unlink(missing_ok=True)
        carry_out([*words, *(["--no-tsne"] if words[0] == "report" and "--no-tsne" not in words else [])], capsys)
        assert (folder / ("report.html" if words[0] == "report" else "numbers/README.txt")).exists(), command


# --- docs/security.md


def test_a_worker_with_allowed_modules(
    folder: Path,
    planted: lab_tables.Lab,
    new_schema_name: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, *names = WORKER.words[WORKER.words.index("--allow-modules") :]
    assert names == ["my_lab,my_lab_models.training"]
    (folder / "my_lab_models").mkdir()
    for path in ("my_lab.py", "my_lab_models/training.py"):  # a lab's own functions
        shutil.copy(planted_lab.__file__, folder / path)
    monkeypatch.syspath_prepend(folder)
    lab = lab_tables.open_lab(new_schema_name())
    for name in ("DECEMBER_SCHEMA", "DECEMBER_NNFABRIK"):
        monkeypatch.setenv(name, lab.tables.schema.database)
    lab.tables.TrainingPlan().add_entries(
        datasets=[lab.add("dataset", "my_lab.loaders")],
        models=[lab.add("model", "my_lab.model")],
        trainers=[lab.add("trainer", "my_lab_models.training.baseline")],
        seeds=[1],
    )
    carry_out(WORKER.words[1:], capsys)
    assert len(lab.tables.TrainedModel()) == 1
