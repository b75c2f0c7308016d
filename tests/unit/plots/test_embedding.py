"""t-SNE coordinates and the figure of readout vectors."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from sklearn.metrics import silhouette_score

from december_plugin.errors import SettingsError
from december_plugin.evaluation import tsne
from december_plugin.plots import drawn_neurons, embedding_figure, tsne_coordinates, tsne_settings
from december_plugin.plots.style import GROUP_COLORS, PALE
from helpers.figures import legend_texts, texts_of

pytestmark = pytest.mark.usefixtures("matplotlib_as_before")


@pytest.fixture(scope="module")
def blobs():
    """Three well separated groups of 40 vectors."""
    generator = np.random.default_rng(1)
    types = np.repeat([0, 1, 2], 40)
    return generator.normal(size=(3, 8))[types] * 3 + generator.normal(size=(120, 8)) * 0.4, types


@pytest.fixture(scope="module")
def coordinates(blobs):
    return tsne_coordinates(blobs[0], seed=0)


# --- t-SNE --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_neurons", "perplexity", "exaggeration", "learning_rate"),
    [
        (14_000, 140.0, 1400.0, 1400.0),  # seven mice, as in the paper
        (3_000, 30.0, 300.0, 300.0),
        (500, 30.0, 50.0, 200.0),
        (150, 10.0, 15.0, 200.0),
        (20, 2.0, 2.0, 40.0),
    ],
)
def test_settings_follow_the_guideline(n_neurons, perplexity, exaggeration, learning_rate):
    settings = tsne_settings(n_neurons)
    assert settings.perplexity == pytest.approx(perplexity)
    assert settings.early_exaggeration == pytest.approx(exaggeration)
    assert settings.early_learning_rate == 1.0
    assert settings.learning_rate == pytest.approx(learning_rate)


def test_coordinates_separate_groups(blobs, coordinates):
    assert coordinates.shape == (120, 2)
    assert coordinates.dtype == np.float64
    assert silhouette_score(coordinates, blobs[1]) > 0.5
    np.testing.assert_allclose(coordinates.mean(axis=0), 0, atol=1e-6)


def test_a_learning_rate_is_that_of_the_guideline():
    """One step of openTSNE without momentum is the guideline's, ``h`` times the gradient without its factor of 4."""
    from openTSNE import TSNEEmbedding

    generator = np.random.default_rng(0)
    start = generator.normal(size=(40, 2))
    affinities = tsne._affinities(generator.normal(size=(40, 5)), 10.0)
    p = affinities.P.toarray()
    np.testing.assert_allclose(p.sum(), 1)
    alpha, h = 4.0, 1.0
    expected = start.copy()
    weights = 1 / (1 + ((start[:, None] - start) ** 2).sum(axis=2))
    np.fill_diagonal(weights, 0)
    z = weights.sum()
    for i in range(40):
        for j in range(40):
            q = weights[i, j] / z
            expected[i] += h * (alpha * p[i, j] * q * z - q**2 * z) * (start[j] - start[i])
    embedding = TSNEEmbedding(start, affinities, negative_gradient_method="bh", theta=0.0)
    moved = np.asarray(embedding.optimize(n_iter=1, exaggeration=alpha, learning_rate=h, momentum=0.0)) - start
    # What openTSNE adds: a gain per coordinate, 1.2 for all in the first step, and the centre stays at 0.
    centred = moved / 1.2 - (expected - start)
    np.testing.assert_allclose(centred - centred.mean(axis=0), 0, atol=1e-12)


def test_neighbours_are_exact_and_threads_change_nothing(monkeypatch):
    vectors = np.random.default_rng(4).normal(size=(60, 5))
    distances = np.linalg.norm(vectors[:, None] - vectors, axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = {(i, j) for i in range(60) for j in np.argsort(distances[i])[:12]}
    found = {pair for i, j in zip(*tsne._affinities(vectors, 4.0).P.nonzero(), strict=True) for pair in ((i, j),)}
    assert {(i, j) for i, j in nearest} | {(j, i) for i, j in nearest} == found
    monkeypatch.setattr(tsne, "_ITERATIONS", 5)
    monkeypatch.setattr(tsne, "_EXAGGERATED_ITERATIONS", 5)
    monkeypatch.setattr(tsne, "_n_threads", lambda n: 1)
    alone = tsne_coordinates(vectors, seed=0)
    monkeypatch.setattr(tsne, "_n_threads", lambda n: 2)
    np.testing.assert_array_equal(tsne_coordinates(vectors, seed=0), alone)


def test_coordinates_repeat_and_do_not_depend_on_the_scale():
    vectors = np.random.default_rng(2).normal(size=(20, 4))
    first = tsne_coordinates(vectors, seed=3)
    np.testing.assert_array_equal(tsne_coordinates(vectors, seed=3), first)
    np.testing.assert_array_equal(tsne_coordinates(vectors * 2.0**-20, seed=3), first)


@pytest.mark.parametrize("shrinking", [1e-9, 0.0])
def test_an_exaggerated_stage_that_shrinks_everything_does_no_harm(monkeypatch, shrinking):
    # With thousands of overlapping neurons it shrinks to 1e-12.
    vectors = np.random.default_rng(0).normal(size=(30, 8))
    run = tsne._run

    def shrunk(affinities, start, seed, **settings):
        return run(affinities, start, seed, **settings) * (shrinking if settings["exaggeration"] > 1 else 1.0)

    monkeypatch.setattr(tsne, "_run", shrunk)
    coordinates = tsne_coordinates(vectors, seed=0)
    distances = np.linalg.norm(coordinates[:, None] - coordinates, axis=2)[np.triu_indices(30, k=1)]
    assert distances.min() > 0.1


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
            "2 of 3 readout vectors hold NaN or infinite values. Leave these neurons out, or check the training that "
            "made them.",
        ),
        (
            np.eye(9),
            "t-SNE needs at least 10 readout vectors; there are 9. Draw more neurons, or pass coordinates.",
        ),
        (
            np.ones((12, 3)),
            "all 12 readout vectors are the same, so they cannot be embedded. Was the model trained?",
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
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["A  cluster", "B  half"]
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
            "coordinates holds only NaN, so no neuron can be drawn.",
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
