"""Adam in the form that suits the device."""

from __future__ import annotations

import copy

import pytest
import torch

from december_plugin.training.optimizer import Adam

CPU = torch.device("cpu")


def parameters():
    generator = torch.Generator().manual_seed(0)
    shapes = [(), (7,), (16, 1, 7, 7), (1, 16, 1, 50), (33, 65)]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def train(optimizer, trained, steps, *, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in trained:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def test_on_the_cpu_the_numbers_are_those_of_torchs_default_to_the_last_bit():
    ours, theirs = parameters(), parameters()
    own, reference = Adam(ours, 0.009, CPU), torch.optim.Adam(theirs, lr=0.009)
    for rate in (0.009, 0.0027, 0.0001):
        own.learning_rate = rate
        reference.param_groups[0]["lr"] = rate
        train(own, ours, 20)
        train(reference, theirs, 20)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("form", [{}, {"fused": True}, {"foreach": False}])
def test_the_state_of_another_form_is_taken_over_and_the_form_is_kept(form):
    first, second = parameters(), parameters()
    other = torch.optim.Adam(first, lr=torch.tensor(0.01) if form.get("fused") else 0.01, **form)
    train(other, first, 3)
    own = Adam(second, 0.5, CPU)
    own.load_state_dict(copy.deepcopy(other.state_dict()))
    with torch.no_grad():
        for target, source in zip(second, first, strict=True):
            target.copy_(source)
    assert own.learning_rate == pytest.approx(0.01)
    assert own.param_groups[0]["foreach"] is True
    assert not own.param_groups[0]["fused"]
    train(other, first, 3, seed=2)
    train(own, second, 3, seed=2)
    for one, expected in zip(second, first, strict=True):
        torch.testing.assert_close(one, expected)


@pytest.mark.gpu
def test_on_a_gpu_the_learning_rate_stays_in_the_same_memory():
    device = torch.device("cuda")
    trained = [torch.nn.Parameter(parameter.detach().to(device)) for parameter in parameters()]
    optimizer = Adam(trained, 0.009, device)
    memory = optimizer.param_groups[0]["lr"].data_ptr()
    optimizer.learning_rate = 0.0027
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.learning_rate == 0.0027
    assert optimizer.param_groups[0]["lr"].data_ptr() == memory
