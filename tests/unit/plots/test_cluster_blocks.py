"""Matrices of clusters that respond alike: their order, outlines, merges and splits."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from december_plugin.errors import MisfitError, SettingsError
from december_plugin.plots import block_changes_figure, cluster_confusion_figure
from december_plugin.plots.cluster_blocks import OUTLINE
from helpers.figures import texts_of

pytestmark = pytest.mark.usefixtures("matplotlib_as_before")

# Clusters 0 and 3 respond alike, and 1 and 4 nearly so; 2 is between the pairs, nearer to the first.
CORRELATIONS = np.array(
    [
        [1.0, 0.2, 0.4, 0.9, 0.2],
        [0.2, 1.0, 0.3, 0.2, 0.7],
        [0.4, 0.3, 1.0, 0.4, 0.1],
        [0.9, 0.2, 0.4, 1.0, 0.2],
        [0.2, 0.7, 0.1, 0.2, 1.0],
    ]
)


def outlines(ax, color):
    found = [patch for patch in ax.patches if isinstance(patch, Rectangle) and patch.get_edgecolor() == color]
    return sorted((round(patch.get_x() + 0.5), round(patch.get_width())) for patch in found)


def outlined(ax, color):
    from matplotlib.colors import to_rgba

    return outlines(ax, to_rgba(color))


def names_of(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_clusters_are_in_the_order_of_their_blocks():
    figure = cluster_confusion_figure(CORRELATIONS, names="abcde", title="Whose")
    tree, ax, _ = figure.axes
    order = ["abcde".index(name) for name in names_of(ax)]
    np.testing.assert_array_equal(ax.get_images()[0].get_array(), CORRELATIONS[np.ix_(order, order)])
    pairs = {frozenset(order[first : first + n]) for first, n in outlined(ax, "#333333")}
    assert pairs == {frozenset({0, 3}), frozenset({1, 4})}
    assert "5 clusters in 3 blocks at a correlation of 0.5" in texts_of(ax)
    assert ax.get_title("left") == "B  Whose"
    # Each merge is one path, as far to the left as its correlation is low.
    depths = [path.vertices[:, 0].min() for lines in tree.collections for path in lines.get_paths()]
    assert sorted(depths) == pytest.approx([0.2, 0.4, 0.7, 0.9])


def test_merges_below_the_threshold_and_splits_above_it():
    figure = block_changes_figure(CORRELATIONS, names="abcde")
    titles = [ax.get_title("left") for ax in figure.axes]
    assert titles == [
        "A  merged at 0.40: 2 blocks",
        "merged at 0.20: 1 block",
        "B  split at 0.70: 4 blocks",
        "split at 0.90: 5 blocks",
    ]
    first, last, split, _ = figure.axes
    assert sorted(texts_of(first)[0].replace(" + ", ", ").split(", ")) == ["a", "c", "d"]
    assert [n for _, n in outlined(first, OUTLINE)] == [3]
    assert outlined(last, OUTLINE) == [(0, 5)]
    assert [n for _, n in outlined(split, OUTLINE)] == [1, 1]
    assert [n for _, n in outlined(split, "#333333")] == [2]  # a and d are still together


def test_a_row_without_anything_is_left_out():
    figure = block_changes_figure(CORRELATIONS, threshold=-1.0)
    assert [ax.get_title("left")[:8] for ax in figure.axes] == ["A  split", "split at", "split at"]


def test_what_cannot_be_drawn():
    with pytest.raises(SettingsError, match="there is only one cluster"):
        block_changes_figure([[1.0]])
    with pytest.raises(SettingsError, match="names has 2 entries for 5 clusters"):
        cluster_confusion_figure(CORRELATIONS, names="ab")
    with pytest.raises(MisfitError, match="must be \\(clusters, clusters\\), symmetric"):
        cluster_confusion_figure(np.triu(CORRELATIONS))
