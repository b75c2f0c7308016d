"""Settings that every clustering has beside those of its method."""

from __future__ import annotations

import pytest

from december_plugin.clustering.methods import (
    POST_HOC,
    canonical_settings,
    embedding_space,
    own_settings,
    setting_mistakes,
)
from december_plugin.embeddings.space import EmbeddingSpace


@pytest.mark.parametrize("method", POST_HOC)
def test_the_space_is_stored_only_where_it_is_not_that_of_the_readout_vectors(method):
    defaults = canonical_settings(method, {})
    assert defaults == canonical_settings(method, {"space": "readout", "normalize": "none"})
    assert not {"space", "normalize"} & defaults.keys()
    functional = canonical_settings(method, {"space": "functional", "normalize": "l2"})
    assert functional == {**defaults, "space": "functional", "normalize": "l2"}
    assert canonical_settings(method, {"space": "functional"}) == {**defaults, "space": "functional"}


def test_the_space_is_found_in_stored_settings_and_the_rest_is_the_methods():
    stored = canonical_settings("kmeans", {"normalize": "l2", "seed": 3})
    assert embedding_space(stored) == EmbeddingSpace(normalize="l2")
    assert own_settings(stored) == {"n_init": 20, "seed": 3}
    assert embedding_space(canonical_settings("kmeans", {})) == EmbeddingSpace()


def test_mistakes_name_the_setting_and_what_is_allowed():
    found = setting_mistakes("gmm", {"normalise": "l2", "space": "functonal", "normalize": None})
    assert [(name, str(error)) for name, error in found] == [
        (
            "normalise",
            "gmm has no setting 'normalise'. Did you mean 'normalize'? Allowed: max_iter, n_init, normalize, "
            "reg_covar, seed, space, tol.",
        ),
        ("space", "space is 'functonal', which is unknown. Did you mean 'functional'? Allowed: functional, readout."),
        ("normalize", "normalize is None, which is unknown. Did you mean 'none'? Allowed: l2, none."),
    ]
