"""What the labels of configurations stand for: told by the tables, as far as it differs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from december_plugin.evaluation.methods import Method
from december_plugin.results.labels import configuration_labels, configuration_methods


def configuration(method: str, role: str, strength: str | None = None, **more: Any) -> dict[str, Any]:
    key = {"dataset_fn": "d", "dataset_hash": "d", "model_fn": "m", "model_hash": "m"}
    settings = {"trainer_config": {}, "clustering_settings": {}}
    return {**key, "method": method, "trainer_role": role, "strength_setting": strength, **settings, **more}


def test_a_strength_is_part_of_a_method_where_several_are_compared() -> None:
    rows = [
        configuration("december", "december", "auto"),
        configuration("december", "december", "0"),
        configuration("kmeans", "baseline"),
        configuration("kmeans", "control"),
        configuration("december", "december", "0.001", dataset_hash="other"),
    ]
    assert configuration_methods(pd.DataFrame(rows)) == [
        Method("december", "december", strength="auto"),
        Method("december", "december", strength="0"),
        Method("kmeans", "baseline"),
        Method("kmeans", "control"),
        Method("december", "december"),
    ]


def test_a_constant_target_is_part_of_a_method_where_both_are_compared() -> None:
    constant = {"trainer_config": {"detach_target": True}}
    both = pd.DataFrame([configuration("december", "december"), configuration("december", "december", **constant)])
    assert [method.constant_target for method in configuration_methods(both)] == [False, True]
    assert [method.constant_target for method in configuration_methods(both.iloc[1:])] == [False]


def test_the_space_is_part_of_a_method_by_the_settings_of_its_clustering_or_trainer() -> None:
    l2 = {"space": "functional", "normalize": "l2"}
    rows = [
        configuration("kmeans", "baseline", clustering_settings={"seed": 0, **l2}, trainer_config={}),
        configuration("kmeans", "baseline", clustering_settings={"normalize": "l2"}, trainer_config={}),
        configuration("december", "december", trainer_config=l2),
        configuration("kmeans", "december", trainer_config=l2),
        configuration("december", "december", space_trained="functional", normalize_trained="none"),
        configuration("kmeans", "baseline", clustering_settings={"normalize": "l2", "minimum_test_correlation": 0.25}),
    ]
    names = [method.name for method in configuration_methods(pd.DataFrame(rows))]
    assert names == [
        "k-means, functional, direction",
        "k-means, readout vectors, direction",
        "DECEMber, functional, direction",
        "k-means",
        "DECEMber, functional",
        "k-means, readout vectors, direction, test correlation 0.25 and above",
    ]


def test_an_aligned_clustering_never_looks_like_one_that_is_not() -> None:
    settings = [{}, {"alignment": {}}, {"alignment": {"schedule": "paper"}}, {"alignment": {"control": "features"}}]
    more = {"n_clusters": 4, "trainer_comment": "", "trainer_fn": "t", "trainer_hash": "t", "clustering_hash": "c"}
    more["clustering_description"] = ""
    rows = pd.DataFrame([configuration("gmm", "baseline", clustering_settings=own, **more) for own in settings])
    names = [
        "Gaussian mixture",
        "Gaussian mixture, aligned",
        "Gaussian mixture, aligned (paper's schedule)",
        "Gaussian mixture, aligned (features permuted in every neuron)",
    ]
    assert [method.name for method in configuration_methods(rows)] == names
    assert configuration_labels(rows) == names


def test_the_text_of_a_comment_says_nothing() -> None:
    row = configuration("gmm", "baseline", trainer_comment="DECEMber, strength 0 (control)")
    assert configuration_methods(pd.DataFrame([row])) == [Method("gmm", "baseline")]
