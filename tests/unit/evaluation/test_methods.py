"""What labels stand for: names, controls, and the order of legends and tables."""

import math

import pytest

from december_plugin.evaluation.methods import Method, role_order


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (Method("december", "december", strength="1"), "DECEMber"),
        (Method("kmeans", "control"), "k-means, end of pretraining"),
        (Method("t_mixture", "baseline"), "t mixture"),
        (Method("spectral", "other"), "spectral"),
    ],
)
def test_what_a_method_is_called_by_itself(method: Method, name: str) -> None:
    assert method.name == name


def test_the_end_of_the_pretraining_and_a_strength_of_zero_are_controls() -> None:
    assert Method("gmm", "control").is_control
    assert Method("december", "december", strength="0.0").is_control
    assert not any(Method("december", "december", strength=text).is_control for text in ("", "auto", "0.5"))
    assert math.isnan(Method("december", strength="auto").strength_number)


def test_order_of_legends_and_of_tables() -> None:
    kinds = ["december", "gmm", "kmeans", "t_mixture", "dec", "baseline", "mine"]
    methods = [*map(Method, kinds), Method("december", strength="0"), Method("kmeans", "control")]
    backwards = methods[::-1]
    backwards.sort(key=lambda method: method.order)
    assert backwards == methods
    assert sorted(["other", "control", "baseline", "december"], key=role_order) == [
        *("december", "baseline", "control", "other")
    ]
