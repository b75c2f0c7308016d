"""Figures: what is drawn, not only that something is."""

import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from sklearn.metrics import silhouette_score

from december_plugin.errors import SettingsError
from december_plugin.plots import (
    agreement_figure,
    drawn_neurons,
    embedding_figure,
    method_style,
    method_styles,
    save_figure,
    training_curves_figure,
    tsne_coordinates,
    tsne_settings,
)
from december_plugin.plots.style import GROUP_COLORS, PALE

METHODS = (
    "DECEMber, strength auto",
    "DECEMber, strength 1",
    "DECEMber, strength 100",
    "DECEMber, strength 0 (control)",
    "Gaussian mixture",
    "k-means",
    "t mixture",
    "k-means, end of pretraining (control)",
    "t mixture, end of pretraining (control)",
)


def agreement_table(methods=METHODS, counts=(4, 6, 8), **columns):
    rows = [
        {
            "method": method,
            "n_clusters": count,
            "ari_mean": 0.3 + 0.03 * i + 0.01 * k,
            "ari_sd": 0.01 * (i + 1),
            "n_pairs": 3,
        }
        for i, method in enumerate(methods)
        for k, count in enumerate(counts)
    ]
    return pd.DataFrame(rows).assign(**columns)


def curves(*, start=None, n_epochs=6, seed=0, loss=(100.0, 50.0)):
    """One run; with ``start``, a clustering loss after that many epochs."""
    epoch = np.arange(1, n_epochs + 1)
    clustered = epoch > (n_epochs if start is None else start)
    nan = np.full(n_epochs, np.nan)
    return {
        "epoch": epoch,
        "phase": clustered.astype(int),
        "train_loss": 10.0 / epoch,
        "validation_correlation": 0.1 * epoch + 0.01 * seed,
        "learning_rate": np.full(n_epochs, 0.01),
        "clustering_loss": np.where(clustered, np.linspace(*loss, n_epochs), nan),
        "changed_assignments": np.where(clustered, 0.02 * epoch, nan),
    }


