"""Styles of methods, the figure of agreement against K, and files: what is drawn, not only that something is."""

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

from december_plugin.clustering import methods as clustering_methods
from december_plugin.embeddings.space import EmbeddingSpace
from december_plugin.errors import SettingsError
from december_plugin.evaluation.methods import Method
from december_plugin.plots import (
    agreement_figure,
    method_style,
    method_styles,
    save_figure,
    training_curves_figure,
)
from december_plugin.plots import style as style_of_methods
from december_plugin.plots.style import ordered_methods
from helpers.figures import (
    METHODS,
    agreement_table,
    curves,
    legend_texts,
    lines_of,
    method_of,
    style_of,
    styles_of,
    texts_of,
)

pytestmark = pytest.mark.usefixtures("matplotlib_as_before")


@pytest.fixture(scope="module")
def nine_methods():
    """Agreement between seeds alone."""
    figure = agreement_figure(agreement_table())
    figure.draw_without_rendering()
    return figure


@pytest.fixture(scope="module")
def all_panels():
    """Everything that the agreement figure can show."""
    more = {
        "types_agreement_mean": 0.5,
        "types_agreement_sd": 0.1,
        "test_correlation_mean": 0.25,
        "test_correlation_sd": 0.01,
    }
    figure = agreement_figure(agreement_table(**more), n_types=6)
    figure.draw_without_rendering()
    return figure


# --- styles of methods --------------------------------------------------------------------------------------------


def test_each_method_has_a_colour_of_its_kind():
    assert method_style(Method("december", "december", strength="auto")).color == "#0072B2"
    assert method_style(Method("gmm")).color == method_style(Method("gmm", "other")).color == "#D55E00"
    assert method_style(Method("kmeans")).color == "#009E73"
    assert method_style(Method("baseline")).color == "#4D4D4D"
    assert method_style(Method("t_mixture")).color == "#B5578F"


@pytest.mark.parametrize("kind", clustering_methods.METHODS)
def test_a_method_of_clustering_without_a_style_is_an_error(kind, monkeypatch):
    others = {name: family for name, family in style_of_methods._FAMILIES.items() if name != kind}
    monkeypatch.setattr(style_of_methods, "_FAMILIES", others)
    with pytest.raises(NotImplementedError, match=f"the method '{kind}' has no colour and marker"):
        method_style(Method(kind))


def test_a_name_says_nothing_about_a_method():
    styles = [method_style(name) for name in ("DECEMber, strength 1", "k-means (control)", "mine")]
    assert {style.color for style in styles}.isdisjoint({"#0072B2", "#009E73"})
    assert all((style.linestyle, style.filled) == ("-", True) for style in styles)
    assert method_styles(["mine", "yours"]) == {name: method_style(name) for name in ("mine", "yours")}


def test_december_is_emphasised_and_in_one_family_of_hue():
    december = [style_of(label) for label in METHODS if label.startswith("DECEMber")]
    others = [style_of(label) for label in METHODS if not label.startswith("DECEMber")]
    assert min(s.linewidth for s in december) > max(s.linewidth for s in others)
    assert min(s.zorder for s in december) > max(s.zorder for s in others)
    for style in december:
        red, _, blue = matplotlib.colors.to_rgb(style.color)
        assert blue > red + 0.2


SPACES = [EmbeddingSpace(space=space, normalize=way) for space in ("readout", "functional") for way in ("none", "l2")]


@pytest.mark.parametrize("role", ["baseline", "control"])
@pytest.mark.parametrize("kind", clustering_methods.METHODS)
def test_spaces_differ_in_line_and_in_brightness_and_keep_the_marker(kind, role):
    styles = [method_style(Method(kind, role, space=space)) for space in SPACES]
    assert styles[0] == method_style(Method(kind, role))
    assert len({style.marker for style in styles}) == 1
    assert len({style.linestyle for style in styles}) == 4
    brightness = [np.dot(matplotlib.colors.to_rgb(style.color), (0.21, 0.72, 0.07)) for style in styles]
    readout, readout_direction, functional, functional_direction = brightness
    assert readout_direction > readout + 0.1
    assert functional > functional_direction + 0.03
    assert len(set(brightness)) == 4


def test_a_stronger_loss_is_darker_in_functional_space_too():
    strengths = ("0.01", "1", "100", "1e4")
    styles = [method_style(Method("december", strength=strength, space=SPACES[3])) for strength in strengths]
    luminance = [np.dot(matplotlib.colors.to_rgb(style.color), (0.21, 0.72, 0.07)) for style in styles]
    assert luminance == sorted(luminance, reverse=True)
    for style in styles:
        red, green, blue = matplotlib.colors.to_rgb(style.color)
        assert green < min(red, blue)  # a violet


def december_of(strength):
    return method_style(Method("december", "december", strength=strength))


def test_stronger_clustering_is_darker():
    styles = [december_of(strength) for strength in ("0.01", "0.1", "1", "10", "100", "1e3", "1e4")]
    luminance = [np.dot(matplotlib.colors.to_rgb(style.color), (0.21, 0.72, 0.07)) for style in styles]
    assert luminance == sorted(luminance, reverse=True)
    assert len({style.marker for style in styles}) == 7
    assert december_of("1e7").color == december_of("1e4").color


@pytest.mark.parametrize(
    "method",
    [
        Method("kmeans", "control"),
        Method("gmm", "control"),
        Method("december", "december", strength="0"),
        Method("december", "december", strength="0.0"),
    ],
)
def test_controls_are_dashed_and_hollow(method):
    style = method_style(method)
    assert (style.linestyle, style.filled) == ("--", False)


@pytest.mark.parametrize(
    "method", [Method("kmeans", "baseline"), *(Method("december", strength=text) for text in ("0.5", "0.01", ""))]
)
def test_other_methods_are_solid_and_filled(method):
    style = method_style(method)
    assert (style.linestyle, style.filled) == ("-", True)


