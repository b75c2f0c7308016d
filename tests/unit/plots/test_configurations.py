"""Matrices of agreement across configurations: values, names, what cannot be drawn."""

import itertools

import numpy as np
import pandas as pd
import pytest

from december_plugin.errors import SettingsError
from december_plugin.plots import configurations_figure
from helpers.figures import legend_texts

VALUES = {("a", "a"): 0.9, ("a", "b"): 0.4, ("a", "c"): -0.1, ("b", "b"): 0.8, ("b", "c"): np.nan, ("c", "c"): 1.0}


def pairs(values=VALUES):
    return pd.DataFrame(
        [
            {"name_a": a, "name_b": b, "adjusted_rand_index": value, "cosine_correlation": 0.5 if a != b else np.nan}
            for (a, b), value in values.items()
        ]
    )


def numbers_in(figure):
    return {text.get_text() for text in figure.axes[0].texts if text.get_text()[-1:].isdigit()}


def test_both_halves_of_the_matrix_have_the_values():
    figure = configurations_figure(pairs(), title="k-means, K = 5")
    clusters, embeddings = (ax.collections[0].get_array().filled(np.nan) for ax in figure.axes[:2])
    expected = np.array([[0.9, 0.4, -0.1], [0.4, 0.8, np.nan], [-0.1, np.nan, 1.0]])
    np.testing.assert_array_equal(clusters, expected)
    np.testing.assert_array_equal(embeddings, np.where(np.eye(3), np.nan, 0.5))
    assert figure.axes[0].collections[0].get_clim() == (-0.1, 1.0)
    assert legend_texts(figure) == ["1  a", "2  b", "3  c"]
    assert {".40", "-.10", "1.00"} <= numbers_in(figure)
    assert figure.axes[0].get_title("left") == "A  Clusters"


def test_many_models_are_cut_and_their_number_is_said():
    names = [f"model {number}" for number in range(30)]
    figure = configurations_figure(pairs(dict.fromkeys(itertools.combinations(names, 2), 0.3)))
    assert len(legend_texts(figure)) == 24
    assert figure.axes[0].get_xlabel() == "the first 24 of 30 models"
    assert not numbers_in(figure)


def test_what_cannot_be_drawn():
    with pytest.raises(SettingsError, match="there is only one configuration; a comparison needs at least two"):
        configurations_figure(pairs({("a", "a"): 1.0}))
    twice = pd.concat([pairs(), pairs()])
    with pytest.raises(SettingsError, match="the pair of 'a' and 'a' occurs twice; draw one clustering at a time"):
        configurations_figure(twice)
    with pytest.raises(SettingsError, match="no two configurations with neurons in common have been compared yet"):
        configurations_figure(pairs().iloc[:0])