def lines_of(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def legend_texts(owner):
    legends = owner.legends if hasattr(owner, "legends") else [owner.get_legend()]
    return [text.get_text() for text in legends[0].get_texts()]


def texts_of(ax):
    return [text.get_text() for text in ax.texts]


@pytest.fixture(scope="module")
def blobs():
    """Three well separated groups of 40 vectors."""
    generator = np.random.default_rng(1)
    types = np.repeat([0, 1, 2], 40)
    return generator.normal(size=(3, 8))[types] * 3 + generator.normal(size=(120, 8)) * 0.4, types


@pytest.fixture(scope="module")
def nine_methods():
    """Agreement between seeds alone."""
    figure = agreement_figure(agreement_table())
    figure.draw_without_rendering()
    return figure


@pytest.fixture(scope="module")
def all_panels():
    """Everything that the agreement figure can show."""
    more = {"types_ari_mean": 0.5, "types_ari_sd": 0.1, "test_correlation_mean": 0.25, "test_correlation_sd": 0.01}
    figure = agreement_figure(agreement_table(**more), n_types=6)
    figure.draw_without_rendering()
    return figure


@pytest.fixture(scope="module")
def coordinates(blobs):
    return tsne_coordinates(blobs[0], seed=0)


@pytest.fixture(autouse=True)
def _matplotlib_as_before():
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before


# --- styles of methods --------------------------------------------------------------------------------------------


def test_each_method_has_a_colour_of_its_family():
    assert method_style("DECEMber, strength auto").color == "#0072B2"
    assert method_style("Gaussian mixture").color == method_style("GMM, post hoc").color == "#D55E00"
    assert method_style("k-means").color == "#009E73"
    assert method_style("baseline").color == "#4D4D4D"
    assert method_style("t mixture").color == method_style("Student-t mixture").color
    # The method comes first, what it was applied to comes after it.
    assert method_style("k-means on DECEMber readouts").color == "#009E73"


def test_december_is_emphasised_and_in_one_family_of_hue():
    december = [method_style(label) for label in METHODS if label.startswith("DECEMber")]
    others = [method_style(label) for label in METHODS if not label.startswith("DECEMber")]
    assert min(s.linewidth for s in december) > max(s.linewidth for s in others)
    assert min(s.zorder for s in december) > max(s.zorder for s in others)
    for style in december:
        red, _, blue = matplotlib.colors.to_rgb(style.color)
        assert blue > red + 0.2


def test_stronger_clustering_is_darker():
    labels = [f"DECEMber, strength {strength}" for strength in ("0.01", "0.1", "1", "10", "100", "1e3", "1e4")]
    luminance = [np.dot(matplotlib.colors.to_rgb(method_style(label).color), (0.21, 0.72, 0.07)) for label in labels]
    assert luminance == sorted(luminance, reverse=True)
    assert len({method_style(label).marker for label in labels}) == 7
    assert method_style("DECEMber, far too strong").color == method_style("DECEMber, strength 1e4").color


@pytest.mark.parametrize(
    "label",
    [
        "k-means, end of pretraining (control)",
        "k-means (control)",
        "k-means, end of pretraining",
        "DECEMber, strength 0",
        "DECEMber, strength 0.0",
    ],
)
def test_controls_are_dashed_and_hollow(label):
    style = method_style(label)
    assert (style.linestyle, style.filled) == ("--", False)


@pytest.mark.parametrize("label", ["k-means", "DECEMber, strength 0.5", "DECEMber, strength 0.01", "DECEMber"])
def test_other_methods_are_solid_and_filled(label):
    style = method_style(label)
    assert (style.linestyle, style.filled) == ("-", True)


def test_a_constant_target_is_dash_dotted():
    assert method_style("DECEMber, strength 1, constant target").linestyle == "-."


def test_control_has_the_colour_of_its_method():
    assert method_style("t mixture, end of pretraining (control)").color == method_style("t mixture").color


def test_no_two_methods_of_a_figure_look_alike():
    labels = [*METHODS, *(f"DECEMber, strength auto, K = {k}" for k in (5, 10, 20, 40, 80, 100))]
    styles = method_styles(labels)
    assert list(styles) == labels
    assert len(set(styles.values())) == len(labels)
    assert len({(style.color, style.marker, style.linestyle) for style in styles.values()}) == len(labels)


def test_styles_do_not_depend_on_the_order_of_the_labels():
    labels = ["DECEMber, K = 10", "DECEMber, K = 9", "k-means"]
    assert method_styles(labels) == method_styles(labels[::-1])
    # 9 comes before 10.
    assert method_styles(labels)["DECEMber, K = 9"] == method_style("DECEMber, K = 9")


# --- agreement against K ------------------------------------------------------------------------------------------


def test_agreement_draws_the_values_of_the_table(nine_methods):
    (ax,) = nine_methods.axes
    assert len(ax.containers) == 9
    container = next(c for c in ax.containers if c.get_label() == "Gaussian mixture")
    line, _, (bars,) = container
    np.testing.assert_array_equal(line.get_xdata(), [4, 6, 8])
    np.testing.assert_allclose(line.get_ydata(), [0.42, 0.43, 0.44])
    np.testing.assert_allclose([s[:, 1] for s in bars.get_segments()], [[0.37, 0.47], [0.38, 0.48], [0.39, 0.49]])
    assert legend_texts(nine_methods) == list(METHODS)
    assert ax.get_title(loc="left") == "Agreement between seeds"
    assert "mean ± SD over 3 pairs of seeds" in texts_of(ax)
    assert ax.get_xlabel() == "number of clusters K"
    assert [tick for tick in ax.get_xticks() if tick in (4, 6, 8)] == [4, 6, 8]


def test_agreement_styles_are_those_of_the_methods(nine_methods):
    (ax,) = nine_methods.axes
    for label, line in ((c.get_label(), c[0]) for c in ax.containers):
        style = method_style(label)
        assert to_hex(line.get_color()).upper() == style.color.upper()
        assert line.get_marker() == style.marker
        assert line.get_linestyle() == style.linestyle
        assert line.get_linewidth() == style.linewidth


def test_error_bars_of_methods_do_not_overlap(nine_methods):
    (ax,) = nine_methods.axes
    at_six = sorted(bars.get_transform().transform(bars.get_segments()[1])[0, 0] for _, _, (bars,) in ax.containers)
    points = np.diff(at_six) * 72 / nine_methods.dpi
    assert points.min() >= 2.0
    center = ax.transData.transform((6, 0.5))[0]
    assert np.mean(at_six) == pytest.approx(center, abs=0.5)
    # All of them are inside of the panel, also at the first and the last K.
    for _, _, (bars,) in ax.containers:
        for segment in bars.get_segments():
            inside = ax.transAxes.inverted().transform(bars.get_transform().transform(segment))
            assert ((inside > 0) & (inside < 1)).all()


def test_agreement_has_panels_for_what_the_table_has(all_panels):
    titles = [ax.get_title(loc="left") for ax in all_panels.axes]
    assert titles == ["Agreement between seeds", "Agreement with known types", "Predictive performance"]
    unknown = agreement_table(methods=METHODS[:2], types_ari_mean=np.nan, types_ari_sd=np.nan)
    assert [ax.get_title(loc="left") for ax in agreement_figure(unknown).axes] == ["Agreement between seeds"]


def test_number_of_types_is_marked_in_their_panel_only(all_panels):
    seeds, types, performance = all_panels.axes
    assert "6 types" in texts_of(types)
    assert not [text for text in texts_of(seeds) + texts_of(performance) if "types" in text]
    assert [list(line.get_xdata()) for line in types.get_lines() if line.get_linestyle() == ":"] == [[6, 6]]


def test_methods_on_the_same_models_share_a_line_of_test_correlation():
    table = agreement_table(methods=("DECEMber", "Gaussian mixture", "k-means"))
    table["test_correlation_mean"] = [0.25, 0.26, 0.27] + 6 * [0.24]
    table["test_correlation_sd"] = 0.01
    seeds, performance = agreement_figure(table).axes
    styles = {c.get_label(): c[0].get_linestyle() for c in performance.containers}
    assert styles == {"DECEMber": "-", "Gaussian mixture": "None", "k-means": "None"}
    np.testing.assert_array_equal(lines_of(performance)["_shared"].get_ydata(), [0.24, 0.24, 0.24])
    assert {c[0].get_linestyle() for c in seeds.containers} == {"-"}


def test_unknown_sd_has_no_bar_and_unknown_mean_no_point():
    table = agreement_table(methods=("k-means",), ari_sd=[0.1, np.nan, 0.1])
    table.loc[2, "ari_mean"] = np.nan
    (ax,) = agreement_figure(table).axes
    line, _, (bars,) = ax.containers[0]
    np.testing.assert_array_equal(line.get_xdata(), [4, 6])
    assert [len(segment) for segment in bars.get_segments() if len(segment)] == [2]


def test_clusters_over_a_wide_range_are_logarithmic():
    for largest, scale in ((40, "log"), (39, "linear")):
        table = agreement_table(methods=METHODS[:1], counts=(5, 10, largest))
        assert agreement_figure(table).axes[0].get_xscale() == scale


@pytest.mark.parametrize("counts", [(6,), (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100), tuple(range(2, 60))])
def test_ticks_are_readable_at_any_number_of_k(counts):
    figure = agreement_figure(agreement_table(methods=METHODS[:1], counts=counts))
    figure.draw_without_rendering()
    (ax,) = figure.axes
    low, high = ax.get_xlim()
    boxes = [
        label.get_window_extent()
        for label, at in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)
        if low <= at <= high
    ]
    assert boxes
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_the_legend_covers_no_panel(nine_methods, all_panels):
    for figure in (nine_methods, all_panels):
        legend = figure.legends[0].get_window_extent()
        assert not any(ax.get_window_extent().overlaps(legend) for ax in figure.axes)
        assert legend.x0 >= 0
        assert legend.x1 <= figure.bbox.x1
        assert legend.y0 >= 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            [1, 2],
            "the table is list; it must be a pandas.DataFrame with the columns method, n_clusters, ari_mean, ari_sd, "
            "n_pairs.",
        ),
        (
            agreement_table().drop(columns="ari_sd"),
            "the table has no column 'ari_sd'. Needed: method, n_clusters, ari_mean, ari_sd, n_pairs. "
            "It has: method, n_clusters, ari_mean, n_pairs.",
        ),
        (
            agreement_table().iloc[:0],
            "the table has no rows: no agreement has been computed yet that could be drawn.",
        ),
        (
            pd.concat([agreement_table(), agreement_table().iloc[[4]]]),
            "the table has more than one row for 'DECEMber, strength 1' with K = 6; one row per method and K can be "
            "drawn. Draw one dataset and model at a time.",
        ),
        (agreement_table(ari_mean=np.nan), "the column 'ari_mean' of the table holds no finite value."),
        (agreement_table(ari_sd=-0.1), "the column 'ari_sd' of the table holds a negative standard deviation."),
        (agreement_table(ari_mean="high"), "the column 'ari_mean' of the table holds values that are no numbers."),
        (agreement_table(n_clusters=0), "the column 'n_clusters' of the table must hold integers of at least 1."),
        (
            agreement_table(methods=("",)),
            "a method of the table is ''; it must be a text that the figure can show.",
        ),
    ],
)
def test_tables_that_cannot_be_drawn(table, message):
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        agreement_figure(table)


