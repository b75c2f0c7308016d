"""The Student-t mixture in plain loops, and problems for it."""

import math

import numpy as np
import torch
from scipy.special import rel_entr

from december_plugin.clustering.student_t_mixture import StudentTMixture


def make_mixture(centers, scales, *, mixing_weights=None, **settings_):
    centers = np.asarray(centers, dtype=float)
    mixture = StudentTMixture(*centers.shape, **settings_)
    mixture.centers.copy_(torch.as_tensor(centers))
    mixture.scales.copy_(torch.as_tensor(np.asarray(scales, dtype=float)))
    if mixing_weights is not None:
        mixture.mixing_weights.copy_(torch.as_tensor(np.asarray(mixing_weights, dtype=float)))
    return mixture


def random_problem(n, k, d, seed=0, *, separation=1.0, dtype=np.float64):
    """Vectors around ``k`` centres, and a mixture that is close to them but not fitted."""
    rng = np.random.default_rng(seed)
    centers = separation * rng.standard_normal((k, d))
    w = (centers[rng.integers(0, k, n)] + rng.standard_normal((n, d))).astype(dtype)
    return w, centers + 0.1 * rng.standard_normal((k, d)), rng.uniform(0.5, 2.0, (k, d))


def loop_e_step(w, centers, scales, pi, nu):
    """Return responsibilities, precisions, log evidence and log densities in float64, one cluster at a time."""
    w, d = w.astype(float), w.shape[1]
    delta = np.stack([((w - m) ** 2 / s).sum(1) for m, s in zip(centers, scales, strict=True)], axis=1)
    log_t = (
        math.lgamma((nu + d) / 2)
        - math.lgamma(nu / 2)
        - d / 2 * math.log(nu * math.pi)
        - 0.5 * np.log(scales).sum(1)
        - (nu + d) / 2 * np.log1p(delta / nu)
    )
    joint = log_t + np.log(pi)
    top = joint.max(1, keepdims=True)
    evidence = top + np.log(np.exp(joint - top).sum(1, keepdims=True))
    return np.exp(joint - evidence), (nu + d) / (nu + delta), evidence[:, 0], log_t


def loop_m_step(w, q, u, bounds):
    """Return centres, scales and mixing weights, scalar by scalar."""
    (n, d), k = w.shape, q.shape[1]
    centers, scales = np.zeros((k, d)), np.zeros((k, d))
    for j in range(k):
        for f in range(d):
            weight = [q[i, j] * u[i, j] for i in range(n)]
            centers[j, f] = math.fsum(a * w[i, f] for i, a in enumerate(weight)) / math.fsum(weight)
            spread = math.fsum(a * (w[i, f] - centers[j, f]) ** 2 for i, a in enumerate(weight))
            scales[j, f] = min(max(spread / math.fsum(q[:, j]), bounds[0]), bounds[1])
    return centers, scales, q.sum(0) / n


def plain_loss(w, centers, scales, nu=2.1):
    """Return the clustering loss with uniform weights, as the paper's section 3 has it."""
    q, *_ = loop_e_step(w, centers, scales, np.full(len(centers), 1 / len(centers)), nu)
    p = q**2 / q.sum(0)
    p /= p.sum(1, keepdims=True)
    return float(rel_entr(p, q).sum())
