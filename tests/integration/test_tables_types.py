"""Surrogates, criteria for the number of clusters and consensus, as tables and as queries, on planted readouts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_t
from sklearn.metrics import adjusted_rand_score, silhouette_score

from december_plugin.errors import SettingsError
from december_plugin.results.cluster_counts import choose_cluster_count, cluster_count_table
from december_plugin.results.consensus import consensus_frame, consensus_table
from december_plugin.results.nulls import null_table
from december_plugin.schemas.seed_sets import set_digest
from december_plugin.sweeps.parse import parse_sweep
from december_plugin.sweeps.register import register
from helpers import planted_lab
from helpers.lab_tables import open_lab

pytestmark = pytest.mark.slow(1.5)

SEEDS = [1, 2, 3]
COUNTS = [2, 3, 4, 5]
N_NEURONS = sum(planted_lab.SESSIONS.values())


@pytest.fixture(scope="module")
def lab(new_schema_name):
    lab = open_lab(new_schema_name())
    lab.train("december", SEEDS)
    lab.train("baseline", SEEDS)
    for count in COUNTS:
        lab.tables.Clustering().add_entry("t_mixture", count, n_init=1)
    lab.tables.Clustering().add_entry("kmeans", 3, n_init=2)
    lab.tables.Surrogate().add_entry("null", n_draws=9)
    for table in lab.tables.computed:
        table.populate()
    return lab


def planted(seed: int) -> np.ndarray:
    return np.concatenate([planted_lab.planted_labels(seed, key) for key in planted_lab.SESSIONS])


def vectors(seed: int) -> np.ndarray:
    return np.concatenate([planted_lab.planted_vectors(seed, key) for key in planted_lab.SESSIONS])


# --- surrogates --------------------------------------------------------------------------------------------------


def test_null_of_every_configuration(lab):
    table = null_table(lab.tables)
    rows = sorted(zip(table["method"], table["n_clusters"], table["trainer_role"], strict=True))
    assert rows == sorted(
        [("december", 3, "december"), ("kmeans", 3, "baseline"), *(("t_mixture", k, "baseline") for k in COUNTS)]
    )
    assert set(table["surrogate_name"]) == {"null"}
    assert set(table["n_draws"]) == {9}
    assert set(table["n_pairs"]) == {3}
    assert (table["null_low"] <= table["null_mean"]).all()
    assert (table["null_mean"] <= table["null_high"]).all()
    observed = [adjusted_rand_score(planted(a), planted(b)) for a, b in itertools.combinations(SEEDS, 2)]
    for row in table[table["n_clusters"] == 3].itertuples():
        assert row.agreement_mean == pytest.approx(np.mean(observed))
        assert row.p_value == pytest.approx(1 / 10)  # planted clusters beat every draw
        assert row.valleys_p_value == pytest.approx(1 / 10)
        assert row.valleys_mean > 1.75 * row.null_valleys_mean
    (two,) = table[table["n_clusters"] == 2].itertuples()
    assert two.p_value > 0.1  # which two of the three types k-means puts together is chance


def test_the_stored_null_is_that_of_the_query(lab):
    key = {"trainer_fn": "helpers.planted_lab.december"}
    row = (lab.tables.SurrogateAgreement & key).fetch1()
    assert (row["n_seeds"], row["n_null_pairs"], row["n_null_neurons"]) == (3, 3, N_NEURONS)
    assert row["agreements"].shape == (9, 3)
    assert row["seeds"].tolist() == SEEDS
    assert 0 <= row["correlation_error"] <= row["largest_correlation_error"] < 0.4
    (asked,) = null_table(lab.tables, {"method": "december"}).to_dict("records")
    names = {"observed_mean": "agreement_mean"} | {n: n for n in ("null_mean", "null_sd", "null_low", "null_high")}
    for stored, shown in {**names, "p_value": "p_value"}.items():
        assert row[stored] == pytest.approx(asked[shown]), stored
    draws = row["agreements"].mean(axis=1)
    assert row["null_mean"] == pytest.approx(draws.mean())
    assert [row["null_low"], row["null_high"]] == pytest.approx(np.quantile(draws, [0.025, 0.975]))


def test_the_null_of_some_seeds_is_over_their_pairs(lab):
    (row,) = null_table(lab.tables, "method = 'december' AND seed < 3").to_dict("records")
    draws = (lab.tables.SurrogateAgreement & {"trainer_fn": "helpers.planted_lab.december"}).fetch1("agreements")[:, 0]
    assert row["n_pairs"] == 1
    assert row["null_mean"] == pytest.approx(draws.mean())
    assert row["agreement_mean"] == pytest.approx(adjusted_rand_score(planted(1), planted(2)))
    stored = (lab.tables.SurrogateAgreement & {"trainer_fn": "helpers.planted_lab.december"}).fetch1()
    assert row["valleys_mean"] == pytest.approx(stored["valleys"][:2].mean())
    assert row["null_valleys_mean"] == pytest.approx(stored["null_valleys"][:, :2].mean())
    deeper = (stored["null_valleys"][:, :2].mean(axis=1) >= row["valleys_mean"]).sum()
    assert row["valleys_p_value"] == pytest.approx((1 + deeper) / 10)


def test_a_null_of_an_earlier_version_has_no_valleys(lab):
    table, key = lab.tables.SurrogateAgreement, {"trainer_fn": "helpers.planted_lab.december"}
    stored = (table & key).fetch1()
    names = ["valleys_mean", "null_valleys_mean", "valleys_p_value", "valleys", "null_valleys"]
    before = null_table(lab.tables, {"method": "december"})
    with_valleys = {name: stored.pop(name) for name in names}
    (table & key).delete_quick()
    table.insert1(stored, allow_direct_insert=True)
    try:
        (row,) = null_table(lab.tables, {"method": "december"}).to_dict("records")
        assert np.isnan([row[name] for name in names[:3]]).all()
        assert row["p_value"] == before["p_value"].item()
    finally:
        (table & key).delete_quick()
        table.insert1({**stored, **with_valleys}, allow_direct_insert=True)


def test_nothing_is_drawn_unless_asked_for(empty_lab):
    lab = empty_lab
    lab.train("december", [1, 2])
    for table in lab.tables.computed:
        table.populate()
    assert len(lab.tables.SurrogateAgreement()) == 0
    assert list(null_table(lab.tables).columns)[:7] == [
        "label",
        "identity",
        "method",
        "n_clusters",
        "trainer_role",
        "surrogate_name",
        "agreement_mean",
    ]
    assert len(null_table(lab.tables)) == 0


def test_surrogates_are_drawn_for_some_clusterings(empty_lab):
    lab = empty_lab
    lab.train("december", [1, 2])
    lab.train("baseline", [1, 2])
    for method in ("kmeans", "gmm"):
        lab.tables.Clustering().add_entry(method, 3)
    lab.tables.Surrogate().add_entry(n_draws=1, clusterings=["kmeans", "december"])
    (name,) = lab.tables.Surrogate.fetch("surrogate_name")
    assert name == "elliptical, 1 draws, of DECEMber and k-means"
    for table in lab.tables.computed:
        table.populate()
    assert sorted(null_table(lab.tables)["method"]) == ["december", "kmeans"]
    assert len(lab.tables.SurrogateAgreement().key_source) == 2
    lab.tables.Surrogate().add_entry(n_draws=1)
    assert len(lab.tables.SurrogateAgreement().key_source) == 5


def test_surrogates_are_named_by_their_settings(empty_lab):
    surrogate = empty_lab.tables.Surrogate()
    key = surrogate.add_entry(n_draws=np.int64(5), seed=2)
    assert (surrogate & key).fetch1("surrogate_name") == "elliptical, 5 draws, seed 2"
    assert surrogate.add_entry("other name", n_draws=5, seed=2, skip_duplicates=True) == key
    with pytest.raises(SettingsError) as raised:
        surrogate.add_entry(n_draws=5, seed=2)
    assert str(raised.value) == (
        "these surrogates are registered already, as 'elliptical, 5 draws, seed 2'. Pass skip_duplicates=True to get "
        "their key."
    )
    with pytest.raises(SettingsError, match=r"^there are surrogates named 'elliptical, 5 draws, seed 2' with other"):
        surrogate.add_entry("elliptical, 5 draws, seed 2", n_draws=6)
    assert len(surrogate) == 1


def test_a_sweep_asks_for_surrogates(empty_lab):
    loaders = {"fn": "december_plugin.datasets.static_loaders", "config": {"paths": ["a"], "batch_size": 8}}
    content = {
        "seeds": [1],
        "datasets": [loaders],
        "models": [{"fn": "december_plugin.models.stacked_core_gaussian_readout"}],
        "trainers": [{"fn": "december_plugin.trainers.baseline_trainer"}],
        "surrogates": [{"n_draws": 99}, {"name": "plain", "method": "gaussian"}],
    }
    for new in (2, 0):
        written = register(
            parse_sweep(content), nnfabrik=empty_lab.nnfabrik, tables=empty_lab.tables, fabrikant="tester"
        )
        assert (written.new["Surrogate"], written.existing["Surrogate"]) == (new, 2 - new)
        assert len(written.surrogates) == 2
    asked = empty_lab.tables.Surrogate.fetch("surrogate_name", "n_draws", "surrogate_method", order_by="n_draws")
    assert list(zip(*asked, strict=True)) == [("plain", 20, "gaussian"), ("elliptical, 99 draws", 99, "elliptical")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_draws": 0}, "n_draws is 0; it must be at least 1."),
        ({"n_draws": 10_001}, "n_draws is 10001; at most 10000 are allowed."),
        ({"seed": 2**32}, "seed is 4294967296; it must be an integer from 0 to 2**32 - 1."),
        ({"method": "elliptic"}, "there is no surrogate method 'elliptic'. Did you mean 'elliptical'?"),
        ({"name": "x" * 65}, "name has 65 characters, 'xxxxxxxxxxxxxxxxxxxx'...; at most 64 are allowed."),
    ],
)
def test_bad_surrogates(lab, settings, message):
    with pytest.raises(SettingsError) as raised:
        lab.tables.Surrogate().add_entry(**settings)
    assert str(raised.value).startswith(message)


# --- the number of clusters --------------------------------------------------------------------------------------


def test_criteria_of_an_assignment(lab):
    key = (lab.tables.ClusterAssignment & {"trainer_fn": "helpers.planted_lab.december", "seed": 2}).fetch1("KEY")
    row = (lab.tables.ClusterQuality & key).fetch1()
    assert row["silhouette"] == pytest.approx(silhouette_score(vectors(2).astype(np.float32), planted(2)), abs=1e-5)
    shape = 0.01 * np.eye(planted_lab.WIDTH)
    densities = [multivariate_t.pdf(vectors(2), loc, shape, df=2.1) for loc in planted_lab.CENTERS]
    log_likelihood = np.log(np.mean(densities, axis=0)).sum()
    expected = -2 * log_likelihood + 2 * 3 * planted_lab.WIDTH * np.log(N_NEURONS)
    assert row["bic"] == pytest.approx(expected, rel=1e-5)
    assert row["n_splits"] == 5
    assert 10 < row["heldout_log_likelihood"] < 16
    assert row["heldout_log_likelihood_se"] > 0


def test_kmeans_has_no_likelihood(lab):
    kmeans = lab.tables.ClusterQuality & (lab.tables.Clustering & {"method": "kmeans"})
    assert [set(values) for values in kmeans.fetch("heldout_log_likelihood", "bic")] == [{None}, {None}] or all(
        np.isnan(values).all() for values in kmeans.fetch("heldout_log_likelihood", "bic")
    )
    assert set(kmeans.fetch("n_splits")) == {0}


def test_criteria_side_by_side(lab):
    table = cluster_count_table(lab.tables)
    assert len(table) == 6
    (own,) = table[table["method"] == "december"].to_dict("records")
    quality = lab.tables.ClusterQuality & {"trainer_fn": "helpers.planted_lab.december"}
    for name in ("heldout_log_likelihood", "bic", "silhouette"):
        values = quality.fetch(name)
        assert own[f"{name}_mean"] == pytest.approx(values.mean())
        assert own[f"{name}_sd"] == pytest.approx(values.std(ddof=1))
    assert (own["n_models"], own["n_pairs"]) == (3, 3)


def test_the_planted_number_is_picked(lab):
    choices = choose_cluster_count(cluster_count_table(lab.tables))
    (choice,) = choices[choices["method"] == "t_mixture"].to_dict("records")
    assert [choice[name] for name in ("bic", "silhouette", "count", "count_low", "count_high")] == [3.0] * 5
    # With 9 draws no p value can be at most 0.05.
    assert choice["agreement_says"] == "none: nowhere above its null (p at most 0.05)"
    assert (choice["smallest"], choice["largest"], choice["n_counts"]) == (2, 5, 4)
    assert choice["statement"].startswith("Of K = 2 to 5, criteria agree on K = 3: the BIC and the silhouette. ")
    (alone,) = choices[choices["method"] == "december"].to_dict("records")
    assert alone["statement"] == "Only K = 3 was tried; choosing a number of clusters takes at least three."
    assert np.isnan(alone["agreement"])


# --- consensus ---------------------------------------------------------------------------------------------------


def test_consensus_of_every_configuration(lab):
    table = consensus_table(lab.tables)
    assert len(table) == 6
    (own,) = table[table["method"] == "december"].to_dict("records")
    frame = consensus_frame(lab.tables, {"method": "december"})
    assert (own["n_seeds"], own["n_neurons"], own["n_clusters_found"]) == (3, N_NEURONS, 3)
    assert own["mean_stability"] == pytest.approx(frame["stability"].mean())
    assert own["core_fraction"] == pytest.approx((frame["stability"] == 1).mean())
    # Every seed moves other neurons: two of three seeds agree on each of them.
    moved = {key: {s * 4 + i for s in SEEDS for i in range(4)} for key in planted_lab.SESSIONS}
    for data_key, session in frame.groupby("data_key"):
        positions = np.flatnonzero(session["stability"].to_numpy() < 1)
        assert set(positions) == moved[data_key]
        types = planted_lab.types(data_key)
        assert adjusted_rand_score(types, session["cluster"]) == 1.0
    assert (frame["confidence"] > 0.99).all()
    assert (frame["margin"] > 0.99).all()


def test_the_table_holds_what_the_frame_says(lab):
    key = (lab.tables.Consensus & {"trainer_fn": "helpers.planted_lab.december"}).fetch1("KEY")
    frame = consensus_frame(lab.tables, {"method": "december"})
    for session in (lab.tables.Consensus.Session & key).fetch(as_dict=True):
        own = frame[frame["data_key"] == session["data_key"]]
        np.testing.assert_array_equal(session["consensus_unit_ids"], own["unit_id"])
        np.testing.assert_array_equal(session["consensus_clusters"], own["cluster"])
        np.testing.assert_allclose(session["stabilities"], own["stability"])
    for cluster in (lab.tables.Consensus.Cluster & key).fetch(as_dict=True):
        members = frame[frame["cluster"] == cluster["cluster"]]
        assert cluster["n_cluster_neurons"] == len(members)
        assert cluster["n_core_neurons"] == (members["stability"] == 1).sum()
        assert cluster["cluster_stability"] == pytest.approx(members["stability"].mean())


def test_consensus_needs_one_configuration(lab):
    with pytest.raises(SettingsError, match=r"^the restriction leaves 15 assignments of 5 configurations; it must"):
        consensus_frame(lab.tables, "trainer_fn LIKE '%baseline'")


def test_empty_tables_give_empty_frames(empty_lab):
    for query in (null_table, cluster_count_table, consensus_table):
        assert len(query(empty_lab.tables)) == 0
    assert len(choose_cluster_count(cluster_count_table(empty_lab.tables))) == 0


# --- seeds that come and go --------------------------------------------------------------------------------------


def test_a_seed_that_is_added_later_is_followed(empty_lab):
    lab = empty_lab
    lab.tables.Surrogate().add_entry(n_draws=2)
    lab.train("december", [5, 9])
    for table in lab.tables.computed:
        table.populate()
    assert consensus_table(lab.tables)["n_seeds"].tolist() == [2]
    lab.train("december", [7])  # within the same second, and not the largest
    for table in lab.tables.computed[1:]:
        table.populate()
    assert sorted(lab.tables.Consensus.fetch("n_seeds")) == [2, 3]
    (consensus,) = consensus_table(lab.tables).to_dict("records")
    assert consensus["n_seeds"] == 3
    (null,) = null_table(lab.tables).to_dict("records")
    assert null["n_pairs"] == 3
    # Of a seed that is deleted nothing is left, and what is computed anew is of the others.
    (lab.tables.ClusterAssignment & {"seed": 5}).delete()
    assert len(consensus_table(lab.tables)) == 0
    # DataJoint deletes all of the configuration, not the seed's alone.
    for table in (lab.tables.SeedAgreement, lab.tables.Consensus, lab.tables.SurrogateAgreement):
        table.populate()
    (null,) = null_table(lab.tables).to_dict("records")
    assert null["n_pairs"] == 1
    (consensus,) = consensus_table(lab.tables).to_dict("records")
    assert consensus["n_seeds"] == 2


def populate(lab, tables=None):
    for table in tables or lab.tables.computed:
        table.populate()


def rows_of_sets(lab):
    """Return the keys of what is computed per set of seeds, by table, without the schema's own hashes."""
    return {
        table.__name__: sorted(
            (row["smallest_seed"], row["largest_seed"], row["n_seeds"], row["seed_set"]) for row in table.fetch("KEY")
        )
        for table in (lab.tables.Consensus, lab.tables.SurrogateAgreement)
    }


