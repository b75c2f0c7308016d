"""The adaptive log-normal regularizer, against plain loops and numbers worked out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from december_plugin.models.layers.regularizers import adaptive_log_normal_penalties, l1_penalties

numbers = st.floats(-3, 3, width=32)


def test_worked_example():
    # 2 * 0.5 * (1 + 3) + (ln 0.5 / 0.1)^2, and 2 * 1 * 2 + 0.
    vectors = torch.tensor([[1.0, -3.0], [0.0, 2.0]])
    penalties = adaptive_log_normal_penalties(vectors, torch.tensor([-0.5, 1.0]), gamma_w=2.0, gamma_sigma=0.1)
    torch.testing.assert_close(penalties, torch.tensor([4 + (math.log(2) / 0.1) ** 2, 4.0]))


@given(
    st.integers(1, 5).flatmap(
        lambda n: st.tuples(
            st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=n, max_size=n),
            st.lists(numbers.filter(lambda a: abs(a) > 1e-3), min_size=n, max_size=n),
        )
    ),
    st.floats(0, 10),
    st.floats(0.05, 2),
)
@settings(max_examples=60, deadline=None)
def test_equals_a_plain_loop(case, gamma_w, gamma_sigma):
    vectors, coefficients = case
    expected = 0.0
    for w, a in zip(vectors, coefficients, strict=True):
        expected += gamma_w * abs(a) * sum(abs(value) for value in w)
        expected += math.log(abs(a)) ** 2 / gamma_sigma**2
    total = adaptive_log_normal_penalties(
        torch.tensor(vectors, dtype=torch.float64),
        torch.tensor(coefficients, dtype=torch.float64),
        gamma_w=gamma_w,
        gamma_sigma=gamma_sigma,
    ).sum()
    assert float(total) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_gradients():
    torch.manual_seed(0)
    vectors = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    coefficients = torch.tensor([0.5, -0.9, 1.0, 1.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda w, a: adaptive_log_normal_penalties(w, a, gamma_w=1.5, gamma_sigma=0.3), (vectors, coefficients)
    )


def test_learned_coefficients_meet_the_closed_form():
    # d/da [c a + (log a)^2 / s^2] = 0 at a log-scale x = log a with c e^x = -2 x / s^2.
    vectors = torch.tensor([[0.2], [3.0], [40.0]], dtype=torch.float64)
    coefficients = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([coefficients], lr=1e-3)
    for _ in range(150):
        optimizer.zero_grad()
        adaptive_log_normal_penalties(vectors, coefficients, gamma_sigma=0.1).sum().backward()
        optimizer.step()
    logs = coefficients.detach().log()
    torch.testing.assert_close(vectors[:, 0] * logs.exp(), -2 * logs / 0.1**2, rtol=1e-6, atol=1e-8)
    assert (logs.diff() < 0).all()  # the stronger a neuron's weights, the smaller its coefficient


def test_does_not_mix_neurons():
    torch.manual_seed(0)
    vectors, coefficients = torch.randn(5, 4), torch.rand(5) + 0.5
    together = adaptive_log_normal_penalties(vectors, coefficients)
    alone = [adaptive_log_normal_penalties(vectors[i : i + 1], coefficients[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_plain_l1():
    torch.testing.assert_close(l1_penalties(torch.tensor([[1.0, -2.0], [0.0, 0.5]])), torch.tensor([3.0, 0.5]))
