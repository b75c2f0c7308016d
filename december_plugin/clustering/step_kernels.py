"""The DECEMber step on a GPU as Triton kernels between matrix products; importing it needs Triton.

Plain operations read and write tensors of (clusters, neurons) about fifty times in a step, which is most of its time on
a GPU. Here a program holds all clusters of some neurons in its registers, in float64 where the plain step uses float64,
and reads and writes such a tensor once for each quantity that a step needs: responsibilities, logits' gradients, those
of the distances, and the weights of the M-step. Each program has its own sums over neurons, which are added up in a
fixed order: the same input gives the same bytes. Nothing waits for the GPU, and shapes alone decide what is launched.

With ``TRITON_INTERPRET=1`` in the environment the kernels run on the CPU, slowly.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from december_plugin.clustering.distances import DiagonalDistances, FiniteVectors, ShiftedVectors
from december_plugin.clustering.moments import Moments
from december_plugin.clustering.student_t_mixture import SMALLEST_Q, StudentTMixture

TILE = 2048  # numbers in a tile of (clusters, neurons): eight for each thread
ELEMENTS = 1024  # numbers in a tile of (neurons, features)


@triton.jit
def _tile(n, k, row, NEURONS: tl.constexpr, CLUSTERS: tl.constexpr):
    """Return clusters, neurons, the offsets of their tile in memory with ``row`` numbers for a cluster, and a mask."""
    cluster = tl.arange(0, CLUSTERS)
    neuron = tl.program_id(0).to(tl.int64) * NEURONS + tl.arange(0, NEURONS)
    offsets = cluster[:, None].to(tl.int64) * row + neuron[None, :]
    return cluster, neuron, offsets, (cluster < k)[:, None] & (neuron < n)[None, :]


@triton.jit
def _features(w, shift, out, n, d, row, column, ELEMENTS: tl.constexpr):
    """Write ``[x^2, x]`` with ``x = w - shift``."""
    element = tl.program_id(0).to(tl.int64) * ELEMENTS + tl.arange(0, ELEMENTS)
    i, j = element // d, element % d
    present = element < n * d
    x = tl.load(w + i * row + j * column, mask=present, other=0).to(tl.float64)
    x -= tl.load(shift + j, mask=present, other=0)
    tl.store(out + i * 2 * d + j, x * x, mask=present)
    tl.store(out + i * 2 * d + d + j, x, mask=present)


@triton.jit
def _vector_gradients(slopes, w, shift, out, n, d, row, column, ELEMENTS: tl.constexpr):
    """Write ``a x + b`` with slopes ``[a, b]``, the gradient in ``w``."""
    element = tl.program_id(0).to(tl.int64) * ELEMENTS + tl.arange(0, ELEMENTS)
    i, j = element // d, element % d
    present = element < n * d
    x = tl.load(w + i * row + j * column, mask=present, other=0).to(tl.float64)
    x -= tl.load(shift + j, mask=present, other=0)
    gradient = tl.load(slopes + i * 2 * d + j, mask=present, other=0) * x
    gradient += tl.load(slopes + i * 2 * d + d + j, mask=present, other=0)
    tl.store(out + element, gradient.to(tl.float32), mask=present)


@triton.jit
def _posterior(
    products, offsets, constants, log_q, q, u, log_likelihoods, sums, n, k, products_row, row,
    DOF: tl.constexpr, SLOPE: tl.constexpr, LOG_FLOOR: tl.constexpr, NEURONS: tl.constexpr, CLUSTERS: tl.constexpr,
):  # fmt: skip
    """Do the E-step of some neurons, all but the product of features and coefficients."""
    cluster, neuron, at, known = _tile(n, k, row, NEURONS, CLUSTERS)
    at_products = cluster[:, None].to(tl.int64) * products_row + neuron[None, :]
    delta = tl.load(products + at_products, mask=known, other=0)
    delta += tl.load(offsets + cluster, mask=cluster < k, other=float("inf"))[:, None]
    delta = tl.where(delta < 0, 0, delta)  # and NaN stays NaN
    nearest = tl.min(delta, axis=0)
    reach = nearest + DOF
    stretch = 1 + (delta - nearest[None, :]) * (1 / reach)[None, :]
    constant = tl.load(constants + cluster, mask=cluster < k, other=-float("inf"))
    logits = constant[:, None] + SLOPE * tl.log(stretch)
    most = tl.max(logits, axis=0)
    logits = tl.maximum(logits - most[None, :], LOG_FLOOR)
    unscaled = tl.where(known, tl.exp(logits.to(tl.float32)), 0)
    total = tl.where(neuron < n, tl.sum(unscaled, axis=0), 1)
    log_total = tl.log(total.to(tl.float64))
    share = unscaled / total[None, :]
    tl.store(q + at, share, mask=known)
    tl.store(log_q + at, (logits - log_total[None, :]).to(tl.float32), mask=known)
    tl.store(u + at, (-2 * SLOPE / reach).to(tl.float32)[None, :] / stretch.to(tl.float32), mask=known)
    of_nearest = SLOPE * tl.log(1 + nearest / DOF)
    tl.store(log_likelihoods + neuron, of_nearest + most + log_total, mask=neuron < n)
    of_program = tl.sum(tl.where(known, share, 0), axis=1)
    tl.store(sums + tl.program_id(0) * k + cluster, of_program, mask=cluster < k)


@triton.jit
def _logit_gradients(
    log_q, q, log_sums, losses, flows, n, k, row,
    FLOWS: tl.constexpr, NEURONS: tl.constexpr, CLUSTERS: tl.constexpr,
):  # fmt: skip
    """Write ``q - p + 2 t``, or ``q - p``, over ``log_q``, and the program's parts of loss and ``sum_i t``."""
    cluster, neuron, at, known = _tile(n, k, row, NEURONS, CLUSTERS)
    share = tl.load(q + at, mask=known, other=0)
    log_sum = tl.load(log_sums + cluster, mask=cluster < k, other=0)
    target = share * share * tl.exp(-log_sum)[:, None]
    norm = tl.where(neuron < n, tl.sum(target, axis=0), 1)
    target = target / norm[None, :]
    ratio = tl.load(log_q + at, mask=known, other=0) - log_sum[:, None]
    mean = tl.sum(target * ratio, axis=0)
    loss = mean.to(tl.float64) - tl.log(norm.to(tl.float64))
    tl.store(losses + tl.program_id(0), tl.sum(loss, axis=0))
    gradient = share - target
    if FLOWS:
        flow = target * (ratio - mean[None, :])
        gradient += 2 * flow
        tl.store(flows + tl.program_id(0) * k + cluster, tl.sum(flow, axis=1), mask=cluster < k)
    tl.store(log_q + at, gradient, mask=known)


