"""The figure of training curves."""

import re

import numpy as np
import pytest
from matplotlib.colors import to_hex

from december_plugin.errors import SettingsError
from december_plugin.plots import agreement_figure, training_curves_figure
from december_plugin.plots.style import ordered_methods
from helpers.figures import METHODS, agreement_table, curves, legend_texts, lines_of, method_of, style_of, texts_of

pytestmark = pytest.mark.usefixtures("matplotlib_as_before")


def test_training_curves_draw_every_seed_and_the_mean():
    runs = {
        "baseline": [curves(seed=seed) for seed in range(2)],
        "DECEMber, strength auto": [curves(start=3, seed=seed) for seed in range(3)],
    }
    methods = {label: method_of(label) for label in runs}
    figure = training_curves_figure(runs, methods)
    performance, loss, changed = figure.axes
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "A  Predictive performance",
        "B  Clustering loss",
        "C  Left their k-means cluster",
    ]
    assert legend_texts(figure) == ordered_methods(methods)
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
    assert texts_of(figure.axes[0]) == ["clustering begins", "one seed of each"]


def test_without_clustering_there_is_one_panel_and_no_mark():
    figure = training_curves_figure({"baseline": [curves()]})
    (ax,) = figure.axes
    assert list(lines_of(ax)) == ["baseline"]
    assert texts_of(ax) == ["one seed of each; from epoch 3 on"]
    assert ax.get_xlim()[0] > 2


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


def test_the_same_method_has_the_same_colour_in_every_figure():
    (agreement,) = agreement_figure(agreement_table(methods=METHODS[2:3])).axes
    label = "DECEMber, strength 100"
    performance = training_curves_figure({label: [curves(start=2)]}, {label: method_of(label)}).axes[0]
    line = lines_of(performance)["DECEMber, strength 100"]
    assert line.get_color() == agreement.containers[0][0].get_color() == style_of("DECEMber, strength 100").color


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
        ({"a": [curves() | {"epoch": ["x"] * 6}]}, "the curves of 'a', run 1 hold values that are not numbers."),
        ({3: [curves()]}, "a label of the training curves is 3; it must be a text that the figure can show."),
    ],
)
def test_curves_that_cannot_be_drawn(runs, message):
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        training_curves_figure(runs)
