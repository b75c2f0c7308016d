"""Clusterings in functional space: the covariance is stored once, and what follows is in the space of its clustering.

The models of these tests have types in the channels that their core fills, and large noise in those that it does not.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics import adjusted_rand_score, silhouette_score

from december_plugin.clustering import cluster_readouts, post_hoc
from december_plugin.embeddings import feature_covariance, readout_embeddings
from december_plugin.embeddings.space import EmbeddingSpace
from december_plugin.errors import EmbeddingError
from december_plugin.pool.jobs.description import describe_jobs
from december_plugin.results.agreement import agreement_table
from december_plugin.results.assignments import assignment_frame, load_assigned_model
from december_plugin.results.performance import performance_table, with_model_labels
from december_plugin.schemas.clusters import trained_mixture_clusters
from december_plugin.schemas.stored_models import stored_state_dict
from helpers import planted_lab
from helpers.lab_tables import open_lab

SPACES = [("readout", "none"), ("readout", "l2"), ("functional", "none"), ("functional", "l2")]
WIDTH = planted_lab.WIDTH


@pytest.fixture(scope="module")
def lab(new_schema_name):
    lab = open_lab(new_schema_name())
    lab.train("baseline", [1, 2], model="half_dead_model")
    lab.train("december", [1])
    for space, normalize in SPACES:
        lab.tables.Clustering().add_entry("kmeans", 3, space=space, normalize=normalize)
    lab.tables.Surrogate().add_entry(n_draws=2)
    tables = lab.tables
    for table in (tables.TrainingSummary, tables.TestPerformance, tables.FeatureCovariance, tables.ClusterAssignment):
        table.populate()
    tables.ClusterQuality.populate()
    return lab


def in_space(lab, space, normalize, **more):
    clustering = lab.tables.Clustering & {"method": "kmeans", "space": space, "normalize": normalize}
    return {**clustering.fetch1("KEY"), **more}


def stored_vectors(lab, key, space, normalize):
    """Return the vectors of a model in a space, computed as the paper's formula says, sessions by name."""
    found = readout_embeddings(stored_state_dict(lab.tables.TrainedModel, key)).vectors.astype(float)
    if space == "functional":
        axes, variances, _ = np.linalg.svd((lab.tables.FeatureCovariance & key).fetch1("covariance"))
        found = found @ axes @ np.diag(np.sqrt(variances)) @ axes.T
    return found / np.linalg.norm(found, axis=1, keepdims=True) if normalize == "l2" else found


def model_key(lab, seed=1):
    return (lab.tables.TrainedModel & {"seed": seed, "trainer_fn": "helpers.planted_lab.baseline"}).fetch1("KEY")


def test_the_covariance_is_that_of_the_training_tier(lab):
    assert sorted(lab.tables.FeatureCovariance.fetch("trainer_fn")) == ["helpers.planted_lab.baseline"] * 2
    row = (lab.tables.FeatureCovariance & {"seed": 1}).fetch1()
    loaders, model = load_assigned_model(lab.tables, in_space(lab, "readout", "none", seed=1))
    np.testing.assert_array_equal(row["covariance"], feature_covariance(model, loaders["train"]))
    assert row["covariance"].dtype == np.float64
    assert np.abs(row["covariance"][3:]).max() == 0  # what the core never fills
    assert (row["covariance_from"], row["n_images"], row["n_covariance_neurons"]) == ("recording", 40, 70)


@pytest.mark.parametrize(("space", "normalize"), SPACES)
def test_clusters_and_criteria_are_of_vectors_in_the_space(lab, space, normalize):
    key = {**model_key(lab), **in_space(lab, space, normalize)}
    vectors = stored_vectors(lab, model_key(lab), space, normalize)
    labels = assignment_frame(lab.tables, key)["cluster"]
    assert adjusted_rand_score(labels, cluster_readouts(vectors, method="kmeans", n_clusters=3).labels) == 1
    truth = np.concatenate([planted_lab.planted_labels(1, name) for name in planted_lab.SESSIONS])
    assert (adjusted_rand_score(labels, truth) > 0.9) == (space == "functional")
    quality = (lab.tables.ClusterQuality & key).fetch1("silhouette")
    assert quality == pytest.approx(silhouette_score(vectors, labels), abs=1e-6)
    assert lab.tables.vectors.space_of(key) == EmbeddingSpace(space=space, normalize=normalize)
    np.testing.assert_allclose(lab.tables.vectors.of(key).vectors, vectors, atol=1e-6)


@pytest.mark.parametrize(("space", "normalize"), SPACES)
def test_surrogates_are_drawn_in_the_space(lab, space, normalize, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        post_hoc,
        "cluster_readouts",
        lambda vectors, **settings: drawn.append(vectors) or cluster_readouts(vectors, **settings),
    )
    lab.tables.SurrogateAgreement.populate(in_space(lab, space, normalize))
    real = [stored_vectors(lab, model_key(lab, seed), space, normalize) for seed in (1, 2)]
    assert len(drawn) == 4  # two draws of two seeds
    for vectors, own in zip(drawn, real * 2, strict=True):
        np.testing.assert_allclose(vectors.mean(axis=0), own.mean(axis=0), atol=0.25 if normalize == "l2" else 1e-6)
        if normalize == "l2":
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)


