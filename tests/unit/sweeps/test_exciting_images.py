"""The section ``exciting_images`` of a sweep."""

from __future__ import annotations

from typing import Any

import pytest

from december_plugin.sweeps.parse import SweepError, parse_evaluations, parse_sweep


def sweep(exciting_images: Any) -> dict[str, Any]:
    return {
        "seeds": [1],
        "datasets": [{"fn": "helpers.planted_lab.loaders"}],
        "models": [{"fn": "helpers.planted_lab.model"}],
        "trainers": [{"fn": "helpers.planted_lab.baseline"}],
        "exciting_images": exciting_images,
    }


def test_images_are_read_with_their_defaults() -> None:
    asked = [{}, {"per_cluster": 4, "models": "seeds", "norm": 20, "n_starts": 1, "clusterings": ["kmeans", "gmm"]}]
    first, second = parse_sweep(sweep(asked)).exciting_images
    assert (first.per_cluster, first.models, first.least_correlation, first.clusterings) == (16, "single", 0.7, None)
    assert (first.norm, first.max_steps, first.n_starts, first.seed) == (None, 300, 3, 0)
    assert (second.per_cluster, second.models, second.clusterings) == (4, "seeds", ("gmm", "kmeans"))
    assert second.ascent == {**first.ascent, "norm": 20, "n_starts": 1}
    assert parse_sweep(sweep(None)).exciting_images == ()
    assert parse_evaluations({"exciting_images": asked}).exciting_images == (first, second)  # as imports have it


@pytest.mark.parametrize(
    ("exciting_images", "message"),
    [
        ({"per_cluster": 4}, "exciting_images must be a list of entries, e.g. [{per_cluster: 16}]."),
        ([16], "exciting_images, entry 1: an entry is a mapping with keys of norm, frequency_power, "),
        ([{"per_clusters": 4}], "there is no key 'per_clusters'. Did you mean 'per_cluster'?"),
        ([{"per_cluster": 0}], "exciting_images, entry 1: per_cluster is 0; it must be at least 1."),
        ([{"models": "seed"}], "models is 'seed', which is unknown. Did you mean 'seeds'?"),
        ([{"least_correlation": 7}], "least_correlation is 7; it must be a correlation from -1 to 1."),
        ([{"highest_frequency": 1.0}], "it must be a number above 0 and at most 0.71 cycles per pixel"),
        ([{}, {"n_starts": 3}], "exciting_images, entry 2 has the settings of an entry before it."),
    ],
)
def test_mistakes_are_told(exciting_images: Any, message: str) -> None:
    with pytest.raises(SweepError) as error:
        parse_sweep(sweep(exciting_images))
    assert message in str(error.value)
