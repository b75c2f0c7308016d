"""Which clusters compute the same thing: asked for, computed by workers, and queried."""

from __future__ import annotations

import numpy as np
import pytest

from december_plugin.errors import SettingsError
from december_plugin.pool.jobs.description import describe_jobs
from december_plugin.pool.worker.loop import Worker, WorkerSettings
from december_plugin.report import render_report
from december_plugin.results import cluster_confusion, cluster_pairs, figures
from december_plugin.results.export import export_tables
from december_plugin.results.report import ReportSettings, collect_report
from helpers import planted_lab
from helpers.lab_tables import open_lab

KMEANS, DECEMBER = {"method": "kmeans"}, {"method": "december"}


@pytest.fixture(scope="module")
def lab(new_schema_name):
    """Models of both kinds, whose clusters workers have compared in both ways."""
    lab = open_lab(new_schema_name())
    lab.train("baseline", [1, 2])
    lab.train("december", [1])
    lab.tables.Clustering().add_entry("kmeans", 3)
    lab.tables.ClusterConfusionSettings().add_entry()
    lab.tables.ClusterConfusionSettings().add_entry(threshold=0.9, responses="images", clusterings=["kmeans"])
    Worker(lab.tables, WorkerSettings()).run()
    return lab


def expected_correlations(seed, labels):
    """Correlate the responses of the means of clusters to the training images, neuron by neuron of each session."""
    vectors = {key: planted_lab.planted_vectors(seed, key) for key in planted_lab.SESSIONS}
    stacked = np.concatenate(list(vectors.values())).astype(np.float32).astype(np.float64)
    means = np.stack([stacked[labels == label].mean(axis=0) for label in np.unique(labels)])
    covariance = 0
    for key, n_neurons in planted_lab.SESSIONS.items():
        images = planted_lab.Recording(key, with_unit_ids=True).images.astype(np.float32).reshape(20, -1)
        covariance = covariance + n_neurons * np.cov(means @ images.T)
    spread = np.sqrt(np.diag(covariance))
    return covariance / spread[:, None] / spread


def labels_of(lab, key):
    rows = (lab.tables.ClusterAssignment.Session & key).fetch("labels", order_by="data_key")
    return np.concatenate(rows)


@pytest.mark.parametrize(
    "restriction", [{**KMEANS, "confusion_responses": "linear"}, {**KMEANS, "confusion_responses": "images"}, DECEMBER]
)
def test_correlations_are_those_of_the_responses_to_the_training_images(lab, restriction):
    found = cluster_confusion(lab.tables, {**restriction, "seed": 1})
    assert len(found) == 1
    labels = labels_of(lab, found[0].key)
    np.testing.assert_allclose(found[0].correlations, expected_correlations(1, labels), atol=1e-5)
    assert found[0].clusters.tolist() == [0, 1, 2]
    assert found[0].sizes.tolist() == np.bincount(labels).tolist()
    assert (found[0].n_orientations, found[0].n_images, found[0].n_clusters, found[0].seed) == (1, 40, 3, 1)


def test_there_are_those_that_are_asked_for_and_no_others(lab):
    assert len(cluster_confusion(lab.tables, {**KMEANS, "confusion_responses": "linear"})) == 2
    assert len(cluster_confusion(lab.tables, {**KMEANS, "confusion_threshold": 0.9})) == 2
    assert [each.responses for each in cluster_confusion(lab.tables, DECEMBER)] == ["linear"]
    assert len(lab.tables.FeatureCovariance()) == 3  # DECEMber's, too
    assert len(lab.tables.ClusterConfusion.key_source - lab.tables.ClusterConfusion) == 0


def test_jobs_say_what_they_compare(lab):
    describe = describe_jobs(lab.tables)
    said = {
        describe("ClusterConfusion", key).rpartition("kmeans, ")[2] for key in lab.tables.ClusterConfusion.fetch("KEY")
    }
    assert said >= {"K 3, responses to images, threshold 0.9, seed 1", "K 3, linear responses, threshold 0.5, seed 1"}


def test_blocks_are_of_any_threshold(lab):
    (stored,) = cluster_confusion(lab.tables, {**KMEANS, "confusion_responses": "images", "seed": 1})
    row = (lab.tables.ClusterConfusion & stored.key).fetch1()
    assert stored.blocks.threshold == 0.9
    assert (stored.blocks.n_blocks, stored.blocks.labels.tolist()) == (row["n_blocks"], row["blocks"].tolist())
    one, alone = (cluster_confusion(lab.tables, stored.key, threshold=threshold)[0].blocks for threshold in (-1.0, 1.0))
    assert (one.n_blocks, alone.n_blocks) == (1, 3)
    assert len(one.last_splits()) == len(alone.next_merges()) == 2
    with pytest.raises(SettingsError, match="threshold is 2, but must be a correlation from -1 to 1"):
        cluster_confusion(lab.tables, threshold=2)


