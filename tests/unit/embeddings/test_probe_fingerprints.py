"""Fingerprints: the same axes for every model, the geometry of functional embeddings, principal components."""

import numpy as np
import pytest
import torch
from neuralpredictors.layers import readouts
from torch import nn

from december_plugin.embeddings import feature_covariance, fingerprints, noise_probes
from december_plugin.embeddings.readout_vectors import readout_vectors
from december_plugin.errors import EmbeddingError, MisfitError
from helpers.readouts import FACTORIES, build, prepared

N = 5


class Model(nn.Module):
    def __init__(self, core, **sessions):
        super().__init__()
        self.core = core
        self.readout = nn.ModuleDict(sessions)


def model_of(name="full Gaussian", seed=0):
    torch.manual_seed(seed)
    core = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh())
    return Model(core, a=build(name, N), b=build(name, N + 1)).double()


PROBES = noise_probes((1, 6, 7), n=20)


def naive(model, vectors, positions):
    """Loops over probes, positions and neurons, by a readout with one neuron at each position."""
    drives = np.zeros((len(vectors), len(PROBES), len(positions)))
    maps = model.core(PROBES.double()).detach()
    for s, position in enumerate(positions):
        grid = torch.tensor(position, dtype=torch.float64).view(1, 1, 1, 2)
        for t in range(len(PROBES)):
            features = nn.functional.grid_sample(maps[t : t + 1], grid, align_corners=True)[0, :, 0, 0].numpy()
            for i in range(len(vectors)):
                drives[i, t, s] = vectors[i] @ features
    drives -= drives.mean(axis=1, keepdims=True)
    return drives.reshape(len(vectors), -1) / np.sqrt((len(PROBES) - 1) * len(positions))


def test_are_drives_for_the_probes_at_the_positions():
    model = model_of()
    vectors = torch.cat([readout_vectors(model.readout[key]) for key in "ab"]).detach().numpy()
    expected = naive(model, vectors, [(0.5, -0.25), (0, 0)])
    found = fingerprints(model, PROBES, positions=[(0.5, -0.25), (0, 0)], normalize="none")
    np.testing.assert_allclose(found.vectors, expected, atol=1e-12)
    assert list(found.data_keys) == ["a"] * N + ["b"] * (N + 1)
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    directions = fingerprints(model, PROBES, positions=[(0.5, -0.25), (0, 0)]).vectors
    np.testing.assert_allclose(directions, expected / lengths, atol=1e-12)


def test_have_the_geometry_of_functional_embeddings_at_their_position():
    model = model_of()
    for readout in model.readout.values():
        readout._mu.data[:] = torch.tensor([0.25, 0.125])
    sigma = feature_covariance(model, PROBES)
    vectors = torch.cat([readout_vectors(model.readout[key]) for key in "ab"]).detach().numpy()
    found = fingerprints(model, PROBES, positions=[(0.25, 0.125)], normalize="none").vectors
    np.testing.assert_allclose(found @ found.T, vectors @ sigma @ vectors.T, atol=1e-10)


@pytest.mark.parametrize("name", FACTORIES)
def test_are_known_for_every_readout(name):
    model = model_of(name)
    model.train()
    found = fingerprints(model, PROBES).vectors
    assert found.shape == (2 * N + 1, len(PROBES) * 9)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    assert model.core[0].training


def test_models_of_the_same_function_and_another_basis_agree():
    one, other = model_of(), model_of()
    mixing = torch.randn(6, 6).double()
    other.core.append(nn.Conv2d(6, 6, 1, bias=False).double())
    other.core[2].weight.data = mixing[..., None, None]
    for readout in other.readout.values():
        readout.features.data[0, :, 0] = torch.linalg.inv(mixing).T @ readout.features.data[0, :, 0]
    first, second = fingerprints([one, other], PROBES)
    np.testing.assert_allclose(first.vectors, second.vectors, atol=1e-8)
    few = fingerprints([one, other], PROBES, n_components=4)
    np.testing.assert_allclose(few[0].vectors, few[1].vectors, atol=1e-8)


def test_principal_components_are_common_to_all_models():
    models = [model_of(seed=0), model_of(seed=1)]
    models[1].core = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ELU()).double()  # another architecture
    models[1].readout = nn.ModuleDict({"a": prepared(readouts.FullGaussian2d((8, 4, 5), N, True)).double()})
    whole = fingerprints(models, PROBES)
    few = fingerprints(models, PROBES, n_components=3)
    stacked = np.concatenate([each.vectors for each in whole])
    axes = np.linalg.svd(stacked, full_matrices=False)[2][:3].T
    for each, reduced in zip(whole, few, strict=True):
        np.testing.assert_allclose(np.abs(reduced.vectors), np.abs(each.vectors @ axes), atol=1e-10)
    everything = fingerprints(models, PROBES, n_components=14)  # 6 and 8 features
    for each, reduced in zip(whole, everything, strict=True):
        np.testing.assert_allclose(reduced.vectors @ reduced.vectors.T, each.vectors @ each.vectors.T, atol=1e-10)
    assert few[1].vectors.tobytes() == fingerprints(models, PROBES, n_components=3)[1].vectors.tobytes()


class TestBadInput:
    def test_settings(self):
        with pytest.raises(MisfitError, match=r"positions have the shape \(2,\); they must be \(places, 2\), x and y"):
            fingerprints(model_of(), PROBES, positions=(0, 0))
        with pytest.raises(MisfitError, match="n_components is 7, but the fingerprints have at most 6 components"):
            fingerprints(model_of(), PROBES, n_components=7)

    def test_probes(self):
        with pytest.raises(EmbeddingError, match=r"cannot take stimuli of shape \(2, 6, 7\)"):
            fingerprints(model_of(), noise_probes((2, 6, 7), n=3))
        with pytest.raises(EmbeddingError, match="there is only one probe stimulus; fingerprints need at least two"):
            fingerprints(model_of(), PROBES[:1])
        with pytest.raises(EmbeddingError, match="the core's output for the probes holds NaN"):
            fingerprints(model_of(), PROBES * np.nan)

    def test_models(self):
        class Foreign(nn.Module):
            def embedding_vectors(self):
                return torch.ones(2, 6)

            def embedding_features(self, core_output):
                return core_output.mean(dim=(2, 3))[:, None].expand(-1, 2, -1)

        model = Model(nn.Conv2d(1, 6, 3), a=Foreign())
        with pytest.raises(EmbeddingError, match="Foreign defines its own features, which are not known at other"):
            fingerprints(model, PROBES)
        with pytest.raises(EmbeddingError, match="there are no models to compute fingerprints of"):
            fingerprints([], PROBES)
        model.core = None
        with pytest.raises(EmbeddingError, match="Model has no core that stimuli could be shown to without a session"):
            fingerprints(model, PROBES)
