"""The demonstration, small: real recordings on disk, real worker processes, tables, text and figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from december_plugin.cli import main
from december_plugin.demo.demonstration import DemoSettings, demo_sweep, simulated_recordings
from december_plugin.simulate import read_truth, write_recording
from december_plugin.sweeps.parse import parse_sweep

pytestmark = pytest.mark.slow(15)

SMALL = ["--seeds", "1", "2", "--clusters", "2", "3", "--epochs", "4", "--pretrain-epochs", "3", "--draws", "2"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    sizes = {"n_neurons": 15, "n_train": 64, "n_validation": 10, "n_test": 4, "n_repeats": 3, "behavior": True}
    return [str(write_recording(folder / f"static{i}-0-0-GrayImageNet", seed=i, **sizes)) for i in (1, 2)]


def test_on_recordings_with_known_types(database, schema_name, recordings, tmp_path, capsys):
    words = ["demo", "--folder", str(tmp_path / "demo"), "--schema", schema_name, *SMALL, "--recordings", *recordings]
    assert main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "8 trainings registered" in printed
    for method in ("DECEMber", "k-means"):
        assert len([line for line in printed.splitlines() if line.split()[1:2] == [method]]) == 2, method  # each K
    assert "ARI to planted types" in printed
    assert "null: agreement on surrogates without clusters" in printed
    assert "What it says:" in printed
    assert "Not decided yet" in printed  # two draws cannot tell
    table = pd.read_csv(tmp_path / "demo" / "agreement.csv")
    assert len(table) == 14
    with_null = table["p_value"].notna()
    assert set(table.loc[with_null, "method"]) == {"december", "kmeans"}
    assert with_null.sum() == 6  # the control's k-means, too
    assert (table["n_pairs"] == 1).all()
    assert table[["agreement_mean", "types_agreement_mean", "test_correlation_mean"]].notna().all().all()
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "static1-0-0-GrayImageNet, static2-0-0-GrayImageNet" in page
    for name in ("null", "agreement", "readouts", "training"):
        assert (tmp_path / "demo" / f"{name}.png").stat().st_size > 10_000
        assert (tmp_path / "demo" / f"{name}.svg").exists()
    assert main(words) == 0
    again = capsys.readouterr().out
    assert "8 of 8 models trained" in again
    assert again[again.index("   K  method") : again.index("figure  ")] in printed
    done = [line for line in (tmp_path / "demo" / "cpu-1.log").read_text().splitlines() if line.startswith("Done: ")]
    assert len(done) == 2
    assert done[1].startswith("Done: nothing new.")


def test_the_simulated_sweep_is_valid_and_plans_what_the_readme_says(tmp_path):
    recordings = simulated_recordings(tmp_path)
    sweep = parse_sweep(demo_sweep(DemoSettings(folder=tmp_path), recordings))
    assert sweep.n_trainings == 54
    assert len(sweep.clusterings) == 21
    assert [entry.comment for entry in sweep.datasets] == ["planted types", "a continuum"]
    (surrogate,) = sweep.surrogates
    assert (surrogate.n_draws, surrogate.clusterings) == (20, ("december", "kmeans"))
    paths = [path for folders in recordings.values() for path in folders]
    before = [path.stat().st_mtime_ns for path in paths]
    assert simulated_recordings(tmp_path) == recordings
    assert [path.stat().st_mtime_ns for path in paths] == before
    typed, twins = recordings.values()
    for one, other in zip(typed, twins, strict=True):
        assert (read_truth(one).types >= 0).all()
        assert (read_truth(other).types == -1).all()
        assert np.array_equal(read_truth(one).centers, read_truth(other).centers)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recordings", "missing"], "missing"),
        (["--clusters", "31"], "--clusters 31 is more than the 30 neurons of the recordings."),
        (["--pretrain-epochs", "4"], "--epochs 4 includes the 4 epochs of the pretraining, so none are left"),
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