@triton.jit
def _coefficients(
    gradients, q, u, sum_gradients, scale, out, n, k, row,
    FLOWS: tl.constexpr, NEURONS: tl.constexpr, CLUSTERS: tl.constexpr,
):  # fmt: skip
    """Write the gradients with respect to the distances, float64."""
    cluster, neuron, at, known = _tile(n, k, row, NEURONS, CLUSTERS)
    gradient = tl.load(gradients + at, mask=known, other=0)
    if FLOWS:
        share = tl.load(q + at, mask=known, other=0)
        of_sum = tl.load(sum_gradients + cluster, mask=cluster < k, other=0)[:, None]
        gradient += share * (tl.sum(of_sum * share, axis=0)[None, :] - of_sum)
    gradient *= tl.load(u + at, mask=known, other=0) * tl.load(scale)
    at_out = cluster[:, None].to(tl.int64) * n + neuron[None, :]
    tl.store(out + at_out, gradient.to(tl.float64), mask=known)


@triton.jit
def _weights(q, u, out, weights, masses, n, k, row, NEURONS: tl.constexpr, CLUSTERS: tl.constexpr):
    """Write ``q u``, float64, and the program's parts of the sums of it and of ``q``."""
    cluster, neuron, at, known = _tile(n, k, row, NEURONS, CLUSTERS)
    share = tl.load(q + at, mask=known, other=0).to(tl.float64)
    weight = share * tl.load(u + at, mask=known, other=0)
    at_out = cluster[:, None].to(tl.int64) * n + neuron[None, :]
    tl.store(out + at_out, weight, mask=known)
    tl.store(weights + tl.program_id(0) * k + cluster, tl.sum(weight, axis=1), mask=cluster < k)
    tl.store(masses + tl.program_id(0) * k + cluster, tl.sum(share, axis=1), mask=cluster < k)


