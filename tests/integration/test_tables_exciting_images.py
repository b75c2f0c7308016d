"""Maximally exciting images of clusters: asked for, computed by workers, and queried.

The neurons of these models are linear, so that the image of each is its filter.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from december_plugin.errors import MisfitError, SettingsError
from december_plugin.pool.jobs.description import describe_jobs
from december_plugin.pool.worker.loop import Worker, WorkerSettings
from december_plugin.results import exciting_images, exciting_neurons, mei_confusion
from december_plugin.results.export import export_tables
from december_plugin.results.report import ReportSettings
from helpers import planted_lab
from helpers.lab_tables import open_lab

KMEANS, DECEMBER = {"method": "kmeans"}, {"method": "december"}
EXACT = {"tolerance": 1e-7, "max_steps": 60, "n_starts": 1}


@pytest.fixture(scope="module")
def lab(new_schema_name):
    """Models of both kinds, with images of single models and of all seeds."""
    lab = open_lab(new_schema_name())
    lab.train("baseline", [1, 2])
    lab.train("december", [1])
    lab.tables.Clustering().add_entry("kmeans", 3)
    lab.tables.MeiSettings().add_entry(per_cluster=2, **EXACT)
    lab.tables.MeiSettings().add_entry(
        per_cluster=3, models="seeds", clusterings=["kmeans"], norm=2, least_correlation=1, **EXACT
    )
    Worker(lab.tables, WorkerSettings()).run()
    return lab


def filters(seed, frame):
    """Return the filters of neurons (n, 1, 2, 3), of length 1."""
    found = []
    for data_key, unit_id in zip(frame["data_key"], frame["unit_id"], strict=True):
        (at,) = np.flatnonzero(planted_lab.unit_ids(data_key) == unit_id)
        found.append(planted_lab.planted_vectors(seed, data_key)[at].reshape(1, 2, 3))
    return np.stack(found)


def cosines(a, b):
    a, b = (x.reshape(len(x), -1).astype(float) for x in (a, b))
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("restriction", [{**KMEANS, "mei_models": "single", "seed": 2}, DECEMBER])
def test_images_are_those_of_the_best_predicted_neurons_of_each_cluster(lab, restriction):
    found = exciting_images(lab.tables, restriction)
    frame, seed = found.frame, found.key["seed"]
    assert found.seeds == (seed,)
    assert found.images.shape == (6, 1, 2, 3)
    assert frame["cluster"].tolist() == [0, 0, 1, 1, 2, 2]
    planted = filters(seed, frame)
    assert cosines(found.images - found.grey, planted) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found.images - found.grey, axis=(2, 3))[:, 0], found.norm, rtol=1e-5)
    responses = (found.images.astype(float) * planted).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(frame["response"], responses, rtol=1e-4)
    sessions = (lab.tables.ClusterAssignment.Session & found.key).fetch(as_dict=True)
    tested = (lab.tables.TestPerformance.Session & found.key).fetch(as_dict=True)
    scores = {
        (row["data_key"], unit): float(score)
        for row in tested
        for unit, score in zip(row["tested_unit_ids"], row["single_trial_correlations"], strict=True)
    }
    for cluster in range(3):
        members = [
            (row["data_key"], unit)
            for row in sessions
            for unit, label in zip(row["unit_ids"], row["labels"], strict=True)
            if label == cluster
        ]
        best = sorted(members, key=scores.__getitem__, reverse=True)[:2]
        own = frame[frame["cluster"] == cluster]
        assert list(zip(own["data_key"], own["unit_id"], strict=True)) == best
        assert own["test_correlation"].tolist() == [scores[neuron] for neuron in best]


def test_grey_and_contrast_are_those_of_the_recording(lab):
    found = exciting_images(lab.tables, DECEMBER)
    pixels = np.concatenate(
        [planted_lab.Recording(key, with_unit_ids=True).images.ravel() for key in ("first", "second")]
    )
    assert found.grey == pytest.approx(pixels.mean(), abs=1e-6)
    assert found.norm == pytest.approx(0.5 * pixels.std() * np.sqrt(6), rel=1e-6)


def test_an_ensemble_is_driven_by_the_mean_of_its_seeds(lab):
    found = exciting_images(lab.tables, {**KMEANS, "mei_models": "seeds", "seed": 2})
    assert found.seeds == (2, 1)
    assert (len(found.frame), found.norm) == (9, 2.0)
    both = (filters(1, found.frame) + filters(2, found.frame)) / 2
    assert cosines(found.images - found.grey, both) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(found.frame["response"], (found.images * both).sum(axis=(1, 2, 3)), rtol=1e-4)


def test_neurons_respond_to_each_others_images(lab):
    found = mei_confusion(lab.tables, DECEMBER)
    images = exciting_images(lab.tables, DECEMBER)
    assert found.outcome == "compared"
    good = images.frame["test_correlation"] >= 0.7
    assert found.left_out == {"badly predicted": int((~good).sum()), "unresponsive": 0, "unturnable": 0}
    columns = ["data_key", "unit_id", "cluster", "test_correlation"]
    assert found.frame.to_numpy().tolist() == images.frame.loc[good, columns].to_numpy().tolist()
    assert found.values.shape == found.angles.shape == found.shifts.shape[:2] == (good.sum(), good.sum())
    clusters = found.frame["cluster"].to_numpy()
    same = clusters[:, None] == clusters
    assert found.values[same].min() > 0.9 > found.values[~same].mean()


def test_where_too_few_can_be_compared_the_outcome_says_so_and_the_job_is_done(lab):
    found = mei_confusion(lab.tables, {**KMEANS, "mei_models": "seeds", "seed": 1})
    assert (found.outcome, found.values.shape, len(found.frame)) == ("too few neurons", (0, 0), 0)
    assert found.left_out == {"badly predicted": 9, "unresponsive": 0, "unturnable": 0}
    assert len(lab.tables.MeiConfusion()) == len(lab.tables.Mei()) == 5
    assert len(lab.tables.MeiConfusion.key_source - lab.tables.MeiConfusion) == 0
    assert len(lab.tables.schema.jobs) == 0  # none has failed


def test_neurons_are_listed_and_exported(lab):
    frame = exciting_neurons(lab.tables, {"mei_models": "single"})
    assert len(frame) == 3 * 6
    assert frame["rank"].tolist() == [0, 1] * 9
    exported = {each.name: each for each in export_tables(lab.tables, settings=ReportSettings())}
    (table,) = exported["exciting_images"].parts()
    assert len(table) == 3 * 6 + 2 * 9
    assert set(table["ending"]) <= {"converged", "max_steps"}


def test_jobs_say_which_images_they_look_for(lab):
    describe = describe_jobs(lab.tables)
    said = sorted(describe("Mei", key) for key in (lab.tables.Mei & {"seed": 1}).fetch("KEY"))
    assert [text.partition("kmeans, ")[2] for text in said if "kmeans" in text] == [
        "K 3, 2 per cluster, seed 1",
        "K 3, 3 per cluster, mean of all seeds, seed 1",
    ]


def test_a_restriction_must_leave_one(lab):
    with pytest.raises(SettingsError, match="the restriction leaves more than one row of Mei; it must leave exactly"):
        exciting_images(lab.tables, KMEANS)
    with pytest.raises(SettingsError, match="the restriction leaves no row of MeiConfusion; it must leave exactly one"):
        mei_confusion(lab.tables, {"seed": 7})


def test_nothing_is_computed_unless_it_is_asked_for_and_ensembles_wait_for_all_seeds(empty_lab):
    tables = empty_lab.tables
    empty_lab.train("baseline", [1])
    empty_lab.plan("baseline", [2])
    tables.Clustering().add_entry("kmeans", 3)
    tables.ClusterAssignment.populate()
    assert len(tables.Mei().key_source) == len(exciting_neurons(tables)) == 0
    tables.MeiSettings().add_entry(clusterings=["gmm"])
    tables.MeiSettings().add_entry()
    tables.MeiSettings().add_entry(models="seeds")
    assert len(tables.Mei().key_source) == 0  # the model is not tested
    tables.TestPerformance.populate()
    assert (
        len(tables.Mei().key_source)
        == len(tables.Mei().key_source & (tables.MeiSettings & {"mei_models": "single"}))
        == 1
    )
    tables.TrainedModel.populate()
    assert len(tables.Mei().key_source) == 2


ENSEMBLE = {"per_cluster": 2, "models": "seeds", **EXACT, "max_steps": 5}


@pytest.fixture
def of_two_seeds(empty_lab):
    """Images of the mean of two seeds, asked for and not computed yet."""
    tables = empty_lab.tables
    empty_lab.train("baseline", [1, 2])
    tables.Clustering().add_entry("kmeans", 3)
    tables.MeiSettings().add_entry(**ENSEMBLE)
    for name in ("ClusterAssignment", "TestPerformance"):
        getattr(tables, name).populate()
    return empty_lab


def while_images_are_sought(monkeypatch, tables, happens) -> None:
    """Let something happen, once, after the images of an entry were computed and before they are stored."""
    real, happened = tables.Mei.make_compute, []

    def make_compute(self, key, *fetched):
        found = real(self, key, *fetched)
        if not happened:
            happened.append(key)
            happens(key)
        return found

    monkeypatch.setattr(tables.Mei, "make_compute", make_compute)


def test_seeds_that_are_trained_while_images_are_sought_change_nothing(of_two_seeds, monkeypatch):
    lab, tables = of_two_seeds, of_two_seeds.tables
    while_images_are_sought(monkeypatch, tables, lambda key: lab.train("baseline", [3]))
    tables.Mei.populate()
    assert sorted(sorted(seeds) for seeds in tables.Mei.fetch("mei_seeds")) == [[1, 2], [1, 2, 3]]


def test_models_that_are_deleted_while_images_are_sought_are_not_part_of_any(of_two_seeds, monkeypatch):
    tables = of_two_seeds.tables
    while_images_are_sought(monkeypatch, tables, lambda key: (tables.TrainedModel & {"seed": 3 - key["seed"]}).delete())
    errors = tables.Mei.populate(suppress_errors=True)["error_list"]
    assert "the models with the seeds 1 and 2, of which the trained models of seed" in errors[0][1]
    assert "were deleted. Run this job again (`december jobs retry`)" in errors[0][1]
    assert len(tables.Mei()) == len(tables.Mei.Neuron()) == 0


def test_images_are_not_compared_without_one_of_their_models(of_two_seeds):
    tables = of_two_seeds.tables
    tables.Mei.populate()
    (tables.TrainedModel & {"seed": 2}).delete()
    said = (
        "the images are those of the models with the seeds 1 and 2, of which the trained models of seed 2 were "
        "deleted. Train them again, or delete this entry of Mei, so that its images are computed again from the models "
        "that are there."
    )
    with pytest.raises(MisfitError, match=re.escape(said)):
        tables.MeiConfusion.populate()


def test_dead_neurons_have_an_empty_image(empty_lab, monkeypatch):
    tables = empty_lab.tables
    vectors = planted_lab.planted_vectors

    def with_a_dead_one(seed, data_key, n_moved=4):
        found = vectors(seed, data_key, n_moved)
        found[3] = 0
        return found

    monkeypatch.setattr(planted_lab, "planted_vectors", with_a_dead_one)
    empty_lab.train("baseline", [1])
    tables.Clustering().add_entry("kmeans", 3)
    tables.MeiSettings().add_entry(per_cluster=70, **{**EXACT, "max_steps": 5})
    Worker(tables, WorkerSettings()).run()
    found = exciting_images(tables)
    dead = found.frame["ending"] == "dead"
    assert (int(dead.sum()), tables.Mei.fetch1("n_dead")) == (2, 2)
    assert (found.images[dead] == np.float32(found.grey)).all()
    assert len(found.frame) == 70


def test_entries_that_are_there_already(empty_lab):
    key = empty_lab.tables.MeiSettings().add_entry(norm=3)
    assert empty_lab.tables.MeiSettings().add_entry(norm=3.0, skip_duplicates=True) == key
    with pytest.raises(SettingsError, match="these exciting images are registered already"):
        empty_lab.tables.MeiSettings().add_entry(norm=3.0)
    with pytest.raises(SettingsError, match=r"models is 'seed', which is unknown\. Did you mean 'seeds'\?"):
        empty_lab.tables.MeiSettings().add_entry(models="seed")
    with pytest.raises(SettingsError, match=r"least_correlation is 2; it must be a correlation from -1 to 1\."):
        empty_lab.tables.MeiSettings().add_entry(least_correlation=2)
