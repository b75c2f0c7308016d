"""docs/importing-models.md: every block is run on files of the kind that it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from december_plugin.cli import main
from december_plugin.imports.units import read_units
from december_plugin.intake import import_models
from december_plugin.models import stacked_core_gaussian_readout
from helpers import lab_tables, pages

PAGE = pages.text_of("docs/importing-models.md")
FILES = {piece.section: piece.text for piece in pages.claim("docs/importing-models.md", "yaml")}
COMMANDS = pages.claim("docs/importing-models.md", "bash")
PYTHON = {piece.section: piece for piece in pages.claim("docs/importing-models.md", "python")}
(UNITS,) = pages.claim("docs/importing-models.md", "text")
RNG = np.random.default_rng(0)


def section(title: str) -> str:
    """Return the text of a section of the page."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.fixture
def lab(empty_lab: lab_tables.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[lab_tables.Lab]:
    monkeypatch.setenv("DECEMBER_SCHEMA", empty_lab.tables.schema.database)
    monkeypatch.chdir(tmp_path)
    return empty_lab


def bring(lab: lab_tables.Lab, title: str) -> Any:
    """Import the file that a section shows, and compute everything."""
    Path("models.yaml").write_text(FILES[title])
    written = import_models("models.yaml", nnfabrik=lab.nnfabrik, tables=lab.tables, fabrikant="tester")
    for table in lab.tables.computed:
        if table is not lab.tables.SurrogateAgreement:  # 19 draws take a while
            table.populate()
            assert not len(table.key_source - table), table
    assert len(lab.tables.schema.jobs) == 0
    return written


def readouts(n: int, n_features: int, seed: int) -> np.ndarray:
    types = np.random.default_rng(1).normal(size=(3, n_features))[np.arange(n) % 3]
    return (types + 0.1 * np.random.default_rng(seed).normal(size=types.shape)).astype(np.float32)


def test_the_usual_case(lab: lab_tables.Lab, capsys: pytest.CaptureFixture[str]) -> None:
    keys = np.repeat(["29513-3-5", "29514-2-9"], 15)
    pd.DataFrame({"data_key": keys, "unit_id": np.arange(30)}).to_csv("units.csv", index=False)
    Path("models").mkdir()
    for seed in (1, 2, 10):
        vectors = torch.from_numpy(readouts(30, 6, seed))
        parts = zip(("29513-3-5", "29514-2-9"), vectors.split(15), strict=True)
        torch.save({f"readout.{key}.features": part.T[None, :, None] for key, part in parts}, f"models/seed{seed}.pth")
    written = bring(lab, "The usual case")
    assert written.new["TrainedModel"] == 3
    assert len(lab.tables.SurrogateAgreement().key_source) == 4
    for command in COMMANDS:
        words = command.words[1:]
        if words != ["worker"]:
            assert main([*words, *(["--no-tsne"] if words == ["report"] else [])]) == 0, words
    assert "3 new" not in capsys.readouterr().out  # it was imported before


def published(name: str, **settings: Any) -> None:
    info = {"input_dimensions": [1, 1, 36, 64], "input_channels": 1, "output_dimension": [1, 12]}
    info |= {"cell_motor_coordinates": np.random.default_rng(3).normal(size=(12, 2))}
    net = stacked_core_gaussian_readout(None, 1, data_info={"26872-17-20": info}, **settings)
    net.readout["26872-17-20"]._features.data = torch.from_numpy(readouts(12, 64, 1).T.copy())[None, :, None]
    state = {key: value for key, value in net.state_dict().items() if not ("ds_conv" in key and key.endswith(".bias"))}
    torch.save(state, name)


@pytest.mark.slow(6)
def test_published_models(lab: lab_tables.Lab) -> None:
    published("sensorium_sota_model.pth")
    published("sensorium_ln_model.pth", layers=3, linear=True)
    written = bring(lab, "Published models of SENSORIUM 2022")
    assert written.new["TrainedModel"] == 2
    assert len(lab.tables.ClusterAssignment()) == 8
    assert set(lab.tables.FeatureCovariance.fetch("covariance_from")) == {"probes"}
    assert set(lab.tables.ClusterAssignment.Session.fetch("unit_ids_from")) == {"position"}
    # The report says what such numbers rest on, and speaks of no training here.
    assert main(["report", "--no-tsne"]) == 0
    page = Path("report.html").read_text(encoding="utf-8")
    assert "The features are those of probe stimuli: 50 noise with the spectrum of natural images." in page
    assert "In 1 of 1 sessions neurons have no unit ids and are matched by their position" in page
    assert "Trained elsewhere: 1 model of 12 neurons in 1 session." in page
    assert "Poisson loss plus the" not in page


def test_arrays_of_a_digital_twin(lab: lab_tables.Lab) -> None:
    np.save("readout_weights.npy", readouts(40, 16, 1))
    pd.DataFrame(
        {
            "session": 4 + np.arange(40) % 2,
            "scan_idx": 7 - np.arange(40) % 2,
            "unit_id": np.arange(40),
            "x": 0.0,
            "cc_abs": 0.5,
        }
    ).to_csv("units.csv", index=False)
    bring(lab, "Arrays of a digital twin (MICrONS)")
    sessions = lab.tables.ClusterAssignment.Session.fetch("data_key", order_by="data_key")
    assert sessions.tolist() == ["4-7", "5-6"]
    assert lab.tables.TestPerformance.fetch1("single_trial_correlation") == pytest.approx(0.5)


def test_openretina(lab: lab_tables.Lab) -> None:
    Path("openretina").mkdir()
    for seed in (1, 2):
        vectors = torch.from_numpy(readouts(20, 8, seed))
        state = {"readout.session_1.feature_weights": vectors.T.clone(), "readout.session_1.bias": torch.zeros(20)}
        state["readout.session_1.mask_weights"] = torch.zeros(30, 20)
        content = {"state_dict": state, "pytorch-lightning_version": "2.5.0", "hyper_parameters": {"lr": 0.01}}
        torch.save(content, f"openretina/{seed}.ckpt")
    assert bring(lab, "openretina").new["TrainedModel"] == 2
    assert len(lab.tables.SeedAgreement()) == 1


def run_python(title: str, **names: Any) -> dict[str, Any]:
    piece = PYTHON[title]
    namespace: dict[str, Any] = {}
    replace(piece, text=piece.text.replace('"their_schema"', repr(names.get("their_schema", "")))).run(namespace)
    return namespace


def test_another_nnfabrik_schema(lab: lab_tables.Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.train("baseline", [1, 2, 3, 4])
    run_python("Another nnfabrik schema", their_schema=lab.tables.schema.database)
    name, *_ = capsys.readouterr().out.splitlines()[-2:]
    assert name.endswith(" [1, 2, 3] 70")
    assert len(lab.tables.TrainedModel()) == 7


def test_arrays_in_python(lab: lab_tables.Lab) -> None:
    run_python("Arrays in Python")
    assert len(lab.tables.SeedAgreement()) == 3
    # What the section on what is stored selects is there to be deleted.
    found = run_python("What is stored")["imported"]
    assert len(found) == 1
    found.delete(safemode=False)
    assert len(lab.tables.TrainedModel()) == 2
    assert len(lab.tables.ClusterAssignment()) == 2


def test_the_file_of_units(tmp_path: Path) -> None:
    (tmp_path / "units.csv").write_text(UNITS.text)
    assert {key: units.tolist() for key, units in read_units(tmp_path / "units.csv").by_session().items()} == {
        "29513-3-5": [12, 17]
    }


def test_the_keys_of_the_tables_are_those_of_the_file() -> None:
    from december_plugin.intake.file_format import ImportContent, ModelItem

    def keys(text: str) -> set[str]:
        rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, flags=re.MULTILINE)
        return {key for row in rows for key in re.findall(r"`(\w+)`", row)}

    sections, models = section("What the file may say").split("Each model has these keys:")
    assert keys(sections) == set(ImportContent.model_fields)
    assert keys(models) == set(ModelItem.model_fields)