def test_pairs_are_listed_and_exported(lab):
    pairs = cluster_pairs(lab.tables, {**KMEANS, "confusion_responses": "linear", "seed": 1})
    assert pairs[["first", "second"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 2]]
    (found,) = cluster_confusion(lab.tables, {**KMEANS, "confusion_responses": "linear", "seed": 1})
    assert pairs["correlation"].tolist() == found.correlations[np.triu_indices(3, 1)].tolist()
    exported = {each.name: each for each in export_tables(lab.tables, settings=ReportSettings())}
    (frame,) = exported["cluster_confusion"].parts()
    assert len(frame) == 3 * (2 * 2 + 1)
    assert set(frame["is_one_block"]) <= {0, 1}
    assert list(frame)[:8] == [
        *("configuration", "label", "method", "n_clusters", "trainer_role", "seed"),
        *("confusion_responses", "confusion_threshold"),
    ]


def test_the_report_shows_those_of_the_chosen_clusters(lab, tmp_path, monkeypatch):
    data = collect_report(lab.tables, settings=ReportSettings(tsne=False))
    (analysis,) = data.analyses
    shown = analysis.functions
    label = "DECEMber, helpers.planted_lab.december {}"
    assert (shown.title, shown.responses, shown.n_images) == (f"{label}, K = 3, seed 1", "linear", 40)
    assert analysis.functions_table[["label", "responses", "seed"]].to_numpy().tolist() == [
        [label, "linear", 1],
        *[["k-means", responses, seed] for responses in ("images", "linear") for seed in (1, 2)],
    ]
    assert "Which clusters compute the same thing" in render_report(data)
    monkeypatch.setattr(figures, "FORMATS", ("svg",))
    drawn = {name: (paths, why) for name, paths, why in figures.draw_all(lab, tmp_path, with_tsne=False)}
    for name in ("cluster-confusion", "block-changes"):
        assert [path.name for path in drawn[name][0]] == [f"{name}.svg"]


def test_nothing_is_compared_or_needed_unless_it_is_asked_for(empty_lab):
    tables = empty_lab.tables
    empty_lab.train("baseline", [1])
    empty_lab.train("december", [1])
    tables.Clustering().add_entry("kmeans", 3)
    tables.ClusterAssignment.populate()
    assert len(tables.FeatureCovariance().key_source) == len(tables.ClusterConfusion().key_source) == 0
    assert len(cluster_pairs(tables)) == len(cluster_confusion(tables)) == 0
    tables.ClusterConfusionSettings().add_entry(responses="images")
    assert len(tables.FeatureCovariance().key_source) == 0
    assert len(tables.ClusterConfusion().key_source) == 2
    tables.ClusterConfusionSettings().add_entry(clusterings=["gmm"])
    assert len(tables.FeatureCovariance().key_source) == 0  # nothing is clustered so
    tables.ClusterConfusionSettings().add_entry(clusterings=["december"])
    assert tables.FeatureCovariance().key_source.fetch("trainer_fn").tolist() == ["helpers.planted_lab.december"]
    assert len(tables.ClusterConfusion().key_source) == 2  # it waits for the covariance
    tables.FeatureCovariance.populate()
    assert len(tables.ClusterConfusion().key_source) == 3


def test_clusters_without_neurons_and_neurons_without_clusters(empty_lab):
    tables = empty_lab.tables
    empty_lab.train("baseline", [1])
    tables.Clustering().add_entry("hdbscan", min_cluster_size=5, min_samples=2, cluster_selection_method="leaf")
    tables.Clustering().add_entry("kmeans", 3, minimum_test_correlation=0.5)
    tables.ClusterConfusionSettings().add_entry()
    tables.ClusterConfusionSettings().add_entry(responses="images")
    Worker(tables, WorkerSettings()).run()
    for method in ("hdbscan", "kmeans"):
        linear, images = cluster_confusion(tables, {"method": method}), []
        linear, images = sorted(linear, key=lambda each: each.responses, reverse=True)
        labels = labels_of(empty_lab, linear.key)
        assert linear.clusters.tolist() == sorted(set(labels) - {-1})
        assert linear.sizes.sum() == (labels >= 0).sum() < 70
        np.testing.assert_allclose(linear.correlations, images.correlations, atol=1e-5)


def test_entries_that_are_there_already(empty_lab):
    key = empty_lab.tables.ClusterConfusionSettings().add_entry(threshold=1)
    assert empty_lab.tables.ClusterConfusionSettings().add_entry(threshold=1.0, skip_duplicates=True) == key
    with pytest.raises(SettingsError, match="this comparison of clusters is registered already"):
        empty_lab.tables.ClusterConfusionSettings().add_entry(threshold=1.0)
    with pytest.raises(SettingsError, match=r"threshold is 1.5; it must be a correlation from -1 to 1\."):
        empty_lab.tables.ClusterConfusionSettings().add_entry(threshold=1.5)
    with pytest.raises(SettingsError, match=r"responses is 'image', which is unknown\. Did you mean 'images'\?"):
        empty_lab.tables.ClusterConfusionSettings().add_entry(responses="image")