def test_a_constant_target_is_dash_dotted():
    assert method_style(Method("december", strength="1", constant_target=True)).linestyle == "-."


def test_control_has_the_colour_of_its_method():
    assert method_style(Method("t_mixture", "control")).color == method_style(Method("t_mixture")).color


def test_no_two_methods_of_a_figure_look_alike():
    labels = [*METHODS, *(f"DECEMber, strength auto, K = {k}" for k in (5, 10, 20, 40, 80, 100))]
    styles = styles_of(labels)
    assert sorted(styles) == sorted(labels)
    assert len(set(styles.values())) == len(labels)
    assert len({(style.color, style.marker, style.linestyle) for style in styles.values()}) == len(labels)


def test_styles_do_not_depend_on_the_order_of_the_labels():
    labels = ["DECEMber, K = 10", "DECEMber, K = 9", "k-means"]
    assert styles_of(labels) == styles_of(labels[::-1])
    # 9 comes before 10.
    assert styles_of(labels)["DECEMber, K = 9"] == style_of("DECEMber, K = 9")


# --- agreement against K ------------------------------------------------------------------------------------------


def test_agreement_draws_the_values_of_the_table(nine_methods):
    (ax,) = nine_methods.axes
    assert len(ax.containers) == 9
    container = next(c for c in ax.containers if c.get_label() == "Gaussian mixture")
    line, _, (bars,) = container
    np.testing.assert_array_equal(line.get_xdata(), [4, 6, 8])
    np.testing.assert_allclose(line.get_ydata(), [0.42, 0.43, 0.44])
    np.testing.assert_allclose([s[:, 1] for s in bars.get_segments()], [[0.37, 0.47], [0.38, 0.48], [0.39, 0.49]])
    assert legend_texts(nine_methods) == ordered_methods({label: method_of(label) for label in METHODS})
    assert ax.get_title(loc="left") == "Agreement between seeds"
    assert "mean ± SD over 3 pairs of seeds" in texts_of(ax)
    assert ax.get_xlabel() == "number of clusters K"
    assert [tick for tick in ax.get_xticks() if tick in (4, 6, 8)] == [4, 6, 8]


def test_agreement_styles_are_those_of_the_methods(nine_methods):
    (ax,) = nine_methods.axes
    for label, line in ((c.get_label(), c[0]) for c in ax.containers):
        style = style_of(label)
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
    assert titles == ["A  Agreement between seeds", "B  Agreement with known types", "C  Predictive performance"]
    unknown = agreement_table(methods=METHODS[:2], types_agreement_mean=np.nan, types_agreement_sd=np.nan)
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
    bars = {
        c.get_label(): sum(len(segment) > 0 for b in c[2] for segment in b.get_segments())
        for c in performance.containers
    }
    assert bars == {"DECEMber": 3, "Gaussian mixture": 0, "k-means": 0}  # those of the shared line are one collection
    (shared,) = [
        lines for lines in performance.collections if lines not in [b for c in performance.containers for b in c[2]]
    ]
    np.testing.assert_allclose([segment[:, 1] for segment in shared.get_segments()], [[0.23, 0.25]] * 3)
    np.testing.assert_array_equal(lines_of(performance)["_shared"].get_ydata(), [0.24, 0.24, 0.24])
    assert {c[0].get_linestyle() for c in seeds.containers} == {"-"}


def test_unknown_sd_has_no_bar_and_unknown_mean_no_point():
    table = agreement_table(methods=("k-means",), agreement_sd=[0.1, np.nan, 0.1])
    table.loc[2, "agreement_mean"] = np.nan
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
            "the table is list; it must be a pandas.DataFrame with the columns label, n_clusters, agreement_mean, "
            "agreement_sd, n_pairs.",
        ),
        (
            agreement_table().drop(columns="agreement_sd"),
            "the table has no column 'agreement_sd'. Needed: label, n_clusters, agreement_mean, agreement_sd, n_pairs. "
            "It has: label, n_clusters, agreement_mean, n_pairs, identity.",
        ),
        (
            agreement_table().iloc[:0],
            "the table has no rows: no agreement that could be drawn has been computed yet.",
        ),
        (
            pd.concat([agreement_table(), agreement_table().iloc[[4]]]),
            "the table has more than one row for 'DECEMber, strength 1' with K = 6; one row per method and K can be "
            "drawn. Draw one dataset and model at a time.",
        ),
        (agreement_table(agreement_mean=np.nan), "the column 'agreement_mean' of the table holds no finite value."),
        (
            agreement_table(agreement_sd=-0.1),
            "the column 'agreement_sd' of the table holds a negative standard deviation.",
        ),
        (
            agreement_table(agreement_mean="high"),
            "the column 'agreement_mean' of the table holds values that are not numbers.",
        ),
        (agreement_table(n_clusters=0), "the column 'n_clusters' of the table must hold integers of at least 1."),
        (
            agreement_table(methods=("",)),
            "a label of the table is ''; it must be a text that the figure can show.",
        ),
    ],
)
def test_tables_that_cannot_be_drawn(table, message):
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        agreement_figure(table)


def test_the_table_is_left_alone():
    table = agreement_table(methods=METHODS[:1], agreement_mean=1)
    before = table.copy()
    agreement_figure(table)
    pd.testing.assert_frame_equal(table, before)


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
    assert (width, height) == (1420, 786)


@pytest.mark.parametrize(
    ("name", "formats", "message"),
    [
        ("a/b", ["png"], "the name of a figure is 'a/b'; it must be a file name without folder or ending."),
        ("", ["png"], "the name of a figure is ''; it must be a file name without folder or ending."),
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
