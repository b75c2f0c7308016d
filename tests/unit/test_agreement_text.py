"""What ``december ari`` says about the test tier."""

import numpy as np
import pandas as pd
import report_parts as parts

from december_plugin.commands._agreement import performance_notes, performance_text

UNTESTED = pd.DataFrame({"data_key": ["b"], "reason": ["all its responses are constant"]})


def test_over_what_the_test_correlations_are_means():
    assert performance_notes(parts.performance(), UNTESTED).splitlines() == [
        "Test correlations are means over 1,030 neurons in 2 of 3 sessions; up to 2 with a constant response or "
        "prediction count as 0. Their noise ceiling is 0.550 (`december ari --performance`).",
        "Not tested: session b: all its responses are constant.",
    ]
    everything = parts.performance(n_untested=0).assign(n_constant_neurons=0, single_trial_ceiling=np.nan)
    assert (
        performance_notes(everything, UNTESTED[:0]) == "Test correlations are means over 1,030 neurons in 2 sessions."
    )


def test_nothing_is_said_of_tests_of_a_release_that_did_not_count():
    assert performance_notes(parts.performance().assign(n_tested_sessions=np.nan), UNTESTED[:0]) == ""
    assert performance_notes(parts.performance()[:0], UNTESTED[:0]) == ""


def test_performance_is_a_row_for_each_trainer():
    lines = performance_text(parts.agreement(), parts.performance().drop(columns="label")).splitlines()
    assert lines[0].split() == ["models", "single", "trials", "ceiling", "average", "ceiling", "normalized", "FEVE"]
    assert [line.split() for line in lines[2:4]] == [
        ["k-means", "/", "t", "mixture", "0.420", "±", "0.010", "0.550", "0.610", "0.800", "0.760", "0.580"],
        ["k-means,", "end", "of", "pretraining", "0.400", "-", "-", "-", "-", "-"],
    ]
    assert len({len(line.rstrip()) for line in lines[:2]}) == 1
    assert lines[-1].endswith("all but the first need repeated images.")


def test_no_model_is_tested_yet():
    text = performance_text(parts.agreement(), parts.performance()[:0])
    assert text == "No model is tested yet: `december worker` computes it (TestPerformance)."