def test_the_table_is_left_alone():
    table = agreement_table(methods=METHODS[:1], ari_mean=1)
    before = table.copy()
    agreement_figure(table)
    pd.testing.assert_frame_equal(table, before)


# --- t-SNE --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_neurons", "perplexity", "exaggeration", "learning_rate"),
    [
        (14_000, 140.0, 1400.0, 350.0),  # seven mice, as in the paper
        (3_000, 30.0, 300.0, 75.0),
        (500, 30.0, 50.0, 50.0),
        (150, 10.0, 15.0, 50.0),
        (20, 2.0, 2.0, 10.0),
    ],
)
def test_settings_follow_the_guideline(n_neurons, perplexity, exaggeration, learning_rate):
    settings = tsne_settings(n_neurons)
    assert settings.perplexity == pytest.approx(perplexity)
    assert settings.early_exaggeration == pytest.approx(exaggeration)
    # A learning rate of 1 without the gradient's factor of 4.
    assert settings.early_learning_rate == pytest.approx(0.25)
    assert settings.learning_rate == pytest.approx(learning_rate)


def test_coordinates_separate_groups(blobs, coordinates):
    assert coordinates.shape == (120, 2)
    assert coordinates.dtype == np.float64
    assert silhouette_score(coordinates, blobs[1]) > 0.5
    np.testing.assert_allclose(coordinates.mean(axis=0), 0, atol=1e-6)


