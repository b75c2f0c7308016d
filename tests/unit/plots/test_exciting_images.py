"""Figures of maximally exciting images and of their confusion."""

import numpy as np
import pandas as pd
import pytest

from december_plugin.errors import SettingsError
from december_plugin.plots import exciting_images_figure, mei_confusion_figure

pytestmark = pytest.mark.usefixtures("matplotlib_as_before")


def drawn(ax):
    return np.ma.filled(ax.get_images()[0].get_array(), np.nan)


def test_the_best_neurons_of_each_cluster_are_drawn_in_the_middle_of_their_squares():
    images = np.full((5, 9, 13), 0.5)
    for number, (row, column) in enumerate([(0, 0), (8, 12), (4, 4), (2, 9), (5, 5)]):
        images[number, row, column] += number + 1.0
    images[3] = 1 - images[3]  # dark
    figure = exciting_images_figure(
        images, [1, 1, 1, 10, -1], [0.2, np.nan, 0.9, 0.5, 0.5], n_best=2, grey=0.5, crop=5, title="MEIs"
    )
    first, second = figure.axes
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes] == ["1 (n = 3)", "10 (n = 1)"]
    assert figure.get_suptitle() == "MEIs"
    page = drawn(first)
    assert page.shape == (11, 11)
    assert page[2, 2] == page[2, 8] == 1  # each of its own range
    assert np.nansum(page) == 2
    assert np.isnan(page[6:]).all()  # two of the three
    assert drawn(second)[2, 2] == -1


def test_clips_are_drawn_at_their_strongest_frame():
    clips = np.zeros((1, 1, 3, 6, 6))
    clips[0, 0, 1, 3, 3], clips[0, 0, 2, 0, 0] = 2.0, 1.0
    figure = exciting_images_figure(clips, [0])
    assert np.nansum(drawn(figure.axes[0])) == 1


def test_the_confusion_is_ordered_by_cluster():
    values = np.array([[1.0, 0.1, 0.8, 0.5], [0.2, 1.0, 0.3, 0.5], [0.6, 0.4, 1.0, 0.5], [0.5, 0.5, 0.5, 1.0]])
    figure = mei_confusion_figure(values, [2, 1, 2, -1])
    ax = figure.axes[0]
    assert drawn(ax) == pytest.approx(values[np.ix_([1, 0, 2], [1, 0, 2])])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2"]
    assert any("3 neurons; mean 0.70 within and 0.25 between clusters" in text.get_text() for text in ax.texts)


def test_clusters_are_sorted_by_block_next_to_their_islands():
    images = np.zeros((3, 6, 6))
    images[:, 3, 3] = 1.0
    islands = pd.DataFrame({"x": [0.0, 1.0, 5.0, 6.0], "y": 0.0, "cluster": [4, 4, 2, -1]})
    blocks = {4: 0, 2: 1}
    figure = exciting_images_figure(images, [2, 4, 4], blocks=blocks, islands=islands, sizes={4: 1200, 2: 1})
    titles = [title for ax in figure.axes if (title := ax.get_title(loc="left"))]
    assert titles == ["4, block 0 (n = 1,200)", "2, block 1 (n = 1)"]
    others, own = figure.axes[0].collections
    assert sorted(own.get_offsets()[:, 0]) == [0, 1]
    assert sorted(others.get_offsets()[:, 0]) == [5, 6]
    with pytest.raises(SettingsError, match="frame of islands has no column 'y'"):
        exciting_images_figure(images, [2, 4, 4], islands=islands[["x", "cluster"]])


def test_the_confusion_is_ordered_by_block():
    values = np.arange(9.0).reshape(3, 3)
    ax = mei_confusion_figure(values, [1, 2, 3], blocks={1: 1, 2: 0, 3: 1}).axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "1", "3"]
    assert drawn(ax) == pytest.approx(values[np.ix_([1, 0, 2], [1, 0, 2])])
    assert sorted(patch.get_width() for patch in ax.patches) == [1, 2]


def test_what_cannot_be_drawn_is_said():
    images = np.eye(4)[None].repeat(3, axis=0)
    with pytest.raises(SettingsError, match=r"clusters have shape \(2,\)"):
        exciting_images_figure(images, [0, 1])
    with pytest.raises(SettingsError, match="no neuron has a cluster"):
        exciting_images_figure(images, [-1, -1, -1])
    with pytest.raises(SettingsError, match="finite values is expected"):
        exciting_images_figure(images * np.nan, [0, 0, 0])
    with pytest.raises(SettingsError, match=r"matrix has shape \(2, 3\) for 2 neurons"):
        mei_confusion_figure(np.ones((2, 3)), [0, 1])
