"""Optimizer steps: recorded ones do what the others do, and none waits for the device."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from december_plugin.embeddings.functional import feature_covariance
from december_plugin.training.clustering_phase import ClusteringPhase
from december_plugin.training.objective import ModelLoss
from december_plugin.training.resident import resident_loaders
from december_plugin.training.settings import ClusteringSettings
from december_plugin.training.steps import OptimizerSteps, RecordedSteps, optimizer_steps, why_not_recorded
from helpers.resident import session_loaders
from helpers.tape import TapeRecorder, no_waiting
from helpers.trainings import make_model

CPU = torch.device("cpu")


def steps_of(kind, *, clustered=False, streamed=False, **settings):
    torch.manual_seed(1)
    model, loaders = make_model(), session_loaders()
    loss = ModelLoss(model, loaders["train"], scale_loss=True, device=CPU)
    # The form that a GPU's has: the step count is not read.
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, fused=True)
    clustering = None
    if clustered:
        with torch.no_grad():  # readout vectors all begin with the same value, and cannot be clustered
            for readout in model.readout.values():
                readout.features.add_(0.1 * torch.randn(readout.features.shape))
        space = {"space": "functional", "normalize": "l2"} if clustered == "functional" else {}
        clustering = ClusteringPhase(ClusteringSettings(n_clusters=2, strength=0.01, **space))
        clustering.measure_by(lambda model: feature_covariance(model, loaders), model)
        clustering.begin(model, seed=1)
        clustering.regularizer.asynchronous = True  # as on a GPU
    held = resident_loaders(loaders, CPU, "inputs" if streamed else True)["train"]
    return kind(model, loss, optimizer, held, clustering=clustering, device=CPU, **settings)


def epochs_of(steps):
    """Return the losses of four epochs; a covariance that is taken anew reaches the steps that are recorded by then."""
    losses = []
    for _ in range(4):
        if steps.clustering is not None:
            steps.clustering.begin_epoch(steps.model)
        losses.append(steps.run_epoch())
    return losses


def state_of(steps):
    mixture = steps.clustering.tensors() if steps.clustering is not None else []
    return [*steps.model.state_dict().values(), *mixture]


@pytest.mark.parametrize("clustered", [False, True, "functional"])
def test_recorded_steps_are_the_same_steps(clustered, caplog):
    """Sessions of 40 and 27 trials: the last batch of the second is smaller."""
    plain, recorder = steps_of(OptimizerSteps, clustered=clustered), TapeRecorder()
    losses = epochs_of(plain)
    # The responses as they come from the host, too.
    recorded = steps_of(RecordedSteps, clustered=clustered, streamed=bool(clustered), recorder=recorder)
    again = epochs_of(recorded)
    torch.testing.assert_close(torch.tensor(again), torch.tensor(losses), equal_nan=True)
    for one, other in zip(state_of(recorded), state_of(plain), strict=True):
        torch.testing.assert_close(one, other)
    assert recorder.recorded == 4  # full batches of both sessions, the smaller one, and the update
    assert caplog.records == []


@pytest.mark.parametrize("kind", [OptimizerSteps, RecordedSteps])
@pytest.mark.parametrize("clustered", [False, True, "functional"])
def test_no_step_waits_for_the_device(kind, clustered):
    steps = steps_of(kind, clustered=clustered, **({"recorder": TapeRecorder()} if kind is RecordedSteps else {}))
    batches = [next(iter(loader)) for loader in steps.served().values()]
    steps.run_epoch()
    with no_waiting():
        for data_key, batch in zip(steps.served(), batches, strict=True):
            steps.add_gradients(data_key, batch)
        steps.update()


def test_recordings_are_given_back():
    recorder = TapeRecorder()
    steps = steps_of(RecordedSteps, recorder=recorder)
    for _ in range(2):
        steps.run_epoch()
    recordings = [weakref.ref(tape) for tape in recorder.tapes]
    recorder.tapes.clear()
    assert len([recording for recording in recordings if recording() is not None]) == 3
    gc.disable()
    try:
        steps.release()
        assert [recording() for recording in recordings] == [None] * 3
    finally:
        gc.enable()


class OfALab(nn.Linear):
    pass


def test_why_steps_are_not_recorded():
    loaders, device = session_loaders()["train"], torch.device("cuda")
    held = resident_loaders(session_loaders(), CPU, True)["train"]
    model = make_model()
    assert why_not_recorded(model, held, CPU, any_layers=True) == (
        "CUDA graphs need a GPU, and the training runs on cpu"
    )
    assert why_not_recorded(model, loaders, device, any_layers=True) == "the data are not on the device"
    assert why_not_recorded(model, held, device, any_layers=False) is None
    model.core.extra = OfALab(2, 2)
    reason = why_not_recorded(model, held, device, any_layers=False)
    assert reason is not None
    assert reason.startswith("core.extra is a OfALab of ")
    assert reason.endswith(
        ", which may do something in Python that a replay would not repeat; cuda_graphs: true records it nevertheless"
    )
    assert why_not_recorded(model, held, device, any_layers=True) is None


def test_steps_that_cannot_be_recorded_are_made_as_they_are(caplog):
    for setting, messages in (("auto", []), (False, []), (True, ["CUDA graphs need a GPU, and the training runs on"])):
        caplog.clear()
        steps = steps_of(optimizer_steps, cuda_graphs=setting)
        assert type(steps) is OptimizerSteps
        assert all(message in caplog.text for message in messages)
        assert len(caplog.records) == len(messages)
