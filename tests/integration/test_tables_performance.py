"""TestPerformance on the test tier, and TrainingSummary."""

from __future__ import annotations

import numpy as np
import pytest

from december_plugin.embeddings.readout_vectors import unit_ids_of
from december_plugin.errors import RecordingError, SettingsError
from december_plugin.evaluation import performance
from december_plugin.evaluation.predictions import predict_tier
from december_plugin.results.assignments import load_assigned_model
from december_plugin.results.performance import SCORES, performance_table, session_performance, untested_sessions
from december_plugin.schemas.performance import OF_REPEATS
from december_plugin.schemas.training import summary_of
from helpers import planted_lab
from helpers.lab_tables import open_lab


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
    images = planted_lab.Recording(data_key, with_unit_ids=True).images
    measured = planted_lab.responses(data_key, images).astype(np.float32)
    predicted = images.reshape(len(images), -1) @ planted_lab.planted_vectors(seed, data_key).T
    pairs = zip(measured.T, predicted.T, strict=True)
    return np.array([np.corrcoef(r, p)[0, 1] if np.ptp(r) else 0.0 for r, p in pairs])


def test_correlations_are_those_of_the_stored_weights(lab):
    tested = lab.tables.TestPerformance & {"trainer_fn": "helpers.planted_lab.december"}
    expected = {key: expected_correlations(1, key) for key in planted_lab.SESSIONS}
    row = tested.fetch1()
    assert row["single_trial_correlation"] == pytest.approx(np.concatenate([*expected.values()]).mean(), abs=1e-6)
    assert row["n_tested_neurons"] == 70
    assert row["n_constant_neurons"] == 2
    for session in (lab.tables.TestPerformance.Session & tested).fetch(as_dict=True):
        key = session["data_key"]
        np.testing.assert_allclose(session["single_trial_correlations"], expected[key], atol=1e-6)
        assert session["single_trial_correlations"].dtype == np.float32
        np.testing.assert_array_equal(session["tested_unit_ids"], planted_lab.unit_ids(key))
        assert (session["tested_unit_ids_from"], session["n_trials"]) == ("recording", 20)


def test_repeated_images_give_a_correlation_to_the_average(empty_lab):
    lab = empty_lab
    lab.train("baseline", [1], dataset={"n_images": 5})
    lab.tables.TestPerformance.populate()
    expected = []
    for key in planted_lab.SESSIONS:
        images = planted_lab.Recording(key, with_unit_ids=True, n_images=5).images
        measured = planted_lab.responses(key, images).astype(np.float32)
        predicted = images.reshape(len(images), -1) @ planted_lab.planted_vectors(1, key).T
        mean_r, mean_p = (values.reshape(4, 5, -1).mean(axis=0) for values in (measured, predicted))
        expected += [np.corrcoef(mean_r[:, n], mean_p[:, n])[0, 1] for n in range(mean_r.shape[1] - 1)] + [0.0]
    assert lab.tables.TestPerformance.fetch1("correlation_to_average") == pytest.approx(np.mean(expected), abs=1e-6)


def test_without_repeats_there_is_none(lab):
    for name in ("correlation_to_average", "single_trial_ceiling", "average_ceiling", "normalized_correlation", "feve"):
        assert np.isnan(lab.tables.TestPerformance.fetch(name)).all()
    for name in OF_REPEATS:
        assert list(lab.tables.TestPerformance.Session.fetch(name)) == [None] * 8
    assert set(lab.tables.TestPerformance.fetch("n_repeated_neurons")) == {0}


