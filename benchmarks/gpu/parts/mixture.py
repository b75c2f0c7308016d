"""Errors of the Student-t mixture and of the clustering losses against float64 on the CPU.

The reference is the plain equations, with autograd for the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.em_step import DOF, make_data
from benchmarks.gpu.errors import relative_error
from benchmarks.gpu.rows import Row, Target
from december_plugin.clustering.losses import DECEMber, VanillaDEC

LIMIT_S = 35
SIZE = (54_569, 128, 100)  # neurons, features, clusters
TINY = (300, 8, 5)
CLOSE = Target(at_most=1e-5, everywhere=True)
CLOSE_GRADIENT = Target(at_most=1e-4, everywhere=True)


def measure(device: str, *, tiny: bool) -> Iterator[Row]:
    n, d, k = TINY if tiny else SIZE
    data, start = (torch.from_numpy(array) for array in make_data(n, d, k))
    for detach_target in (False, True):
        kind = "constant target" if detach_target else "gradient through the target"
        w = data.to(device, copy=True).requires_grad_()
        december = DECEMber(k, d, dof=DOF, detach_target=detach_target).to(device)
        december.mixture.centers.copy_(start)
        december.mixture.scales.fill_(1)
        loss = december.loss(w)
        loss.backward()
        december.m_step(w)
        reference = _student_t(data.double(), start.double(), detach_target=detach_target)
        yield Row(f"DECEMber's loss, {kind}", relative_error(loss, reference["loss"]), "", CLOSE)
        yield Row(f"its gradient, {kind}", relative_error(w.grad, reference["gradient"]), "", CLOSE_GRADIENT)
    mixture = december.mixture
    yield Row("M-step: centres", relative_error(mixture.centers, reference["centers"]), "", CLOSE)
    yield Row("M-step: scales", relative_error(mixture.scales, reference["scales"]), "", CLOSE)
    mixture.centers.copy_(start)
    mixture.scales.fill_(1)
    q, u = mixture.e_step(data.to(device))
    yield Row("E-step: responsibilities", relative_error(q, reference["q"]), "", CLOSE)
    yield Row("E-step: weights u", relative_error(u, reference["u"]), "", CLOSE)
    w = data.to(device, copy=True).requires_grad_()
    dec = VanillaDEC(k, d).to(device)
    dec.centers.data.copy_(start)
    dec.loss(w).backward()
    gradient = _vanilla_gradient(data.double(), start.double())
    yield Row("vanilla DEC's gradient", relative_error(w.grad, gradient), "", CLOSE_GRADIENT)


def _distances(w: Tensor, centers: Tensor) -> Tensor:
    """Return squared distances (N, K); float64 leaves 10 digits of the difference."""
    return (w * w).sum(1, keepdim=True) - 2 * w @ centers.T + (centers * centers).sum(1)


def _divergence(log_q: Tensor, *, detach_target: bool) -> Tensor:
    log_p = torch.log_softmax(2 * log_q - log_q.exp().sum(0).log(), dim=1)
    log_p = log_p.detach() if detach_target else log_p
    return (log_p.exp() * (log_p - log_q)).sum()


def _student_t(w: Tensor, centers: Tensor, *, detach_target: bool) -> dict[str, Tensor]:
    """One step from unit scales: the loss, its gradient, responsibilities, and the centres and scales afterwards."""
    d = w.shape[1]
    vectors = w.clone().requires_grad_()
    delta = _distances(vectors, centers)
    constant = math.lgamma((DOF + d) / 2) - math.lgamma(DOF / 2) - d / 2 * math.log(DOF * math.pi)
    log_q = torch.log_softmax(constant - (DOF + d) / 2 * torch.log1p(delta / DOF), dim=1)
    loss = _divergence(log_q, detach_target=detach_target)
    loss.backward()
    q, u = log_q.exp().detach(), (DOF + d) / (DOF + delta.detach())
    qu = q * u
    means = qu.T @ w / qu.sum(0)[:, None]
    squares = qu.T @ (w * w) - 2 * means * (qu.T @ w) + means**2 * qu.sum(0)[:, None]
    scales = (squares / q.sum(0)[:, None]).clamp(1e-4, 1e4)
    return {"loss": loss, "gradient": vectors.grad, "q": q, "u": u, "centers": means, "scales": scales}


def _vanilla_gradient(w: Tensor, centers: Tensor) -> Tensor:
    vectors = w.clone().requires_grad_()
    log_q = torch.log_softmax(-torch.log1p(_distances(vectors, centers)), dim=1)
    _divergence(log_q, detach_target=False).backward()
    return vectors.grad
