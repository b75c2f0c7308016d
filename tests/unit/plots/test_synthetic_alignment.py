"""Figures of synthetic readouts: distances and angles by noise, examples, and what a temperature does."""

import numpy as np
import pandas as pd
import pytest

from december_plugin.errors import SettingsError
from december_plugin.plots import (
    reconstruction_figure,
    relaxed_shift_figure,
    synthetic_alignment_figure,
    synthetic_readouts_figure,
)
from december_plugin.rotation.simulation import toy_readouts
from helpers.figures import legend_texts, lines_of

pytestmark = pytest.mark.usefixtures("matplotlib_as_before")


def table():
    rows = [
        {"noise": noise, "raw": 3.0 + kind, "aligned": noise + kind, "noise_alone": 2 * noise, "angle_error_degrees": e}
        for noise, e in ((1.0, 40.0), (0.0, 5.0))
        for kind in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_means_over_types_are_drawn_by_noise():
    figure = synthetic_alignment_figure(table())
    distances, angles = figure.axes
    raw, aligned, alone = (line.get_ydata() for line in distances.get_lines())
    np.testing.assert_allclose([raw, aligned, alone], [[3.5, 3.5], [0.5, 1.5], [0.0, 2.0]])
    assert [label.get_text() for label in distances.get_xticklabels()] == ["0", "1"]
    np.testing.assert_allclose(angles.get_lines()[0].get_ydata(), [5, 40])
    assert legend_texts(figure) == ["as they are", "aligned", "expected of noise alone"]
    with pytest.raises(SettingsError, match="no column 'noise_alone'"):
        synthetic_alignment_figure(table().drop(columns="noise_alone"))


def test_examples_are_sorted_by_group():
    toy = toy_readouts(20, seed=1)
    figure = synthetic_readouts_figure({"noise 0": (toy.readouts, -toy.readouts, toy.types)})
    raw, aligned, tsne, _ = figure.axes
    order = np.argsort(toy.types[:16], kind="stable")
    np.testing.assert_array_equal(raw.get_images()[0].get_array(), toy.readouts[:16][order])
    np.testing.assert_array_equal(aligned.get_images()[0].get_array(), -toy.readouts[:16][order])
    assert len(tsne.collections[0].get_offsets()) == 20
    with pytest.raises(SettingsError, match="there are 0 examples; 1 to 8"):
        synthetic_readouts_figure({})
    with pytest.raises(SettingsError, match="'a': vectors have the shapes"):
        synthetic_readouts_figure({"a": (toy.readouts, toy.readouts[1:], toy.types)})


def test_a_high_temperature_leaves_vectors_as_they_are_and_a_low_one_blurs_them():
    toy = toy_readouts(6, seed=2)
    fits = {"high": (toy.angles, 1e4), "low": (toy.angles, 0.0)}
    figure = reconstruction_figure(toy.readouts, toy.types, fits, n_orientations=8)
    drawn = [ax.get_images()[0].get_array() for ax in figure.axes]
    np.testing.assert_allclose(drawn[2], drawn[0], atol=1e-6)
    np.testing.assert_allclose(drawn[4], np.repeat(drawn[0].mean(axis=1, keepdims=True), 8, axis=1))
    assert figure.axes[1].get_title("center") == "high, shifted\nT = 1e+04"
    with pytest.raises(SettingsError, match="'high' has 6 angles for 5 readout vectors"):
        reconstruction_figure(toy.readouts[1:], toy.types[1:], fits, n_orientations=8)
    with pytest.raises(SettingsError, match="there is no fit"):
        reconstruction_figure(toy.readouts, toy.types, {}, n_orientations=8)


def test_a_relaxed_shift_comes_near_the_linear_one_at_whole_steps():
    fixed, other = np.array([3.0, 1.0, 0.0, 0.0]), np.array([0.0, 3.0, 1.0, 0.0])
    figure = relaxed_shift_figure(fixed, other, n_orientations=4, temperatures=(1e4, 0.0))
    lines = lines_of(figure.axes[0])
    linear, relaxed = lines["linear shift"].get_ydata(), lines["T = 10000"].get_ydata()
    assert lines["linear shift"].get_xdata()[linear.argmin()] == pytest.approx(270)
    assert linear.min() == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(relaxed[::90], linear[::90], atol=1e-6)
    flat = lines["T = 0"].get_ydata()
    np.testing.assert_allclose(flat, flat[0])
    with pytest.raises(SettingsError, match="there are no temperatures"):
        relaxed_shift_figure(fixed, other, n_orientations=4, temperatures=())