def test_a_seed_in_the_middle_that_is_deleted_and_computed_again(empty_lab):
    lab = empty_lab
    lab.tables.Surrogate().add_entry(n_draws=2)
    lab.train("december", [1, 2, 3])
    populate(lab)
    before = rows_of_sets(lab)
    assert [len(rows) for rows in before.values()] == [1, 1]
    digests = dict(zip(*lab.tables.ClusterAssignment.fetch("seed", "labels_md5"), strict=True))
    assert before["Consensus"] == [(1, 3, 3, set_digest(digests))]
    (lab.tables.TrainedModel & {"seed": 2}).delete(force_parts=True)
    assert sorted(lab.tables.ClusterAssignment.fetch("seed")) == [1, 3]
    # What was computed of all three is none of the other two's.
    assert len(consensus_table(lab.tables)) == 0
    populate(lab, [lab.tables.SeedAgreement, lab.tables.Consensus, lab.tables.SurrogateAgreement])
    assert consensus_table(lab.tables)["n_seeds"].tolist() == [2]
    (null,) = null_table(lab.tables).to_dict("records")
    assert null["n_pairs"] == 1
    lab.train("december", [2])
    populate(lab)
    after = rows_of_sets(lab)
    assert {name: rows[-1:] for name, rows in before.items()} == {
        name: [row for row in rows if row[2] == 3] for name, rows in after.items()
    }
    assert consensus_table(lab.tables)["n_seeds"].tolist() == [3]
    (null,) = null_table(lab.tables).to_dict("records")
    assert null["n_pairs"] == 3