def test_coordinates_repeat_and_do_not_depend_on_the_scale():
    vectors = np.random.default_rng(2).normal(size=(20, 4))
    first = tsne_coordinates(vectors, seed=3)
    np.testing.assert_array_equal(tsne_coordinates(vectors, seed=3), first)
    np.testing.assert_array_equal(tsne_coordinates(vectors * 2.0**-20, seed=3), first)


def test_overlapping_groups_do_not_shrink_to_a_point():
    # The exaggerated stage shrinks this cloud to 1e-6; scikit-learn's second stage alone would leave it there.
    cloud = np.random.default_rng(0).normal(size=(200, 16))
    spread = tsne_coordinates(cloud, seed=0).std(axis=0)
    assert (spread > 3).all()


def test_coordinates_of_vectors_along_a_line_and_in_one_dimension():
    along = np.linspace(-1, 1, 20)
    for vectors in (along[:, None], np.outer(along, np.ones(5)) * 1e-6):
        assert np.isfinite(tsne_coordinates(vectors, seed=0)).all()


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros(5), "the readout vectors have shape (5,); (N, D) is needed, with N and D at least 1."),
        (np.zeros((0, 4)), "the readout vectors have shape (0, 4); (N, D) is needed, with N and D at least 1."),
        ([["a", "b"]], "the readout vectors are not numbers; an array of shape (N, D) is needed."),
        (
            np.array([[1.0, np.nan], [np.inf, 1.0], [1.0, 2.0]]),
            "2 of 3 readout vectors hold NaN or infinite values. Leave these neurons out, or look at the training that "
            "made them.",
        ),
        (
            np.eye(9),
            "t-SNE needs at least 10 readout vectors; there are 9. Draw more neurons, or pass coordinates.",
        ),
        (
            np.ones((12, 3)),
            "all 12 readout vectors are the same, so that there is nothing to embed. Was the model trained?",
        ),
    ],
)
def test_vectors_that_cannot_be_embedded(vectors, message):
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        tsne_coordinates(vectors, seed=0)