def test_scores_of_repeats_are_those_of_the_functions(empty_lab):
    lab = empty_lab
    lab.train("baseline", [1], dataset={"n_images": 5})
    lab.tables.TestPerformance.populate()
    row = lab.tables.TestPerformance.fetch1()
    sessions = lab.tables.TestPerformance.Session.fetch(as_dict=True, order_by="data_key")
    singles, averages, normalized, feves = [], [], [], []
    for session in sessions:
        key = session["data_key"]
        recording = planted_lab.Recording(key, with_unit_ids=True, n_images=5)
        responses, images = recording.responses.astype(np.float32), recording.trial_info.frame_image_id
        predictions = recording.images.reshape(20, -1) @ planted_lab.planted_vectors(1, key).T
        ceilings = performance.noise_ceilings(responses, images)
        expected = {
            "explainable_variances": performance.explainable_variance(responses, images),
            "ceilings_to_average": ceilings.to_average,
            "normalized_correlations": performance.normalized_correlation(responses, predictions, images),
            "feves": performance.feve(responses, predictions, images),
        }
        for name, values in expected.items():
            assert session[name].dtype == np.float32
            np.testing.assert_allclose(session[name], values, atol=1e-5)
        assert np.isnan(session["feves"][-1])  # the neuron that never responds
        singles.append(ceilings.single_trial), averages.append(ceilings.to_average)
        normalized.append(expected["normalized_correlations"]), feves.append(expected["feves"])
    assert row["n_repeated_neurons"] == 70
    assert row["n_explainable_neurons"] == np.isfinite(np.concatenate(feves)).sum() < 70
    for name, values in (
        ("single_trial_ceiling", singles),
        ("average_ceiling", averages),
        ("normalized_correlation", normalized),
        ("feve", feves),
    ):
        assert row[name] == pytest.approx(np.nanmean(np.concatenate(values)), abs=1e-5)
    assert row["correlation_to_average"] > row["single_trial_correlation"]


# --- sessions that cannot be tested --------------------------------------------------------------------------------


@pytest.mark.parametrize("why", list(performance.UNTESTED))
def test_a_session_that_cannot_be_tested_enters_no_mean(empty_lab, why, caplog):
    lab = empty_lab
    lab.train("baseline", [1], dataset={"untested": {"second": why}, "n_images": 5})
    lab.tables.TestPerformance.populate()
    row = lab.tables.TestPerformance.fetch1()
    sessions = {each["data_key"]: each for each in lab.tables.TestPerformance.Session.fetch(as_dict=True)}
    tested, left_out = sessions["first"], sessions["second"]
    assert (tested["untested_because"], left_out["untested_because"]) == ("", why)
    for mean, values in (("single_trial_correlation", "single_trial_correlations"), ("feve", "feves")):
        assert row[mean] == pytest.approx(np.nanmean(tested[values]), abs=1e-6)
    assert np.isnan(left_out["single_trial_correlations"]).all()
    assert [left_out[name] for name in OF_REPEATS] == [None] * 5
    np.testing.assert_array_equal(left_out["tested_unit_ids"], planted_lab.unit_ids("second"))
    counts = [row[f"n_{name}"] for name in ("tested_neurons", "constant_neurons", "repeated_neurons")]
    assert counts == [40, 1, 40]
    assert (row["n_tested_sessions"], row["n_untested_sessions"]) == (1, 1)
    assert left_out["n_trials"] == {"one trial": 1, "no trials": 0}.get(why, 20)
    assert (
        "session 'second' is left out of the test on the tier 'test' and of its means: "
        f"{performance.UNTESTED[why]}. The other sessions are tested; to test this one, give it measured trials of "
        "that tier (meta/trials/tiers.npy in the recording)"
    ) in caplog.messages


def test_queries_say_over_what_the_means_are_and_what_was_left_out(empty_lab):
    lab = empty_lab
    assert len(performance_table(lab.tables)) == len(untested_sessions(lab.tables)) == 0
    assert len(session_performance(lab.tables)) == 0
    lab.train("baseline", [1, 2], dataset={"untested": {"second": "constant"}, "n_images": 5})
    lab.tables.TestPerformance.populate()
    (row,) = performance_table(lab.tables).to_dict("records")
    for name, column in SCORES.items():
        stored = lab.tables.TestPerformance.fetch(column)
        assert row[f"{name}_mean"] == pytest.approx(stored.mean())
        assert row[f"{name}_sd"] == pytest.approx(stored.std(ddof=1))
    found = {name: row[name] for name in ("n_models", "n_tested_neurons", "n_tested_sessions", "n_untested_sessions")}
    assert found == {"n_models": 2, "n_tested_neurons": 40, "n_tested_sessions": 1, "n_untested_sessions": 1}
    (left_out,) = untested_sessions(lab.tables).to_dict("records")
    assert (left_out["data_key"], left_out["n_trials"]) == ("second", 20)
    assert left_out["reason"] == performance.UNTESTED["constant"]
    first, second = session_performance(lab.tables).to_dict("records")
    assert (first["untested"], second["untested"]) == ("", performance.UNTESTED["constant"])
    for name, column in (
        ("test_correlation", "test_correlation_mean"),
        ("feve", "feve_mean"),
        ("average_ceiling",) * 2,
    ):
        assert first[name] == pytest.approx(row[column], abs=1e-6)
        assert np.isnan(second[name])
    assert first["single_trial_ceiling"] == pytest.approx(row["single_trial_ceiling"], abs=1e-6)


