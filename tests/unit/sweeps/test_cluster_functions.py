"""The section ``cluster_confusion`` of a sweep."""

from __future__ import annotations

from typing import Any

import pytest

from december_plugin.sweeps.parse import SweepError, parse_evaluations, parse_sweep


def sweep(cluster_confusion: Any) -> dict[str, Any]:
    return {
        "seeds": [1],
        "datasets": [{"fn": "helpers.planted_lab.loaders"}],
        "models": [{"fn": "helpers.planted_lab.model"}],
        "trainers": [{"fn": "helpers.planted_lab.baseline"}],
        "cluster_confusion": cluster_confusion,
    }


def test_comparisons_are_read_with_their_defaults() -> None:
    asked = [{}, {"threshold": 1, "responses": "images", "clusterings": ["kmeans", "gmm"]}]
    first, second = parse_sweep(sweep(asked)).cluster_confusion
    assert (first.threshold, first.responses, first.clusterings) == (0.5, "linear", None)
    assert (second.threshold, second.responses, second.clusterings) == (1.0, "images", ("gmm", "kmeans"))
    assert parse_sweep(sweep(None)).cluster_confusion == ()
    assert parse_evaluations({"cluster_confusion": asked}).cluster_confusion == (first, second)  # as imports have it


@pytest.mark.parametrize(
    ("cluster_confusion", "message"),
    [
        ({"threshold": 0.5}, "cluster_confusion must be a list of entries, e.g. [{threshold: 0.5}]."),
        ([0.5], "cluster_confusion, entry 1: an entry is a mapping with keys of threshold, responses, clusterings."),
        ([{"thresh": 0.5}], "there is no key 'thresh'. Did you mean 'threshold'?"),
        ([{"threshold": "high"}], "threshold is 'high'; it must be a correlation from -1 to 1."),
        ([{"responses": "line"}], "responses is 'line', which is unknown."),
        ([{"clusterings": []}], "clusterings is []; it must be a list of december, "),
        ([{}, {"threshold": 0.5}], "cluster_confusion, entry 2 has the settings of an entry before it."),
    ],
)
def test_mistakes_are_told(cluster_confusion: Any, message: str) -> None:
    with pytest.raises(SweepError) as error:
        parse_sweep(sweep(cluster_confusion))
    assert message in str(error.value)