# --- the embedding figure -----------------------------------------------------------------------------------------


def grid(n=100):
    """Coordinates and vectors for figures that need no t-SNE."""
    points = np.column_stack([np.arange(n) % 10, np.arange(n) // 10]).astype(float)
    return points, np.column_stack([points, points])


def drawn_points(ax):
    """Colour of every point that is drawn, by its coordinates."""
    found = {}
    for collection in ax.collections:
        colors = collection.get_facecolors()
        offsets = np.asarray(collection.get_offsets())
        colors = np.broadcast_to(colors, (len(offsets), 4)) if len(offsets) else colors
        found |= {tuple(point): to_hex(color).upper() for point, color in zip(offsets, colors, strict=False)}
    return found


def test_same_coordinates_in_all_panels(blobs, coordinates):
    vectors, types = blobs
    figure = embedding_figure(vectors, {"DECEMber cluster": types + 4, "planted type": [f"t{t}" for t in types]})
    first, second = figure.axes
    assert drawn_points(first) == drawn_points(second)
    assert len(drawn_points(first)) == 120
    assert first.get_xlim() == second.get_xlim()
    np.testing.assert_allclose(np.ptp(first.get_xlim()), np.ptp(first.get_ylim()))
    # The coordinates are t-SNE's, and each point has the colour of its neuron.
    colors = drawn_points(first)
    by_type = [{colors[tuple(point)] for point in coordinates[types == t]} for t in range(3)]
    assert by_type == [{GROUP_COLORS[0]}, {GROUP_COLORS[1]}, {GROUP_COLORS[2]}]
    assert figure.get_supxlabel() == "t-SNE of 120 readout vectors"


def test_panels_have_titles_legends_and_no_ticks():
    points, vectors = grid()
    labels = np.repeat([10, 9], 50)
    figure = embedding_figure(vectors, {"cluster": labels, "half": labels == 9}, coordinates=points)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["cluster", "half"]
    assert figure.axes[0].get_title(loc="right") == "2 groups"
    assert legend_texts(figure.axes[0]) == ["9 (50)", "10 (50)"]
    assert legend_texts(figure.axes[1]) == ["False (50)", "True (50)"]
    for ax in figure.axes:
        assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
        assert ax.get_aspect() == 1


def test_legend_is_read_by_rows():
    points, vectors = grid()
    labels = np.repeat(np.arange(10), 10)
    (ax,) = embedding_figure(vectors, {"cluster": labels}, coordinates=points).axes
    ax.figure.draw_without_rendering()
    texts = ax.get_legend().get_texts()
    rows = sorted(texts, key=lambda t: (-round(t.get_window_extent().y0), t.get_window_extent().x0))
    assert [text.get_text() for text in rows] == [f"{i} (10)" for i in range(10)]


def test_neurons_without_label_are_grey_and_below():
    points, vectors = grid()
    labels = np.array(["a", None, "", -1, np.nan, pd.NA, "b"] + 93 * ["a"], dtype=object)
    (ax,) = embedding_figure(vectors, {"type": labels}, coordinates=points).axes
    colors = drawn_points(ax)
    assert [colors[tuple(point)] for point in points[:7]] == [GROUP_COLORS[0], *5 * [PALE], GROUP_COLORS[1]]
    grey, known = ax.collections
    assert grey.get_zorder() < known.get_zorder()
    assert legend_texts(ax) == ["a (94)", "b (1)", "no label (5)"]


def test_groups_that_share_neurons_share_a_colour():
    points, vectors = grid()
    types = np.repeat(["a", "b"], 50)
    clusters = np.where(types == "a", 7, 3)
    clusters[:5] = 5
    some = np.where(np.arange(100) < 90, "", "b")
    figure = embedding_figure(vectors, {"cluster": clusters, "type": types, "some": some}, coordinates=points)
    by_cluster, by_type, by_some = (drawn_points(ax) for ax in figure.axes)
    assert by_type[tuple(points[10])] == by_cluster[tuple(points[10])] == GROUP_COLORS[0]
    assert by_type[tuple(points[99])] == by_cluster[tuple(points[99])] == by_some[tuple(points[99])] == GROUP_COLORS[1]
    assert by_cluster[tuple(points[0])] not in set(by_type.values())


def test_many_groups_have_their_names_on_the_points():
    points, vectors = grid()
    labels = np.arange(100) // 5
    (ax,) = embedding_figure(vectors, {"cluster": labels}, coordinates=points).axes
    assert ax.get_legend() is None
    assert ax.get_title(loc="right") == "20 groups"
    assert len(set(drawn_points(ax).values())) == 20
    assert set(texts_of(ax)) <= {str(i) for i in range(20)}
    assert len(texts_of(ax)) >= 15
    for text in ax.texts:
        assert labels[(points == text.get_position()).all(axis=1)] == int(text.get_text())


def test_colours_go_round_after_fifty_groups():
    points, vectors = grid()
    (ax,) = embedding_figure(vectors, {"cluster": np.arange(100)}, coordinates=points).axes
    colors = drawn_points(ax)
    assert colors[tuple(points[3])] == colors[tuple(points[53])]
    assert len(set(GROUP_COLORS)) == len(set(colors.values())) == 50


def test_neurons_without_coordinates_are_left_out():
    points, vectors = grid()
    points[20:] = np.nan
    figure = embedding_figure(vectors, {"cluster": np.arange(100) // 50}, coordinates=points)
    assert len(drawn_points(figure.axes[0])) == 20
    assert figure.get_supxlabel() == "t-SNE of 20 of 100 readout vectors"


def test_so_many_neurons_of_each_session_are_drawn(blobs):
    sessions = ["mouse a"] * 60 + ["mouse b"] * 20 + ["mouse c"] * 40
    drawn = drawn_neurons(120, sessions=sessions, max_neurons_per_session=30, seed=1)
    assert [int(((drawn >= low) & (drawn < high)).sum()) for low, high in ((0, 60), (60, 80), (80, 120))] == [
        30,
        20,
        30,
    ]
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(drawn, drawn_neurons(120, sessions=sessions, max_neurons_per_session=30, seed=1))
    # Another session more or less changes nothing.
    alone = drawn_neurons(60, sessions=sessions[:60], max_neurons_per_session=30, seed=1)
    np.testing.assert_array_equal(alone, drawn[:30])
    assert set(drawn_neurons(120, max_neurons_per_session=30, seed=2)) != set(
        drawn_neurons(120, max_neurons_per_session=30, seed=3)
    )
    figure = embedding_figure(blobs[0], {"type": blobs[1]}, sessions=sessions, max_neurons_per_session=10, seed=1)
    assert len(drawn_points(figure.axes[0])) == 30


def test_thousands_of_points_become_pixels_in_a_vector_graphic():
    points = np.random.default_rng(0).normal(size=(3001, 2))
    (ax,) = embedding_figure(points, {"cluster": np.zeros(3001, int)}, coordinates=points).axes
    assert all(collection.get_rasterized() for collection in ax.collections)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"groupings": {}},
            "there is no grouping to draw; groupings must map a title to labels, e.g. {'cluster': labels}.",
        ),
        (
            {"groupings": {"cluster": [1, 2]}},
            "the grouping 'cluster' has 2 labels for 100 readout vectors; it needs one per vector, in the same order "
            "(None, '' or -1 where there is none).",
        ),
        (
            {"groupings": {"cluster": "aaa"}},
            "the labels of 'cluster' are str; a sequence of labels is needed.",
        ),
        (
            {"groupings": {"cluster": [(1, 2)] * 100}},
            "the grouping 'cluster' has the label (1, 2); a label is a number or a text.",
        ),
        (
            {"coordinates": np.zeros((5, 2))},
            "coordinates has shape (5, 2); (100, 2) is needed, a row for each readout vector (NaN where it is not to "
            "be drawn).",
        ),
        (
            {"coordinates": np.full((100, 2), np.nan)},
            "coordinates holds NaN only, so that there is no neuron to draw.",
        ),
        (
            {"coordinates": np.full((100, 2), np.inf)},
            "coordinates holds infinite values; use NaN for a neuron that is not to be drawn.",
        ),
        ({"sessions": ["a", "b"]}, "sessions has 2 entries for 100 readout vectors; it needs one for each."),
        ({"max_neurons_per_session": 0}, "max_neurons_per_session is 0; it must be an integer of at least 1."),
    ],
)
def test_embeddings_that_cannot_be_drawn(settings, message):
    _, vectors = grid()
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        embedding_figure(vectors, **{"groupings": {"cluster": np.zeros(100, int)}, **settings})


