"""Clusterings that find the number of clusters, and leave neurons without one, in every table and query."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from december_plugin.errors import SettingsError
from december_plugin.results.agreement import agreement_table
from december_plugin.results.agreement_text import agreement_text, with_stability
from december_plugin.results.assignments import neuron_clusters
from december_plugin.results.cluster_counts import cluster_count_table
from december_plugin.results.cluster_trees import cluster_tree_of
from december_plugin.results.consensus import consensus_frame, consensus_table
from december_plugin.results.export import export_tables
from december_plugin.results.nulls import null_table
from december_plugin.results.report import ReportSettings, collect_report
from december_plugin.results.stability import stability_frame, stability_table, stored_resampling
from helpers.lab_tables import open_lab

HDBSCAN = {"method": "hdbscan"}


@pytest.fixture(scope="module")
def found(new_schema_name):
    """Three seeds in which HDBSCAN finds 7, 4 and 5 clusters and leaves some neurons out, through all tables."""
    lab = open_lab(new_schema_name())
    lab.train("baseline", [1, 2, 3])
    lab.tables.Clustering().add_entry("hdbscan", min_cluster_size=5, min_samples=2, cluster_selection_method="leaf")
    for count in (2, 3):
        lab.tables.Clustering().add_entry("kmeans", count)
    lab.tables.Surrogate().add_entry(n_draws=2, clusterings=["hdbscan"])
    lab.tables.Resampling().add_entry(n_draws=3, n_surrogates=2, clusterings=["hdbscan", "kmeans"])
    lab.tables.Resampling().add_entry(n_draws=2, clusterings=["kmeans"])
    for table in lab.tables.computed[3:]:
        table.populate()
    return lab


def test_labels_of_neurons_without_a_cluster_are_stored(found):
    own = found.tables.ClusterAssignment & (found.tables.Clustering & HDBSCAN)
    (row,) = (own & {"seed": 1}).fetch(as_dict=True)
    labels = np.concatenate((found.tables.ClusterAssignment.Session & own & {"seed": 1}).fetch("labels"))
    assert labels.dtype == np.int16
    assert 0 < (labels == -1).sum() < 35
    assert row["n_clusters_used"] == row["n_clusters_found"] == labels.max() + 1 == 7
    assert (found.tables.Clustering & HDBSCAN).fetch1("n_clusters") == 0
    assert found.tables.NeuronCluster().fill(own) == 210
    assert (found.tables.NeuronCluster.Neuron & "label = -1").fetch("confidence").tolist() == pytest.approx(
        [0.0] * len(found.tables.NeuronCluster.Neuron & "label = -1")
    )


def test_seeds_are_compared_over_the_neurons_that_have_a_cluster_in_both(found):
    own = (found.tables.Clustering & HDBSCAN).proj()
    first, second = (
        np.concatenate(
            (found.tables.ClusterAssignment.Session & own & {"seed": seed}).fetch("labels", order_by="data_key")
        )
        for seed in (1, 2)
    )
    both = int(((first >= 0) & (second >= 0)).sum())
    assert 35 < both < 70
    assert (found.tables.SeedAgreement & own & {"seed_a": 1, "seed_b": 2}).fetch1("n_neurons") == both
    (row,) = agreement_table(found.tables, HDBSCAN).to_dict("records")
    assert (row["label"].split(", ")[0], row["n_clusters"], row["n_pairs"]) == ("HDBSCAN", 5, 3)  # K: the median


def test_consensus_criteria_and_null_cope(found):
    frame = consensus_frame(found.tables, HDBSCAN)
    (row,) = consensus_table(found.tables, HDBSCAN).to_dict("records")
    clusters = sorted(set(frame["cluster"]))
    assert clusters[0] == -1
    assert (
        sorted((found.tables.Consensus.Cluster & (found.tables.Clustering & HDBSCAN).proj()).fetch("cluster"))
        == clusters[1:]
    )
    assert row["n_clusters_found"] == len(clusters) - 1
    (counts,) = cluster_count_table(found.tables, HDBSCAN).to_dict("records")
    assert counts["silhouette_mean"] > 0
    (null,) = null_table(found.tables).to_dict("records")
    assert 0 <= null["null_mean"] < null["agreement_mean"]


def test_a_neuron_is_looked_up(found):
    frame = neuron_clusters(found.tables, "first", 7, HDBSCAN)
    assert frame["seed"].tolist() == [1, 2, 3]


def test_clusters_of_few_become_those_of_many(found):
    rows = agreement_table(found.tables, {"method": "kmeans"})
    tree = cluster_tree_of(found.tables, rows)
    assert tree.nodes.groupby("n_clusters")["n_neurons"].sum().to_dict() == {2: 70, 3: 70}
    assert (tree.nesting["nested"] > 0.8).all()
    with pytest.raises(SettingsError, match="a cluster tree needs at least two numbers of clusters of one method"):
        cluster_tree_of(found.tables, rows.head(1))
    with pytest.raises(SettingsError, match="there are several configurations with 3 clusters; choose those"):
        cluster_tree_of(found.tables, pd.concat([rows, rows.tail(1)]))


def test_one_model_alone_has_stable_clusters(found):
    frame = stability_frame(found.tables, {"method": "kmeans", "n_clusters": 3, "seed": 1}, n_draws=4)
    assert frame["cluster"].tolist() == [0, 1, 2]
    assert frame["n_neurons"].sum() == 70
    assert (frame["jaccard_mean"] > 0.9).all()  # planted, but for a few neurons
    assert frame.attrs["agreement"] > 0.9
    assert (frame.attrs["n_draws"], frame.attrs["share"]) == (4, 0.5)
    found_anew = stability_frame(found.tables, {**HDBSCAN, "seed": 2}, n_draws=2)
    assert found_anew["jaccard_mean"].between(0, 1).all()


def test_workers_store_the_stability_that_is_asked_for(found):
    assert len(found.tables.WithinModelStability()) == 9 + 6
    assert len(found.tables.WithinModelStability.key_source - found.tables.WithinModelStability) == 0
    one = {"method": "kmeans", "n_clusters": 3, "seed": 1}
    stored, computed = stability_frame(found.tables, one, n_draws=3), stability_frame(found.tables, one, n_draws=4)
    assert 0 < stored.attrs["null_mean"] <= 1
    assert stored.attrs["p_value"] in (1 / 3, 2 / 3, 1)
    assert np.isnan(computed.attrs["p_value"])  # of no entry: computed now, without a null
    (key,) = (found.tables.ClusterAssignment & (found.tables.Clustering & one) & {"seed": 1}).fetch("KEY")
    assert stored_resampling(found.tables, key) == {"n_draws": 3, "share": 0.5, "seed": 0}
    assert stability_frame(found.tables, one, n_draws=2).attrs["share"] == 0.5
    anew = found.tables.WithinModelStability().computed(
        found.tables.WithinModelStability.fetch("KEY", limit=1)[0], n_draws=3, share=0.5, seed=0
    )
    assert anew.similarities.shape[0] == 3
    table = stability_table(found.tables)
    assert len(table) == 9
    assert set(table["n_draws"]) == {3}  # the more
    row = table[table["clustering_hash"] == (found.tables.Clustering & one).fetch1("clustering_hash")].iloc[0]
    assert (row["seed"], row["jaccard"]) == (1, stored.attrs["jaccard"])
    assert (row["n_stable_clusters"], row["n_resampled_clusters"]) == ((stored["jaccard_mean"] >= 0.75).sum(), 3)
    assert stability_table(found.tables, HDBSCAN)["seed"].tolist() == [1, 2, 3]


def test_p_values_of_stability_are_shown_and_exported(found):
    table, stored = agreement_table(found.tables), stability_table(found.tables)
    lines = agreement_text(with_stability(table, stored)).splitlines()
    assert lines[0].split()[-4:-2] == ["stability", "p"]
    of_kmeans = stored[stored["clustering_hash"].isin(table.loc[table["method"] == "kmeans", "clustering_hash"])]
    largest = of_kmeans.groupby("clustering_hash")["p_value"].max()
    assert all(any(f" {value:.3f} " in line for line in lines if "k-means" in line) for value in largest)
    exported = {each.name: each for each in export_tables(found.tables, settings=ReportSettings())}
    (frame,) = exported["stability"].parts()
    assert list(frame)[:6] == ["configuration", "label", "method", "n_clusters", "trainer_role", "seed"]
    assert sorted(frame["jaccard"]) == sorted(stored["jaccard"])
    assert sorted(frame["stability_p_value"]) == sorted(stored["p_value"])
    assert set(frame["n_resampled_surrogates"]) == {2}


def test_titles_say_that_the_number_was_found(found):
    rows = agreement_table(found.tables).set_index("method")
    assert [method.finds_count for method in rows["identity"]] == [name == "hdbscan" for name in rows.index]
    (shown,) = collect_report(found.tables, settings=ReportSettings(n_clusters=5, tsne=False)).analyses
    assert shown.chosen.title == f"{shown.chosen.label}, which found 5 clusters (median over 3 models)"
    assert shown.chosen.reason == f"K = 5, as asked for; {shown.chosen.title}"
    assert set(shown.choices["method"]) == {"kmeans"}


def test_stored_stability_is_what_is_computed_now(found):
    table = found.tables.WithinModelStability()
    for key in (table & {"seed": 2}).fetch("KEY"):
        asked = dict(
            zip(
                ("n_draws", "share", "seed"),
                (found.tables.Resampling & key).fetch1("n_resamplings", "resampled_share", "resampling_seed"),
                strict=True,
            )
        )
        stored, _ = table.stored(key, **asked)
        anew = table.computed(key, **asked)
        np.testing.assert_array_equal(stored.similarities, anew.similarities)
        np.testing.assert_array_equal(stored.clusters, anew.clusters)
        np.testing.assert_array_equal(stored.agreements, anew.agreements)
    with pytest.raises(SettingsError, match="this resampling is registered already"):
        found.tables.Resampling().add_entry(n_draws=2, clusterings=["kmeans"])
