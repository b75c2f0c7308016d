"""SeedAgreement, KnownTypes and LabelAgreement: expected values are scikit-learn's on the planted labels."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
from datajoint.hash import key_hash

from december_plugin.errors import SettingsError
from december_plugin.schemas.recently_used import RecentlyUsed
from helpers import planted_lab
from helpers.lab_tables import open_lab, truth

MEASURES = {
    "adjusted_rand_index": reference.adjusted_rand_score,
    "fowlkes_mallows": reference.fowlkes_mallows_score,
    "homogeneity": reference.homogeneity_score,
    "completeness": reference.completeness_score,
    "v_measure": reference.v_measure_score,
}
SEEDS = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def lab(new_schema_name):
    lab = open_lab(new_schema_name())
    lab.train("december", SEEDS)
    lab.train("december", SEEDS[:2], n_moved=0)
    lab.tables.ClusterAssignment.populate()
    lab.tables.SeedAgreement.populate()
    lab.tables.KnownTypes().add_entry("planted", truth(), source="planted_lab")
    lab.tables.LabelAgreement.populate()
    return lab


def planted(seed: int, n_moved: int = 4) -> np.ndarray:
    return np.concatenate([planted_lab.planted_labels(seed, key, n_moved) for key in planted_lab.SESSIONS])


def by_moved(lab, n_moved: int):
    configs = lab.nnfabrik.Trainer.fetch("trainer_hash", "trainer_config")
    return {"trainer_hash": next(h for h, config in zip(*configs, strict=True) if config.get("n_moved", 4) == n_moved)}


# --- SeedAgreement -----------------------------------------------------------------------------------------------


def test_every_pair_of_seeds_of_a_configuration_is_there_once(lab):
    pairs = (lab.tables.SeedAgreement & by_moved(lab, 4)).fetch("seed_a", "seed_b", order_by=("seed_a", "seed_b"))
    assert list(zip(*pairs, strict=True)) == list(itertools.combinations(SEEDS, 2))
    assert (lab.tables.SeedAgreement & by_moved(lab, 0)).fetch1("seed_a", "seed_b") == (1, 2)


def test_measures_are_those_of_the_planted_labels(lab):
    for row in (lab.tables.SeedAgreement & by_moved(lab, 4)).fetch(as_dict=True):
        a, b = planted(row["seed_a"]), planted(row["seed_b"])
        assert {name: row[name] for name in MEASURES} == pytest.approx({n: f(a, b) for n, f in MEASURES.items()})
        assert row["n_neurons"] == 70
    equal = (lab.tables.SeedAgreement & by_moved(lab, 0)).fetch1()
    assert [equal[name] for name in MEASURES] == [1.0] * 5


def test_summaries_are_queries_over_the_pairs(lab):
    summary = lab.tables.SeedAgreement().summary(by_moved(lab, 4)).fetch1()
    expected = [reference.adjusted_rand_score(planted(a), planted(b)) for a, b in itertools.combinations(SEEDS, 2)]
    assert summary["agreement_mean"] == pytest.approx(np.mean(expected))
    assert summary["agreement_sd"] == pytest.approx(np.std(expected, ddof=1))
    assert summary["n_pairs"] == 6
    single = lab.tables.SeedAgreement().summary(by_moved(lab, 0), measure="v_measure").fetch1()
    assert (single["agreement_mean"], single["n_pairs"]) == (1.0, 1)
    assert np.isnan(single["agreement_sd"] or np.nan)
    with pytest.raises(
        SettingsError, match=r"there is no measure 'ari'\. Allowed: adjusted_rand_index, fowlkes_mallows"
    ):
        lab.tables.SeedAgreement().summary(measure="ari")


def test_a_seed_added_later_is_not_missed(empty_lab):
    lab = empty_lab
    lab.train("december", [5, 9])
    lab.tables.ClusterAssignment.populate()
    lab.tables.SeedAgreement.populate()
    assert len(lab.tables.SeedAgreement()) == 1
    lab.train("december", [7])
    lab.tables.ClusterAssignment.populate()
    assert len(lab.tables.SeedAgreement.key_source - lab.tables.SeedAgreement) == 2
    lab.tables.SeedAgreement.populate()
    assert sorted(zip(*lab.tables.SeedAgreement.fetch("seed_a", "seed_b"), strict=True)) == [(5, 7), (5, 9), (7, 9)]
    assert lab.tables.SeedAgreement().summary().fetch1("n_pairs") == 3


def test_an_assignment_that_is_computed_anew_is_not_taken_from_memory(empty_lab):
    lab = empty_lab
    lab.train("december", [1, 2])
    tables = lab.tables
    tables.ClusterAssignment.populate()
    tables.SeedAgreement.populate()
    before = tables.SeedAgreement.fetch1("adjusted_rand_index")
    (tables.ClusterAssignment & {"seed": 2}).delete()
    key = (tables.TrainedModel & {"seed": 2}).fetch1("KEY")
    output = (tables.TrainedModel & key).fetch1("output")
    output["mixture"]["centers"] = output["mixture"]["centers"][[0, 0, 1]] * [[1], [1.001], [1]]
    tables.TrainedModel.update1({**key, "output": output})
    tables.ClusterAssignment.populate()
    tables.SeedAgreement.populate()
    assert tables.SeedAgreement.fetch1("adjusted_rand_index") < before - 0.1


def test_only_neurons_of_both_seeds_are_compared(empty_lab):
    lab = empty_lab
    lab.train("december", [1, 2])
    tables = lab.tables
    tables.ClusterAssignment.populate()
    key = (tables.ClusterAssignment.Session & {"seed": 2, "data_key": "first"}).fetch1("KEY")
    tables.ClusterAssignment.Session.update1({**key, "unit_ids": planted_lab.unit_ids("first")[::-1] + 3})
    tables.ClusterAssignment.update1({**{n: key[n] for n in tables.ClusterAssignment.primary_key}, "labels_md5": "x"})
    tables.SeedAgreement.populate()
    row = tables.SeedAgreement.fetch1()
    a = np.concatenate([planted_lab.planted_labels(1, "first")[1:], planted_lab.planted_labels(1, "second")])
    b = np.concatenate([planted_lab.planted_labels(2, "first")[::-1][:-1], planted_lab.planted_labels(2, "second")])
    assert row["n_neurons"] == 69
    assert row["adjusted_rand_index"] == pytest.approx(reference.adjusted_rand_score(a, b))


def test_positions_are_not_compared_with_unit_ids(empty_lab):
    lab = empty_lab
    lab.train("december", [1, 2])
    lab.tables.ClusterAssignment.populate()
    key = (lab.tables.ClusterAssignment.Session & {"seed": 2, "data_key": "first"}).fetch1("KEY")
    lab.tables.ClusterAssignment.Session.update1({**key, "unit_ids_from": "position"})
    master = {name: key[name] for name in lab.tables.ClusterAssignment.primary_key}
    lab.tables.ClusterAssignment.update1({**master, "labels_md5": "y"})
    with pytest.raises(SettingsError) as raised:
        lab.tables.SeedAgreement.populate()
    assert str(raised.value) == (
        "session 'first' has unit ids for only one of the seeds 1 and 2, so its neurons cannot be "
        "matched. Train both seeds on the same dataset."
    )


def test_pairs_whose_numbers_read_the_same_are_different_jobs(empty_lab):
    lab = empty_lab
    lab.train("december", [1, 11, 23, 123])
    agreement = lab.tables.SeedAgreement
    lab.tables.ClusterAssignment.populate()
    keys = {(key["seed_a"], key["seed_b"]): key for key in agreement.key_source.fetch("KEY")}
    assert key_hash(keys[1, 123]) == key_hash(keys[11, 23])  # DataJoint's own
    jobs = lab.tables.schema.jobs
    assert jobs.reserve(agreement.table_name, agreement()._job_key(keys[1, 123]))
    assert jobs.fetch1("key") == keys[1, 123]
    agreement.populate(reserve_jobs=True)
    assert len(agreement()) == 5
    assert len(agreement & keys[11, 23]) == 1
    assert len(agreement & keys[1, 123]) == 0


def test_recently_used_entries_stay():
    made = []
    recent = RecentlyUsed(2)
    for name in ("a", "b", "a", "c", "a", "b"):
        recent.get(name, lambda name=name: made.append(name))
    assert made == ["a", "b", "c", "b"]
    assert len(recent) == 2
    by_length = RecentlyUsed(4, len)
    for text in ("one", "two", "x", "longer"):
        by_length.get(text, lambda text=text: text)
        assert len(by_length) == (2 if text == "x" else 1)


# --- KnownTypes and LabelAgreement -------------------------------------------------------------------------------


def test_agreement_with_known_types(lab):
    for row in (lab.tables.LabelAgreement & by_moved(lab, 4)).fetch(as_dict=True):
        types = np.concatenate([planted_lab.types(key) for key in planted_lab.SESSIONS])
        expected = {name: measure(types, planted(row["seed"])) for name, measure in MEASURES.items()}
        assert {name: row[name] for name in MEASURES} == pytest.approx(expected)
        assert row["n_labelled"] == 70
    assert set((lab.tables.LabelAgreement & by_moved(lab, 0)).fetch("adjusted_rand_index")) == {1.0}


def test_only_neurons_of_known_type_count(lab):
    units = planted_lab.unit_ids("first")
    names = np.array(["PV", "SST", "VIP"], dtype=object)[planted_lab.types("first")]
    names[::2] = None
    names[1], names[3], names[5] = np.nan, "", -1
    lab.tables.KnownTypes().add_entry("genetic", {"first": (units[::-1], names[::-1]), "elsewhere": ([1], ["PV"])})
    row = (lab.tables.KnownTypes & {"types_name": "genetic"}).fetch1()
    assert (row["type_names"], row["n_typed_neurons"]) == (["PV", "SST", "VIP"], 18)
    lab.tables.LabelAgreement.populate({"types_name": "genetic"})
    (found,) = (lab.tables.LabelAgreement & {"types_name": "genetic", "seed": 3}).fetch(as_dict=True)
    known = np.arange(7, 40, 2)
    expected = reference.adjusted_rand_score(
        planted_lab.types("first")[known], planted_lab.planted_labels(3, "first")[known]
    )
    assert found["n_labelled"] == 17
    assert found["adjusted_rand_index"] == pytest.approx(expected)


def test_types_of_other_sessions_make_no_entries(lab):
    lab.tables.KnownTypes().add_entry("elsewhere", {"third": ([1, 2], [0, 1])})
    assert len(lab.tables.LabelAgreement.key_source & {"types_name": "elsewhere"}) == 0


def test_types_of_no_common_neuron_are_an_error(lab):
    lab.tables.KnownTypes().add_entry("shifted", {"first": ([1000, 2000], [0, 1])})
    with pytest.raises(SettingsError) as raised:
        lab.tables.LabelAgreement.populate({"types_name": "shifted"})
    assert str(raised.value).startswith(
        "the known types 'shifted' have no neuron in common with this assignment, although they share the sessions "
        "first:"
    )
    (lab.tables.KnownTypes & {"types_name": "shifted"}).delete()


def test_the_same_types_again(lab):
    types = lab.tables.KnownTypes()
    assert types.add_entry("planted", truth(), skip_duplicates=True) == {"types_name": "planted"}
    assert types.add_entry("planted", {k: (u, t.astype(float)) for k, (u, t) in truth().items()}, skip_duplicates=True)
    with pytest.raises(SettingsError) as raised:
        types.add_entry("planted", truth())
    assert str(raised.value) == "known types named 'planted' exist already. Choose another name."
    other = {key: (units, (kinds + 1) % 3) for key, (units, kinds) in truth().items()}
    with pytest.raises(SettingsError, match="known types named 'planted' exist already"):
        types.add_entry("planted", other, skip_duplicates=True)


@pytest.mark.parametrize(
    ("name", "types", "message"),
    [
        ("", {"a": ([1], [1])}, "name is ''; it must be a string of 1 to 64 characters."),
        ("x", {}, "types must be a mapping of data key to (unit_ids, types) with at least one session."),
        (
            "x",
            {"a": ([1, 2], [1])},
            "session 'a' has unit ids of shape (2,) and types of shape (1,); both must be (n,)",
        ),
        ("x", {"a": ([1.5], [1])}, "the unit ids of session 'a' are float64; they must be integers."),
        ("x", {"a": ([4, 4], [1, 2])}, "unit 4 of session 'a' has more than one type."),
        (
            "x",
            {"a": ([1, 2], [None, -1])},
            "no neuron of 'x' has a known type (None, NaN, -1 and '' count as unknown).",
        ),
    ],
)
def test_bad_types(lab, name, types, message):
    before = len(lab.tables.KnownTypes())
    with pytest.raises(SettingsError) as raised:
        lab.tables.KnownTypes().add_entry(name, types)
    assert str(raised.value).startswith(message)
    assert len(lab.tables.KnownTypes()) == before


def test_types_come_out_of_a_data_frame(lab):
    frame = pd.DataFrame({"unit": [7, 10, 13], "type": [2.0, np.nan, 0.0]})
    key = lab.tables.KnownTypes().add_entry("frame", {"first": (frame["unit"], frame["type"])})
    assert (lab.tables.KnownTypes & key).fetch1("type_names") == ["0", "2"]
    session = (lab.tables.KnownTypes.Session & key).fetch1()
    assert (session["typed_unit_ids"].tolist(), session["type_codes"].tolist()) == ([7, 13], [1, 0])