def test_the_order_in_which_seeds_are_computed_is_not_in_the_key(empty_lab, schema_name):
    keys = []
    for lab, order in ((empty_lab, [4, 2, 9]), (open_lab(f"{schema_name}_again"), [9, 4, 2])):
        for seed in order:
            lab.train("december", [seed])
            lab.tables.ClusterAssignment.populate()
        lab.tables.Consensus.populate()
        keys.append(lab.tables.Consensus.fetch("smallest_seed", "largest_seed", "n_seeds", "seed_set"))
    assert str(keys[0]) == str(keys[1])


def test_a_set_is_found_when_others_have_come_since(empty_lab):
    lab = empty_lab
    lab.train("december", [5, 9])
    lab.tables.ClusterAssignment.populate()
    (key,) = lab.tables.Consensus().current_sets().fetch("KEY")
    lab.train("december", [7, 1])
    lab.tables.ClusterAssignment.populate()
    keys, digests = lab.tables.Consensus().seeds_of(key)
    assert [own["seed"] for own in keys] == [5, 9]
    assert set_digest({5: digests[0], 9: digests[1]}) == key["seed_set"]
    (lab.tables.ClusterAssignment & {"seed": 9}).delete()
    with pytest.raises(SettingsError) as caught:
        lab.tables.Consensus().seeds_of(key)
    assert str(caught.value) == (
        "the 2 assignments that are to be compared no longer exist: some were deleted, or computed again with "
        "another result. Populate again."
    )


def test_what_was_computed_for_other_labels_does_not_count(empty_lab):
    lab = empty_lab
    lab.tables.Surrogate().add_entry(n_draws=2)
    lab.train("december", [1, 2])
    for table in lab.tables.computed:
        table.populate()
    lab.tables.ClusterAssignment.update1(
        {**(lab.tables.ClusterAssignment & {"seed": 1}).fetch1("KEY"), "labels_md5": "0" * 32}
    )
    assert len(consensus_table(lab.tables)) == 0
    assert len(null_table(lab.tables)) == 0