def test_no_session_that_can_be_tested(empty_lab):
    lab = empty_lab
    lab.train("baseline", [1], dataset={"untested": {"second": "constant", "first": "one trial"}})
    with pytest.raises(RecordingError) as raised:
        lab.tables.TestPerformance.populate()
    assert str(raised.value) == (
        "no session of the dataset can be tested on the tier 'test': session 'first': it has one trial, and a "
        "correlation needs two; session 'second': all its responses are constant, so they were withheld or not "
        "measured. Give at least one session measured trials of the tier 'test'; clusters and their agreement need "
        "none."
    )


def test_a_schema_of_before_the_new_columns_goes_on(empty_lab):
    lab = empty_lab
    connection, database = lab.tables.schema.connection, lab.tables.schema.database
    new = ["n_tested_sessions", "n_untested_sessions", "n_repeated_neurons", "single_trial_ceiling", "average_ceiling"]
    new += ["n_explainable_neurons", "normalized_correlation", "feve"]
    of_session = ["untested_because", *OF_REPEATS[1:]]
    for table, columns in ((lab.tables.TestPerformance, new), (lab.tables.TestPerformance.Session, of_session)):
        names = ", ".join(f"DROP COLUMN `{name}`" for name in columns)
        connection.query(f"ALTER TABLE {table.full_table_name} {names}")
    try:
        old = open_lab(database)
        old.train("baseline", [1], dataset={"untested": {"second": "constant"}, "n_images": 5})
        old.tables.TestPerformance.populate()
        row = old.tables.TestPerformance.fetch1()
        assert "feve" not in row
        session = (old.tables.TestPerformance.Session & {"data_key": "first"}).fetch1()
        assert row["single_trial_correlation"] == pytest.approx(session["single_trial_correlations"].mean(), abs=1e-6)
        assert row["n_tested_neurons"] == 40
        (summary,) = performance_table(old.tables).to_dict("records")
        assert summary["test_correlation_mean"] == pytest.approx(row["single_trial_correlation"])
        assert np.isnan(summary["feve_mean"])
        assert len(untested_sessions(old.tables)) == 0
        assert list(session_performance(old.tables)["untested"]) == ["", ""]
    finally:
        for table in (lab.tables.TestPerformance.Session, lab.tables.TestPerformance):
            connection.query(f"DROP TABLE {table.full_table_name}")


# --- recordings that changed after the training ---------------------------------------------------------------------


@pytest.fixture
def exported_again(monkeypatch):
    """Return a function after which the recording of the first session has its neurons in another order."""

    def permute(order):
        real_ids, real_responses = planted_lab.unit_ids, planted_lab.responses

        def ids(key):
            return real_ids(key)[order] if key == "first" else real_ids(key)

        def responses(key, images):
            return real_responses(key, images)[:, order] if key == "first" else real_responses(key, images)

        monkeypatch.setattr(planted_lab, "unit_ids", ids)
        monkeypatch.setattr(planted_lab, "responses", responses)

    return permute


def scores_of(lab):
    rows = lab.tables.TestPerformance.Session.fetch("data_key", "tested_unit_ids", "single_trial_correlations")
    return {key: dict(zip(ids.tolist(), scores.tolist(), strict=True)) for key, ids, scores in zip(*rows, strict=True)}


def test_neurons_in_another_order_are_tested_as_they_were_trained(empty_lab, exported_again):
    lab = empty_lab
    lab.train("baseline", [1])
    lab.tables.TestPerformance.populate()
    before = scores_of(lab)
    lab.tables.TestPerformance.delete(safemode=False)
    exported_again(np.random.default_rng(0).permutation(40))
    lab.tables.TestPerformance.populate()
    assert scores_of(lab) == before


