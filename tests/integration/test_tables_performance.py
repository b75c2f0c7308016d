"""TestPerformance on the test tier, and TrainingSummary."""

from __future__ import annotations

import numpy as np
import pytest
import tables_lab
from tables_setup import open_lab

from december_plugin.errors import RecordingError
from december_plugin.schemas.training_summary import summary_of


@pytest.fixture(scope="module")
def lab(new_schema_name):
    lab = open_lab(new_schema_name())
    lab.train("december", [1])
    lab.train("baseline", [1])
    lab.train("baseline", [1], control=True)
    lab.train("foreign", [1])
    lab.tables.TestPerformance.populate()
    lab.tables.TrainingSummary.populate()
    return lab


def expected_correlations(seed: int, data_key: str) -> np.ndarray:
    images = tables_lab.Recording(data_key, with_unit_ids=True).images
    measured = tables_lab.responses(data_key, images).astype(np.float32)
    predicted = images.reshape(len(images), -1) @ tables_lab.planted_vectors(seed, data_key).T
    pairs = zip(measured.T, predicted.T, strict=True)
    return np.array([np.corrcoef(r, p)[0, 1] if np.ptp(r) else 0.0 for r, p in pairs])


def test_correlations_are_those_of_the_stored_weights(lab):
    performance = lab.tables.TestPerformance & {"trainer_fn": "tables_lab.december"}
    expected = {key: expected_correlations(1, key) for key in tables_lab.SESSIONS}
    row = performance.fetch1()
    assert row["single_trial_correlation"] == pytest.approx(np.concatenate([*expected.values()]).mean(), abs=1e-6)
    assert row["n_tested_neurons"] == 70
    assert row["n_constant_neurons"] == 2
    for session in (lab.tables.TestPerformance.Session & performance).fetch(as_dict=True):
        key = session["data_key"]
        np.testing.assert_allclose(session["single_trial_correlations"], expected[key], atol=1e-6)
        assert session["single_trial_correlations"].dtype == np.float32
        np.testing.assert_array_equal(session["tested_unit_ids"], tables_lab.unit_ids(key))
        assert (session["tested_unit_ids_from"], session["n_trials"]) == ("recording", 20)


def test_repeated_images_give_a_correlation_to_the_average(empty_lab):
    lab = empty_lab
    lab.train("baseline", [1], dataset={"n_images": 5})
    lab.tables.TestPerformance.populate()
    expected = []
    for key in tables_lab.SESSIONS:
        images = tables_lab.Recording(key, with_unit_ids=True, n_images=5).images
        measured = tables_lab.responses(key, images).astype(np.float32)
        predicted = images.reshape(len(images), -1) @ tables_lab.planted_vectors(1, key).T
        mean_r, mean_p = (values.reshape(4, 5, -1).mean(axis=0) for values in (measured, predicted))
        expected += [np.corrcoef(mean_r[:, n], mean_p[:, n])[0, 1] for n in range(mean_r.shape[1] - 1)] + [0.0]
    assert lab.tables.TestPerformance.fetch1("correlation_to_average") == pytest.approx(np.mean(expected), abs=1e-6)


def test_without_repeats_there_is_none(lab):
    assert np.isnan(lab.tables.TestPerformance.fetch("correlation_to_average")).all()
    assert list(lab.tables.TestPerformance.Session.fetch("correlations_to_average")) == [None] * 8


def test_a_foreign_model_gets_its_unit_ids_from_the_loaders(lab):
    sessions = lab.tables.TestPerformance.Session & {"trainer_fn": "tables_lab.foreign", "data_key": "second"}
    np.testing.assert_array_equal(sessions.fetch1("tested_unit_ids"), tables_lab.unit_ids("second"))


def test_a_data_set_without_a_test_tier_says_so(empty_lab):
    lab = empty_lab
    lab.train("baseline", [1], dataset={"tiers": ["train", "validation"]})
    with pytest.raises(RecordingError) as raised:
        lab.tables.TestPerformance.populate()
    assert str(raised.value) == (
        "the data set has no tier 'test', only 'train', 'validation'; a model is tested on trials that it never saw."
    )
    assert len(lab.tables.TestPerformance()) == 0


def test_scores_and_clusters_of_a_session_can_be_joined(lab):
    lab.tables.ClusterAssignment.populate()
    joined = lab.tables.ClusterAssignment.Session * lab.tables.TestPerformance.Session
    row = (joined & {"data_key": "first"}).fetch1()
    np.testing.assert_array_equal(row["unit_ids"], row["tested_unit_ids"])
    everything = lab.tables.ClusterAssignment * lab.tables.Clustering * lab.tables.TrainingSummary
    assert len(everything * lab.tables.TestPerformance * lab.tables.TrainedModel) == 1


def test_summary_of_a_december_training(lab):
    row = (lab.tables.TrainingSummary & {"trainer_fn": "tables_lab.december"}).fetch1()
    scalars = {name: value for name, value in row.items() if name not in lab.tables.TrainingSummary.primary_key}
    assert scalars == {
        "trainer_role": "december",
        "k_trained": 3,
        "strength": 1.5,
        "strength_setting": "auto",
        "gradient_ratio": 0.01,
        "locked_in": 0,
        "pretrain_epochs": 2,
        "n_epochs": 4,
        "best_epoch": 3,
        "stopped_by": "patience",
        "score_name": "mean validation correlation",
        "validation_correlation": pytest.approx(0.3),
    }


def test_summaries_tell_baseline_control_and_foreign_trainings_apart(lab):
    roles = lab.tables.TrainingSummary.fetch("trainer_role", "k_trained", "n_epochs", as_dict=True)
    assert sorted(roles, key=lambda row: row["trainer_role"]) == [
        {"trainer_role": "baseline", "k_trained": None, "n_epochs": 4},
        {"trainer_role": "control", "k_trained": None, "n_epochs": 4},
        {"trainer_role": "december", "k_trained": 3, "n_epochs": 4},
        {"trainer_role": "other", "k_trained": None, "n_epochs": None},
    ]


@pytest.mark.parametrize("output", [None, [], "text", {}, {"trainer": "dec"}, {"trainer": None}, np.zeros(3)])
def test_outputs_of_any_kind_are_summarised(output):
    assert summary_of(output, 0.5) == {"trainer_role": "other"}


def test_a_bare_output_of_ours_leaves_nulls():
    row = summary_of({"trainer": "december", "clustering": {"strength": float("inf"), "strength_setting": 0.5}}, 0.1)
    assert row["strength"] is None
    assert row["strength_setting"] == "0.5"
    assert row["locked_in"] is None
    assert row["validation_correlation"] is None
