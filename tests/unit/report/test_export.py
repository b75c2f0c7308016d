"""Files of an export: what is in them, that they come all or not at all, and that every column is explained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from december_plugin.errors import SettingsError
from december_plugin.findings.data import ExportTable
from december_plugin.report import export
from december_plugin.report.columns import COLUMNS, FILES
from december_plugin.report.export import check_target, write_export

NEURONS = pd.DataFrame(
    {"configuration": [1, 1, 2], "data_key": ["a", 'b,"c"', "ü"], "unit_id": [1, 2, 3], "margin": [0.5, np.nan, 1.0]}
)


def tables(**changes: Any) -> list[ExportTable]:
    def parts() -> Iterator[pd.DataFrame]:
        yield NEURONS.iloc[:0]
        yield NEURONS.iloc[:2]
        yield NEURONS.iloc[2:].assign(**changes)

    return [ExportTable("consensus_neurons", parts), ExportTable("null", lambda: iter([NEURONS[["unit_id"]].iloc[:0]]))]


def test_csv_and_parquet_have_the_same_numbers(tmp_path: Path) -> None:
    counts = write_export(tmp_path / "out", tables(), {"schema": "lab"})
    assert counts == {"consensus_neurons": 3, "null": 0}
    text = pd.read_csv(tmp_path / "out" / "consensus_neurons.csv")
    stored = pd.read_parquet(tmp_path / "out" / "consensus_neurons.parquet")
    pd.testing.assert_frame_equal(text, NEURONS, check_dtype=False)
    pd.testing.assert_frame_equal(stored, NEURONS, check_dtype=False)
    assert list(pd.read_csv(tmp_path / "out" / "null.csv").columns) == ["unit_id"]
    assert len(pd.read_parquet(tmp_path / "out" / "null.parquet")) == 0


@pytest.mark.parametrize(("formats", "endings"), [("csv", {".csv"}), ("parquet", {".parquet"})])
def test_one_format_alone(tmp_path: Path, formats: str, endings: set[str]) -> None:
    write_export(tmp_path / "out", tables(), {}, formats=formats)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == endings | {".txt", ".json"}


def test_the_readme_explains_every_column_with_its_unit(tmp_path: Path) -> None:
    write_export(tmp_path / "out", tables(), {})
    text = (tmp_path / "out" / "README.txt").read_text(encoding="utf-8")
    assert "consensus_neurons (3 rows)" in text
    assert (
        "  margin         [1] largest minus second largest responsibility, mean over seeds; empty if not stored" in text
    )
    assert all(meaning for _, meaning in COLUMNS.values())
    assert "consensus_neurons" in FILES


def test_provenance_has_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJ_PASS", "correct horse battery")
    write_export(
        tmp_path / "out", tables(), {"entries": [{"config": {"password": "x y z", "note": "correct horse battery"}}]}
    )
    text = (tmp_path / "out" / "provenance.json").read_text(encoding="utf-8")
    assert json.loads(text)["entries"][0]["config"] == {"password": "***", "note": "***"}


def test_an_export_is_not_replaced_unless_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_export(folder, tables(), {})
    (folder / "notes.txt").write_text("mine")
    message = f"the folder {folder} is not empty; name another one, or add --force to replace an earlier export in it."
    with pytest.raises(SettingsError) as caught:
        check_target(folder, force=False)
    assert str(caught.value) == message
    check_target(folder, force=True)
    write_export(folder, tables(margin=9.0), {}, formats="csv")
    assert pd.read_csv(folder / "consensus_neurons.csv")["margin"].iloc[-1] == 9.0
    assert not (folder / "consensus_neurons.parquet").exists()  # its numbers would be the old ones
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_target_that_cannot_be_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SettingsError, match=r"file is a file; name a folder\."):
        check_target(file, force=True)
    with pytest.raises(SettingsError, match=r"missing does not exist; make it, or name another folder\."):
        check_target(tmp_path / "missing" / "out", force=False)


def test_a_failure_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    write_export(folder, tables(), {})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_write_text", full)
    with pytest.raises(
        SettingsError, match=r"cannot be written to .*out: No space left on device\. Name a folder that"
    ):
        write_export(folder, tables(margin=9.0), {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no format 'xlsx'\. Allowed: csv, parquet, both\."):
        write_export(tmp_path / "out", tables(), {}, formats="xlsx")


class Neurons:
    """Writes what AnnData would write to a file."""

    def write_h5ad(self, path: Path) -> None:
        path.write_bytes(b"neurons")


def test_neurons_as_anndata_are_files_of_the_export(tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def written(**annotated: Neurons) -> set[str]:
        write_export(folder, tables(), {}, formats="csv", annotated=annotated)
        return {path.name for path in folder.iterdir() if path.suffix == ".h5ad"}

    assert written(abcdef=Neurons()) == {"neurons.h5ad"}
    assert "neurons.h5ad: AnnData, one row per neuron." in (folder / "README.txt").read_text(encoding="utf-8")
    (folder / "neurons-mine.h5ad").touch()
    both = {"neurons-abcdef.h5ad", "neurons-012345.h5ad"}
    assert written(**{"abcdef": Neurons(), "012345": Neurons()}) == both | {"neurons-mine.h5ad"}
    assert written() == {"neurons-mine.h5ad"}  # those of the earlier export are gone
