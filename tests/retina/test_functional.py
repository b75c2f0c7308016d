"""Functional embeddings of openretina's readouts: features are what the responses, before softplus, are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from december_plugin.embeddings import feature_covariance, fingerprints, functional_embeddings, readout_embeddings
from december_plugin.embeddings.readout_vectors import readout_vectors
from december_plugin.embeddings.received_features import received_features
from december_plugin.models import hoefling_core_gaussian_readout

N = 3
INFO = {"a": {"input_dimensions": [1, 2, 20, 18, 16], "output_dimension": N}}
SMALL = {"hidden_channels": [3, 4], "temporal_kernels": [9, 6], "spatial_kernels": [3, 3], "readout_positive": False}


def model_with(kind: str) -> Any:
    from openretina.modules.readout.factorized import FactorizedReadout

    model = hoefling_core_gaussian_readout(None, 0, data_info=INFO, **SMALL)
    if kind == "factorized":
        in_shape = (4, 7, 16, 14)
        factorized = FactorizedReadout(
            in_shape, N, 0.0, 0.0, 0.0, (16, 14), readout_bias=True, init_scales=[(0.0, 0.1), (0.0, 1.0)]
        )
        model.readout._modules["a"] = factorized
    torch.manual_seed(0)
    for parameter in model.readout.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    return model.double().eval()


@pytest.mark.parametrize("kind", ["Gaussian mask", "factorized"])
class TestReadouts:
    def test_features_are_what_responses_are_made_of(self, kind: str) -> None:
        model = model_with(kind)
        readout = model.readout["a"]
        videos = torch.randn(2, 2, 20, 18, 16).double()
        with torch.no_grad():
            features = received_features(readout, model.core(videos))
            drives = torch.einsum("snd,nd->sn", features, readout_vectors(readout))
            responses = model(videos, data_key="a")
        scales = getattr(readout, "scale_param", 1.0)
        expected = torch.nn.functional.softplus(drives * scales + readout.bias).reshape(responses.shape)
        torch.testing.assert_close(expected, responses)

    def test_covariance_is_that_of_the_features_of_every_frame(self, kind: str) -> None:
        model = model_with(kind)
        videos = torch.randn(3, 2, 20, 18, 16).double()
        with torch.no_grad():
            features = received_features(model.readout["a"], model.core(videos)).numpy()
        expected = np.mean([np.cov(features[:, i].T) for i in range(N)], axis=0)
        loaders = {"a": [{"inputs": videos, "targets": torch.zeros(3, 7, N)}]}
        np.testing.assert_allclose(feature_covariance(model, loaders), expected, rtol=1e-9, atol=1e-15)
        assert functional_embeddings(model, loaders).vectors.shape == (N, 4)
        assert fingerprints(model, videos).vectors.shape == (N, len(features) * 9)

    def test_readout_vectors_are_the_same_from_the_state_dict(self, kind: str) -> None:
        model = model_with(kind)
        expected = readout_vectors(model.readout["a"]).detach().numpy()
        np.testing.assert_array_equal(readout_embeddings(model.state_dict()).vectors, expected)
