"""Readout vectors of rotation-equivariant models are aligned, and what follows is made of the aligned ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics import adjusted_rand_score

from december_plugin.clustering import cluster_readouts, post_hoc
from december_plugin.embeddings import readout_embeddings
from december_plugin.embeddings.alignment_recipe import AlignmentRecipe
from december_plugin.errors import EmbeddingError, MisfitError, SettingsError
from december_plugin.intake import import_models
from december_plugin.models import equivariant_core_gaussian_readout
from december_plugin.pool.jobs.description import describe_jobs
from december_plugin.results import alignments, configuration_table, consensus, report_analysis
from december_plugin.results.agreement import agreement_table
from december_plugin.results.assignments import assignment_frame
from december_plugin.results.export import export_tables
from december_plugin.results.report import ReportSettings, collect_report
from december_plugin.rotation.recipes import align_neurons, before_alignment
from december_plugin.schemas import transfer
from december_plugin.schemas.stored_models import stored_state_dict
from helpers import rotated_lab
from helpers.lab_tables import emptied, open_lab

O = rotated_lab.ORIENTATIONS  # noqa: E741
QUICK = {"n_restarts": 1, "n_means": 1}
FUNCTIONAL = {"space": "functional", **QUICK}
OWN = "helpers.rotated_lab.own_model"


@pytest.fixture(scope="module")
def lab(new_schema_name):
    lab = open_lab(new_schema_name())
    rotated_lab.add_models(lab, [1, 2])
    lab.train("baseline", [1])
    entries = [{}, {"alignment": QUICK}, {"alignment": {**QUICK, "control": "features"}}]
    entries += [{"alignment": FUNCTIONAL, "space": "functional"}]
    for entry in entries:
        lab.tables.Clustering().add_entry("kmeans", 3, normalize="l2", **entry)
    tables = lab.tables
    for table in (tables.TrainingSummary, tables.FeatureCovariance, tables.Alignment, tables.ClusterAssignment):
        table.populate()
    return lab


@pytest.fixture(scope="module")
def declared_own(new_schema_name):
    return open_lab(new_schema_name(), equivariant_models=("helpers.rotated_lab.*", "december_plugin.*equivariant*"))


def key_of(lab, seed, **alignment):
    """Return the key of an assignment of one of our models, by the settings of its alignment; without: not aligned."""
    rows = lab.tables.ClusterAssignment * lab.tables.Clustering & {"model_fn": rotated_lab.OURS, "seed": seed}
    wanted = AlignmentRecipe(**alignment).as_settings() if alignment else None
    (key,) = [
        {name: row[name] for name in lab.tables.ClusterAssignment.primary_key}
        for row in rows.fetch(as_dict=True)
        if row["settings"].get("alignment") == wanted
    ]
    return key


def score(lab, key):
    """Return the adjusted Rand index between an assignment and the planted types."""
    frame = assignment_frame(lab.tables, key)
    truth = np.concatenate([rotated_lab.types(name) for name in dict.fromkeys(frame["data_key"])])
    return adjusted_rand_score(truth, frame["cluster"])


def raw_vectors(lab, key):
    return readout_embeddings(stored_state_dict(lab.tables.TrainedModel, key)).vectors.astype(float)


def stored_angles(lab, key):
    rows = (lab.tables.Alignment.Session & model_of(lab, key) & alignment_of(lab, key)).fetch(as_dict=True)
    angles = {row["data_key"]: row["angles"] for row in rows}
    return np.concatenate([angles[name] for name in rotated_lab.SESSIONS])


def model_of(lab, key):
    return {name: key[name] for name in lab.tables.TrainedModel.primary_key}


def alignment_of(lab, key):
    return {"alignment_hash": (lab.tables.Clustering & key).fetch1("alignment_hash")}


def shifted_by_loops(vectors, angles):
    found = np.zeros_like(vectors)
    for row, (vector, angle) in enumerate(zip(vectors.reshape(len(vectors), O, -1), angles, strict=True)):
        steps = angle / (2 * np.pi) * O
        for o in range(O):
            for k in range(O):
                weight = max(0.0, 1 - min(abs(steps - k), O - abs(steps - k)))
                found[row].reshape(O, -1)[(o + k) % O] += weight * vector[o]
    return found


def spread(vectors):
    return np.linalg.norm(vectors - vectors.mean(axis=0), axis=1).mean()


def test_types_at_random_orientations_are_found_once_they_are_aligned(lab):
    for seed in (1, 2):
        assert score(lab, key_of(lab, seed, **QUICK)) == 1
        assert score(lab, key_of(lab, seed)) < 0.2
        assert score(lab, key_of(lab, seed, **QUICK, control="features")) < 0.8


def test_models_that_are_not_rotation_equivariant_are_not_aligned(lab):
    assert set(lab.tables.Alignment.fetch("model_fn")) == {rotated_lab.OURS}
    planted = lab.tables.ClusterAssignment * lab.tables.Clustering & "model_fn LIKE '%planted_lab%'"
    assert planted.fetch("alignment_hash").tolist() == [None]
    assert len(lab.tables.ClusterAssignment.key_source - lab.tables.ClusterAssignment) == 0
    assert set(lab.tables.FeatureCovariance.fetch("model_fn")) == {rotated_lab.OURS}  # what is aligned alone needs it


def test_angles_are_stored_with_the_neurons_they_are_of(lab):
    key = key_of(lab, 1, **QUICK)
    vectors = raw_vectors(lab, key)
    expected = align_neurons(vectors, O, AlignmentRecipe(**QUICK))
    np.testing.assert_array_equal(stored_angles(lab, key), expected.angles)
    sessions = lab.tables.Alignment.Session & model_of(lab, key) & alignment_of(lab, key)
    for name in rotated_lab.SESSIONS:
        row = (sessions & {"data_key": name}).fetch1()
        np.testing.assert_array_equal(row["aligned_unit_ids"], rotated_lab.unit_ids(name))
        assert row["aligned_unit_ids_from"] == "recording"
        assert row["ambiguous"].dtype == bool
    stored = (lab.tables.Alignment & model_of(lab, key) & alignment_of(lab, key)).fetch1()
    assert (stored["n_aligned_neurons"], stored["n_zero_neurons"], stored["n_orientations"]) == (72, 0, O)
    assert stored["alignment_loss"] == expected.alignment_loss < stored["loss_before"]
    assert stored["equivariance_error"] < 1e-5


@pytest.mark.parametrize("settings", [QUICK, {**QUICK, "control": "features"}, FUNCTIONAL])
def test_clustered_vectors_are_shifted_and_then_brought_into_the_space(lab, settings):
    key = key_of(lab, 2, **settings)
    vectors = before_alignment(raw_vectors(lab, key), O, AlignmentRecipe(**settings))
    expected = shifted_by_loops(vectors, stored_angles(lab, key))
    np.testing.assert_allclose(lab.tables.vectors.readouts_of(key).vectors, expected, atol=1e-9)
    if "space" in settings:
        sigma = (lab.tables.FeatureCovariance & key).fetch1("covariance")
        n_features = rotated_lab.FEATURES
        mean = sum(np.roll(sigma, (k * n_features,) * 2, (0, 1)) for k in range(O)) / O
        expected = expected @ sqrtm(mean).real
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(lab.tables.vectors.of(key).vectors, expected, atol=1e-6)
    found = cluster_readouts(expected, method="kmeans", n_clusters=3).labels
    assert adjusted_rand_score(assignment_frame(lab.tables, key)["cluster"], found) == 1


def test_surrogates_are_drawn_before_the_alignment_and_aligned_themselves(lab, monkeypatch):
    key = key_of(lab, 1, **QUICK)
    clustered, before = [], []
    monkeypatch.setattr(
        "december_plugin.rotation.recipes.align_neurons",
        lambda vectors, *rest: before.append(vectors) or align_neurons(vectors, *rest),
    )
    monkeypatch.setattr(
        post_hoc,
        "cluster_readouts",
        lambda vectors, **settings: clustered.append(vectors) or cluster_readouts(vectors, **settings),
    )
    drawn = lab.tables.vectors.drawn_from(key)
    raw = raw_vectors(lab, key)
    np.testing.assert_allclose(drawn.embeddings.vectors, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)
    lab.tables.Surrogate().add_entry(n_draws=1)
    lab.tables.SurrogateAgreement.populate({"clustering_hash": key["clustering_hash"]})
    row = (lab.tables.SurrogateAgreement & {"clustering_hash": key["clustering_hash"]}).fetch1()
    assert len(clustered) == 2  # of two seeds
    apart = [spread(vectors) for vectors in (drawn.embeddings.vectors, before[0], clustered[0])]
    assert apart[1] == pytest.approx(apart[0], rel=0.05)
    assert apart[2] < 0.9 * apart[1]
    assert row["observed_mean"] == 1 > row["null_mean"]
    assert row["valleys_mean"] > row["null_valleys_mean"]


def test_parts_of_the_neurons_are_aligned_by_themselves(lab, monkeypatch):
    key = key_of(lab, 1, **QUICK)
    aligned = []
    monkeypatch.setattr(
        "december_plugin.rotation.recipes.align_neurons",
        lambda vectors, *rest: aligned.append(len(vectors)) or align_neurons(vectors, *rest),
    )
    found = lab.tables.WithinModelStability().computed(key, n_draws=2, share=0.5, seed=0)
    assert aligned == [36, 36]
    assert found.overall > 0.9
    lab.tables.WithinModelStability().computed(key_of(lab, 1), n_draws=1, share=0.5, seed=0)
    assert len(aligned) == 2


def test_aligned_clusterings_are_compared_and_named_like_all_others(lab):
    tables = lab.tables
    for table in (tables.SeedAgreement, tables.Consensus, tables.ClusterQuality, tables.ConfigurationAgreement):
        table.populate()
    table = agreement_table(tables, {"model_fn": rotated_lab.OURS}).set_index("label")["agreement_mean"]
    names = ["k-means, readout vectors, direction"]
    names.append(f"{names[0]}, aligned (restarts 1, one mean)")
    assert table[names[1]] == 1
    assert table[names[0]] < 0.5
    assert sum("aligned" in name for name in table.index) == 3
    assert len(set(table.index)) == 4
    pairs = configuration_table(tables, {"model_fn": rotated_lab.OURS})
    assert sorted(set(pairs["alignment"]))[:2] == ["", "aligned (restarts 1, one mean)"]
    describe = describe_jobs(tables)
    key = key_of(lab, 1, **QUICK)
    assert describe("ClusterAssignment", key).endswith("direction, aligned (restarts 1, one mean), seed 1")
    job = {**model_of(lab, key), **alignment_of(lab, key)}
    assert describe("Alignment", job).endswith(", aligned (restarts 1, one mean), seed 1")
    assert tables.vectors.in_words(key) == "directions of readout vectors, aligned (restarts 1, one mean)"


def test_the_report_draws_the_vectors_of_the_model_whose_clusters_it_shows(lab, monkeypatch):
    def of_seed_2(*arguments):
        frame = stored_frame(*arguments)
        frame.attrs["reference_seed"] = 2
        return frame

    def recorded(*arguments, **settings):
        assert settings["seed"] not in drawn
        return drawn.setdefault(settings["seed"], drawn_embedding(*arguments, **settings))

    drawn, stored_frame, drawn_embedding = {}, consensus.consensus_frame, report_analysis.drawn_embedding
    monkeypatch.setattr(consensus, "consensus_frame", of_seed_2)
    monkeypatch.setattr(report_analysis, "drawn_embedding", recorded)
    model = key_of(lab, 1, **QUICK)["model_hash"]
    data = collect_report(lab.tables, settings=ReportSettings(model=model))
    (analysis,) = data.analyses
    assert analysis.aligned.title.endswith("seed 2")
    points = ["x", "y"]
    assert analysis.embedding.neurons[points].equals(drawn[1].neurons[points])
    assert analysis.aligned.coordinates[points].equals(drawn[2].neurons[points])


def test_the_query_of_alignments(lab):
    frame = alignments(lab.tables)
    assert frame.groupby("seed").size().tolist() == [3, 3]
    assert frame["label"].nunique() == 3
    plain = frame[(frame["control"] == "none") & (frame["space"] == "readout")]
    assert (
        plain[["n_neurons", "n_zero", "n_orientations", "n_restarts", "n_means"]].values.tolist()
        == [[72, 0, O, 1, 1.0]] * 2
    )
    assert (plain["alignment_loss"] < plain["loss_before"]).all()
    assert plain["asked_beta"].isna().all()
    assert alignments(lab.tables, {"seed": 2})["seed"].tolist() == [2] * 3
    assert len(alignments(lab.tables, {"seed": 9})) == 0


def test_the_export_of_alignments(lab):
    found = export_tables(lab.tables, settings=ReportSettings())
    (frame,) = next(table for table in found if table.name == "alignments").parts()
    frame = frame[frame["label"].str.contains("aligned")]
    assert frame["seed"].tolist() == [1, 2] * 3
    assert frame["alignment"].nunique() == 3
    assert (frame["n_aligned_neurons"] == 72).all()


def test_the_same_alignment_is_one_entry_and_deleting_it_deletes_what_was_made_of_it(empty_lab):
    tables = empty_lab.tables
    first = tables.Clustering().add_entry("kmeans", 3, alignment={})
    second = tables.Clustering().add_entry("gmm", 3, alignment={"schedule": "ramp", "power": 2})
    assert len(tables.AlignmentSettings()) == 1
    assert first != second
    assert tables.Clustering().add_entry("kmeans", 3, alignment={"seed": 0}, skip_duplicates=True) == first
    tables.Clustering().add_entry("kmeans", 3, alignment=None)
    with pytest.raises(SettingsError, match="this alignment is registered already, as alignment_hash"):
        tables.AlignmentSettings().add_entry()
    with pytest.raises(SettingsError, match="power is 3, but must be 1 or 2"):
        tables.AlignmentSettings().add_entry(power=3)
    with pytest.raises(SettingsError, match="alignment: power is 3, but must be 1 or 2"):
        tables.Clustering().add_entry("kmeans", 3, alignment={"power": 3})
    with pytest.raises(SettingsError, match="december has no setting 'alignment'"):
        tables.Clustering().add_entry("december", alignment={})
    tables.AlignmentSettings().delete()
    assert sorted(tables.Clustering.fetch("method")) == ["december", "kmeans"]


def test_dead_neurons_are_counted_and_stay_what_they_are(empty_lab):
    tables = empty_lab.tables
    rotated_lab.add_models(empty_lab, [1], dead=2)
    tables.Clustering().add_entry("kmeans", 3, normalize="l2", alignment=QUICK)
    tables.Alignment.populate()
    row = tables.Alignment.fetch1()
    assert (row["n_aligned_neurons"], row["n_zero_neurons"]) == (68, 4)
    for angles in tables.Alignment.Session.fetch("angles"):
        assert np.flatnonzero(np.isnan(angles)).tolist() == [0, 1]
    tables.ClusterAssignment.populate()
    key = tables.ClusterAssignment.fetch1("KEY")
    vectors = tables.vectors.of(key).vectors
    assert np.flatnonzero(~vectors.any(axis=1)).tolist() == [0, 1, 40, 41]
    assert tables.ClusterAssignment.fetch1("n_neurons") == 72


def test_imported_models_of_our_functions_are_aligned_without_their_recordings(empty_lab, tmp_path):
    tables = empty_lab.tables
    loaders = rotated_lab.loaders()
    for seed in (1, 2):
        model = equivariant_core_gaussian_readout(loaders, seed, **rotated_lab.SMALL)
        _, _, state = rotated_lab.planted(model, loaders, seed)
        torch.save(state, tmp_path / f"net-{seed}.pth")
        np.save(tmp_path / f"plain-{seed}.npy", rotated_lab.planted_vectors(seed, "first"))
    function = {"fn": rotated_lab.OURS, "config": rotated_lab.SMALL, "input_shape": [1, *[rotated_lab.SIDE] * 2]}
    models = [
        {"name": "with a core", "checkpoints": "net-*.pth", "model": function},
        {"name": "readouts alone", "readouts": "plain-*.npy"},
    ]
    content = {"models": models, "clusterings": [{"method": "kmeans", "n_clusters": 3, "alignment": QUICK}]}
    settings = {"nnfabrik": empty_lab.nnfabrik, "tables": tables, "folder": tmp_path, "fabrikant": "tester"}
    written = import_models(content, **settings)
    assert written.new["AlignmentSettings"] == 1
    tables.Alignment.populate()
    tables.ClusterAssignment.populate()
    rows = tables.Alignment.fetch("seed", "n_orientations", "equivariance_error", as_dict=True)
    assert [(row["seed"], row["n_orientations"]) for row in rows] == [(1, O), (2, O)]
    assert max(row["equivariance_error"] for row in rows) < 1e-5
    assert len(tables.ClusterAssignment()) == 2
    assert alignments(tables)["label"].unique().tolist() == ["with a core"]


def test_a_result_has_the_settings_of_an_alignment_that_was_deleted(empty_lab):
    tables = empty_lab.tables
    rotated_lab.add_models(empty_lab, [1])
    tables.Clustering().add_entry("kmeans", 3, alignment=QUICK)
    tables.Alignment.populate()
    tables.ClusterAssignment.populate()
    (tables.Alignment & tables.Alignment.fetch("KEY")).delete(safemode=False)
    models, assignments = tables.TrainedModel.fetch("KEY"), tables.ClusterAssignment.fetch("KEY")
    rows = dict(transfer.result_rows(tables, models=models, configurations=assignments))
    settings, clusterings = rows["AlignmentSettings"], rows["Clustering"]
    assert [row["alignment_hash"] for row in settings] == [row["alignment_hash"] for row in clusterings]
    assert rows["Alignment"] == []


def test_vectors_are_not_read_before_they_are_aligned(empty_lab):
    tables = empty_lab.tables
    rotated_lab.add_models(empty_lab, [1])
    clustering = tables.Clustering().add_entry("kmeans", 3, alignment=QUICK)
    assert len(tables.ClusterAssignment().key_source) == 0
    with pytest.raises(EmbeddingError, match=r"are not aligned yet; `december worker` aligns them \(Alignment\)"):
        tables.vectors.of({**tables.TrainedModel.fetch1("KEY"), **clustering})


def test_comparing_aligned_clusters_needs_covariances_of_equivariant_models_alone(empty_lab):
    tables = empty_lab.tables
    rotated_lab.add_models(empty_lab, [1])
    empty_lab.train("baseline", [1])
    tables.ClusterConfusionSettings().add_entry(clusterings=["kmeans"])
    assert len(tables.FeatureCovariance().key_source) == 0
    tables.Clustering().add_entry("kmeans", 3, alignment=QUICK)
    assert tables.FeatureCovariance().key_source.fetch("model_fn").tolist() == [rotated_lab.OURS]
    tables.Clustering().add_entry("kmeans", 3)
    assert len(tables.FeatureCovariance().key_source) == 2


def test_clusters_of_a_labs_own_model_are_compared_once_its_orientations_are_known(declared_own):
    lab = emptied_own(declared_own)
    rotated_lab.add_models(lab, [1], model=OWN)
    tables = lab.tables
    tables.Clustering().add_entry("kmeans", 3)
    tables.ClusterAssignment.populate()
    tables.ClusterConfusionSettings().add_entry(responses="images")
    assert len(tables.ClusterConfusion().key_source) == 1  # nothing will tell them
    tables.Clustering().add_entry("kmeans", 3, alignment=QUICK)
    assert len(tables.ClusterConfusion().key_source) == 0
    tables.Alignment.populate()
    tables.ClusterConfusion.populate()
    assert tables.ClusterConfusion.fetch("n_orientations").tolist() == [O]


def test_clusters_of_a_labs_own_model_that_is_not_aligned_are_compared_at_all_orientations(declared_own):
    lab = emptied_own(declared_own)
    rotated_lab.add_models(lab, [1], model=OWN)
    rotated_lab.add_models(lab, [1], model=OWN, says=False)
    lab.tables.Clustering().add_entry("kmeans", 3)
    lab.tables.ClusterAssignment.populate()
    lab.tables.ClusterConfusionSettings().add_entry(responses="images")
    lab.tables.AlignmentSettings().add_entry(**QUICK)
    # As of DECEMBer's models, which are never aligned.
    lab = emptied_own(declared_own, empty=False, december_trainers=("helpers.rotated_lab.planted",))
    assert len(lab.tables.Alignment().key_source) == 0
    errors = lab.tables.ClusterConfusion.populate(suppress_errors=True)["error_list"]
    assert lab.tables.ClusterConfusion.fetch("n_orientations").tolist() == [O]
    ((_, error),) = errors
    assert "the number of orientations of the model of helpers.rotated_lab.own_model is unknown" in error


def test_cores_of_a_lab_are_checked_with_their_recordings(declared_own):
    lab = emptied_own(declared_own)
    rotated_lab.add_models(lab, [1], model=OWN)
    lab.tables.AlignmentSettings().add_entry(**QUICK)
    lab.tables.Alignment.populate()
    row = lab.tables.Alignment.fetch1()
    assert (row["n_orientations"], row["n_aligned_neurons"]) == (O, 72)
    assert row["equivariance_error"] < 1e-5


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (OWN, {"is_equivariant": False}, r"the core is not rotation-equivariant: turning the images by 90 degrees cha"),
        (OWN, {"says": False}, r"the number of orientations of the model of helpers\.rotated_lab\.own_model is unkno"),
        ("helpers.rotated_lab.coreless_model", {}, r"the model of helpers\.rotated_lab\.coreless_model has no core"),
    ],
)
def test_models_that_are_refused(declared_own, model, config, message):
    lab = emptied_own(declared_own)
    rotated_lab.add_models(lab, [1], model=model, **config)
    lab.tables.Clustering().add_entry("kmeans", 3, alignment=QUICK)
    with pytest.raises(MisfitError, match=message):
        lab.tables.Alignment.populate()
    assert len(lab.tables.Alignment()) == len(lab.tables.Alignment.Session()) == 0
    assert len(lab.tables.ClusterAssignment().key_source) == 0


def emptied_own(lab, *, empty=True, **settings):
    if empty:
        emptied(lab)
    patterns = lab.tables.Alignment.equivariant_models
    return open_lab(lab.tables.schema.database, equivariant_models=patterns, **settings)


def test_a_result_with_other_angles_or_another_covariance_is_refused(lab):
    tables = lab.tables
    models = tables.Alignment.fetch(*tables.TrainedModel.primary_key, as_dict=True)
    models = list({tuple(key.values()): key for key in models}.values())
    rows = dict(transfer.result_rows(tables, models=models, configurations=[]))

    def refused(name, column, value, said):
        changed = [{**rows[name][0], column: value}, *rows[name][1:]]
        with pytest.raises(SettingsError, match=rf"{name} already has a row with the key .*, but with another {said}"):
            transfer.insert_rows(tables, name, changed)

    def accepted(name, column, value):
        changed = [{**rows[name][0], column: value}, *rows[name][1:]]
        with tables.schema.connection.transaction:
            assert transfer.insert_rows(tables, name, changed) == 0

    for name in ("FeatureCovariance", "Alignment", "Alignment.Session"):
        assert rows[name]
        assert transfer.insert_rows(tables, name, rows[name]) == 0
    angles = rows["Alignment.Session"][0]["angles"]
    turned = np.where(np.arange(len(angles)) == 1, (angles + 0.3) % (2 * np.pi), angles)
    refused("Alignment.Session", "angles", turned, "angles")
    refused("Alignment.Session", "angles", angles[:-1], "angles")
    refused("Alignment.Session", "angles", np.where(np.arange(len(angles)) == 1, np.nan, angles), "angles")
    refused("Alignment.Session", "aligned_unit_ids", rows["Alignment.Session"][0]["aligned_unit_ids"] + 1, "aligned_un")
    refused("Alignment", "n_orientations", 2, "n_orientations")
    accepted("Alignment.Session", "angles", (angles + 1e-6) % (2 * np.pi))  # of a machine that rounds otherwise
    accepted("Alignment.Session", "angles", (angles - angles[1]) % (2 * np.pi) + angles[1])
    covariance = rows["FeatureCovariance"][0]["covariance"]
    refused("FeatureCovariance", "covariance", 1.1 * covariance, "covariance")
    accepted("FeatureCovariance", "covariance", covariance * (1 + 1e-5))
