"""Diagnostics of alignments, and t-SNE with the centres of clusters."""

import numpy as np
import pandas as pd
import pytest

from december_plugin.errors import SettingsError
from december_plugin.plots import alignments_figure, cluster_centres_figure
from helpers.figures import legend_texts, texts_of

pytestmark = pytest.mark.usefixtures("matplotlib_as_before")


def alignments():
    rows = [
        ("b, features permuted", "features", 1.3, 1.1, 30.0, 1.0),
        ("a", "none", 1.4, 0.9, 12.0, 0.2),
        ("a", "none", 1.4, 0.8, 3.0, 0.4),
    ]
    names = ("label", "control", "loss_before", "alignment_loss", "temperature", "ambiguous_share")
    return pd.DataFrame(rows, columns=names)


def points_of(ax):
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]), line.get_markerfacecolor())
        for line in ax.get_lines()
        if line.get_marker() == "o"
    ]


def test_seeds_share_a_row_and_controls_are_hollow_and_last():
    figure = alignments_figure(alignments())
    losses, temperatures, shares = figure.axes
    assert [label.get_text() for label in losses.get_yticklabels()] == ["a", "b, features permuted"]
    assert sorted(points_of(losses)) == [(0.8, 0, "#0072B2"), (0.9, 0, "#0072B2"), (1.1, 1, "white")]
    assert sorted(x for x, _, _ in points_of(temperatures)) == [3, 12, 30]
    assert sorted(x for x, _, _ in points_of(shares)) == [0.2, 0.4, 1.0]
    low, high = temperatures.get_xlim()
    assert low < 3 < 30 < high
    assert legend_texts(figure) == ["before", "aligned", "aligned control (permuted features)"]


def test_without_controls_the_legend_has_none():
    figure = alignments_figure(alignments().iloc[1:].drop(columns="control"))
    assert legend_texts(figure) == ["before", "aligned"]
    with pytest.raises(SettingsError, match="no readouts were aligned yet"):
        alignments_figure(alignments().iloc[:0])


def test_a_star_is_where_a_cluster_is_densest():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal((0, 0), 0.1, (30, 2)), rng.normal((5, 1), 0.1, (30, 2)), [[40.0, 40.0]]])
    frame = pd.DataFrame({"label": "data", "x": points[:, 0], "y": points[:, 1]})
    frame["group"] = [7] * 30 + [9] * 30 + [7]  # a stray point does not move the centre
    control = frame.assign(label="control", group=-1)
    figure = cluster_centres_figure(pd.concat([frame, control]))
    first, second = figure.axes
    stars = [line.get_xydata()[0] for line in first.get_lines() if line.get_marker() == "*"]
    np.testing.assert_allclose(stars, [[0, 0], [5, 1]], atol=0.15)
    assert texts_of(first) == ["7", "9"]
    assert texts_of(second) == []
    assert [ax.get_title("left") for ax in figure.axes] == ["A  data", "B  control"]
    with pytest.raises(SettingsError, match="no column 'group'"):
        cluster_centres_figure(frame.drop(columns="group"))
