"""The precision of convolutions: what runs in it, what does not, and that a training knows of it."""

from __future__ import annotations

import pytest
import torch

from december_plugin.errors import MisfitError, SettingsError
from december_plugin.training.precision import core_precision
from december_plugin.training.settings import TrainingSettings
from helpers.interrupted import Interrupted, Recorder, train
from helpers.trainings import make_model

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("own_pretrainings")


def test_only_the_convolutions_of_the_core_are_bfloat16():
    model, images = make_model().eval(), torch.randn(4, 1, 8, 8)
    expected = model(images, data_key="one")
    seen = []
    model.core.features.layer0.conv.register_forward_hook(lambda _, given, made: seen.append(made.dtype))
    before = dict(vars(model.core))
    with core_precision(model, "bf16", CPU):
        features = model.core(images)
        rates = model(images, data_key="one")
        rates.sum().backward()
    assert seen == [torch.bfloat16] * 2
    assert (features.dtype, rates.dtype) == (torch.float32, torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in model.parameters() if parameter.grad is not None} == {torch.float32}
    assert 0 < (rates - expected).abs().max() < 0.1
    assert vars(model.core) == before
    assert torch.equal(model(images, data_key="one"), expected)


def test_the_core_is_as_before_after_an_error():
    model = make_model()
    with pytest.raises(ZeroDivisionError), core_precision(model, "bf16", CPU):
        raise ZeroDivisionError
    assert "forward" not in vars(model.core)


def test_a_model_without_a_core():
    message = r"precision is 'bf16', which applies to the model's core, but Linear has none\. Use 'tf32' or 'float32'\."
    with pytest.raises(MisfitError, match=message), core_precision(torch.nn.Linear(1, 1), "bf16", CPU):
        pass


def test_without_a_gpu_tf32_is_float32():
    assert train(max_iter=2, precision="tf32")[2] == train(max_iter=2)[2]


def test_another_precision_is_another_training():
    expected = train(max_iter=3, precision="bf16")
    assert expected != train(max_iter=3)
    recorder = Recorder(stop=1)
    with pytest.raises(Interrupted):
        train(recorder, max_iter=3, precision="bf16")
    assert train(Recorder(recorder.states[1]), max_iter=3, precision="bf16") == expected
    other = Recorder(recorder.states[1])
    train(other, max_iter=3)
    assert [progress.epoch for progress in other.progress] == [1, 2, 3]  # it began anew


def test_another_precision_is_another_pretraining():
    usual = TrainingSettings(pretrain_epochs=2).pretraining()
    assert TrainingSettings(pretrain_epochs=2, precision="bf16").pretraining() == {**usual, "precision": "bf16"}


def test_an_unknown_precision():
    message = r"^precision is 'fp16'\. .*Allowed: bf16, float32, tf32\.$"
    with pytest.raises(SettingsError, match=message):
        train(precision="fp16")


@pytest.mark.parametrize(("precision", "expected"), [("float32", False), ("tf32", True), ("bf16", True)])
@pytest.mark.parametrize("before", [True, False])
def test_for_a_gpu_convolutions_are_float32_unless_something_else_is_asked_for(
    precision, expected, before, monkeypatch
):
    """By torch's own default they are TF32 there."""
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", before)
    with core_precision(make_model(), precision, torch.device("cuda")):
        assert cudnn.allow_tf32 is expected
    assert cudnn.allow_tf32 is before
    with core_precision(make_model(), precision, CPU):
        assert cudnn.allow_tf32 is before


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="needs torch 2.9")
def test_a_precision_that_was_set_for_single_operations_is_put_back():
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    try:
        convolutions.fp32_precision = "ieee"
        with core_precision(make_model(), "tf32", torch.device("cuda")):
            assert convolutions.fp32_precision == "tf32"
            assert torch.backends.cudnn.allow_tf32
        assert convolutions.fp32_precision == "ieee"
    finally:
        convolutions.fp32_precision = before
