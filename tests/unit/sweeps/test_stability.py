"""The section ``stability`` of a sweep."""

from __future__ import annotations

from typing import Any

import pytest

from december_plugin.sweeps.parse import SweepError, parse_evaluations, parse_sweep


def sweep(stability: Any) -> dict[str, Any]:
    return {
        "seeds": [1],
        "datasets": [{"fn": "helpers.planted_lab.loaders"}],
        "models": [{"fn": "helpers.planted_lab.model"}],
        "trainers": [{"fn": "helpers.planted_lab.baseline"}],
        "clusterings": [{"method": "kmeans", "n_clusters": 3}],
        "stability": stability,
    }


def test_resamplings_are_read_with_their_defaults() -> None:
    first, second = parse_sweep(sweep([{}, {"n_draws": 5, "share": 0.8, "clusterings": ["kmeans"]}])).stability
    assert (first.n_draws, first.share, first.seed, first.n_surrogates, first.clusterings) == (20, 0.5, 0, 0, None)
    assert (second.n_draws, second.share, second.clusterings) == (5, 0.8, ("kmeans",))
    assert parse_sweep(sweep(None)).stability == ()
    assert parse_evaluations({"stability": [{"n_draws": 3}]})[2][0].n_draws == 3  # as imports have it


@pytest.mark.parametrize(
    ("stability", "message"),
    [
        ({"n_draws": 20}, "stability must be a list of entries, e.g. [{n_draws: 20}]."),
        ([20], "stability, entry 1: an entry is a mapping with keys of n_draws, share, seed, n_surrogates, clust"),
        ([{"draws": 20}], "stability, entry 1: there is no key 'draws'."),
        ([{"share": 1.0}], "stability, entry 1: share is 1.0; it must be a number between 0 and 1."),
        ([{"n_surrogates": -1}], "stability, entry 1: n_surrogates is -1; it must be an integer from 0 to 10000."),
        ([{"clusterings": ["kmean"]}], "there is no clustering 'kmean'. Did you mean 'kmeans'?"),
        ([{}, {"n_draws": 20}], "stability, entry 2 has the settings of an entry before it."),
    ],
)
def test_mistakes_are_told(stability: Any, message: str) -> None:
    with pytest.raises(SweepError) as error:
        parse_sweep(sweep(stability))
    assert message in str(error.value)
