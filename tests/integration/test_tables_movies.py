"""Movies through the tables: trained, tested on repeats, clustered."""

from __future__ import annotations

import numpy as np
import pytest

from december_plugin import results
from december_plugin.simulate.movies import write_movie_recording
from helpers.lab_tables import open_lab

pytestmark = pytest.mark.slow(3)

MODEL = {
    "hidden_channels": [3, 4],
    "temporal_kernels": [3, 3],
    "spatial_kernels": [5, 3],
    "gamma_input": 0.1,
    "gamma_readout": 0.01,
}
TRAINER = {"n_clusters": 2, "pretrain_epochs": 1, "max_iter": 2, "lr_init": 0.03, "device": "cpu"}


@pytest.fixture(scope="module")
def lab(new_schema_name, tmp_path_factory):
    root = tmp_path_factory.mktemp("movies")
    sizes = {"n_train": 3, "n_validation": 1, "n_test": 2, "n_repeats": 3, "n_frames": 120, "n_test_frames": 40}
    folder = write_movie_recording(root / "retina", n_neurons=12, image_shape=(12, 12), **sizes)
    lab = open_lab(new_schema_name())
    config = {"paths": [str(folder)], "batch_size": 4, "chunk_frames": 30}
    lab.tables.TrainingPlan().add_entries(
        datasets=[lab.add("dataset", "december_plugin.datasets.movie_loaders", **config)],
        models=[lab.add("model", "december_plugin.models.movie_core_gaussian_readout", **MODEL)],
        trainers=[lab.add("trainer", "december_plugin.trainers.december_trainer", **TRAINER)],
        seeds=[1],
    )
    lab.tables.TrainedModel.populate()
    lab.tables.TestPerformance.populate()
    lab.tables.ClusterAssignment.populate()
    return lab


def test_scores_are_over_frames_and_repeats(lab):
    row, session = lab.tables.TestPerformance.fetch1(), lab.tables.TestPerformance.Session.fetch1()
    assert (row["n_tested_neurons"], session["n_trials"]) == (12, 6)
    assert session["single_trial_correlations"].shape == session["correlations_to_average"].shape == (12,)
    assert row["single_trial_correlation"] == pytest.approx(session["single_trial_correlations"].mean(), abs=1e-6)
    assert row["correlation_to_average"] == pytest.approx(session["correlations_to_average"].mean(), abs=1e-6)
    # Averaging removes noise.
    assert abs(row["correlation_to_average"]) > abs(row["single_trial_correlation"])


def test_every_neuron_is_assigned(lab):
    sessions = lab.tables.ClusterAssignment.Session.fetch(as_dict=True)
    assert sessions
    for session in sessions:
        assert session["labels"].shape == (12,)
        assert set(np.unique(session["labels"])) <= {0, 1}


def test_clips_excite_neurons_and_are_not_turned(lab):
    tables = lab.tables
    tables.MeiSettings().add_entry(per_cluster=1, max_steps=3, n_starts=1)
    tables.ClusterConfusionSettings().add_entry()
    tables.ClusterConfusionSettings().add_entry(responses="images")
    for table in (tables.FeatureCovariance, tables.ClusterConfusion, tables.Mei, tables.MeiConfusion):
        table.populate()
    found = results.exciting_images(tables)
    assert found.images.shape[1:] == (1, 5, 12, 12)  # as many frames as two kernels of 3 need
    assert len(found.frame) == found.frame["cluster"].nunique()
    assert (results.mei_confusion(tables).outcome, len(tables.MeiConfusion())) == ("clips", 1)
    linear, images = results.cluster_confusion(tables)
    assert linear.correlations.shape == images.correlations.shape
    assert linear.n_images == images.n_images > 3
    if len(linear.clusters) > 1:
        assert linear.correlations[0, 1] == pytest.approx(images.correlations[0, 1], abs=0.3)
