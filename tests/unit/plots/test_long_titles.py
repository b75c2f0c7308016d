"""Names of methods that say space and neurons are not cut, and do not leave the figure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from december_plugin.evaluation.cluster_tree import cluster_tree
from december_plugin.plots import embedding_figure
from december_plugin.plots.cluster_tree import cluster_tree_figure
from december_plugin.plots.confidence import consensus_figure
from december_plugin.plots.confusion import confusion_figure, known_types_figure
from december_plugin.plots.nulls import null_figure
from helpers import reports

NAME = "Gaussian mixture, functional, direction, test correlation 0.3 and above"
TITLE = f"{NAME}, which found 12 clusters (median over 3 models)"


def nulls() -> Figure:
    tables = [
        reports.nulls(reports.agreement()).query("label == 'k-means'").assign(label=f"{NAME}{at}") for at in "abcd"
    ]
    return null_figure(pd.concat(tables, ignore_index=True))


def tsne() -> Figure:
    points, types = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 3
    return embedding_figure(points, {TITLE: types, "a": types, "b": types}, coordinates=points, reference=TITLE)


def tree() -> Figure:
    found = cluster_tree({count: np.arange(60) % count for count in (2, 4)})
    return cluster_tree_figure(found.nodes, found.edges, title=TITLE)


@pytest.mark.parametrize(
    ("draw", "name"),
    [
        (nulls, f"{NAME}d"),
        (tsne, TITLE),
        (tree, TITLE),
        (lambda: consensus_figure(reports.neurons(), title=TITLE), TITLE),
        (lambda: confusion_figure(reports.confusion().frame, title=TITLE), TITLE),
        (lambda: known_types_figure(reports.agreement(), reports.confusion().frame, title=TITLE), TITLE),
    ],
)
@pytest.mark.filterwarnings("error")
def test_titles_are_whole_and_within_the_figure(draw: Callable[[], Figure], name: str) -> None:
    figure = draw()
    figure.draw_without_rendering()
    titles = [figure._suptitle, *(ax._left_title for ax in figure.axes), *(ax.title for ax in figure.axes)]
    shown = [title for title in titles if title is not None and title.get_text()]
    whole = [title for title in shown if title.get_text().replace("\n", " ").endswith(name)]
    assert len(whole) == 1
    box = whole[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert 0 <= box.y0 < box.y1 <= figure.bbox.height
