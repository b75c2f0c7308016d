"""Calibration of confidences."""

from __future__ import annotations

import numpy as np
import pytest

from december_plugin.errors import SettingsError
from december_plugin.evaluation.calibration import calibration


def test_bins_of_a_small_case_by_hand():
    truth = [0, 0, 0, 1, 1, 1, -1]
    labels = [5, 5, 2, 2, 2, 5, 5]  # 5 is type 0, 2 is type 1: neurons 2 and 5 are wrong
    sure = [0.95, 0.85, 0.45, 0.99, 0.41, 0.89, 0.1]
    found = calibration(labels, sure, truth)
    assert found.n_neurons == 6
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.bins["n_neurons"].tolist() == [2, 2, 2]
    assert found.bins["low"].tolist() == pytest.approx([0.4, 0.8, 0.9])
    assert found.bins["confidence"].tolist() == pytest.approx([0.43, 0.87, 0.97])
    assert found.bins["accuracy"].tolist() == [0.5, 0.5, 1.0]
    assert found.expected_calibration_error == pytest.approx((0.07 + 0.37 + 0.03) / 3)
    assert found.overconfidence == pytest.approx(np.mean(sure[:6]) - 4 / 6)


def test_probabilities_of_the_true_model_are_calibrated():
    rng = np.random.default_rng(0)
    n = 20_000
    types = rng.integers(0, 2, n)
    x = rng.normal(loc=np.where(types == 0, -0.7, 0.7))
    q = 1 / (1 + np.exp(-1.4 * x))  # the posterior of type 1
    labels, sure = (q > 0.5).astype(int), np.maximum(q, 1 - q)
    assert calibration(1 - labels, sure, types).expected_calibration_error < 0.012
    too_sure = calibration(labels, sure**0.3, types)
    assert too_sure.expected_calibration_error > 0.1
    assert too_sure.overconfidence > 0.1
    by_count = calibration(labels, sure, types, binning="count", n_bins=8)
    assert by_count.bins["n_neurons"].between(n / 8 - 2, n / 8 + 2).all()
    assert by_count.expected_calibration_error < 0.012


def test_a_cluster_too_many_is_never_right():
    found = calibration([0, 0, 0, 1, 2, 2], np.ones(6), [0, 0, 0, 0, 1, 1])
    assert found.accuracy == pytest.approx(5 / 6)
    assert found.expected_calibration_error == pytest.approx(1 / 6)


@pytest.mark.parametrize("value", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("binning", ["width", "count"])
def test_equal_confidences_are_one_bin(value, binning):
    found = calibration([0, 1, 1], np.full(3, value), [0, 1, 0], binning=binning)
    assert len(found.bins) == 1
    assert found.bins["n_neurons"].tolist() == [3]
    assert found.bins["confidence"].tolist() == [value]


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (([0, 1], [0.5], [0, 1]), {}, "labels, confidences and truth have the shapes (2,), (1,) and (2,); all must"),
        (([0, 1], [0.5, 1], [-1, -1]), {}, "no neuron has a known type (types are integers of at least 0)."),
        (([0, 1], [0.5, 1.1], [0, 1]), {}, "a confidence is not between 0 and 1."),
        (([0, 1], [0.5, np.nan], [0, 1]), {}, "a confidence is not between 0 and 1."),
        (([0, -1], [0.5, 1.0], [0, 1]), {}, "labels must be integers of at least 0, the clusters' numbers."),
        (([0, 1], [0.5, 1.0], [0, 1]), {"binning": "equal"}, "binning is 'equal'; it must be 'width' or 'count'."),
        (([0, 1], [0.5, 1.0], [0, 1]), {"n_bins": 0}, "n_bins is 0, but must be an integer of at least 1."),
    ],
)
def test_mistakes(arguments, settings, message):
    with pytest.raises(SettingsError) as raised:
        calibration(*arguments, **settings)
    assert str(raised.value).startswith(message)
