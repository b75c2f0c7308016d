"""Our trainers on simulated recordings, in a lab's own TrainedModel and in ours, up to every table."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import datajoint as dj
import numpy as np
import pytest

from december_plugin.results import agreement as queries
from december_plugin.results import assignments
from december_plugin.schemas import december_tables
from december_plugin.simulate import write_recording
from helpers.lab_tables import open_lab

pytestmark = pytest.mark.slow(3)

SEEDS = [1, 2]
TRAINING = {"pretrain_epochs": 2, "max_iter": 4, "device": "cpu", "verbose": False}


@pytest.fixture(scope="module")
def entries(new_schema_name, tmp_path_factory):
    """Register recordings, a model and three trainers for two seeds."""
    root = tmp_path_factory.mktemp("recordings")
    sizes = {"n_train": 40, "n_validation": 10, "n_test": 3, "n_repeats": 4, "image_shape": (12, 14)}
    paths = [write_recording(root / name, n_neurons=15, seed=at, **sizes) for at, name in enumerate(("one", "two"))]
    lab = open_lab(new_schema_name(), december_trainers=("december_plugin.*december_trainer",))
    dataset = lab.add(
        "dataset", "december_plugin.datasets.static_loaders", paths=[str(p) for p in paths], batch_size=20
    )
    sizes = {"hidden_channels": 4, "layers": 2, "input_kern": 5, "hidden_kern": 3}
    model = lab.add("model", "december_plugin.models.stacked_core_gaussian_readout", **sizes)
    trainers = {
        "december": lab.add("trainer", "december_plugin.trainers.december_trainer", n_clusters=3, **TRAINING),
        "baseline": lab.add("trainer", "december_plugin.trainers.baseline_trainer", **TRAINING),
        "control": lab.add(
            "trainer", "december_plugin.trainers.baseline_trainer", stop_after_pretraining=True, **TRAINING
        ),
    }
    planned = lab.tables.TrainingPlan()
    planned.add_entries(datasets=[dataset], models=[model], trainers=list(trainers.values()), seeds=SEEDS)
    lab.tables.Clustering().add_entry("t_mixture", 3)
    lab.tables.Clustering().add_entry("gmm", 3)
    pretraining = tmp_path_factory.mktemp("pretraining")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DECEMBER_PRETRAINING", str(pretraining))
        yield SimpleNamespace(lab=lab, trainers=trainers)


@pytest.fixture(scope="module")
def filled(entries):
    """Populate all tables."""
    tables = entries.lab.tables
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for table in tables.computed:
            table.populate()
    return tables


def test_every_table_is_filled(filled):
    assert len(filled.TrainedModel()) == len(filled.TrainingSummary()) == len(filled.TestPerformance()) == 6
    assert len(filled.ClusterAssignment()) == 2 + 2 * 2 * 2
    assert len(filled.SeedAgreement()) == 1 + 2 * 2
    table = queries.agreement_table(filled)
    assert sorted(zip(table["method"], table["trainer_role"], strict=True)) == [
        ("december", "december"),
        ("gmm", "baseline"),
        ("gmm", "control"),
        ("t_mixture", "baseline"),
        ("t_mixture", "control"),
    ]
    assert table[["agreement_mean", "test_correlation_mean", "test_correlation_sd"]].notna().all(axis=None)
    own = table[table["method"] == "december"].iloc[0]
    assert own["strength_setting"] == "auto"
    assert own["strength"] > 0
    assert own["gradient_ratio"] == pytest.approx(0.01)
    assert own["pretrain_epochs"] == 2


def test_decembers_assignments_are_those_of_the_restored_model(filled, entries):
    key = (filled.ClusterAssignment & entries.trainers["december"] & {"seed": 1}).fetch1("KEY")
    frame = assignments.assignment_frame(filled, key)
    assert len(frame) == 30
    assert frame["cluster"].between(0, 2).all()
    assert frame["confidence"].between(1 / 3, 1).all()
    loaders, model = assignments.load_assigned_model(filled, key)
    assert list(model.readout) == list(loaders["test"]) == ["one", "two"]


def test_repeats_of_the_test_tier_are_averaged(filled):
    assert np.isfinite(filled.TestPerformance.fetch("correlation_to_average")).all()


def test_a_labs_own_trained_model_needs_nothing_but_the_trainer_entry(filled, entries, new_schema_name):
    from nnfabrik.templates.trained_model import TrainedModelBase

    own_schema = dj.Schema(new_schema_name())

    class TrainedModel(TrainedModelBase):
        nnfabrik = entries.lab.nnfabrik

    own = own_schema(TrainedModel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own.populate(filled.TrainingPlan() & {"seed": 1})
    assert len(own()) == len(own.ModelStorage()) == 3
    tables = december_tables(new_schema_name(), nnfabrik=entries.lab.nnfabrik, trained_model=own)
    for table in tables.computed[1:]:
        table.populate()
    assert len(tables.ClusterAssignment()) == 1
    ours = filled.ClusterAssignment & tables.ClusterAssignment.fetch("KEY")
    # The same seed gives the same bytes, in whichever table.
    assert tables.ClusterAssignment.fetch1("labels_md5") == ours.fetch1("labels_md5")
    _, model = own().load_model((own & entries.trainers["december"]).fetch1("KEY"))
    assert list(model.readout) == ["one", "two"]
