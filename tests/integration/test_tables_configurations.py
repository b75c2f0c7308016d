"""ConfigurationAgreement: pairs of configurations of the same neurons, means over pairs of their seeds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sklearn.metrics as reference

from december_plugin.errors import SettingsError
from december_plugin.findings.selection import shown_clustering
from december_plugin.report.tables import configurations_table_of
from december_plugin.results import configuration_table
from december_plugin.schemas import configurations
from december_plugin.schemas.configurations import pair_members, seed_pairs
from helpers import planted_lab
from helpers.lab_tables import open_lab


@pytest.fixture(scope="module")
def lab(new_schema_name):
    lab = open_lab(new_schema_name())
    lab.train("december", [1, 2, 3])
    lab.train("december", [1, 2], n_moved=0)
    lab.tables.ClusterAssignment.populate()
    lab.tables.ConfigurationAgreement.populate()
    return lab


def rows_of(tables, *, own: bool = False) -> list[dict]:
    """Return the stored entries of pairs of two configurations, or of one with itself, with what the second one is."""
    rows = (tables.ConfigurationAgreement * tables.ConfigurationPair).fetch(as_dict=True)
    return [row for row in rows if all(row[name] == row[f"{name}_b"] for name in configurations.DIFFERS) == own]


def planted(seed: int, n_moved: int) -> np.ndarray:
    return np.concatenate([planted_lab.planted_labels(seed, key, n_moved) for key in planted_lab.SESSIONS])


def test_a_pair_is_the_mean_over_pairs_of_different_seeds(lab):
    (row,) = rows_of(lab.tables)
    configs = dict(zip(*lab.nnfabrik.Trainer.fetch("trainer_hash", "trainer_config"), strict=True))
    moved = configs[row["trainer_hash"]].get("n_moved", 4)
    pairs = [tuple(pair) for pair in row["seed_pairs"].tolist()]
    assert len(set(pairs)) == row["n_seed_pairs"] == 4  # of 6, of which two are of the same seed
    assert all(a != b for a, b in pairs)
    expected = [reference.adjusted_rand_score(planted(a, moved), planted(b, 4 - moved)) for a, b in pairs]
    assert row["adjusted_rand_index"] == pytest.approx(np.mean(expected))
    assert row["adjusted_rand_index_sd"] == pytest.approx(np.std(expected, ddof=1))
    assert row["n_common_neurons"] == 70
    for name in ("distance_correlation", "cosine_correlation", "linear_cka"):
        assert 0 < row[name] <= 1


def test_similarity_is_that_of_the_vectors_in_the_space_of_the_clustering(lab):
    (row,) = rows_of(lab.tables)
    values = []
    for a, b in row["seed_pairs"].tolist():
        vectors = []
        for seed, trainer_hash in ((a, row["trainer_hash"]), (b, row["trainer_hash_b"])):
            key = {"seed": seed, "trainer_hash": trainer_hash}
            moved = (lab.nnfabrik.Trainer & key).fetch1("trainer_config").get("n_moved", 4)
            of_sessions = [planted_lab.planted_vectors(seed, name, moved) for name in sorted(planted_lab.SESSIONS)]
            vectors.append(np.concatenate(of_sessions))
        i, j = np.triu_indices(len(vectors[0]), k=1)
        distances = [np.linalg.norm(each[i] - each[j], axis=1) for each in vectors]
        values.append(np.corrcoef(*distances)[0, 1])
    assert row["distance_correlation"] == pytest.approx(np.mean(values), abs=1e-6)


def test_the_table_names_what_differs(lab):
    tables = lab.tables
    tables.SeedAgreement.populate()
    table = configuration_table(tables)
    (row,) = rows_of(tables)
    comments = dict(zip(*lab.nnfabrik.Trainer.fetch("trainer_hash", "trainer_comment"), strict=True))
    pair = table[table["name_a"] != table["name_b"]].iloc[0]
    names = [comments[row["trainer_hash"]], comments[row["trainer_hash_b"]]]
    assert [pair["name_a"], pair["name_b"]] == [
        name[: len(shown)] for name, shown in zip(names, pair[["name_a", "name_b"]], strict=True)
    ]
    assert pair["adjusted_rand_index"] == row["adjusted_rand_index"]
    assert (pair["method"], pair["n_clusters"], pair["n_common_neurons"], pair["space"]) == (
        "december",
        3,
        70,
        "readout",
    )
    within = table[table["name_a"] == table["name_b"]]
    assert sorted(within["n_seed_pairs"]) == [1, 3]
    assert within["adjusted_rand_index"].max() == 1.0
    assert within.groupby("n_seed_pairs")["fowlkes_mallows"].first().to_dict() == {
        len(agreed): pytest.approx(np.mean(agreed))
        for _, agreed in tables.SeedAgreement.proj("fowlkes_mallows")
        .fetch(format="frame")
        .groupby("trainer_hash")["fowlkes_mallows"]
    }
    assert configuration_table(tables, {"trainer_hash": row["trainer_hash"]}).shape[0] == 1
    rows, title = shown_clustering(table)
    assert (len(rows), title) == (3, "DECEMber, K = 3")


def test_the_embeddings_of_a_configuration_are_compared_between_its_seeds(lab):
    lab.tables.SeedAgreement.populate()
    table = configuration_table(lab.tables)
    rows = {row["n_seed_pairs"]: row for row in rows_of(lab.tables, own=True)}
    assert {number: row["seed_pairs"].tolist() for number, row in rows.items()} == {
        1: [[1, 2]],
        3: [[1, 2], [2, 3], [1, 3]],
    }
    i, j = np.triu_indices(70, k=1)
    for number, row in rows.items():
        moved = (lab.nnfabrik.Trainer & row).fetch1("trainer_config").get("n_moved", 4)
        seeds = range(1, 4 if number == 3 else 3)
        vectors = {
            seed: np.concatenate(
                [planted_lab.planted_vectors(seed, name, moved) for name in sorted(planted_lab.SESSIONS)]
            )
            for seed in seeds
        }
        values = [
            np.corrcoef(*[np.linalg.norm(vectors[seed][i] - vectors[seed][j], axis=1) for seed in pair])[0, 1]
            for pair in itertools.combinations(seeds, 2)
        ]
        (shown,) = table[(table["name_a"] == table["name_b"]) & (table["n_seed_pairs"] == number)].to_dict("records")
        assert shown["distance_correlation"] == row["distance_correlation"] == pytest.approx(np.mean(values), abs=1e-6)
        assert (shown["cosine_correlation"], shown["linear_cka"]) == (row["cosine_correlation"], row["linear_cka"])
        assert shown["n_common_neurons"] == 70
        agreement = lab.tables.SeedAgreement & {name: row[name] for name in configurations.DIFFERS}
        assert row["adjusted_rand_index"] == pytest.approx(np.mean(agreement.fetch("adjusted_rand_index")))


def test_the_space_of_december_is_that_of_its_mixtures(lab):
    lab.tables.TrainingSummary.populate()
    moved = (lab.nnfabrik.Trainer & "trainer_comment LIKE '%n_moved%'").fetch1("KEY")
    keys = (lab.tables.TrainingSummary & moved).fetch("KEY")
    for key in keys:
        lab.tables.TrainingSummary.update1({**key, "space_trained": "functional"})
    table = configuration_table(lab.tables)
    own, pair = table["name_a"] == table["name_b"], table["name_a"] != table["name_b"]
    assert table.loc[own].set_index("name_a")["space"].to_dict() == {
        name: "functional" if "n_moved" in name else "readout" for name in table.loc[own, "name_a"]
    }
    assert table.loc[pair, ["space", "normalize"]].isna().all(axis=None)
    assert shown_clustering(table)[1] == "DECEMber, K = 3, each in its own space"
    assert "each in its own space" in {row[2] for row in configurations_table_of(table).rows}
    for key in keys:
        lab.tables.TrainingSummary.update1({**key, "space_trained": "readout"})


def test_stale_entries_are_not_in_the_table(empty_lab):
    lab = empty_lab
    lab.train("december", [1])
    lab.train("december", [1], n_moved=0)
    lab.tables.ClusterAssignment.populate()
    lab.tables.ConfigurationAgreement.populate()
    assert len(configuration_table(lab.tables)) == 1
    assert rows_of(lab.tables, own=True) == []  # there is one seed only
    lab.train("december", [2])
    lab.tables.ClusterAssignment.populate()
    lab.tables.SeedAgreement.populate()
    (row,) = configuration_table(lab.tables).to_dict("records")  # of the two seeds, without a pair of configurations
    assert np.isnan(row["linear_cka"])
    with pytest.raises(SettingsError, match="no two configurations with neurons in common have been compared yet"):
        shown_clustering(configuration_table(lab.tables))


def test_a_seed_added_later_is_a_new_entry_and_the_pair_is_there_once(empty_lab):
    lab = empty_lab
    tables = lab.tables
    lab.train("december", [1])
    lab.train("december", [1], n_moved=0)
    tables.ClusterAssignment.populate()
    tables.ConfigurationAgreement.populate()
    first = tables.ConfigurationAgreement.fetch1()
    assert first["seed_pairs"].tolist() == [[1, 1]]  # there are no others
    assert first["adjusted_rand_index_sd"] is None
    lab.train("december", [2], n_moved=0)
    tables.ClusterAssignment.populate()
    assert len(tables.ConfigurationAgreement.key_source - tables.ConfigurationAgreement) == 2
    tables.ConfigurationAgreement.populate()
    assert [row["seed_pairs"].tolist() for row in rows_of(tables, own=True)] == [[[1, 2]]]
    assert sorted(row["seed_pairs"].tolist() for row in rows_of(tables)) in (
        [[[1, 1]], [[1, 2]]],
        [[[1, 1]], [[2, 1]]],
    )


def test_the_set_of_a_moment_ago_is_computed_when_a_seed_arrives_meanwhile(empty_lab):
    lab = empty_lab
    tables = lab.tables
    lab.train("december", [1, 2])
    lab.train("december", [1, 2], n_moved=0)
    tables.ClusterAssignment.populate()
    keys = tables.ConfigurationAgreement.key_source.fetch("KEY")
    assert len(keys) == 3
    lab.train("december", [3])
    tables.ClusterAssignment.populate()
    compared = []
    for key in keys:
        fetched = tables.ConfigurationAgreement().make_fetch(key)
        row, _ = tables.ConfigurationAgreement().make_compute(key, *fetched)
        compared.append(row["seed_pairs"].tolist())
    assert sorted(compared) == [[[1, 2]], [[1, 2]], [[1, 2], [2, 1]]]
    (tables.ClusterAssignment & {"seed": 2}).delete()
    for key in keys:
        with pytest.raises(SettingsError, match="no longer exist: some were deleted, or computed again"):
            tables.ConfigurationAgreement().make_fetch(key)


def test_other_training_data(empty_lab):
    lab = empty_lab
    tables = lab.tables
    for dataset in ({}, {"sessions": ["first"]}, {"sessions": ["second"]}):
        lab.train("december", [1, 2], dataset=dataset)
    tables.ClusterAssignment.populate()
    tables.ConfigurationAgreement.populate()
    rows = rows_of(tables)
    n_first, n_second = planted_lab.SESSIONS["first"], planted_lab.SESSIONS["second"]
    assert sorted(row["n_common_neurons"] for row in rows) == sorted([0, n_first, n_second])
    for row in rows:
        assert (row["adjusted_rand_index"] is None) == (row["linear_cka"] is None) == (row["n_common_neurons"] == 0)


def test_positions_mean_nothing_in_another_dataset(empty_lab):
    lab = empty_lab
    tables = lab.tables
    lab.train("december", [1])
    lab.train("december", [2], dataset={"sessions": ["first"]})
    lab.train("december", [2], n_moved=0)
    tables.ClusterAssignment.populate()
    for number, key in enumerate((tables.ClusterAssignment.Session & {"data_key": "first"}).fetch("KEY")):
        tables.ClusterAssignment.Session.update1({**key, "unit_ids_from": "position"})
        own = {name: key[name] for name in tables.ClusterAssignment.primary_key}
        tables.ClusterAssignment.update1({**own, "labels_md5": f"changed {number}"})
    tables.ConfigurationAgreement.populate()
    # Of the two of one dataset all neurons, of the others those whose unit ids are known: none.
    assert sorted(tables.ConfigurationAgreement.fetch("n_common_neurons")) == [0, 0, 70]


def test_mixtures_of_different_numbers_of_clusters_are_not_compared(lab):
    assert len(lab.tables.ConfigurationAgreement.key_source) == 3
    key = (lab.tables.ClusterAssignment & {"seed": 1}).fetch("KEY")[0]
    config = {name: value for name, value in key.items() if name not in ("seed", "clustering_hash")}
    for each in (lab.tables.ClusterAssignment & config).fetch("KEY"):
        lab.tables.ClusterAssignment.update1({**each, "n_clusters_used": 4})
    assert len(lab.tables.ConfigurationAgreement.key_source) == 2  # each with itself
    for each in (lab.tables.ClusterAssignment & config).fetch("KEY"):
        lab.tables.ClusterAssignment.update1({**each, "n_clusters_used": 3})


def test_of_one_configuration_every_pair_of_seeds_is_compared_once():
    assert seed_pairs([3, 1, 2], [1, 2, 3], same=True) == [(1, 2), (2, 3), (1, 3)]
    pairs = seed_pairs(range(10), range(10), same=True)
    assert len(set(pairs)) == 10
    assert np.bincount(np.ravel(pairs)).tolist() == [2] * 10


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1], [1], [(1, 1)]),
        ([1, 2], [1, 2], [(1, 2), (2, 1)]),
        ([5], [1, 5, 7], [(5, 1), (5, 7)]),
        ([1, 2, 3], [1, 2, 3], [(1, 2), (2, 3), (3, 1), (1, 3), (2, 1), (3, 2)]),
    ],
)
def test_seeds_are_paired_with_others(first, second, expected):
    assert sorted(seed_pairs(first, second)) == sorted(expected)
    assert seed_pairs(first, second)[: len(first)] == seed_pairs(first, second, most=len(first))


def test_of_many_seeds_each_is_compared_about_as_often():
    pairs = seed_pairs(range(9), range(9), most=18)
    for at in (0, 1):
        assert np.bincount([pair[at] for pair in pairs]).tolist() == [2] * 9
    assert len(set(pairs)) == 18
    assert not any(a == b for a, b in pairs)
    assert set(seed_pairs(range(3), range(4, 6), most=99)) == set(itertools.product(range(3), range(4, 6)))


def test_of_many_seeds_every_set_of_a_while_ago_is_digested_once(monkeypatch):
    made = []
    monkeypatch.setattr(configurations, "set_digest", lambda seeds: made.append(seeds) or "0")
    members = {(name,): [(seed, f"{name}{seed}") for seed in range(12)] for name in "abc"}
    assert pair_members(members, ("a",), "of nobody") is None
    assert len(made) < 3 * 12**2  # and not as many as there are pairs of sets
    assert pair_members(members, ("d",), "of nobody") is None
