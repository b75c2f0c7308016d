"""Clusterings of the neurons that are predicted well enough: the same neurons in every table, query and picture.

The seeds of these tests put some neurons into a wrong cluster, which is also why these are predicted badly.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score, silhouette_score

from december_plugin.clustering import cluster_readouts
from december_plugin.embeddings import readout_embeddings
from december_plugin.errors import EmbeddingError, MisfitError
from december_plugin.evaluation.similarity import compare_embeddings
from december_plugin.findings.left_out import left_out_notes
from december_plugin.pool.jobs.description import describe_jobs
from december_plugin.results import configuration_table
from december_plugin.results.agreement import agreement_table
from december_plugin.results.assignments import assignment_frame
from december_plugin.results.consensus import consensus_table
from december_plugin.results.figure_frames import embeddings_frame
from december_plugin.results.report import ReportSettings, collect_report
from december_plugin.results.stability import stability_frame
from december_plugin.schemas.stored_models import stored_state_dict
from helpers.lab_tables import open_lab

LEAST = 0.6
SEEDS = (1, 2, 10)  # seed 10 moves the first neuron of a session
NEURON = ["data_key", "unit_id"]
ONE_MODEL = {"model_fn": "helpers.planted_lab.model"}


@pytest.fixture(scope="module")
def lab(new_schema_name):
    lab = open_lab(new_schema_name())
    lab.train("baseline", list(SEEDS))
    lab.train("baseline", [1], model="half_dead_model")
    for filtered in ({}, {"minimum_test_correlation": LEAST}):
        lab.tables.Clustering().add_entry("kmeans", 3, n_init=2, **filtered)
    lab.tables.Surrogate().add_entry(n_draws=2)
    for table in lab.tables.computed[1:]:
        table.populate()
    return lab


def filtered(lab, **more):
    return {**(lab.tables.Clustering & "minimum_test_correlation IS NOT NULL").fetch1("KEY"), **more}


def of_all_neurons(lab):
    return (lab.tables.Clustering & {"method": "kmeans"} & "minimum_test_correlation IS NULL").fetch1("clustering_hash")


def keys(lab, **more):
    return (lab.tables.ClusterAssignment & filtered(lab) & {**ONE_MODEL, **more}).fetch("KEY", order_by="seed")


def expected(lab, key):
    """Return the neurons that are predicted well enough, with their vectors, sessions by name."""
    model = (lab.tables.TrainedModel & key).fetch1("KEY")
    embeddings = readout_embeddings(stored_state_dict(lab.tables.TrainedModel, model))
    sessions = (lab.tables.TestPerformance.Session & model).fetch(as_dict=True, order_by="data_key")
    frames = [
        pd.DataFrame(
            {
                "data_key": row["data_key"],
                "unit_id": row["tested_unit_ids"],
                "vector": list(embeddings.vectors[embeddings.sessions[row["data_key"]]].astype(float)),
                "correlation": row["single_trial_correlations"],
            }
        )
        for row in sessions
    ]
    frame = pd.concat(frames)
    return frame[frame["correlation"] >= LEAST].reset_index(drop=True)


def test_only_neurons_that_are_predicted_well_enough_are_clustered(lab):
    for key in keys(lab):
        wanted = expected(lab, key)
        assert 50 < len(wanted) < 70
        found = assignment_frame(lab.tables, key)
        assert found[NEURON].values.tolist() == wanted[NEURON].values.tolist()
        vectors = np.stack(wanted["vector"])
        again = cluster_readouts(vectors, method="kmeans", n_clusters=3, n_init=2)
        assert adjusted_rand_score(found["cluster"], again.labels) == 1
        row = (lab.tables.ClusterAssignment & key).fetch1()
        assert (row["n_neurons"], row["n_left_out"]) == (len(wanted), 70 - len(wanted))
        door = lab.tables.vectors.of(key)
        np.testing.assert_allclose(door.vectors, vectors, atol=1e-6)
        assert list(door.sessions) == ["first", "second"]
        quality = (lab.tables.ClusterQuality & key).fetch1("silhouette")
        assert quality == pytest.approx(silhouette_score(vectors, found["cluster"]), abs=1e-6)
        stable = stability_frame(lab.tables, key, n_draws=2)
        assert stable["n_neurons"].sum() == len(wanted)
        assert stable["jaccard_mean"].min() == 1
    assert 0 not in lab.tables.vectors.of(keys(lab)[-1]).unit_positions[:3]
    complete = lab.tables.ClusterAssignment & {"clustering_hash": of_all_neurons(lab)}
    assert set(complete.fetch("n_neurons")) == {70}
    assert set(complete.fetch("n_left_out")) == {0}


def test_seeds_are_compared_over_the_neurons_that_both_have(lab):
    frames = {key["seed"]: assignment_frame(lab.tables, key) for key in keys(lab)}
    for a, b in itertools.combinations(SEEDS, 2):
        both = frames[a].merge(frames[b], on=NEURON)
        pair = {**filtered(lab), **ONE_MODEL, "seed_a": a, "seed_b": b}
        row = (lab.tables.SeedAgreement & pair).fetch1()
        assert row["n_neurons"] == len(both) < min(len(frames[a]), len(frames[b]))
        assert row["adjusted_rand_index"] == pytest.approx(adjusted_rand_score(both["cluster_x"], both["cluster_y"]))
        complete = (lab.tables.SeedAgreement & {**pair, "clustering_hash": of_all_neurons(lab)}).fetch1()
        assert row["adjusted_rand_index"] > complete["adjusted_rand_index"]  # most that differ are left out
    common = frames[1].merge(frames[2], on=NEURON).merge(frames[10], on=NEURON)
    null = (lab.tables.SurrogateAgreement & filtered(lab) & ONE_MODEL).fetch1()
    assert null["n_null_neurons"] == len(common)
    consensus = consensus_table(lab.tables, {**filtered(lab), **ONE_MODEL})
    assert consensus["n_neurons"].tolist() == [len(common)]


def test_configurations_are_compared_over_the_neurons_that_both_have(lab):
    pairs = configuration_table(lab.tables, filtered(lab))
    row = pairs[pairs["name_a"] != pairs["name_b"]].iloc[0]
    assert row["minimum_test_correlation"] == LEAST
    between, within = 0, 0
    for stored in (lab.tables.ConfigurationAgreement * lab.tables.ConfigurationPair & filtered(lab)).fetch(
        as_dict=True
    ):
        similar = []
        for a, b in stored["seed_pairs"].tolist():
            first, other = (
                expected(lab, (lab.tables.TrainedModel & {"model_fn": name, "seed": seed}).fetch1("KEY"))
                for name, seed in ((stored["model_fn"], a), (stored["model_fn_b"], b))
            )
            both = first.merge(other, on=NEURON)
            similar.append(
                (len(both), compare_embeddings(np.stack(both["vector_x"]), np.stack(both["vector_y"])).linear_cka)
            )
        (shown,) = pairs[np.isclose(pairs["linear_cka"], stored["linear_cka"], rtol=1e-12)].to_dict("records")
        assert shown["n_common_neurons"] == stored["n_common_neurons"] == min(n for n, _ in similar)
        assert stored["linear_cka"] == pytest.approx(np.mean([cka for _, cka in similar]))
        is_own = stored["model_fn"] == stored["model_fn_b"]
        assert (shown["name_a"] == shown["name_b"]) == is_own
        within, between = within + is_own, between + (not is_own)
    assert between == 1
    assert within > 0


def test_names_counts_and_pictures_say_what_is_left_out(lab):
    table = agreement_table(lab.tables, ONE_MODEL)
    assert table["label"].tolist() == ["k-means", "k-means, test correlation 0.6 and above"]
    left_out = [70 - len(expected(lab, key)) for key in keys(lab)]
    assert table["n_left_out"].tolist() == [0, pytest.approx(np.mean(left_out))]
    note = f"Only neurons with test correlation 0.6 and above: {np.mean(left_out):,.0f} per model are left out"
    assert left_out_notes(table).startswith(note)
    assert left_out_notes(table.iloc[:1]) == ""
    assert describe_jobs(lab.tables)("ClusterAssignment", keys(lab)[0]).endswith(
        "kmeans, K 3, test correlation 0.6 and above, seed 1"
    )
    own = keys(lab)
    drawn = embeddings_frame(lab.tables, {str(key["seed"]): key for key in own[:2]})
    both = expected(lab, own[0]).merge(expected(lab, own[1]), on=NEURON)
    assert set(drawn.groupby("label").size()) == {len(both)}


def test_the_clustering_waits_for_test_correlations(empty_lab):
    tables = empty_lab.tables
    empty_lab.train("baseline", [1, 2], dataset={"untested": {"second": "constant"}})
    chosen = tables.Clustering().add_entry("kmeans", 3, minimum_test_correlation=LEAST)
    assert len(tables.ClusterAssignment().key_source) == 0
    tables.TestPerformance.populate({"seed": 2})
    assert tables.ClusterAssignment().key_source.fetch("seed").tolist() == [2]
    with pytest.raises(EmbeddingError, match=r"has no test correlations, .* computes them \(TestPerformance\)"):
        tables.vectors.of({**tables.TrainedModel.fetch("KEY", order_by="seed")[0], **chosen})
    for table in (tables.TrainingSummary, tables.ClusterAssignment, tables.ClusterQuality):
        table.populate()
    row = tables.ClusterAssignment.fetch1()
    assert row["n_neurons"] + row["n_left_out"] == 70
    # A session that was not tested has no neuron that is known to be predicted so well.
    assert tables.ClusterAssignment.Session.fetch("data_key").tolist() == ["first"]
    assert len(tables.ClusterQuality()) == 1
    (analysis,) = collect_report(tables, settings=ReportSettings()).analyses
    assert analysis.chosen.resampled["n_neurons"].sum() == row["n_neurons"]
    assert analysis.embedding.n_neurons == len(analysis.chosen.neurons) == row["n_neurons"]
    assert analysis.embedding.vectors == "readout vectors (test correlation 0.6 and above)"
    assert "the t-SNE" not in [item.what for item in analysis.missing]


@pytest.mark.parametrize(
    ("least", "error", "message"),
    [
        (0.9999, EmbeddingError, r"no neuron .* has a test correlation of at least 0\.9999: the best of 70 has 0\.99"),
        (None, MisfitError, r"n_clusters is 3, but minimum_test_correlation = .* leaves only 2 neurons"),
    ],
)
def test_a_filter_that_leaves_too_few_neurons(empty_lab, least, error, message):
    tables = empty_lab.tables
    empty_lab.train("baseline", [1])
    tables.TestPerformance.populate()
    known = np.sort(np.concatenate(tables.TestPerformance.Session.fetch("single_trial_correlations")))
    tables.Clustering().add_entry("kmeans", 3, minimum_test_correlation=least or float(known[-2]))
    with pytest.raises(error, match=message):
        tables.ClusterAssignment.populate()
    assert len(tables.ClusterAssignment()) == 0