# --- training curves ----------------------------------------------------------------------------------------------


def test_training_curves_draw_every_seed_and_the_mean():
    runs = {
        "baseline": [curves(seed=seed) for seed in range(2)],
        "DECEMber, strength auto": [curves(start=3, seed=seed) for seed in range(3)],
    }
    figure = training_curves_figure(runs)
    performance, loss, changed = figure.axes
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "Predictive performance",
        "Clustering loss",
        "Left their k-means cluster",
    ]
    assert legend_texts(figure) == list(runs)
    by_label = lines_of(performance)
    np.testing.assert_allclose(by_label["baseline"].get_ydata(), 0.1 * np.arange(1, 7) + 0.005)
    np.testing.assert_allclose(by_label["DECEMber, strength auto"].get_ydata(), 0.1 * np.arange(1, 7) + 0.01)
    thin = [line for line in performance.get_lines() if line.get_label() == "_DECEMber, strength auto"]
    assert [line.get_ydata()[0] for line in thin] == pytest.approx([0.10, 0.11, 0.12])
    assert thin[0].get_linewidth() < by_label["DECEMber, strength auto"].get_linewidth()
    assert to_hex(thin[0].get_color()) == "#0072b2"
    assert "baseline" not in lines_of(loss)
    np.testing.assert_allclose(lines_of(changed)["DECEMber, strength auto"].get_ydata()[3:], [0.08, 0.10, 0.12])


