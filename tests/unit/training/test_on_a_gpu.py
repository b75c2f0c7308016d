"""Trainings on a GPU: data that stay there and recorded steps change nothing but rounding, and no step waits."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from december_plugin.trainers import baseline_trainer, december_trainer
from december_plugin.training.objective import ModelLoss, correlations_on_device, validation_correlation
from december_plugin.training.optimizer import Adam
from december_plugin.training.resident import resident_loaders
from december_plugin.training.steps import RecordedSteps, optimizer_steps
from helpers.resident import session_loaders
from helpers.trainings import make_model

CUDA = torch.device("cuda")
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("own_pretrainings")]
PLAIN = {"resident_data": False, "cuda_graphs": False}


def train(*, n_clusters=None, model=None, **settings):
    settings = {"max_iter": 8, "lr_init": 0.01, "device": "cuda", "share_pretraining": False, **settings}
    model, loaders = model or make_model(), session_loaders()
    if n_clusters is None:
        return baseline_trainer(model, loaders, 1, **settings)
    return december_trainer(model, loaders, 1, n_clusters=n_clusters, pretrain_epochs=3, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_clusters": 3},
        {"n_clusters": 3, "strength": 0.5, "weights": "learned"},
        {"n_clusters": 3, "space": "functional", "normalize": "l2"},
    ],
)
@pytest.mark.parametrize("ways", [{}, {"cuda_graphs": False}, {"resident_data": "inputs"}, {"resident_data": False}])
def test_data_that_stay_and_recorded_steps_change_nothing_but_rounding(settings, ways):
    expected, output = (train(**settings, **each)[1]["curves"] for each in (PLAIN, ways))
    for name in ("train_loss", "validation_correlation"):
        np.testing.assert_allclose(output[name][:5], expected[name][:5], rtol=5e-2, atol=5e-2, err_msg=name)
    np.testing.assert_allclose(output["train_loss"][0], expected["train_loss"][0], rtol=1e-4)
    assert np.isfinite(output["clustering_loss"][3:]).all() == ("n_clusters" in settings)


def steps_on_a_gpu(cuda_graphs="auto"):
    torch.manual_seed(1)
    model, loaders = make_model().to(CUDA), session_loaders()
    loss = ModelLoss(model, loaders["train"], scale_loss=True, device=CUDA)
    held = resident_loaders(loaders, CUDA, "auto")["train"]
    optimizer = Adam(model.parameters(), 0.01, CUDA)
    return optimizer_steps(model, loss, optimizer, held, clustering=None, device=CUDA, cuda_graphs=cuda_graphs)


def test_all_steps_are_recorded_and_nothing_is_said(caplog):
    with caplog.at_level(logging.INFO):
        steps = steps_on_a_gpu()
        assert isinstance(steps, RecordedSteps)
        losses = [steps.run_epoch()[0] for _ in range(6)]
    assert [record.getMessage() for record in caplog.records if "kernel by kernel" in record.getMessage()] == []
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("cuda_graphs", [False, "auto"])
def test_no_step_waits_for_the_gpu(cuda_graphs):
    steps = steps_on_a_gpu(cuda_graphs)
    for _ in range(4):
        steps.run_epoch()
    batches = {data_key: next(iter(served)) for data_key, served in steps.served().items()}
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for data_key, batch in batches.items():
            steps.add_gradients(data_key, batch)
        steps.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_learning_rate_of_recorded_steps_changes():
    steps = steps_on_a_gpu()
    for _ in range(4):
        steps.run_epoch()
    steps.optimizer.learning_rate = 0.0
    before = [parameter.detach().clone() for parameter in steps.model.parameters()]
    steps.run_epoch()
    assert all(torch.equal(one, other) for one, other in zip(steps.model.parameters(), before, strict=True))


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_other_precisions_train_as_well(precision):
    expected, other = train(max_iter=12), train(max_iter=12, precision=precision)
    assert other[0] == pytest.approx(expected[0], abs=0.1)


def test_the_validation_correlation_is_that_of_the_cpu():
    model, loaders = make_model().eval(), session_loaders()["validation"]
    expected = validation_correlation(model, loaders, device=torch.device("cpu"))
    assert validation_correlation(model, loaders, device=CUDA) == pytest.approx(expected, abs=1e-4)
    assert correlations_on_device(torch.rand(9, 5, device=CUDA), torch.rand(9, 5, device=CUDA))[0].device.type == "cuda"
