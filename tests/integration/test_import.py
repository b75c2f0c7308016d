"""Models that were trained elsewhere, in the tables: from files to agreement, and what an import leaves alone."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import adjusted_rand_score

from december_plugin import results
from december_plugin.cli import main
from december_plugin.errors import EmbeddingError, SettingsError
from december_plugin.intake import import_models, models_of_schema
from december_plugin.pool.jobs.description import describe_jobs
from december_plugin.schemas.stored_models import stored_neurons, stored_state_dict
from december_plugin.sweeps.forget import Planned
from december_plugin.sweeps.relocate import plan_move
from helpers import lab_tables, planted_lab

SEEDS = (1, 2, 3)
CLUSTERINGS = [{"method": "kmeans", "n_clusters": 3, "n_init": 2}]
SESSIONS = tuple(planted_lab.SESSIONS)


def vectors(seed: int) -> np.ndarray:
    return np.concatenate([planted_lab.planted_vectors(seed, key) for key in SESSIONS]).astype(np.float32)


def units() -> pd.DataFrame:
    keys = np.repeat(SESSIONS, [planted_lab.SESSIONS[key] for key in SESSIONS])
    ids = np.concatenate([planted_lab.unit_ids(key) for key in SESSIONS])
    return pd.DataFrame({"data_key": keys, "unit_id": ids, "cc": np.linspace(0, 0.6, len(ids))})


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Write readout vectors of three seeds, the same as a checkpoint, and the table of units."""
    units().to_csv(tmp_path / "units.csv", index=False)
    for seed in SEEDS:
        np.save(tmp_path / f"weights-{seed}.npy", vectors(seed))
    return tmp_path


def content(**changes: Any) -> dict[str, Any]:
    model = {"name": "twin", "readouts": "weights-*.npy", **changes.pop("model", {})}
    return {"units": "units.csv", "models": [model], "clusterings": CLUSTERINGS, **changes}


def bring(lab: lab_tables.Lab, folder: Path, **changes: Any) -> Any:
    return import_models(
        content(**changes), nnfabrik=lab.nnfabrik, tables=lab.tables, folder=folder, fabrikant="tester"
    )


def populate(lab: lab_tables.Lab) -> None:
    for table in lab.tables.computed:
        table.populate()


def test_a_filter_by_test_correlations_takes_those_of_the_units_and_says_where_there_are_none(
    empty_lab: lab_tables.Lab, files: Path
) -> None:
    tables = empty_lab.tables
    clusterings = [{"method": "kmeans", "n_clusters": 3, "n_init": 2, "minimum_test_correlation": 0.3}]
    known = {"table": "units.csv", "test_correlation": "cc"}
    bring(empty_lab, files, units=known, clusterings=clusterings, model={"readouts": "weights-1.npy", "seeds": [1]})
    bring(empty_lab, files, clusterings=clusterings, model={"readouts": "weights-2.npy", "seeds": [2]})
    with pytest.raises(EmbeddingError, match="has them only if its table of units had: delete it and import it with"):
        tables.ClusterAssignment.populate(order="original")
    row = tables.ClusterAssignment.fetch1()
    assert (row["seed"], row["n_neurons"], row["n_left_out"]) == (1, 35, 35)
    assert tables.ClusterAssignment.Session.fetch("n_session_neurons", order_by="data_key").tolist() == [5, 30]


