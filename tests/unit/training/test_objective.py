"""The validation correlation as a GPU computes it, beside the one of NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from december_plugin.evaluation.performance import constant_neurons, single_trial_correlation
from december_plugin.training import objective
from december_plugin.training.objective import correlations_on_device, validation_correlation
from helpers.resident import session_loaders
from helpers.tape import no_waiting
from helpers.trainings import make_model


def test_correlations_are_those_of_numpy(monkeypatch):
    monkeypatch.setattr(objective, "BLOCK", 4)
    generator = np.random.default_rng(0)
    responses = generator.poisson(2.0, size=(30, 11)).astype(np.float32)
    predictions = (responses + generator.normal(size=(30, 11))).astype(np.float32)
    responses[:, 2] = 3.1  # constant
    predictions[:, 5] = 0.7
    responses[:, 7] *= np.float32(1e-30)  # the squares vanish in float32
    predictions[3, 9] = np.nan
    correlations, measured = correlations_on_device(torch.from_numpy(responses), torch.from_numpy(predictions))
    np.testing.assert_allclose(correlations.numpy(), single_trial_correlation(responses, predictions), atol=1e-12)
    np.testing.assert_array_equal(measured.numpy(), ~constant_neurons(responses, responses))


def test_the_score_on_a_device_is_the_score_and_predicting_does_not_wait(monkeypatch):
    model, loaders = make_model().eval(), session_loaders()["validation"]
    cpu = torch.device("cpu")
    expected = validation_correlation(model, loaders, device=cpu)
    loaders["two"].dataset.responses[:] = 0  # a session that was not measured
    without = validation_correlation(model, loaders, device=cpu)
    monkeypatch.setattr(objective, "summed_correlation", objective.summed_on_device)
    assert validation_correlation(model, loaders, device=cpu) == pytest.approx(without, abs=1e-12)
    loaders = session_loaders()["validation"]
    assert validation_correlation(model, loaders, device=cpu) == pytest.approx(expected, abs=1e-12)
    batches = {data_key: list(loader) for data_key, loader in loaders.items()}
    with no_waiting():
        total = [value for _, *value in objective.predict_on_device(model, batches, device=cpu)]
    assert len(total) == 2
