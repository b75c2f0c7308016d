"""Readout vectors before and after their alignment: order, shifts, examples."""

import numpy as np
import pytest

from december_plugin.errors import EmbeddingError, SettingsError
from december_plugin.plots import aligned_readouts_figure
from december_plugin.plots.aligned_readouts import MOST_NEURONS
from helpers.figures import texts_of

pytestmark = pytest.mark.usefixtures("matplotlib_as_before")


def planted():
    """Two types of two features at four orientations, shifted by whole steps; entry o * F + f."""
    types = np.array([1, 0, 1, 0, 1, 0, 1, 0])
    steps = np.array([0, 1, 2, 3, 3, 0, 1, 2])
    tuning = np.array([[[2.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], [[0.0, 3.0], [0.0, 0.0], [1.0, 0.0], [0, 0]]])
    readouts = np.stack([np.roll(tuning[kind], step, axis=0).ravel() for kind, step in zip(types, steps, strict=True)])
    return readouts, types, np.mod(-steps, 4) * np.pi / 2


def test_aligned_vectors_of_a_group_are_equal_rows():
    readouts, types, angles = planted()
    figure = aligned_readouts_figure(readouts, angles, types, n_orientations=4, group="type")
    raw, aligned = (ax.get_images()[0].get_array() for ax in figure.axes[:2])
    assert raw.shape == aligned.shape == (8, 8)
    assert np.linalg.norm(raw, axis=1) == pytest.approx(np.ones(8))
    assert np.ptp(aligned[:4], axis=0).max() == pytest.approx(0, abs=1e-12)
    assert np.ptp(aligned[4:], axis=0).max() == pytest.approx(0, abs=1e-12)
    # By feature, its orientations side by side.
    np.testing.assert_allclose(aligned[0] * np.sqrt(6), [2, 1, 0, 0, 0, 0, 0, 1], atol=1e-12)
    assert figure.axes[0].get_ylabel() == "type"
    assert "as they are; 8 neurons by type and angle" in texts_of(figure.axes[0])
    assert [ax.get_title("left") for ax in figure.axes[3:5]] == ["B  type 0", "type 1"]
    examples = np.ma.filled(figure.axes[5].get_images()[0].get_array(), np.nan)  # of type 0, aligned
    assert examples.shape == (2, 4 * 4 + 3)
    np.testing.assert_allclose(examples[:, :4].ravel(), aligned[0], atol=1e-12)
    assert np.isnan(examples[:, 4]).all()


def test_of_many_neurons_some_are_drawn_and_those_without_a_group_are_not():
    rng = np.random.default_rng(0)
    readouts, types = rng.standard_normal((900, 8)), np.repeat([-1, 0, 1], 300)
    figure = aligned_readouts_figure(readouts, rng.uniform(0, 6, 900), types, n_orientations=4)
    assert figure.axes[0].get_images()[0].get_array().shape == (MOST_NEURONS, 8)
    assert "as they are; 400 of 900 neurons by cluster and angle" in texts_of(figure.axes[0])


def test_what_cannot_be_drawn():
    readouts, types, angles = planted()
    with pytest.raises(SettingsError, match="no neuron has a group"):
        aligned_readouts_figure(readouts, angles, [-1] * 8, n_orientations=4)
    with pytest.raises(SettingsError, match="7 labels for 8 readout vectors"):
        aligned_readouts_figure(readouts, angles, types[:7], n_orientations=4)
    with pytest.raises(EmbeddingError, match="one finite angle for each of 8 neurons"):
        aligned_readouts_figure(readouts, angles[:7], types, n_orientations=4)
    with pytest.raises(SettingsError, match="n_orientations is 3"):
        aligned_readouts_figure(readouts, angles, types, n_orientations=3)
