"""The figures of the paper and those beyond it: what is drawn, and in which colours."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from december_plugin import plots
from december_plugin.evaluation.agreement import pool_mean_sd
from december_plugin.plots.nulls import null_in_words
from december_plugin.plots.style import GROUP_COLORS, PALE, ordered_styles
from helpers import figure_frames as frames
from helpers.figures import legend_texts, lines_of, style_of, texts_of

pytestmark = pytest.mark.usefixtures("matplotlib_as_before")

NULL_METHODS = ("DECEMber, strength auto", "Gaussian mixture", "k-means", "k-means, end of pretraining")
FIGURES = {
    "toy": lambda: plots.toy_figure(*frames.toy(), planted=0.283),
    "confusion": lambda: plots.confusion_figure(frames.confusion()),
    "known types": lambda: plots.known_types_figure(frames.known_types(), frames.confusion()),
    "known types, many": lambda: plots.known_types_figure(frames.known_types((5, 10, 12, 20)), frames.confusion(12)),
    "strength": lambda: plots.strength_figure(
        frames.strength_performance(), frames.strength_agreement(), frames.coordinates()
    ),
    "embeddings": lambda: plots.embedding_panels_figure(frames.coordinates()),
    "pretraining": lambda: plots.pretraining_figure(frames.learning_rates(), frames.pretraining_agreement()),
    "learning rate": lambda: plots.learning_rate_figure(frames.learning_rates((0.1, 1.0))),
    "datasets": lambda: plots.datasets_figure(frames.datasets()),
    "restarts": lambda: plots.restarts_figure(frames.restarts(), frames.restarts()),
    "restarts, many": lambda: plots.restarts_figure(frames.restarts((20, 30, 40))),
    "measures": lambda: plots.measures_figure(frames.measures()),
    "equivariant": lambda: plots.equivariant_figure(
        frames.agreement(frames.EQUIVARIANT), frames.equivariant_performance()
    ),
    "null": lambda: plots.null_figure(frames.nulls(NULL_METHODS)),
    "counts": lambda: plots.cluster_count_figure(frames.cluster_counts(), frames.choices()),
    "consensus": lambda: plots.consensus_figure(frames.consensus()),
    "cluster-tree": lambda: plots.cluster_tree_figure(**frames.tree()),
    "calibration": lambda: plots.calibration_figure(frames.calibration()),
    "cluster confusion": lambda: plots.cluster_confusion_figure(frames.confusion_of_clusters()),
    "block changes": lambda: plots.block_changes_figure(frames.confusion_of_clusters()),
    "alignments": lambda: plots.alignments_figure(frames.alignments()),
    "cluster centres": lambda: plots.cluster_centres_figure(frames.islands()),
}


@pytest.fixture(scope="module")
def drawn():
    """Return a function that draws a figure once."""
    made = {}

    def figure(name):
        if name not in made:
            made[name] = FIGURES[name]()
            with matplotlib.rc_context({"text.hinting": "none"}):
                made[name].draw_without_rendering()
        return made[name]

    return figure


def panel(figure, title):
    """Return the panel with this title, without its letter."""
    found = {ax.get_title(loc="left").partition("  ")[2] or ax.get_title(loc="left"): ax for ax in figure.axes}
    return found[title]


def bars_of(ax):
    """Return label to (marker line, half lengths of the vertical bars)."""
    return {
        c.get_label(): (c[0], [np.ptp(s[:, 1]) / 2 for s in c[2][0].get_segments() if len(s)] if c[2] else [])
        for c in ax.containers
        if hasattr(c, "has_yerr")
    }


# --- all of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_every_text_is_inside_of_the_page_and_no_title_meets_another(drawn, name):
    figure = drawn(name)
    page = figure.bbox.padded(1.5)
    titles = []
    for ax in figure.axes:
        texts = [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        texts += [*ax.get_xticklabels(), *ax.get_yticklabels()]
        for text in texts:
            if text.get_visible() and text.get_text() and _is_shown(ax, text):
                box = text.get_window_extent()
                assert page.contains(box.x0, box.y0), (name, text.get_text())
                assert page.contains(box.x1, box.y1), (name, text.get_text())
        if ax.get_title(loc="left"):
            titles.append(ax._left_title.get_window_extent())
    assert not any(a.overlaps(b) for a, b in itertools.combinations(titles, 2))
    assert figure.get_figwidth() <= 7.2


def _is_shown(ax, text):
    """Ticks outside of the limits have labels that are not drawn."""
    for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        if any(text is tick.label1 and not min(limits) <= tick.get_loc() <= max(limits) for tick in axis.majorTicks):
            return False
    return True


@pytest.mark.parametrize("name", FIGURES)
def test_no_legend_covers_a_panel(drawn, name):
    figure = drawn(name)
    owners = [figure, *figure.subfigs]
    for legend in (legend for owner in owners for legend in owner.legends):
        box = legend.get_window_extent()
        assert not any(ax.get_tightbbox().overlaps(box) for ax in figure.axes)
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1


def test_a_method_has_the_same_colour_in_every_figure(drawn):
    seen = {}
    for name in ("measures", "null", "counts", "datasets", "equivariant", "calibration", "restarts, many"):
        for ax in drawn(name).axes:
            for line in ax.get_lines():
                seen.setdefault(line.get_label(), set()).add(to_hex(line.get_color()))
            for container in ax.containers:
                if hasattr(container, "has_yerr"):
                    seen.setdefault(container.get_label(), set()).add(to_hex(container[0].get_color()))
    for label in ("DECEMber, strength auto", "Gaussian mixture", "k-means", "t mixture"):
        assert seen[label] == {style_of(label).color.lower()}


def test_letters_count_the_panels(drawn):
    for name, n in (("strength", 6), ("pretraining", 3), ("toy", 4), ("datasets", 5), ("learning rate", 4)):
        letters = [title[0] for ax in drawn(name).axes if (title := ax.get_title(loc="left"))]
        assert letters == list("ABCDEF"[:n])


# --- Figure 2 ------------------------------------------------------------------------------------------------------


def test_toy_shows_stages_centres_and_distances(drawn):
    figure = drawn("toy")
    after = lines_of(panel(figure, "after DEC"))
    assert [len(after[f"group {i}"].get_xdata()) for i in (1, 2)] == [200, 50]
    np.testing.assert_allclose(after["centre"].get_xdata(), [0, 0], atol=1e-12)
    assert len(lines_of(panel(figure, "learned weights"))["centre"].get_xdata()) == 0
    distances = lines_of(panel(figure, "Distance between the two centres"))
    collapsing = distances["DEC, gradient through the target"]
    assert collapsing.get_ydata()[-1] == pytest.approx(0.283 * np.exp(-100 / 15))
    assert collapsing.get_color() == style_of("DEC").color
    assert distances["DECEMber, constant target"].get_linestyle() == "--"
    assert list(distances["_planted"].get_ydata()) == [0.283, 0.283]


def test_the_larger_group_has_the_first_colour_whatever_its_number():
    weights, distances = frames.toy()
    swapped = weights.assign(group=np.where(weights["stage"] == "after DEC", 1 - weights["group"], weights["group"]))
    figure = plots.toy_figure(swapped, distances)
    for title in ("learned weights", "after DEC", "after DECEMber"):
        line = lines_of(panel(figure, title))["group 1"]
        assert (len(line.get_xdata()), line.get_color()) == (200, GROUP_COLORS[0])


# --- known types: Figures 3, 8, 16 ---------------------------------------------------------------------------------


def test_confusion_has_counts_and_the_colours_of_shares(drawn):
    (ax, bar) = drawn("confusion").axes
    assert [text for text in texts_of(ax) if text.isdigit()] == ["73", "1", "5", "37", "3", "20", "2", "4"]
    (mesh,) = ax.collections
    shares = np.asarray(mesh.get_array()).reshape(4, 4)
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    assert shares[3, 3] == pytest.approx(4 / 5)
    assert [label.get_text() for label in ax.get_xticklabels()][-1] == "ON (5)"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["3", "4", "5", "6"]
    assert "134 of 145 typed neurons on the diagonal" in texts_of(ax)
    assert bar.get_ylabel() == "share of the type's neurons"


def test_neurons_without_a_cluster_are_no_hits_where_their_row_meets_the_diagonal():
    confusion = pd.DataFrame([[3, 0, 1], [0, 4, 0], [0, 0, 5]], index=[0, 1, -1], columns=["a", "b", "c"])
    (ax, _) = plots.confusion_figure(confusion).axes
    assert "7 of 13 typed neurons on the diagonal" in texts_of(ax)


def test_clusters_without_typed_neurons_are_rows_of_zeros():
    confusion = pd.DataFrame([[3, 0], [0, 0], [0, 0]], index=[1, 2, "unmatched"], columns=["a", "b"])
    (ax, _) = plots.confusion_figure(confusion).axes
    shares = np.asarray(ax.collections[0].get_array()).reshape(3, 2)
    np.testing.assert_array_equal(shares, [[1, 0], [0, 0], [0, 0]])
    assert [text for text in texts_of(ax) if text.isdigit()] == ["3"]


def test_known_types_of_one_k_are_rows_of_methods(drawn):
    figure = drawn("known types")
    ax = panel(figure, "Agreement")
    bars = {c.get_label(): c[0] for c in ax.containers}
    assert bars["k-means: types_agreement"].get_xdata()[0] == pytest.approx(0.6)
    assert bars["k-means: agreement"].get_xdata()[0] == pytest.approx(0.62)
    assert bars["k-means: agreement"].get_color() == style_of("k-means").color
    assert ax.get_yticklabels()[0].get_text() == "DECEMber,\nstrength auto"
    assert legend_texts(figure) == ["with known types", "between seeds"]


def test_known_types_of_many_k_are_lines_with_the_number_of_types(drawn):
    ax = panel(drawn("known types, many"), "Agreement with known types")
    line, sds = bars_of(ax)["Gaussian mixture"]
    np.testing.assert_array_equal(line.get_xdata(), [5, 10, 12, 20])
    np.testing.assert_allclose(sds, 0.03)
    assert list(lines_of(ax)["_types"].get_xdata()) == [12, 12]
    assert "12 types" in texts_of(ax)


# --- Figure 4 ------------------------------------------------------------------------------------------------------


def test_strength_has_performance_ratio_and_agreement(drawn):
    figure = drawn("strength")
    performance = panel(figure, "Performance")
    assert lines_of(performance)["baseline"].get_ydata()[0] == 0.375
    line, (sd,) = bars_of(performance)["DECEMber, strength 10"]
    assert (line.get_xdata()[0], line.get_ydata()[0], sd) == pytest.approx((10, 0.366, 0.003))
    ratio = panel(figure, "Gradient ratio")
    assert lines_of(ratio)["DECEMber, strength 100"].get_ydata()[0] == 0.4
    assert {tuple(lines_of(ratio)[f"_{text}"].get_ydata()) for text in ("strength auto", "locks in from here")} == {
        (0.01, 0.01),
        (0.1, 0.1),
    }
    agreement = panel(figure, "Agreement between seeds")
    assert set(bars_of(agreement)) == set(frames.strength_agreement()["label"])
    for label in ("DECEMber, strength 0.01", "DECEMber, strength 100"):
        assert bars_of(agreement)[label][0].get_color() == style_of(label).color
        assert bars_of(performance)[label][0].get_color() == style_of(label).color


def drawn_colors(ax):
    """Return the colour of every point by its place in the order of painting."""
    shown = [collection for collection in ax.collections if len(collection.get_offsets())]
    return [to_hex(color).upper() for collection in shown for color in collection.get_facecolors()]


def test_embeddings_have_the_same_neurons_and_colours_in_every_panel(drawn):
    axes = drawn("embeddings").axes
    assert [ax.get_title(loc="left") for ax in axes] == [
        "A  baseline",
        "B  DECEMber,\nstrength 0.1",
        "C  DECEMber,\nstrength 1",
    ]
    # The rows of the methods come in different orders; the k-th point of every panel is the same neuron.
    first, *others = [drawn_colors(ax) for ax in axes]
    assert len(first) == 300
    assert set(first) == set(GROUP_COLORS[:6])
    assert others == [first, first]


def test_clusters_that_share_neurons_share_a_colour_across_models():
    coordinates = frames.coordinates(n=60, n_groups=3)
    own = coordinates["label"] == "DECEMber, strength 1"
    coordinates.loc[own, "group"] = (coordinates.loc[own, "group"] + 1) % 3
    coordinates = coordinates.astype({"group": object})
    coordinates.loc[coordinates["unit_id"] == 0, "group"] = None
    axes = plots.embedding_panels_figure(coordinates).axes
    assert drawn_colors(axes[0]) == drawn_colors(axes[2])
    assert drawn_colors(axes[0]).count(PALE) <= 1


def test_tsne_frame_draws_the_same_neurons_of_each_model():
    rng = np.random.default_rng(0)
    neurons = pd.DataFrame({"data_key": ["a"] * 20 + ["b"] * 12, "unit_id": np.arange(32)})
    vectors = {"one": rng.normal(size=(32, 4)), "two": rng.normal(size=(32, 4))}
    groups = {"one": np.arange(32) % 3, "two": np.arange(32) % 2}
    frame = plots.tsne_frame(vectors, neurons, groups, max_neurons_per_session=10)
    one, two = (part.reset_index(drop=True) for _, part in frame.groupby("label"))
    assert one["unit_id"].tolist() == two["unit_id"].tolist()
    assert one.groupby("data_key").size().to_dict() == {"a": 10, "b": 10}
    np.testing.assert_array_equal(one["group"].astype(int), one["unit_id"] % 3)
    expected = plots.tsne_coordinates(vectors["two"][two["unit_id"]], seed=0)
    np.testing.assert_array_equal(two[["x", "y"]], expected)


# --- Figures 5 and 6 -----------------------------------------------------------------------------------------------


def test_pretraining_chooses_the_learning_rate_on_validation(drawn):
    figure = drawn("pretraining")
    rings = lines_of(panel(figure, "Learning rate"))["_best"]
    assert list(rings.get_xdata()) == [0.009, 0.009, 0.003, 0.003]
    chosen = bars_of(panel(figure, "At the best learning rate"))
    assert {label: line.get_xdata()[0] for label, (line, _) in chosen.items()} == {
        f"pretraining {length} epochs": length for length in (5, 10, 20, 40)
    }
    assert chosen["pretraining 20 epochs"][0].get_ydata()[0] == pytest.approx(0.368)
    styles = ordered_styles([5, 10, 20, 40])
    for ax in (panel(figure, "Learning rate"), panel(figure, "Agreement between seeds")):
        assert bars_of(ax)["pretraining 40 epochs"][0].get_color() == styles[40].color
    assert bars_of(panel(figure, "Agreement between seeds"))["Gaussian mixture"][0].get_color() == "#D55E00"


def test_learning_rates_by_strength_on_both_tiers(drawn):
    axes = drawn("learning rate").axes
    assert [ax.get_ylabel() for ax in axes] == ["validation correlation", "", "test correlation", ""]
    assert [ax.get_title(loc="left") for ax in axes[:2]] == ["A  strength 0.1", "B  strength 1"]
    for ax in axes:
        assert ax.get_xscale() == "log"
        np.testing.assert_allclose(bars_of(ax)["pretraining 5 epochs"][0].get_xdata(), [0.001, 0.003, 0.009, 0.027])
    test = bars_of(axes[3])["pretraining 10 epochs"][0].get_ydata()
    validation = bars_of(axes[1])["pretraining 10 epochs"][0].get_ydata()
    np.testing.assert_allclose(validation - test, 0.01)


# --- Figures 7 and 15 ----------------------------------------------------------------------------------------------


def test_the_mean_over_data_sets_is_weighted_and_has_the_total_variance():
    table = frames.datasets(n=3)
    pooled = plots.weighted_agreement(table)
    row = pooled[(pooled["label"] == "Gaussian mixture") & (pooled["n_clusters"] == 15)].iloc[0]
    parts = table[(table["label"] == "Gaussian mixture") & (table["n_clusters"] == 15)]
    a, sd, n = parts["agreement_mean"].to_numpy(), parts["agreement_sd"].to_numpy(), np.array([200, 450, 90])
    w = n / 740
    mean = sum(w * a)
    assert row["agreement_mean"] == pytest.approx(mean)
    assert row["agreement_sd"] == pytest.approx(np.sqrt(sum(w * sd**2) + sum(w * (a - mean) ** 2)))
    assert row["agreement_sd"] == pytest.approx(float(pool_mean_sd(a, sd, n)[1]))
    assert (row["n_datasets"], row["n_neurons"]) == (3, 740)


def test_there_is_no_mean_where_a_data_set_has_no_value():
    table = frames.datasets(n=3)
    table.loc[(table["dataset"] == "retina 2") & (table["n_clusters"] == 5), "agreement_mean"] = np.nan
    assert sorted(set(plots.weighted_agreement(table)["n_clusters"])) == [10, 15, 20, 25, 30]


def test_data_sets_have_panels_of_one_scale(drawn):
    axes = drawn("datasets").axes
    assert [ax.get_title(loc="left") for ax in axes] == [
        "A  All 4 datasets",
        *(f"{letter}  retina {i}" for i, letter in enumerate("BCDE", start=1)),
    ]
    assert len({ax.get_ylim() for ax in axes}) == 1
    assert len({ax.get_xlim() for ax in axes}) <= 2
    assert len(axes[0].collections) == 2  # corridors
    assert "200 neurons" in texts_of(axes[1])
    assert len(plots.datasets_figure(frames.datasets(n=1)).axes) == 1


def test_long_names_of_data_sets_fit_and_keep_their_ends():
    table = frames.datasets(n=2)
    table["dataset"] = "two simulated sessions with planted types and noise, " + table["dataset"]
    figure = plots.datasets_figure(table)
    figure.draw_without_rendering()
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[1:] == ["B  two simulated se…etina 1", "C  two simulated se…etina 2"]
    boxes = [ax._left_title.get_window_extent() for ax in figure.axes]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


# --- Figures 10, 11, 13, 14 ----------------------------------------------------------------------------------------


def test_restarts_show_every_pair_and_their_mean(drawn):
    ax = panel(drawn("restarts"), "Between random starts")
    pairs = frames.restarts()
    shown = np.concatenate([line.get_ydata() for line in ax.get_lines() if line.get_label() == "_pairs"])
    np.testing.assert_allclose(np.sort(shown), np.sort(pairs["ari"]))
    for method, values in pairs.groupby("label")["ari"]:
        line, (sd,) = bars_of(ax)[method]
        assert (line.get_ydata()[0], sd) == pytest.approx((values.mean(), values.std()))
    many = drawn("restarts, many").axes[0]
    np.testing.assert_array_equal(bars_of(many)["k-means"][0].get_xdata(), [20, 30, 40])


def test_measures_have_a_panel_each(drawn):
    axes = drawn("measures").axes
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["A  Adjusted Rand index", "B  Fowlkes-Mallows index", "C  V-measure"]
    first, second = (bars_of(ax)["t mixture"][0].get_ydata() for ax in axes[:2])
    np.testing.assert_allclose(second - first, 0.12)
    assert "mean ± SD over 3 pairs of seeds" in texts_of(axes[0])


def test_methods_on_an_equivariant_core_have_their_colour_and_a_line_of_their_own(drawn):
    figure = drawn("equivariant")
    bars = bars_of(panel(figure, "Agreement between seeds"))
    assert bars["rotation-equivariant core, k-means"][0].get_color() == style_of("k-means").color
    assert bars["rotation-equivariant core, k-means"][0].get_linestyle() != bars["Gaussian mixture"][0].get_linestyle()
    performance = panel(figure, "Predictive performance")
    found = {c.get_label(): c[0] for c in performance.containers}
    assert found["rotation-equivariant core"].get_xdata()[0] == 0.33
    assert found["rotation-equivariant core"].get_color() == "#8C564B"


# --- beyond the paper ----------------------------------------------------------------------------------------------


def test_every_method_is_drawn_next_to_its_own_null(drawn):
    figure = drawn("null")
    titles = [ax.get_title(loc="left").replace("\n", " ") for ax in figure.axes]
    assert titles == [f"{letter}  {method}" for letter, method in zip("ABCD", NULL_METHODS, strict=True)]
    table = frames.nulls(NULL_METHODS)
    for ax, method in zip(figure.axes, NULL_METHODS, strict=True):
        own = table[table["label"] == method]
        (band,) = [c for c in ax.collections if c.get_label() == "_band"]
        ys = band.get_paths()[0].vertices[:, 1]
        assert (ys.min(), ys.max()) == pytest.approx((own["null_low"].min(), own["null_high"].max()))
        assert [c.get_label() for c in ax.containers] == [method]
    assert legend_texts(figure) == [
        "between seeds, mean ± SD over pairs",
        "its null, 95 % of draws (marginals, 20 draws)",
        "p ≤ 0.05",
    ]


@pytest.mark.parametrize(
    ("p_values", "marked", "words"),
    [
        ([0.05, 0.0501, 0.01], [4, 8], "above its null at 2 of 3 K\nsmallest p = 0.01"),
        ([0.05, 0.05, 0.05], [4, 6, 8], "above its null at all 3 K\nsmallest p = 0.05"),
        ([0.2, 0.051, np.nan], [], "not above its null at any K\nsmallest p = 0.051"),
        ([np.nan, np.nan, np.nan], [], "no p value"),
    ],
)
@pytest.mark.parametrize("method", ["k-means", "k-means, end of pretraining", "DECEMber, strength 1e4"])
def test_an_asterisk_says_that_p_is_at_most_the_threshold_whatever_the_method_looks_like(
    method, p_values, marked, words
):
    table = frames.nulls((method,), counts=(4, 6, 8)).assign(p_value=p_values, agreement_sd=0.02)
    (ax,) = plots.null_figure(table).axes
    asterisks = lines_of(ax)["_p small"]
    assert list(asterisks.get_xdata()) == marked
    assert asterisks.get_marker() not in {style_of(name).marker for name in NULL_METHODS}
    assert asterisks.get_marker() == (6, 2, 0)
    # The point itself looks as it does in every other figure.
    ((line, _, _),) = ax.containers
    style = style_of(method)
    assert line.get_markerfacecolor() == (style.color if style.filled else "white")
    assert words in texts_of(ax)


def test_the_null_says_when_no_p_value_can_be_small_and_when_surrogates_differ():
    few = frames.nulls(("k-means",), counts=(4, 6)).assign(n_draws=3, p_value=0.25)
    assert null_in_words(few) == "too few draws; p cannot be below 0.25"
    assert null_in_words(few.head(1).assign(n_draws=99, p_value=0.01)) == "above its null; p = 0.01"
    assert null_in_words(few.head(1).assign(n_draws=99, p_value=0.3)) == "not above its null; p = 0.3"
    both = pd.concat([few.assign(surrogate_name="gaussian"), few.assign(surrogate_name="elliptical, 3 draws")])
    figure = plots.null_figure(both)
    said = [texts_of(ax)[0].rsplit("\n", 1)[1] for ax in figure.axes]
    assert said == ["elliptical, 3 draws", "gaussian, 3 draws"]
    assert legend_texts(figure)[1] == "its null, 95 % of draws"


def test_of_many_methods_the_null_has_panels_of_the_best_of_each_kind():
    table = frames.nulls(tuple(f"DECEMber, run {i}" for i in range(40)) + NULL_METHODS[1:], counts=(4, 6))
    figure = plots.null_figure(table)
    assert len(figure.axes) == 12
    titles = {ax.get_title(loc="left").partition("  ")[2].replace("\n", " ") for ax in figure.axes}
    assert set(NULL_METHODS[1:]) <= titles
    assert "the best of each kind; 31 other methods are in the table" in legend_texts(figure)


def test_criteria_have_rings_where_they_pick(drawn):
    figure = drawn("counts")
    rings = {
        ax.get_title(loc="left")[3:]: [
            (line.get_xdata()[0], line.get_ydata()[0])
            for line in ax.get_lines()
            if line.get_label().startswith("_picked")
        ]
        for ax in figure.axes
    }
    assert rings["Agreement between seeds"] == rings["Silhouette"] == []
    assert [x for x, _ in rings["Held-out likelihood"]] == [40, 40, 40]
    assert [x for x, _ in rings["Bayesian information criterion"]] == [35, 35]
    without = plots.cluster_count_figure(frames.cluster_counts().assign(silhouette_mean=np.nan, bic_mean=np.nan))
    assert len(without.axes) == 2


def test_criteria_of_different_readout_vectors_are_drawn_minus_the_best_of_their_curve(drawn):
    figure, table = drawn("counts"), frames.cluster_counts()
    for title, stem, best in (
        ("Held-out likelihood", "heldout_log_likelihood", "max"),
        ("Bayesian information criterion", "bic", "min"),
        ("Silhouette", "silhouette", "max"),
    ):
        ax = panel(figure, title)
        for label, (line, _) in bars_of(ax).items():
            values = table.loc[table["label"] == label, f"{stem}_mean"]
            np.testing.assert_allclose(line.get_ydata(), values - values.agg(best))
        assert any(text.startswith("along a curve only; ") for text in texts_of(ax))
    agreement = bars_of(panel(figure, "Agreement between seeds"))["t mixture"][0].get_ydata()
    np.testing.assert_allclose(agreement, table.loc[table["label"] == "t mixture", "agreement_mean"])


def test_agreement_is_drawn_above_its_null_where_there_is_one():
    table = frames.cluster_counts().assign(above_null_mean=lambda f: f["agreement_mean"] - 0.1, above_null_sd=0.02)
    figure = plots.cluster_count_figure(table, frames.choices().assign(agreement=30))
    ax = panel(figure, "Agreement above its null")
    line = bars_of(ax)["t mixture"][0]
    np.testing.assert_allclose(line.get_ydata(), table.loc[table["label"] == "t mixture", "above_null_mean"])
    assert [at.get_xdata()[0] for at in ax.get_lines() if at.get_label().startswith("_picked")] == [30, 30, 30]
    assert "bars: SD of the null; more is better" in texts_of(ax)


def test_caption_says_what_criteria_pick(drawn):
    caption = plots.cluster_count_caption(frames.choices())
    assert "compare along a curve, never between curves" in caption
    assert "t mixture: only the held-out likelihood picks a K, 40." in caption
    drawn_texts = [text.get_text() for text in drawn("counts").findobj(matplotlib.text.Text)]
    assert not any("picks a K, 40" in text for text in drawn_texts)


def test_consensus_shows_shares_clusters_and_confidence(drawn):
    figure = drawn("consensus")
    frame = frames.consensus()
    heights = [bar.get_height() for bar in panel(figure, "Stability of neurons").patches]
    np.testing.assert_allclose(heights, [np.isclose(frame["stability"], i / 5).mean() for i in range(1, 6)])
    bars = panel(figure, "Stability of clusters").containers
    means = frame.groupby("cluster")["stability"].mean().sort_values(ascending=False)
    np.testing.assert_allclose([bar.get_width() for bar in bars[0]], means)
    full = frame.groupby("cluster")["stability"].apply(lambda s: np.isclose(s, 1).mean())[means.index]
    np.testing.assert_allclose([bar.get_width() for bar in bars[1]], full)
    line = panel(figure, "Confidence").containers[0][0]
    medians = frame.groupby("stability")["confidence"].median()
    np.testing.assert_allclose(line.get_ydata(), medians)
    assert len(plots.consensus_figure(frame.assign(confidence=np.nan)).axes) == 2


def test_calibration_has_the_diagonal_and_no_empty_bins():
    table = frames.calibration()
    table.loc[0, "n_neurons"] = 0
    upper, lower = plots.calibration_figure(table).axes
    assert list(lines_of(upper)["_calibrated"].get_ydata()) == [0, 1]
    assert len(lines_of(upper)["DECEMber, strength auto"].get_xdata()) == 8
    assert len(lines_of(lower)["t mixture"].get_xdata()) == 9
