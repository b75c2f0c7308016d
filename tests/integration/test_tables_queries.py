"""The queries a lab makes, on tables with known content."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from december_plugin.errors import SettingsError
from december_plugin.results import agreement as queries
from december_plugin.results import assignments
from december_plugin.schemas.restrictions import fits, of_trainers
from helpers import planted_lab
from helpers.lab_tables import open_lab, truth

SEEDS = [1, 2, 3]


@pytest.fixture(scope="module")
def lab(new_schema_name):
    lab = open_lab(new_schema_name())
    lab.train("december", SEEDS)
    lab.train("baseline", SEEDS)
    lab.train("baseline", SEEDS[:2], n_moved=20)
    lab.train("baseline", SEEDS[:1], control=True)
    lab.tables.Clustering().add_entry("kmeans", 3)
    lab.tables.KnownTypes().add_entry("planted", truth())
    for table in lab.tables.computed:
        table.populate()
    return lab


def trainer(lab, name: str, **config):
    """Return the key of one of the trainers."""
    rows = lab.nnfabrik.Trainer.fetch("trainer_fn", "trainer_hash", "trainer_config", as_dict=True)
    (row,) = [r for r in rows if r["trainer_fn"] == f"helpers.planted_lab.{name}" and r["trainer_config"] == config]
    return {"trainer_hash": row["trainer_hash"], "trainer_fn": row["trainer_fn"]}


def planted(seed: int, n_moved: int = 4) -> np.ndarray:
    return np.concatenate([planted_lab.planted_labels(seed, key, n_moved) for key in planted_lab.SESSIONS])


# --- agreement by K and method -----------------------------------------------------------------------------------


def test_agreement_of_every_configuration(lab):
    table = queries.agreement_table(lab.tables)
    columns = [table[name] for name in ("method", "trainer_role", "n_models", "n_pairs")]
    assert sorted(zip(*columns, strict=True)) == [
        ("december", "december", 3, 3),
        ("kmeans", "baseline", 2, 1),
        ("kmeans", "baseline", 3, 3),
        ("kmeans", "control", 1, 0),
    ]
    assert set(table["n_clusters"]) == {3}
    own = table[table["method"] == "december"].iloc[0]
    pairs = [adjusted_rand_score(planted(a), planted(b)) for a, b in itertools.combinations(SEEDS, 2)]
    types = [adjusted_rand_score(planted(seed, 0), planted(seed)) for seed in SEEDS]
    test = (lab.tables.TestPerformance & trainer(lab, "december")).fetch("single_trial_correlation")
    assert own["agreement_mean"] == pytest.approx(np.mean(pairs))
    assert own["agreement_sd"] == pytest.approx(np.std(pairs, ddof=1))
    assert own["types_agreement_mean"] == pytest.approx(np.mean(types))
    assert own["types_agreement_sd"] == pytest.approx(np.std(types, ddof=1))
    assert own["test_correlation_mean"] == pytest.approx(test.mean())
    assert own["test_correlation_sd"] == pytest.approx(test.std(ddof=1))
    assert own["strength"] == pytest.approx(2.5)
    assert own["strength_setting"] == "auto"
    assert own["trainer_comment"] == "helpers.planted_lab.december {}"
    assert own["trainer_fn"] == "helpers.planted_lab.december"


def test_the_control_stands_beside_with_what_there_is(lab):
    table = queries.agreement_table(lab.tables, trainer(lab, "baseline", control=True))
    (control,) = table.itertuples()
    assert (control.trainer_role, control.n_models, control.n_pairs) == ("control", 1, 0)
    assert np.isnan(control.agreement_mean)
    assert control.types_agreement_mean == pytest.approx(adjusted_rand_score(planted(1, 0), planted(1)))
    assert np.isnan(control.types_agreement_sd)


def test_restrictions_and_other_measures(lab):
    table = queries.agreement_table(lab.tables, {"method": "kmeans"}, measure="v_measure", types_name="planted")
    assert set(table["method"]) == {"kmeans"}
    assert len(table) == 3
    assert len(queries.agreement_table(lab.tables, lab.tables.ClusterAssignment & {"seed": 3})) == 2


def test_empty_tables_give_an_empty_frame_with_all_columns(lab, empty_lab):
    empty = queries.agreement_table(empty_lab.tables)
    full = queries.agreement_table(lab.tables)
    assert len(empty) == 0
    assert list(empty.columns) == list(full.columns)


def test_what_is_not_computed_yet_is_missing(empty_lab):
    lab = empty_lab
    lab.train("december", [1])
    lab.tables.ClusterAssignment.populate()
    (row,) = queries.agreement_table(lab.tables).to_dict("records")
    assert (row["method"], row["n_models"], row["n_pairs"]) == ("december", 1, 0)
    missing = ("trainer_role", "strength", "agreement_mean", "types_agreement_mean", "test_correlation_mean")
    assert all(value is None or np.isnan(value) for value in (row[name] for name in missing))


def test_agreement_errors(lab):
    with pytest.raises(SettingsError, match=r"^there is no measure 'ari'\. Allowed: adjusted_rand_index, fowlkes"):
        queries.agreement_table(lab.tables, measure="ari")
    with pytest.raises(SettingsError, match=r"^there are no known types named 'x'\. Known: planted\.$"):
        queries.agreement_table(lab.tables, types_name="x")
    key = lab.tables.KnownTypes().add_entry("second set", {"elsewhere": ([1], [1])})
    with pytest.raises(SettingsError) as raised:
        queries.agreement_table(lab.tables)
    assert str(raised.value) == (
        "there are several sets of known types: planted, second set. Name one of them with --types, in Python with "
        "types_name."
    )
    (lab.tables.KnownTypes & key).delete()


def test_summary_query(lab):
    summary = lab.tables.SeedAgreement().summary(trainer(lab, "baseline", n_moved=20))
    assert summary.fetch1("n_pairs") == 1
    assert summary.fetch1("agreement_mean") == pytest.approx(adjusted_rand_score(planted(1, 20), planted(2, 20)))


# --- best configuration ------------------------------------------------------------------------------------------


def test_best_configuration_at_equal_correlation(lab):
    table = queries.agreement_table(lab.tables).dropna(subset=["agreement_mean"])
    gaps = table["test_correlation_mean"].max() - table["test_correlation_mean"]
    everything = queries.best_configurations(lab.tables, tolerance=10)
    assert everything["rank"].tolist() == [1, 2, 3]
    assert everything["agreement_mean"].is_monotonic_decreasing
    assert everything["test_below_best"].min() == 0
    exact = queries.best_configurations(lab.tables, tolerance=0)
    assert len(exact) == (gaps == 0).sum()
    # Moving 20 of 70 neurons costs correlation: within a small tolerance such a configuration is no candidate.
    near = queries.best_configurations(lab.tables, tolerance=0.02)
    assert trainer(lab, "baseline", n_moved=20)["trainer_hash"] not in set(near["trainer_hash"])


def test_tolerance_must_not_be_negative(lab):
    with pytest.raises(SettingsError) as raised:
        queries.best_configurations(lab.tables, tolerance=-0.1)
    assert str(raised.value) == "tolerance is -0.1; it must be a difference of correlations of at least 0."


# --- neurons -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_rows", [False, True])
def test_the_cluster_of_one_neuron_in_all_models(lab, in_rows):
    if in_rows:
        lab.tables.NeuronCluster().fill({"seed": 2})
    frame = assignments.neuron_clusters(lab.tables, "second", 19)  # position 4
    assert len(frame) == 9
    own = frame[frame["method"] == "december"]
    for row in own.itertuples():
        number = np.argsort(np.random.default_rng(row.seed).permutation(3))
        assert row.cluster == number[planted_lab.planted_labels(row.seed, "second")[4]]
    assert own["seed"].tolist() == SEEDS
    assert (own["confidence"] > 0.99).all()
    assert len(assignments.neuron_clusters(lab.tables, "second", 19, {"seed": 2})) == 3


def test_a_neuron_that_nobody_has(lab):
    with pytest.raises(SettingsError) as raised:
        assignments.neuron_clusters(lab.tables, "second", 20)
    assert str(raised.value) == (
        "no assignment has unit 20 of session 'second'. Sessions with assignments: first, second."
    )


def test_stable_neurons(lab):
    frame = assignments.stable_neurons(lab.tables, trainer(lab, "december"))
    assert len(frame) == 70
    assert set(frame["n_seeds"]) == {3}
    first = frame[frame["data_key"] == "first"].sort_values("unit_id", ignore_index=True)
    # Seeds 1, 2 and 3 move the neurons 4 to 7, 8 to 11 and 12 to 15: each of these by one of three seeds.
    moved = np.isin(np.arange(40), np.arange(4, 16))
    np.testing.assert_allclose(first["stability"], np.where(moved, 2 / 3, 1))
    majority = first["cluster"].to_numpy()
    assert adjusted_rand_score(planted_lab.types("first"), majority) == 1
    assert frame.attrs["reference_seed"] in SEEDS
    always = assignments.stable_neurons(lab.tables, trainer(lab, "december"), minimum=1)
    assert set(always["stability"]) == {1}
    assert len(always) == len(frame) - (frame["stability"] < 1).sum()


def test_stability_needs_one_configuration(lab):
    with pytest.raises(SettingsError) as raised:
        assignments.stable_neurons(lab.tables, {"seed": 1})
    assert str(raised.value) == (
        "the restriction leaves 4 assignments of 4 configurations; it must leave at least two seeds of one "
        "configuration. agreement_table() lists the configurations with their keys."
    )


def test_one_assignment_as_a_frame(lab):
    frame = assignments.assignment_frame(lab.tables, {"method": "december", "n_clusters": 3, "seed": 1})
    assert list(frame.columns) == ["data_key", "unit_id", "cluster", "confidence"]
    assert adjusted_rand_score(planted(1), frame["cluster"]) == 1
    with pytest.raises(SettingsError) as raised:
        assignments.assignment_frame(lab.tables, {"seed": 1})
    assert str(raised.value) == (
        "the restriction leaves more than one assignment; it must leave exactly one. Add the seed, or use a key."
    )
    with pytest.raises(SettingsError, match="the restriction leaves no assignment"):
        assignments.assignment_frame(lab.tables, {"seed": 99})


def test_the_model_behind_an_assignment(lab):
    key = (lab.tables.ClusterAssignment & trainer(lab, "december") & {"seed": 2}).fetch1("KEY")
    loaders, model = assignments.load_assigned_model(lab.tables, key)
    assert sorted(loaders["test"]) == ["first", "second"]
    assert not model.training
    vectors = model.readout["first"].features[0, :, 0].T.detach().numpy()
    np.testing.assert_array_equal(vectors, planted_lab.planted_vectors(2, "first").astype(np.float32))


def test_patterns_of_functions_mean_the_same_in_sql_and_in_python(lab):
    names = ["lab.my_trainer", "lab.myXtrainer", "Lab.my_trainer", "lab.my_trainer2", "lab.a|b%", "lab.größe", "x'y"]
    patterns = [
        "lab.my_trainer",
        "lab.my_*",
        "*.my_trainer",
        "*_*",
        "*",
        "lab.a|b%",
        "lab.%",
        "LAB.*",
        "lab.gr_*",
        "x'y",
    ]
    patterns += ["lab.größe", "*ö*", "*\\*", ""]
    rows = " UNION ALL ".join(f"SELECT {name!r} AS trainer_fn" for name in names)
    connection = lab.tables.schema.connection
    for pattern in patterns:
        query = f"SELECT trainer_fn FROM ({rows}) AS found WHERE {of_trainers([pattern])}".replace("%", "%%")
        found = [name for (name,) in connection.query(query).fetchall()]
        assert found == [name for name in names if fits(name, [pattern])], pattern


def test_trainers_that_look_like_those_of_a_pattern_are_other_ones(lab):
    trained = lab.tables.TrainedModel
    assert len(trained & of_trainers(["helpers.planted_lab.dec*r"])) == 3
    assert len(trained & of_trainers(["helpers.planted_lab.decembe_", "Helpers.*"])) == 0