def test_beginning_of_the_clustering_is_marked():
    runs = {"early": [curves(start=2)], "late": [curves(start=4)], "late too": [curves(start=4)]}
    figure = training_curves_figure(runs)
    for ax in figure.axes:
        marks = [line for line in ax.get_lines() if line.get_label() == "_clustering begins"]
        assert [list(line.get_xdata()) for line in marks] == [[2, 2], [4, 4]]
    assert texts_of(figure.axes[0]) == ["clustering begins"]


def test_without_clustering_there_is_one_panel_and_no_mark():
    figure = training_curves_figure({"baseline": [curves()]})
    (ax,) = figure.axes
    assert list(lines_of(ax)) == ["baseline"]
    assert texts_of(ax) == []


def test_the_mean_ends_with_the_shortest_run():
    figure = training_curves_figure({"DECEMber": [curves(start=2, n_epochs=6), curves(start=2, n_epochs=4)]})
    by_label = lines_of(figure.axes[0])
    np.testing.assert_array_equal(by_label["DECEMber"].get_xdata(), [1, 2, 3, 4])
    assert by_label["_DECEMber"] is not None
    assert max(len(line.get_xdata()) for line in figure.axes[0].get_lines()) == 6


@pytest.mark.parametrize(("loss", "scale"), [((1000.0, 1.0), "log"), ((100.0, 50.0), "linear")])
def test_clustering_loss_over_decades_is_logarithmic(loss, scale):
    figure = training_curves_figure({"DECEMber": [curves(start=1, n_epochs=20, loss=loss)]})
    assert figure.axes[1].get_yscale() == scale


def test_the_same_method_has_the_same_colour_in_every_figure(nine_methods):
    (agreement,) = nine_methods.axes
    performance = training_curves_figure({"DECEMber, strength 100": [curves(start=2)]}).axes[0]
    line = next(c[0] for c in agreement.containers if c.get_label() == "DECEMber, strength 100")
    assert line.get_color() == lines_of(performance)["DECEMber, strength 100"].get_color()


