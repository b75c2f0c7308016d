"""Clustering, ClusterAssignment and NeuronCluster on planted readout vectors."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from december_plugin.errors import EmbeddingError, SettingsError
from december_plugin.schemas.clusters import canonical_settings, clustering_hash
from helpers import planted_lab
from helpers.lab_tables import open_lab


@pytest.fixture(scope="module")
def lab(new_schema_name):
    lab = open_lab(new_schema_name())
    lab.train("december", [1, 2])
    lab.train("baseline", [1])
    lab.train("foreign", [1])
    lab.tables.Clustering().add_entry("kmeans", 3)
    lab.tables.Clustering().add_entry("gmm", 2)
    lab.tables.ClusterAssignment.populate()
    return lab


# --- Clustering --------------------------------------------------------------------------------------------------


@pytest.fixture
def clustering(empty_lab):
    return empty_lab.tables.Clustering


def test_decembers_own_clustering_is_always_there(clustering):
    (row,) = clustering.fetch(as_dict=True)
    assert (row["method"], row["n_clusters"], row["settings"]) == ("december", 0, {})
    assert clustering().add_entry("december", skip_duplicates=True) == {"clustering_hash": row["clustering_hash"]}


def test_the_same_settings_have_the_same_key(clustering):
    key = clustering().add_entry("gmm", 5)
    assert len(key["clustering_hash"]) == 32
    same = [{"reg_covar": 1e-6}, {"reg_covar": np.float64(1e-6)}, {"description": "named"}]
    for settings in same:
        assert clustering().add_entry("gmm", np.int64(5), skip_duplicates=True, **settings) == key
    assert clustering().add_entry("gmm", 5, reg_covar=1e-5) != key
    assert clustering().add_entry("gmm", 6) != key
    assert clustering().add_entry("kmeans", 5) != key
    assert len(clustering()) == 5


def test_the_space_is_in_the_key_and_in_columns_of_its_own(clustering):
    plain = clustering().add_entry("kmeans", 4)
    assert clustering().add_entry("kmeans", 4, space="readout", normalize="none", skip_duplicates=True) == plain
    functional = clustering().add_entry("kmeans", 4, space="functional", normalize="l2")
    rows = clustering().fetch("space", "normalize", "settings", order_by="space, normalize", as_dict=True)
    assert [(row["space"], row["normalize"]) for row in rows if row["settings"]] == [
        ("readout", "none"),
        ("functional", "l2"),
    ]
    assert len(clustering & 'space = "functional"' & functional) == 1


def test_defaults_are_written_out(clustering):
    key = clustering().add_entry("gmm", 5, reg_covar=1)
    settings = (clustering & key).fetch1("settings")
    assert settings["reg_covar"] == 1.0
    assert type(settings["reg_covar"]) is float
    assert settings["seed"] == canonical_settings("gmm", {})["seed"]


def test_what_nnfabriks_hash_confuses_has_different_hashes():
    confused = [{"a": 1}, {"a": "1"}, {"a": True}, {"a": []}, {"a": ""}, {"a": None}, {"a": 1.5}]
    assert len({clustering_hash("gmm", 3, settings) for settings in confused}) == len(confused)
    assert clustering_hash("gmm", 3, {"a": 1, "b": [2]}) == clustering_hash("gmm", 3, {"b": [2], "a": 1})


def test_an_entry_twice_is_an_error_unless_asked_for(clustering):
    key = clustering().add_entry("kmeans", 4)
    with pytest.raises(SettingsError) as raised:
        clustering().add_entry("kmeans", 4)
    assert str(raised.value) == (
        f"this clustering is registered already, as clustering_hash {key['clustering_hash']!r}. Pass "
        "skip_duplicates=True to get its key."
    )


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (
            ("kmean", 3),
            {},
            "there is no method 'kmean'. Did you mean 'kmeans'? Allowed: december, gmm, hdbscan, kmeans, t_mixture, ",
        ),
        (("gmm", 3), {"space": "fnctional"}, "space is 'fnctional', which is unknown. Did you mean 'functional'?"),
        (("december",), {"space": "functional"}, "december has no setting 'space'. It has none: the trainer has them"),
        (("gmm", 3), {"reg_covr": 1}, "gmm has no setting 'reg_covr'. Did you mean 'reg_covar'? Allowed:"),
        (("december",), {"dof": 3}, "december has no setting 'dof'. It has none: the trainer has them all."),
        (("december", 3), {}, "n_clusters is 3; leave it out for the method 'december', whose trainer has it."),
        (("hdbscan", 3), {}, "n_clusters is 3; leave it out for the method 'hdbscan', which finds their number."),
        (("gmm",), {}, "the method 'gmm' needs n_clusters, an integer of at least 1."),
        (("gmm", 0), {}, "n_clusters is 0; it must be at least 1."),
        (("gmm", 2.5), {}, "n_clusters is 2.5; it must be an integer of at least 1."),
        (("gmm", 3), {"reg_covar": float("nan")}, "reg_covar is nan; it must be finite."),
        (("t_mixture", 3), {"dof": -1}, "dof"),
        (("gmm", 3), {"reg_covar": "small"}, "reg_covar is 'small'; it must be a number of at least 0."),
        (("gmm", 3), {"seed": {1}}, "seed is {1}; a setting is a number, a string, true, false, none or a list."),
        (
            ("gmm", 3),
            {"description": "x" * 256},
            "the description has 256 characters, 'xxxxxxxxxxxxxxxxxxxx'...; at most 255 are allowed.",
        ),
    ],
)
def test_bad_clusterings(clustering, arguments, settings, message):
    with pytest.raises(SettingsError) as raised:
        clustering().add_entry(*arguments, **settings)
    assert str(raised.value).startswith(message)
    assert len(clustering()) == 1


# --- ClusterAssignment -------------------------------------------------------------------------------------------


def assignments(lab, method, trainer):
    return lab.tables.ClusterAssignment & (lab.tables.Clustering & {"method": method}) & f'trainer_fn LIKE "%{trainer}"'


def test_decembers_clustering_pairs_with_december_models_only(lab):
    pairs = lab.tables.ClusterAssignment * lab.tables.Clustering.proj("method")
    assert sorted(zip(*pairs.fetch("trainer_fn", "method", "seed"), strict=True)) == [
        ("helpers.planted_lab.baseline", "gmm", 1),
        ("helpers.planted_lab.baseline", "kmeans", 1),
        ("helpers.planted_lab.december", "december", 1),
        ("helpers.planted_lab.december", "december", 2),
        ("helpers.planted_lab.foreign", "gmm", 1),
        ("helpers.planted_lab.foreign", "kmeans", 1),
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_decembers_clusters_are_those_of_its_mixture(lab, seed):
    own = assignments(lab, "december", "december") & {"seed": seed}
    order = np.random.default_rng(seed).permutation(3)
    number = np.argsort(order)  # the mixture's number of each planted type
    for session in (lab.tables.ClusterAssignment.Session & own).fetch(as_dict=True):
        key = session["data_key"]
        np.testing.assert_array_equal(session["labels"], number[planted_lab.planted_labels(seed, key)])
        np.testing.assert_array_equal(session["unit_ids"], planted_lab.unit_ids(key))
        assert session["n_session_neurons"] == planted_lab.SESSIONS[key]
        assert session["unit_ids_from"] == "recording"
        assert [session[name].dtype for name in ("unit_ids", "labels", "confidences")] == ["int64", "int16", "float32"]
        assert (session["confidences"] > 0.99).all()
    row = own.fetch1()
    assert (row["n_neurons"], row["n_clusters_used"], row["n_clusters_found"]) == (70, 3, 3)
    assert 0.99 < row["mean_confidence"] <= 1
    assert np.isfinite(row["log_likelihood"])
    assert row["converged"] is None


def test_post_hoc_methods_find_the_planted_clusters(lab):
    own = assignments(lab, "kmeans", "baseline")
    sessions = (lab.tables.ClusterAssignment.Session & own).fetch(as_dict=True)
    found = np.concatenate([session["labels"] for session in sessions])
    planted = np.concatenate([planted_lab.planted_labels(1, session["data_key"]) for session in sessions])
    assert adjusted_rand_score(planted, found) == 1
    assert own.fetch1("n_clusters_used") == 3
    assert np.isnan(own.fetch1("log_likelihood"))
    assert assignments(lab, "gmm", "baseline").fetch1("n_clusters_used", "n_clusters_found") == (2, 2)
    assert np.isfinite(assignments(lab, "gmm", "baseline").fetch1("log_likelihood"))
    assert assignments(lab, "gmm", "baseline").fetch1("converged") == 1


def test_models_of_other_trainers_get_their_unit_ids_from_the_loaders(lab):
    own = assignments(lab, "kmeans", "foreign")
    session = (lab.tables.ClusterAssignment.Session & own & {"data_key": "first"}).fetch1()
    np.testing.assert_array_equal(session["unit_ids"], planted_lab.unit_ids("first"))
    assert session["unit_ids_from"] == "recording"


def test_without_unit_ids_anywhere_neurons_are_counted(empty_lab):
    lab = empty_lab
    lab.train("foreign", [1], dataset={"with_unit_ids": False})
    lab.tables.Clustering().add_entry("kmeans", 3)
    lab.tables.ClusterAssignment.populate()
    session = (lab.tables.ClusterAssignment.Session & {"data_key": "second"}).fetch1()
    np.testing.assert_array_equal(session["unit_ids"], np.arange(30))
    assert session["unit_ids_from"] == "position"


def test_a_december_model_without_a_mixture_is_an_error(empty_lab):
    lab = empty_lab
    lab.train("without_mixture", [1])
    with pytest.raises(EmbeddingError) as raised:
        lab.tables.ClusterAssignment.populate()
    assert str(raised.value) == (
        "the trainer stored no mixture in its output['mixture'], so no clusters can be read. Use a post hoc "
        "clustering for this model, or the december_trainer."
    )
    assert len(lab.tables.ClusterAssignment()) == len(lab.tables.ClusterAssignment.Session()) == 0


def test_a_readout_that_knows_its_own_vectors_is_asked(empty_lab):
    lab = empty_lab
    lab.train("custom_readout", [1], model="custom_model")
    lab.tables.Clustering().add_entry("kmeans", 3)
    lab.tables.ClusterAssignment.populate()
    (session,) = (lab.tables.ClusterAssignment.Session & {"data_key": "second"}).fetch("labels", as_dict=True)
    assert adjusted_rand_score(planted_lab.planted_labels(1, "second"), session["labels"]) == 1


def test_after_a_failed_insert_no_half_assignment_is_left(empty_lab, monkeypatch):
    lab = empty_lab
    lab.train("december", [1])

    def fail(*_, **__):
        raise RuntimeError("no room")

    monkeypatch.setattr(lab.tables.ClusterAssignment.Session, "insert", fail)
    lab.tables.ClusterAssignment.populate(reserve_jobs=True, suppress_errors=True)
    assert len(lab.tables.ClusterAssignment()) == 0
    assert lab.tables.schema.jobs.fetch1("status", "error_message") == ("error", "RuntimeError: no room")


# --- NeuronCluster -----------------------------------------------------------------------------------------------


def test_rows_are_written_on_demand_and_once(lab):
    neurons = lab.tables.NeuronCluster
    chosen = assignments(lab, "december", "december") & {"seed": 1}
    assert neurons().fill(chosen) == 70
    assert neurons().fill(chosen) == 0
    assert len(neurons()) == 2
    rows = (neurons.Neuron * neurons.proj("data_key") & {"data_key": "second"}).fetch(as_dict=True, order_by="unit_id")
    session = (lab.tables.ClusterAssignment.Session & chosen & {"data_key": "second"}).fetch1()
    assert [row["unit_id"] for row in rows] == session["unit_ids"].tolist()
    assert [row["label"] for row in rows] == session["labels"].tolist()
    np.testing.assert_allclose([row["confidence"] for row in rows], session["confidences"], rtol=1e-6)


def test_one_neuron_is_found_by_its_index(lab):
    lab.tables.NeuronCluster().fill()
    query = f"EXPLAIN SELECT label FROM {lab.tables.NeuronCluster.Neuron.full_table_name} WHERE unit_id = 10"
    (plan,) = lab.tables.schema.connection.query(query, as_dict=True).fetchall()
    assert plan["key"] == "unit_id"


def test_deleting_an_assignment_deletes_its_rows(empty_lab):
    lab = empty_lab
    lab.train("december", [1, 2])
    lab.tables.ClusterAssignment.populate()
    lab.tables.SeedAgreement.populate()
    assert lab.tables.NeuronCluster().fill() == 140
    (lab.tables.ClusterAssignment & {"seed": 1}).delete()
    assert len(lab.tables.NeuronCluster.Neuron()) == 70
    assert len(lab.tables.SeedAgreement()) == 0
    lab.tables.TrainedModel.delete()
    assert len(lab.tables.NeuronCluster.Neuron()) == 0


def test_rows_that_another_process_wrote_meanwhile_are_left_alone(empty_lab, monkeypatch):
    tables = empty_lab.tables
    empty_lab.train("december", [1])
    tables.ClusterAssignment.populate()
    insert1 = tables.NeuronCluster().insert1

    def after_somebody_else(self, row):
        monkeypatch.undo()
        insert1(row)
        insert1(row)

    # The other's row is undone with the transaction here, so the session is written by the next call.
    monkeypatch.setattr(tables.NeuronCluster, "insert1", after_somebody_else)
    assert tables.NeuronCluster().fill({"method": "december"}) in (30, 40)
    assert tables.NeuronCluster().fill() in (30, 40)
    assert len(tables.NeuronCluster.Neuron()) == 70
