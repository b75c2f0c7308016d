"""Embeddings in each space: distances, directions, gradients, and covariances that are none."""

import warnings

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from december_plugin.embeddings.space import EmbeddingSpace, checked_covariance, covariance_root
from december_plugin.errors import EmbeddingError, SettingsError

RNG = np.random.default_rng(0)
W = RNG.normal(size=(20, 4))
FACTORS = RNG.normal(size=(4, 4))
SIGMA = FACTORS @ FACTORS.T
FUNCTIONAL = EmbeddingSpace(space="functional")


def test_the_root_is_the_symmetric_one() -> None:
    np.testing.assert_allclose(covariance_root(SIGMA), sqrtm(SIGMA).real, atol=1e-12)
    singular = np.diag([2.0, 0.0, 1e-30, 4.0])
    np.testing.assert_allclose(covariance_root(singular) @ covariance_root(singular), singular, atol=1e-15)


def test_distances_are_those_of_the_covariance() -> None:
    embedded = FUNCTIONAL.embed(W, covariance_root(SIGMA))
    difference = W[3] - W[7]
    assert np.sum((embedded[3] - embedded[7]) ** 2) == pytest.approx(difference @ SIGMA @ difference)


def test_directions_have_length_1_and_vectors_of_zeros_stay() -> None:
    vectors = np.vstack([W, np.zeros(4)])
    for space, root in (("readout", None), ("functional", covariance_root(SIGMA))):
        lengths = np.linalg.norm(EmbeddingSpace(space=space, normalize="l2").embed(vectors, root), axis=1)
        np.testing.assert_allclose(lengths, [1.0] * 20 + [0.0])


def test_readout_vectors_are_returned_as_they_are() -> None:
    tensor = torch.tensor(W)
    assert EmbeddingSpace().embed(tensor) is tensor
    assert EmbeddingSpace().embed(W) is W
    assert FUNCTIONAL.embed(tensor.float(), covariance_root(SIGMA)).dtype == torch.float32


def test_gradients_pass_through_root_and_direction() -> None:
    vectors = torch.tensor(W, requires_grad=True)
    root = torch.tensor(covariance_root(SIGMA))
    space = EmbeddingSpace(space="functional", normalize="l2")
    assert torch.autograd.gradcheck(lambda w: space.embed(w, root), (vectors,))
    with_zero = torch.tensor(np.vstack([W, np.zeros(4)]), requires_grad=True)
    space.embed(with_zero, root).sum().backward()
    assert with_zero.grad is not None
    assert with_zero.grad.isfinite().all()


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.ones((3, 4)), r"has the shape \(3, 4\); it must be \(features, features\)"),
        (SIGMA + np.eye(4, k=2)[[0, 3, 3, 3]], r"is not symmetric: entry \(0, 2\) is"),
        (np.full((4, 4), np.nan), "holds NaN or infinite values"),
        (np.diag([1.0, -1.0, 1.0, 1.0]), "has the negative eigenvalue -1; covariances have none"),
        (np.eye(5), "is of 5 features and the readout vectors have 4"),
    ],
)
def test_what_is_no_covariance_is_refused(covariance: np.ndarray, message: str) -> None:
    with pytest.raises(EmbeddingError, match=message):
        checked_covariance(covariance, n_features=4)


def test_functional_embeddings_need_the_root_of_the_same_model() -> None:
    with pytest.raises(EmbeddingError, match="need the model's feature covariance"):
        FUNCTIONAL.embed(W)
    with pytest.raises(EmbeddingError, match=r"has the shape \(5, 5\) and the readout vectors have 4 features"):
        FUNCTIONAL.embed(W, np.eye(5))


def test_spaces_have_names_and_unknown_ones_are_refused() -> None:
    assert EmbeddingSpace().phrase == "readout vectors"
    direction = EmbeddingSpace(space="functional", normalize="l2")
    assert (direction.phrase, direction.vectors) == ("functional, direction", "directions of functional embeddings")
    assert (EmbeddingSpace().phrase, EmbeddingSpace().vectors) == ("readout vectors",) * 2
    with pytest.raises(SettingsError, match=r"space is 'functonal', which is unknown. Did you mean 'functional'\?"):
        EmbeddingSpace(space="functonal")
    with pytest.raises(SettingsError, match="normalize is 'l1', which is unknown"):
        EmbeddingSpace(normalize="l1")


@pytest.mark.parametrize("normalize", ["none", "l2"])
def test_arrays_of_every_memory_are_embedded_alike(normalize: str) -> None:
    space = EmbeddingSpace(space="functional", normalize=normalize)
    vectors, root = np.random.default_rng(0).normal(size=(6, 3)), covariance_root(np.diag([1.0, 2.0, 3.0]))
    expected = space.embed(vectors, root)
    read_only = vectors.copy()
    read_only.flags.writeable = False
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for other in (read_only, vectors.astype(">f8"), np.asfortranarray(vectors), vectors[::-1][::-1]):
                np.testing.assert_array_equal(space.embed(other, root), expected)
    finally:
        torch.set_warn_always(False)