def without(run, name):
    return {key: value for key, value in run.items() if key != name}


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({}, "there are no training curves to draw; a mapping of labels to curves, one per seed, is needed."),
        ({"a": []}, "there are no curves for 'a'; one mapping per seed is needed."),
        ({"a": curves()}, "the curves of 'a' are dict; a list with one mapping per seed is needed."),
        (
            {"a": [curves(), without(curves(), "phase")]},
            "the curves of 'a', run 2 have no 'phase'. Needed: epoch, phase, validation_correlation, clustering_loss, "
            "changed_assignments.",
        ),
        (
            {"a": [curves() | {"phase": [0, 0]}]},
            "the curves of 'a', run 1 must be equally long, with at least one epoch; they have epoch (6,), phase (2,), "
            "validation_correlation (6,), clustering_loss (6,), changed_assignments (6,).",
        ),
        ({"a": [curves() | {"epoch": ["x"] * 6}]}, "the curves of 'a', run 1 hold values that are no numbers."),
        ({3: [curves()]}, "a label of the training curves is 3; it must be a text that the figure can show."),
    ],
)
def test_curves_that_cannot_be_drawn(runs, message):
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        training_curves_figure(runs)


# --- files --------------------------------------------------------------------------------------------------------


def test_files_are_the_same_bytes_every_time(tmp_path):
    endings = ("png", "svg", "pdf")
    table = agreement_table(methods=METHODS[3:5])
    for folder in ("a", "b"):
        paths = save_figure(agreement_figure(table), tmp_path / folder, "agreement", endings)
        assert paths == [tmp_path / folder / f"agreement.{ending}" for ending in endings]
    for ending in endings:
        first, second = ((tmp_path / folder / f"agreement.{ending}").read_bytes() for folder in ("a", "b"))
        assert first == second


def test_saving_again_gives_the_same_file(tmp_path):
    figure = training_curves_figure({"DECEMber": [curves(start=2)]})
    (path,) = save_figure(figure, tmp_path, "curves", ["svg"])
    first = path.read_bytes()
    save_figure(figure, tmp_path, "curves", ["svg"])
    assert path.read_bytes() == first


def test_text_in_svg_is_text_and_there_is_no_date(tmp_path, nine_methods):
    (path,) = save_figure(nine_methods, tmp_path, "agreement", ["svg"])
    root = ElementTree.parse(path).getroot()
    texts = {"".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert set(METHODS) <= texts
    assert "Agreement between seeds" in texts
    assert "dc:date" not in path.read_text()


def test_png_has_200_dots_per_inch(tmp_path, all_panels):
    (path,) = save_figure(all_panels, tmp_path, "agreement", ["png"])
    width, height = (int.from_bytes(path.read_bytes()[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == (1950, 694)


@pytest.mark.parametrize(
    ("name", "formats", "message"),
    [
        ("a/b", ["png"], "the name of a figure is 'a/b'; it must be a file name without folder and ending."),
        ("", ["png"], "the name of a figure is ''; it must be a file name without folder and ending."),
        ("a", "png", "formats is 'png'; it must be a sequence, e.g. ('png',)."),
        ("a", ["svgg"], "figures cannot be saved as 'svgg'. Did you mean 'svg'? Allowed: "),
    ],
)
def test_names_and_formats_that_cannot_be_saved(tmp_path, name, formats, message):
    figure = training_curves_figure({"baseline": [curves()]})
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}"):
        save_figure(figure, tmp_path, name, formats)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    message = (
        f"the figure curves cannot be written to {tmp_path / 'file' / 'x'}: Not a directory. Choose a folder that "
        "exists or can be created, and that you may write to."
    )
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        save_figure(training_curves_figure({"baseline": [curves()]}), tmp_path / "file" / "x", "curves")


def test_nothing_depends_on_the_process_or_a_window_system():
    code = (
        "import sys; from december_plugin.plots import method_style; print(method_style('spectral clustering')); "
        "print([name for name in ('matplotlib.pyplot', 'datajoint', 'torch') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [str(method_style("spectral clustering")), "[]"]
