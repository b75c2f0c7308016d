"""The section ``surrogates`` of a sweep."""

from __future__ import annotations

from typing import Any

import pytest

from december_plugin.clustering.methods import METHODS
from december_plugin.errors import SettingsError
from december_plugin.evaluation.surrogate_settings import ONCE_ALL, SurrogateSettings
from december_plugin.sweeps.parse import parse_sweep


def sweep(surrogates: Any) -> dict[str, Any]:
    return {
        "seeds": [1, 2],
        "datasets": [{"fn": "december_plugin.datasets.static_loaders", "config": {"paths": ["a"], "batch_size": 8}}],
        "models": [{"fn": "december_plugin.models.stacked_core_gaussian_readout"}],
        "trainers": [{"fn": "december_plugin.trainers.baseline_trainer"}],
        "surrogates": surrogates,
    }


def test_surrogates_are_read_with_their_defaults():
    asked = parse_sweep(sweep([{"n_draws": 99}, {"name": "plain", "method": "gaussian", "seed": 3}])).surrogates
    assert asked == (
        SurrogateSettings(name=None, n_draws=99, seed=0, method="elliptical"),
        SurrogateSettings(name="plain", n_draws=20, seed=3, method="gaussian"),
    )


def test_surrogates_of_some_clusterings():
    asked = parse_sweep(sweep([{"clusterings": ["kmeans", "december", "kmeans"]}, {"seed": 1}])).surrogates
    assert [each.clusterings for each in asked] == [("december", "kmeans"), None]
    every = parse_sweep(sweep([{"clusterings": [*reversed(METHODS)]}])).surrogates
    assert every[0].clusterings is None


def test_lists_of_all_methods_of_earlier_versions_are_lists_of_some_now():
    for once in ONCE_ALL:
        assert SurrogateSettings(clusterings=once).clusterings == once
    # Whoever adds a method adds those that were all before to ONCE_ALL, and the same for resamplings, whose entries are
    # not older than these methods.
    assert sorted(METHODS) == ["december", "gmm", "hdbscan", "kmeans", "t_mixture", "t_neb", "ward"]


def test_nothing_is_asked_for_without_the_section():
    content = sweep(None)
    assert parse_sweep(content).surrogates == ()
    del content["surrogates"]
    assert parse_sweep(content).surrogates == ()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (20, "surrogates must be a list of entries, e.g. [{n_draws: 99}]."),
        (
            [{"clusterings": ["k-means"]}],
            "surrogates, entry 1: there is no clustering 'k-means'. Did you mean 'kmeans'? Allowed: december, "
            "gmm, hdbscan, kmeans, t_mixture, t_neb, ward.",
        ),
        (
            [{"clusterings": "kmeans"}],
            "surrogates, entry 1: clusterings is 'kmeans'; it must be a list of december, gmm, kmeans, t_mixture, "
            "ward, t_neb, hdbscan, or be left out.",
        ),
        ([20], "surrogates, entry 1: an entry is a mapping with keys of name, n_draws, seed, method, clusterings."),
        ([{"draws": 20}], "surrogates, entry 1: there is no key 'draws'. Did you mean 'n_draws'?"),
        ([{"n_draws": 0}], "surrogates, entry 1: n_draws is 0; it must be at least 1."),
        ([{"seed": True}], "surrogates, entry 1: seed is True; it must be an integer from 0 to 2**32 - 1."),
        (
            [{}, {"method": "normal"}],
            "surrogates, entry 2: there is no surrogate method 'normal'. Allowed: axial, combined, elliptical",
        ),
        ([{}, {"n_draws": 20}], "surrogates, entry 2 has the settings of an entry before it."),
        ([{"name": "a"}, {"name": "a", "seed": 1}], "surrogates, entry 2 has the name 'a' again."),
    ],
)
def test_mistakes(section, message):
    with pytest.raises(SettingsError) as raised:
        parse_sweep(sweep(section))
    assert message in str(raised.value)
