"""The frames of the figures, and the command that draws them, on tables with known content."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import adjusted_rand_score, fowlkes_mallows_score

from december_plugin import plots
from december_plugin.cli import main
from december_plugin.errors import SettingsError
from december_plugin.results import agreement as queries
from december_plugin.results import figure_frames, figures
from helpers import pages, planted_lab
from helpers.figures_lab import validation
from helpers.lab_tables import LAB_TRAINERS, open_lab, truth

pytestmark = pytest.mark.slow(1)

SEEDS = [1, 2]


@pytest.fixture(scope="module")
def lab(new_schema_name):
    lab = open_lab(new_schema_name(), december_trainers=(*LAB_TRAINERS, "helpers.figures_lab.december"))
    datasets = [
        lab.add("dataset", "helpers.planted_lab.loaders"),
        lab.add("dataset", "helpers.planted_lab.loaders", n_images=10),
    ]
    model = lab.add("model", "helpers.planted_lab.model", note="kept")
    settings = [
        {"lr_init": 0.009, "strength": 1.0},
        {"lr_init": 0.009, "strength": 10.0, "n_moved": 8},
        {"lr_init": 0.009, "pretrain_epochs": 5},
        {"lr_init": 0.02, "pretrain_epochs": 5},
        {"lr_init": 0.02},
        {"lr_init": 0.009},
    ]
    trainers = [lab.add("trainer", "helpers.figures_lab.december", **each) for each in settings]
    trainers.append(lab.add("trainer", "helpers.planted_lab.baseline"))
    plan = lab.tables.TrainingPlan()
    plan.add_entries(datasets=datasets[:1], models=[model], trainers=trainers, seeds=SEEDS)
    plan.add_entries(datasets=datasets[1:], models=[model], trainers=trainers[-2:], seeds=SEEDS)
    for seed in (0, 1, 2):
        lab.tables.Clustering().add_entry("kmeans", 5, seed=seed, n_init=1)
    lab.tables.Clustering().add_entry("gmm", 3, n_init=1)
    lab.tables.KnownTypes().add_entry("planted", truth())
    for table in lab.tables.computed:
        table.populate()
    lab.first = datasets[0]
    return lab


def planted(seed: int, n_moved: int = 4) -> np.ndarray:
    return np.concatenate([planted_lab.planted_labels(seed, key, n_moved) for key in planted_lab.SESSIONS])


# --- performance -------------------------------------------------------------------------------------------------


def test_performance_by_strength_pretraining_and_learning_rate(lab):
    frame = figure_frames.performance_frame(lab.tables, lab.first)
    own = frame[frame["trainer_role"] == "december"].set_index(["strength_setting", "pretrain_epochs", "learning_rate"])
    assert sorted(own.index) == [
        ("1", 2, 0.009),
        ("10", 2, 0.009),
        ("auto", 2, 0.009),
        ("auto", 2, 0.02),
        ("auto", 5, 0.009),
        ("auto", 5, 0.02),
    ]
    expected = [validation(seed, 5, 0.02) for seed in SEEDS]
    row = own.loc["auto", 5, 0.02]
    assert (row["validation_correlation_mean"], row["validation_correlation_sd"]) == pytest.approx(
        (np.mean(expected), np.std(expected, ddof=1))
    )
    assert row["n_trainings"] == 2
    # "auto" leads to another strength for every seed.
    assert row["strength"] == pytest.approx(2.0)
    assert own.loc["10", 2, 0.009]["strength"] == 10.0
    assert own.loc["10", 2, 0.009]["gradient_ratio"] == pytest.approx(0.2)
    tested = lab.tables.TestPerformance & lab.first & {"trainer_fn": "helpers.planted_lab.baseline"}
    (baseline,) = frame[frame["trainer_role"] == "baseline"].itertuples()
    assert baseline.test_correlation_mean == pytest.approx(tested.fetch("single_trial_correlation").mean())
    assert np.isnan(baseline.strength)


def test_trainings_that_differ_in_nothing_asked_for_are_taken_together(lab):
    frame = figure_frames.performance_frame(lab.tables, by=["trainer_role"])
    assert frame.groupby("trainer_role")["n_trainings"].apply(sorted).to_dict() == {
        "baseline": [2, 2],
        "december": [2, 12],
    }


def test_performance_by_what_is_not_there(lab):
    message = r"^by has 'lr'; allowed: trainer_role, strength_setting, pretrain_epochs, learning_rate\.$"
    with pytest.raises(SettingsError, match=message):
        figure_frames.performance_frame(lab.tables, by=["lr"])


def test_learning_rates_of_trainers(lab):
    own = lab.add("trainer", "december_plugin.trainers.baseline_trainer")
    lab.add("trainer", "december_plugin.trainers.december_trainer", n_clusters=2, lr_init=0.02)
    lab.add(
        "trainer", "december_plugin.trainers.december_trainer", n_clusters=2, lr_init=0.02, lr_after_pretraining=0.003
    )
    rates = figure_frames.learning_rates(lab.tables)
    by_function = {function: sorted(group["learning_rate"]) for function, group in rates.groupby("trainer_fn")}
    assert by_function["helpers.figures_lab.december"] == [0.009, 0.009, 0.009, 0.009, 0.02, 0.02]
    assert by_function[own["trainer_fn"]] == [0.009]
    assert by_function["december_plugin.trainers.december_trainer"] == [0.003, 0.02]  # the clustering's own counts
    # The lab's own trainer says nothing about its default.
    assert np.isnan(by_function["helpers.planted_lab.baseline"]).all()


# --- agreement ---------------------------------------------------------------------------------------------------


def test_data_sets_have_names_and_numbers_of_neurons(lab):
    frame = figure_frames.datasets_frame(lab.tables)
    assert frame["dataset"].nunique() == 2
    assert set(frame["n_neurons"]) == {sum(planted_lab.SESSIONS.values())}
    assert any("n_images" in name for name in frame["dataset"])


def test_measures_are_those_of_scikit_learn(lab):
    frame = figure_frames.measures_frame(lab.tables, {**lab.first, "method": "gmm"})
    assert set(frame["measure"]) == {"adjusted_rand_index", "fowlkes_mallows", "v_measure"}
    fowlkes = frame[(frame["measure"] == "fowlkes_mallows") & (frame["trainer_role"] == "baseline")]
    assert fowlkes["agreement_mean"].item() == pytest.approx(fowlkes_mallows_score(planted(1), planted(2)))


def test_restarts_of_a_method_on_one_model(lab):
    frame = figure_frames.restarts_frame(lab.tables, lab.first)
    assert set(frame["method"]) == {"kmeans"}
    assert set(frame["n_clusters"]) == {5}
    for _, pairs in frame.groupby(["trainer_hash", "seed"]):
        assert list(zip(pairs["start_a"], pairs["start_b"], strict=True)) == [(0, 1), (0, 2), (1, 2)]
    row = frame.iloc[1].to_dict()
    key = {name: row[name] for name in lab.tables.TrainedModel.primary_key}
    labels = {}
    for assignment in (lab.tables.ClusterAssignment * lab.tables.Clustering & key & {"method": "kmeans"}).fetch("KEY"):
        start = (lab.tables.Clustering & assignment).fetch1("settings")["seed"]
        sessions = (lab.tables.ClusterAssignment.Session & assignment).fetch("labels", order_by="data_key")
        labels[start] = np.concatenate(sessions)
    assert row["ari"] == pytest.approx(adjusted_rand_score(labels[0], labels[2]))


def test_of_several_starts_the_first_is_kept(lab):
    kept = figure_frames.first_starts(lab.tables)
    rows = (lab.tables.Clustering & [{"clustering_hash": hash_} for hash_ in kept]).fetch(as_dict=True)
    assert sorted((row["method"], row["settings"].get("seed")) for row in rows if row["method"] != "december") == [
        ("gmm", 0),
        ("kmeans", 0),
    ]
    assert len(rows) == 3


def test_embeddings_of_the_same_neurons(lab):
    of_one_seed = {"trainer_fn": "helpers.figures_lab.december", "seed": 1}
    keys = (lab.tables.ClusterAssignment & lab.first & of_one_seed).fetch("KEY")
    own = lab.tables.Clustering & {"method": "december"}
    keys = [key for key in keys if own & key][:2]
    frame = figure_frames.embeddings_frame(lab.tables, {"a": keys[0], "b": keys[1]}, max_neurons_per_session=20)
    assert frame.groupby(["label", "data_key"]).size().tolist() == [20, 20, 20, 20]
    neurons = [part[["data_key", "unit_id"]].to_numpy().tolist() for _, part in frame.groupby("label")]
    assert neurons[0] == neurons[1]
    # Each neuron has its own readout vector: neurons of one cluster are neighbours in the picture.
    for _, part in frame.groupby("label"):
        centers = part.groupby("group")[["x", "y"]].transform("mean").to_numpy()
        spread = np.linalg.norm(part[["x", "y"]].to_numpy() - centers, axis=1).mean()
        between = pd.DataFrame(centers).drop_duplicates().to_numpy()
        nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(between, 2))
        assert nearest > 2 * spread


def test_frames_of_the_queries_can_be_drawn_as_they_are(lab):
    table = queries.agreement_table(lab.tables, lab.first)
    (lines, *_) = plots.agreement_figure(table).axes
    assert {text for text in lines.get_legend_handles_labels()[1] if not text.startswith("_")} == set(table["label"])
    drawn = [
        plots.measures_figure(figure_frames.measures_frame(lab.tables, lab.first).dropna(subset="agreement_mean")),
        plots.datasets_figure(figure_frames.datasets_frame(lab.tables).dropna(subset="agreement_mean")),
    ]
    assert all(figure.axes for figure in drawn)


def test_configurations_are_named_by_what_differs(lab):
    table = queries.agreement_table(lab.tables)
    assert not table.duplicated(["dataset_hash", "model_hash", "n_clusters", "label"]).any()
    assert {label for label in table["label"] if label.startswith("k-means")} == {
        *("k-means (seed 0)", "k-means (seed 1)", "k-means (seed 2)"),
    }
    assert set(figure_frames.datasets_frame(lab.tables)["dataset"]) == {
        *("helpers.planted_lab.loaders {}", "helpers.planted_lab.loaders {'n_images': 10}"),
    }


# --- the command -------------------------------------------------------------------------------------------------


def test_every_figure_that_the_tables_allow(lab, tmp_path, capsys, monkeypatch):
    assert figures.FORMATS == ("svg", "pdf", "png")
    monkeypatch.setattr(figures, "FORMATS", ("svg",))  # the tests of save_figure have the others
    schema = lab.tables.schema.database
    assert main(["figures", str(tmp_path / "figures"), "--schema", schema, "--nnfabrik", schema]) == 0
    out = capsys.readouterr().out
    drawn, _, left_out = out.partition("\nleft out\n")
    (ending,) = {line.split("figures/strength")[1] for line in drawn.splitlines() if "strength" in line}
    model = ending.partition(".")[0]
    together = [f"{name}{model}" for name in ("agreement", "known-types", "strength", "pretraining", "learning-rates")]
    together += [f"{name}{model}" for name in ("restarts", "measures", "consensus")]
    for name in [*together, "datasets"]:
        assert (tmp_path / "figures" / f"{name}.svg").stat().st_size > 3000, name
    reasons = {line.split()[0]: line.split(maxsplit=1)[1].strip() for line in left_out.splitlines()}
    assert reasons[f"null{model}"] == "no surrogates have been drawn; a sweep asks for them in its section surrogates"
    assert reasons[f"cluster-count{model}"] == (
        "the table has one number of clusters for each method (K = 3, 5); criteria are compared along at least two "
        "of one method."
    )
    assert reasons["equivariant"] == "there is no dataset with both a rotation-equivariant model and another one"
    assert reasons["toy"].startswith("the toy experiment (Figure 2) needs no tables")
    assert "there is one strength of the clustering loss only" in reasons.values()


def test_a_figure_has_its_caption_in_a_text_file(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FORMATS", ("svg",))
    drawn = figures.Captioned(Figure(), "what the criteria pick\n")
    name, paths, reason = figures._drawn("cluster-count", lambda: drawn, tmp_path)
    assert (name, [path.name for path in paths], reason) == (name, ["cluster-count.svg", "cluster-count.txt"], "")
    assert (tmp_path / "cluster-count.txt").read_text(encoding="utf-8") == "what the criteria pick\n"
    (tmp_path / "other.txt").mkdir()
    message = f"the caption of the figure other cannot be written to {tmp_path}: Is a directory. Choose a folder that "
    with pytest.raises(SettingsError, match=re.escape(message)):
        figures._drawn("other", lambda: drawn, tmp_path)


def test_the_example_of_the_page(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("DECEMBER_SCHEMA", "DECEMBER_NNFABRIK"):
        monkeypatch.setenv(name, lab.tables.schema.database)
    names = {}
    for block in pages.claim("docs/figures.md", "python"):
        block.run(names)
    assert [path.name for path in sorted((tmp_path / "figures").iterdir())] == [
        "mine.svg",
        "restarts.pdf",
        "restarts.svg",
    ]


def test_the_page_names_every_figure():
    page = pages.text_of("docs/figures.md")
    for name in (*figures.ANALYSIS_FIGURES, *figures.COMMON_FIGURES):
        assert f"| `{name}` |" in page
    for function in [name for name in plots.__all__ if name.endswith("_figure")]:
        assert function in page


def test_nothing_to_draw(new_schema_name, tmp_path, capsys):
    schema = new_schema_name()
    open_lab(schema)
    assert main(["figures", str(tmp_path), "--schema", schema, "--nnfabrik", schema]) == 1
    assert capsys.readouterr().err == (
        "december: error: there are no assignments yet, so there is nothing to draw. `december register` plans "
        "trainings, `december worker` computes them.\n"
    )
