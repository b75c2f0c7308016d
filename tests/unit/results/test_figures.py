"""Which learning rate the figure of the strengths shows, where several were tried."""

from __future__ import annotations

import numpy as np
import pandas as pd

from december_plugin.results.figures import one_rate_each


def shown(*rows: tuple[str, float, float]) -> list[tuple[str, float]]:
    frame = pd.DataFrame(rows, columns=["strength_setting", "learning_rate", "validation_correlation_mean"])
    kept = one_rate_each(frame)
    return list(zip(kept["strength_setting"], kept["learning_rate"], strict=True))


def test_a_rate_that_most_strengths_share_is_shown_and_a_strength_with_its_own_keeps_it() -> None:
    """As in the paper, where each strength has the learning rate that was chosen for it."""
    paper = [("10000", 0.008, 0.4), ("100000", 0.008, 0.4), ("1000000", 0.007, 0.3), ("10000000", 0.003, 0.2)]
    assert shown(*paper) == [(strength, rate) for strength, rate, _ in paper]


def test_of_several_rates_one_is_shown() -> None:
    assert shown(("1", 0.01, 0.1), ("1", 0.02, 0.9), ("2", 0.01, 0.1)) == [("1", 0.01), ("2", 0.01)]
    assert shown(("1", 0.01, 0.1), ("2", 0.01, 0.1), ("3", 0.02, 0.3), ("3", 0.03, 0.4)) == [
        ("1", 0.01),
        ("2", 0.01),
        ("3", 0.03),
    ]


def test_rates_and_scores_that_are_not_known() -> None:
    np.testing.assert_equal(shown(("1", np.nan, np.nan), ("2", np.nan, np.nan)), [("1", np.nan), ("2", np.nan)])
    assert shown() == []