def test_arrays_are_clustered_and_compared(empty_lab: lab_tables.Lab, files: Path) -> None:
    tables = empty_lab.tables
    written = bring(empty_lab, files, units={"table": "units.csv", "test_correlation": "cc"})
    assert written.new == {"Dataset": 1, "Model": 1, "Trainer": 1, "Seed": 3, "TrainedModel": 3, "Clustering": 1}
    populate(empty_lab)

    # The tables hold what they hold of models that were trained here.
    agreement = results.agreement_table(tables)
    assert agreement[["method", "n_clusters", "label", "n_pairs"]].values.tolist() == [["kmeans", 3, "k-means", 3]]
    labels = {seed: planted_lab.planted_labels(seed, "first") for seed in SEEDS}
    for seed in SEEDS:
        key = {"seed": seed, "data_key": "first"}
        found, ids, origin = (tables.ClusterAssignment.Session & key).fetch1("labels", "unit_ids", "unit_ids_from")
        assert len({*zip(found.tolist(), labels[seed].tolist(), strict=True)}) == 3
        assert ids.tolist() == planted_lab.unit_ids("first").tolist()
        assert origin == "recording"
    assert set(tables.TrainingSummary.fetch("trainer_role")) == {"other"}
    assert len(tables.Consensus()) == 1
    assert len(tables.ClusterQuality()) == 3
    assert len(tables.TrainingPlan()) == 0

    # How well they predict is what the table of units says.
    assert tables.TestPerformance.fetch("single_trial_correlation") == pytest.approx([0.3] * 3)
    assert results.performance_table(tables)["test_correlation_mean"].tolist() == pytest.approx([0.3])
    assert tables.TrainedModel.fetch("score") == pytest.approx([0.3] * 3)
    loaders, model = results.load_assigned_model(tables, tables.ClusterAssignment & "seed = 2")
    assert sorted(loaders["train"]) == sorted(SESSIONS)
    np.testing.assert_array_equal(model.readout["first"].features[0, :, 0].T.detach(), vectors(2)[:40])
    with pytest.raises(SettingsError, match="imported as readout vectors, without its core, so it cannot predict"):
        model(torch.ones(1))