def test_what_is_in_functional_space_waits_for_the_covariance(empty_lab):
    tables = empty_lab.tables
    empty_lab.train("baseline", [1, 2])
    tables.Clustering().add_entry("kmeans", 3)
    assert len(tables.FeatureCovariance().key_source) == 0  # no clustering needs one
    functional = tables.Clustering().add_entry("kmeans", 3, space="functional", normalize="l2")
    assert len(tables.FeatureCovariance().key_source) == 2
    assert len(tables.ClusterAssignment().key_source) == 2
    assert len(tables.ClusterAssignment().key_source & functional) == 0
    tables.FeatureCovariance.populate({"seed": 2})
    assert (tables.ClusterAssignment().key_source & functional).fetch("seed").tolist() == [2]
    with pytest.raises(EmbeddingError, match=r"is not stored yet; `december worker` computes it \(FeatureCovariance\)"):
        tables.vectors.of({**tables.TrainedModel.fetch("KEY", order_by="seed")[0], **functional})


def test_a_covariance_that_comes_with_a_model_is_kept(empty_lab):
    tables = empty_lab.tables
    given = np.diag([4.0, 1, 1, 0, 0, 1]).tolist()
    empty_lab.train("baseline", [1], covariance=given)
    key = tables.Clustering().add_entry("kmeans", 3, space="functional")
    tables.FeatureCovariance.populate()
    row = tables.FeatureCovariance.fetch1()
    np.testing.assert_array_equal(row["covariance"], given)
    assert (row["covariance_from"], row["n_images"], row["n_covariance_neurons"]) == ("probes", None, None)
    tables.ClusterAssignment.populate()
    assert len(tables.ClusterAssignment & key) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.eye(WIDTH + 1), "is of 7 features and the readout vectors have 6; both must come from the same model"),
        (np.eye(WIDTH) + np.eye(WIDTH, k=1), "is not symmetric"),
        (np.diag([1.0] * (WIDTH - 1) + [np.nan]), "holds NaN or infinite values"),
        (-np.eye(WIDTH), "has the negative eigenvalue"),
    ],
)
def test_covariances_that_are_none(empty_lab, given, message):
    empty_lab.train("baseline", [1], covariance=given.tolist())
    empty_lab.tables.Clustering().add_entry("kmeans", 3, space="functional")
    with pytest.raises(EmbeddingError, match=message):
        empty_lab.tables.FeatureCovariance.populate()
    assert len(empty_lab.tables.FeatureCovariance()) == 0
    assert len(empty_lab.tables.ClusterAssignment().key_source) == 0


def test_a_readout_class_that_is_unknown_says_what_it_needs_and_keeps_its_other_clusterings(empty_lab):
    tables = empty_lab.tables
    empty_lab.train("custom_readout", [1], model="custom_model")
    plain = tables.Clustering().add_entry("kmeans", 3)
    tables.Clustering().add_entry("kmeans", 3, space="functional")
    with pytest.raises(EmbeddingError, match=r"embedding_features\(core_output\)"):
        tables.FeatureCovariance.populate()
    tables.ClusterAssignment.populate()
    assert len(tables.ClusterAssignment()) == len(tables.ClusterAssignment & plain) == 1


# --- DECEMber's mixture ------------------------------------------------------------------------------------------


def mixture(centers, **more):
    uniform = {"scales": np.full(centers.shape, 0.01), "mixing_weights": np.full(len(centers), 1 / len(centers))}
    return {"centers": centers, **uniform, "dof": 2.1, "weights": "uniform", **more}


@pytest.mark.parametrize(("space", "normalize"), SPACES)
def test_a_mixture_reads_vectors_in_its_own_space(space, normalize):
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(4, 4))
    covariance = factors @ factors.T
    vectors = rng.normal(size=(30, 4))
    embedded = vectors @ sqrtm(covariance).real if space == "functional" else vectors
    embedded = embedded / np.linalg.norm(embedded, axis=1, keepdims=True) if normalize == "l2" else embedded
    stored = mixture(embedded[:5], space=space, normalize=normalize, covariance=covariance)
    found = trained_mixture_clusters(vectors, stored)
    distances = torch.cdist(torch.tensor(embedded), torch.tensor(embedded[:5]))
    np.testing.assert_array_equal(found.labels, distances.argmin(dim=1))
    np.testing.assert_array_equal(found.labels[:5], range(5))


def test_a_functional_mixture_without_its_covariance():
    with pytest.raises(EmbeddingError, match="is of functional embeddings, but its feature covariance is not stored"):
        trained_mixture_clusters(np.ones((3, 2)), mixture(np.eye(2), space="functional"))
    with pytest.raises(EmbeddingError, match="is of 3 features and the readout vectors have 2"):
        trained_mixture_clusters(np.ones((3, 2)), mixture(np.eye(2), space="functional", covariance=np.eye(3)))


# --- names -------------------------------------------------------------------------------------------------------


def test_names_say_the_space_in_tables_and_jobs(lab):
    table = agreement_table(lab.tables)
    names = table.loc[table["method"] == "kmeans", "label"].tolist()
    phrases = ["", ", functional", ", functional, direction", ", readout vectors, direction"]
    assert names == [f"k-means{phrase}" for phrase in phrases]
    assert {method.space for method in table["identity"]} == {EmbeddingSpace(space=s, normalize=n) for s, n in SPACES}
    performance = with_model_labels(table, performance_table(lab.tables))
    assert sorted(performance["label"]) == ["DECEMber, helpers.planted_lab.december {}", "k-means"]
    describe = describe_jobs(lab.tables)
    key = {**model_key(lab), **in_space(lab, "functional", "l2")}
    assert describe("ClusterAssignment", key).endswith("kmeans, K 3, functional, direction, seed 1")
