"""The demonstration, small: real recordings on disk, real worker processes, tables, text and figures."""

from __future__ import annotations

import pandas as pd
import pytest

from december_plugin.cli import main
from december_plugin.demo import DemoSettings, demo_sweep, simulated_recordings
from december_plugin.simulate import write_recording
from december_plugin.sweep import parse_sweep

SMALL = ["--seeds", "1", "2", "--clusters", "2", "3", "--epochs", "4", "--pretrain-epochs", "3"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    sizes = {"n_neurons": 15, "n_train": 64, "n_validation": 10, "n_test": 4, "n_repeats": 3, "behavior": True}
    return [str(write_recording(folder / f"static{i}-0-0-GrayImageNet", seed=i, **sizes)) for i in (1, 2)]


def test_on_recordings_with_known_types(database, schema_name, recordings, tmp_path, capsys):
    words = ["demo", "--folder", str(tmp_path / "demo"), "--schema", schema_name, *SMALL, "--recordings", *recordings]
    assert main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "12 trainings registered" in printed
    for method in ("DECEMber, strength auto", "DECEMber, strength 100", "t mixture", "k-means, end of pretraining"):
        assert printed.count(f"{method}  ") == 2, method  # once for each K
    assert "ARI to planted types" in printed
    assert "How to read it" in printed
    table = pd.read_csv(tmp_path / "demo" / "agreement.csv")
    assert len(table) == 16
    assert (table["n_pairs"] == 1).all()
    assert table[["seeds_mean", "types_mean", "test_mean"]].notna().all().all()
    for name in ("agreement", "readouts", "training"):
        assert (tmp_path / "demo" / f"{name}.png").stat().st_size > 10_000
        assert (tmp_path / "demo" / f"{name}.svg").exists()
    assert main(words) == 0
    again = capsys.readouterr().out
    assert "12 of 12 models trained" in again
    assert again[again.index("   K  method") : again.index("How to read it")] in printed
    done = [line for line in (tmp_path / "demo" / "cpu-1.log").read_text().splitlines() if line.startswith("Done: ")]
    assert len(done) == 2
    assert done[1].startswith("Done: nothing new.")


def test_the_simulated_sweep_is_valid_and_plans_what_the_readme_says(tmp_path):
    recordings = simulated_recordings(tmp_path)
    sweep = parse_sweep(demo_sweep(DemoSettings(folder=tmp_path), recordings))
    assert sweep.n_trainings == 24
    assert len(sweep.clusterings) == 9
    before = [path.stat().st_mtime_ns for path in recordings]
    assert simulated_recordings(tmp_path) == recordings
    assert [path.stat().st_mtime_ns for path in recordings] == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recordings", "missing"], "missing"),
        (["--clusters", "31"], "--clusters 31 is more than the 30 neurons of the recordings."),
        (["--pretrain-epochs", "4"], "no epoch is left for the training"),
        (["--workers", "0"], "--workers is 0; it must be at least 1."),
        (["--clusters", "1"], "--clusters is 1; it must be at least 2."),
    ],
)
def test_mistakes_cost_nothing(database, schema_name, recordings, tmp_path, capsys, words, message):
    line = ["demo", "--folder", str(tmp_path), "--schema", schema_name, *SMALL, "--recordings", *recordings, *words]
    assert main(line) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    schemas = [row[0] for row in database.connection.query("SHOW DATABASES").fetchall()]
    assert schema_name not in schemas