def test_jobs_have_the_name_of_the_imported_model(
    empty_lab: lab_tables.Lab, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = empty_lab.tables
    bring(empty_lab, files, model={"readouts": "weights-1.npy", "seeds": [1]})
    bring(empty_lab, files, model={"name": "other", "readouts": "weights-2.npy", "seeds": [2], "trained": "by hand"})
    assert main(["jobs", "show", "--state", "waiting", "--schema", tables.schema.database]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.partition("  ")[2] for line in lines if "ClusterAssignment" in line) == [
        "ClusterAssignment: other, by hand, kmeans, K 3, seed 2",
        "ClusterAssignment: twin, kmeans, K 3, seed 1",
    ]
    # Comments may be changed, and may be empty.
    model = (tables.nnfabrik.Model & {"model_comment": "twin"}).fetch1("KEY")
    tables.nnfabrik.Model.update1({**model, "model_comment": ""})
    key = (tables.TrainedModel & "seed = 1").fetch1("KEY")
    assert describe_jobs(tables)("TrainedModel", key) == "TrainedModel: imported_trainer, seed 1"


def test_the_same_again_adds_nothing(empty_lab: lab_tables.Lab, files: Path) -> None:
    first = bring(empty_lab, files)
    again = bring(empty_lab, files)
    assert again.models == first.models
    assert set(again.new.values()) == {0}
    assert again.existing["TrainedModel"] == 3
    # One more seed is one more row.
    np.save(files / "weights-4.npy", vectors(4))
    assert bring(empty_lab, files).new["TrainedModel"] == 1


def test_other_weights_under_the_same_name_are_refused(empty_lab: lab_tables.Lab, files: Path) -> None:
    bring(empty_lab, files)
    np.save(files / "weights-2.npy", vectors(7))
    np.save(files / "weights-4.npy", vectors(4))
    with pytest.raises(
        SettingsError, match=r"the model 'twin' with seed 2 is there already from .*weights-2.npy, with"
    ):
        bring(empty_lab, files)
    assert len(empty_lab.tables.TrainedModel()) == 3
    assert bring(empty_lab, files, model={"name": "another"}).new["TrainedModel"] == 4
    assert len(empty_lab.nnfabrik.Dataset()) == 1  # the same neurons


def test_neurons_in_another_order_are_the_same_neurons(empty_lab: lab_tables.Lab, files: Path) -> None:
    frame = units()
    order = np.random.default_rng(3).permutation(len(frame))
    own = [frame.assign(**{f"w{i}": vectors(seed)[:, i] for i in range(6)}).drop(columns="cc") for seed in SEEDS]
    own[1] = own[1].iloc[order]
    bring(empty_lab, files, units=None, model={"readouts": own})
    assert len(empty_lab.nnfabrik.Dataset()) == 1
    populate(empty_lab)
    pairs = empty_lab.tables.SeedAgreement.fetch("adjusted_rand_index", order_by="seed_a, seed_b")
    planted = [np.concatenate([planted_lab.planted_labels(seed, key) for key in SESSIONS]) for seed in SEEDS]
    assert pairs == pytest.approx([adjusted_rand_score(*pair) for pair in itertools.combinations(planted, 2)])
    neurons = stored_neurons(empty_lab.tables.TrainedModel, {"seed": 2})
    first = next(iter(neurons))
    assert neurons[first]["unit_ids"].tolist() == own[1][own[1].data_key == first].unit_id.tolist()


def test_neurons_that_are_known_by_position_are_said_to_be(empty_lab: lab_tables.Lab, files: Path) -> None:
    bring(empty_lab, files, units=None, recording="monkey 3", model={"session": "V4"})
    populate(empty_lab)
    assert set(empty_lab.tables.ClusterAssignment.Session.fetch("unit_ids_from")) == {"position"}
    assert set(empty_lab.tables.ClusterAssignment.Session.fetch("data_key")) == {"V4"}
    assert empty_lab.nnfabrik.Dataset.fetch1("dataset_comment") == "monkey 3"
    assert len(empty_lab.tables.SeedAgreement()) == 3


def checkpoint(seed: int) -> dict[str, torch.Tensor]:
    net = planted_lab.LinearModel(planted_lab.SESSIONS)
    return planted_lab._planted_state(net, seed, 4)


def test_checkpoints(empty_lab: lab_tables.Lab, files: Path) -> None:
    for seed in SEEDS:
        wrapped = {f"model.{name}": value for name, value in checkpoint(seed).items()}
        torch.save({"epoch": 9, "state_dict": wrapped}, files / f"epoch=9-{seed}.ckpt")
    bring(empty_lab, files, model={"readouts": None, "checkpoints": "epoch*.ckpt", "seeds": [11, 12, 13]})
    populate(empty_lab)
    assert empty_lab.tables.ClusterAssignment.fetch("seed").tolist() == [11, 12, 13]
    stored = stored_state_dict(empty_lab.tables.TrainedModel, {"seed": 12})
    assert {name: value.tolist() for name, value in stored.items()} == {
        name: value.tolist() for name, value in checkpoint(2).items()
    }


FUNCTIONAL = [{"method": "kmeans", "n_clusters": 3, "space": "functional", "normalize": "l2", "n_init": 2}]


def test_a_covariance_that_comes_with_the_models(empty_lab: lab_tables.Lab, files: Path) -> None:
    sigma = np.diag([4.0, 1.0, 1.0, 0.0, 1.0, 9.0])
    bring(empty_lab, files, clusterings=FUNCTIONAL, model={"covariances": [sigma] * 3})
    # Models of which none is known have no functional clusters, and no job that fails.
    bring(empty_lab, files, clusterings=FUNCTIONAL, model={"name": "without"})
    populate(empty_lab)
    tables = empty_lab.tables
    assert len(tables.TrainedModel()) == 6
    covariances = tables.FeatureCovariance.fetch(as_dict=True)
    assert [row["covariance_from"] for row in covariances] == ["import"] * 3
    np.testing.assert_array_equal(covariances[0]["covariance"], sigma)
    assert len(tables.ClusterAssignment()) == 3
    assert len(tables.SeedAgreement()) == 3
    assert len(tables.schema.jobs) == 0
    for table in tables.computed:
        assert not len(table.key_source - table), table
    assert bring(empty_lab, files, clusterings=FUNCTIONAL, model={"covariances": [sigma] * 3}).new["TrainedModel"] == 0
    with pytest.raises(
        SettingsError, match=r"with other weights, order of neurons or covariance than .*weights-1.npy has"
    ):
        bring(empty_lab, files, clusterings=FUNCTIONAL, model={"covariances": [2 * sigma] * 3})


def test_a_recording_that_is_at_hand(empty_lab: lab_tables.Lab, files: Path) -> None:
    for seed in SEEDS:
        torch.save(checkpoint(seed), files / f"net-{seed}.pth")
    keys = {
        "readouts": None,
        "checkpoints": "net-*.pth",
        "model": {"fn": "helpers.planted_lab.model", "config": {"note": "kept"}},
        "dataset": {"fn": "helpers.planted_lab.loaders"},
    }
    bring(empty_lab, files, units=None, model=keys)
    tables = empty_lab.tables
    populate(empty_lab)
    # The entries are those of a training here, so that everything is computed that needs the recording.
    assert empty_lab.nnfabrik.Dataset.fetch1("dataset_fn") == "helpers.planted_lab.loaders"
    assert empty_lab.nnfabrik.Model.fetch1("model_fn") == "helpers.planted_lab.model"
    assert len(tables.TestPerformance()) == 3
    assert set(tables.ClusterAssignment.Session.fetch("unit_ids_from")) == {"recording"}
    ids = (tables.ClusterAssignment.Session & {"data_key": "second", "seed": 1}).fetch1("unit_ids")
    assert ids.tolist() == planted_lab.unit_ids("second").tolist()

    torch.save({**checkpoint(1), "readout.first.bias": torch.ones(40)}, files / "net-2.pth")
    with pytest.raises(
        SettingsError, match=r"does not fit the model of 'helpers.planted_lab.model', which has no 'readout"
    ):
        bring(empty_lab, files, units=None, model=keys)


def test_models_of_another_schema(empty_lab: lab_tables.Lab, files: Path) -> None:
    empty_lab.train("baseline", list(SEEDS))
    empty_lab.train("foreign", [5, 6])
    schema, connection = empty_lab.tables.schema.database, empty_lab.nnfabrik.Dataset.connection
    found = models_of_schema(schema, "seed < 4", connection=connection)
    (entry,) = found
    assert entry["seeds"] == list(SEEDS)
    assert entry["units"].unit_id.tolist() == units().unit_id.tolist()
    found = [
        {**entry, "name": "theirs"},
        *models_of_schema(schema, "trainer_fn LIKE '%foreign'", connection=connection),
    ]
    written = import_models(
        {"models": found, "clusterings": CLUSTERINGS},
        nnfabrik=empty_lab.nnfabrik,
        tables=empty_lab.tables,
        fabrikant="tester",
    )
    assert written.new["TrainedModel"] == 5
    populate(empty_lab)
    here, there = (
        (empty_lab.tables.SeedAgreement & condition).fetch("adjusted_rand_index", order_by="seed_a, seed_b")
        for condition in ("trainer_fn LIKE '%baseline'", {"model_hash": written.models[0]["model_hash"]})
    )
    np.testing.assert_array_equal(here, there)
    # Another package's trainer has stored no unit ids.
    assert set((empty_lab.tables.ClusterAssignment.Session & written.models[3]).fetch("unit_ids_from")) == {"position"}

    with pytest.raises(SettingsError, match=r"the server has no schema 'december_nowhere', or this account"):
        models_of_schema("december_nowhere", connection=connection)
    with pytest.raises(
        SettingsError, match=r"has no table 'Dataset' with state dicts, built on nnfabrik's TrainedModelB"
    ):
        models_of_schema(schema, connection=connection, table="Dataset")
    with pytest.raises(SettingsError, match=r"TrainedModel has no trained model of that kind"):
        models_of_schema(schema, "seed = 99", connection=connection)


def test_what_is_planned_and_what_moves_does_not_concern_imports(empty_lab: lab_tables.Lab, files: Path) -> None:
    bring(empty_lab, files)
    settings = {"nnfabrik": empty_lab.nnfabrik, "tables": empty_lab.tables}
    assert Planned(**settings).keys == []
    with pytest.raises(
        SettingsError, match=r"no dataset has a recording at or below .*Recordings of the datasets: none"
    ):
        plan_move(str(files / "units.csv"), str(files), **settings)
    with pytest.raises(SettingsError, match=r"no dataset has a recording at or below"):
        Planned(**settings).select(paths=[str(files)])


def test_an_import_that_fails_leaves_no_file_in_the_store(
    empty_lab: lab_tables.Lab, files: Path, store_folder: Path
) -> None:
    def stored() -> set[Path]:
        return {path for path in store_folder.rglob("*") if path.is_file()}

    bring(empty_lab, files)
    before = stored()
    np.save(files / "weights-3.npy", vectors(9))  # is refused after the others of another name have been written
    models = [{"name": name, "readouts": "weights-*.npy"} for name in ("of no other test", "twin")]
    with pytest.raises(SettingsError, match=r"with seed 3 is there already"):
        bring(empty_lab, files, models=models)
    assert stored() == before
    assert len(empty_lab.tables.TrainedModel()) == 3


KILLED = """
import os, signal, sys
from december_plugin.database.connection import connect
from december_plugin.intake import write
from helpers import lab_tables

stored = []
def store(*arguments, **options):
    if len(stored) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    stored.append(original(*arguments, **options))
    return stored[-1]

original, write.store_trained_model = write.store_trained_model, store
connect()
lab = lab_tables.open_lab(sys.argv[1])
write.import_models("models.yaml", nnfabrik=lab.nnfabrik, tables=lab.tables, fabrikant="tester")
"""


@pytest.mark.slow(8)
def test_an_import_that_is_killed_leaves_nothing_and_completes_when_run_again(
    empty_lab: lab_tables.Lab, files: Path
) -> None:
    (files / "models.yaml").write_text(yaml.safe_dump(content()))
    schema = empty_lab.tables.schema.database
    folder = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, schema],
        cwd=files,
        env={**os.environ, "PYTHONPATH": folder},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    lab = empty_lab
    tables = (lab.nnfabrik.Dataset, lab.nnfabrik.Model, lab.nnfabrik.Trainer, lab.tables.TrainedModel)
    assert [len(table()) for table in tables] == [0] * 4
    assert len(lab.tables.Clustering & "method = 'kmeans'") == 0
    assert bring(lab, files).new["TrainedModel"] == 3
    populate(lab)
    assert len(lab.tables.SeedAgreement()) == 3


def test_the_commands_from_files_to_the_agreement(
    empty_lab: lab_tables.Lab, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "models.yaml").write_text(yaml.safe_dump(content()))
    monkeypatch.setenv("DECEMBER_SCHEMA", empty_lab.tables.schema.database)
    monkeypatch.chdir(files)
    said = "twin: 3 seeds, 70 neurons of 2 sessions (known by unit ids), 6 features\n"
    assert main(["import", "models.yaml", "--dry-run"]) == 0
    assert capsys.readouterr().out == said + "The import is valid. Nothing was written.\n"
    assert len(empty_lab.tables.TrainedModel()) == 0
    assert main(["import", "models.yaml"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(said)
    assert "  TrainedModel      3 new     0 existing\n" in out
    populate(empty_lab)
    assert main(["ari"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("imported neurons, twin: ")
    assert "   3  k-means" in out

    np.save(files / "weights-2.npy", vectors(2)[:-1])
    assert main(["import", "models.yaml"]) == 1
    said = capsys.readouterr().err
    assert "models.yaml:" in said
    assert "has 69 rows and the table of units has 70" in said