class KernelLoss(torch.autograd.Function):
    """The clustering loss, arguments and results as :class:`~december_plugin.clustering.losses.ClusteringLoss`."""

    @staticmethod
    def forward(
        ctx: Any, w: Tensor, mixture: StudentTMixture, detach_target: bool, seen: FiniteVectors
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, and responsibilities and precisions (K, N)."""
        n, k = len(w), mixture.n_clusters
        distances = DiagonalDistances(w, mixture.centers, mixture.scales, asynchronous=True)
        log_q, q, u = (w.new_empty((k, n), dtype=torch.float32) for _ in range(3))
        log_likelihoods = distances.shift.new_empty(n)
        constants = mixture.log_constants()
        sums = distances.shift.new_zeros(k)
        with torch.cuda.device_of(w):
            for rows in distances.rows():
                products = distances.coefficients @ _features_of(distances, rows).t()
                out = log_q[:, rows], q[:, rows], u[:, rows], log_likelihoods[rows]
                sums += _posterior_of(products, distances.offsets, constants, mixture, out)
            seen.note(log_likelihoods)
            loss, sum_gradients = _gradients_of(log_q, q, sums, detach_target=detach_target)
        ctx.distances, ctx.sum_gradients = distances, sum_gradients
        ctx.save_for_backward(w, q, u, log_q)
        ctx.mark_non_differentiable(q, u)
        ctx.set_materialize_grads(False)
        return loss.float(), q, u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor | None, *_: None) -> tuple[Tensor | None, None, None, None]:
        """Return the gradient with respect to the vectors."""
        if loss_gradient is None:
            return None, None, None, None
        w, q, u, logit_gradients = ctx.saved_tensors
        distances: DiagonalDistances = ctx.distances
        n, d = w.shape
        k = len(q)
        scale = (-0.5 * loss_gradient).float()
        slopes = torch.cat([2 * distances.coefficients[:, :d], distances.coefficients[:, d:]], dim=1)
        gradient = torch.empty(n, d, dtype=w.dtype, device=w.device)
        flows = ctx.sum_gradients is not None
        with torch.cuda.device_of(w):
            for rows in distances.rows():
                block = w[rows]
                coefficients = slopes.new_empty(k, len(block))
                _coefficients[_programs(len(block), k)](
                    logit_gradients[:, rows], q[:, rows], u[:, rows], ctx.sum_gradients if flows else scale, scale,
                    coefficients, len(block), k, n, FLOWS=flows, **_shape(k),
                )  # fmt: skip
                _vector_gradients[(triton.cdiv(block.numel(), ELEMENTS),)](
                    coefficients.t() @ slopes, block, distances.shift, gradient[rows], len(block), d, *block.stride(),
                    ELEMENTS=ELEMENTS,
                )  # fmt: skip
        return gradient, None, None, None


def kernel_moments(vectors: ShiftedVectors, q: Tensor, u: Tensor) -> Moments:
    """Return the sums of the M-step; ``q`` and ``u`` (K, N) float32."""
    moments = Moments(vectors)
    k, n = q.shape
    q, u = q.contiguous(), u.contiguous()
    with torch.cuda.device_of(q):
        for rows in vectors.rows():
            features = _features_of(vectors, rows)
            programs = _programs(len(features), k)
            weights = features.new_empty(k, len(features))
            parts, masses = (features.new_empty(*programs, k) for _ in range(2))
            _weights[programs](q[:, rows], u[:, rows], weights, parts, masses, len(features), k, n, **_shape(k))
            moments.features += weights @ features
            moments.weights += parts.sum(dim=0)[:, None]
            moments.masses += masses.sum(dim=0)[:, None]
    return moments


def _shape(k: int) -> dict[str, int]:
    """Return the shape of a tile of all clusters and some neurons, and the threads that work on it."""
    clusters = triton.next_power_of_2(k)
    return {"NEURONS": max(2, min(64, TILE // clusters)), "CLUSTERS": clusters, "num_warps": 8}


def _programs(n: int, k: int) -> tuple[int]:
    return (triton.cdiv(n, _shape(k)["NEURONS"]),)


def _features_of(vectors: ShiftedVectors, rows: slice) -> Tensor:
    """Return the features (B, 2 D), float64, of a block."""
    block = vectors.w[rows]
    n, d = block.shape
    features = vectors.shift.new_empty(n, 2 * d)
    _features[(triton.cdiv(n * d, ELEMENTS),)](block, vectors.shift, features, n, d, *block.stride(), ELEMENTS=ELEMENTS)
    return features


def _posterior_of(
    products: Tensor, offsets: Tensor, constants: Tensor, mixture: StudentTMixture, out: tuple[Tensor, ...]
) -> Tensor:
    """Write the E-step of a block to ``out``; return the sums (K,) of its responsibilities."""
    k, n = products.shape
    sums = offsets.new_empty(*_programs(n, k), k)
    _posterior[_programs(n, k)](
        products, offsets, constants, *out, sums, n, k, products.stride(0), out[0].stride(0),
        DOF=mixture.dof, SLOPE=-(mixture.dof + mixture.n_features) / 2, LOG_FLOOR=math.log(SMALLEST_Q[torch.float32]),
        **_shape(k),
    )  # fmt: skip
    return sums.sum(dim=0)


def _gradients_of(log_q: Tensor, q: Tensor, sums: Tensor, *, detach_target: bool) -> tuple[Tensor, Tensor | None]:
    """Write the logits' gradients over ``log_q`` (K, N); return the loss and the gradients of the sums (K,) or None."""
    # Only ratios of the sums matter, and numbers near 1 have logarithms that float32 resolves well.
    k, n = q.shape
    programs = _programs(n, k)
    losses, flows = sums.new_empty(programs), sums.new_empty(*programs, k)
    _logit_gradients[programs](
        log_q, q, (sums / sums.mean()).log().float(), losses, flows, n, k, n, FLOWS=not detach_target, **_shape(k)
    )
    return losses.sum(), None if detach_target else (flows.sum(dim=0) / sums).float()