def test_every_way_to_load_a_model_gives_its_neurons_in_the_order_of_the_training(empty_lab, exported_again):
    lab = empty_lab
    lab.train("baseline", [1])
    lab.tables.Clustering().add_entry("kmeans", 3)
    lab.tables.ClusterAssignment.populate()
    trained, expected = planted_lab.unit_ids("first"), expected_correlations(1, "first")
    exported_again(np.arange(40)[::-1])
    for loaders, model in (
        load_assigned_model(lab.tables, True),
        lab.tables.TrainedModel().load_model(),
        lab.tables.TrainedModel().load_model(include_trainer=True)[:2],
    ):
        np.testing.assert_array_equal(unit_ids_of(loaders)["first"], trained)
        responses, predictions = predict_tier(model, loaders["test"])["first"]
        np.testing.assert_allclose(performance.single_trial_correlation(responses, predictions), expected, atol=1e-5)


def test_other_neurons_are_refused_and_not_compared_by_position(empty_lab, monkeypatch):
    lab = empty_lab
    lab.train("baseline", [1])
    lab.tables.Clustering().add_entry("kmeans", 3)
    lab.tables.ClusterAssignment.populate()
    monkeypatch.setitem(planted_lab.SESSIONS, "first", 39)
    for meet in (
        lab.tables.TestPerformance.populate,
        lambda: load_assigned_model(lab.tables, True),
        lab.tables.TrainedModel().load_model,
    ):
        with pytest.raises(RecordingError) as raised:
            meet()
        assert str(raised.value).startswith(
            "session 'first' has other neurons than when the model was trained: 1 of the 40 that it was trained on are "
            "missing (unit ids 124). The recording has changed since the training"
        )


def test_weights_that_do_not_fit_and_no_unit_ids_to_say_why(empty_lab, monkeypatch):
    lab = empty_lab
    lab.train("foreign", [1])
    monkeypatch.setitem(planted_lab.SESSIONS, "first", 39)
    with pytest.raises(SettingsError) as raised:
        lab.tables.TestPerformance.populate()
    message = str(raised.value)
    assert message.startswith("the stored weights of the trained model {'model_fn': 'helpers.planted_lab.model',")
    assert message.endswith(
        "do not fit the model that its entries build now: Error in loading state_dict: Shape-mismatch for key "
        "readout.first.features. Its recordings or its model function have changed since the training: restore them, "
        "or delete the trained model, so that it is trained again."
    )


def test_image_ids_that_do_not_belong_to_the_trials_are_found_before_the_training(empty_lab, monkeypatch):
    def short(self, *args, **settings):
        real(self, *args, **settings)
        self.trial_info.frame_image_id = self.trial_info.frame_image_id[1:]

    real = planted_lab.Recording.__init__
    monkeypatch.setattr(planted_lab.Recording, "__init__", short)
    with pytest.raises(RecordingError, match=r"session 'first': meta/trials/frame_image_id.npy has shape \(19,\)"):
        empty_lab.train("baseline", [1])


def test_a_foreign_model_gets_its_unit_ids_from_the_loaders(lab):
    sessions = lab.tables.TestPerformance.Session & {"trainer_fn": "helpers.planted_lab.foreign", "data_key": "second"}
    np.testing.assert_array_equal(sessions.fetch1("tested_unit_ids"), planted_lab.unit_ids("second"))


def test_a_data_set_without_a_test_tier_says_so(empty_lab):
    lab = empty_lab
    lab.train("baseline", [1], dataset={"tiers": ["train", "validation"]})
    with pytest.raises(RecordingError) as raised:
        lab.tables.TestPerformance.populate()
    assert str(raised.value) == (
        "the dataset has no tier 'test', only 'train', 'validation'; a model is tested on trials that it has never "
        "seen."
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
    row = (lab.tables.TrainingSummary & {"trainer_fn": "helpers.planted_lab.december"}).fetch1()
    scalars = {name: value for name, value in row.items() if name not in lab.tables.TrainingSummary.primary_key}
    assert scalars == {
        "trainer_role": "december",
        "k_trained": 3,
        "strength": 1.5,
        "strength_setting": "auto",
        "gradient_ratio": 0.01,
        "locked_in": 0,
        "space_trained": "readout",
        "normalize_trained": "none",
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


def test_the_space_of_a_training_can_be_selected():
    mixture = {"space": "functional", "normalize": "l2", "covariance": np.eye(2)}
    row = summary_of({"trainer": "december", "mixture": mixture}, 0.1)
    assert (row["space_trained"], row["normalize_trained"]) == ("functional", "l2")
    row = summary_of({"trainer": "december", "mixture": {"centers": np.eye(2)}}, 0.1)  # of an earlier release
    assert (row["space_trained"], row["normalize_trained"]) == ("readout", "none")
