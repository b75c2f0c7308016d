"""Many methods in one figure: styles that never run out, and which of them are shown in colour."""

import numpy as np
import pandas as pd
import pytest

from december_plugin.evaluation.methods import Method
from december_plugin.plots import shown_methods
from december_plugin.plots.style import ordered_methods
from helpers.figures import identified, method_of, style_of, styles_of

KINDS = ("DECEMber", "Gaussian mixture", "k-means", "t mixture", "DEC", "baseline", "mine")


def many(n, name="DECEMber, run {}", counts=(4, 6)):
    rows = [
        {"label": name.format(i), "n_clusters": count, "agreement_mean": i / n - 0.02 * count}
        for i in range(n)
        for count in counts
    ]
    return identified(pd.DataFrame(rows))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [33, 34, 200, 1000])
def test_any_number_of_methods_of_one_kind_has_styles(kind, n):
    labels = [f"{kind}, run {i}" if kind != "mine" else "mine" + " " * i for i in range(n)]
    styles = styles_of(labels)
    assert list(styles) == labels
    assert len(set(styles.values())) == 33
    assert styles == styles_of(labels[::-1]) or kind == "mine"


def test_styles_begin_again_in_the_order_of_the_names():
    styles = list(styles_of([f"k-means, run {i}" for i in range(70)]).values())
    assert styles[0] == style_of("k-means, run 0")
    assert styles[33:66] == styles[:33]
    assert styles[66:] == styles[:4]


def test_methods_have_one_order():
    labels = ["t mixture, end of pretraining", "mine", "t mixture", "DECEMber, strength 1", "k-means", "DECEMber"]
    expected = ["DECEMber, strength 1", "DECEMber", "k-means", "t mixture", "mine", "t mixture, end of pretraining"]
    assert ordered_methods({label: method_of(label) for label in [*labels, "k-means"]}) == expected
    assert list(styles_of(labels)) == expected
    assert method_of("t mixture, end of pretraining") == Method("t_mixture", "control")
    assert Method("t_mixture", "control").is_control


def test_few_methods_are_all_shown():
    shown = shown_methods(many(12), "agreement_mean")
    assert len(shown.styles) == 12
    assert shown.others == ()
    assert len(shown.handles()) == 12


def test_of_many_methods_kinds_take_turns_and_the_best_come_first():
    table = pd.concat([many(40), many(3, "k-means, run {}"), many(1, "k-means, end of pretraining")])
    shown = shown_methods(table, "agreement_mean")
    assert list(shown.styles) == [
        *(f"DECEMber, run {i}" for i in range(32, 40)),
        *("k-means, run 0", "k-means, run 1", "k-means, run 2"),
        "k-means, end of pretraining",
    ]
    assert len(shown.others) == 32
    assert shown.handles()[-1].get_label() == "32 others, grey"
    again = shown_methods(table.sample(frac=1.0, random_state=1), "agreement_mean")
    assert set(again.styles) == set(shown.styles)


def test_a_method_is_not_better_for_having_been_tried_at_a_favourable_k():
    table = many(20, counts=(4, 20))
    easy = identified(pd.DataFrame({"label": "DECEMber, run of one K", "n_clusters": [4], "agreement_mean": [0.3]}))
    shown = shown_methods(pd.concat([table, easy]), "agreement_mean")
    assert "DECEMber, run of one K" not in shown.styles
    assert "DECEMber, run 19" in shown.styles


def test_methods_without_a_value_come_last():
    table = many(20)
    table.loc[table["label"] == "DECEMber, run 19", "agreement_mean"] = np.nan
    assert "DECEMber, run 19" in shown_methods(table, "agreement_mean").others
    assert len(shown_methods(table, "nothing").styles) == 12
